"""The protocols by name, in the order of a report. Nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ccvae_deploy.errors import UsageError, nearest

from . import (
    classification,
    diagnostics,
    frechet,
    generation,
    gradients,
    ground_truth,
    inception,
    information,
    interventions,
    leakage,
    panels,
    swap,
    traversals,
    variance_maps,
)
from .bench import Bench
from .finding import Finding
from .results import JUDGE_FIGURE


@dataclass(frozen=True)
class Protocol:
    """One protocol.

    Attributes:
        source: where the paper has it.
        main: figures that the summary shows.
        judged: whether it needs the judge.
    """

    name: str
    title: str
    source: str
    run: Callable[[Bench], Finding]
    main: tuple[str, ...] = ()
    judged: bool = False


PROTOCOLS = (
    Protocol(
        classification.NAME,
        "Classification",
        "Tables 1 and 6",
        classification.run,
        (
            "accuracy",
            "floor",
            "balanced accuracy",
            "AUROC",
            "average precision",
            "calibration error",
            "calibration error, q(y|x)",
        ),
    ),
    Protocol(
        swap.NAME,
        "Characteristic swap",
        "Table 2",
        swap.run,
        ("swap distance", "not swapped", "third image", "swap, relative"),
        judged=True,
    ),
    Protocol(
        generation.NAME,
        "Conditional generation",
        "Tables 5 and 7",
        generation.run,
        (
            "generation, uniform labels",
            "generation, real labels",
            "generation, real labels, floor",
            "generation, reconstructions",
        ),
        judged=True,
    ),
    Protocol(
        frechet.NAME,
        "Frechet distance in judge features",
        "as Table 4",
        frechet.run,
        (
            "Frechet, judge features",
            "Frechet, judge features, few images",
            "Frechet, reconstructions",
            "Frechet, real against real",
        ),
        judged=True,
    ),
    Protocol(inception.NAME, "FID", "Table 4", inception.run, ("FID", "FID, few images")),
    Protocol(
        interventions.NAME,
        "Single interventions",
        "D.1",
        interventions.run,
        ("diagonal dominance", "condition number", "reached", "reached, unedited"),
        judged=True,
    ),
    Protocol(
        ground_truth.NAME,
        "Interventions against the truth",
        "portraits",
        ground_truth.run,
        ("factor as asked", "factor as asked, unedited", "change inside the mask", "others unchanged"),
        judged=True,
    ),
    Protocol(
        variance_maps.NAME,
        "Variance maps",
        "Fig. 5",
        variance_maps.run,
        ("variance inside the true mask", "variance within 2 pixels of it"),
    ),
    Protocol("swaps", "Swap grid", "Fig. 6 and 7", panels.run_swaps),
    Protocol("panel", "Intervention panel", "D.1", panels.run_panel),
    Protocol("diversity", "Diversity", "Fig. 4, 22 and 23", panels.run_diversity),
    Protocol("classes", "Class interventions", "Fig. 24", panels.run_classes),
    Protocol(traversals.NAME, "Traversals", "Fig. 3, 18, 19 and 21", traversals.run),
    Protocol(
        gradients.NAME,
        "Gradients with and without the stop-gradient",
        "Fig. 8",
        gradients.run,
        ("encoder gradient SD, stopped", "encoder gradient SD, not stopped"),
    ),
    Protocol(
        leakage.NAME,
        "Leakage of labels into z_s",
        "probe",
        leakage.run,
        ("labels from z_s", "labels from their own z_i"),
    ),
    Protocol(
        diagnostics.NAME,
        "Diagnostics",
        "no judge",
        diagnostics.run,
        ("self-consistency", "E[w]", "ESS of w", "hidden label weight"),
    ),
    Protocol(
        information.NAME,
        "Mutual information",
        "Table 7",
        information.run,
        ("mutual information", "mutual information, real images"),
        judged=True,
    ),
)

MAIN = (
    *((figure, protocol.source) for protocol in PROTOCOLS for figure in protocol.main),
    (JUDGE_FIGURE, "the judge"),
)
"""Figures that the summary shows, and where the paper has each."""


def chosen(names: Sequence[str]) -> tuple[Protocol, ...]:
    """The protocols of these names, in the order of a report; all where none is named.

    Raises:
        UsageError: an unknown name.
    """
    known = [protocol.name for protocol in PROTOCOLS]
    for name in names:
        if name not in known:
            raise UsageError(f"--protocols {name}: {nearest(name, known)}")
    return tuple(protocol for protocol in PROTOCOLS if not names or protocol.name in names)
