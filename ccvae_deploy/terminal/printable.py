"""Text from strangers made fit for a terminal. Touches nothing."""


def printable(text: str) -> str:
    """The text with every character that a terminal could obey written as an escape, such as `\\x1b`.

    That is all that Unicode calls control, format, surrogate, private or unassigned: colours and cursor moves, line
    ends, marks that turn the direction of writing, characters without width.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters of a text, its cut end marked."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
