"""What reaches a terminal obeys nobody but us."""

import pytest

from ccvae_deploy.terminal.printable import printable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Wearing_Hat é 帽", "Wearing_Hat é 帽"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\r\tc\x7f", r"a\nb\r\tc\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("evil\u202etxt.exe", r"evil\u202etxt.exe"),
        ("\u200bhidden\u2028", r"\u200bhidden\u2028"),
        ("\udcff", r"\udcff"),
    ],
)
def test_control_characters_become_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert shown.isprintable()


def test_long_texts_lose_their_end() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
