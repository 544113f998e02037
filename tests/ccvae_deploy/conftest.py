"""A small valid bundle made with onnx.helper, without torch: 32x32 RGB, three labels, eight latents.

Latent i of the first three answers to brightness inside region i, and the decoder draws it there again, so edits are
visible and reach their label.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from ccvae_deploy.bundle import MANIFEST, Bundle
from ccvae_deploy.composer import Composer
from ccvae_deploy.editor import Editor
from ccvae_deploy.pipeline import edit_folder
from ccvae_deploy.records.summary import Summary
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

LABELS = LabelSet(labels=(Label(name="Smiling"), Label(name="Wearing_Hat"), Label(name="Young")))
LAYOUT = LatentLayout(blocks=(1, 1, 1), residual=5)
IMAGE = ImageSpec(size=32)


def made_graph(name: str) -> bytes:
    """The bytes of one of the four graphs."""
    inputs, outputs = graph_signature(name, LABELS, LAYOUT, IMAGE)
    regions = np.zeros((8, 3, 32, 32), np.float32)
    for i in range(8):
        regions[i, :, 4 * i : 4 * i + 4] = 1
    flat = regions.reshape(8, -1)
    constants: dict[str, np.ndarray] = {}
    match name:
        case "encoder":
            constants = {"W": (flat.T * (12 / 384)).astype(np.float32), "b": np.full(8, -6.0, np.float32)}
            constants["s"] = np.full((1, 8), 0.1, np.float32)
            nodes = [
                ("Flatten", ["image"], "f"),
                ("MatMul", ["f", "W"], "m"),
                ("Add", ["m", "b"], "z_loc"),
                ("Mul", ["z_loc", "zero"], "none"),
                ("Add", ["none", "s"], "z_scale"),
            ]
            constants["zero"] = np.zeros(1, np.float32)
        case "decoder":
            constants = {"W": (flat * 0.5).astype(np.float32), "shape": np.array([-1, 3, 32, 32])}
            nodes = [("MatMul", ["z", "W"], "m"), ("Sigmoid", ["m"], "g"), ("Reshape", ["g", "shape"], "image")]
        case "classifier":
            constants = {"w": np.array([2.0, 1.5, 1.0], np.float32), "b": np.array([0.2, -0.1, 0.0], np.float32)}
            nodes = [("Mul", ["z_c", "w"], "m"), ("Add", ["m", "b"], "logits")]
        case _:
            constants = {
                "span": np.array([6.0, 7.0, 8.0], np.float32),
                "low": np.array([-3.0, -3.5, -4.0], np.float32),
                "spread": np.array([0.5, 0.6, 0.7], np.float32),
                "base": np.array([0.4, 0.4, 0.4], np.float32),
            }
            nodes = [
                ("Mul", ["y", "span"], "m"),
                ("Add", ["m", "low"], "z_c_loc"),
                ("Mul", ["y", "spread"], "t"),
                ("Add", ["t", "base"], "z_c_scale"),
            ]

    def info(spec):
        return helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, ["N", *spec.shape[1:]])

    graph = helper.make_graph(
        [helper.make_node(op, given, [out]) for op, given, out in nodes],
        name,
        [info(spec) for spec in inputs],
        [info(spec) for spec in outputs],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def write_bundle(folder: Path, graphs: dict[str, bytes]) -> Path:
    """A bundle folder with these graphs and a manifest that fits them."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name in GRAPHS:
        inputs, outputs = graph_signature(name, LABELS, LAYOUT, IMAGE)
        data = graphs[name]
        (folder / f"{name}.onnx").write_bytes(data)
        files[name] = GraphFile(
            file=f"{name}.onnx",
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            format="onnx",
            opset=18,
            inputs=inputs,
            outputs=outputs,
        )
    manifest = Manifest(
        model=ModelSpec(),
        labels=LABELS,
        layout=LAYOUT,
        image=IMAGE,
        label_prior=(0.5, 0.2, 0.7),
        latent_range=LatentRange(low=(-3.0,) * 8, high=(3.0,) * 8),
        files=files,
        provenance={"data": "made"},
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2), "utf-8")
    return folder


@pytest.fixture(scope="session")
def graphs() -> dict[str, bytes]:
    """The four graphs by name."""
    return {name: made_graph(name) for name in GRAPHS}


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, graphs: dict[str, bytes]) -> Path:
    """A valid bundle; do not change it, copy it."""
    return write_bundle(tmp_path_factory.mktemp("bundle") / "bundle-onnx", graphs)


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "own-bundle"))


@pytest.fixture(scope="session")
def priorless_bundle(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a conditional prior, of the family vae-classifier; do not change it."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("priorless") / "bundle-onnx"))
    (folder / "conditional_prior.onnx").unlink()
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    del manifest["files"]["conditional_prior"]
    manifest["model"]["family"] = "vae-classifier"
    (folder / MANIFEST).write_text(json.dumps(manifest), "utf-8")
    return folder


@pytest.fixture(scope="session")
def composer(tiny_bundle: Path) -> Composer:
    """A composer over the valid bundle."""
    return Composer.open(tiny_bundle, provider="cpu")


@pytest.fixture(scope="session")
def editor(composer: Composer) -> Editor:
    """An editor over the same."""
    return Editor(composer)


@pytest.fixture(scope="session")
def categorical_composer() -> Composer:
    """A composer over graphs that are Python functions: `Hair` with five classes and two latents, `Hat` with one.

    The mean of Hair's class k is (cos 72k, sin 72k) * 4, its scale 0.5; an image's first three channels of the corner
    pixel are z of Hair and Hat over 10, plus 0.5.
    """
    labels = LabelSet(
        labels=(Label(name="Hair", kind="categorical", classes=("a", "b", "c", "d", "e"), dims=2), Label(name="Hat"))
    )
    layout = LatentLayout(blocks=(2, 1), residual=1)
    turns = 2 * np.pi * np.arange(5) / 5
    means = np.stack([4 * np.cos(turns), 4 * np.sin(turns)], axis=1).astype(np.float32)

    def encode(image):
        z = np.concatenate([image[:, :, 0, 0], image[:, :1, 1, 1]], axis=1) * 10 - 5
        return z, np.full_like(z, 0.1)

    def decode(z):
        image = np.full((len(z), 3, 32, 32), 0.5, np.float32)
        image[:, :, :, :] = np.clip((z[:, :3] + 5) / 10, 0, 1)[:, :, None, None]
        return (image,)

    def prior(y):
        loc = np.concatenate([y[:, :5] @ means, y[:, 5:] * 4 - 2], axis=1)
        return loc, np.full_like(loc, 0.5)

    graphs = {
        "encoder": encode,
        "decoder": decode,
        "classifier": lambda z_c: (np.concatenate([z_c[:, :2] @ means.T, 2 * z_c[:, 2:]], axis=1),),
        "conditional_prior": prior,
    }
    files = {}
    for name in GRAPHS:
        inputs, outputs = graph_signature(name, labels, layout, IMAGE)
        files[name] = GraphFile(
            file=f"{name}.onnx", sha256="0" * 64, bytes=1, format="onnx", inputs=inputs, outputs=outputs
        )
    manifest = Manifest(
        model=ModelSpec(),
        labels=labels,
        layout=layout,
        image=IMAGE,
        label_prior=(0.2, 0.2, 0.2, 0.2, 0.2, 0.5),
        latent_range=LatentRange(low=(-5.0,) * 4, high=(5.0,) * 4),
        files=files,
        provenance={},
    )
    return Composer(Bundle(manifest, "0" * 64, "none", "python functions", graphs))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder `imgs` with nine pictures of different sizes and formats, two folders deep."""
    folder = tmp_path / "imgs"
    rng = np.random.default_rng(0)
    for i, name in enumerate(
        ["a.png", "b.jpg", "c.webp", "deep/d.png", "deep/e.jpg", "deep/er/f.png", "g.png", "h.png", "i.jpeg"]
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 255, (6, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40 + 7 * i, 50 + 3 * i), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture
def run(request: pytest.FixtureRequest, tiny_bundle: Path) -> Callable[..., Summary]:
    """`edit_folder` into a folder: three samples of `smiling=1` of `pictures`, unless other options are given."""

    def edit(out: Path, inputs: Path | None = None, **options) -> Summary:
        asked = {} if "plan" in options else {"set": ["smiling=1"]}
        options = asked | {"samples": 3, "provider": "cpu"} | options
        return edit_folder([inputs or request.getfixturevalue("pictures")], bundle=tiny_bundle, out=out, **options)

    return edit


@pytest.fixture
def imgs(tmp_path: Path) -> Path:
    """Two small pictures, a.png and b.png."""
    folder = tmp_path / "two"
    folder.mkdir()
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (40, 40), colour).save(folder / name)
    return folder


@pytest.fixture
def edit(tiny_bundle: Path, tmp_path: Path):
    """`smiling=1` of some inputs into `out`, without a sheet."""

    def call(*inputs: Path, out: Path = tmp_path / "out", **options):
        asked = {"bundle": tiny_bundle, "set": ["smiling=1"], "out": out, "provider": "cpu", "sheet": False} | options
        return edit_folder(inputs, **asked)

    return call


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder, hidden ones too, but for what says where the sources lay."""

    def found(folder: Path) -> dict[str, bytes]:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".roots"))
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return found


@pytest.fixture(scope="session")
def receipts() -> Callable[[Path], list[dict]]:
    """The rows of an output folder's receipts."""
    return lambda out: [json.loads(line) for line in (out / "receipts.jsonl").read_text().splitlines()]


@pytest.fixture(scope="session")
def failures() -> Callable[[Path], list[dict]]:
    """The rows of an output folder's failures."""
    return lambda out: [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch):
    """Around what is interrupted where it calls a function, or a method, for the n-th time, counted from 1."""

    @contextmanager
    def around(owner: object, name: str, call: int) -> Iterator[None]:
        original, calls = getattr(owner, name), count(1)

        def interrupting(*arguments, **options):
            if next(calls) == call:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, interrupting)
            with pytest.raises(KeyboardInterrupt):
                yield

    return around


@pytest.fixture
def expected(run, tree, tmp_path: Path) -> dict[str, bytes]:
    """The output folder of an undisturbed run, `tmp_path / "expected"`."""
    run(tmp_path / "expected")
    return tree(tmp_path / "expected")


@pytest.fixture(scope="session")
def made_classifier() -> Callable[..., onnx.ModelProto]:
    """Makes a classifier `pixels` to `scores` (N, outputs) whose answer is known: end(gain (weights . x) + bias).

    Its weights are the mean over some rows of a 32x32 RGB image, per output; of one channel or of all.
    """

    def make(
        rows, *, channel=None, gain=20.0, bias=-10.0, end="Sigmoid", layout="nchw", dtype=TensorProto.FLOAT, **dims
    ):
        weights = np.zeros((len(rows), 3, 32, 32), np.float32)
        for i, chosen in enumerate(rows):
            weights[i, slice(None) if channel is None else slice(channel, channel + 1), slice(*chosen)] = 1
            weights[i] /= weights[i].sum()
        flat = (weights if layout == "nchw" else weights.transpose(0, 2, 3, 1)).reshape(len(rows), -1).T
        shape = dims.get("shape") or (["N", 3, 32, 32] if layout == "nchw" else ["N", 32, 32, 3])
        operators = ["Cast", "Flatten", "MatMul", "Mul", "Add", end]
        second = {"MatMul": ["w"], "Mul": ["gain"], "Add": ["bias"]}
        nodes, given = [], "pixels"
        for i, operator in enumerate(operators):
            made = "scores" if i + 1 == len(operators) else f"v{i}"
            attributes = {"Cast": {"to": TensorProto.FLOAT}, "Softmax": {"axis": -1}}.get(operator, {})
            nodes.append(helper.make_node(operator, [given, *second.get(operator, [])], [made], **attributes))
            given = made
        constants = {"w": flat, "gain": np.float32([gain]), "bias": np.float32([bias])}
        graph = helper.make_graph(
            nodes,
            "made",
            [helper.make_tensor_value_info("pixels", dtype, shape)],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], len(rows)])],
            [numpy_helper.from_array(np.ascontiguousarray(value), key) for key, value in constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    return make


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's cache; another folder is another machine."""
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def memory(cache: Path) -> Iterator[str]:
    """An empty place in memory."""
    import fsspec

    url = f"memory://{uuid.uuid4().hex}"
    yield url
    files = fsspec.filesystem("memory")
    if files.exists(url):
        files.rm(url, recursive=True)


@pytest.fixture
def disk(cache: Path, tmp_path: Path) -> str:
    """An empty place on a server's disk."""
    import fsspec

    from .far_places import Disk

    fsspec.register_implementation("disk", Disk, clobber=True)
    (tmp_path / "disk").mkdir()
    return f"disk://{tmp_path}/disk"
