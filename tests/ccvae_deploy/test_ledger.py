"""The ledger: order, resume after a kill at any byte, and never over what is not ours."""

import json
from pathlib import Path

import pytest

from ccvae_deploy.errors import UsageError
from ccvae_deploy.ledger import Ledger
from ccvae_deploy.receipts import Failure, Receipt, Settings


def settings(edit: str = "smiling=1", **changes) -> Settings:
    base = {"bundle": "b" * 64, "asked": {"smiling": 1.0}, "seed": 0, "mode": "sample", "strength": 1.0}
    return Settings(**{**base, "confidence": 0.9, "compose": "residual", "format": "png", "edit": edit, **changes})


def receipts(source: str, count: int, made_with: Settings) -> list[Receipt]:
    return [
        Receipt(
            sample=k,
            seed=0,
            mode="sample",
            asked={"smiling": 1.0},
            before={"Smiling": 0.12345678},
            after={"Smiling": 0.9},
            reached=True,
            drift=0.01,
            pixel_change=1.5,
            control=3.0,
            settings=made_with.id,
        ).placed(source, "a" * 64, f"{source}__{made_with.edit}__{k:02d}.png")
        for k in range(count)
    ]


def outputs(source: str, count: int) -> list[str]:
    return [f"{source}__smiling=1__{k:02d}.png" for k in range(count)]


def touch_outputs(out: Path, source: str, count: int = 2) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in outputs(source, count):
        (out / name).touch()


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_receipts_are_in_the_order_of_sources_whatever_the_order_of_work(tmp_path: Path) -> None:
    with Ledger(tmp_path, settings()) as ledger:
        for source in ("c", "a", "b"):
            ledger.record(source, receipts(source, 2, settings()))
        ledger.fail(Failure(source="d", error="ImageError", reason="empty file"))
        ledger.finish()
    found = rows(tmp_path / "receipts.jsonl")
    assert [(row["source"], row["sample"]) for row in found] == [(s, k) for s in "abc" for k in range(2)]
    assert list(found[0])[:8] == ["source", "source_sha256", "output", "sample", "seed", "mode", "asked", "before"]
    assert found[0]["before"] == {"Smiling": 0.123457}
    assert rows(tmp_path / "failures.jsonl") == [{"source": "d", "error": "ImageError", "reason": "empty file"}]
    assert not (tmp_path / ".journal.jsonl").exists()
    assert json.loads((tmp_path / "settings.json").read_text())[settings().id]["seed"] == 0


def test_killed_at_any_byte_of_the_last_entry(tmp_path: Path) -> None:
    """What is whole before the cut is kept, what is cut is forgotten, and the end is the same as without a kill."""
    whole = tmp_path / "whole"
    with Ledger(whole, settings()) as ledger:
        for source in "ab":
            ledger.record(source, receipts(source, 2, settings()))
        journal = (whole / ".journal.jsonl").read_bytes()
        ledger.finish()
    cut_points = range(journal.index(b'{"source": "b", "receipts"') + 1, len(journal))
    for number, cut in enumerate([*cut_points][:: max(1, len(cut_points) // 60)]):
        out = tmp_path / str(number)
        for source in "ab":
            touch_outputs(out, source)
        (out / ".journal.jsonl").write_bytes(journal[:cut])
        (out / "settings.json").write_bytes((whole / "settings.json").read_bytes())
        with Ledger(out, settings()) as ledger:
            assert ledger.resuming
            assert ledger.done("a", outputs("a", 2)) == "a" * 64
            assert ledger.done("b", outputs("b", 2)) is None
            ledger.record("b", receipts("b", 2, settings()))
            ledger.finish()
        for name in ("receipts.jsonl", "failures.jsonl", "settings.json"):
            assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_done_needs_the_settings_the_samples_and_the_file(tmp_path: Path) -> None:
    touch_outputs(tmp_path, "a", 3)
    with Ledger(tmp_path, settings()) as ledger:
        ledger.record("a", receipts("a", 2, settings()))
        ledger.finish()
    again = Ledger(tmp_path, settings())
    assert again.done("a", outputs("a", 2)) == "a" * 64
    assert again.done("a", outputs("a", 1)) == "a" * 64
    assert again.done("a", outputs("a", 3)) is None
    other = Ledger(tmp_path, settings(seed=1))
    assert other.done("a", outputs("a", 2)) is None
    assert other.made_with_others("a")
    (tmp_path / "a__smiling=1__01.png").unlink()
    assert again.done("a", outputs("a", 2)) is None


def test_another_edit_is_added(tmp_path: Path) -> None:
    for one in (settings(), settings("young=0")):
        with Ledger(tmp_path, one) as ledger:
            assert not ledger.made_with_others("a")
            ledger.record("a", receipts("a", 2, one))
            ledger.finish()
    outputs = [row["output"] for row in rows(tmp_path / "receipts.jsonl")]
    assert outputs == [f"a__{edit}__0{k}.png" for edit in ("smiling=1", "young=0") for k in range(2)]


def test_failures_are_those_of_the_last_run(tmp_path: Path) -> None:
    with Ledger(tmp_path, settings()) as ledger:
        ledger.fail(Failure(source="a", error="ImageError", reason="empty file"))
        ledger.finish()
    with Ledger(tmp_path, settings()) as ledger:
        assert not ledger.failures
        ledger.record("a", receipts("a", 1, settings()))
        ledger.finish()
    assert (tmp_path / "failures.jsonl").read_bytes() == b""


def test_two_runs_on_one_folder_are_refused(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path, settings()),
        pytest.raises(UsageError, match="another run writes"),
        Ledger(tmp_path, settings()),
    ):
        pass
    with Ledger(tmp_path, settings(), (0, 2)), Ledger(tmp_path, settings(), (1, 2)):
        pass


@pytest.mark.parametrize("text", ["not json\n", '{"a": 1}\n', "[1, 2]\n", "null\n", "\xff\n"])
@pytest.mark.parametrize("name", ["receipts.jsonl", "failures.jsonl", ".journal.jsonl"])
def test_records_that_are_not_ours_are_refused_and_kept(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / name).write_text(text, "latin-1")
    with pytest.raises(UsageError, match="damaged or not ours"):
        Ledger(tmp_path, settings())
    assert (tmp_path / name).read_text("latin-1") == text


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    source = b"caf\xe9".decode("utf-8", "surrogateescape")
    with Ledger(tmp_path, settings()) as ledger:
        ledger.record(source, receipts(source, 1, settings()))
        ledger.finish()
    assert (tmp_path / "receipts.jsonl").read_bytes().isascii()
    assert rows(tmp_path / "receipts.jsonl")[0]["source"] == source
    assert Ledger(tmp_path, settings()).knows(source)
