"""What every artefact carries: labels, latent layout, image spec, manifest. Pure data, validated, frozen.

Touches nothing outside memory. The JSON forms of these models stand in run folders, in checkpoints,
in bundles and inside each exported graph, so a change of a field is a change of `SCHEMA_VERSION`.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from .errors import LabelError, nearest

SCHEMA_VERSION: Literal[1] = 1
LATENTS_FORMAT = "ccvae-latents"
"""What a file of latents calls itself."""

GraphName = Literal["encoder", "decoder", "classifier", "conditional_prior"]
GRAPHS: tuple[GraphName, ...] = ("encoder", "decoder", "classifier", "conditional_prior")

GraphFormat = Literal["onnx", "torchscript", "pt2"]
ENDINGS: dict[GraphFormat, str] = {"onnx": "onnx", "torchscript": "pt", "pt2": "pt2"}

# no control characters and nothing that turns the direction of a line
NOT_PLAIN = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
PlainName = Annotated[str, Field(min_length=1, max_length=100, pattern=f"^[^{NOT_PLAIN}]+$")]
LabelName = Annotated[str, Field(min_length=1, max_length=100, pattern=f"^[^={NOT_PLAIN}]+$")]
"""Without `=`, which stands between a label and its class."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(ge=1, le=4096)]
Probability = Annotated[float, Field(ge=0, le=1)]

WIDTH_LIMIT = 4096
"""The most latents and the most columns of y that a model may have."""
LABEL_LIMIT = 1024
TABLE_LIMIT = 1 << 18
"""Labels times the most classes that one of them has: a table that is made for each of many images."""
BLOCK_LIMIT = 1 << 16
"""Latents of a categorical label times its classes, or times its latents: matrices that `closest` solves with."""
GRAPH_LIMIT = 1 << 28
"""Bytes of one graph file; real ones have 12 million at most."""
DEPTH_LIMIT = 16


def shallow(provenance: dict[str, Any]) -> dict[str, Any]:
    """Refuse a value that is nested so deeply that writing it would overflow the stack."""
    level: list[Any] = [provenance]
    for _ in range(DEPTH_LIMIT):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise ValueError(f"nested deeper than {DEPTH_LIMIT} levels")
    return provenance


def _unit(values: tuple[float, float]) -> tuple[float, float]:
    if values != (0.0, 1.0):
        raise ValueError("the range of an image is 0 to 1")
    return values


class Frozen(BaseModel):
    """A value object: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def folded(name: str) -> str:
    """The form in which label and class names are compared: no case, no `-`, `_` or blanks."""
    return "".join(c for c in name.casefold() if c not in "-_ ")


class Label(Frozen):
    """One named attribute of an image.

    A binary label takes one column of y (0 or 1), a categorical one a one-hot column per class.
    """

    name: LabelName
    """As spelled in the data."""
    kind: Literal["binary", "categorical"] = "binary"
    """Bernoulli, or one of several classes."""
    classes: Annotated[tuple[PlainName, ...], Field(min_length=2, max_length=WIDTH_LIMIT)] = ("0", "1")
    """Names of the values; two for a binary label, that of 0 first."""
    dims: Positive = 1
    """How many characteristic latents belong to the label."""

    @model_validator(mode="after")
    def _classes_agree(self) -> "Label":
        if self.kind == "binary" and len(self.classes) != 2:
            raise ValueError(f"binary label {self.name} has {len(self.classes)} classes, expected 2")
        if len({folded(c) for c in self.classes}) != len(self.classes):
            raise ValueError(f"label {self.name} needs two or more distinct classes")
        if self.kind == "categorical" and self.dims * max(self.dims, len(self.classes)) > BLOCK_LIMIT:
            raise ValueError(
                f"label {self.name} has {self.dims} latents and {len(self.classes)} classes; "
                f"expected at most {BLOCK_LIMIT:,} latents times classes, and latents squared"
            )
        return self

    @property
    def columns(self) -> int:
        """How many columns of y (and of the logits) this label takes."""
        return 1 if self.kind == "binary" else len(self.classes)


class LabelSet(Frozen):
    """All labels of a model, in the order of their latents and of the columns of y."""

    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=LABEL_LIMIT)]
    """In the order of their latents and of the columns of y."""

    @model_validator(mode="after")
    def _names_differ(self) -> "LabelSet":
        seen: dict[str, str] = {}
        for label in self.labels:
            if twin := seen.get(folded(label.name)):
                raise ValueError(f"labels {twin} and {label.name} differ only in case, blanks, - or _")
            seen[folded(label.name)] = label.name
        for label in self.labels:
            if any("," in name and "=" in name for name in label.classes):
                raise ValueError(f"label {label.name} has a class with both a comma and =, as two edits would be named")
        if len({*self.column_names}) < self.width:
            raise ValueError("two columns of the labels have the same name, label=class")
        if self.width > WIDTH_LIMIT:
            raise ValueError(f"the labels take {self.width} columns, expected at most {WIDTH_LIMIT}")
        if len(self.labels) * max(label.columns for label in self.labels) > TABLE_LIMIT:
            raise ValueError(f"labels times the most classes of one are beyond {TABLE_LIMIT:,}")
        return self

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The label names as spelled in the data."""
        return tuple(label.name for label in self.labels)

    @cached_property
    def columns(self) -> tuple[slice, ...]:
        """Per label, its columns of y."""
        return _slices([label.columns for label in self.labels])

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """What each column of y is called: `label`, or `label=class` for each class of a categorical label."""
        names: list[str] = []
        for label in self.labels:
            names += [label.name] if label.kind == "binary" else [f"{label.name}={c}" for c in label.classes]
        return tuple(names)

    @property
    def width(self) -> int:
        """Y, the number of columns of y."""
        return sum(label.columns for label in self.labels)

    def index(self, name: str) -> int:
        """Position of the label called `name`, without regard to case, `-`, `_` and blanks.

        Raises:
            LabelError: no label has that name; the message gives the nearest ones.
        """
        if not isinstance(name, str):
            raise LabelError(f"label {name!r}: expected a name, such as {self.names[0]}")
        for position, label in enumerate(self.labels):
            if folded(label.name) == folded(name):
                return position
        raise LabelError(f"unknown label {name!r}: {nearest(name, self.names)}")

    def positions(self, names: str | Sequence[str]) -> list[int]:
        """Positions of one label or of several, in the order of `names`, found as by `index`."""
        try:
            several = [names] if isinstance(names, str) else list(names)
        except TypeError as error:
            raise LabelError(f"labels {names!r}: expected names, such as {self.names[0]}") from error
        return [self.index(name) for name in several]


class LatentLayout(Frozen):
    """Which columns of z belong to which label: the characteristic blocks first, then the residual."""

    blocks: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=LABEL_LIMIT)]
    """Latents of each label."""
    residual: Annotated[int, Field(ge=0, le=WIDTH_LIMIT)]
    """Latents of no label."""

    @model_validator(mode="after")
    def _size_is_bounded(self) -> "LatentLayout":
        if self.size > WIDTH_LIMIT:
            raise ValueError(f"{self.size} latents, expected at most {WIDTH_LIMIT}")
        return self

    @property
    def z_c(self) -> int:
        """Zc, the number of characteristic latents."""
        return sum(self.blocks)

    @property
    def size(self) -> int:
        """Z, the number of latents."""
        return self.z_c + self.residual

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Per label, its columns of z."""
        return _slices(self.blocks)


class ImageSpec(Frozen):
    """What the encoder is given: float32 in [0, 1], N x channels x size x size.

    An image of any size is brought there by Pillow's antialiased bilinear filter, its aspect ratio not kept.
    """

    channels: Literal[1, 3] = 3
    """1 is grey, 3 is RGB."""
    size: Literal[32, 64, 128] = 64
    """Height and width in pixels."""
    resize: Literal["bilinear"] = "bilinear"
    """The filter of a resize."""
    range: Annotated[tuple[float, float], AfterValidator(_unit)] = (0.0, 1.0)
    """Black and white, always 0 and 1."""

    @property
    def mode(self) -> Literal["L", "RGB"]:
        """Pillow's name of the colour space."""
        return "L" if self.channels == 1 else "RGB"


class TensorSpec(Frozen):
    """Name, shape (the batch dimension is written -1) and type of one input or output of a graph."""

    name: PlainName
    """The name inside the graph."""
    shape: Annotated[tuple[int, ...], Field(max_length=8)]
    """Dimensions, the batch as -1."""
    dtype: Literal["float32"] = "float32"
    """Inputs and outputs are float32 whatever the precision inside."""


class GraphFile(Frozen):
    """One serialised graph of a bundle."""

    file: Annotated[str, Field(pattern=r"^[a-z_]{1,64}\.(onnx|pt|pt2)$")]
    """The graph's name and the ending of its format; it stands beside the manifest."""
    sha256: Sha256
    """The sha256 of the file, in hexadecimal digits."""
    bytes: Annotated[int, Field(ge=1, le=GRAPH_LIMIT)]
    """The length of the file in bytes."""
    format: GraphFormat
    """Which runtime reads it."""
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    """Of the weights and of the arithmetic inside."""
    opset: Annotated[int, Field(ge=1, le=99)] | None = None
    """Version of the ONNX operators; null for other formats."""
    inputs: Annotated[tuple[TensorSpec, ...], Field(max_length=8)]
    """What the graph is given."""
    outputs: Annotated[tuple[TensorSpec, ...], Field(max_length=8)]
    """What the graph gives."""


class ModelSpec(Frozen):
    """The model family and the numbers that fix its networks."""

    family: Literal["ccvae", "vae-classifier", "diva"] = "ccvae"
    """Which model the graphs belong to; a vae-classifier has no conditional prior."""
    likelihood: Literal["laplace", "bernoulli"] = "laplace"
    """The distribution p(x|z); a Bernoulli takes grey levels as probabilities."""
    likelihood_scale: Annotated[float, Field(gt=0)] = 1.0
    """The scale of a Laplace likelihood, in units of the image's range; 1 for a Bernoulli."""

    @property
    def graphs(self) -> tuple[GraphName, ...]:
        """The graphs that a bundle of the family has."""
        return GRAPHS[:3] if self.family == "vae-classifier" else GRAPHS


class LatentRange(Frozen):
    """The 1st and 99th percentile of the posterior means of the validation images, per latent."""

    low: Annotated[tuple[float, ...], Field(max_length=WIDTH_LIMIT)]
    """The 1st percentile of every latent."""
    high: Annotated[tuple[float, ...], Field(max_length=WIDTH_LIMIT)]
    """The 99th percentile of every latent."""

    @model_validator(mode="after")
    def _low_is_below(self) -> "LatentRange":
        if len(self.low) != len(self.high) or any(low > high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("latent range must have as many low as high values, none of them above its high one")
        return self


class Manifest(Frozen):
    """`manifest.json`: everything a bundle says of itself."""

    schema_version: Literal[1] = SCHEMA_VERSION
    """Of this form; a newer one is refused, an older one still opens."""
    model: ModelSpec
    """The model family and its numbers."""
    labels: LabelSet
    """What the model knows of an image."""
    layout: LatentLayout
    """Which latents belong to which label."""
    image: ImageSpec
    """What the encoder is given."""
    label_prior: Annotated[tuple[Probability, ...], Field(max_length=WIDTH_LIMIT)]
    """p(y), one value per column of y."""
    latent_range: LatentRange
    """Where real images lie."""
    files: dict[GraphName, GraphFile]
    """The graphs by name."""
    provenance: Annotated[dict[str, Any], AfterValidator(shallow)]
    """Where the training came from: data, settings, metrics, versions. For people; no code depends on it."""

    @model_validator(mode="after")
    def _parts_agree(self) -> "Manifest":
        require_agreement(self.labels, self.layout, self.label_prior, self.latent_range)
        expected = set(self.model.graphs)
        if set(self.files) != expected:
            raise ValueError(f"files are {sorted(self.files)}, expected {sorted(expected)}")
        if len({entry.format for entry in self.files.values()}) != 1:
            raise ValueError("graphs of several formats in one bundle")
        for name, entry in self.files.items():
            if entry.file != f"{name}.{ENDINGS[entry.format]}":
                raise ValueError(f"the file of {name} is called {entry.file}, expected {name}.{ENDINGS[entry.format]}")
            inputs, outputs = graph_signature(name, self.labels, self.layout, self.image)
            if entry.inputs != inputs or entry.outputs != outputs:
                raise ValueError(f"inputs or outputs of {name} are not those of its labels and image spec")
        return self

    @property
    def format(self) -> GraphFormat:
        """The format that all graphs of the bundle share."""
        return self.files["encoder"].format


def require_agreement(
    labels: LabelSet, layout: LatentLayout, label_prior: Sequence[float], latent_range: LatentRange | None = None
) -> None:
    """Refuse parts that are not of one model.

    Raises:
        ValueError: they disagree.
    """
    if layout.blocks != tuple(label.dims for label in labels.labels):
        raise ValueError("latent layout and labels disagree")
    if len(label_prior) != labels.width:
        raise ValueError(f"label prior has {len(label_prior)} values, expected {labels.width}")
    if latent_range is not None and {len(latent_range.low), len(latent_range.high)} != {layout.size}:
        raise ValueError(f"latent range must have {layout.size} values")


def graph_signature(
    graph: GraphName, labels: LabelSet, layout: LatentLayout, image: ImageSpec
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs that `graph` must have, as the table of the bundle format says."""

    def vector(name: str, width: int) -> TensorSpec:
        return TensorSpec(name=name, shape=(-1, width))

    picture = TensorSpec(name="image", shape=(-1, image.channels, image.size, image.size))
    z, z_c, y = layout.size, layout.z_c, labels.width
    match graph:
        case "encoder":
            return (picture,), (vector("z_loc", z), vector("z_scale", z))
        case "decoder":
            return (vector("z", z),), (picture,)
        case "classifier":
            return (vector("z_c", z_c),), (vector("logits", y),)
        case "conditional_prior":
            return (vector("y", y),), (vector("z_c_loc", z_c), vector("z_c_scale", z_c))


def _slices(widths: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(end - width, end) for width, end in zip(widths, accumulate(widths), strict=True))
