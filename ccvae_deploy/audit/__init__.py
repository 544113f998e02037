"""A counterfactual audit of anyone's image classifier; `audit` is the function, the command its shell."""

from .run import audit

__all__ = ["audit"]
