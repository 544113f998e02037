"""What stands inside every exported artefact, so that one graph alone still says what it is."""

import json

from ccvae_deploy.schema import SCHEMA_VERSION, GraphName
from ccvae_train.checkpoint import TrainedRun

from .serialised import Precision


def graph_metadata(run: TrainedRun, graph: GraphName, precision: Precision) -> str:
    """The JSON kept in ONNX `metadata_props`, TorchScript `_extra_files` and the like, under the key `ccvae`."""
    return json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "graph": graph,
            "precision": precision,
            "model": run.spec.model_dump(mode="json"),
            "labels": run.labels.model_dump(mode="json"),
            "layout": run.layout.model_dump(mode="json"),
            "image": run.image.model_dump(mode="json"),
            "label_prior": run.label_prior,
            "data": run.provenance.get("data"),
            "versions": run.provenance.get("versions"),
        },
        sort_keys=True,
    )
