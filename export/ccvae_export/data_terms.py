"""What may be said and shown of each kind of training data. Pure data.

Licences are those that the data sets state themselves; where none is known, the card says so and shows nothing real.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataTerms:
    """Terms of one kind of training data.

    Attributes:
        title: what it is called.
        dataset: its name in a card's `datasets` field, or None.
        licence: the card's front matter: `license` and, where that is `other`, name and link.
        statement: the terms in words.
        citation: BibTeX, or None.
        shows_images: whether pictures of the data may stand in the card.
    """

    title: str
    dataset: str | None
    licence: dict[str, str]
    statement: str
    citation: str | None = None
    shows_images: bool = False


PORTRAITS = DataTerms(
    title="made portraits",
    dataset="portraits",
    licence={"license": "apache-2.0"},
    statement=(
        "The training images are drawn by ccvae-deploy itself (Apache-2.0), show no person, and are free of any third "
        "party's rights."
    ),
    shows_images=True,
)

CELEBA = DataTerms(
    title="CelebA",
    dataset="celeba",
    licence={
        "license": "other",
        "license_name": "celeba-non-commercial-research",
        "license_link": "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    },
    statement=(
        "CelebA is available for non-commercial research purposes only. Its terms forbid to exploit for any "
        "commercial purpose any portion of the images and any portion of derived data, and to publish or distribute "
        "any portion of the data set. This model and what it generates are derived from it: use them for "
        "non-commercial research only, and pass no image of the data set on."
    ),
    citation="""@inproceedings{liu2015deep,
  title     = {Deep Learning Face Attributes in the Wild},
  author    = {Liu, Ziwei and Luo, Ping and Wang, Xiaogang and Tang, Xiaoou},
  booktitle = {International Conference on Computer Vision (ICCV)},
  year      = {2015}
}""",
)

UNKNOWN = DataTerms(
    title="images of the trainer's own",
    dataset=None,
    licence={
        "license": "other",
        "license_name": "terms-of-the-training-images",
        "license_link": "#licence-of-the-training-data",
    },
    statement=(
        "Whoever trained the model knows the terms of its images; they hold for the model and for what it generates. "
        "State them here before you pass the bundle on."
    ),
)


def data_terms(source: object) -> DataTerms:
    """The terms of a data source, such as `celeba:DIR`."""
    return {"portraits": PORTRAITS, "celeba": CELEBA}.get(str(source).partition(":")[0], UNKNOWN)
