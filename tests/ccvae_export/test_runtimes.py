"""The graphs of a bundle in other runtimes, and the composed edit without this package.

Every bundle of `BUNDLES` is tried, and those that CCVAE_BUNDLES names (folders, separated as a PATH is).
onnxruntime-web is tried where Node is found and CCVAE_NODE, or else `tests/web`, is a folder whose node_modules holds
the package (`make web-test`); CCVAE_REPORT=1 prints the differences.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from PIL import Image

from ccvae_deploy import Editor
from ccvae_deploy.bundle import Bundle, open_bundle
from ccvae_deploy.composer import Composer

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "without-this-package.md"
WEB = Path(__file__).parent.parent / "web"
MODULES = Path(os.environ.get("CCVAE_NODE", WEB))

Graph = Callable[[np.ndarray], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Given:
    """A bundle to try: a fixture's name or a folder, and what may differ.

    `graphs` is relative to max(1, largest value), `levels` of 255 is for the composed edit.
    """

    source: str
    graphs: float = 1e-4
    levels: int = 1


BUNDLES = [
    Given("onnx_bundle"),
    # runtimes round 16 and 8 bits in places of their own
    Given("fp16_bundle", graphs=5e-3, levels=2),
    Given("int8_bundle", graphs=5e-2, levels=8),
    *(Given(path) for path in os.environ.get("CCVAE_BUNDLES", "").split(os.pathsep) if path),
]


@pytest.fixture(params=BUNDLES, ids=lambda given: Path(given.source).name)
def given(request) -> Given:
    return request.param


@pytest.fixture
def folder(given: Given, request) -> Path:
    return Path(given.source) if os.sep in given.source else request.getfixturevalue(given.source)


@pytest.fixture
def bundle(folder: Path) -> Bundle:
    return open_bundle(folder, provider="cpu")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """A PNG, a JPEG that is stored lying on its side, and one of the small network's own size."""
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {"a.png": (90, 70, {}), "b.jpg": (64, 120, {"exif": exif, "quality": 90}), "c.png": (32, 32, {})}
    for name, (width, height, options) in made.items():
        coarse = Image.fromarray(rng.integers(0, 255, (6, 5, 3), dtype=np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(tmp_path / name, **options)
    return [tmp_path / name for name in made]


def script() -> str:
    (found,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return found


def test_the_page_keeps_its_word_on_length_and_imports() -> None:
    lines = script().splitlines()
    assert len([line for line in lines if line.strip()]) <= 30
    assert "ccvae_deploy" not in script()
    assert "import torch" not in script()


def test_the_lines_of_the_page_edit_as_the_editor_does(given: Given, bundle, folder, pictures, tmp_path: Path) -> None:
    (tmp_path / "edit.py").write_text(script(), "utf-8")
    editor = Editor(Composer(bundle))
    for number, source in enumerate(pictures):
        label = bundle.manifest.labels.names[number % len(bundle.manifest.labels.names)]
        value, seed = number % 2, number + 5
        target = tmp_path / f"{source.stem}-edited.png"
        command = [sys.executable, "-P", tmp_path / "edit.py", folder, source, label, value, seed, number, target]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        expected = editor.edit(source, set={label: value}, seed=seed, samples=number + 1).images[number]
        with Image.open(target) as found:
            worst = difference(found, expected)
        report(given, "without this package", source.name, worst)
        assert worst <= given.levels
        # another draw is another picture, so that equal ones mean something
        (other,) = editor.edit(source, set={label: value}, seed=seed + 100).images
        assert difference(other, expected) > 2 * given.levels


def reference_graphs(folder: Path, bundle: Bundle) -> dict[str, Graph]:
    """The graphs in onnx.reference, which is numpy."""

    def graph(file: str) -> Graph:
        session = ReferenceEvaluator(onnx.load(folder / file))
        (name,) = session.input_names
        return lambda array: tuple(session.run(None, {name: array}))

    return {name: graph(entry.file) for name, entry in bundle.manifest.files.items()}


@pytest.fixture(scope="module")
def node() -> Iterator[Callable[[dict[str, object]], dict[str, object]]]:
    """onnxruntime-web in one Node process: a function of a request that gives an answer."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("no Node here")
    if not (MODULES / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("no onnxruntime-web here; `make web-test` installs it")
    process = subprocess.Popen(
        [program, WEB / "serve.mjs", MODULES.resolve()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def ask(request: dict[str, object]) -> dict[str, object]:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    assert re.fullmatch(r"1\.\d+\.\d+.*", json.loads(process.stdout.readline())["version"])
    yield ask
    process.stdin.close()
    process.wait(30)


def web_graphs(folder: Path, bundle: Bundle, ask) -> dict[str, Graph]:
    """The graphs in onnxruntime-web."""

    def graph(entry) -> Graph:
        def run(array: np.ndarray) -> tuple[np.ndarray, ...]:
            data = base64.b64encode(np.ascontiguousarray(array, np.float32).tobytes()).decode()
            answer = ask({"graph": str(folder / entry.file), "dims": list(array.shape), "data": data})
            assert "error" not in answer, answer
            assert [one["name"] for one in answer["outputs"]] == [spec.name for spec in entry.outputs]
            return tuple(
                np.frombuffer(base64.b64decode(one["data"]), np.float32).reshape(one["dims"])
                for one in answer["outputs"]
            )

        return run

    return {name: graph(entry) for name, entry in bundle.manifest.files.items()}


@pytest.mark.filterwarnings("ignore::RuntimeWarning:onnx.reference")
def test_the_reference_runtime_agrees(given: Given, bundle: Bundle, folder: Path, pictures) -> None:
    if any(entry.precision == "int8" for entry in bundle.manifest.files.values()):
        pytest.skip("onnx.reference has the quantising operators from opset 19 on")
    agree(given, bundle, replace(bundle, graphs=reference_graphs(folder, bundle)), "onnx.reference", pictures)


def test_onnxruntime_web_agrees(given: Given, bundle: Bundle, folder: Path, pictures, node) -> None:
    agree(given, bundle, replace(bundle, graphs=web_graphs(folder, bundle, node)), "onnxruntime-web", pictures)


def agree(given: Given, ours: Bundle, other: Bundle, runtime: str, pictures: list[Path]) -> None:
    """Every graph at batches 1 and 3, then the composed edit in two modes."""
    for batch in (1, 3):
        for name, array in inputs(ours, batch).items():
            expected, found = ours.graphs[name](array), other.graphs[name](array)
            assert [one.shape for one in found] == [one.shape for one in expected]
            for one, value in zip(expected, found, strict=True):
                worst = float(np.abs(value - one).max() / max(1.0, float(np.abs(one).max())))
                report(given, runtime, f"{name} at batch {batch}", worst)
                assert worst <= given.graphs, (name, batch)
    editors = Editor(Composer(ours, batch_size=2)), Editor(Composer(other, batch_size=2))
    for source, mode in zip(pictures, ("sample", "closest"), strict=False):
        wanted = {ours.manifest.labels.names[0]: 1, ours.manifest.labels.names[-1]: 0}
        first, second = (editor.edit(source, set=wanted, mode=mode, samples=1) for editor in editors)
        worst = difference(first.images[0], second.images[0])
        report(given, runtime, f"composed edit, {mode}", worst)
        assert worst <= given.levels, mode


def inputs(bundle: Bundle, batch: int) -> dict[str, np.ndarray]:
    """Made images and what the graphs give for them."""
    manifest, rng = bundle.manifest, np.random.default_rng(batch)
    coarse = rng.random((batch, manifest.image.channels, 8, 8), dtype=np.float32)
    image = coarse.repeat(manifest.image.size // 8, axis=2).repeat(manifest.image.size // 8, axis=3)
    loc, scale = bundle.encode(image)
    z = loc + scale * rng.standard_normal(loc.shape).astype(np.float32)
    return {
        "encoder": image,
        "decoder": z,
        "classifier": np.ascontiguousarray(z[:, : manifest.layout.z_c]),
        "conditional_prior": (rng.random((batch, manifest.labels.width)) < 0.5).astype(np.float32),
    }


def difference(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two images of one size, in levels of 255."""
    assert one.size == other.size
    return int(np.abs(np.asarray(one.convert("RGB"), int) - np.asarray(other.convert("RGB"), int)).max())


def report(given: Given, runtime: str, what: str, worst: float) -> None:
    if os.environ.get("CCVAE_REPORT"):
        print(f"{Path(given.source).name}: {runtime}: {what}: {worst:.2g}")
