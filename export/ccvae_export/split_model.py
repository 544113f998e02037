"""The trained model of a run as one that splits into graphs; refuses those that do not."""

from ccvae_deploy.errors import UsageError
from ccvae_train.checkpoint import TrainedRun
from ccvae_train.networks import SplitVAE


def split_model(run: TrainedRun) -> SplitVAE:
    """The model, whose latents are split by label.

    Raises:
        UsageError: the run is of a family that is trained and evaluated only.
    """
    if not isinstance(run.model, SplitVAE):
        raise UsageError(
            f"{run.path} is a run of {run.spec.family}, which has no latents of a label to edit by; evaluate it with "
            "`ccvae-deploy evaluate`, or export a ccvae, diva or vae-classifier"
        )
    return run.model
