"""A counterfactual audit of someone else's image classifier: which labels move which of its outputs, and how far.

Reads images, a bundle and a model; writes below `out` only. One small record per image makes a run resumable.
"""

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Unpack

from ..composer import Composer
from ..edits.request import MAX_SAMPLES, labels_or_all, refuse_seed
from ..errors import ImageError, UsageError, underway
from ..folder import Scan, Source, check_out, lying_below, scan, spread_sample
from ..given import reals, refuse_outside
from ..limits import BATCH, refuse_speed
from ..machine.resources import usable_cores
from ..receipts import Failure
from ..records.ledger import Ledger
from ..records.reading import AUDIT, of_audit
from ..storage.remote import Paths, local_path, paths
from ..storage.source_file import read_file
from ..storage.store import Store
from ..terminal.printable import printable
from ..terminal.progress import progress
from ..terminal.screen import counted
from ..work.stream import Seen, area_of, chunks, read_ahead
from .auditor import Auditor
from .model import ModelOptions, open_model
from .record import AuditRecord, AuditSettings
from .results import CSV, HTML, JSON, PICTURES, Audit, write_results

STRENGTHS = (0.5, 1.0)


def audit(
    bundle: Path | str,
    *,
    model: Path | str,
    images: Paths,
    labels: Sequence[str] = (),
    limit: int | None = None,
    samples: int = 4,
    strength: float | Sequence[float] = STRENGTHS,
    compose: str = "residual",
    out: Path | str | None = None,
    seed: int = 0,
    provider: str = "auto",
    batch_size: int = BATCH,
    workers: int | None = None,
    overwrite: bool = False,
    allow_torchscript: bool = False,
    **reading: Unpack[ModelOptions],
) -> Audit:
    """Intervene on every label of every image, one at a time, and measure how an ONNX classifier answers.

    Each binary label is set to the opposite of what the bundle's classifier sees, each categorical one to every other
    class, K samples each; the effect is taken against the same label redrawn in the state it has. See `auditor` for
    what is compared, `effects` and `statistics` for the figures.

    Args:
        images: one image or folder of images, or several.
        labels: which labels; none means all.
        limit: audit so many of the images, chosen by their paths alone; a larger one takes these and others. None takes
            all.
        samples: K, 1 to 100.
        strength: of binary labels, where the effect is measured besides at 1.
        out: None takes `audit-<model's name>`.
        overwrite: replace what was made with other settings.
        reading: `size`, `layout`, `order`, `scale`, `mean`, `std`: how the model is fed, see
            `input.read_feeding`; `outputs`, `activation`, `threshold`: how it is read, see
            `output.read_reading`.

    Raises:
        CCVAEError: refused, and nothing was written; or the disk is full.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    refuse_speed(batch_size, workers)
    refuse_outside("--samples", samples, 1, MAX_SAMPLES)
    refuse_seed(seed)
    began = time.monotonic()
    model, places = local_path(model), [local_path(given) for given in paths(images)]
    target = Path(f"audit-{model.stem}") if out is None else local_path(out)
    if limit is not None:
        refuse_outside("--limit", limit, 1, of=" images")
    found = scan(places)
    own = lying_below(target / PICTURES, (source.path for source in found.sources))
    if own:
        raise UsageError(
            f"{target / PICTURES / min(own)} is among the images, where the report's pictures go; give another --out"
        )
    if limit is not None:
        found = Scan(spread_sample(found.sources, limit), found.ignored)
    check_out(target, places)
    composer = Composer.open(bundle, provider=provider, allow_torchscript=allow_torchscript, batch_size=batch_size)
    audited = open_model(model, provider=provider, batch_size=batch_size, **reading)
    chosen = sorted(labels_or_all(composer.labels, labels))
    settings = AuditSettings(
        bundle=composer.bundle.digest,
        model=audited.sha256,
        feeding=audited.feeding,
        reading=audited.reading,
        labels=tuple(composer.labels.names[label] for label in chosen),
        samples=samples,
        seed=seed,
        strengths=_strengths(composer, strength),
        compose=compose,
    )
    threads = workers or usable_cores()
    with ThreadPoolExecutor(threads) as pool:
        auditor = Auditor(composer, audited, settings, chosen, pool)
        ledger = Ledger(target, [settings])
        _refuse_taken(target, ledger, settings, overwrite)
        with ledger, Store(target) as store:
            skipped = _run(auditor, ledger, found.sources, threads)
            ledger.finish()
            return write_results(auditor, ledger, store, found, skipped, began)


def _strengths(composer: Composer, asked: float | Sequence[float]) -> tuple[float, ...]:
    """Ascending, 1 among them, and without 0, which is the redraw and always there."""
    given = reals("--strength", asked)
    if not composer.latents.has_modes:
        # no two modes to lie between: only the asked state itself
        if tuple(given) != STRENGTHS:
            raise UsageError("--strength needs a conditional prior, whose two modes it lies between; leave it out")
        return (1.0,)
    wrong = [value for value in given if not 0 <= value <= 10]
    if wrong:
        raise UsageError(f"--strength {wrong[0]:g}: expected 0 to 10; 0 is the redraw, 1 the other state")
    return tuple(sorted({*(float(f"{value:g}") for value in given if value > 0), 1.0}))


def _refuse_taken(out: Path, ledger: Ledger, settings: AuditSettings, overwrite: bool) -> None:
    """Records of other settings or commands, and files that no record explains, are not ours to replace."""
    if any(edit != AUDIT for _, edit in ledger.groups):
        raise UsageError(f"{out} holds results of another command; give another --out")
    if overwrite:
        return
    others = [source for (source, _), group in ledger.groups.items() if group.settings != settings.id]
    if others:
        raise UsageError(
            f"{out} has an audit of {counted(len(others), 'image')} with another model or other settings, such as "
            f"{printable(others[0])}; add --overwrite to replace it, or give another --out"
        )
    there = [name for name in (HTML, JSON, CSV, PICTURES) if (out / name).exists()]
    if there and not of_audit(ledger.all_settings):
        raise UsageError(
            f"{out / there[0]} is there and is not ours; add --overwrite to replace it, or give another --out"
        )


@underway()
def _run(auditor: Auditor, ledger: Ledger, sources: Sequence[Source], threads: int) -> int:
    """Audit every source that is not done; gives how many were."""

    def read(source: Source) -> Seen | str:
        group = ledger.group(source.relative, AUDIT)
        if group is None or group.settings != auditor.settings.id:
            return auditor.read(source)
        same = hashlib.sha256(read_file(source.path)).hexdigest() == group.source_sha256
        return source.relative if same else auditor.read(source)

    skipped = 0
    with progress("audit", len(sources), "images") as bar:
        ahead = read_ahead(sources, read, workers=threads, weigh=area_of)
        for group in chunks(ahead, auditor.composer.batch_size, area_of):
            for failed in (one for one in group if isinstance(one, Failure)):
                ledger.fail(failed)
            batch = [one for one in group if isinstance(one, Seen)]
            skipped += sum(isinstance(one, str) for one in group)
            for record in _records(auditor, batch):
                if isinstance(record, Failure):
                    ledger.fail(record)
                else:
                    ledger.record(record.source, [record.noted()])
            bar.advance(len(group))
    return skipped


def _records(auditor: Auditor, batch: Sequence[Seen]) -> list[AuditRecord | Failure]:
    """The records of a batch; where a picture has no room, its sources are tried one by one."""
    try:
        return [*auditor.records(batch)] if batch else []
    except ImageError as error:
        if len(batch) > 1:
            return [record for original in batch for record in _records(auditor, [original])]
        return [Failure.of(batch[0].source.relative, error)]
