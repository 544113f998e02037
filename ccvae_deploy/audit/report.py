"""An audit as one HTML page and as a CSV. The page needs no network and no script; all text in it is escaped."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..pictures.html_page import data_uri, page
from ..pictures.plots import escaped
from ..records.label_table import csv_line
from .effects import REACHED, SLIGHT, Effect
from .pictures import Shown
from .plots import curve, intervals
from .statistics import FEWEST
from .table import number, ranked, sentence

STYLE = """
.s2{fill:var(--soft);fill-opacity:.6}.line{stroke:var(--a);fill:none;stroke-width:1.5}
.matrix td,.matrix th{padding:.25em .7em;text-align:right;border-bottom:1px solid var(--line)}
.matrix th:first-child{text-align:left}.moves{font-weight:700}.quiet{color:var(--soft)}.scroll{overflow-x:auto}
.strip{width:500px;overflow-wrap:anywhere}.strip img{max-width:100%}
"""
CURVES, LABELS = 12, 30
COLUMNS = (
    *("source", "label", "from", "to", "output", "strength", "samples", "control", "redrawn", "edited", "effect"),
    *("flips", "redrawn_flips", "reached"),
)


def report_page(
    title: str, facts: Sequence[tuple[str, str]], effects: Sequence[Effect], pictures: Sequence[Shown]
) -> bytes:
    """The page's bytes."""
    cells = "".join(f"<tr><th>{escaped(name)}</th><td>{escaped(text)}</td></tr>" for name, text in facts)
    parts = [f"<table>{cells}</table>"]
    if effects:
        parts += [_words(effects), _matrix(effects), _intervals(effects), _curves(effects)]
    parts.append(_strips(pictures))
    return page(title, parts, STYLE)


def _words(effects: Sequence[Effect]) -> str:
    moving = [one for one in ranked(effects) if one.verdict == "moves"]
    lines = "".join(f"<li>{escaped(sentence(one))}.</li>" for one in moving)
    slight = [one for one in effects if one.verdict == "moves slightly"]
    silent = [one for one in effects if one.verdict == "no effect found"]
    untested = [one for one in effects if one.verdict == "not tested"]
    note = (
        "The effect is that of the label's state alone: the edited picture against one whose same part was redrawn in "
        "the state it had, with the same noise; half of what turning it on does, less half of what turning it off "
        "does. A label is said to move an output where its joint interval leaves out zero; all joint intervals of this "
        "page hold together with 95 % (bootstrap over images, single-step max-t). "
        f"{len(slight):,} further pairs of label and output move slightly, by less than {SLIGHT:.0%} of the output's "
        "standard deviation among the images, which a bundle whose edits are not perfectly local may cause alone. For "
        f"{len(silent):,} pairs no effect was found, which is no proof that there is none. "
        f"{len(untested):,} pairs are not tested: less than {FEWEST} images, or under {REACHED:.0%} of the edits reach "
        "the label."
    )
    return f'<h2>What moves</h2><ul>{lines or "<li>Nothing that was found.</li>"}</ul><p class="note">{note}</p>'


def _matrix(effects: Sequence[Effect]) -> str:
    outputs, names = (list(dict.fromkeys(getattr(one, key) for one in effects)) for key in ("output", "label"))
    by_place = {(one.label, one.output): one for one in effects}
    head = "".join(f"<th>{escaped(name)}</th>" for name in outputs)
    rows = []
    for name in names:
        some = next(one for one in effects if one.label == name)
        cells = "".join(_cell(by_place[name, output]) for output in outputs)
        rows.append(
            f"<tr><th>{escaped(name)}</th>{cells}<td>{some.reached:.0%}</td><td>{some.kept:.0%}</td>"
            f"<td>{some.images:,}</td></tr>"
        )
    note = (
        "Bold: moves. Grey: slightly, not found, or not tested; the tip of a cell says which. Beside it the share of "
        "pictures on which the decision changes, edited and redrawn. Reached: edits on which the bundle's classifier "
        "sees the label as asked; kept: redraws on which it sees what it saw."
    )
    return (
        f'<h2>Effect of each label on each output</h2><p class="note">{note}</p>'
        f'<div class="scroll"><table class="matrix"><tr><th></th>{head}<th>reached</th><th>kept</th>'
        f"<th>images</th></tr>{''.join(rows)}</table></div>"
    )


def _cell(one: Effect) -> str:
    kind = "moves" if one.verdict == "moves" else "quiet"
    return (
        f'<td class="{kind}" title="{escaped(sentence(one))}">{number(one.effect, one.spread)} '
        f'<span class="note">{one.flips:.0%} / {one.redrawn_flips:.0%}</span></td>'
    )


def _intervals(effects: Sequence[Effect]) -> str:
    figures = []
    # the output that is moved most comes first
    outputs, labels = (list(dict.fromkeys(getattr(one, key) for one in ranked(effects))) for key in ("output", "label"))
    for output in outputs[:CURVES]:
        mine = sorted((one for one in effects if one.output == output), key=lambda one: -abs(one.effect))[:LABELS]
        figures.append(f"<figure><figcaption>{escaped(output)}</figcaption>{intervals(mine)}</figure>")
    cut = [
        f"{shown} of {len(all_of)} {what}"
        for what, shown, all_of in (("outputs", CURVES, outputs), ("labels", LABELS, labels))
        if len(all_of) > shown
    ]
    note = f'<p class="note">The largest alone: {", ".join(cut)}.</p>' if cut else ""
    return f'<h2>Effects with their joint intervals</h2>{note}<div class="row">{"".join(figures)}</div>'


def _curves(effects: Sequence[Effect]) -> str:
    shown = [one for one in ranked(effects) if len(one.doses) > 1][:CURVES]
    figures = (
        f"<figure><figcaption>{escaped(one.label)} on {escaped(one.output)}</figcaption>{curve(one)}</figure>"
        for one in shown
    )
    note = "0 is the redraw, 1 the other state; bars are the 95 % interval of that point alone."
    return (
        f'<h2>Effect by strength</h2><p class="note">{note}</p><div class="row">{"".join(figures)}</div>'
        if shown
        else ""
    )


def _strips(pictures: Sequence[Shown]) -> str:
    cards = []
    for one in pictures:
        cards.append(
            f'<figure class="strip"><img src="{data_uri(one.data)}" alt="control, redrawn, edited">'
            f"<figcaption><bdi>{escaped(one.source)}</bdi>: {escaped(one.edit)}, {escaped(one.output)} "
            f"{one.control:.3g} → <b>{one.edited:.3g}</b> (redrawn {one.redrawn:.3g}); decision changed on "
            f"{one.flips:.0%} of the samples</figcaption></figure>"
        )
    body = f'<div class="row">{"".join(cards)}</div>' if cards else '<p class="note">None.</p>'
    note = "Of the largest effects, the images with most changed decisions; the sample that moves furthest."
    if not any(one.flips for one in pictures):
        note = f"No decision changed. {note}"
    return f'<h2>Largest flips</h2><p class="note">{note}</p>{body}'


def csv_lines(
    records: Iterable[Mapping[str, Any]], outputs: Sequence[str], samples: int, classes: Mapping[str, Sequence[str]]
) -> Iterator[bytes]:
    """The long form: a header, then a line per image, intervention, strength and output.

    Args:
        classes: names of the values of each label.
    """
    yield csv_line(COLUMNS)
    for record in records:
        for edit, doses in record["edited"].items():
            # a class may hold a = too
            name, _, value = edit.partition("=")
            redrawn, own = record["redrawn"][name], classes[name][record["state"][name]]
            for strength, dose in doses.items():
                for i, output in enumerate(outputs):
                    was, now = redrawn["outputs"][i], dose["outputs"][i]
                    figures = [record["control"][i], was, now, now - was, dose["flips"][i], redrawn["flips"][i]]
                    shown = [f"{figure:.8g}" for figure in (*figures, dose["reached"])]
                    yield csv_line([record["source"], name, own, value, output, strength, str(samples), *shown])
