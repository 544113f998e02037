"""Edits of latents with every kind of label, with and without a conditional prior, against plain rejection sampling.

The bundles are made of numpy functions: a binary label of three latents, a categorical one of two, a binary one of one.
"""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from ccvae_deploy.bundle import Bundle
from ccvae_deploy.composer import Composer
from ccvae_deploy.edits import rejection
from ccvae_deploy.edits.closest_class import closest_class
from ccvae_deploy.errors import BundleError, UsageError
from ccvae_deploy.interventions import closest
from ccvae_deploy.schema import (
    GRAPHS,
    GraphFile,
    ImageSpec,
    Label,
    LabelSet,
    LatentLayout,
    LatentRange,
    Manifest,
    ModelSpec,
    graph_signature,
)

LABELS = LabelSet(
    labels=(
        Label(name="Pose", dims=3),
        Label(name="Hair", kind="categorical", classes=("black", "blond", "red"), dims=2),
        Label(name="Smiling"),
    )
)
LAYOUT = LatentLayout(blocks=(3, 2, 1), residual=2)
POSE, HAIR, SMILING = LAYOUT.slices
HEAD = np.zeros((6, 5), np.float32)
HEAD[POSE, 0] = 1.0, -0.5, 0.3
HEAD[HAIR, 1:4] = np.float32([[2, -1, -1], [0, 1.5, -1.5]])
HEAD[SMILING, 4] = 2
BIAS = np.float32([0.2, 0.1, 0, -0.1, -0.3])
MODES = np.random.default_rng(5).normal(size=(5, 6)).astype(np.float32)
SCALES = np.random.default_rng(6).uniform(0.5, 1.5, (5, 6)).astype(np.float32)
OWN = np.repeat(np.eye(3, dtype=np.float32)[[0, 1, 1, 1, 2]], [3, 2, 1], axis=1)
"""Which latents belong to which column of y, (5, 6)."""
COUNT = 100


def made_composer(family: str = "ccvae", head: np.ndarray = HEAD, batch_size: int = 16) -> Composer:
    files = {}
    for name in GRAPHS:
        if name == "conditional_prior" and family == "vae-classifier":
            continue
        inputs, outputs = graph_signature(name, LABELS, LAYOUT, ImageSpec(size=32))
        given = {"sha256": "0" * 64, "bytes": 1, "format": "onnx", "inputs": inputs, "outputs": outputs}
        files[name] = GraphFile(file=f"{name}.onnx", **given)
    manifest = Manifest(
        model=ModelSpec(family=family),
        labels=LABELS,
        layout=LAYOUT,
        image=ImageSpec(size=32),
        label_prior=(0.5,) * 5,
        latent_range=LatentRange(low=(-3.0,) * 8, high=(3.0,) * 8),
        files=files,
        provenance={},
    )

    def prior(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One loc and scale per state, within each label's own latents; a binary label's other state is mirrored."""
        state = np.where([True, False, False, False, True], 2 * y - 1, y).astype(np.float32)
        return state @ (2 * MODES * OWN), np.abs(state) @ (SCALES * OWN)

    graphs = {"classifier": lambda z: (z @ head + BIAS,), "conditional_prior": prior}
    return Composer(Bundle(manifest, "", "", "", {name: graphs[name] for name in files if name in graphs}), batch_size)


def sources(count: int = COUNT, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Latents, label probabilities and names."""
    z = np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32) * 2
    return z, probabilities(z), [f"{i}.png" for i in range(count)]


def probabilities(z: np.ndarray) -> np.ndarray:
    logits = (z[..., :6] @ HEAD + BIAS).astype(np.float64)
    odds = np.exp(logits[..., 1:4])
    both = 1 / (1 + np.exp(-logits))
    both[..., 1:4] = odds / odds.sum(axis=-1, keepdims=True)
    return both.astype(np.float32)


def edited(composer: Composer, *asked: str, count: int = COUNT, attempt: int = 0, **options) -> np.ndarray:
    z, before, names = sources(count)
    return composer.edited_latents(composer.request(asked, **options), z, before, names, attempt)


def prior_draws(family: str, label: int, state: np.ndarray) -> np.ndarray:
    """Many plain draws of one label's block at a state of y."""
    block = LAYOUT.slices[label]
    noise = np.random.default_rng(9).standard_normal((200_000, block.stop - block.start))
    if family == "vae-classifier":
        return noise
    loc, scale = made_composer().bundle.conditional_prior(state[None].astype(np.float32))
    return loc[0, block] + scale[0, block] * noise


@pytest.mark.parametrize("family", ["ccvae", "vae-classifier"])
@pytest.mark.parametrize("label", [0, 1, 2])
def test_vary_draws_the_prior_given_that_the_label_stays(family: str, label: int) -> None:
    composer, block, columns = made_composer(family), LAYOUT.slices[label], LABELS.columns[label]
    drawn = edited(composer, vary=[LABELS.names[label]], samples=30 if label == 1 else 100)
    z, before, _ = sources()
    rest = np.ones(8, bool)
    rest[block] = False
    assert (drawn[:, :, rest] == z[:, None, rest]).all()
    after = probabilities(drawn)
    if label == 1:
        state = before[:, columns].argmax(axis=1)
        assert (after[:, :, columns].argmax(axis=2) == state[:, None]).all()
    else:
        state = (before[:, columns.start] > 0.5).astype(int)
        assert ((after[:, :, columns.start] > 0.5) == state[:, None]).all()
    for chosen in range(3 if label == 1 else 2):
        y = np.array([0.0, 1, 0, 0, 0])
        y[columns] = np.eye(3)[chosen] if label == 1 else chosen
        plain = np.zeros((200_000, 8))
        plain[:, block] = prior_draws(family, label, y)
        kept = probabilities(plain)[:, columns]
        inside = kept.argmax(axis=1) == chosen if label == 1 else (kept[:, 0] > 0.5) == chosen
        expected = plain[inside, block]
        found = drawn[state == chosen][:, :, block].reshape(-1, expected.shape[1])
        assert len(found) > 500
        near = 5 * expected.std(axis=0) / np.sqrt(len(found))
        assert (np.abs(found.mean(axis=0) - expected.mean(axis=0)) < near).all()
        assert found.std(axis=0) == pytest.approx(expected.std(axis=0), rel=0.08)


def test_without_a_prior_sample_is_rejection_and_mean_its_mean() -> None:
    composer = made_composer("vae-classifier")
    plain = np.zeros((200_000, 8))
    plain[:, :6] = np.random.default_rng(3).standard_normal((200_000, 6))
    sure = probabilities(plain)
    for asked, block, column in (("pose=0", POSE, None), ("smiling=1", SMILING, 4), ("hair=blond", HAIR, 2)):
        confidence = 1 - sure[:, 0] if column is None else sure[:, column]
        expected = plain[confidence >= 0.8][:, block]
        drawn = edited(composer, asked, samples=30, confidence=0.8)
        after = probabilities(drawn)
        assert ((1 - after[..., 0] if column is None else after[..., column]) >= 0.8 - 1e-5).all()
        found = drawn[:, :, block].reshape(-1, expected.shape[1])
        near = 5 * expected.std(axis=0) / np.sqrt(min(len(found), len(expected)))
        assert (np.abs(found.mean(axis=0) - expected.mean(axis=0)) < near).all()
        assert found.std(axis=0) == pytest.approx(expected.std(axis=0), rel=0.08)
        middle = edited(composer, asked, mode="mean", confidence=0.8)[:, 0, block]
        assert (middle == middle[0]).all()
        assert middle[0] == pytest.approx(expected.mean(axis=0), abs=0.05)


def test_where_no_draw_is_sure_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A varied label keeps the source's own block; without a prior the draw moves into the region."""
    monkeypatch.setattr(rejection, "TRIES", 0)
    z, before, _ = sources()
    drawn = edited(made_composer(), vary=["hair"], samples=4)
    own = (drawn[:, :, HAIR] == z[:, None, HAIR]).all(axis=2)
    assert own.any()
    assert not own.all()
    assert (probabilities(drawn)[:, :, 1:4].argmax(axis=2) == before[:, 1:4].argmax(axis=1)[:, None]).all()
    drawn = edited(made_composer("vae-classifier"), "hair=red", confidence=0.999)
    assert (probabilities(drawn)[:, :, 3] >= 0.999 - 1e-5).all()


def test_closest_takes_all_kinds_of_labels() -> None:
    for family in ("ccvae", "vae-classifier"):
        composer, (z, before, _) = made_composer(family), sources()
        moved = edited(composer, "hair=red", "pose=1", "smiling=0.3", mode="closest", confidence=0.7)[:, 0]
        after = probabilities(moved)
        for column, block in ((0, POSE), (3, HAIR)):
            there = before[:, column] >= 0.7
            assert (moved[there, block] == z[there, block]).all()
            assert after[~there, column] == pytest.approx(0.7, abs=1e-5)
        assert after[:, 4] == pytest.approx(0.3, abs=1e-5)


def test_closest_measures_by_the_scales_of_the_asked_value() -> None:
    composer, (z, _, _) = made_composer(), sources()
    moved = edited(composer, "pose=1", "hair=red", mode="closest")[:, 0]
    _, scale = composer.bundle.conditional_prior(np.float32([[1, 0, 0, 1, 0]]))
    pose = closest(z[:, POSE], HEAD[POSE, 0], float(BIAS[0]), scale[0, POSE], 1, 0.9)
    hair = closest_class(z[:, HAIR], HEAD[HAIR, 1:4], BIAS[1:4], scale[0, HAIR], 2, 0.9)
    assert moved[:, POSE] == pytest.approx(pose, abs=1e-4)
    assert moved[:, HAIR] == pytest.approx(hair, abs=1e-4)


def test_the_confidence_of_any_class_is_looked_at() -> None:
    composer = made_composer()
    for name in ("black", "blond", "red"):
        assert composer.latents.reads_confidence(composer.request({"hair": name}, mode="closest"))


def test_a_labels_result_depends_on_no_other_label_and_no_order() -> None:
    for family in ("ccvae", "vae-classifier"):
        composer = made_composer(family)
        asked = [("smiling=1", None), ("hair=red", None), (None, "pose")]
        whole = edited(composer, "smiling=1", "hair=red", vary=["pose"], samples=3)
        for order in permutations(asked):
            given = [one for one, _ in order if one]
            varied = [one for _, one in order if one]
            assert edited(composer, *given, vary=varied, samples=3).tobytes() == whole.tobytes()
        alone = [(SMILING, edited(composer, "smiling=1", samples=3)), (HAIR, edited(composer, "hair=red", samples=3))]
        alone += [(POSE, edited(composer, vary=["pose"], samples=3))]
        for block, one in alone:
            assert one[..., block].tobytes() == whole[..., block].tobytes()
        fewer = edited(composer, "smiling=1", "hair=red", vary=["pose"], samples=2)
        assert fewer.tobytes() == whole[:, :2].tobytes()


@pytest.mark.parametrize("family", ["ccvae", "vae-classifier"])
@pytest.mark.parametrize(
    ("asked", "options"),
    [
        (["hair=red", "smiling=1"], {"vary": ["pose"], "samples": 2}),
        (["pose=0"], {"vary": ["hair", "smiling"], "samples": 2}),
        (["hair=blond", "smiling=1", "pose=1"], {"mode": "closest"}),
        (["hair=blond", "smiling=1"], {"mode": "mean"}),
    ],
)
def test_results_depend_on_no_batch(family: str, asked: list[str], options: dict) -> None:
    z, before, names = sources(23)
    whole = edited(made_composer(family), *asked, count=23, **options)
    for size in (1, 4):
        composer = made_composer(family, batch_size=size)
        request = composer.request(asked, **options)
        parts = [
            composer.edited_latents(request, z[i : i + size], before[i : i + size], names[i : i + size])
            for i in range(0, 23, size)
        ]
        assert np.concatenate(parts).tobytes() == whole.tobytes()


def test_every_attempt_draws_anew() -> None:
    for family in ("ccvae", "vae-classifier"):
        composer = made_composer(family)
        first, second = (edited(composer, "hair=red", vary=["pose"], attempt=attempt) for attempt in (0, 1))
        for block in (POSE, HAIR):
            assert (first[..., block] != second[..., block]).any(axis=2).all()


@pytest.mark.parametrize(
    ("asked", "options"),
    [(["smiling=0.3"], {}), (["smiling=0.3"], {"mode": "mean"}), (["smiling=1"], {"strength": 1.5})],
)
def test_without_a_prior_there_are_no_two_modes_to_lie_between(asked: list[str], options: dict) -> None:
    with pytest.raises(UsageError, match="no two modes"):
        made_composer("vae-classifier").request(asked, **options)
    assert made_composer().request(asked, **options)


def test_what_a_classifier_cannot_do_is_refused_before_work() -> None:
    blind = HEAD.copy()
    blind[SMILING] = 0
    with pytest.raises(UsageError, match="does not look at"):
        made_composer(head=blind).request([], vary=["smiling"])
    between = HEAD.copy()
    between[HAIR, 1:4] = np.float32([[-1, 0, 1], [-1, 0, 1]])
    for family, options in (("ccvae", {"mode": "closest"}), ("vae-classifier", {})):
        with pytest.raises(UsageError, match="hair=blond: no latent"):
            made_composer(family, between).request(["hair=blond"], **options)
    across = HEAD.copy()
    across[SMILING, 0] = 3
    bent = made_composer()
    bent = Composer(replace(bent.bundle, graphs=bent.bundle.graphs | {"classifier": lambda z: (np.abs(z @ HEAD),)}))
    for composer in (made_composer(head=across), bent):
        with pytest.raises(BundleError, match="not linear"):
            composer.request(["pose=1"], mode="closest")
        assert composer.request(["pose=1"])
