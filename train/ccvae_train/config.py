"""The settings of one training run: what the command line, a recipe and a checkpoint all speak. Reads recipe files."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from ccvae_deploy.errors import UsageError, nearest
from ccvae_deploy.schema import Frozen, LabelSet, LatentLayout
from ccvae_deploy.storage.plain import read_plain
from ccvae_deploy.storage.remote import local_path

Rate = Annotated[float, Field(gt=0, le=1)]
Uncertain = Literal["zeros", "ones", "ignore"]
"""What an uncertain label counts as: 0, 1, or missing."""
Optimiser = Literal["adamw", "muon"]
Likelihood = Literal["laplace", "bernoulli"]
Size = Literal[32, 64, 128]
Channels = Literal[1, 3]
RECIPES = (Path(__file__).parent / "recipes", Path(__file__).parents[1] / "recipes")
"""Where those of ours lie: in a wheel, and in a checkout."""
RECIPE_LIMIT = 1 << 20

Family = Literal["ccvae", "vae-classifier", "diva", "m2", "mvae"]


class TrainConfig(Frozen):
    """Settings as they are asked for; every field is an option of `train` or a key of a recipe.

    Attributes:
        data: SOURCE, such as `portraits` or `celeba:DIR`.
        labels: the labels to learn, in order; None takes the data set's own choice.
        supervision: f, the share of training images whose labels are shown, in (0, 1].
        model: `ccvae`, or a model that it is compared with, see docs/baselines.md.
        estimator: of `ccvae`, `exact` or `paper`, see docs/mathematics.md.
        unlabelled: the bound of missing labels under `exact`: the mixture over y itself, or eq. 5 (`jensen`).
        draws: draws of z, and so decoded images, per training image and step; their terms are averaged.
        label_weight: alpha, what multiplies log q(y|x) of an image in the objective; None takes for `exact` on
            3x64x64 2000 at supervision 1, 4000 at a half or less, and in proportion to the number of values of an
            image; 0 for `paper`.
        class_balance: tau in [0, 1]; the label term counts a value by p(value)^-tau, so that rare ones are learned too;
            None takes 0.5 for `exact`, 0 for `paper`, which has no other.
        labelled_passes: how often the run shows each labelled image at least, more often early than late, though in no
            more than half of a batch; None takes for `exact` 5, and 0.12 / supervision where that is more, 0 for
            `paper`. Epochs beyond that leave it to chance.
        agreement_weight: of `ccvae`, what multiplies the agreement of edited images with what was asked, beside the
            bound (docs/training.md); None takes 200 for `exact` on 3x64x64, in proportion to the number of values of an
            image, 0 for `paper`.
        likelihood: p(x|z): `laplace`, or `bernoulli` with grey levels as probabilities, for images that are black and
            white; None takes the data set's own.
        likelihood_scale: b of the Laplace likelihood; None takes 0.15 for `exact`, 1 for `paper`.
        weight_decay: of the matrices and kernels of encoder and decoder, decoupled from the gradient; None takes 0.5
            for `exact`, 0 for `paper`.
        encoder_optimiser, decoder_optimiser: of their matrices and kernels; all else takes AdamW. None takes `muon` for
            `exact`, `adamw` for `paper`.
        flip: mirror half of the training images, drawn anew at every step; for images whose labels have no side.
        shift: move every training image by up to so many pixels along both axes, drawn anew at every step.
        latents: Z, characteristic and residual latents together.
        label_dims: latents of a label, by label name, where they are not 1 for a binary label and K for K classes.
        image_size: height and width that images are brought to; None takes the data set's own.
        channels: 1 for grey, 3 for RGB; None takes the data set's own.
        uncertain: what uncertain labels of chexpert count as, `ignore` as missing; None takes `ignore`.
    """

    data: str = "portraits"
    labels: tuple[str, ...] | None = None
    supervision: Rate = 1.0
    epochs: Annotated[int, Field(ge=1, le=100_000)] = 8
    model: Family = "ccvae"
    estimator: Literal["exact", "paper"] = "exact"
    unlabelled: Literal["exact", "jensen"] = "exact"
    draws: Annotated[int, Field(ge=1, le=64)] = 1
    label_weight: Annotated[float, Field(ge=0)] | None = None
    class_balance: Annotated[float, Field(ge=0, le=1)] | None = None
    labelled_passes: Annotated[float, Field(ge=0)] | None = None
    agreement_weight: Annotated[float, Field(ge=0)] | None = None
    batch_size: Annotated[int, Field(ge=2, le=65_536)] = 64
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0, le=10)] | None = None
    encoder_optimiser: Optimiser | None = None
    decoder_optimiser: Optimiser | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    likelihood: Likelihood | None = None
    likelihood_scale: Annotated[float, Field(gt=0)] | None = None
    flip: bool = False
    shift: Annotated[int, Field(ge=0, le=16)] = 0
    latents: Annotated[int, Field(ge=1, le=4096)] = 45
    label_dims: dict[str, Annotated[int, Field(ge=1, le=64)]] = Field(default_factory=dict)
    image_size: Size | None = None
    channels: Channels | None = None
    uncertain: Uncertain | None = None


class SettledConfig(TrainConfig):
    """Settings with every choice made, as a run computes with them and stores them: `datasets.source.settled`."""

    label_weight: float
    class_balance: float
    labelled_passes: float
    agreement_weight: float
    weight_decay: float
    encoder_optimiser: Optimiser
    decoder_optimiser: Optimiser
    likelihood: Likelihood
    likelihood_scale: float
    image_size: Size
    channels: Channels


def own_values(config: TrainConfig, values: int) -> dict[str, Any]:
    """What the estimator takes where nothing is asked for.

    Args:
        config: with a likelihood.
        values: the number of values of an image.
    """
    if config.estimator == "paper":
        return {
            "label_weight": 0.0,
            "class_balance": 0.0,
            "labelled_passes": 0.0,
            "agreement_weight": 0.0,
            "weight_decay": 0.0,
            "encoder_optimiser": "adamw",
            "decoder_optimiser": "adamw",
            # its hidden label weight follows the size of log p(x|z) (docs/mathematics.md, 5)
            "likelihood_scale": 1.0,
        }
    size = values / (64 * 64 * 3)
    return {
        "label_weight": 2000 / max(config.supervision, 0.5) * size,
        "class_balance": 0.5,
        "labelled_passes": max(5.0, 0.12 / config.supervision),
        "agreement_weight": 200 * size if config.model == "ccvae" else 0.0,
        "weight_decay": 0.5,
        "encoder_optimiser": "muon",
        "decoder_optimiser": "muon",
        "likelihood_scale": 1.0 if config.likelihood == "bernoulli" else 0.15,
    }


def read_recipe(path: Path | str) -> dict[str, Any]:
    """The settings a recipe makes.

    Args:
        path: a TOML file, or the name of one of ours, such as celeba.

    Raises:
        UsageError: there is none, or it is not TOML or has a key that is no setting.
    """
    path = local_path(path)
    ours = {file.stem: file for folder in RECIPES for file in folder.glob("*.toml")}
    if not path.suffix and (path.is_dir() or not path.exists()):
        if str(path) not in ours:
            raise UsageError(f"no recipe {path}, and no such file of settings; {nearest(str(path), sorted(ours))}")
        path = ours[str(path)]
    try:
        # some editors put a mark before UTF-8
        settings = tomllib.loads(read_plain(path, RECIPE_LIMIT).decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"recipe {path} cannot be read: {error}; expected a TOML file of settings") from error
    for key in settings:
        if key not in TrainConfig.model_fields:
            raise UsageError(f"recipe {path} has an unknown setting {key!r}: {nearest(key, TrainConfig.model_fields)}")
    return settings


def make_config(settings: dict[str, Any], command: str = "train") -> TrainConfig:
    """Check settings and fold the first complaint into one line.

    Args:
        command: the command whose options they are.

    Raises:
        UsageError: a value is outside its range, or belongs to another model.
    """
    try:
        config = TrainConfig(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        setting, *inside = (str(part) for part in first["loc"])
        option = f"--{setting.replace('_', '-')}" if setting != "label_dims" else ".".join((setting, *inside))
        raise UsageError(
            f"{option} {first['input']!r}: {first['msg'].lower()}; see `ccvae-deploy {command} --help`"
        ) from error
    if config.model != "ccvae" and (config.estimator, config.unlabelled) != ("exact", "exact"):
        raise UsageError(
            f"--model {config.model} has no other estimator; leave out --estimator and --unlabelled, or "
            "take a recipe such as celeba-paper-baselines"
        )
    if config.model != "ccvae" and config.agreement_weight:
        raise UsageError(f"--model {config.model} has no agreement of edited images; leave out --agreement-weight")
    if config.model in ("m2", "mvae") and config.label_dims:
        raise UsageError(f"--model {config.model} has no latents of a label; leave out label_dims")
    if config.estimator == "paper" and config.likelihood_scale not in (None, 1):
        raise UsageError(
            "--estimator paper learns labels by the size of log p(x|z), which a smaller scale turns about; leave out "
            "--likelihood-scale"
        )
    for given, option in ((config.class_balance, "class-balance"), (config.unlabelled != "exact", "unlabelled")):
        if config.estimator == "paper" and given:
            raise UsageError(f"--estimator paper has one form only; leave out --{option}")
    return config


def with_label_dims(labels: LabelSet, config: TrainConfig) -> tuple[LabelSet, LatentLayout]:
    """The labels with their number of latents, and the layout that follows; the residual takes what is left.

    Raises:
        LabelError: `label_dims` names an unknown label.
        UsageError: it names one twice, or the labels need more latents than there are.
    """
    dims, named = [label.columns for label in labels.labels], dict[int, str]()
    for name, count in config.label_dims.items():
        position = labels.index(name)
        if position in named:
            raise UsageError(f"label_dims: {named[position]!r} and {name!r} are one label; give it once")
        dims[position], named[position] = count, name
    if sum(dims) > config.latents:
        split = config.model not in ("m2", "mvae")
        fewer = ", or give a label of many classes fewer in a recipe's `label_dims`" if split else ""
        raise UsageError(f"{len(dims)} labels need {sum(dims)} latents, {config.latents} given; raise --latents{fewer}")
    sized = tuple(label.model_copy(update={"dims": count}) for label, count in zip(labels.labels, dims, strict=True))
    return LabelSet(labels=sized), LatentLayout(blocks=tuple(dims), residual=config.latents - sum(dims))
