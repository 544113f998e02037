"""The FID of Table 4: Frechet distance in Inception's pool3 features, where its weights are given.

The network is torch-fidelity's (extra [fid]). That package unpickles the file it is given, or one that it downloads.
Here the weights are safetensors, and stand in for what it would download: nothing is unpickled, nothing is fetched.
"""

import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ccvae_deploy.arrays import Array
from ccvae_deploy.errors import UsageError, one_line

from .bench import Bench
from .finding import Finding, Skipped
from .frechet import FEWEST, frechet_distance, generated, named

NAME = "fid"
FEATURES, BATCH = 2048, 50


def run(bench: Bench) -> Finding:
    """Images of y ~ p(y) against as many real ones."""
    if bench.settings.inception is None:
        raise Skipped("needs Inception weights, --inception FILE, and the extra [fid]")
    network = inception(bench.settings.inception).to(bench.subject.device.torch_device)
    if len(bench.images) < FEWEST:
        raise Skipped(f"{len(bench.images)} images; a distance takes {FEWEST} or more")
    made = generated(bench, len(bench.images))
    distance = frechet_distance(features(network, bench.images), features(network, made))
    few = f"; {len(made):,} images are too few for {FEATURES} features, so no published figure compares"
    note = f"Inception pool3 features{'' if len(made) > FEATURES else few}."
    return Finding(figures={named("FID", len(made), FEATURES): distance}, note=note)


def inception(weights: Path) -> Any:
    """The network, in eval mode.

    Args:
        weights: a safetensors file of what torch-fidelity's `weights-inception-2015-12-05-*.pth` holds.

    Raises:
        Skipped: the extra [fid] is not installed.
        UsageError: the file does not hold these weights.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch_fidelity import feature_extractor_inceptionv3 as theirs
    except ImportError as error:
        raise Skipped("needs the extra [fid]: pip install 'ccvae-deploy[fid]'") from error
    try:
        tensors = load_file(weights)
        with patch.object(theirs, "load_state_dict_from_url", lambda *_, **__: tensors):
            return theirs.FeatureExtractorInceptionV3("inception-v3-compat", [str(FEATURES)])
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UsageError(
            f"--inception {weights}: {one_line(error)}; expected torch-fidelity's Inception weights as "
            "safetensors, see docs/evaluation.md"
        ) from error


@torch.inference_mode()
def features(network: Any, images: Array) -> Array:
    """Images (N, C, S, S) in [0, 1] to pool3 features (N, 2048)."""
    pixels = np.rint(images * 255).astype(np.uint8)
    pixels = np.repeat(pixels, 3, axis=1) if pixels.shape[1] == 1 else pixels
    place = next(network.parameters()).device
    chunks = (torch.from_numpy(pixels[i : i + BATCH]).to(place) for i in range(0, len(pixels), BATCH))
    return np.concatenate([network(chunk)[0].cpu().numpy() for chunk in chunks])
