"""Open and verify a bundle: four graphs as functions of numpy arrays. Reads inside the bundle folder only.

Every file is read once; what was hashed and vetted is what runs.
"""

import hashlib
import json
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from .arrays import Array
from .errors import BundleError, ProviderError, one_line
from .given import refuse_outside
from .latest import ONNX_BUNDLE, followed_bundle
from .providers import ON_CPU, Choice, choose_provider, make_session, refuse_provider
from .schema import GRAPH_LIMIT, SCHEMA_VERSION, GraphFile, GraphName, Manifest
from .storage.remote import local_path

Graph = Callable[[Array], tuple[Array, ...]]

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 1 << 20
MOST_THREADS = 256
SLACK = 1e-2
"""How far outside of 0 to 1 a pixel may lie: low precisions round."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. Arrays are float32, the batch dimension first and of any size.

    Attributes:
        digest: sha256 of manifest.json, which holds the hash of every graph: it identifies the bundle.
        provider: what the graphs run on, as the session itself names it.
        provider_note: one line for people: what was taken and why.
    """

    manifest: Manifest
    digest: str
    provider: str
    provider_note: str
    graphs: dict[GraphName, Graph]

    @property
    def runs_on(self) -> str:
        """The provider and why it was taken, in one line."""
        return f"{self.provider}: {self.provider_note}"

    def encode(self, image: Array) -> tuple[Array, Array]:
        """q(z|x): image (N, C, S, S) in [0, 1] to z_loc and z_scale, both (N, Z).

        Raises:
            BundleError: the graph gives a scale that is none.
        """
        return self._normal("encoder", image)

    def decode(self, z: Array) -> Array:
        """The mean of p(x|z): z (N, Z) to an image (N, C, S, S) in [0, 1].

        Raises:
            BundleError: the graph gives something else, which no picture can hold.
        """
        (image,) = self._run("decoder", z)
        if image.min() < -SLACK or image.max() > 1 + SLACK:
            raise BundleError(
                f"{self.manifest.files['decoder'].file} gives {image.min():.3g} to {image.max():.3g}, expected an "
                "image in 0 to 1; export the bundle again"
            )
        return image

    def classify(self, z_c: Array) -> Array:
        """q(y|z_c): z_c (N, Zc) to logits (N, Y)."""
        return self._run("classifier", z_c)[0]

    def conditional_prior(self, y: Array) -> tuple[Array, Array]:
        """p(z_c|y): y (N, Y) to z_c_loc and z_c_scale, both (N, Zc).

        Raises:
            BundleError: the model family has no conditional prior, or the graph gives a scale that is none.
        """
        if "conditional_prior" not in self.graphs:
            raise BundleError(f"a {self.manifest.model.family} bundle has no conditional prior")
        return self._normal("conditional_prior", y)

    def _normal(self, name: GraphName, array: Array) -> tuple[Array, Array]:
        loc, scale = self._run(name, array)
        if scale.min() <= 0:
            raise BundleError(
                f"{self.manifest.files[name].file} gives a scale of {scale.min():.3g}, expected one above 0; export "
                "the bundle again"
            )
        return loc, scale

    def _run(self, name: GraphName, array: Array) -> tuple[Array, ...]:
        entry = self.manifest.files[name]
        expected = entry.inputs[0].shape[1:]
        if array.shape[1:] != expected or not len(array):
            raise ValueError(f"{name} was given {array.shape}, expected (N, {', '.join(map(str, expected))})")
        try:
            outputs = self.graphs[name](np.ascontiguousarray(array, np.float32))
        except Exception as error:  # whatever the runtime, or the code of a TorchScript graph, raises
            on_gpu = "a smaller batch, or --provider cpu; `ccvae-deploy doctor` looks at the GPU"
            remedy = "a smaller batch, or export again" if "CPU" in self.provider.upper() else on_gpu
            raise BundleError(
                f"{entry.file} cannot run on {len(array)} rows: {one_line(error)}; use {remedy}"
            ) from error
        found = tuple(output.shape for output in outputs)
        if found != tuple((len(array), *output.shape[1:]) for output in entry.outputs):
            raise BundleError(
                f"{entry.file} gives {one_line(found)}, not what the manifest says; export the bundle again"
            )
        if not all(np.isfinite(output).all() for output in outputs):
            raise BundleError(f"{entry.file} gives numbers that are not finite; export the bundle again")
        return outputs


def open_bundle(
    path: Path | str, *, provider: str = "auto", allow_torchscript: bool = False, threads: int = 0
) -> Bundle:
    """Open a bundle for running.

    Args:
        path: the bundle folder, or the manifest in it.
        provider: auto, cpu, cuda or tensorrt; anything but auto is strict.
        allow_torchscript: open a TorchScript bundle; it is code that runs as you, so only from a source you trust.
        threads: threads of one graph run; 0 leaves it to the backend.

    Raises:
        UsageError: threads outside of 0 to 256, an unknown provider, or a URL for a path.
        BundleError: the bundle is missing, damaged, unsafe, or of a newer version.
        ProviderError: the provider cannot be used.
    """
    refuse_outside("threads", threads, 0, MOST_THREADS)
    refuse_provider(provider)
    path = bundle_folder(local_path(path))
    manifest, digest = read_manifest(path)
    if manifest.format == "pt2":
        raise BundleError(f"{path} holds .pt2 graphs, which are for torch; export with --format onnx to edit")
    if manifest.format == "torchscript":
        if not allow_torchscript:
            raise BundleError(
                f"{path} holds TorchScript, which is code that runs as you; add --allow-torchscript if you trust it"
            )
        return _open_torchscript(path, manifest, digest, provider, threads)
    choice = choose_provider(provider)
    if choice.name != ON_CPU and any(entry.precision == "int8" for entry in manifest.files.values()):
        choice = _without_gpu(path, provider)
    graphs: dict[GraphName, Graph] = {}
    for name, entry in manifest.files.items():
        graphs[name], running = _onnx_graph(read_graph(path, entry), entry, choice, threads)
    return _probed(Bundle(manifest, digest, running, choice.note, graphs))


def bundle_folder(path: Path) -> Path:
    """The folder that a bundle's name means, or that of its manifest; see `followed_bundle`."""
    return followed_bundle(path.parent if path.name == MANIFEST else path)


def _without_gpu(path: Path, provider: str) -> Choice:
    """The CPU for 8-bit graphs, unless something else was asked for: a GPU has no kernel for their integer biases."""
    if provider != "auto":
        raise ProviderError(
            f"--provider {provider}: {path} holds 8-bit graphs, which run on the CPU only; use --provider cpu, or a "
            "bundle of another precision"
        )
    return Choice(ON_CPU, "CPU (8-bit graphs run there only)")


def read_manifest(path: Path) -> tuple[Manifest, str]:
    """The manifest of a bundle folder and the sha256 of its bytes.

    Raises:
        BundleError: it is missing, is no manifest, or is of a newer version.
    """
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}; make one with `ccvae-deploy export --format onnx`")
    if not os.path.lexists(path / MANIFEST):
        if (path / ONNX_BUNDLE / MANIFEST).is_file():
            raise BundleError(f"{path} is a run folder, no bundle; give the bundle in it: {path / ONNX_BUNDLE}")
        raise BundleError(f"no {MANIFEST} in {path}, so it is no bundle; make one with `ccvae-deploy export`")
    data = _read_inside(path, MANIFEST, MANIFEST_LIMIT)
    try:
        content: Any = json.loads(data.decode(), object_pairs_hook=_no_twins, parse_constant=_no_constant)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if type(version) is not int:
            raise BundleError(
                f"{path / MANIFEST} has no schema_version that is a whole number, so it is no manifest; export again"
            )
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {one_line(version, 20)}, this is version {SCHEMA_VERSION}; "
                "upgrade ccvae-deploy"
            )
        # strict: "1", 1.0 and true are not 1
        return Manifest.model_validate_json(data, strict=True), hashlib.sha256(data).hexdigest()
    except ValidationError as error:
        first = error.errors()[0]
        where = one_line(".".join(str(part) for part in first["loc"]), 80) or "manifest"
        raise BundleError(f"{path / MANIFEST}: {where}: {one_line(first['msg'])}; export the bundle again") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path / MANIFEST} is not JSON: {one_line(error)}; export the bundle again") from error


def read_graph(path: Path, entry: GraphFile) -> bytes:
    """The bytes of one graph, checked against size and hash.

    Raises:
        BundleError: the file is missing, is a link or no plain file, or is not the one the manifest names.
    """
    data = _read_inside(path, entry.file, GRAPH_LIMIT)
    if len(data) != entry.bytes or hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError(f"{path / entry.file} is not the file that was exported: its hash differs; export again")
    return data


def _read_inside(folder: Path, name: str, limit: int) -> bytes:
    """The bytes of a plain file. What is looked at is what was opened, so nobody can put another in its place."""
    target = folder / name
    # a pipe must not block, a link must not lead away; Windows has neither flag
    flags = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
    try:
        if target.is_symlink():
            raise BundleError(f"{target} is a link, a bundle holds plain files only; copy the files themselves there")
        handle = os.open(target, flags)
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            os.close(handle)
            raise BundleError(f"{target} is no plain file; refuse this bundle")
        with os.fdopen(handle, "rb") as file:
            data = file.read(limit + 1) if found.st_size <= limit else None
    except OSError as error:
        raise BundleError(f"{target} cannot be read: {error.strerror or error}; export the bundle again") from error
    if data is None or len(data) > limit:
        raise BundleError(f"{target} is longer than the limit of {limit:,} bytes; refuse this bundle")
    return data


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, unless it says something twice: two readers would believe two different things."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same key twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _onnx_graph(data: bytes, entry: GraphFile, choice: Choice, threads: int) -> tuple[Graph, str]:
    from .graphs.vet import vet

    session = make_session(vet(data, entry.file, entry), choice, threads)
    (given,) = entry.inputs
    names = [output.name for output in entry.outputs]

    def run(array: Array) -> tuple[Array, ...]:
        return tuple(session.run(names, {given.name: array}))

    return run if choice.name == ON_CPU else _in_turn(run), session.get_providers()[0]


def _in_turn(graph: Graph) -> Graph:
    """A graph that runs once at a time: a GPU gains nothing by more, whose memory adds up."""
    turn = threading.Lock()

    def run(array: Array) -> tuple[Array, ...]:
        with turn:
            return graph(array)

    return run


def _open_torchscript(path: Path, manifest: Manifest, digest: str, provider: str, threads: int) -> Bundle:
    from .graphs.torchscript import load_graph, torchscript_device

    device, note = torchscript_device(provider, threads)
    graphs: dict[GraphName, Graph] = {
        name: load_graph(read_graph(path, entry), entry.file, device) for name, entry in manifest.files.items()
    }
    if device.type != "cpu":
        graphs = {name: _in_turn(graph) for name, graph in graphs.items()}
    return _probed(Bundle(manifest, digest, f"torch {device.type}", note, graphs))


def _probed(bundle: Bundle) -> Bundle:
    """Run every graph once on two rows of zeros: what cannot run is refused here, not in the middle of work."""
    for name, entry in bundle.manifest.files.items():
        bundle._run(name, np.zeros((2, *entry.inputs[0].shape[1:]), np.float32))
    return bundle
