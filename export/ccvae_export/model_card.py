"""The README.md of a bundle: what the model is, what it knows, how it was checked, where its limits are."""

from ccvae_deploy.schema import Manifest

from .parity import ParityReport

LICENCES = {
    "portraits": "The training images are drawn by ccvae-deploy itself and free of any third party's rights.",
    "celeba": (
        "Trained on CelebA, which is for non-commercial research only; the same holds for what is derived from it. "
        "Cite Liu, Luo, Wang and Tang, Deep Learning Face Attributes in the Wild, ICCV 2015."
    ),
}


def model_card(manifest: Manifest, parity: ParityReport) -> str:
    """The card as Markdown."""
    provenance = manifest.provenance
    kind = str(provenance.get("data", "")).partition(":")[0]
    parts = (
        "---\ntags:\n- ccvae\n- vae\n- image-editing\n- counterfactual\n---\n",
        f"# CCVAE bundle ({manifest.format}), {len(manifest.labels)} labels\n",
        "Four graphs of a Characteristic Capturing VAE (Joy et al., ICLR 2021): encoder, decoder, classifier and "
        "conditional prior. They edit labelled attributes of images and leave the rest in place.\n",
        "## Use\n\n    ccvae-deploy edit imgs/ --bundle THIS_FOLDER --set LABEL=VALUE --samples 8\n",
        "## Training\n\n" + _training(manifest),
        "## Labels\n\n" + _labels(manifest),
        "## Graphs\n\n" + _graphs(manifest),
        "## Parity with the trained model\n\n" + _parity(parity),
        "## Limits\n\nThe model knows images like those it was trained on: aligned, of the same framing, at "
        f"{manifest.image.size}x{manifest.image.size}. An edit moves what the labels meant in the training data, their "
        "correlations included. Labels are the annotators' judgement, not facts about people; do not use the "
        "classifier to decide anything about anyone.\n",
        "## Licence of the training data\n\n"
        + LICENCES.get(kind, "Whoever trained the model knows the terms of its images; they hold for the model too.")
        + "\n",
    )
    return "\n".join(parts)


def _training(manifest: Manifest) -> str:
    provenance = manifest.provenance
    validation = provenance.get("validation", {})
    lines = [f"- data: `{provenance.get('data')}`, fingerprint `{str(provenance.get('fingerprint'))[:16]}`"]
    for name in ("training_images", "labelled_images", "validation_images", "epochs_done", "estimator", "device"):
        if name in provenance:
            lines.append(f"- {name.replace('_', ' ')}: {provenance[name]}")
    for name, value in validation.items():
        if isinstance(value, float):
            lines.append(f"- validation {name.replace('_', ' ')}: {value:.4f}")
    return "\n".join(lines) + "\n"


def _labels(manifest: Manifest) -> str:
    by_label = manifest.provenance.get("validation", {}).get("by_label", {})
    rows = ["| label | frequency | accuracy | floor | balanced accuracy | latents |", "|---|---|---|---|---|---|"]
    for label, columns, block in zip(
        manifest.labels.labels, manifest.labels.columns, manifest.layout.slices, strict=True
    ):
        figures = by_label.get(label.name, {})
        shown = (f"{figures[k]:.3f}" if k in figures else "" for k in ("accuracy", "floor", "balanced_accuracy"))
        frequency = ", ".join(f"{p:.3f}" for p in manifest.label_prior[columns])
        rows.append(f"| {label.name} | {frequency} | {' | '.join(shown)} | {block.start}..{block.stop - 1} |")
    return "\n".join(rows) + "\n"


def _graphs(manifest: Manifest) -> str:
    rows = ["| file | precision | KiB | sha256 |", "|---|---|---|---|"]
    for entry in manifest.files.values():
        rows.append(f"| {entry.file} | {entry.precision} | {entry.bytes / 1024:,.0f} | `{entry.sha256[:16]}` |")
    return "\n".join(rows) + "\n"


def _parity(parity: ParityReport) -> str:
    rows = ["| graph | batch | max difference | allowed | unit |", "|---|---|---|---|---|"]
    for row in parity.rows:
        rows.append(f"| {row.graph} | {row.batch} | {row.max_abs:.2g} | {row.tolerance:.2g} | {row.unit} |")
    return "\n".join(rows) + "\n"
