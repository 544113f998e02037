"""Data sets that users must get from their owners: what these ask, and whether a folder is whole. Reads below DIR."""

from pathlib import Path

from ccvae_deploy.errors import DataError
from ccvae_deploy.storage.remote import local_path

from .celeba import PAPER_LABELS, read_celeba
from .chexpert import FINDINGS, read_chexpert

CELEBA = """\
CelebA is for non-commercial research only, and may not be passed on: get it at
https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html ("Align&Cropped Images", attributes and partitions).
DIR holds img_align_celeba/ (img_align_celeba.zip, unpacked), list_attr_celeba.txt and list_eval_partition.txt."""

CHEXPERT = """\
CheXpert is for non-commercial research, under Stanford's research use agreement, and may not be passed on: sign it at
https://aimi.stanford.edu/datasets/chexpert-chest-x-rays and get CheXpert-v1.0-small, or the full release.
DIR is CheXpert-v1.0-small or the folder around it; in it lie train.csv, valid.csv, train/ and valid/.
Of the full release DIR is the folder around its four "CheXpert-v1.0 batch ..." folders, as they come."""


def check_celeba(folder: Path | str) -> str:
    """Check that `celeba:DIR` finds all it reads: both lists, and each image that trains or validates.

    Returns:
        what is there, as a line.

    Raises:
        DataError: what is missing.
    """
    folder = _folder(folder)
    root, _, parts = read_celeba(folder, PAPER_LABELS)
    return f"{root} is whole: {len(parts[0]):,} training and {len(parts[1]):,} validation images"


def check_chexpert(folder: Path | str) -> str:
    """Check that `chexpert:DIR` finds all it reads: the lists, the 14 findings, each frontal view.

    Returns:
        what is there, as a line.

    Raises:
        DataError: what is missing.
    """
    folder = _folder(folder)
    root, train, valid = read_chexpert(folder, FINDINGS)
    return f"{root} is whole: {len(train.files):,} training and {len(valid.files):,} validation images, frontal views"


def _folder(given: Path | str) -> Path:
    folder = local_path(given)
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; make it and put the files there")
    return folder
