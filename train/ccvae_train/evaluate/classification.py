"""The model's own classifier on real images (Table 1, Table 6), over the whole validation partition."""

import numpy as np

from .accuracy import measure_accuracy
from .bench import Bench, network_input
from .finding import Finding, by_label

NAME = "accuracy"
CHUNK = 1000


def run(bench: Bench) -> Finding:
    """Every validation image, at the posterior mean."""
    valid = bench.data.valid
    logits = np.concatenate(
        [
            bench.subject.predict(network_input(valid.images[start : start + CHUNK]))
            for start in range(0, len(valid), CHUNK)
        ]
    )
    found = measure_accuracy(logits, np.asarray(valid.labels), bench.majority, bench.labels)
    columns = {
        "accuracy": found.accuracy,
        "floor": found.floor,
        "balanced": found.balanced,
        "AUROC": found.auroc,
        "ECE": found.ece,
        "images": found.count,
    }
    means = found.means()
    return Finding(
        figures={
            "accuracy": means["accuracy"],
            "floor": means["floor"],
            "balanced accuracy": means["balanced"],
            "AUROC": means["auroc"],
            "calibration error": means["ece"],
        },
        tables=(by_label(NAME, bench.labels.names, columns, shares=True),),
        images=len(valid),
        note="The whole validation partition; the floor always says each label's more frequent training value.",
    )
