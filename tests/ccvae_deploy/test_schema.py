"""Labels and layouts: columns, blocks, names; manifests: what goes in comes out, and nothing unknown gets in."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ccvae_deploy.bundle import read_manifest
from ccvae_deploy.errors import BundleError, LabelError
from ccvae_deploy.schema import (
    ENDINGS,
    GRAPHS,
    GraphFile,
    ImageSpec,
    Label,
    LabelSet,
    LatentLayout,
    LatentRange,
    Manifest,
    ModelSpec,
    folded,
    graph_signature,
)

LABELS = LabelSet(
    labels=(
        Label(name="Smiling"),
        Label(name="Hair", kind="categorical", classes=("a", "b", "c"), dims=2),
        Label(name="Young"),
    )
)


def test_columns_follow_the_kinds() -> None:
    assert LABELS.columns == (slice(0, 1), slice(1, 4), slice(4, 5))
    assert len(LABELS.column_names) == LABELS.width
    assert LABELS.width == 5


def test_equal_names_are_twins_even_as_one_object() -> None:
    label = Label(name="x")
    with pytest.raises(ValidationError, match="labels x and x differ only in case"):
        LabelSet(labels=(label, label))


def test_names_of_edits_and_sizes_of_blocks_are_bounded() -> None:
    with pytest.raises(ValidationError, match="label x has a class with both a comma and ="):
        LabelSet(labels=(Label(name="x", kind="categorical", classes=("a,y=0", "b", "c")), Label(name="y")))
    classes = tuple(f"c{k}" for k in range(300))
    assert Label(name="x", kind="categorical", classes=classes, dims=200).dims == 200
    with pytest.raises(ValidationError, match="label x has 300 latents and 300 classes; expected at most 65,536"):
        Label(name="x", kind="categorical", classes=classes, dims=300)


def test_layout_puts_characteristic_blocks_first() -> None:
    layout = LatentLayout(blocks=(1, 2, 1), residual=7)
    assert layout.slices == (slice(0, 1), slice(1, 3), slice(3, 4))
    assert (layout.z_c, layout.size) == (4, 11)


@pytest.mark.parametrize("name", ["smiling", "SMILING", "smi-ling", " Smiling "])
def test_names_match_without_case_dashes_and_blanks(name: str) -> None:
    assert LABELS.index(name) == 0


def test_one_name_or_several_give_positions_in_their_order() -> None:
    assert LABELS.positions("smiling") == [0]
    assert LABELS.positions([LABELS.names[1], "smiling"]) == [1, 0]


def test_unknown_names_give_the_nearest() -> None:
    with pytest.raises(LabelError, match="unknown label 'smile': did you mean Smiling"):
        LABELS.index("smile")
    with pytest.raises(LabelError, match="unknown label 'wrong': known: "):
        LABELS.index("wrong")


@pytest.mark.parametrize(
    "labels",
    [
        (Label(name="a_b"), Label(name="A B")),
        (),
    ],
)
def test_label_sets_that_are_none(labels: tuple[Label, ...]) -> None:
    with pytest.raises(ValidationError):
        LabelSet(labels=labels)


@pytest.mark.parametrize(
    "fields",
    [{"classes": ("a",)}, {"classes": ("a", "A")}, {"dims": 0}, {"name": ""}, {"name": "a\nb"}, {"name": "a=b"}],
)
def test_labels_that_are_none(fields: dict) -> None:
    with pytest.raises(ValidationError):
        Label(**{"name": "x", **fields})


def test_slices_of_many_labels_take_no_time() -> None:
    layout = LatentLayout(blocks=(4,) * 1024, residual=0)
    assert layout.slices[-1] == slice(4092, 4096)
    with pytest.raises(ValidationError, match="4097 latents, expected at most 4096"):
        LatentLayout(blocks=(4,) * 1024, residual=1)


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12).filter(folded)
CLASSES = NAMES.filter(lambda name: not {",", "="} <= {*name})
NUMBERS = st.floats(-100, 100)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any manifest that is one."""
    names = draw(st.lists(NAMES.filter(lambda name: "=" not in name), min_size=1, max_size=4, unique_by=folded))
    labels = []
    for name in names:
        kind = draw(st.sampled_from(["binary", "categorical"]))
        count = 2 if kind == "binary" else draw(st.integers(2, 4))
        classes = draw(st.lists(CLASSES, min_size=count, max_size=count, unique_by=folded))
        labels.append(Label(name=name, kind=kind, classes=classes, dims=draw(st.integers(1, 3))))
    label_set = LabelSet(labels=labels)
    layout = LatentLayout(blocks=tuple(label.dims for label in labels), residual=draw(st.integers(0, 5)))
    image = ImageSpec(channels=draw(st.sampled_from([1, 3])), size=draw(st.sampled_from([32, 64, 128])))
    model = ModelSpec(
        family=draw(st.sampled_from(["ccvae", "vae-classifier", "diva"])),
        likelihood_scale=draw(st.floats(0, 10, exclude_min=True)),
    )
    format = draw(st.sampled_from(list(ENDINGS)))
    files = {}
    for name in GRAPHS[: 3 if model.family == "vae-classifier" else 4]:
        inputs, outputs = graph_signature(name, label_set, layout, image)
        files[name] = GraphFile(
            file=f"{name}.{ENDINGS[format]}", sha256=draw(st.from_regex(r"[0-9a-f]{64}", fullmatch=True)),
            bytes=draw(st.integers(1, 1 << 28)), format=format, inputs=inputs, outputs=outputs,
            precision=draw(st.sampled_from(["fp32", "fp16", "int8"])), opset=draw(st.none() | st.integers(1, 99)),
        )  # fmt: skip
    pairs = draw(st.lists(st.tuples(NUMBERS, NUMBERS).map(sorted), min_size=layout.size, max_size=layout.size))
    probabilities = st.floats(0, 1)
    return Manifest(
        model=model, labels=label_set, layout=layout, image=image, files=files,
        label_prior=draw(st.lists(probabilities, min_size=label_set.width, max_size=label_set.width)),
        latent_range=LatentRange(low=[low for low, _ in pairs], high=[high for _, high in pairs]),
        provenance=draw(st.dictionaries(st.text(max_size=8), JSON, max_size=3)),
    )  # fmt: skip


def read(text: str) -> Manifest:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "manifest.json").write_text(text, "utf-8")
        return read_manifest(Path(folder))[0]


@settings(max_examples=25)
@given(manifests())
def test_a_manifest_comes_back_as_it_was_written(manifest: Manifest) -> None:
    assert read(manifest.model_dump_json(indent=2)) == manifest
    # and by another program's JSON
    assert read(json.dumps(manifest.model_dump(mode="json"))) == manifest


@settings(max_examples=25)
@given(manifests(), st.data())
def test_an_unknown_key_is_refused_wherever_it_stands(manifest: Manifest, data: st.DataObject) -> None:
    content = manifest.model_dump(mode="json")
    parts = [content, content["model"], content["labels"], content["labels"]["labels"][0], content["layout"]]
    parts += [content["image"], content["latent_range"], content["files"]["encoder"]]
    parts += [content["files"]["decoder"]["inputs"][0]]
    part = data.draw(st.sampled_from(parts))
    part[data.draw(st.text(max_size=8).filter(lambda key: key not in part))] = data.draw(JSON)
    with pytest.raises(BundleError, match="Extra inputs are not permitted"):
        read(json.dumps(content))


@settings(max_examples=10)
@given(manifests(), st.integers(2, 10**30))
def test_a_newer_version_is_refused_with_what_to_do(manifest: Manifest, version: int) -> None:
    # whatever else a newer version may hold
    content = manifest.model_dump(mode="json") | {"schema_version": version, "new": {}}
    with pytest.raises(BundleError, match=r"has schema version .*, this is version 1; upgrade ccvae-deploy"):
        read(json.dumps(content))
