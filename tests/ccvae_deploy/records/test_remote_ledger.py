"""The ledger behind a URL: what this machine keeps of it, what another has done since, and records of others."""

import json

import pytest

from ccvae_deploy.errors import UsageError, WriteError
from ccvae_deploy.receipts import Noted, Settings
from ccvae_deploy.records.remote_ledger import RemoteLedger
from ccvae_deploy.storage import remote_store
from ccvae_deploy.storage.remote import Remote

fsspec = pytest.importorskip("fsspec")
from ..far_places import stored  # noqa: E402


def settings(seed: int = 0) -> Settings:
    return Settings(
        bundle="b" * 64,
        asked={"smiling": 1.0},
        seed=seed,
        mode="sample",
        strength=1.0,
        confidence=0.9,
        compose="residual",
        format="png",
        edit="smiling=1",
    )


def receipts(source: str, count: int, made_with: Settings) -> list[Noted]:
    rows = [
        {"source": source, "source_sha256": "a", "output": f"{source}{k}.png", "output_bytes": 0, "output_sha256": ""}
        for k in range(count)
    ]
    lines = [(json.dumps({**row, "settings": made_with.id}) + "\n").encode() for row in rows]
    return [Noted(line, made_with.id, "a", row["output"], 0) for line, row in zip(lines, rows, strict=True)]


def test_a_run_that_another_machine_has_overtaken_is_forgotten(memory, monkeypatch, tmp_path) -> None:
    with RemoteLedger(Remote(memory), [settings()]) as ledger:
        ledger.record("a", receipts("a", 1, settings()))
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "elsewhere"))
    with RemoteLedger(Remote(memory), [settings(seed=1)]) as ledger:
        ledger.record("a", receipts("a", 1, settings(seed=1)))
        ledger.finish()
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "cache"))
    assert RemoteLedger(Remote(memory), []).group("a", "smiling=1").settings == settings(seed=1).id


def test_what_was_begun_here_is_not_ours_once_others_have_been_there(memory, monkeypatch, tmp_path) -> None:
    with RemoteLedger(Remote(memory), [settings()]) as ledger:
        ledger.begin("a", settings(), ["a.png"])
        ledger.finish()
    assert list(RemoteLedger(Remote(memory), [settings()]).begun("a", settings())) == ["a.png"]
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "elsewhere"))
    with RemoteLedger(Remote(memory), [settings()]) as ledger:
        ledger.record("b", receipts("b", 1, settings()))
        ledger.finish()
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "cache"))
    ledger = RemoteLedger(Remote(memory), [settings()])
    assert (set(ledger.groups), list(ledger.begun("a", settings()))) == ({("b", "smiling=1")}, [])


@pytest.mark.parametrize("puts", [1, 2, 3])
def test_records_of_a_run_that_is_cut_off_among_them_can_be_read(
    memory, interrupted, monkeypatch, tmp_path, puts
) -> None:
    with RemoteLedger(Remote(memory), [settings()]) as ledger:
        ledger.record("a", receipts("a", 1, settings()))
        with interrupted(remote_store.RemoteStore, "put", puts):
            ledger.finish()
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "elsewhere"))
    assert len(RemoteLedger(Remote(memory), [settings()]).groups) == (puts == 3)


def test_of_records_that_are_gone_nothing_is_left_here(memory) -> None:
    with RemoteLedger(Remote(memory), [settings()]) as ledger:
        ledger.record("a", receipts("a", 1, settings()))
        ledger.finish()
    fsspec.filesystem("memory").rm(memory, recursive=True)
    ledger = RemoteLedger(Remote(memory), [])
    assert (ledger.groups, ledger.all_settings) == ({}, {})


def test_shards_of_one_machine_at_the_same_time(memory) -> None:
    with RemoteLedger(Remote(memory), [settings()], (0, 2)), RemoteLedger(Remote(memory), [settings()], (1, 2)):
        pass


@pytest.mark.parametrize("name", ["receipts.jsonl", "failures.jsonl", "settings.json"])
def test_records_at_a_url_that_are_not_ours_are_refused_and_kept(memory, name) -> None:
    remote_store.RemoteStore(Remote(memory)).write(name, b"mine")
    with pytest.raises(UsageError, match="damaged or not ours"):
        RemoteLedger(Remote(memory), [settings()])
    assert stored(memory) == {name: b"mine"}


def test_a_cache_that_cannot_be_made(memory, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CCVAE_CACHE", str(tmp_path / "file"))
    with pytest.raises(WriteError, match=r"Not a directory; set CCVAE_CACHE to another folder$"):
        RemoteLedger(Remote(memory), [settings()])
