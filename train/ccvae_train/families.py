"""From the name of a model family to a new model. Nothing else."""

from ccvae_deploy.schema import ImageSpec, LabelSet, LatentLayout

from .baselines.diva import DIVA
from .baselines.m2 import M2
from .baselines.mvae import MVAE
from .baselines.vae_classifier import VAEClassifier
from .config import Family
from .model import Model
from .networks import CCVAE


def new_model(family: Family, labels: LabelSet, layout: LatentLayout, image: ImageSpec) -> Model:
    """A model with fresh weights, from torch's own generator."""
    match family:
        case "ccvae":
            return CCVAE(labels, layout, image)
        case "vae-classifier":
            return VAEClassifier(labels, layout, image)
        case "diva":
            return DIVA(labels, layout, image)
        case "m2":
            return M2(labels, layout, image)
        case "mvae":
            return MVAE(labels, layout, image)
