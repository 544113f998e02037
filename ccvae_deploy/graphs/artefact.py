"""One exported graph or checkpoint alone: what it says of itself. Reads that file and runs no code in it.

| ending         | where the metadata stands                                     |
|----------------|---------------------------------------------------------------|
| `.onnx`        | `metadata_props`, key `ccvae`                                 |
| `.pt`, `.pt2`  | a zip archive; its entry `<name>/extra/ccvae.json`            |
| `.safetensors` | the JSON header, `__metadata__`, key `ccvae`                  |
"""

import hashlib
import io
import json
import os
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ..errors import BundleError, CCVAEError
from ..schema import (
    GRAPH_LIMIT,
    LATENTS_FORMAT,
    SCHEMA_VERSION,
    GraphFile,
    GraphName,
    ImageSpec,
    LabelSet,
    LatentLayout,
    ModelSpec,
    graph_signature,
    require_agreement,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

KEY, JUDGE_KEY = "ccvae", "ccvae_judge"
FILE_LIMIT = 1 << 30
METADATA_LIMIT = 8 << 20
"""Bytes of the metadata, and of a zip archive's directory."""

FileFormat = Literal["onnx", "torchscript", "pt2", "checkpoint"]
FORMATS: dict[str, FileFormat] = {".onnx": "onnx", ".pt": "torchscript", ".pt2": "pt2", ".safetensors": "checkpoint"}


class Metadata(BaseModel):
    """The JSON inside an artefact; what later versions add is kept beside the known fields."""

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_version: Literal[1]
    graph: GraphName | None = None
    model: ModelSpec
    labels: LabelSet
    layout: LatentLayout
    image: ImageSpec
    label_prior: tuple[float, ...]

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        require_agreement(self.labels, self.layout, self.label_prior)
        return self


@dataclass(frozen=True)
class Artefact:
    """What one file says of itself.

    Attributes:
        metadata: as it stands inside; a checkpoint's holds settings and provenance too.
        details: further facts read from the file itself, by name.
        problem: why the graph would not be run, or None; only ONNX graphs are looked at that closely.
    """

    path: Path
    format: FileFormat
    bytes: int
    sha256: str
    metadata: Metadata
    details: dict[str, Any]
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All of it, for machines."""
        return {
            "kind": "graph" if self.metadata.graph else "checkpoint",
            "path": str(self.path),
            "format": self.format,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "metadata": json.loads(self.metadata.model_dump_json()),
            **self.details,
            "problem": self.problem,
        }

    def table(self) -> "RenderableType":
        """All of it, for people."""
        from .inspection_table import artefact_table

        return artefact_table(self)


Found = tuple[Metadata, dict[str, Any], str | None]
"""What is read of a file: its metadata, further details, and what keeps it from being run."""


def read_artefact(path: Path) -> Artefact:
    """Read one `.onnx`, `.pt`, `.pt2` or `.safetensors` file; none of its code is loaded.

    Raises:
        BundleError: it cannot be read, is damaged, or carries no metadata of ours.
    """
    format = FORMATS.get(path.suffix.lower())
    if format is None:
        raise BundleError(f"{path} is neither a bundle nor a file in {', '.join(FORMATS)}; name one of those")
    read = {"onnx": _onnx, "checkpoint": _checkpoint}.get(format, _archive)
    try:
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
            return Artefact(path, format, size, digest, *read(path, file, size))
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}; give another file") from error


def open_regular(path: Path) -> "_Bounded":
    """A plain file of 1 byte to 1 GiB, open for reading.

    Raises:
        BundleError: it is something else.
        OSError: it cannot be opened.
    """
    file = _Bounded(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)))
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= FILE_LIMIT:
        file.close()
        raise BundleError(f"{path} is no file of 1 to {FILE_LIMIT:,} bytes; give another file")
    return file


class _Bounded(io.FileIO):
    """A file that `zipfile` cannot be made to read a huge directory of."""

    limit = FILE_LIMIT

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self.limit + 1 if size is None or size < 0 else size
        if wanted > self.limit + 1:
            raise zipfile.BadZipFile(f"a part of {wanted:,} bytes")
        data = super().read(wanted)
        if data is not None and len(data) > self.limit:
            raise zipfile.BadZipFile(f"a part of more than {self.limit:,} bytes")
        return data or b""


def _metadata(text: str | bytes | None, path: Path) -> Metadata:
    if not text:
        raise BundleError(f"{path} carries no metadata of ccvae-deploy, so nothing is known of it; export it again")
    try:
        content = json.loads(text)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise BundleError(
                f"{path} has schema version {version}, this is version {SCHEMA_VERSION}; upgrade ccvae-deploy"
            )
        if isinstance(content, dict) and content.get("graph") == "judge":
            raise _no_model(path)
        return Metadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "metadata"
        raise BundleError(f"{path}: metadata: {where}: {first['msg']}; export it again") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: the metadata is not JSON: {error}; export it again") from error


def _no_model(path: Path) -> BundleError:
    return BundleError(
        f"{path} holds a judge, no graph of a bundle; give a bundle, or the judge to `audit` or `evaluate`"
    )


def _archive(path: Path, file: "_Bounded", size: int) -> Found:
    """TorchScript and .pt2: one entry of a zip archive, found by name and read to a limit."""
    file.limit = METADATA_LIMIT
    text = None
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            found = [entry for entry in entries if re.fullmatch(rf"[^/]+/extra/{KEY}\.json", entry.filename)]
            if len(found) == 1:
                if found[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    # others give all that they hold, however little is asked for
                    raise zipfile.BadZipFile(f"metadata compressed by method {found[0].compress_type}")
                with archive.open(found[0]) as entry:
                    text = entry.read(METADATA_LIMIT)
    # zipfile of a damaged archive raises whatever its parts raise
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError, struct.error) as e:
        raise BundleError(f"{path} is no whole zip archive: {e}; export it again") from e
    return _metadata(text, path), {"entries": len(entries)}, None


def _checkpoint(path: Path, file: "_Bounded", size: int) -> Found:
    """The header of a safetensors file: 8 bytes of length, then JSON."""
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(METADATA_LIMIT, size - 8):
            raise ValueError(f"a header of {length:,} bytes")
        header = json.loads(file.read(length))
        said = header.pop("__metadata__", {})
        text = said.get(KEY)
        shapes = {str(name): tuple(map(int, entry["shape"][:8])) for name, entry in header.items()}
        if any(not 0 <= side <= size for shape in shapes.values() for side in shape):
            raise ValueError("a tensor larger than the file")
    except (OverflowError, ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error) as error:
        raise BundleError(f"{path} is no whole safetensors file: {error}; train again") from error
    if text is None and said.get("format") == LATENTS_FORMAT:
        raise BundleError(f"{path} holds latents that `encode` has made, no model; give it to `edit --latents`")
    if text is None and JUDGE_KEY in said:
        raise _no_model(path)
    metadata = _metadata(text if isinstance(text, str) else None, path)
    parameters = sum(prod(shape) for name, shape in shapes.items() if name.startswith("model."))
    return metadata, {"tensors": len(shapes), "parameters": parameters}, None


def _onnx(path: Path, file: "_Bounded", size: int) -> Found:
    from .vet import is_whole, parse_graph

    if size > GRAPH_LIMIT:
        raise BundleError(f"{path} has {size:,} bytes, expected at most {GRAPH_LIMIT:,}; give another file")
    data = file.read(size)
    model = parse_graph(data, str(path))
    texts = [prop.value for prop in model.metadata_props if prop.key == KEY]
    metadata = _metadata(texts[0] if len(texts) == 1 else None, path)
    operators = Counter(f"{node.domain}.{node.op_type}".lstrip(".") for node in model.graph.node)
    details = {
        "opset": {opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        "ir_version": model.ir_version,
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "operators": dict(sorted(operators.items())),
        "parameters": sum(prod(tensor.dims) for tensor in model.graph.initializer if is_whole(tensor)),
    }
    return metadata, details, _problem(path, data, metadata)


def _problem(path: Path, data: bytes, metadata: Metadata) -> str | None:
    """What keeps an ONNX graph from being run: it is vetted as one of a bundle is, then a session is made of it."""
    from ..providers import choose_provider, make_session
    from .vet import vet

    if metadata.graph is None:
        return "its metadata do not say which graph it is"
    inputs, outputs = graph_signature(metadata.graph, metadata.labels, metadata.layout, metadata.image)
    try:
        entry = GraphFile(
            file=f"{metadata.graph}.onnx",
            sha256=hashlib.sha256(data).hexdigest(),
            bytes=len(data),
            format="onnx",
            inputs=inputs,
            outputs=outputs,
        )
        make_session(vet(data, path.name, entry), choose_provider("cpu"), 1)
    except CCVAEError as error:
        return str(error)
    return None
