"""The objective: two estimators of the same bounds (eq. 3 to 6), terms by name. Pure tensor functions."""

from .exact import exact_terms
from .paper import paper_terms
from .terms import Labels, Posterior, Terms, bernoulli_log_likelihood, laplace_log_likelihood, value_weights

__all__ = [
    "Labels",
    "Posterior",
    "Terms",
    "bernoulli_log_likelihood",
    "exact_terms",
    "laplace_log_likelihood",
    "paper_terms",
    "value_weights",
]
