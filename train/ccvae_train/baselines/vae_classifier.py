"""The model of eq. 2: a VAE with prior N(0, I), and a classifier of its latents. Torch and numpy, in memory only.

    J = L_VAE(x) + alpha E_q(z|x)[log q(y|z_c)] where labels are shown, L_VAE(x) where they are not,
    L_VAE(x) = E_q(z|x)[log p(x|z)] - KL(q(z|x) || N(0, I)).

It has no p(z_c|y): to edit or generate, z_c is drawn from N(0, I) given that the classifier is sure (appendix A).
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccvae_deploy.edits.rejection import accepted, accepted_mean
from ccvae_deploy.edits.request import CONFIDENCE
from ccvae_deploy.errors import LabelError
from ccvae_deploy.graphs.head import Head
from ccvae_train.config import SettledConfig
from ccvae_train.networks import SplitVAE
from ccvae_train.objective import Batch, NamedTerms, Posterior, Terms
from ccvae_train.objective.terms import kl_to_standard_normal

DRAWS = 100
"""Of which the likeliest stands for a class that the classifier is nowhere sure of."""


class VAEClassifier(SplitVAE):
    """Encoder, decoder and classifier of eq. 2."""

    def terms(self, batch: Batch) -> NamedTerms:
        """The VAE's bound and E_q(z|x)[log q(y|z_c)], from one draw of z."""
        q = self.posterior(batch)
        return batch.averaged(lambda: self._draw(batch, q))

    def _draw(self, batch: Batch, q: Posterior) -> Terms:
        split, states = self.layout.z_c, self.states
        z = q.loc + q.scale * batch.normal(q.loc)
        kl = kl_to_standard_normal(q.loc, q.scale)
        log_q = states.log_probabilities(self.classifier(z[:, :split]))
        reconstruction = batch.log_likelihood(self.decoder, z)
        return Terms(
            reconstruction=reconstruction,
            kl_residual=kl[:, split:].sum(1),
            kl_characteristic=kl[:, :split].sum(1),
            label_prior=torch.zeros_like(reconstruction),
            label=batch.labels.weighted((batch.labels.state * log_q) @ states.membership, states),
        )

    def typical(self, values: Tensor) -> Tensor:
        """The mean of N(0, I) where the classifier is sure of the values; 0 where it nowhere is, or none is asked."""
        z_c = torch.zeros(len(values), self.layout.z_c, device=values.device)
        for label, (head, block) in enumerate(zip(self.heads(), self.layout.slices, strict=True)):
            for value in range(len(self.labels.labels[label].classes)):
                if (values[:, label] == value).any():
                    mean = _mean_or_middle(head, value, label)
                    z_c[values[:, label] == value, block] = torch.from_numpy(mean).to(z_c.device)
        return z_c

    def drawn(self, label: int, values: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.float32]:
        """The block of one label, (N, d), a draw of N(0, I) where the classifier is sure of `values` (N,).

        Of a class that lies between others it is nowhere sure; then the likeliest of some draws.
        """
        head, found = self.heads()[label], np.zeros((len(values), self.layout.blocks[label]), np.float32)
        for value in np.unique(values).tolist():
            rows = np.flatnonzero(values == value)
            first = rng.standard_normal((len(rows), 1, found.shape[1]), dtype=np.float32)
            try:
                found[rows] = accepted(head, value, CONFIDENCE, first, lambda *_: rng)[:, 0]
            except LabelError:
                found[rows] = _likeliest(head, value, len(rows), rng)
        return found

    def heads(self) -> tuple[Head, ...]:
        """The classifier of every label as numpy arrays."""
        matrix, bias = (part.detach().cpu().numpy() for part in (self.classifier.matrix, self.classifier.bias))
        blocks = zip(self.layout.slices, self.labels.columns, strict=True)
        return tuple(Head(matrix[block, columns], bias[columns]) for block, columns in blocks)

    @classmethod
    def choices(cls, config: SettledConfig) -> dict[str, Any]:
        """alpha, and how sure the classifier must be of a draw."""
        return {"alpha": config.label_weight, "confidence of rejection": CONFIDENCE}


def _likeliest(head: Head, value: int, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Of `DRAWS` draws of N(0, I) each the one that the classifier thinks most of as this class, (count, d)."""
    drawn = rng.standard_normal((count, DRAWS, len(head.weight)), dtype=np.float32)
    scores = drawn @ head.weight + head.bias
    best = (scores[..., value] - np.logaddexp.reduce(scores, axis=2)).argmax(axis=1)
    return np.take_along_axis(drawn, best[:, None, None], axis=1)[:, 0]


def _mean_or_middle(head: Head, value: int, label: int) -> NDArray[np.float32]:
    try:
        return accepted_mean(head, value, CONFIDENCE, label)
    except LabelError:
        # a class that lies between others on one axis: nowhere is it that probable
        return np.zeros(len(head.weight), np.float32)
