"""Where every label's values and latents lie: columns of y, states, and pairs of state and latent. Index tables only.

A state is a value that a label can take: false and true of a binary label, each class of a categorical one. S counts
the states of all labels, label by label; so one set of tensor operations serves labels of every kind at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ccvae_deploy.schema import LabelSet, LatentLayout


@dataclass(frozen=True)
class ClassBlock:
    """One categorical label: its position, and which columns, states and latents are its own."""

    label: int
    columns: slice
    states: slice
    latents: slice


class Binaries(nn.Module):
    """All binary labels at once.

    Attributes:
        label, true, column: (B,), their positions, their states `true`, and their columns of y.
        latent: (Zb,), the latents of all of them.
        membership: (Zb, B), 1 where a latent belongs to a label.
    """

    label: Tensor
    true: Tensor
    column: Tensor
    latent: Tensor
    membership: Tensor

    def __init__(self, **tables: Tensor) -> None:
        super().__init__()
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)


class States(nn.Module):
    """The tables of one label set over one latent layout.

    Attributes:
        binary: the binary labels; None without one.
        classes: the categorical labels.
        from_columns, offset: (Y, S) and (S,), the affine map from the columns of y to the states.
        first: (L,), the first state of every label.
        label: (S,), the label of every state.
        padded: (L, K), the states of every label, filled up with S where it has fewer than K.
        membership: (S, L), 1 where a state belongs to a label.
        latents: (Zc, L), 1 where a latent belongs to a label.
        pair_state, pair_latent: (P,), every state beside every latent of its label.
    """

    from_columns: Tensor
    offset: Tensor
    first: Tensor
    label: Tensor
    padded: Tensor
    membership: Tensor
    latents: Tensor
    pair_state: Tensor
    pair_latent: Tensor

    def __init__(self, labels: LabelSet, layout: LatentLayout) -> None:
        super().__init__()
        counts = [len(label.classes) for label in labels.labels]
        first = torch.tensor([0, *counts]).cumsum(0)
        total, most = int(first[-1]), max(counts)
        from_columns, offset = torch.zeros(labels.width, total), torch.zeros(total)
        latents, padded = torch.zeros(layout.z_c, len(labels)), torch.full((len(labels), most), total)
        pairs: list[tuple[int, int]] = []
        for index, (label, columns, block) in enumerate(zip(labels.labels, labels.columns, layout.slices, strict=True)):
            states = range(int(first[index]), int(first[index + 1]))
            if label.kind == "binary":
                from_columns[columns.start, list(states)] = torch.tensor([-1.0, 1.0])
                offset[states.start] = 1
            else:
                from_columns[columns, states.start : states.stop] = torch.eye(len(states))
            latents[block, index] = 1
            padded[index, : len(states)] = torch.tensor(states)
            pairs += [(state, latent) for state in states for latent in range(block.start, block.stop)]
        kinds = [label.kind for label in labels.labels]
        self.classes = tuple(
            ClassBlock(i, columns, slice(int(first[i]), int(first[i + 1])), block)
            for i, (columns, block) in enumerate(zip(labels.columns, layout.slices, strict=True))
            if kinds[i] == "categorical"
        )
        binary = torch.tensor([i for i, kind in enumerate(kinds) if kind == "binary"])
        self.binary: Binaries | None = None
        if len(binary):
            own = latents[:, binary].any(1).nonzero().squeeze(1)
            self.binary = Binaries(
                label=binary,
                true=first[binary] + 1,
                column=torch.tensor([labels.columns[i].start for i in binary.tolist()]),
                latent=own,
                membership=latents[own][:, binary],
            )
        label_of = torch.arange(len(labels)).repeat_interleave(torch.tensor(counts))
        pair_state, pair_latent = torch.tensor(pairs).T.contiguous()
        tables = {
            "from_columns": from_columns,
            "offset": offset,
            "first": first[:-1],
            "label": label_of,
            "padded": padded,
            "membership": torch.eye(len(labels))[label_of],
            "latents": latents,
            "pair_state": pair_state,
            "pair_latent": pair_latent,
        }
        for name, table in tables.items():
            self.register_buffer(name, table, persistent=False)

    def of_columns(self, y: Tensor) -> Tensor:
        """y or p(y) in columns (…, Y) as weights of the states (…, S), which sum to 1 per label."""
        return y @ self.from_columns + self.offset

    def of_values(self, values: Tensor) -> Tensor:
        """Values (N, L), 0 or 1 or a class index, as one-hot states (N, S); the first where missing (below 0)."""
        one_hot = torch.zeros(len(values), len(self.label), device=values.device)
        return one_hot.scatter_(1, self.first + values.clamp_min(0).long(), 1.0)

    def logsumexp(self, value: Tensor) -> Tensor:
        """log of the sum of exp(value) over the states of each label, (…, S) to (…, L)."""
        return pad(value, (0, 1), value=-torch.inf)[..., self.padded].logsumexp(-1)

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Logits in columns (…, Y) as log q(state), (…, S)."""
        scores = logits @ self.from_columns.clamp_min(0)
        return scores - self.logsumexp(scores)[..., self.label]

    def largest(self, score: Tensor) -> Tensor:
        """The value of each label whose state has the largest score, (…, S) to (…, L)."""
        return pad(score, (0, 1), value=-torch.inf)[..., self.padded].argmax(-1)

    def likeliest(self, logits: Tensor) -> Tensor:
        """Logits in columns (…, Y) as the value of each label that they favour, (…, L)."""
        return self.largest(logits @ self.from_columns.clamp_min(0))

    def table(self, of_pairs: Tensor) -> Tensor:
        """One number per pair (P,) as a matrix (S, Zc), 0 where state and latent have different labels."""
        empty = torch.zeros(len(self.label), len(self.latents), dtype=of_pairs.dtype, device=of_pairs.device)
        return empty.index_put((self.pair_state, self.pair_latent), of_pairs)
