"""What is checked of someone else's classifier before a session is made of it. Reads one file.

Our own graphs are held to a list of operators; theirs may use any of ONNX's. What is refused is what could read other
files, bring code of its own, or make an effect impossible to tell from noise. What was checked is what runs.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BundleError, UsageError, one_line
from ..graphs.artefact import open_regular
from ..graphs.wire import structure_bytes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

FILE_LIMIT = 1 << 30
STRUCTURE_LIMIT = 16 << 20
"""Bytes of the file that are not weights; a parser makes some fifty times that of them."""
DEPTH_LIMIT = 8
DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
RANDOM = frozenset("Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike".split())
EXTERNAL = 1


@dataclass(frozen=True)
class Vetted:
    """A classifier that was looked at: as a message, as the bytes to run, and the sha256 of its file."""

    model: "ModelProto"
    graph: bytes
    sha256: str


def read_model(path: Path) -> Vetted:
    """A classifier's file, vetted.

    Raises:
        UsageError: it cannot be read, is larger than 1 GiB, is no valid ONNX file, keeps weights in another file, uses
            operators that are not ONNX's own, defines some, or draws random numbers.
    """
    import onnx

    try:
        with open_regular(path) as file:
            data = file.read(FILE_LIMIT)
    except OSError as error:
        raise UsageError(f"--model {path} cannot be read: {error.strerror or error}; give another file") from error
    except BundleError as error:
        raise UsageError(f"--model {error}") from error
    try:
        structure = structure_bytes(data)
        model = onnx.load_model_from_string(data) if structure <= STRUCTURE_LIMIT else None
    except Exception as error:  # protobuf's DecodeError is not exported
        raise _refused(path, f"is not an ONNX file or is truncated ({one_line(error, 60)}); export it again") from error
    if model is None:
        raise _refused(
            path, f"has {structure:,} bytes beside its weights, the limit is {STRUCTURE_LIMIT:,}; export it again"
        )
    _refuse_parts(model, path)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # the checker raises several kinds
        raise _refused(path, f"is not a valid ONNX graph: {one_line(error)}; export it again") from error
    model.DiscardUnknownFields()
    return Vetted(model, model.SerializeToString(), hashlib.sha256(data).hexdigest())


def _refuse_parts(model: "ModelProto", path: Path) -> None:
    if model.functions:
        raise _refused(path, "defines operators of its own; inline them with onnx.inliner first")
    for graph in _graphs(model.graph, path):
        for node in graph.node:
            if node.domain not in DOMAINS:
                raise _refused(
                    path,
                    f"uses {one_line(node.domain, 40)}.{one_line(node.op_type, 40)}, no ONNX operator; export it with "
                    "ONNX's own operators only",
                )
            if node.op_type in RANDOM:
                raise _refused(path, f"draws random numbers ({node.op_type}), so no effect could be told from noise")
        for tensor in _tensors(graph):
            if tensor.data_location == EXTERNAL or tensor.external_data:
                raise _refused(
                    path,
                    "keeps weights in another file; onnx.save(onnx.load(path), 'one.onnx') makes one of both",
                )


def _graphs(graph: "GraphProto", path: Path, depth: int = 0) -> Iterator["GraphProto"]:
    """A graph and those inside its branches and loops."""
    if depth > DEPTH_LIMIT:
        raise _refused(path, f"has graphs inside graphs, deeper than {DEPTH_LIMIT}")
    yield graph
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            yield from _graphs(inner, path, depth + 1)


def _tensors(graph: "GraphProto") -> Iterator["TensorProto"]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _attribute_tensors(node)


def _attribute_tensors(node: "NodeProto") -> Iterator["TensorProto"]:
    for attribute in node.attribute:
        yield from ([attribute.t] if attribute.HasField("t") else [])
        yield from attribute.tensors
        sparse = [
            *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
            *attribute.sparse_tensors,
        ]
        yield from (part for one in sparse for part in (one.values, one.indices))


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(f"--model {path} {why}")
