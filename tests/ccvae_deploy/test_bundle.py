"""Bundles: a good one opens and runs; every bad one is refused with one line before a session is made."""

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from ccvae_deploy.bundle import open_bundle, read_manifest
from ccvae_deploy.errors import BundleError, CCVAEError


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


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"schema_version": 1}', "\xff\xfe"])
def test_what_is_no_manifest(own_bundle: Path, text: str) -> None:
    (own_bundle / "manifest.json").write_text(text, "latin-1")
    with pytest.raises(BundleError) as caught:
        open_bundle(own_bundle)
    assert "\n" not in str(caught.value)


def test_newer_version_says_so(own_bundle: Path) -> None:
    write_manifest(own_bundle, manifest_of(own_bundle) | {"schema_version": 2})
    with pytest.raises(BundleError, match="upgrade ccvae-deploy"):
        open_bundle(own_bundle)


def test_huge_manifest_is_refused(own_bundle: Path) -> None:
    with (own_bundle / "manifest.json").open("ab") as file:
        file.write(b" " * (5 << 20))
    with pytest.raises(BundleError, match="longer than the limit"):
        read_manifest(own_bundle)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_manifest_opens_or_is_refused_with_one_line(
    tiny_bundle: Path, own_bundle: Path, data: st.DataObject
) -> None:
    content = manifest_of(tiny_bundle)
    place: dict | list = content
    while True:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            place[key] = data.draw(JSON)
            break
        place = inner
    write_manifest(own_bundle, content)
    with contextlib.suppress(CCVAEError):
        open_bundle(own_bundle, provider="cpu")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_graph_opens_or_is_refused_with_one_line(tiny_bundle, own_bundle, graphs, data: st.DataObject) -> None:
    (own_bundle / "manifest.json").write_bytes((tiny_bundle / "manifest.json").read_bytes())
    changed = bytearray(graphs["classifier"])
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    replace_graph(own_bundle, "classifier", bytes(changed))
    with contextlib.suppress(CCVAEError):
        open_bundle(own_bundle, provider="cpu")
