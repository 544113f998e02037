"""A counterfactual audit of someone else's image classifier: which labels move which of its outputs, and how far.

Reads images, a bundle and a model; writes below `out` only. One small record per image makes a run resumable.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .audit_effects import Effect, effects
from .audit_model import open_model
from .audit_pictures import Shown, largest_flips
from .audit_record import EDIT, AuditRecord, AuditSettings
from .audit_report import csv_lines, report_page
from .audit_run import Auditor, Original
from .audit_table import effects_table
from .editor import Editor
from .errors import ImageError, UsageError
from .folder import Scan, Source, check_out, scan
from .ledger import Ledger
from .new_file import new_file
from .progress import progress
from .receipts import Failure
from .screen import counted, facts
from .store import Store, replace_file
from .stream import chunks, read_ahead, refuse_speed
from .terminal import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

HTML, JSON, CSV, PICTURES = "audit.html", "audit.json", "effects.csv", "pictures"
STRENGTHS = (0.5, 1.0)


@dataclass(frozen=True)
class Audit:
    """What an audit came to.

    Attributes:
        effects: of every label on every output, over all images of this run, also those that were done before.
        sources: images found, `skipped` of which an earlier run has done and `failed` could not be done.
        facts: what was audited and how, by name, for people.
    """

    out: Path
    html: Path
    effects: tuple[Effect, ...]
    sources: int
    skipped: int
    failed: int
    seconds: float
    facts: tuple[tuple[str, str], ...]


def audit(
    bundle: Path,
    *,
    model: Path,
    images: Sequence[Path],
    labels: Sequence[str] = (),
    samples: int = 4,
    strength: Sequence[float] = STRENGTHS,
    compose: str = "residual",
    size: int | str | None = None,
    layout: str | None = None,
    order: str | None = None,
    scale: float | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    outputs: Sequence[str] = (),
    activation: str | None = None,
    threshold: float = 0.5,
    out: Path | None = None,
    seed: int = 0,
    provider: str = "auto",
    batch_size: int = 16,
    workers: int | None = None,
    overwrite: bool = False,
    allow_torchscript: bool = False,
) -> Audit:
    """Intervene on every label of every image, one at a time, and measure how an ONNX classifier answers.

    Each binary label is set to the opposite of what the bundle's classifier sees, each categorical one to every other
    class, K samples each; the effect is taken against the same label redrawn in the state it has. See `audit_run` for
    what is compared, `audit_effects` and `audit_statistics` for the figures.

    Args:
        images: images and folders of images.
        labels: which labels; none means all.
        samples: K, 1 to 100.
        strength: of binary labels, where the effect is measured besides at 1.
        size, layout, order, scale, mean, std: how the model is fed, see `audit_input.read_feeding`.
        outputs, activation, threshold: how it is read, see `audit_output.read_reading`.
        out: None takes `audit-<model's name>`.
        overwrite: replace what was made with other settings.

    Raises:
        CCVAEError: refused, and nothing was written; or the disk is full.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    refuse_speed(batch_size, workers)
    began = time.monotonic()
    target = out or Path(f"audit-{model.stem}")
    found = scan(images)
    check_out(target, images)
    editor = Editor.open(bundle, provider=provider, allow_torchscript=allow_torchscript, batch_size=batch_size)
    audited = open_model(
        model,
        **{"size": size, "layout": layout, "order": order, "scale": scale, "mean": mean, "std": std},
        **{"outputs": outputs, "activation": activation, "threshold": threshold},
        provider=provider,
        batch_size=batch_size,
    )
    chosen = sorted({editor.labels.index(name) for name in labels} or range(len(editor.labels)))
    settings = AuditSettings(
        bundle=editor.bundle.digest,
        model=audited.sha256,
        feeding=audited.feeding,
        reading=audited.reading,
        labels=tuple(editor.labels.names[label] for label in chosen),
        samples=samples,
        seed=seed,
        strengths=_strengths(editor, strength),
        compose=compose,
    )
    threads = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        auditor = Auditor(editor, audited, settings, chosen, pool)
        ledger = Ledger(target, [settings])
        _refuse_taken(target, ledger, found, settings, overwrite)
        with ledger, Store(target) as store:
            skipped = _run(auditor, ledger, found.sources, threads)
            ledger.finish()
            return _results(auditor, ledger, store, found, skipped, began)


def _strengths(editor: Editor, asked: Sequence[float]) -> tuple[float, ...]:
    """Ascending, 1 among them, and without 0, which is the redraw and always there."""
    if not editor.latents.has_modes:
        # no two modes to lie between: only the asked state itself
        return (1.0,)
    wrong = [value for value in asked if not 0 <= value <= 10]
    if wrong:
        raise UsageError(f"--strength {wrong[0]:g}: expected 0 to 10; 0 is the redraw, 1 the other state")
    return tuple(sorted({*(float(f"{value:g}") for value in asked if value > 0), 1.0}))


def _refuse_taken(out: Path, ledger: Ledger, found: Scan, settings: AuditSettings, overwrite: bool) -> None:
    """Records of other settings or commands, and files that no record explains, are not ours to replace."""
    if any(edit != EDIT for _, edit in ledger.groups):
        raise UsageError(f"{out} holds results of another command; give another --out")
    if overwrite:
        return
    others = [source.relative for source in found.sources if ledger.made_with_others(source.relative, settings)]
    if others:
        raise UsageError(
            f"{out} has an audit of {len(others):,} of these images with another model or other settings, such as "
            f"{printable(others[0])}; add --overwrite to replace it, or give another --out"
        )
    there = [name for name in (HTML, JSON, CSV, PICTURES) if (out / name).exists()]
    if there and not (ledger.groups or ledger.resuming):
        raise UsageError(
            f"{out / there[0]} is there and no record here explains it; add --overwrite to replace it, or give another --out"
        )


def _run(auditor: Auditor, ledger: Ledger, sources: Sequence[Source], threads: int) -> int:
    """Audit every source that is not done; gives how many were."""

    def read(source: Source) -> Original | str:
        group = ledger.group(source.relative, EDIT)
        original = auditor.read(source)
        same = group is not None and (group.settings, group.source_sha256) == (auditor.settings.id, original.digest)
        return source.relative if same else original

    skipped = 0
    with progress("audit", len(sources), "images") as bar:
        ahead = read_ahead(sources, read, workers=threads, weigh=_pixels)
        for group in chunks(ahead, auditor.editor.batch_size, _pixels):
            for failed in (one for one in group if isinstance(one, Failure)):
                ledger.fail(failed)
            batch = [one for one in group if isinstance(one, Original)]
            skipped += sum(isinstance(one, str) for one in group)
            for record in _records(auditor, batch):
                if isinstance(record, Failure):
                    ledger.fail(record)
                else:
                    ledger.record(record.source, [record])
            bar.advance(len(group))
    return skipped


def _records(auditor: Auditor, batch: Sequence[Original]) -> list[AuditRecord | Failure]:
    """The records of a batch; where a picture has no room, its sources are tried one by one."""
    try:
        return [*auditor.records(batch)] if batch else []
    except ImageError as error:
        if len(batch) > 1:
            return [record for original in batch for record in _records(auditor, [original])]
        return [Failure(source=batch[0].source.relative, error="ImageError", reason=str(error))]


def _pixels(one: Original | str | Failure) -> int:
    return one.picture.size[0] * one.picture.size[1] if isinstance(one, Original) else 0


def _results(auditor: Auditor, ledger: Ledger, store: Store, found: Scan, skipped: int, began: float) -> Audit:
    """Go through the records and write what they come to."""
    sources = {source.relative: source for source in found.sources}
    labels, settings = auditor.editor.labels, auditor.settings

    def records() -> Iterator[dict[str, Any]]:
        return (row for row in ledger.receipts() if row["source"] in sources)

    measured = effects(labels, settings, records())
    classes = {labels.names[label]: labels.labels[label].classes for label in auditor.labels}
    with new_file(ledger.out / CSV) as stream:
        stream.writelines(csv_lines(records(), settings.reading.names, settings.samples, classes))
    pictures = largest_flips(auditor, measured, records(), sources)
    told = _facts(auditor, len(sources), skipped, len(ledger.failures), found.ignored)
    files = _write_pictures(store, pictures)
    _write_json(ledger.out / JSON, auditor, measured, files, told)
    title = f"{auditor.model.path.name}: what moves it"
    replace_file(ledger.out / HTML, [report_page(title, told, measured, pictures)])
    return Audit(
        out=ledger.out,
        html=ledger.out / HTML,
        effects=tuple(measured),
        sources=len(sources),
        skipped=skipped,
        failed=len(ledger.failures),
        seconds=time.monotonic() - began,
        facts=told,
    )


def _facts(auditor: Auditor, sources: int, skipped: int, failed: int, ignored: int) -> tuple[tuple[str, str], ...]:
    settings, model = auditor.settings, auditor.model
    strengths = ", ".join(f"{strength:g}" for strength in (0.0, *settings.strengths))
    done = f", {skipped:,} done before" if skipped else ""
    missing = f", {failed:,} failed (failures.jsonl)" if failed else ""
    passed = f", {counted(ignored, 'other file')} passed over" if ignored else ""
    return (
        ("model", f"{printable(model.path.name)}, {model.feeding.text()}"),
        ("outputs", printable(model.reading.text())),
        ("images", f"{sources:,}{done}{missing}{passed}"),
        ("edits", f"{counted(settings.samples, 'sample')} at strength {strengths}; {settings.compose}"),
        ("provider", f"{auditor.editor.bundle.provider}: {auditor.editor.bundle.provider_note}"),
    )


def _write_pictures(store: Store, pictures: Sequence[Shown]) -> list[dict[str, Any]]:
    """The strips as files; those of an earlier report that are not shown any more are removed."""
    files = []
    for i, one in enumerate(pictures):
        name = f"{PICTURES}/{i:02d}.jpg"
        store.write(name, one.data)
        values = {"control": one.control, "redrawn": one.redrawn, "edited": one.edited, "flips": one.flips}
        digest = hashlib.sha256(one.data).hexdigest()
        files.append(
            {"file": name, "sha256": digest, "source": one.source, "edit": one.edit, "output": one.output} | values
        )
    for name, digest in _earlier(store.path(JSON)).items():
        if name not in {one["file"] for one in files}:
            store.remove(name, digest)
    return files


def _earlier(path: Path) -> Mapping[str, str]:
    """The pictures of an earlier report and their hashes."""
    try:
        return {one["file"]: one["sha256"] for one in json.loads(path.read_text("ascii"))["pictures"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_json(
    path: Path,
    auditor: Auditor,
    measured: Iterable[Effect],
    pictures: Sequence[Mapping[str, Any]],
    told: Sequence[tuple[str, str]],
) -> None:
    content = {
        "settings": auditor.settings.model_dump(),
        "facts": dict(told),
        "effects": [one.model_dump() for one in measured],
        "pictures": pictures,
    }
    replace_file(path, [(json.dumps(content, indent=2) + "\n").encode("ascii")])


def audit_table(found: Audit) -> "RenderableType":
    """An audit for the screen, in 80 columns."""
    from rich.console import Group
    from rich.text import Text

    rate = (found.sources - found.skipped) / found.seconds if found.seconds else 0.0
    rows = [*found.facts, ("speed", f"{rate:,.1f} images/s"), ("report", printable(str(found.html)))]
    if not found.effects:
        return facts(rows)
    note = Text(
        "moves: the joint interval leaves out zero; slightly: by less than a tenth of\n"
        "what the output varies among images; -: no effect found; ?: not tested.",
        style="dim",
    )
    return Group(effects_table(found.effects), Text(), note, Text(), facts(rows))
