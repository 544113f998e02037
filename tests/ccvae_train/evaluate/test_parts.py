"""Finished protocols are read back from disk, those of an earlier version too."""

import json
from pathlib import Path

from ccvae_train.evaluate.finding import Finding
from ccvae_train.evaluate.parts import read_part, write_part


def test_a_part_is_read_back_and_so_is_one_of_before(tmp_path: Path) -> None:
    written = write_part(tmp_path, "accuracy", "key", Finding(figures={"accuracy": 0.5}, images=60), 1.234)
    path = tmp_path / "accuracy.json"
    stored = json.loads(path.read_text())
    assert stored.keys() == {"key", "finding", "seconds"}
    assert read_part(tmp_path, "accuracy", "key") == written
    path.write_text(json.dumps({**stored, "skipped": ""}))
    assert read_part(tmp_path, "accuracy", "key") == written
    assert read_part(tmp_path, "accuracy", "another") is None
