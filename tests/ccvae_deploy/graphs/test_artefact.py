"""One file alone: each format says what it is, and whatever is damaged or foreign ends in one line."""

import contextlib
import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from safetensors.numpy import save_file

from ccvae_deploy.errors import BundleError
from ccvae_deploy.graphs.artefact import METADATA_LIMIT, read_artefact

SHARED = ("schema_version", "model", "labels", "layout", "image", "label_prior")


@pytest.fixture(scope="session")
def metadata(tiny_bundle: Path) -> dict[str, object]:
    """What stands inside an exported decoder."""
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    return {"graph": "decoder", "data": "made", **{name: manifest[name] for name in SHARED}}


@pytest.fixture(scope="session")
def files(tmp_path_factory, graphs, metadata) -> dict[str, Path]:
    """A file of each format, by its ending."""
    folder, text = tmp_path_factory.mktemp("files"), json.dumps(metadata)
    model = onnx.load_model_from_string(graphs["decoder"])
    helper.set_model_props(model, {"ccvae": text})
    (folder / "decoder.onnx").write_bytes(model.SerializeToString(deterministic=True))
    for ending in ("pt", "pt2"):
        (folder / f"decoder.{ending}").write_bytes(archive({"decoder/data.pkl": b"", "decoder/extra/ccvae.json": text}))
    weights = {"model.a": np.zeros((3, 4), np.float32), "optimiser.0.step": np.zeros((), np.float32)}
    checkpoint = {**metadata, "graph": None, "step": 7}
    save_file(weights, folder / "checkpoint.safetensors", metadata={"ccvae": json.dumps(checkpoint)})
    return {path.suffix[1:]: path for path in folder.iterdir()}


def archive(entries: dict[str, bytes | str], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return buffer.getvalue()


def test_an_onnx_graph_says_what_it_is_and_that_it_opens(files) -> None:
    found = read_artefact(files["onnx"])
    assert (found.format, found.metadata.graph, found.problem) == ("onnx", "decoder", None)
    assert found.metadata.labels.names == ("Smiling", "Wearing_Hat", "Young")
    assert found.sha256 == hashlib.sha256(files["onnx"].read_bytes()).hexdigest()
    assert found.details["opset"] == {"ai.onnx": 18}
    assert found.details["operators"] == {"MatMul": 1, "Reshape": 1, "Sigmoid": 1}
    assert found.details["parameters"] == 8 * 3 * 32 * 32 + 4
    assert found.to_json()["metadata"]["data"] == "made"


@pytest.mark.parametrize(("ending", "format"), [("pt", "torchscript"), ("pt2", "pt2")])
def test_an_archive_says_what_it_is(files, ending: str, format: str) -> None:
    found = read_artefact(files[ending])
    assert (found.format, found.metadata.graph, found.details) == (format, "decoder", {"entries": 2})
    assert found.bytes == files[ending].stat().st_size


def test_a_checkpoint_says_what_it_is(files) -> None:
    found = read_artefact(files["safetensors"])
    assert found.details == {"tensors": 2, "parameters": 12}
    assert found.metadata.model_extra["step"] == 7
    assert found.to_json()["kind"] == "checkpoint"


def test_an_onnx_graph_that_would_not_be_run_says_why(files, tmp_path: Path, metadata) -> None:
    model = onnx.load(files["onnx"])
    model.graph.node[1].op_type = "Erf"
    onnx.save(model, tmp_path / "odd.onnx")
    assert "uses the operator Erf" in read_artefact(tmp_path / "odd.onnx").problem
    del model.metadata_props[:]
    helper.set_model_props(model, {"ccvae": json.dumps({**metadata, "graph": "encoder"})})
    model.graph.node[1].op_type = "Sigmoid"
    onnx.save(model, tmp_path / "other.onnx")
    assert "other inputs or outputs" in read_artefact(tmp_path / "other.onnx").problem


class Trap:
    """Unpickled, it makes a folder."""

    def __reduce__(self):
        return os.mkdir, ("sprung",)


def test_no_code_in_an_archive_runs_and_torch_is_not_imported(metadata, tmp_path: Path) -> None:
    entries = {"a/data.pkl": pickle.dumps(Trap()), "a/extra/ccvae.json": json.dumps(metadata)}
    (tmp_path / "a.pt").write_bytes(archive(entries))
    script = (
        "import sys; from pathlib import Path; from ccvae_deploy.graphs.artefact import read_artefact\n"
        "print(read_artefact(Path('a.pt')).metadata.graph); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "decoder\n"
    assert not (tmp_path / "sprung").exists()


def test_foreign_and_damaged_files_end_in_one_line(files, metadata, tmp_path: Path) -> None:
    text = json.dumps(metadata)
    bare = onnx.load(files["onnx"])
    del bare.metadata_props[:]
    crowded, huge = onnx.ModelProto(), onnx.load(files["onnx"])
    crowded.graph.node.extend(onnx.NodeProto() for _ in range(600_000))
    huge.graph.initializer[0].dims.extend([1 << 62] * 500)
    judge, told = onnx.load(files["onnx"]), json.dumps({"schema_version": 1, "graph": "judge", "figures": {}})
    helper.set_model_props(judge, {"ccvae": told})
    header = json.dumps({"__metadata__": {"ccvae_judge": told}}).encode()
    weights = {"model.a": {"dtype": "F32", "shape": [10**4000], "data_offsets": [0, 4]}}
    heavy = json.dumps(weights).encode()
    cases = {
        "crowded.onnx": (crowded.SerializeToString(), "not an ONNX file"),
        "heavy.safetensors": (struct.pack("<Q", len(heavy)) + heavy, "no whole safetensors file"),
        "endless.safetensors": (struct.pack("<Q", 34) + b'{"model.a": {"shape": [1e999]}}   ', "no whole safetensors"),
        "judge.onnx": (judge.SerializeToString(), "holds a judge, no graph of a bundle; give a bundle, or the judge"),
        "judge.safetensors": (struct.pack("<Q", len(header)) + header, "holds a judge, no graph of a bundle"),
        "absent.onnx": (None, "cannot be read: No such file"),
        "model.h5": (b"x", "neither a bundle nor a file in .onnx, .pt, .pt2, .safetensors"),
        "empty.onnx": (b"", "no file of 1 to"),
        "garbage.onnx": (b"\xff" * 99, "not an ONNX file or is truncated"),
        "bare.onnx": (bare.SerializeToString(), "carries no metadata of ccvae-deploy"),
        "garbage.pt": (b"PK\x03\x04" + b"\0" * 99, "no whole zip archive"),
        "bare.pt": (archive({"a/data.pkl": b""}), "carries no metadata"),
        "twice.pt": (archive({"a/extra/ccvae.json": text, "b/extra/ccvae.json": text}), "carries no metadata"),
        "deep.pt": (archive({"a/b/extra/ccvae.json": text}), "carries no metadata"),
        "words.pt2": (archive({"a/extra/ccvae.json": "{"}), "the metadata is not JSON"),
        "nested.pt2": (archive({"a/extra/ccvae.json": "[" * 100_000}), "the metadata is not JSON"),
        "list.pt2": (archive({"a/extra/ccvae.json": "[]"}), "metadata: metadata:"),
        "bomb.pt": (archive({"a/extra/ccvae.json": b"0" * (64 << 20)}, zipfile.ZIP_DEFLATED), "not JSON"),
        "bzip2.pt": (archive({"a/extra/ccvae.json": text}, zipfile.ZIP_BZIP2), "metadata compressed by method 12"),
        "garbage.safetensors": (b"\xff" * 99, "no whole safetensors file: a header of"),
        "short.safetensors": (b"\1", "no whole safetensors file"),
        "words.safetensors": (struct.pack("<Q", 2) + b"[]", "no whole safetensors file"),
        "bare.safetensors": (struct.pack("<Q", 2) + b"{}", "carries no metadata"),
        "newer.pt": (archive({"a/extra/ccvae.json": json.dumps({**metadata, "schema_version": 2})}), "upgrade"),
        "torn.pt": (
            archive({"a/extra/ccvae.json": json.dumps({**metadata, "label_prior": [0.5]})}),
            "label prior has 1",
        ),
    }
    for name, (data, message) in cases.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        with pytest.raises(BundleError) as caught:
            read_artefact(tmp_path / name)
        assert message in str(caught.value), name
        assert len(str(caught.value).splitlines()) == 1, name
    (tmp_path / "huge.onnx").write_bytes(huge.SerializeToString())
    assert "has" in str(read_artefact(tmp_path / "huge.onnx").problem)


def test_a_directory_beyond_the_limit_is_not_read(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "wide.pt").write_bytes(archive({f"a/{i}": b"" for i in range(1000)}))
    monkeypatch.setattr("ccvae_deploy.graphs.artefact.METADATA_LIMIT", 20_000)
    with pytest.raises(BundleError, match="no whole zip archive: a part of"):
        read_artefact(tmp_path / "wide.pt")
    assert METADATA_LIMIT == 8 << 20


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(BundleError, match="no file of 1 to"):
        read_artefact(tmp_path / "pipe.onnx")


@given(data=st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_and_cut_files_are_read_or_refused(files, tmp_path: Path, data) -> None:
    ending = data.draw(st.sampled_from(["pt", "pt2", "safetensors"]))
    content = bytearray(files[ending].read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] ^= data.draw(st.integers(1, 255))
    cut = content[: data.draw(st.integers(1, len(content)))] if data.draw(st.booleans()) else content
    path = tmp_path / f"file.{ending}"
    path.write_bytes(cut)
    with contextlib.suppress(BundleError):
        assert read_artefact(path).metadata.graph in ("decoder", None)
