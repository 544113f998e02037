"""Tables of label probabilities: every row has the columns of the header."""

import csv
import io
import json

import pytest

from ccvae_deploy.records.label_table import LabelTable, Row

NAMES = ("Smiling", "Young")
ROWS = (
    Row("a.png", "ab", {"Young": 0.25, "Smiling": 1.0}, {"Young": 0.5, "Smiling": 0.125}),
    Row("b,b.png", error="empty file"),
    Row("c.png", "cd", {"Smiling": 0.1234567, "Young": 0.0}),
)


@pytest.mark.parametrize("spread", [True, False])
def test_columns_stand_below_their_names(spread: bool) -> None:
    stream = io.BytesIO()
    table = LabelTable(stream, "csv", NAMES, spread)
    for row in ROWS:
        table.write(row)
    found = list(csv.DictReader(io.StringIO(stream.getvalue().decode())))
    assert [row["source"] for row in found] == ["a.png", "b,b.png", "c.png"]
    assert [row["error"] for row in found] == ["", "empty file", ""]
    assert [(row["Smiling"], row["Young"]) for row in found] == [
        ("1.000000", "0.250000"),
        ("", ""),
        ("0.123457", "0.000000"),
    ]
    if spread:
        assert [(row["Smiling sd"], row["Young sd"]) for row in found] == [("0.125000", "0.500000"), ("", ""), ("", "")]
    assert all(None not in row and None not in row.values() for row in found)


def test_lines_hold_what_is_known() -> None:
    stream = io.BytesIO()
    table = LabelTable(stream, "jsonl", NAMES, spread=True)
    for row in ROWS:
        table.write(row)
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert first["spread"] == {"Young": 0.5, "Smiling": 0.125}
    assert second == {"source": "b,b.png", "error": "empty file"}
    assert third == {"source": "c.png", "source_sha256": "cd", "probabilities": {"Smiling": 0.123457, "Young": 0.0}}
