"""Numbers that a user gives. Pure."""

import operator

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
        number = operator.index(given)
    except TypeError as error:
        raise UsageError(f"{option} {one_line(repr(given), 40)}: expected a whole number, {expected}") from error
    if number < low or (high is not None and number > high):
        raise UsageError(f"{option} {number}: expected {expected}")


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
