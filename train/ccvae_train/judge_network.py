"""The judge's network: a modest convolutional classifier with a feature layer, and its loss. Nothing else."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from ccvae_deploy.schema import ImageSpec, LabelSet

from .datasets.dataset import MISSING

FEATURES = 128


class JudgeNetwork(nn.Module):
    """Strided 3x3 convolutions with batch normalisation down to 4x4, 128 features, one linear head."""

    def __init__(self, image: ImageSpec, labels: LabelSet) -> None:
        super().__init__()
        depth = image.size.bit_length() - 3
        widths = [image.channels, *[min(32 << stage, FEATURES) for stage in range(depth)]]
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * 16, FEATURES), nn.ReLU())
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(FEATURES, labels.width)

    def features(self, image: Tensor) -> Tensor:
        """Image (N, C, S, S) in [0, 1] to features (N, 128), none below 0."""
        found: Tensor = self.body(2 * image - 1).float()
        return found

    def forward(self, image: Tensor) -> Tensor:
        """Image (N, C, S, S) in [0, 1] to logits (N, Y)."""
        logits: Tensor = self.head(self.drop(self.features(image)))
        return logits


def label_loss(logits: Tensor, values: Tensor, labels: LabelSet) -> Tensor:
    """-log p(y|x) in nats per shown label: the mean over what a batch shows.

    Args:
        logits: (N, Y).
        values: (N, L) int64, -1 where missing.
    """
    total = logits.new_zeros(())
    for i, (label, columns) in enumerate(zip(labels.labels, labels.columns, strict=True)):
        block, value = logits[:, columns], values[:, i]
        shown = value != MISSING
        if label.kind == "binary":
            losses = binary_cross_entropy_with_logits(block[:, 0], value.clamp_min(0).float(), reduction="none")
            total = total + (losses * shown).sum()
        else:
            total = total + cross_entropy(block, value, ignore_index=MISSING, reduction="sum")
    return total / (values != MISSING).sum().clamp_min(1)
