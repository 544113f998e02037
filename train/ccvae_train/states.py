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
class LabelBlock:
    """One label: its position, its kind, and which columns, states and latents are its own."""

    label: int
    binary: bool
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
        blocks = _blocks(labels, layout)
        counts = torch.tensor([len(label.classes) for label in labels.labels])
        label = torch.arange(len(labels)).repeat_interleave(counts)
        from_columns, offset = _columns_to_states(blocks, labels.width)
        latents = _latents_of_labels(blocks, layout.z_c)
        pair_state, pair_latent = _pairs(blocks)
        self.classes = tuple(block for block in blocks if not block.binary)
        self.binary = _binaries([block for block in blocks if block.binary], latents)
        tables = {
            "from_columns": from_columns,
            "offset": offset,
            "first": torch.tensor([block.states.start for block in blocks]),
            "label": label,
            "padded": _padded(blocks),
            "membership": torch.eye(len(labels))[label],
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


def _blocks(labels: LabelSet, layout: LatentLayout) -> list[LabelBlock]:
    found, state = [], 0
    for index, (label, columns, latents) in enumerate(zip(labels.labels, labels.columns, layout.slices, strict=True)):
        states = slice(state, state + len(label.classes))
        found.append(LabelBlock(index, label.kind == "binary", columns, states, latents))
        state = states.stop
    return found


def _columns_to_states(blocks: list[LabelBlock], width: int) -> tuple[Tensor, Tensor]:
    """The affine map from y: its one column p gives a binary label the states 1 - p and p; classes are columns."""
    count = blocks[-1].states.stop
    from_columns, offset = torch.zeros(width, count), torch.zeros(count)
    for block in blocks:
        if block.binary:
            from_columns[block.columns, block.states] = torch.tensor([-1.0, 1.0])
            offset[block.states.start] = 1
        else:
            from_columns[block.columns, block.states] = torch.eye(block.states.stop - block.states.start)
    return from_columns, offset


def _latents_of_labels(blocks: list[LabelBlock], count: int) -> Tensor:
    latents = torch.zeros(count, len(blocks))
    for block in blocks:
        latents[block.latents, block.label] = 1
    return latents


def _padded(blocks: list[LabelBlock]) -> Tensor:
    count, most = blocks[-1].states.stop, max(block.states.stop - block.states.start for block in blocks)
    states = [torch.arange(block.states.start, block.states.stop) for block in blocks]
    return torch.stack([pad(one, (0, most - len(one)), value=count) for one in states])


def _pairs(blocks: list[LabelBlock]) -> Tensor:
    """Every state beside every latent of its label, (2, P)."""
    pairs = [
        (state, latent)
        for block in blocks
        for state in range(block.states.start, block.states.stop)
        for latent in range(block.latents.start, block.latents.stop)
    ]
    return torch.tensor(pairs).T.contiguous()


def _binaries(blocks: list[LabelBlock], latents: Tensor) -> Binaries | None:
    if not blocks:
        return None
    label = torch.tensor([block.label for block in blocks])
    own = latents[:, label].any(1).nonzero().squeeze(1)
    return Binaries(
        label=label,
        true=torch.tensor([block.states.start + 1 for block in blocks]),
        column=torch.tensor([block.columns.start for block in blocks]),
        latent=own,
        membership=latents[own][:, label],
    )
