"""`runs/latest`: where the last run lies. Reads at most one short text file."""

from pathlib import Path

RUNS = Path("runs")
LATEST = RUNS / "latest"
ONNX_BUNDLE = "bundle-onnx"


def follow(run: Path) -> Path:
    """The folder that a run's name means: itself, what a symlink names, or, where the system refuses links, what a
    text file called `latest` holds.
    """
    if run.is_symlink():
        return run.parent / run.readlink()
    if run.name == LATEST.name and run.is_file() and run.stat().st_size < 4096:
        return run.parent / run.read_text("utf-8", "replace").strip()
    return run


def followed_bundle(bundle: Path) -> Path:
    """The folder that a bundle's name means, such as `runs/latest/bundle-onnx`, where links are refused too."""
    return bundle if bundle.is_dir() else follow(bundle.parent) / bundle.name


def is_latest(run: Path) -> bool:
    """Whether a run is the one that commands take unless another is given."""
    return follow(LATEST).resolve() == run.resolve()


def latest_bundle() -> Path:
    """The bundle that commands take unless another is given."""
    return follow(LATEST) / ONNX_BUNDLE
