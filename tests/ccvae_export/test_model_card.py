"""The model card: hub-style front matter, figures, terms, and a picture that shows nothing it may not show."""

import ast
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccvae_deploy.bundle import open_bundle
from ccvae_deploy.schema import Manifest
from ccvae_export import card_sheet, model_card
from ccvae_export.data_terms import data_terms
from ccvae_export.front_matter import front_matter
from ccvae_export.model_card import write_card
from ccvae_export.parity import ParityReport, ParityRow
from ccvae_export.quality import Quality

PARITY = ParityReport(
    (
        ParityRow("decoder", "eager torch", "onnx", 1, "float", 1e-6, 1e-7, 0.1, 1e-4),
        ParityRow("decoder", "eager torch", "onnx", 17, "float", 3e-6, 1e-7, 0.1, 1e-4),
        ParityRow("composed edit", "eager torch", "onnx", 1, "levels", 1.0, 0.0, 0.0, None),
    )
)

QUALITY = Quality(256, mean=0.25, p999=3.0, worst=9.0, equal=0.75, disagreement=0.001, flips=0.004, spread=0.012)


@pytest.fixture(scope="session")
def opened(onnx_bundle: Path):
    return open_bundle(onnx_bundle, provider="cpu", threads=1)


def trained_on(manifest: Manifest, source: str, **more: object) -> Manifest:
    return manifest.model_copy(update={"provenance": {**manifest.provenance, "data": source, **more}})


def head_of(card: str) -> str:
    return card.split("---\n")[1]


def test_an_exported_card_has_every_part(onnx_bundle: Path) -> None:
    card = (onnx_bundle / "README.md").read_text()
    assert card.startswith('---\nlicense: "apache-2.0"\nlibrary_name: "ccvae-deploy"\npipeline_tag: "image-to-image"\n')
    headings = re.findall(r"^## (.+)$", card, re.MULTILINE)
    assert headings == [
        "How to use it",
        "Intended use",
        "Out of scope",
        "Training data",
        "Licence of the training data",
        "Labels",
        "Graphs",
        "Parity with the trained model",
        "Quality of its edits",
        "Limits",
        "Citation",
    ]
    assert '- type: "accuracy"' in head_of(card)
    assert "value: 0.9\n" in head_of(card)
    assert "| Wearing_Hat | 0.200 |" in card
    assert "| Young | 0.700 | 0.900 |  |  | 3 |" in card
    assert "Latents 4..9 are residual" in card
    assert "joy2021capturing" in card
    code = card.split("or\n\n")[1].split("\n\n")[0]
    compile("\n".join(line[4:] for line in code.splitlines()), "card", "exec")
    assert len(code.splitlines()) == 5


def test_the_picture_of_portraits_shows_edits_of_portraits_not_trained_on(onnx_bundle: Path) -> None:
    with Image.open(onnx_bundle / "sheet.png") as sheet:
        # one original and three labels
        cell, gap, head = card_sheet.CELL, card_sheet.GAP, card_sheet.HEAD
        assert sheet.size == (gap + 4 * (cell + gap), head + card_sheet.ROWS * (cell + gap))
    fresh, _ = card_sheet.portraits(card_sheet.ROWS, seed=card_sheet.FRESH_SEED, size=32, workers=1)
    trained, _ = card_sheet.portraits(200, seed=0, size=32, workers=1)
    assert np.abs(fresh[:, None].astype(int) - trained[None]).max(axis=(2, 3, 4)).min() > 20
    card = (onnx_bundle / "README.md").read_text()
    assert "![made portraits and their edits](sheet.png)" in card


@pytest.mark.parametrize("source", ["celeba:/home/anna/faces", "table:/home/anna/x", "something-new"])
def test_other_data_are_not_shown_and_their_terms_are_stated(opened, tmp_path, monkeypatch, source: str) -> None:
    monkeypatch.setattr(model_card, "edited_portraits", lambda _: pytest.fail("a real image would be shown"))
    write_card(tmp_path, trained_on(opened.manifest, source), PARITY, QUALITY, opened)
    card = (tmp_path / "README.md").read_text()
    assert "![images that the model generated](sheet.png)" in card
    assert "No image of the training data is shown" in card
    assert "anna" not in card
    assert head_of(card).startswith('license: "other"\nlicense_name: ')
    assert "license_link: " in head_of(card)
    if source.startswith("celeba"):
        assert card.count("non-commercial research only") == 2
        assert "liu2015deep" in card
        assert 'license_name: "celeba-non-commercial-research"' in card
    else:
        assert data_terms(source).dataset is None
        assert "datasets:" not in head_of(card)


@pytest.mark.parametrize(
    ("kind", "licence", "key"),
    [
        ("chexpert", 'license_name: "chexpert-non-commercial-research"', "irvin2019chexpert"),
        ("mnist", 'license: "cc-by-sa-3.0"', "lecun1998gradient"),
        ("fashion-mnist", 'license: "mit"', "xiao2017fashion"),
    ],
)
def test_known_data_have_terms_of_their_own(opened, tmp_path: Path, kind: str, licence: str, key: str) -> None:
    write_card(tmp_path, trained_on(opened.manifest, f"{kind}:/home/anna/x"), PARITY, QUALITY, opened)
    card = (tmp_path / "README.md").read_text()
    assert licence in head_of(card)
    assert key in card
    assert "anna" not in card
    assert "No image of the training data is shown" in card
    assert ("derived from CheXpert" in card) == (kind == "chexpert")


def test_the_same_bundle_gives_the_same_bytes(opened, tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_card(tmp_path / name, trained_on(opened.manifest, "celeba:x"), PARITY, QUALITY, opened)
        found.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert found[0] == found[1]
    assert set(found[0]) == {"README.md", "sheet.png"}


def test_pairs_differ_in_one_block_alone(opened) -> None:
    z, y = card_sheet._from_prior(opened, 3)
    absent, present = card_sheet._pair(opened, z, y, 1)
    for moved, value in ((absent, 0), (present, 1)):
        assert np.array_equal(np.delete(moved, [1, 2]), np.delete(z, [1, 2]))
        asked = y.copy()
        asked[1] = value
        assert np.array_equal(moved[1:3], opened.conditional_prior(asked[None])[0][0, 1:3])
    assert not np.array_equal(absent, present)


def test_labels_are_drawn_from_their_prior(opened) -> None:
    drawn = np.array([card_sheet._from_prior(opened, seed)[1] for seed in range(400)])
    assert set(np.unique(drawn)) == {0, 1}
    assert np.abs(drawn.mean(axis=0) - opened.manifest.label_prior).max() < 0.08


def test_the_best_told_labels_are_shown(opened) -> None:
    figures = {"Young": {"balanced_accuracy": 0.9}, "Smiling": {"balanced_accuracy": 0.7}}
    manifest = trained_on(opened.manifest, "celeba:x", validation={"by_label": figures})
    assert card_sheet.shown_labels(manifest) == [0, 1, 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card_sheet, "GENERATED_LABELS", 2)
        assert card_sheet.shown_labels(manifest) == [0, 2]


def test_a_torchscript_card_says_that_it_is_code(torchscript_bundle: Path) -> None:
    card = (torchscript_bundle / "README.md").read_text()
    assert "--set Smiling=1 --samples 8 --allow-torchscript\n" in card
    assert 'Editor.open("THIS_FOLDER", allow_torchscript=True)' in card
    assert (torchscript_bundle / "sheet.png").is_file()


def test_a_card_of_graphs_that_the_runtime_does_not_run_has_a_picture_too(pt2_bundle: Path) -> None:
    card = (pt2_bundle / "README.md").read_text()
    assert "(sheet.png)" in card
    assert (pt2_bundle / "sheet.png").is_file()


def test_parity_is_told_by_its_worst_batch(opened) -> None:
    card = model_card.model_card(opened.manifest, PARITY, QUALITY, pictured=False)
    assert "| decoder | eager torch, onnx | 3e-06 | 0.0001 | float |" in card
    assert "| composed edit | eager torch, onnx | 1 | judged below | levels |" in card
    assert (
        "0.250 levels of 255 on average, 3 at the 99.9th percentile and 9 at most, 75.000% of them not at all" in card
    )


def test_names_cannot_break_out_of_their_cell(opened) -> None:
    labels = opened.manifest.labels
    hostile = labels.labels[0].model_copy(update={"name": "a|b<script>`\u202e"})
    renamed = labels.model_copy(update={"labels": (hostile, *labels.labels[1:])})
    card = model_card.model_card(
        opened.manifest.model_copy(update={"labels": renamed}), PARITY, QUALITY, pictured=False
    )
    assert r"| a\|b&lt;script>'\u202e |" in card
    # in code, which is shown as it stands, a shell and Python read the name as it is
    code = [line for line in card.splitlines() if line.startswith("    ")]
    assert "<script>" not in "".join(line for line in card.splitlines() if line not in code)
    command = next(line for line in code if "ccvae-deploy edit" in line)
    assert shlex.split(command)[shlex.split(command).index("--set") + 1].startswith("a|b<script>`")
    (call,) = (line for line in code if "editor.edit" in line)
    ast.parse(call.strip())


def test_figures_of_digits_are_of_test_images(opened) -> None:
    for kind, split in (("mnist", "test"), ("celeba", "validation")):
        told = trained_on(opened.manifest, f"{kind}:x")
        told = told.model_copy(update={"provenance": {**told.provenance, "validation": {"accuracy": 0.9}}})
        assert f'split: "{split}"' in head_of(model_card.model_card(told, PARITY, QUALITY, pictured=False))


def test_front_matter_is_yaml() -> None:
    content = {"a": "yes: no # x", "list": ["1", "é\x85"], "deep": [{"b": 1.5, "c": [{"d": "e"}], "f": {"g": 2}}]}
    text = front_matter(content)
    assert text == (
        '---\na: "yes: no # x"\nlist:\n- "1"\n- "\\u00e9\\u0085"\n'
        'deep:\n- b: 1.5\n  c:\n  - d: "e"\n  f:\n    g: 2\n---\n'
    )
