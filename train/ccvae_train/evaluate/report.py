"""One HTML page about an evaluation: the summary, every protocol's tables and pictures. Writes that file.

The page needs no network and no script: pictures are data URIs, all text in it is escaped.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ccvae_deploy import images
from ccvae_deploy.errors import ImageError
from ccvae_deploy.pictures.decoding import open_picture
from ccvae_deploy.pictures.html_page import data_uri, page
from ccvae_deploy.pictures.plots import bars, escaped
from ccvae_deploy.storage.store import replace_file
from ccvae_deploy.terminal.screen import counted

from .protocols import MAIN, PROTOCOLS, Protocol
from .results import JUDGE_FIGURE, Evaluation, RunResult, mean_and_spread
from .tables import JUDGED, cell, spread_cell

PAGE = "report.html"
MORE = (
    ".grid td,.grid th{padding:2px 10px 2px 0;text-align:right;font-weight:400}.grid td:first-child{text-align:left}"
    ".grid th{color:var(--soft)}img{max-width:100%}"
)


def write_page(found: Evaluation) -> Path:
    """Write `report.html` into the evaluation's folder.

    Raises:
        WriteError: the disk is full or refuses.
    """
    parts = [_runs(found.runs), _summary(found), *(_section(protocol, found.runs) for protocol in PROTOCOLS)]
    replace_file(found.out / PAGE, [page("Evaluation", parts, MORE)])
    return found.out / PAGE


def _runs(runs: Sequence[RunResult]) -> str:
    rows = [
        (r.name, r.model, r.data, r.partition, f"{r.supervision:g}", str(r.seed), cell(r.figure(JUDGE_FIGURE)))
        for r in runs
    ]
    judges = {(run.judged_by, run.data): run.judge["by_label"] for run in runs if run.judge.get("by_label")}
    told = "".join(
        f"<h3>The judge of {escaped(data)}: {escaped(judge)}</h3>"
        + _grid(
            ("label", *JUDGED),
            ((label, *(cell(one.get(key)) for key in JUDGED.values())) for label, one in by_label.items()),
        )
        for (judge, data), by_label in judges.items()
    )
    note = '<p class="note">On real validation images, which no judge is trained on.</p>' if told else ""
    return _grid(("run", "model", "data", "images", "f", "seed", JUDGE_FIGURE), rows) + told + note


def _summary(found: Evaluation) -> str:
    """A row per main figure, a column per group of runs, the paper's figure in brackets."""
    groups = found.groups()
    rows = []
    for figure, _ in MAIN:
        texts = []
        for runs in groups.values():
            text = spread_cell(*mean_and_spread(runs, figure))
            paper = runs[0].paper(figure)
            texts.append(text if paper is None else f"{text} ({cell(paper)})")
        if any(text != cell(None) for text in texts):
            rows.append((figure, *texts))
    several = len({data for _, _, data in groups}) > 1
    heads = [
        f"{model}, f {rate:g}" + (f", {data}" if several else "") + (f", {len(runs)} runs" if len(runs) > 1 else "")
        for (model, rate, data), runs in groups.items()
    ]
    notes = ["Mean and standard deviation over seeds; in brackets the paper's figure.", *found.notes()]
    return f'<h2>Summary</h2><p class="note">{escaped(" ".join(notes))}</p>' + _grid(("figure", *heads), rows)


def _section(protocol: Protocol, runs: Iterable[RunResult]) -> str:
    bodies = []
    for run in runs:
        for part in run.parts:
            if part.protocol != protocol.name:
                continue
            if part.skipped:
                bodies.append(f'<p class="note">{escaped(run.name)}: skipped, {escaped(part.skipped)}</p>')
                continue
            figures = [(name, cell(value)) for name, value in part.figures.items()]
            bodies.append(f"<h3>{escaped(run.name)}</h3>" + (_grid(("figure", "value"), figures) if figures else ""))
            bodies += [_table(table) for table in part.finding["tables"]]
            bodies += [_picture(path, name) for name, path in part.pictures.items()]
            images = counted(part.finding["images"], "image")
            bodies.append(f'<p class="note">{images}. {escaped(part.finding["note"])}</p>')
    if not bodies:
        return ""
    return f"<h2>{escaped(protocol.title)} <small>({escaped(protocol.source)})</small></h2>{''.join(bodies)}"


def _table(table: Mapping[str, Any]) -> str:
    """The table, and bars of its first column of figures where those are shares."""
    shown = [tuple(c if isinstance(c, str) else cell(c) for c in row) for row in table["rows"]]
    first = [(str(row[0]), row[1]) for row in table["rows"] if row[1] is not None]
    drawn = ""
    if table["shares"] and len(first) > 1:
        drawn = f"<figure><figcaption>{escaped(table['columns'][1])}</figcaption>{bars(first)}</figure>"
    return f'<div class="row">{_grid(table["columns"], shown)}{drawn}</div>'


def _grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escaped(str(name))}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escaped(str(text))}</td>' for text in row)}</tr>" for row in rows)
    return f'<table class="grid"><tr>{head}</tr>{body}</table>'


def _picture(path: Path, alt: str) -> str:
    buffer = io.BytesIO()
    try:
        picture = images.to_pil(open_picture(path)[0])
    except ImageError as error:
        return f'<p class="note">{escaped(str(error))}</p>'
    picture.convert("RGB").save(buffer, "JPEG", quality=88)
    return f'<p><img src="{data_uri(buffer.getvalue())}" alt="{escaped(alt)}"></p>'
