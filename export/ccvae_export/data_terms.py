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

CHEXPERT = DataTerms(
    title="CheXpert",
    dataset="chexpert",
    licence={
        "license": "other",
        "license_name": "chexpert-non-commercial-research",
        "license_link": "https://aimi.stanford.edu/datasets/chexpert-chest-x-rays",
    },
    statement=(
        "CheXpert is available for non-commercial research purposes only, under Stanford University's Dataset Research "
        "Use Agreement. It forbids to distribute or publish any portion of the data set and to identify any person in "
        "it, and clinical use. This model and what it generates are derived from it: use them for non-commercial "
        "research only, and never to diagnose."
    ),
    citation="""@inproceedings{irvin2019chexpert,
  title     = {CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison},
  author    = {Irvin, Jeremy and Rajpurkar, Pranav and Ko, Michael and others},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year      = {2019}
}""",
)

MNIST = DataTerms(
    title="MNIST",
    dataset="mnist",
    licence={"license": "cc-by-sa-3.0"},
    statement=(
        "MNIST is copyright of Yann LeCun and Corinna Cortes, derived from NIST's data sets, and available under the "
        "Creative Commons Attribution-ShareAlike 3.0 licence."
    ),
    citation="""@article{lecun1998gradient,
  title   = {Gradient-based learning applied to document recognition},
  author  = {LeCun, Yann and Bottou, L{\\'e}on and Bengio, Yoshua and Haffner, Patrick},
  journal = {Proceedings of the IEEE},
  volume  = {86},
  number  = {11},
  year    = {1998}
}""",
)

FASHION_MNIST = DataTerms(
    title="Fashion-MNIST",
    dataset="fashion_mnist",
    licence={"license": "mit"},
    statement="Fashion-MNIST is copyright of Zalando SE and available under the MIT licence.",
    citation="""@article{xiao2017fashion,
  title   = {Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms},
  author  = {Xiao, Han and Rasul, Kashif and Vollgraf, Roland},
  journal = {arXiv:1708.07747},
  year    = {2017}
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
    known = {
        "portraits": PORTRAITS,
        "celeba": CELEBA,
        "chexpert": CHEXPERT,
        "mnist": MNIST,
        "fashion-mnist": FASHION_MNIST,
    }
    return known.get(str(source).partition(":")[0], UNKNOWN)
