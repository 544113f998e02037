"""Gradients of eq. 4 with and without the stop-gradient of eq. 8 (Fig. 8), at the trained model.

One labelled batch, the same noise for both estimators: the norm of the gradient of L(x, y) for each of several draws,
for the classifier's and for the encoder's weights. The paper plots the classifier's along training. At fixed weights
that one cannot differ, since z does not depend on the classifier; what the stop-gradient changes is the encoder's.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

from ccvae_deploy.schema import LabelSet

from ..label_columns import Floats, one_hot
from ..objective.terms import log_normal
from .bench import Bench
from .finding import Finding, Table
from .subject import SplitSubject

NAME = "gradients"
DRAWS, IMAGES, PREDICTIVE = 24, 32, 100


@dataclass(frozen=True)
class Gradients:
    """Gradient norms over draws of the noise, each (R,)."""

    classifier: Floats
    encoder: Floats


def measure_gradients(
    subject: SplitSubject, image: Tensor, values: Tensor, *, stopped: bool, draws: int, seed: int
) -> Gradients:
    """Norms of the gradient of the mean of L(x, y) over a batch, for several draws.

    Args:
        image: (N, C, S, S) in [0, 1]. values: (N, L) int64, none missing.
        stopped: take z_c without its gradient inside every q(y|z_c) of the expectation.
    """
    model, generator = subject.four, subject.device.generator(seed)
    groups = [list(model.classifier.parameters()), list(model.encoder.parameters())]
    norms = []
    for _ in range(draws):
        drawn = bound(subject, image, values, stopped, generator)
        gradients = torch.autograd.grad(drawn, [weight for group in groups for weight in group])
        cut = len(groups[0])
        norms.append([_norm(gradients[:cut]), _norm(gradients[cut:])])
    return Gradients(*np.array(norms).T)


def run(bench: Bench) -> Finding:
    """The first images, with the model's own prediction where a label is missing."""
    subject = bench.split()
    image = torch.from_numpy(bench.images[:IMAGES]).to(subject.device.torch_device)
    values = torch.from_numpy(bench.known_values[:IMAGES].astype(np.int64)).to(subject.device.torch_device)
    found = {
        name: measure_gradients(subject, image, values, stopped=stopped, draws=DRAWS, seed=bench.settings.seed)
        for name, stopped in (("stopped", True), ("not stopped", False))
    }
    rows, figures = [], {}
    for part in ("classifier", "encoder"):
        for name, gradients in found.items():
            norms = getattr(gradients, part)
            rows.append((f"{part}, {name}", float(norms.mean()), float(norms.std(ddof=1))))
            figures[f"{part} gradient SD, {name}"] = rows[-1][2]
    return Finding(
        figures=figures,
        tables=(Table(NAME, ("gradient of", "mean norm", "standard deviation"), tuple(rows)),),
        images=len(image),
        note=f"Norms over {DRAWS} draws, equal noise. The classifier's gradient is the same in "
        "both by construction; the stop-gradient acts on the encoder's.",
    )


def bound(subject: SplitSubject, image: Tensor, values: Tensor, stopped: bool, generator: torch.Generator) -> Tensor:
    """Eq. 4 from one draw of z, without log p(y), which has no gradient; mean over images."""
    model, labels, split = subject.four, subject.labels, subject.layout.z_c
    loc, scale = model.encoder(image)
    noise = torch.randn(loc.shape, generator=generator, device=loc.device)
    z = loc + scale * noise
    z_c = z[:, :split].detach() if stopped else z[:, :split]
    log_q_y = log_probabilities(model.classifier(z_c), values, labels).sum(1)
    shape = (len(loc), PREDICTIVE, split)
    draws = loc[:, None, :split] + scale[:, None, :split] * torch.randn(shape, generator=generator, device=loc.device)
    each = model.classifier(draws.flatten(0, 1))
    repeated = values.repeat_interleave(PREDICTIVE, dim=0)
    log_q = log_probabilities(each, repeated, labels).sum(1).view(len(loc), PREDICTIVE)
    log_q_y_x = log_q.logsumexp(1) - float(np.log(PREDICTIVE))
    y = torch.from_numpy(one_hot(values.cpu().numpy(), labels)).to(loc.device)
    log_ratio = subject.log_likelihood(image, model.decoder(z))
    log_ratio = log_ratio + log_normal(z[:, :split], *model.conditional_prior(y)).sum(1)
    log_ratio = log_ratio + log_normal(z, torch.zeros_like(z), torch.ones_like(z))[:, split:].sum(1)
    log_ratio = log_ratio - log_normal(z, loc, scale).sum(1) - log_q_y
    return ((log_q_y - log_q_y_x).exp() * log_ratio + log_q_y_x).mean()


def log_probabilities(logits: Tensor, values: Tensor, labels: LabelSet) -> Tensor:
    """log q(y_i = values_i) with its gradient, (N, L)."""
    found = []
    for i, (label, columns) in enumerate(zip(labels.labels, labels.columns, strict=True)):
        if label.kind == "binary":
            found.append(logsigmoid((2 * values[:, i] - 1) * logits[:, columns.start]))
        else:
            found.append(-cross_entropy(logits[:, columns], values[:, i], reduction="none"))
    return torch.stack(found, dim=1)


def _norm(gradients: tuple[Tensor, ...]) -> float:
    return float(torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt())
