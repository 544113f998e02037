"""Protocols on latents, against a CCVAE whose classifier and prior are set by hand."""

import math
import sys
from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ccvae_deploy.errors import UsageError
from ccvae_deploy.schema import ImageSpec, Label, LabelSet, LatentLayout, ModelSpec
from ccvae_train.datasets.dataset import Dataset, Partition
from ccvae_train.device import choose_device
from ccvae_train.evaluate import diagnostics, gradients, inception, information, leakage, traversals
from ccvae_train.evaluate.bench import Bench, Settings
from ccvae_train.evaluate.classification import predictive_logits
from ccvae_train.evaluate.diagnostics import classifier_divergence, log_predictive, self_consistency
from ccvae_train.evaluate.finding import Skipped
from ccvae_train.evaluate.gradients import measure_gradients
from ccvae_train.evaluate.information import mutual_information
from ccvae_train.evaluate.leakage import probe
from ccvae_train.evaluate.protocols import chosen
from ccvae_train.evaluate.subject import SplitSubject
from ccvae_train.networks import CCVAE
from ccvae_train.quadrature import label_integrals

from .painted import Painter, read
from .painted import bench as painted_bench

LABELS = LabelSet(labels=(Label(name="a"), Label(name="b")))
LAYOUT, IMAGE = LatentLayout(blocks=(1, 1), residual=3), ImageSpec(size=32)
PRIOR = np.array([0.5, 0.5])


@pytest.fixture
def subject() -> SplitSubject:
    """A fresh model: p(z_i|y_i) = N(+-2, s^2) with s = softplus(1) + 0.001, q(y|z) = sigmoid(z)."""
    torch.manual_seed(0)
    model = CCVAE(LABELS, LAYOUT, IMAGE).eval()
    return SplitSubject(model, LABELS, LAYOUT, IMAGE, ModelSpec(), choose_device("cpu", "fp32"))


def bench(subject: SplitSubject, count: int = 100) -> Bench:
    rng = np.random.default_rng(0)
    classes = [len(label.classes) for label in subject.labels.labels]
    values = np.stack([rng.integers(0, k, count) for k in classes], axis=1).astype(np.int8)
    part = Partition(rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8), values)
    data = Dataset("made", subject.labels, IMAGE, part, part, "f" * 64)
    prior = np.concatenate([[0.5] if k == 2 else np.full(k, 1 / k) for k in classes])
    return Bench.of(subject, None, data, prior, Settings(images=count))


def prior_scale(subject: SplitSubject) -> float:
    return float(subject.prior(np.ones((1, 2), int))[1][0, 0])


def test_self_consistency_is_the_normal_integral(subject: SplitSubject) -> None:
    expected = (1 + math.erf(2 / prior_scale(subject) / math.sqrt(2))) / 2
    found = self_consistency(subject, PRIOR, np.random.default_rng(0))
    assert found == pytest.approx([expected] * 2, abs=0.03)


def test_divergence_vanishes_where_the_classifier_is_the_priors_inverse(subject: SplitSubject) -> None:
    rng = np.random.default_rng(0)
    loc, scale = np.zeros((200, 5), np.float32), np.full((200, 5), 3, np.float32)
    apart = classifier_divergence(subject, loc, scale, PRIOR, rng)
    assert (apart > 0.01).all()
    with torch.no_grad():
        # log p(z|1) - log p(z|0) = 2 * 2 z / s^2
        subject.model.classifier.weight.fill_(4 / prior_scale(subject) ** 2)
    assert classifier_divergence(subject, loc, scale, PRIOR, rng) == pytest.approx([0, 0], abs=1e-5)


def test_log_predictive_agrees_with_quadrature(subject: SplitSubject) -> None:
    rng = np.random.default_rng(1)
    loc = rng.normal(0, 2, (40, 5)).astype(np.float32)
    scale = rng.uniform(0.1, 1.5, (40, 5)).astype(np.float32)
    values = rng.integers(0, 2, (40, 2))
    head = subject.model.classifier
    c = torch.from_numpy
    exact = label_integrals(
        c(loc[:, :2]), c(scale[:, :2]), head.weight, head.bias, torch.eye(2), c(values.astype(np.float32))
    ).log_q
    found = log_predictive(subject, loc, scale, values, rng)
    assert np.abs(found - exact.detach().numpy()).mean() < 0.05


def test_predictive_logits_agree_with_quadrature_and_with_the_mean_on_the_value(subject: SplitSubject) -> None:
    rng = np.random.default_rng(1)
    loc = rng.normal(0, 2, (400, 5)).astype(np.float32)
    scale = rng.uniform(0.1, 3, (400, 5)).astype(np.float32)
    head, c = subject.model.classifier, torch.from_numpy
    exact = label_integrals(
        c(loc[:, :2]), c(scale[:, :2]), head.weight, head.bias, torch.eye(2), torch.ones(400, 2)
    ).log_q.exp()
    found = predictive_logits(subject, loc, scale, rng)
    assert np.abs(1 / (1 + np.exp(-found)) - exact.detach().numpy()).mean() < 0.02
    assert ((found > 0) == (subject.classify(loc[:, :2]) > 0)).all()


def test_predictive_logits_of_classes_are_log_probabilities() -> None:
    labels = LabelSet(labels=(Label(name="k", kind="categorical", classes=("x", "y", "z"), dims=3),))
    layout = LatentLayout(blocks=(3,), residual=2)
    torch.manual_seed(0)
    subject = SplitSubject(
        CCVAE(labels, layout, IMAGE).eval(), labels, layout, IMAGE, ModelSpec(), choose_device("cpu", "fp32")
    )
    loc = np.random.default_rng(0).normal(0, 2, (50, 5)).astype(np.float32)
    found = predictive_logits(subject, loc, np.full((50, 5), 1e-6, np.float32), np.random.default_rng(1))
    odds = np.exp(subject.classify(loc[:, :3]))
    assert np.exp(found) == pytest.approx(odds / odds.sum(axis=1, keepdims=True), abs=1e-4)


def test_diagnostics_of_a_fresh_model(subject: SplitSubject) -> None:
    figures = diagnostics.run(bench(subject)).figures
    assert figures["E[w]"] == pytest.approx(1, abs=0.05)
    assert 0 < figures["ESS of w"] <= 1
    # the constant of a Laplace likelihood of scale 1 is 3072 log 2 = 2129, and the reconstruction adds its error
    assert 2129 + 300 < figures["hidden label weight"] < 2129 + 1600


def test_the_stop_gradient_acts_on_the_encoder_alone(subject: SplitSubject) -> None:
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.random((8, 3, 32, 32), dtype=np.float32))
    values = torch.from_numpy(rng.integers(0, 2, (8, 2)))
    stopped, free = (
        measure_gradients(subject, image, values, stopped=stopped, draws=6, seed=3) for stopped in (True, False)
    )
    assert stopped.classifier == pytest.approx(free.classifier, rel=1e-4)
    assert (np.abs(stopped.encoder - free.encoder) > 0.01 * free.encoder).all()
    assert len(gradients.run(bench(subject, 60)).tables[0].rows) == 4


def test_probe_finds_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((800, 6)).astype(np.float32)
    values = rng.choice(3, 800, p=[0.7, 0.2, 0.1])
    assert probe(noise, values, 3) == pytest.approx(1 / 3, abs=0.08)
    told = noise.copy()
    told[:, 2] += 8 * (values == 1)
    told[:, 4] += 8 * (values == 2)
    assert probe(told, values, 3) > 0.97
    assert math.isnan(probe(noise, np.full(800, -1), 3))
    assert math.isnan(probe(noise, np.zeros(800, int), 3))


def test_leakage_and_traversals_run_on_a_model(subject: SplitSubject) -> None:
    figures = leakage.run(bench(subject, 120)).figures
    assert all(0.2 < value < 0.8 for value in figures.values())  # labels are noise here
    assert set(traversals.run(bench(subject)).pictures) == {"strips", "grid"}


def test_categorical_labels_of_several_latents_too() -> None:
    labels = LabelSet(labels=(Label(name="a"), Label(name="k", kind="categorical", classes=("x", "y", "z"), dims=2)))
    layout = LatentLayout(blocks=(1, 2), residual=3)
    model = CCVAE(labels, layout, IMAGE).eval()
    spec = ModelSpec(likelihood="bernoulli")
    subject = SplitSubject(model, labels, layout, IMAGE, spec, choose_device("cpu", "fp32"))
    figures = diagnostics.run(bench(subject)).figures
    assert figures["E[w]"] == pytest.approx(1, abs=0.1)
    assert figures["self-consistency"] > 0.5
    assert figures["hidden label weight"] > 1000
    assert set(traversals.run(bench(subject)).pictures) == {"strips", "polytope-1"}
    assert len(leakage.run(bench(subject, 120)).tables[0].rows) == 2
    assert all(np.isfinite(list(gradients.run(bench(subject)).figures.values())))


def test_models_without_a_split_are_skipped() -> None:
    for protocol in (leakage, traversals, gradients, diagnostics):
        with pytest.raises(Skipped, match="not split by label"):
            protocol.run(painted_bench(Painter()))


def test_mutual_information_by_hand() -> None:
    far = 50.0
    agreed = np.tile([[far, 0.0]], (4, 1, 1))
    unsure = np.zeros((4, 1, 2))
    torn = np.array([[[far, 0.0]], [[0.0, far]]] * 2)
    assert mutual_information(agreed) == pytest.approx([0], abs=1e-9)
    assert mutual_information(unsure) == pytest.approx([0], abs=1e-9)  # noise in the data is no want of knowledge
    assert mutual_information(torn) == pytest.approx([math.log(2)])


def test_missing_extras_are_named(subject: SplitSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Skipped, match="categorical"):
        information.run(bench(subject))
    with pytest.raises(Skipped, match=r"--inception FILE, and the extra \[fid\]"):
        inception.run(bench(subject))
    monkeypatch.setattr(information, "find_spec", lambda name: None)
    with pytest.raises(Skipped, match=r"ccvae-deploy\[gp\]"):
        information.run(painted_bench(Painter()))


def test_information_is_told_of_generated_and_of_real_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a process that knows all of images of class x, whose pixel is 0, and nothing of the others."""

    class Process:
        def draw(self, features, draws):
            known = features[:, 0] < 1
            torn = np.where(np.arange(draws)[:, None, None] % 2, [[50.0, 0, 0]], [[0, 50.0, 0]])
            return np.where(known[None, :, None], [50.0, 0, 0], torn)

    module = ModuleType("gaussian_process")
    module.fit_process = lambda features, values, classes, seed: Process()
    monkeypatch.setitem(sys.modules, "ccvae_train.evaluate.gaussian_process", module)
    monkeypatch.setattr(information, "find_spec", lambda name: object())
    whole = painted_bench(Painter())
    judge = SimpleNamespace(features=lambda images: read(images)[:, 2:])
    whole = replace(whole, given_judge=judge, settings=replace(whole.settings, images=3000))
    found = information.run(whole)
    unknown = (whole.values[:, 2] != 0).mean()
    assert found.figures == {
        "mutual information": pytest.approx(2 / 3 * math.log(2), abs=0.03),
        "mutual information, real images": pytest.approx(unknown * math.log(2)),
    }
    assert set(found.figures) == set(chosen(["information"])[0].main)
    assert found.images == 3000
    assert "of 3,000 generated images, and of 200 real ones" in found.note


@pytest.mark.skipif(find_spec("gpytorch") is None, reason="the extra [gp] is not installed")
def test_a_process_is_unsure_away_from_its_data() -> None:
    from ccvae_train.evaluate.gaussian_process import fit_process

    rng = np.random.default_rng(0)
    values = rng.integers(0, 3, 600)
    features = rng.standard_normal((600, 4)) + 6 * np.eye(4)[values]
    process = fit_process(features, values, 3, seed=0)
    drawn = process.draw(features, 32)
    assert (drawn.mean(axis=0).argmax(axis=1) == values).mean() > 0.95
    near, far = mutual_information(drawn).mean(), mutual_information(process.draw(features - 60, 32)).mean()
    assert far > 3 * near


@pytest.mark.skipif(find_spec("torch_fidelity") is None, reason="the extra [fid] is not installed")
def test_a_file_that_holds_no_inception_is_refused(tmp_path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    for name in ("weights.pth", "weights.safetensors", "absent.safetensors"):
        with pytest.raises(UsageError, match="expected torch-fidelity's Inception weights as safetensors"):
            inception.inception(tmp_path / name)


@pytest.mark.skipif(find_spec("torch_fidelity") is None, reason="the extra [fid] is not installed")
def test_inception_has_the_weights_of_the_file_and_unpickles_nothing(tmp_path, monkeypatch) -> None:
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    def never(*_, **__):
        raise AssertionError("nothing may be unpickled or fetched")

    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
    with monkeypatch.context() as patch:
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_, **__: None)
        drawn = theirs.FeatureExtractorInceptionV3("drawn", ["2048"]).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in drawn.items()}, tmp_path / "weights.safetensors")
    monkeypatch.setattr(torch, "load", never)
    monkeypatch.setattr(theirs, "load_state_dict_from_url", never)
    network = inception.inception(tmp_path / "weights.safetensors")
    found = network.state_dict()
    assert found.keys() == drawn.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in drawn.items())
    assert inception.features(network, np.zeros((2, 1, 32, 32), np.float32)).shape == (2, 2048)
    assert theirs.load_state_dict_from_url is never
