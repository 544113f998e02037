"""A sparse variational Gaussian process over features, with a softmax likelihood. Needs gpytorch.

One latent function per class, RBF kernel with one length scale per class, inducing points that begin at training
features, fitted by mini-batches of the evidence lower bound (Hensman et al. 2015).
"""

from dataclasses import dataclass
from typing import Any

import gpytorch
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

INDUCING, BATCH, STEPS, RATE = 200, 128, 400, 0.02


class _Process(gpytorch.models.ApproximateGP):  # type: ignore[misc]
    def __init__(self, inducing: Tensor, classes: int) -> None:
        shape = torch.Size([classes])
        strategy = gpytorch.variational.IndependentMultitaskVariationalStrategy(
            gpytorch.variational.VariationalStrategy(
                self,
                inducing.expand(classes, *inducing.shape).clone(),
                gpytorch.variational.CholeskyVariationalDistribution(len(inducing), batch_shape=shape),
            ),
            num_tasks=classes,
        )
        super().__init__(strategy)
        self.mean_module = gpytorch.means.ConstantMean(batch_shape=shape)
        kernel = gpytorch.kernels.RBFKernel(batch_shape=shape)
        kernel.lengthscale = inducing.shape[1] ** 0.5
        self.covar_module = gpytorch.kernels.ScaleKernel(kernel, batch_shape=shape)

    def forward(self, x: Tensor) -> Any:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


@dataclass(frozen=True)
class FittedProcess:
    """A fitted process; features are standardised as its training features were."""

    process: Any
    likelihood: Any
    mean: Tensor
    spread: Tensor

    @torch.no_grad()
    def draw(self, features: NDArray[np.floating], draws: int) -> NDArray[np.float32]:
        """Draws of the logits of features (N, F): (draws, N, K)."""
        x = (torch.as_tensor(features, dtype=torch.float32) - self.mean) / self.spread
        parts = []
        for start in range(0, len(x), BATCH):
            found = self.process(x[start : start + BATCH])
            # each image on its own: only marginals matter
            noise = torch.randn(draws, *found.mean.shape)
            parts.append(found.mean + found.variance.clamp_min(1e-12).sqrt() * noise)
        return torch.cat(parts, dim=1).numpy()


def fit_process(
    features: NDArray[np.floating], values: NDArray[np.integer], classes: int, *, seed: int
) -> FittedProcess:
    """Fit a process to features (N, F) and their classes (N,)."""
    torch.manual_seed(seed)
    x, y = torch.as_tensor(features, dtype=torch.float32), torch.as_tensor(values, dtype=torch.long)
    mean, spread = x.mean(0), x.std(0) + 1e-3
    x = (x - mean) / spread
    process = _Process(x[torch.randperm(len(x))[:INDUCING]], classes)
    likelihood = gpytorch.likelihoods.SoftmaxLikelihood(num_classes=classes, mixing_weights=False)
    bound = gpytorch.mlls.VariationalELBO(likelihood, process, num_data=len(x))
    optimiser = torch.optim.Adam(process.parameters(), lr=RATE)
    process.train()
    for _ in range(STEPS):
        rows = torch.randint(len(x), (min(BATCH, len(x)),))
        optimiser.zero_grad(set_to_none=True)
        loss = -bound(process(x[rows]), y[rows])
        loss.backward()
        optimiser.step()
    return FittedProcess(process.eval(), likelihood.eval(), mean, spread)
