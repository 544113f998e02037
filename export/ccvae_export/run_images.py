"""Images of a run's own kind: some of its training images to calibrate on, others to judge by. Reads the run's data."""

from dataclasses import dataclass

import numpy as np
import torch

from ccvae_deploy.arrays import Array
from ccvae_deploy.errors import CCVAEError, DataError
from ccvae_deploy.images import in_unit
from ccvae_train.checkpoint import TrainedRun
from ccvae_train.datasets.portraits import portraits
from ccvae_train.datasets.source import open_dataset
from ccvae_train.networks import CCVAE

from .split_model import split_model

CALIBRATION, JUDGED, FEWEST = 512, 1024, 256
"""How many are calibrated on and judged by; where fewer than `FEWEST` validate, training images make up the number."""
UNSEEN = 2028
"""A seed of portraits that training and validation do not use."""


@dataclass(frozen=True)
class RunImages:
    """Network inputs, (N, C, S, S) float32 in [0, 1]: `calibration` were trained on, `judged` were not, as far as
    the data go.

    Attributes:
        source: what they are, for people.
    """

    calibration: Array
    judged: Array
    source: str


def run_images(run: TrainedRun, *, required: bool) -> RunImages:
    """Images of the run's data; of other data than portraits its folder must still be where training found it.

    Args:
        required: where the data are gone, refuse; else take images that the model generates itself.

    Raises:
        DataError: the data are required and not there.
    """
    source = str(run.provenance.get("data", run.state.config.data))
    if source == "portraits":
        size = run.image.size
        trained, _ = portraits(CALIBRATION, size=size, workers=1)
        unseen, _ = portraits(JUDGED, seed=UNSEEN, size=size, workers=1)
        return RunImages(in_unit(trained), in_unit(unseen), "fresh portraits")
    config = run.state.config
    try:
        data = open_dataset(
            source,
            labels=config.labels,
            size=run.image.size,
            channels=run.image.channels,
            seed=config.seed,
            uncertain=config.uncertain,
        )
    except CCVAEError as error:
        if not required:
            return RunImages(_generated(run, CALIBRATION), _generated(run, JUDGED), "generated images")
        raise DataError(f"8 bits are calibrated on the run's own images, which are not there: {error}") from error
    trained, judged = data.train.images[:CALIBRATION], data.valid.images[:JUDGED]
    said = f"validation images of {source}"
    if data.fingerprint != run.provenance.get("fingerprint", data.fingerprint):
        said += ", changed since training"
    if len(judged) < FEWEST:
        said = f"images of {source}, {len(judged)} of them validation images"
        judged = np.concatenate([judged, data.train.images[::-1][: FEWEST - len(judged)]])
    return RunImages(in_unit(trained), in_unit(judged), said)


@torch.inference_mode()
def _generated(run: TrainedRun, count: int) -> Array:
    """Images from the prior, z ~ N(0, I), or y ~ p(y), z_c ~ p(z_c|y), z_s ~ N(0, I); in steps of 1/255."""
    generator = torch.Generator().manual_seed(count)
    model = split_model(run)
    states = model.states
    log_prior = states.of_columns(torch.tensor(run.label_prior)).log()
    gumbel = -torch.rand(count, len(log_prior), generator=generator).clamp_min(1e-12).log().neg().log()
    y = states.of_values(states.largest(log_prior + gumbel))
    z = torch.randn(count, run.layout.size, generator=generator)
    if isinstance(model, CCVAE):
        loc, scale = model.conditional_prior.at(y)
        z[:, : run.layout.z_c] = loc + scale * z[:, : run.layout.z_c]
    images: Array = (torch.round(255 * model.decoder(z)) / 255).numpy()
    return images
