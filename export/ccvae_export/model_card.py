"""The README.md of a bundle and its picture: what the model is, knows and may be used for, how it was checked.

Writes two files into the bundle's folder. Nothing in them depends on when or where they were written.
"""

import io
import json
import shlex
from pathlib import Path

from ccvae_deploy.bundle import Bundle
from ccvae_deploy.schema import Manifest
from ccvae_deploy.terminal.printable import printable

from .card_sheet import edited_portraits, generated_pairs, within
from .data_terms import DataTerms, data_terms
from .front_matter import Value, front_matter
from .parity import BATCHES, ParityReport
from .quality import Quality

CARD, SHEET = "README.md", "sheet.png"

METRICS = {
    "accuracy": "accuracy of the classifier, mean over labels",
    "balanced_accuracy": "balanced accuracy, mean over labels",
    "floor": "accuracy of always saying the more frequent value",
    "l1": "mean absolute difference of image and reconstruction, in [0, 1]",
}
"""Validation figures that the card's front matter carries, and what they are."""

FAMILIES = {
    "ccvae": ("CCVAE", "a Characteristic Capturing VAE (Joy et al., ICLR 2021)"),
    "diva": ("DIVA", "a DIVA (Ilse et al., MIDL 2020), modified as by Joy et al., ICLR 2021, C.4, to edit by label"),
    "vae-classifier": (
        "VAE with a classifier",
        "a VAE with a classifier of its latents (Joy et al., ICLR 2021, eq. 2)",
    ),
}
"""Per family the title of a card and what the model is."""

CITATION = """@inproceedings{joy2021capturing,
  title     = {Capturing Label Characteristics in {VAE}s},
  author    = {Joy, Tom and Schmon, Sebastian M. and Torr, Philip H. S. and Siddharth, N. and Rainforth, Tom},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2021}
}"""


def write_card(folder: Path, manifest: Manifest, parity: ParityReport, quality: Quality, bundle: Bundle) -> None:
    """Write the card and its picture, drawn with the opened bundle, beside the graphs."""
    terms = data_terms(manifest.provenance.get("data"))
    sheet = edited_portraits(bundle) if terms.shows_images else generated_pairs(bundle)
    if sheet is not None:
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG", optimize=True)
        (folder / SHEET).write_bytes(buffer.getvalue())
    (folder / CARD).write_text(model_card(manifest, parity, quality, pictured=sheet is not None), "utf-8")


def model_card(manifest: Manifest, parity: ParityReport, quality: Quality, *, pictured: bool) -> str:
    """The card as Markdown; `pictured` tells whether `sheet.png` stands beside it."""
    terms = data_terms(manifest.provenance.get("data"))
    sections = {
        "How to use it": _use(manifest),
        "Intended use": (
            "Controlled edits of labelled attributes in images like those of the training data: studying a labelled "
            "image set, augmenting it, probing another model with counterfactual pairs, generating by label."
        ),
        "Out of scope": (
            "Deciding anything about anyone: labels are the annotators' judgement, not facts about people, and the "
            "classifier repeats it. Editing a person's picture to deceive, or without their consent. Images of another "
            "framing or kind than the training data. Medical or forensic conclusions."
        ),
        "Training data": _training(manifest, terms),
        "Licence of the training data": terms.statement,
        "Labels": _labels(manifest),
        "Graphs": _graphs(manifest),
        "Parity with the trained model": _parity(parity),
        "Quality of its edits": _quality(quality),
        "Limits": _limits(manifest),
        "Citation": "\n\n".join(
            f"```bibtex\n{entry}\n```" for entry in (CITATION, terms.citation) if entry is not None
        ),
    }
    title, kind = FAMILIES[manifest.model.family]
    head = [_front_matter(manifest, terms), f"# {title} on {terms.title}: {len(manifest.labels.labels)} labels\n"]
    if pictured:
        head.append(_picture(terms))
    head.append(
        f"{_counted(manifest)} of {kind}: {_named(manifest)}. They edit labelled attributes of images and leave "
        "the rest in place. `ccvae-deploy inspect` prints all that is known of them.\n"
    )
    return "\n".join([*head, *(f"## {title}\n\n{text}\n" for title, text in sections.items())])


def _front_matter(manifest: Manifest, terms: DataTerms) -> str:
    content: dict[str, Value] = {
        **terms.licence,
        "library_name": "ccvae-deploy",
        "pipeline_tag": "image-to-image",
        "tags": [manifest.model.family, "vae", "image-editing", "counterfactual", manifest.format],
    }
    if terms.dataset:
        content["datasets"] = [terms.dataset]
    figures = {
        name: value
        for name, value in within(manifest.provenance, "validation").items()
        if isinstance(value, int | float)
    }
    metrics: list[Value] = [
        {"type": name, "name": title, "value": round(figures[name], 6)}
        for name, title in METRICS.items()
        if name in figures
    ]
    if metrics:
        result: dict[str, Value] = {
            "task": {"type": "image-classification", "name": "labels at the posterior mean, and reconstruction"},
            "dataset": {"type": terms.dataset or "unknown", "name": terms.title, "split": _split(manifest)},
            "metrics": metrics,
        }
        content["metrics"] = [name for name in METRICS if name in figures]
        content["model-index"] = [{"name": f"{manifest.model.family}-{terms.dataset or 'model'}", "results": [result]}]
    return front_matter(content)


def _split(manifest: Manifest) -> str:
    """Which images the validation figures are of: of digits and garments the test images, as in the paper."""
    kind = str(manifest.provenance.get("data", "")).partition(":")[0]
    return "test" if kind in ("mnist", "fashion-mnist") else "validation"


def _counted(manifest: Manifest) -> str:
    return f"{'Four' if len(manifest.files) == 4 else 'Three'} graphs ({manifest.format})"


def _named(manifest: Manifest) -> str:
    *names, last = (name.replace("_", " ") for name in manifest.model.graphs)
    return f"{', '.join(names)} and {last}"


def _picture(terms: DataTerms) -> str:
    if terms.shows_images:
        return (
            f"![made portraits and their edits]({SHEET})\n\nLeft: portraits drawn anew, none of them trained on. Then "
            "each with one label moved to the mean of its other value, the change added to the original.\n"
        )
    text = (
        f"![images that the model generated]({SHEET})\n\nNo image of the training data is shown. These are generated "
        "by the model itself: residual latents from N(0, 1), labels from their prior; side by side one image with a "
        "label at its two values, all else equal."
    )
    if terms.licence.get("license_name", "").endswith("-non-commercial-research"):
        text += f" They are for non-commercial research only, as is all that is derived from {terms.title}."
    return text + "\n"


def _use(manifest: Manifest) -> str:
    if manifest.format == "pt2":
        return "    graph = torch.export.load('decoder.pt2').module()\n\n`ccvae-deploy edit` runs ONNX bundles."
    first = manifest.labels.labels[0]
    # of code, which a reader copies: quoted as the shell and Python read it
    label, value = printable(first.name), printable(first.classes[1])
    asked = json.dumps({label: int(value) if value in ("0", "1") else value}, ensure_ascii=False)
    trust = ("allow_torchscript=True", "--allow-torchscript") if manifest.format == "torchscript" else ("", "")
    edit = f"    ccvae-deploy edit imgs/ --bundle THIS_FOLDER --set {shlex.quote(f'{label}={value}')}"
    command = f"{edit} --samples 8 {trust[1]}"
    python = (
        "from ccvae_deploy import Editor",
        f'editor = Editor.open("THIS_FOLDER"{", " * bool(trust[0])}{trust[0]})',
        f'edit = editor.edit("face.jpg", set={asked}, samples=8)',
        'edit.images[0].save("face-edited.png")',
        "print(edit.receipts[0].reached, edit.receipts[0].after)",
    )
    return "\n".join([command.rstrip(), "", "or", "", *(f"    {line}" for line in python)])


def _training(manifest: Manifest, terms: DataTerms) -> str:
    provenance = manifest.provenance
    lines = [f"- data: {terms.title}, fingerprint `{_plain(str(provenance.get('fingerprint'))[:16])}`"]
    for name in ("training_images", "labelled_images", "validation_images", "epochs_done", "estimator", "device"):
        if name in provenance:
            lines.append(f"- {name.replace('_', ' ')}: {_plain(str(provenance[name]))}")
    for name, value in within(manifest.provenance, "validation").items():
        if isinstance(value, float):
            lines.append(f"- validation {_plain(name.replace('_', ' '))}: {value:.4f}")
    return "\n".join(lines)


def _labels(manifest: Manifest) -> str:
    by_label = within(within(manifest.provenance, "validation"), "by_label")
    rows = ["| label | frequency | accuracy | floor | balanced accuracy | latents |", "|---|---|---|---|---|---|"]
    for label, columns, block in zip(
        manifest.labels.labels, manifest.labels.columns, manifest.layout.slices, strict=True
    ):
        told = [within(by_label, label.name).get(k) for k in ("accuracy", "floor", "balanced_accuracy")]
        shown = (f"{figure:.3f}" if isinstance(figure, float) else "" for figure in told)
        frequency = ", ".join(f"{p:.3f}" for p in manifest.label_prior[columns])
        if label.kind == "categorical":
            frequency = ", ".join(f"{_plain(c)} {p}" for c, p in zip(label.classes, frequency.split(", "), strict=True))
        latents = f"{block.start}" if block.stop - block.start == 1 else f"{block.start}..{block.stop - 1}"
        rows.append(f"| {_plain(label.name)} | {frequency} | {' | '.join(shown)} | {latents} |")
    rest = f"Latents {manifest.layout.z_c}..{manifest.layout.size - 1} are residual: they belong to no label."
    return "\n".join([*rows, "", rest]) if manifest.layout.residual else "\n".join(rows)


def _graphs(manifest: Manifest) -> str:
    rows = ["| file | precision | opset | KiB | sha256 |", "|---|---|---|---|---|"]
    for entry in manifest.files.values():
        size = f"{entry.bytes / 1024:,.0f}"
        rows.append(f"| {entry.file} | {entry.precision} | {entry.opset or ''} | {size} | `{entry.sha256[:16]}` |")
    return "\n".join([*rows, "", "Inputs and outputs are float32 whatever the precision inside; any batch size."])


def _parity(parity: ParityReport) -> str:
    rows = ["| graph | compared | max difference | allowed | unit |", "|---|---|---|---|---|"]
    for row in parity.worst():
        allowed = "judged below" if row.tolerance is None else f"{row.tolerance:.2g}"
        rows.append(f"| {row.graph} | {row.reference}, {row.backend} | {row.max_abs:.2g} | {allowed} | {row.unit} |")
    batches = ", ".join(map(str, BATCHES))
    return "\n".join([f"Eager torch is float32. The worst of the batches {batches} of each. All held.", "", *rows])


def _quality(quality: Quality) -> str:
    return (
        f"{quality.images} images edited by these graphs and by the trained model: pixels differ by "
        f"{quality.mean:.3f} levels of 255 on average, {quality.p999:.0f} at the 99.9th percentile and "
        f"{quality.worst:.0f} at most, {quality.equal:.3%} of them not at all; "
        f"{quality.disagreement:.2%} of label decisions and {quality.flips:.2%} of receipts' `reached` differ, and the "
        f"encoder's scales by {quality.spread:.2%} at the 99th percentile."
    )


def _limits(manifest: Manifest) -> str:
    size = manifest.image.size
    return (
        f"The model knows images like those it was trained on: aligned, of the same framing, at {size}x{size}. What it "
        "adds to a larger picture is as soft as that. An edit moves what the labels meant in the training data, their "
        "correlations included; receipts tell whether the label was reached and which others drifted."
    )


def _plain(text: str) -> str:
    """A name inside Markdown: no control characters, nothing that ends a table cell or opens a tag."""
    return printable(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
