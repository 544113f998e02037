"""The optimiser of a run: AdamW, or Muon for matrices and kernels. Touches nothing but parameters."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .config import SettledConfig
from .model import Model

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of one step of the iteration: sigma to a sigma + b sigma^3 + c sigma^5 (Jordan et al. 2024)."""
ITERATIONS = 5
ENCODER, DECODER = 0.13, 0.8
"""How far Muon moves a step on average: a root mean square in learning rates, where AdamW's is about 0.2."""
TURNS = 2
"""Muon's groups take turns: each moves in one of so many steps, as far as in all of them, at half the iterations."""


class AdamWMuon(torch.optim.AdamW):
    """AdamW, but for the groups whose "muon" is above 0: Muon's step (Jordan et al. 2024), of that size, see `DECODER`,
    in every second step only, see `TURNS`.

    Muon's update is the momentum with all its singular values brought near 1, so that rare directions of a gradient
    are learned as fast as frequent ones. torch's own takes matrices only, and computes in bfloat16, which few
    processors can do.

    State: "momentum" of a parameter in a group of Muon, and "step", without which AdamW opens no state; AdamW's own
    of others.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; the gradients of Muon's parameters are used up."""
        assert closure is None, "the gradients are those of the caller"
        for turn, group in enumerate(self.param_groups):
            if not group["muon"]:
                continue
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_of_muon(parameter, group, turn)
                    parameter.grad = None  # AdamW passes over what has none
        super().step()

    def _step_of_muon(self, parameter: Tensor, group: dict[str, Any], turn: int) -> None:
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum"], state["step"] = torch.zeros_like(parameter), torch.tensor(0.0)
        state["step"] += 1
        momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        if (int(state["step"]) + turn) % TURNS:
            return
        update, rate = orthogonal(parameter.grad.lerp(momentum, MOMENTUM)), TURNS * group["lr"]
        size = group["muon"] * max(len(update), update[0].numel()) ** 0.5
        parameter.mul_(1 - rate * group["weight_decay"]).sub_(update, alpha=rate * size)


def orthogonal(gradient: Tensor) -> Tensor:
    """A matrix (R, C) or kernel (R, C, k, k) with its singular vectors and singular values between 0.7 and 1.2, smaller
    ones where they were below a 700th of all together.

    The iteration runs on the Gram matrix of the shorter side, which holds all that it asks for: a third of the
    multiplications of the common form where one side is many times the other.
    """
    rows = gradient.movedim(1, -1)  # in channels-last memory flat without a copy
    matrix = rows.flatten(1)
    wide_as_it_is = matrix.shape[0] <= matrix.shape[1]
    wide = matrix if wide_as_it_is else matrix.T
    wide = wide / torch.linalg.vector_norm(wide).clamp_min(1e-30)
    gram = wide @ wide.T
    product = once = _polynomial(gram)
    for _ in range(ITERATIONS - 1):
        gram = once @ gram @ once
        once = _polynomial(gram)
        product = once @ product
    found: Tensor = product @ wide
    return (found if wide_as_it_is else found.T).reshape(rows.shape).movedim(-1, 1)


def _polynomial(gram: Tensor) -> Tensor:
    """a + b G + c G^2."""
    a, b, c = NEWTON_SCHULZ
    found = torch.addmm(gram, gram, gram, beta=b, alpha=c)
    found.diagonal().add_(a)
    return found


def moments_of(group: dict[str, Any]) -> tuple[str, ...]:
    """The names of what is kept of each parameter of a group in its own shape, beside "step", a number."""
    return ("momentum",) if group["muon"] else ("exp_avg", "exp_avg_sq")


def make_optimiser(model: Model, config: SettledConfig) -> AdamWMuon:
    """Of every parameter; the matrices and kernels of encoder and decoder decay, biases and the two small networks do
    not.
    """
    encoder, decoder = ([p for p in part.parameters() if p.dim() > 1] for part in (model.encoder, model.decoder))
    sizes = (ENCODER * (config.encoder_optimiser == "muon"), DECODER * (config.decoder_optimiser == "muon"))
    large = {id(p) for p in (*encoder, *decoder)}
    groups = [
        {"params": encoder, "weight_decay": config.weight_decay, "muon": sizes[0]},
        {"params": decoder, "weight_decay": config.weight_decay, "muon": sizes[1]},
        {"params": [p for p in model.parameters() if id(p) not in large], "weight_decay": 0.0, "muon": 0.0},
    ]
    return AdamWMuon(groups, lr=config.learning_rate, fused=True)
