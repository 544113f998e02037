"""DIVA (Ilse et al. 2020) as Joy et al. modify it (C.4): no domain, a classifier per label. Pure tensor functions.

The four networks of CCVAE, with q(z|x) as the posterior whether labels are shown or not:

    shown:   E_q(z|x)[log p(x|z)] - beta KL(q(z_s|x) || p(z_s)) - beta KL(q(z_c|x) || p(z_c|y)) + alpha log q(y|z_c)
    missing: E_q(z|x)[log p(x|z)] - beta KL(q(z_s|x) || p(z_s))
             + beta E_q(z_c|x) q(y|z_c) [log p(z_c|y) - log q(z_c|x) + log p(y) - log q(y|z_c)]

label by label, so that an image may show some labels only. alpha is attached to the shown labels, as in DIVA's own
code; the sum over y is taken in full.
"""

from typing import Any

import torch
from torch import Tensor

from ccvae_train.config import SettledConfig
from ccvae_train.networks import CCVAE
from ccvae_train.objective import Batch, Labels, NamedTerms, Posterior, Terms
from ccvae_train.objective.terms import HALF_LOG_TWO_PI, kl_to_standard_normal, log_conditional


class DIVA(CCVAE):
    """Encoder, decoder, classifier and conditional prior, trained by DIVA's objective at beta = 1."""

    def terms(self, batch: Batch) -> NamedTerms:
        """Every term, expectations over z from one draw; KL between normals in closed form."""
        q = self.posterior(batch)
        return batch.averaged(lambda: self._draw(batch, q))

    def _draw(self, batch: Batch, q: Posterior) -> Terms:
        split, states, labels = self.layout.z_c, self.states, batch.labels
        z = q.loc + q.scale * batch.normal(q.loc)
        log_q = states.log_probabilities(self.classifier(z[:, :split]))
        kl = self._kl_of_shown(q, labels.state)
        if not labels.complete:
            kl = torch.where(labels.observed, kl, self._kl_of_missing(q, z[:, :split], log_q, labels))
        reconstruction = batch.log_likelihood(self.decoder, z)
        return Terms(
            reconstruction=reconstruction,
            kl_residual=kl_to_standard_normal(q.loc[:, split:], q.scale[:, split:]).sum(1),
            kl_characteristic=kl.sum(1),
            label_prior=torch.zeros_like(reconstruction),
            label=labels.weighted((labels.state * log_q) @ states.membership, states),
        )

    def _kl_of_shown(self, q: Posterior, state: Tensor) -> Tensor:
        """KL(q(z_i|x) || p(z_i|y_i)), (N, L)."""
        loc, scale = self.conditional_prior.at(state)
        split = self.layout.z_c
        return kl_to_standard_normal((q.loc[:, :split] - loc) / scale, q.scale[:, :split] / scale) @ self.states.latents

    def _kl_of_missing(self, q: Posterior, z_c: Tensor, log_q: Tensor, labels: Labels) -> Tensor:
        """E_q(y_i|z_i)[log q(z_i|x) - log p(z_i|y_i) + log q(y_i|z_i) - log p(y_i)] at a draw of z_c, (N, L)."""
        negative_entropy = (-q.scale[:, : self.layout.z_c].log() - HALF_LOG_TWO_PI - 0.5) @ self.states.latents
        log_joint = log_conditional(self, z_c) + labels.log_prior
        return negative_entropy - (log_q.exp() * (log_joint - log_q)) @ self.states.membership

    @classmethod
    def choices(cls, config: SettledConfig) -> dict[str, Any]:
        """alpha, and where it stands; beta."""
        return {"alpha": config.label_weight, "alpha multiplies": "log q(y|z_c) of shown labels", "beta": 1.0}
