"""The small model that numeric vectors are known of: two labels of one latent each, no z_s, and what it is given."""

import math

import torch

from ccvae_deploy.schema import ImageSpec, Label, LabelSet, LatentLayout
from ccvae_train.networks import CCVAE
from ccvae_train.noise import Noise
from ccvae_train.objective import Labels, Posterior

LOC, SCALE = torch.tensor([[0.7, -1.2]], dtype=torch.float64), torch.tensor([[0.8, 1.1]], dtype=torch.float64)
WEIGHT, BIAS = torch.tensor([1.3, 0.9], dtype=torch.float64), torch.tensor([0.1, -0.2], dtype=torch.float64)
PRIOR = torch.tensor([0.3, 0.8], dtype=torch.float64)
VECTORS = {  # y: (eq. 3 = eq. 4, log q(y|x), -KL(r||q))
    (0, 0): (-9003.6109012478, -1.4863974025, -0.219136),
    (0, 1): (-9004.2604035914, -2.5584399668, -0.397088),
    (1, 0): (-9002.7098634032, -0.6562385340, -0.068835),
    (1, 1): (-9003.1661265698, -1.7282810982, -0.246787),
}
EQUATION_5, EXACT_MIXTURE = -9001.9330732829, -9001.8602863077


def noise(seed: int = 0) -> Noise:
    return Noise(torch.Generator().manual_seed(seed))


def made_model(dims: tuple[int, ...], residual: int = 0) -> CCVAE:
    labels = LabelSet(labels=tuple(Label(name=f"l{i}", dims=d) for i, d in enumerate(dims)))
    return CCVAE(labels, LatentLayout(blocks=dims, residual=residual), ImageSpec(size=32)).double()


def set_prior(model: CCVAE, locs: list[float], scales: list[float]) -> None:
    """One value per pair of state and latent, label by label."""
    with torch.no_grad():
        model.conditional_prior.loc.copy_(torch.tensor(locs))
        model.conditional_prior.raw.copy_(torch.tensor([math.log(math.expm1(s - 1e-3)) for s in scales]))


def vector_model() -> CCVAE:
    """The model of the vectors: two labels of one latent each, no z_s."""
    model = made_model((1, 1))
    with torch.no_grad():
        model.classifier.weight.copy_(WEIGHT)
        model.classifier.bias.copy_(BIAS)
    set_prior(model, [-2.0, 2.0, -1.0, 3.0], [1.1, 1.5, 1.7, 2.0])
    return model


def log_likelihood(z: torch.Tensor) -> torch.Tensor:
    a, b = z[..., 0], z[..., 1]
    return -9000 + 0.8 * a - 0.5 * b + 0.3 * a * b - 0.1 * a.square()


def labels_of(y: tuple[int, ...], count: int, observed: bool = True, prior: torch.Tensor = PRIOR) -> Labels:
    states = torch.tensor([[one for value in y for one in (1 - value, value)]], dtype=torch.float64)
    shown = torch.full((count, len(y)), observed)
    return Labels(states.expand(count, -1), shown, both(prior).log(), complete=observed)


def both(prior: torch.Tensor) -> torch.Tensor:
    """p(y = 0) and p(y = 1) of every label, (S,)."""
    return torch.stack([1 - prior, prior], 1).flatten()


def posterior_of(count: int) -> Posterior:
    return Posterior(LOC.expand(count, -1), SCALE.expand(count, -1))
