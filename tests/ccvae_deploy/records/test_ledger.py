"""The ledger: order, resume after a kill at any byte, and never over what is not ours."""

import json
import resource
from pathlib import Path

import pytest

from ccvae_deploy.errors import UsageError, WriteError
from ccvae_deploy.receipts import Failure, Noted, Receipt, Settings
from ccvae_deploy.records import ledger as ledgers
from ccvae_deploy.records.ledger import Ledger


def settings(edit: str = "smiling=1", **changes) -> Settings:
    base = {"bundle": "b" * 64, "asked": {"smiling": 1.0}, "seed": 0, "mode": "sample", "strength": 1.0}
    return Settings(**{**base, "confidence": 0.9, "compose": "residual", "format": "png", "edit": edit, **changes})


def receipts(source: str, count: int, made_with: Settings) -> list[Noted]:
    return [
        Receipt(
            source=source,
            source_sha256="a" * 64,
            output=f"{source}__{made_with.edit}__{k:02d}.png",
            output_bytes=0,
            output_sha256="",
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
        ).noted()
        for k in range(count)
    ]


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_receipts_are_in_the_order_of_sources_whatever_the_order_of_work(tmp_path: Path) -> None:
    with Ledger(tmp_path, [settings()]) as ledger:
        for source in ("c", "a", "b"):
            ledger.record(source, receipts(source, 2, settings()))
        ledger.fail(Failure(source="d", error="ImageError", reason="empty file"))
        ledger.finish()
    found = rows(tmp_path / "receipts.jsonl")
    assert [(row["source"], row["sample"]) for row in found] == [(s, k) for s in "abc" for k in range(2)]
    assert list(found[0])[:5] == ["source", "source_sha256", "output", "output_bytes", "output_sha256"]
    assert found[0]["before"] == {"Smiling": 0.123457}
    assert rows(tmp_path / "failures.jsonl") == [{"source": "d", "error": "ImageError", "reason": "empty file"}]
    assert not (tmp_path / ".journal.jsonl").exists()
    assert json.loads((tmp_path / "settings.json").read_text())[settings().id]["seed"] == 0


def test_killed_at_any_byte_of_the_last_entry(tmp_path: Path) -> None:
    """What is whole before the cut is kept, what is cut is forgotten, and the end is the same as without a kill."""
    whole = tmp_path / "whole"
    with Ledger(whole, [settings()]) as ledger:
        for source in "ab":
            ledger.record(source, receipts(source, 2, settings()))
        journal = (whole / ".journal.jsonl").read_bytes()
        ledger.finish()
    cut_points = range(journal.index(b'{"source": "b", "receipts"') + 1, len(journal))
    for number, cut in enumerate([*cut_points][:: max(1, len(cut_points) // 60)]):
        out = tmp_path / str(number)
        out.mkdir()
        (out / ".journal.jsonl").write_bytes(journal[:cut])
        (out / "settings.json").write_bytes((whole / "settings.json").read_bytes())
        with Ledger(out, [settings()]) as ledger:
            group = ledger.group("a", "smiling=1")
            assert (group.settings, group.source_sha256, group.samples) == (settings().id, "a" * 64, 2)
            assert ledger.group("b", "smiling=1") is None
            ledger.record("b", receipts("b", 2, settings()))
            ledger.finish()
        for name in ("receipts.jsonl", "failures.jsonl", "settings.json"):
            assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_nothing_of_a_cut_off_entry_is_left_behind_a_shorter_one(tmp_path: Path) -> None:
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.record("a", receipts("a", 1, settings()))
        ledger.record("b", receipts("b", 5, settings()))
    journal = tmp_path / ".journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-10])
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.record("c", receipts("c", 1, settings()))
    assert set(Ledger(tmp_path, [settings()]).groups) == {("a", "smiling=1"), ("c", "smiling=1")}


@pytest.mark.parametrize("tail", [b"\0" * 100, b"\0" * 100 + b"\n", b'{"source": "b", "receipts": 1}\n\0\0\0\n'])
def test_zeros_that_a_power_cut_left_end_the_journal(tmp_path: Path, tail: bytes) -> None:
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.record("a", receipts("a", 2, settings()))
    with (tmp_path / ".journal.jsonl").open("ab") as file:
        file.write(tail)
    with Ledger(tmp_path, [settings()]) as ledger:
        assert set(ledger.groups) == {("a", "smiling=1")}
        ledger.finish()
    assert len(rows(tmp_path / "receipts.jsonl")) == 2


def test_fewer_samples_leave_the_records_of_the_others(tmp_path: Path) -> None:
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.record("a", receipts("a", 5, settings()))
        ledger.record("a", receipts("a", 2, settings()))
        assert ledger.group("a", "smiling=1").samples == 5
        ledger.finish()
    assert [row["sample"] for row in rows(tmp_path / "receipts.jsonl")] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("change", [{"source_sha256": "c" * 64}, {"output": "other.png"}, {"settings": "seed"}])
def test_samples_of_another_source_or_other_settings_are_not_kept(tmp_path: Path, change: dict[str, str]) -> None:
    other = settings(seed=1)
    if "settings" in change:
        change = {"settings": other.id}
    with Ledger(tmp_path, [settings(), other]) as ledger:
        ledger.record("a", receipts("a", 5, settings()))
        ledger.record("a", [one._replace(**change) for one in receipts("a", 2, settings())])
        assert ledger.group("a", "smiling=1").samples == 2


def test_an_output_has_no_owner_once_it_is_taken_back(tmp_path: Path) -> None:
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.record("a", receipts("a", 1, settings()))
        assert ledger.owner("a__smiling=1__00.png") == ("a", "smiling=1")
        ledger.forget("a", "smiling=1")
        assert ledger.owner("a__smiling=1__00.png") is None
        ledger.record("a", [one._replace(output="b.png") for one in receipts("a", 1, settings())])
        assert ledger.owner("a__smiling=1__00.png") is None


def test_what_was_begun_with_other_settings_explains_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.begin("a", settings(), ["a.png"])
    ledger = Ledger(tmp_path, [settings(seed=1)])
    assert list(ledger.begun("a", settings())) == ["a.png"]
    assert not ledger.begun("a", settings(seed=1))
    assert not ledger.begun("b", settings())


def test_what_was_begun_under_other_names_stays_begun(tmp_path: Path) -> None:
    """As where the format of a source is another now."""
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.begin("a", settings(), ["a0.jpg", "a1.jpg"])
        ledger.record("a", receipts("a", 2, settings()))
        assert list(ledger.begun("a", settings())) == ["a0.jpg", "a1.jpg"]


def test_what_is_taken_back_is_gone_after_a_kill_too(tmp_path: Path) -> None:
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.record("a", receipts("a", 2, settings()))
        ledger.finish()
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.forget("a", "smiling=1")
        assert ledger.group("a", "smiling=1") is None
    with Ledger(tmp_path, [settings()]) as ledger:
        assert ledger.group("a", "smiling=1") is None
        ledger.finish()
    assert rows(tmp_path / "receipts.jsonl") == []


def test_a_second_run_writes_no_record_again(tmp_path: Path) -> None:
    for _ in range(2):
        with Ledger(tmp_path, [settings()]) as ledger:
            if not ledger.groups:
                ledger.record("a", receipts("a", 2, settings()))
            ledger.finish()
            now = {name: (tmp_path / name).stat().st_ino for name in ("receipts.jsonl", "settings.json")}
    assert now == {name: (tmp_path / name).stat().st_ino for name in now}
    assert len(list(ledger.receipts())) == 2


def test_a_disk_that_fills_in_the_middle_of_an_entry_loses_that_entry_only(tmp_path: Path) -> None:
    """A limit on the file's size stands in for a full disk: the write is cut short, then refused."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.record("a", receipts("a", 2, settings()))
        size = (tmp_path / ".journal.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
        try:
            with pytest.raises(WriteError, match="make room"):
                ledger.record("b", receipts("b", 2, settings()))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (tmp_path / ".journal.jsonl").stat().st_size == size + 100
    with Ledger(tmp_path, [settings()]) as ledger:
        assert set(ledger.groups) == {("a", "smiling=1")}


def test_shards_write_settings_of_their_own(tmp_path: Path) -> None:
    """So two that start at the same time cannot lose each other's."""
    for part, edit in enumerate(("smiling=1", "young=0")):
        with Ledger(tmp_path, [settings(edit)], (part, 2)) as ledger:
            ledger.record(edit, receipts(edit, 1, settings(edit)))
            ledger.finish()
    for part, edit in enumerate(("smiling=1", "young=0")):
        found = json.loads((tmp_path / f"settings-{part}-of-2.json").read_text())
        assert [entry["edit"] for entry in found.values()] == [edit]
    assert not (tmp_path / "settings.json").exists()


def test_another_edit_is_added(tmp_path: Path) -> None:
    for one in (settings(), settings("young=0")):
        with Ledger(tmp_path, [one]) as ledger:
            assert not ledger.made_with_others("a", one)
            assert ledger.made_with_others("a", settings("smiling=1", seed=1)) is (one.edit != "smiling=1")
            ledger.record("a", receipts("a", 2, one))
            ledger.finish()
    outputs = [row["output"] for row in rows(tmp_path / "receipts.jsonl")]
    assert outputs == [f"a__{edit}__0{k}.png" for edit in ("smiling=1", "young=0") for k in range(2)]
    # a run is told of its own alone
    assert [row["output"] for row in ledger.receipts()] == outputs[2:]


def test_an_edit_that_is_asked_beside_a_known_one(tmp_path: Path) -> None:
    for asked in ([settings()], [settings(), settings("young=0")]):
        with Ledger(tmp_path, asked) as ledger:
            ledger.record("a", receipts("a", 1, asked[-1]))
            ledger.finish()
    assert set(Ledger(tmp_path, asked).groups) == {("a", "smiling=1"), ("a", "young=0")}


def test_records_are_in_the_order_of_the_bytes_of_paths(tmp_path: Path) -> None:
    """Which is not that of their letters where a name is not UTF-8."""
    sources = ["\U0001f600.png", b"\xff.png".decode("utf-8", "surrogateescape")]
    with Ledger(tmp_path, [settings()]) as ledger:
        for source in reversed(sources):
            ledger.record(source, receipts(source, 1, settings()))
            ledger.fail(Failure(source=source, error="ImageError", reason="empty file"))
        ledger.finish()
    for name in ("receipts.jsonl", "failures.jsonl"):
        assert [row["source"] for row in rows(tmp_path / name)] == sources


def test_failures_are_those_of_the_last_run(tmp_path: Path) -> None:
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.fail(Failure(source="a", error="ImageError", reason="empty file"))
        ledger.finish()
    assert (tmp_path / "receipts.jsonl").read_bytes() == b""
    with Ledger(tmp_path, [settings()]) as ledger:
        assert not ledger.failures
        ledger.record("a", receipts("a", 1, settings()))
        ledger.finish()
    assert (tmp_path / "failures.jsonl").read_bytes() == b""


def test_two_runs_on_one_folder_are_refused(tmp_path: Path) -> None:
    with (
        Ledger(tmp_path, [settings()]),
        pytest.raises(UsageError, match="another run writes"),
        Ledger(tmp_path, [settings()]),
    ):
        pass
    with Ledger(tmp_path, [settings()], (0, 2)), Ledger(tmp_path, [settings()], (1, 2)):
        for shard in ((0, 2), None):
            with pytest.raises(UsageError, match="another run writes"), Ledger(tmp_path, [settings()], shard):
                pass
            with pytest.raises(UsageError, match="another run writes"):
                Ledger(tmp_path, [settings()], shard).check_free()
    with Ledger(tmp_path, [settings()]):
        pass


@pytest.mark.parametrize("text", ["not json\n", '{"a": 1}\n', "[1, 2]\n", "null\n", "\xff\n", "[" * 200_000 + "\n"])
@pytest.mark.parametrize(
    "name", ["receipts.jsonl", "failures.jsonl", ".journal.jsonl", ".unfinished.json", ".roots.json"]
)
def test_records_that_are_not_ours_are_refused_and_kept(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / name).write_text(text, "latin-1")
    with pytest.raises(UsageError, match="damaged or not ours"):
        Ledger(tmp_path, [settings()])
    assert (tmp_path / name).read_text("latin-1") == text


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', '{"a": {"seed": 0}}'])
def test_settings_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(UsageError, match=r"damaged or not ours \(settings\.json holds no settings\)"):
        Ledger(tmp_path, [settings()])


@pytest.mark.parametrize("outputs", ["[1]", "1", "[null]"])
def test_outputs_without_names_are_refused(tmp_path: Path, outputs: str) -> None:
    entry = f'{{"source": "a", "edit": "e", "receipts": 0, "settings": "s", "outputs": {outputs}}}'
    for name, text in ((".unfinished.json", f"[{entry}]"), (".journal.jsonl", f"{entry}\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match="damaged or not ours"):
            Ledger(tmp_path, [settings()])
        (tmp_path / name).unlink()


@pytest.mark.parametrize("name", ["receipts.jsonl", "failures.jsonl", ".journal.jsonl", "settings.json", ".roots.json"])
def test_a_folder_in_the_place_of_records_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=r"the records in .* cannot be read: not a regular file; give another --out"):
        Ledger(tmp_path, [settings()])


@pytest.mark.parametrize("field", ["output", "output_bytes", "output_sha256"])
def test_a_receipt_that_lacks_what_runs_go_on_from_is_refused(tmp_path: Path, field: str) -> None:
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.record("a", receipts("a", 2, settings()))
        ledger.finish()
    rows = [json.loads(line) for line in (tmp_path / "receipts.jsonl").read_text("ascii").splitlines()]
    del rows[1][field]
    (tmp_path / "receipts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "ascii")
    with pytest.raises(UsageError, match="damaged or not ours"):
        Ledger(tmp_path, [settings()])


def test_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    source = b"caf\xe9".decode("utf-8", "surrogateescape")
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.record(source, receipts(source, 1, settings()))
        ledger.finish()
    assert (tmp_path / "receipts.jsonl").read_bytes().isascii()
    assert rows(tmp_path / "receipts.jsonl")[0]["source"] == source
    assert Ledger(tmp_path, [settings()]).group(source, "smiling=1").samples == 1
    assert [row["source"] for row in Ledger(tmp_path, [settings()]).receipts()] == [source]


def test_a_journal_that_promises_more_than_it_holds_ends_there(tmp_path: Path) -> None:
    (tmp_path / ".journal.jsonl").write_text('{"source": "a", "receipts": 1000000000000}\n')
    assert Ledger(tmp_path, [settings()]).groups == {}


def test_records_that_another_run_has_changed_since_they_were_checked(tmp_path: Path) -> None:
    """Between the checks of one run and its lock another one came and went: the checks no longer hold."""
    checked = Ledger(tmp_path, [settings()])
    with Ledger(tmp_path, [settings(seed=1)]) as other:
        other.record("a", receipts("a", 1, settings(seed=1)))
        other.finish()
    with pytest.raises(UsageError, match="another run writes"), checked:
        pass
    assert not (tmp_path / ".journal.jsonl").exists()
    assert Ledger(tmp_path, [settings()]).made_with_others("a", settings())


def test_a_run_that_came_and_was_killed_since_they_were_checked_keeps_its_journal(tmp_path: Path) -> None:
    checked = Ledger(tmp_path, [settings()])
    with Ledger(tmp_path, [settings()]) as other:
        other.record("a", receipts("a", 1, settings()))
    with pytest.raises(UsageError, match="another run writes"), checked:
        pass
    assert Ledger(tmp_path, [settings()]).group("a", "smiling=1").samples == 1


def test_a_journal_that_goes_before_it_is_locked(tmp_path: Path, monkeypatch) -> None:
    """Its run has just ended, and nothing that is written to a file without a name would outlast a kill."""
    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "lock_journal", lambda *_: (tmp_path / ".journal.jsonl").unlink())
        with pytest.raises(UsageError, match="another run writes"), Ledger(tmp_path, [settings()]):
            pass
    with Ledger(tmp_path, [settings()]):
        pass


@pytest.mark.parametrize("there", [True, False])
def test_a_journal_that_is_a_link_is_not_followed(tmp_path: Path, there: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.journal.jsonl").symlink_to("../mine")
    if there:
        (tmp_path / "mine").touch()
    with pytest.raises(WriteError, match="cannot write in"), Ledger(tmp_path / "out", [settings()]):
        pass
    assert (tmp_path / "mine").exists() is there
    (tmp_path / "out/.journal.jsonl").unlink()
    # a start that has failed holds no lock
    with Ledger(tmp_path / "out", [settings()]):
        pass


def test_a_system_that_removes_no_open_file(tmp_path, monkeypatch) -> None:
    """As Windows: the journal is closed before it goes."""
    unlink = Path.unlink

    def refusing(path, missing_ok=False):
        if path == tmp_path / ".journal.jsonl" and ledger._journal is not None:
            raise PermissionError(13, "in use", str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)
    with Ledger(tmp_path, [settings()]) as ledger:
        ledger.record("a", receipts("a", 1, settings()))
        ledger.finish()
    assert not (tmp_path / ".journal.jsonl").exists()
    assert Ledger(tmp_path, [settings()]).group("a", "smiling=1").samples == 1
