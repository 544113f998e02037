"""Numbers and names that a user gives. Pure."""

import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any

from .errors import UsageError, one_line


def refuse_outside(option: str, given: int, low: int, high: int | None = None, of: str = "") -> None:
    """Refuse what is no whole number of a range; numpy's integers are some too.

    Args:
        high: None where it has no end.
        of: what is counted, for the message.

    Raises:
        UsageError: it is none.
    """
    expected = f"{low} or more{of}" if high is None else f"{low} to {high}{of}"
    try:
        if isinstance(given, bool):
            raise TypeError("a truth value")
        number = operator.index(given)
    except TypeError as error:
        raise UsageError(f"{option} {one_line(repr(given), 40)}: expected a whole number, {expected}") from error
    if number < low or (high is not None and number > high):
        raise UsageError(f"{option} {number}: expected {expected}")


def each(option: str, given: str | Iterable[str | float], *, numbers: bool = False) -> list[str]:
    """Several texts, of which one may stand alone: a text is a sequence too, of its letters.

    Args:
        numbers: take numbers too, as the texts that name them.

    Raises:
        UsageError: there is something else.
    """
    found: list[Any]
    try:
        found = [given] if isinstance(given, str) else list(given)
    except TypeError:
        found = [given]
    if numbers:
        found = [str(one) if isinstance(one, Real) else one for one in found]
    wrong = [one for one in found if not isinstance(one, str)]
    if wrong:
        raise UsageError(f"{option} {one_line(repr(wrong[0]), 40)}: expected text, or a list of texts")
    return found


def reals(option: str, given: float | Iterable[float]) -> list[float]:
    """Several numbers, of which one may stand alone.

    Raises:
        UsageError: there is something else.
    """
    if isinstance(given, str | bytes | bytearray):
        return [real(option, given)]  # type: ignore[arg-type]
    try:
        several = list(given)  # type: ignore[arg-type]
    except TypeError:
        return [real(option, given)]  # type: ignore[arg-type]
    return [real(option, one) for one in several]


def wholes(option: str, given: Iterable[int]) -> list[int]:
    """Several whole numbers of 0 or more; numpy's integers are some too, and arrays of them.

    Raises:
        UsageError: there is something else, or none.
    """
    try:
        found = [operator.index(one) for one in given]
    except TypeError:
        found = []
    if not found or min(found) < 0:
        raise UsageError(
            f"{option} {one_line(repr(given), 40)}: expected one or more whole numbers of 0 or more, such as range(8)"
        )
    return found


def real(option: str, given: float) -> float:
    """A number as Python's; numpy's are some too, text is none.

    Raises:
        UsageError: it is none.
    """
    try:
        if isinstance(given, str | bytes | bytearray):
            raise TypeError("text")
        return float(given)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{option} {one_line(repr(given), 40)}: expected a number") from error
