"""The objective: two estimators of the same bounds (eq. 3 to 6), terms by name. Pure tensor functions."""

from .agreement import agreement
from .batch import Batch
from .exact import exact_terms
from .paper import paper_terms
from .terms import (
    AgreeingTerms,
    Labels,
    NamedTerms,
    Posterior,
    Terms,
    bernoulli_log_likelihood,
    laplace_log_likelihood,
    value_weights,
)

__all__ = [
    "AgreeingTerms",
    "Batch",
    "Labels",
    "NamedTerms",
    "Posterior",
    "Terms",
    "agreement",
    "bernoulli_log_likelihood",
    "exact_terms",
    "laplace_log_likelihood",
    "paper_terms",
    "value_weights",
]
