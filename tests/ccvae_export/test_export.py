"""Export: the bundle computes what the model computes, says what it is, and a broken one is never left behind."""

import io
import itertools
import json
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from ccvae_deploy import Editor
from ccvae_deploy.bundle import open_bundle, read_manifest
from ccvae_deploy.errors import ParityError, ProviderError, RunError, UsageError
from ccvae_deploy.pipeline import edit_folder
from ccvae_export import export, variants
from ccvae_export.bundle_folder import put_back, refuse_foreign
from ccvae_export.export import export_run, open_written
from ccvae_export.parity import BATCHES, eager_graphs
from ccvae_export.pt2_graphs import moved, pt2_bytes
from ccvae_train.checkpoint import load_run

GRAPHS = ("encoder", "decoder", "classifier", "conditional_prior")
NETWORKS = dict(zip(GRAPHS, ("Encoder", "Decoder", "Classifier", "ConditionalPrior"), strict=True))


@pytest.mark.parametrize("bundle", ["onnx_bundle", "torchscript_bundle", "pt2_bundle"])
def test_graphs_agree_with_the_model_at_every_batch(made_run: Path, bundle: str, request) -> None:
    run, opened = load_run(made_run), open_written(request.getfixturevalue(bundle))
    for batch in (1, 2, 3, 17, 64):
        image = np.random.default_rng(batch).random((batch, 3, 32, 32), dtype=np.float32)
        with torch.inference_mode():
            z_loc, z_scale = (t.numpy() for t in run.model.encoder(torch.from_numpy(image)))
            decoded = run.model.decoder(torch.from_numpy(z_loc)).numpy()
            logits = run.model.classifier(torch.from_numpy(z_loc[:, :4])).numpy()
            y = (logits > 0).astype(np.float32)
            prior = tuple(t.numpy() for t in run.model.conditional_prior(torch.from_numpy(y)))
        z_c = z_loc[:, :4]
        found = (*opened.encode(image), opened.decode(z_loc), opened.classify(z_c), *opened.conditional_prior(y))
        for expected, value in zip((z_loc, z_scale, decoded, logits, *prior), found, strict=True):
            assert value.shape == expected.shape
            assert np.abs(value - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


def test_both_formats_edit_to_the_same_pixels(onnx_bundle: Path, torchscript_bundle: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8))
    editors = Editor.open(onnx_bundle), Editor.open(torchscript_bundle, allow_torchscript=True)
    first, second = (editor.edit(picture, smiling=1, wearing_hat=1, samples=4) for editor in editors)
    for a, b in zip(first.images, second.images, strict=True):
        assert np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max() <= 1
    assert editors[1].bundle.provider.startswith("torch")


def test_threads_are_those_of_torchscript_too(torchscript_bundle: Path) -> None:
    before = torch.get_num_threads()
    try:
        open_bundle(torchscript_bundle, allow_torchscript=True, threads=before + 1)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_convolutions_give_the_same_bytes_for_any_batch_size_and_workers(onnx_bundle: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "imgs").mkdir()
    for i in range(11):
        Image.fromarray(rng.integers(0, 255, (40 + i, 50, 3), dtype=np.uint8)).save(tmp_path / "imgs" / f"{i}.png")
    found = []
    for batch_size, workers in ((1, 1), (5, 3), (16, 2)):
        out = tmp_path / str(batch_size)
        options = {"set": ["wearing_hat=1"], "samples": 2, "provider": "cpu", "sheet": False}
        edit_folder([tmp_path / "imgs"], bundle=onnx_bundle, out=out, batch_size=batch_size, workers=workers, **options)
        found.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert found[0] == found[1] == found[2]


class Skewed(nn.Module):
    """A network that was exported wrongly."""

    def __init__(self, network: nn.Module, by: float) -> None:
        super().__init__()
        self.network, self.by = network, by

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        found = self.network(x)
        return (found[0] + self.by, *found[1:]) if isinstance(found, tuple) else found * (1 - self.by)


@pytest.mark.parametrize(
    ("format", "graph"), [("onnx", "decoder"), ("pt2", "encoder"), *(("torchscript", graph) for graph in GRAPHS)]
)
def test_a_broken_graph_is_refused_by_name_and_leaves_nothing(made_run, tmp_path, monkeypatch, format, graph) -> None:
    whole = variants.fast

    def breaking(network: nn.Module) -> nn.Module:
        return Skewed(whole(network), 0.003) if type(network).__name__ == NETWORKS[graph] else whole(network)

    monkeypatch.setattr(variants, "fast", breaking)
    message = f"{graph} in {format} at batch 1 differs from eager torch by .* no bundle was written"
    with pytest.raises(ParityError, match=message) as caught:
        export_run(made_run, format, tmp_path / "bundle")
    assert caught.value.exit_code == 1
    assert not any(tmp_path.iterdir())


def test_a_graph_that_gives_no_numbers_is_refused(made_run, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(variants, "fast", lambda network: Skewed(network, float("nan")))
    with pytest.raises(ParityError, match="no bundle was written") as caught:
        export_run(made_run, "onnx", tmp_path / "bundle")
    assert caught.value.exit_code == 1
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def by_command(made_run: Path, tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run that the command exported in three formats, in a process of its own; do not change it."""
    # there too on few images and with one registry
    code = """
    import functools
    from torch.onnx._internal.exporter._registration import ONNXRegistry
    from ccvae_deploy.cli import app
    from ccvae_export import run_images
    run_images.JUDGED = run_images.FEWEST
    run_images.CALIBRATION = 64
    ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
    app()
    """
    folder = tmp_path_factory.mktemp("by-command")
    run = Path(shutil.copytree(made_run, folder / "run"))
    formats = [word for format in ("torchscript", "onnx", "pt2") for word in ("--format", format)]
    command = [sys.executable, "-c", textwrap.dedent(code), "export", run, *formats]
    return run, subprocess.run(command, capture_output=True, text=True, cwd=folder)


def test_the_command_prints_the_table_and_no_warning(by_command) -> None:
    run, done = by_command
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "composed edit" in done.stdout
    assert "Warning" not in done.stdout
    assert done.stdout.endswith(
        f"{run}/bundle-torchscript is written\n{run}/bundle-onnx is written\n{run}/bundle-pt2 is written\n"
        f"next: ccvae-deploy edit imgs/ --bundle {run}/bundle-torchscript --allow-torchscript "
        "--set Smiling=1 --samples 8\n"
    )


def test_several_formats_come_from_one_export_or_none(by_command, tmp_path: Path, monkeypatch) -> None:
    run = Path(shutil.copytree(by_command[0], tmp_path / "run"))
    rows = json.loads((run / "bundle-pt2" / "parity.json").read_text())["rows"]
    names = ("eager torch", "torchscript", "onnx", "pt2")
    pairs = set(itertools.combinations(names, 2))
    expected = {(graph, *pair, batch) for graph in (*GRAPHS, "composed edit") for pair in pairs for batch in BATCHES}
    assert {(row["graph"], row["reference"], row["backend"], row["batch"]) for row in rows} == expected
    assert BATCHES == (1, 2, 3, 17, 64)
    assert all(row["ok"] and row["max_abs"] <= row["tolerance"] for row in rows)
    before = {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}
    monkeypatch.setattr(variants, "pt2_bytes", lambda network, *rest: pt2_bytes(Skewed(network, 0.003), *rest))
    with pytest.raises(ParityError, match="pt2"):
        export_run(run, ["onnx", "pt2"])
    assert {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()} == before


def test_what_cannot_be_exported_is_refused_before_work(made_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="only ONNX has it; use --format onnx"):
        export_run(made_run, "pt2", tmp_path / "b", precision="int8")
    with pytest.raises(UsageError, match="did you mean fp16"):
        export_run(made_run, "onnx", tmp_path / "b", precision="fp61")
    with pytest.raises(UsageError, match="it names one bundle"):
        export_run(made_run, ["onnx", "pt2"], tmp_path / "b")
    assert not any(tmp_path.iterdir())


def test_the_report_fits_the_screen(made_run: Path, tmp_path: Path) -> None:
    report = export_run(made_run, "torchscript", tmp_path / "bundle", precision="auto")
    assert report.exported[0].manifest.files["encoder"].precision == "fp16"
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report.table())
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "quality gate" in text


def test_export_is_deterministic_and_replaces_its_own_bundle(made_run: Path, onnx_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(onnx_bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "decoder.onnx").write_bytes(b"of an export before")
    export_run(made_run, "onnx", tmp_path / "bundle")
    for path in onnx_bundle.iterdir():
        assert (tmp_path / "bundle" / path.name).read_bytes() == path.read_bytes(), path.name
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_left_alone(made_run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(UsageError, match="holds something that is no bundle"):
        export_run(made_run, "onnx", tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    # a web application has one too
    (tmp_path / "mine" / "manifest.json").write_text('{"name": "mine"}')
    with pytest.raises(UsageError, match="holds something that is no bundle"):
        export_run(made_run, "onnx", tmp_path / "mine")


def test_a_bundle_with_something_else_in_its_folder_is_left_alone(
    made_run: Path, onnx_bundle: Path, tmp_path: Path
) -> None:
    shutil.copytree(onnx_bundle, tmp_path / "mine")
    (tmp_path / "mine" / "thesis.txt").write_text("words")
    with pytest.raises(UsageError, match=r"holds 'thesis\.txt', which is no part of its bundle"):
        export_run(made_run, "onnx", tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "words"


@pytest.mark.parametrize("name", ["README.md", "sheet.png"])
def test_a_card_that_someone_has_edited_is_left_alone(
    made_run: Path, onnx_bundle: Path, tmp_path: Path, name: str
) -> None:
    bundle = Path(shutil.copytree(onnx_bundle, tmp_path / "mine"))
    refuse_foreign(bundle)
    (bundle / name).write_bytes((bundle / name).read_bytes() + b"our terms")
    with pytest.raises(UsageError, match=rf"mine/{name} was changed since it was exported, .*; move it out"):
        export_run(made_run, "onnx", bundle)
    assert (bundle / name).read_bytes().endswith(b"our terms")
    (bundle / name).rename(tmp_path / name)
    refuse_foreign(bundle)


def test_a_bundle_that_keeps_no_hash_of_its_card_is_replaced_as_before(onnx_bundle: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(onnx_bundle, tmp_path / "older"))
    (bundle / "README.md").write_text("ours")
    measured = json.loads((bundle / "parity.json").read_text())
    for older in ({"rows": measured["rows"]}, measured["rows"], {**measured, "written": []}):
        (bundle / "parity.json").write_text(json.dumps(older))
        refuse_foreign(bundle)
    (bundle / "parity.json").unlink()
    refuse_foreign(bundle)


def test_a_bundle_behind_a_url_is_refused(made_run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    # a command has made a path of it
    for out in ("s3://bucket/x", Path("s3://bucket/x")):
        with pytest.raises(UsageError, match=r"^s3://bucket/x: a URL, .*; give a path of this machine$"):
            export_run(made_run, "onnx", out)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("graph", GRAPHS)
def test_one_onnx_graph_alone_says_what_it_is(onnx_bundle: Path, graph: str) -> None:
    model = onnx.load(onnx_bundle / f"{graph}.onnx")
    (prop,) = model.metadata_props
    content = json.loads(prop.value)
    assert prop.key == "ccvae"
    assert content["graph"] == graph
    assert [label["name"] for label in content["labels"]["labels"]] == ["Smiling", "Wearing_Hat", "Young"]
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [18]
    assert not [node.op_type for node in model.graph.node if "Random" in node.op_type]
    assert b"site-packages" not in (onnx_bundle / f"{graph}.onnx").read_bytes()


def test_one_torchscript_graph_alone_says_what_it_is(torchscript_bundle: Path) -> None:
    extra = {"ccvae.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(torchscript_bundle / "decoder.pt", _extra_files=extra)
    assert json.loads(extra["ccvae.json"])["graph"] == "decoder"


def test_manifest_carries_the_run(made_run: Path, onnx_bundle: Path) -> None:
    manifest = open_bundle(onnx_bundle, provider="cpu").manifest
    assert manifest.layout.blocks == (1, 2, 1)
    assert manifest.label_prior == (0.5, 0.2, 0.7)
    assert manifest.model.likelihood_scale == 0.15
    assert manifest.provenance == load_run(made_run).provenance


def test_unknown_format_and_missing_run(made_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean onnx"):
        export_run(made_run, "onyx")
    with pytest.raises(RunError, match="no run at"):
        export_run(tmp_path / "absent")


def test_a_bundle_for_a_run_is_told_from_a_run_that_has_not_ended(made_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(made_run, tmp_path / "run"))
    (run / "bundle-onnx").mkdir()
    with pytest.raises(RunError, match=r"no checkpoint\.safetensors in .*bundle-onnx; let `ccvae-deploy train` finish"):
        export_run(run / "bundle-onnx")
    (run / "bundle-onnx" / "manifest.json").touch()
    with pytest.raises(RunError, match=rf"bundle-onnx is a bundle, no run; give the .* exported from: {run}$"):
        export_run(run / "bundle-onnx")
    (run / "bundle-onnx").rename(tmp_path / "moved")
    with pytest.raises(RunError, match=r"moved is a bundle, no run; give the run that it was exported from$"):
        export_run(tmp_path / "moved")


@pytest.mark.parametrize("format", ["onnx", "torchscript", "pt2"])
def test_a_categorical_label_is_exported_and_edited(mixed_run: Path, tmp_path: Path, format: str) -> None:
    bundle = export_run(mixed_run, format, tmp_path / "bundle").bundle
    opened = open_written(bundle)
    assert opened.manifest.labels.column_names == ("Smiling", "Hair=black", "Hair=blond", "Hair=brown")
    y = np.array([[1, 0, 1, 0], [0, 0, 0, 1]], np.float32)
    with torch.inference_mode():
        expected = [t.numpy() for t in load_run(mixed_run).model.conditional_prior(torch.from_numpy(y))]
    for found, wanted in zip(opened.conditional_prior(y), expected, strict=True):
        assert np.abs(found - wanted).max() < 1e-5
    if format == "onnx":
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))
        result = Editor.open(bundle).edit(picture, hair="blond", samples=2)
        assert len(result.images) == 2


def test_a_pt2_program_is_moved_as_a_whole(pt2_bundle: Path) -> None:
    """On the meta device, since no other is there; each check of a tensor's place must move with the weights."""
    program = torch.export.load(pt2_bundle / "encoder.pt2")
    places = {str(node.kwargs["device"]) for node in program.graph.nodes if "device" in node.kwargs}
    assert places == {"cpu"}
    found = moved(program, torch.device("meta"))
    assert {str(node.kwargs["device"]) for node in found.graph.nodes if "device" in node.kwargs} == {"meta"}
    assert all(weight.is_meta for weight in found.state_dict.values())


def test_an_onnxruntime_without_cuda_ends_no_export(made_run: Path, onnx_bundle: Path, monkeypatch) -> None:
    def opened(folder: Path, device: str = "cpu"):
        if device == "cuda":
            raise ProviderError("--provider cuda: this onnxruntime is built without it")
        return open_written(folder)

    monkeypatch.setattr(export.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(export, "cuda_devices", lambda: 1)
    monkeypatch.setattr(export, "open_written", opened)
    found, unchecked = export._parity(load_run(made_run), {"onnx": onnx_bundle})
    assert unchecked == ("onnx was not checked on CUDA: --provider cuda: this onnxruntime is built without it",)
    assert found.rows
    assert all(row.ok for row in found.rows)


def test_a_gpu_without_memory_ends_no_export(made_run: Path, onnx_bundle: Path, monkeypatch) -> None:
    def graphs(run, device: str = "cpu"):
        if device == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return eager_graphs(run)

    monkeypatch.setattr(export.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(export, "cuda_devices", lambda: 1)
    monkeypatch.setattr(export, "open_written", lambda folder, device="cpu": open_written(folder))
    monkeypatch.setattr(export, "eager_graphs", graphs)
    found, unchecked = export._parity(load_run(made_run), {"onnx": onnx_bundle})
    assert unchecked == ("onnx: not checked on CUDA: CUDA out of memory",)
    assert all(row.ok for row in found.rows)


def test_the_current_folder_is_not_replaced(made_run: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for out in (Path(), Path("..")):
        with pytest.raises(UsageError, match="is the current folder or around it"):
            export_run(made_run, out=out)


def test_a_link_to_a_bundle_stays_one(made_run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "bundle").mkdir(parents=True)
    (tmp_path / "link").symlink_to("elsewhere/bundle")
    export_run(made_run, "torchscript", tmp_path / "link")
    second = export_run(made_run, "torchscript", tmp_path / "link").exported[0].manifest
    assert (tmp_path / "link").is_symlink()
    assert read_manifest(tmp_path / "elsewhere" / "bundle")[0] == second
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["bundle"]


def test_a_strangers_run_replaces_no_bundle_elsewhere(made_run: Path, onnx_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(made_run, tmp_path / "theirs", ignore=shutil.ignore_patterns("bundle-*"))
    shutil.copytree(onnx_bundle, tmp_path / "product")
    (tmp_path / "theirs" / "bundle-onnx").symlink_to("../product")
    with pytest.raises(UsageError, match="is a link out of its run; name where it leads with --out"):
        export_run(tmp_path / "theirs")
    assert read_manifest(tmp_path / "product")[1] == read_manifest(onnx_bundle)[1]


def test_a_bundle_that_a_kill_left_aside_is_put_back(onnx_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / ".bundle.old.0123abcd").mkdir()
    (tmp_path / ".bundle.old.mine").mkdir()
    (tmp_path / ".bundle.old.deadbeef").symlink_to(onnx_bundle)
    put_back(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    shutil.copytree(onnx_bundle, tmp_path / ".bundle.old.1a2b3c4d")
    put_back(tmp_path / "bundle")
    assert read_manifest(tmp_path / "bundle")[1] == read_manifest(onnx_bundle)[1]
    assert not (tmp_path / ".bundle.old.1a2b3c4d").exists()
