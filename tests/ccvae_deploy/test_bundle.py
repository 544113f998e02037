"""Bundles: a good one opens and runs; every bad one is refused with one line before a session is made."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from ccvae_deploy.bundle import open_bundle, read_manifest
from ccvae_deploy.errors import BundleError, UsageError


def manifest_of(bundle: Path) -> dict:
    return json.loads((bundle / "manifest.json").read_text())


def write_manifest(bundle: Path, content: object) -> None:
    (bundle / "manifest.json").write_text(json.dumps(content))


def replace_graph(bundle: Path, name: str, data: bytes) -> None:
    """Put another file in place of a graph, with a manifest that vouches for it."""
    (bundle / f"{name}.onnx").write_bytes(data)
    content = manifest_of(bundle)
    content["files"][name] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    write_manifest(bundle, content)


def test_opens_and_runs_every_graph(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle, provider="cpu")
    loc, scale = bundle.encode(np.random.default_rng(0).random((5, 3, 32, 32), dtype=np.float32))
    assert loc.shape == scale.shape == (5, 8)
    assert bundle.decode(loc).shape == (5, 3, 32, 32)
    assert bundle.classify(np.float32([[1, 0, 0]])).tolist() == [pytest.approx([2.2, -0.1, 0.0])]
    prior_loc, prior_scale = bundle.conditional_prior(np.float32([[1, 0, 1]]))
    assert prior_loc.tolist() == [pytest.approx([3.0, -3.5, 4.0])]
    assert prior_scale.tolist() == [pytest.approx([0.9, 0.4, 1.1])]
    assert bundle.provider == "CPUExecutionProvider"
    assert bundle.digest == hashlib.sha256((tiny_bundle / "manifest.json").read_bytes()).hexdigest()


def test_wrong_shapes_are_refused_by_name(tiny_bundle: Path) -> None:
    with pytest.raises(ValueError, match=r"decoder was given \(2, 3\), expected \(N, 8\)"):
        open_bundle(tiny_bundle, provider="cpu").decode(np.zeros((2, 3), np.float32))


def test_missing_folder_and_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle at .* make one with"):
        open_bundle(tmp_path / "absent")
    with pytest.raises(BundleError, match=r"no manifest\.json in"):
        open_bundle(tmp_path)


def test_the_manifest_stands_for_its_folder(tiny_bundle: Path, tmp_path: Path, monkeypatch) -> None:
    assert open_bundle(tiny_bundle / "manifest.json", provider="cpu").digest
    monkeypatch.chdir(tiny_bundle)
    assert open_bundle(Path("manifest.json"), provider="cpu").digest
    with pytest.raises(BundleError, match=r"no bundle at .*absent; make one with"):
        open_bundle(tmp_path / "absent" / "manifest.json")
    with pytest.raises(BundleError, match=r"no manifest\.json in"):
        open_bundle(tmp_path / "manifest.json")


def test_one_flipped_byte_is_refused(own_bundle: Path) -> None:
    data = bytearray((own_bundle / "decoder.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (own_bundle / "decoder.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"decoder\.onnx is not the file that was exported"):
        open_bundle(own_bundle)


def test_truncated_graph_is_refused_even_when_its_hash_agrees(own_bundle: Path) -> None:
    data = (own_bundle / "decoder.onnx").read_bytes()
    replace_graph(own_bundle, "decoder", data[: len(data) // 2])
    with pytest.raises(BundleError, match=r"decoder\.onnx"):
        open_bundle(own_bundle)


@pytest.mark.parametrize(
    "name", ["../decoder.onnx", "/etc/passwd", "a/decoder.onnx", "..", "decoder.onnx\n", "C:decoder.onnx"]
)
def test_paths_in_a_manifest_are_refused(own_bundle: Path, name: str) -> None:
    content = manifest_of(own_bundle)
    content["files"]["decoder"]["file"] = name
    write_manifest(own_bundle, content)
    with pytest.raises(BundleError, match=r"files\.decoder\.file"):
        open_bundle(own_bundle)


def test_links_are_refused(own_bundle: Path, tmp_path: Path) -> None:
    moved = tmp_path / "outside.onnx"
    (own_bundle / "decoder.onnx").replace(moved)
    (own_bundle / "decoder.onnx").symlink_to(moved)
    with pytest.raises(BundleError, match="is a link"):
        open_bundle(own_bundle)


def test_missing_graph_is_refused(own_bundle: Path) -> None:
    (own_bundle / "classifier.onnx").unlink()
    with pytest.raises(BundleError, match=r"classifier\.onnx cannot be read"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("name", ["manifest.json", "encoder.onnx"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "broken link"])
def test_what_is_no_plain_file_is_refused_and_never_waited_for(own_bundle: Path, name: str, kind: str) -> None:
    target = own_bundle / name
    kept = target.rename(own_bundle / "kept")
    match kind:
        case "pipe":
            os.mkfifo(target)
        case "folder":
            target.mkdir()
        case "link":
            target.symlink_to(kept)
        case _:
            target.symlink_to("nowhere")
    with pytest.raises(BundleError, match=r"is no plain file|is a link"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"schema_version": 1}', "\xff\xfe"])
def test_what_is_no_manifest(own_bundle: Path, text: str) -> None:
    (own_bundle / "manifest.json").write_text(text, "latin-1")
    with pytest.raises(BundleError) as caught:
        open_bundle(own_bundle)
    assert "\n" not in str(caught.value)


def test_newer_version_says_so(own_bundle: Path) -> None:
    for version in (2, 10**400):
        write_manifest(own_bundle, manifest_of(own_bundle) | {"schema_version": version})
        with pytest.raises(
            BundleError, match=r"has schema version .*, this is version 1; upgrade ccvae-deploy"
        ) as caught:
            open_bundle(own_bundle)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["encoder.onnx", "decoder.pt", "aux.onnx", "decoder_.onnx"])
def test_a_graph_has_the_file_name_of_its_kind(own_bundle: Path, name: str) -> None:
    content = manifest_of(own_bundle)
    content["files"]["decoder"]["file"] = name
    write_manifest(own_bundle, content)
    with pytest.raises(BundleError, match=f"the file of decoder is called {name}, expected decoder.onnx"):
        open_bundle(own_bundle)


def with_last(graphs: dict[str, bytes], name: str, *nodes: onnx.NodeProto, **constants: np.ndarray) -> bytes:
    """A graph with nodes between what it gave as `was` and its output."""
    model = onnx.load_model_from_string(graphs[name])
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["was" if made == output else made for made in node.output]
        node.input[:] = ["was" if given == output else given for given in node.input]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    return model.SerializeToString()


def test_a_graph_that_cannot_run_is_refused_when_it_is_opened(own_bundle: Path, graphs) -> None:
    # every shape is in order for 1 and for 64 images, and the elements do not fit for 2
    fixed = helper.make_node("Reshape", ["was", "shape"], ["logits"])
    replace_graph(own_bundle, "classifier", with_last(graphs, "classifier", fixed, shape=np.array([64, 3])))
    with pytest.raises(BundleError, match=r"classifier\.onnx"):
        open_bundle(own_bundle, provider="cpu")


def test_outputs_that_are_no_numbers_are_refused(own_bundle: Path, graphs) -> None:
    logs = [helper.make_node("Log", [a], [b]) for a, b in (("was", "l1"), ("l1", "l2"), ("l2", "logits"))]
    replace_graph(own_bundle, "classifier", with_last(graphs, "classifier", *logs))
    with pytest.raises(BundleError, match=r"classifier\.onnx gives numbers that are not finite"):
        open_bundle(own_bundle, provider="cpu")


def test_images_outside_of_0_to_1_are_refused(own_bundle: Path, graphs) -> None:
    brighter = helper.make_node("Add", ["was", "much"], ["image"])
    replace_graph(own_bundle, "decoder", with_last(graphs, "decoder", brighter, much=np.float32([9])))
    bundle = open_bundle(own_bundle, provider="cpu")
    with pytest.raises(BundleError, match=r"decoder\.onnx gives 9\.5 to 9\.5, expected an image in 0 to 1"):
        bundle.decode(np.zeros((1, 8), np.float32))


def test_huge_manifest_is_refused(own_bundle: Path) -> None:
    with (own_bundle / "manifest.json").open("ab") as file:
        file.write(b" " * (5 << 20))
    with pytest.raises(BundleError, match="longer than the limit"):
        read_manifest(own_bundle)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"schema_version": 1', '"schema_version": 1, "schema_version": 1', "the same key twice"),
        ('"file": "decoder.onnx"', '"file": "decoder.onnx", "file": "encoder.onnx"', "the same key twice"),
        ('"schema_version": 1,', "", "has no schema_version"),
        ('"schema_version": 1', '"schema_version": true', "has no schema_version"),
        ('"schema_version": 1', '"schema_version": "1"', "has no schema_version"),
        ('"schema_version": 1', '"schema_version": 1.0', "has no schema_version"),
        ('"schema_version": 1', '"schema_version": 0', "schema_version: Input should be 1"),
        ('"residual": 5', '"residual": "5"', r"layout\.residual"),
        ('"residual": 5', '"residual": 5.0', r"layout\.residual"),
        ('"likelihood_scale": 1.0', '"likelihood_scale": NaN', "NaN is no JSON number"),
        ('"likelihood_scale": 1.0', '"likelihood_scale": -Infinity', "-Infinity is no JSON number"),
        ('"likelihood_scale": 1.0', '"likelihood_scale": 1e999', r"model\.likelihood_scale"),
        ('"likelihood_scale": 1.0', f'"likelihood_scale": 1{"0" * 5000}', "is not JSON"),
        ('"data": "made"', f'"data": {"[" * 17}{"]" * 17}', "provenance: .* nested deeper than 16"),
        ('"data": "made"', f'"data": {"[" * 500}{"]" * 500}', r"manifest\.json"),
        ('"name": "Smiling"', r'"name": "Smi\u001b[2J"', r"labels\.labels\.0\.name"),
        ('"name": "Smiling"', r'"name": "Smi\u202egnil"', r"labels\.labels\.0\.name"),
        ('"name": "Smiling"', r'"name": "\ud800"', r"manifest\.json"),
        ('"data": "made"', r'"data": "made", "x": 1}, "a\nb": {"y": 1', r"manifest\.json: a b"),
    ],
)
def test_text_that_two_readers_could_take_differently(own_bundle: Path, old: str, new: str, message: str) -> None:
    text = (own_bundle / "manifest.json").read_text()
    assert old in text
    (own_bundle / "manifest.json").write_text(text.replace(old, new, 1))
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(own_bundle)
    assert str(caught.value).isprintable()


def test_a_manifest_of_another_encoding_is_refused(own_bundle: Path) -> None:
    text = (own_bundle / "manifest.json").read_text()
    (own_bundle / "manifest.json").write_text(text, "utf-16")
    with pytest.raises(BundleError, match="is not JSON"):
        open_bundle(own_bundle)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("latent_range", {"low": [1.0] * 8, "high": [0.0] * 8}, "latent_range: .* none of them above"),
        ("latent_range", {"low": [0.0] * 7, "high": [0.0] * 8}, "as many low as high"),
        ("label_prior", [0.5, 0.5, 1.5], r"label_prior\.2"),
        ("label_prior", [0.5] * 5000, "label_prior: .* at most 4096"),
        ("image", {"channels": 3, "size": 32, "range": [0, 255]}, r"image\.range: .* 0 to 1"),
        ("labels", {"labels": [{"name": f"l{i}"} for i in range(2000)]}, r"labels\.labels: .* at most 1024"),
        (
            "labels",
            {
                "labels": [
                    {"name": f"l{i}", "kind": "categorical", "classes": [str(k) for k in range(1000)]} for i in range(5)
                ]
            },
            "the labels take 5000 columns, expected at most 4096",
        ),
        ("layout", {"blocks": [4096, 4096], "residual": 0}, "8192 latents, expected at most 4096"),
        ("layout", {"blocks": [1, 1], "residual": 5}, "layout and labels disagree"),
        ("label_prior", [0.5], "label prior has 1 values, expected 3"),
        ("image", {"channels": 3, "size": 64}, "inputs or outputs of encoder"),
        ("model", {"family": "gan"}, r"model\.family"),
    ],
)
def test_parts_that_disagree(own_bundle: Path, key: str, value: object, message: str) -> None:
    write_manifest(own_bundle, manifest_of(own_bundle) | {key: value})
    with pytest.raises(BundleError, match=message):
        open_bundle(own_bundle)


def model_with(graphs: dict[str, bytes], node: onnx.NodeProto) -> onnx.ModelProto:
    model = onnx.load_model_from_string(graphs["decoder"])
    model.graph.node.insert(0, node)
    return model


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("RandomNormal", [], ["noise"], shape=[1, 8]),
        helper.make_node("RandomNormalLike", ["z"], ["noise"]),
        helper.make_node("Bernoulli", ["z"], ["noise"]),
        helper.make_node("Multinomial", ["z"], ["noise"]),
        helper.make_node("If", ["z"], ["noise"]),
        helper.make_node("Loop", ["", "", "z"], ["noise"]),
        helper.make_node("FusedGemm", ["z"], ["noise"], domain="com.microsoft"),
    ],
    ids=lambda node: node.op_type,
)
def test_operators_outside_the_list_are_refused(own_bundle: Path, graphs, node: onnx.NodeProto) -> None:
    replace_graph(own_bundle, "decoder", model_with(graphs, node).SerializeToString())
    with pytest.raises(BundleError, match=f"uses the operator {node.op_type}"):
        open_bundle(own_bundle)


def test_external_data_is_refused(own_bundle: Path, graphs) -> None:
    model = onnx.load_model_from_string(graphs["decoder"])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    replace_graph(own_bundle, "decoder", model.SerializeToString())
    with pytest.raises(BundleError, match="keeps weights in another file"):
        open_bundle(own_bundle)


def test_other_inputs_than_the_manifest_says_are_refused(own_bundle: Path, graphs) -> None:
    replace_graph(own_bundle, "decoder", graphs["classifier"])
    with pytest.raises(BundleError, match="other inputs or outputs"):
        open_bundle(own_bundle)


@pytest.mark.parametrize("version", [12, 99])
def test_opsets_out_of_range_are_refused(own_bundle: Path, graphs, version: int) -> None:
    model = onnx.load_model_from_string(graphs["decoder"])
    model.opset_import[0].version = version
    replace_graph(own_bundle, "decoder", model.SerializeToString())
    with pytest.raises(BundleError, match=f"ai.onnx {version}"):
        open_bundle(own_bundle)


def test_torchscript_needs_permission(own_bundle: Path) -> None:
    content = manifest_of(own_bundle)
    for name, entry in content["files"].items():
        entry |= {"format": "torchscript", "file": f"{name}.pt"}
        (own_bundle / f"{name}.onnx").rename(own_bundle / f"{name}.pt")
    write_manifest(own_bundle, content)
    with pytest.raises(BundleError, match="code that runs as you; add --allow-torchscript"):
        open_bundle(own_bundle)
    pytest.importorskip("torch")
    with pytest.raises(BundleError, match=r"encoder\.pt is no TorchScript graph"):
        open_bundle(own_bundle, allow_torchscript=True)


@pytest.mark.parametrize("threads", [-1, 257, 100_000])
def test_a_number_of_threads_that_cannot_work_is_refused(tiny_bundle: Path, threads: int) -> None:
    with pytest.raises(UsageError, match=f"threads {threads}: expected 0 to 256"):
        open_bundle(tiny_bundle, threads=threads)


def test_threads_that_are_no_number_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="threads '2': expected a whole number, 0 to 256"):
        open_bundle(tiny_bundle, threads="2")
