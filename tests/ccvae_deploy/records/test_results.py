"""An output folder of `generate` or `swap`: what is done in it, and what it is."""

import hashlib
from pathlib import Path

from ccvae_deploy.receipts import Noted, Settings
from ccvae_deploy.records.ledger import Ledger
from ccvae_deploy.records.reading import of_audit
from ccvae_deploy.records.results import Results
from ccvae_deploy.storage.store import Store


def settings(seed: int = 0) -> Settings:
    asked = {"bundle": "b", "asked": {}, "seed": seed, "mode": "sample", "strength": 1.0, "confidence": 0.9}
    return Settings(**asked, compose="residual", format="png", edit="swap")


def test_a_source_is_done_when_all_its_outputs_are_there_as_recorded(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"source").hexdigest()
    with Ledger(tmp_path, [settings()]) as ledger, Store(tmp_path) as store:
        results = Results(tmp_path, ledger, store, settings(), overwrite=False)
        for name in ("0.png", "1.png"):
            results.write(name, b"data")
        ledger.record("a", [Noted(b"{}\n", settings().id, digest, name, 4) for name in ("0.png", "1.png")])
        assert results.done("a", ["0.png", "1.png"]) == results.done("a", ["0.png"]) == digest
        assert results.done("b", ["0.png"]) is None
        assert results.done("a", ["1.png"]) is None
        assert Results(tmp_path, ledger, store, settings(1), overwrite=False).done("a", ["0.png"]) is None
        results.write("2.png", b"not recorded")
        assert results.done("a", ["0.png", "1.png", "2.png"]) is None
        results.write("1.png", b"cut")
        assert results.done("a", ["0.png", "1.png"]) is None


def test_a_label_called_audit_makes_no_audit() -> None:
    assert of_audit({"a": {"edit": "swap"}, "b": {"edit": "audit", "feeding": {}}})
    assert not of_audit({"a": {"edit": "audit"}, "b": {"edit": "swap", "feeding": {}}})
