"""Agreement of edited images against its formula, and who learns from it."""

import pytest
import torch
from torch import nn

from ccvae_train.config import TrainConfig
from ccvae_train.datasets.source import settled
from ccvae_train.networks import CCVAE
from ccvae_train.objective import Posterior, agreement
from ccvae_train.objective.agreement import EVERY, KEPT, MOVE, STEPS, _edits

from .baselines.toy import MIXED, SINGLE, batch, make

CONFIG = settled(TrainConfig(agreement_weight=3.0, image_size=32, channels=1))
COUNT = 4000
WIDTH = 5


class Shown(nn.Module):
    """A decoder whose image is its code, and nothing else."""

    def __init__(self, kept: int = 0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.kept = kept

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        shown = torch.cat([torch.zeros_like(code[:, : self.kept]), code[:, self.kept :]], dim=1)
        return (self.gain * shown)[:, None, None, :]


class Looked(nn.Module):
    """The encoder that reads such an image back."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return image[:, 0, 0, :], torch.ones_like(image[:, 0, 0, :])


def sure_model(kept: int = 0) -> CCVAE:
    """Priors far apart, a classifier that is sure, and a decoder that shows its code from latent `kept` on."""
    model = make(CCVAE, MIXED)
    model.encoder, model.decoder = Looked(), Shown(kept)
    with torch.no_grad():
        model.conditional_prior.loc.copy_(torch.tensor([-40.0, 40.0, 80.0, 0.0, 0.0, 80.0, 80.0, 80.0]))
        model.classifier.weight.fill_(0)
        model.classifier.bias.zero_()
        matrix = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0.5], [0, 0, 1, 0.5]])
        model.classifier.weight.copy_(matrix[model.classifier.latent, model.classifier.column])
        model.classifier.bias[3] = 20.0
    return model


def found_at(model: CCVAE, values, loc: torch.Tensor, done: float = 0.5, step: int = 0) -> torch.Tensor:
    given = batch(model, values, config=CONFIG, done=done, step=step, image=torch.zeros(len(values), 1, 32, 32))
    return agreement(model, Posterior(loc, torch.ones_like(loc)), given)


def typical(model: CCVAE, values: torch.Tensor) -> torch.Tensor:
    return torch.cat([model.typical(values), torch.zeros(len(values), 2)], dim=1).detach()


def values_of(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.stack([torch.randint(0, k, (count,), generator=generator) for k in (2, 3)], dim=1)


def test_a_decoder_that_shows_its_code_pays_for_what_moves_only() -> None:
    model, values = sure_model(), values_of(COUNT)
    loc = typical(model, values)
    found = found_at(model, values, loc)
    chosen = found[::EVERY]
    with torch.no_grad():
        given = batch(model, values, config=CONFIG, image=torch.zeros(COUNT, 1, 32, 32))
        code, _ = _edits(model, loc, torch.arange(0, COUNT, EVERY), given)
    moved = (code - loc[::EVERY]).abs().sum(1)
    assert chosen.tolist() == pytest.approx((-STEPS * EVERY * 3 * MOVE * moved).tolist(), rel=1e-4, abs=1e-3)
    assert (moved == 0).any()
    assert (moved > 60).any()
    assert found.reshape(-1, EVERY)[:, 1:].abs().max() == 0


def test_a_decoder_that_shows_nothing_pays_a_divergence_per_label() -> None:
    """What is read does not depend on the edit: log 2, or what the classifier says of the classes at 0."""
    model, values = sure_model(kept=WIDTH), values_of(COUNT)
    found = found_at(model, values, typical(model, values))[::EVERY] / (STEPS * EVERY * 3)
    read = torch.tensor([0.0, 0.0, 20.0]).log_softmax(0)
    with torch.no_grad():
        given = batch(model, values, config=CONFIG, image=torch.zeros(COUNT, 1, 32, 32))
        _, target = _edits(model, typical(model, values), torch.arange(0, COUNT, EVERY), given)
    expected = -torch.tensor(2.0).log() + (target[:, 2:] * read).sum(1)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_drawn_labels_take_mostly_another_value_and_others_keep_what_is_known() -> None:
    model, values = sure_model(), values_of(COUNT)
    loc = typical(model, values)
    hidden = values.clone()
    hidden[: COUNT // 2] = -1
    with torch.no_grad():
        given = batch(model, hidden, config=CONFIG, image=torch.zeros(COUNT, 1, 32, 32))
        code, target = _edits(model, loc, torch.arange(COUNT), given)
    changed = torch.stack([code[:, 0] != loc[:, 0], (code[:, 1:3] != loc[:, 1:3]).any(1)], dim=1)
    asked = model.states.largest(target)
    # the classifier is sure at these latents, so missing labels are read as they are
    assert torch.equal(asked[~changed], values[~changed])
    assert torch.equal(code[:, 3:], loc[:, 3:])
    assert changed.float().mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.04)
    for label, count in enumerate((2, 3)):
        further = (asked - values)[changed[:, label], label] % count
        shares = further.bincount(minlength=count) / len(further)
        assert shares.tolist() == pytest.approx([KEPT, *[(1 - KEPT) / (count - 1)] * (count - 1)], abs=0.04)


def test_only_the_decoder_learns_from_it() -> None:
    model = make(CCVAE, MIXED)
    given = batch(model, values_of(24), config=CONFIG)
    agreement(model, model.posterior(given), given).mean().backward()
    for name, parameter in model.named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert learns == name.startswith("decoder"), name


def test_the_weight_rises_over_half_of_the_run() -> None:
    model, values = sure_model(kept=WIDTH), values_of(64)
    loc = typical(model, values)
    means = [found_at(model, values, loc, done).mean().item() for done in (0.0, 0.25, 0.5, 0.9)]
    assert means[0] == 0
    assert [mean / means[2] for mean in means] == pytest.approx([0, 0.5, 1, 1])


@pytest.mark.parametrize(("labels", "values"), [(MIXED, values_of(24)), (SINGLE, values_of(24)[:, 1:])])
def test_the_loss_has_it_and_shares_add_up(labels, values) -> None:
    model = make(CCVAE, labels)
    whole = model.terms(batch(model, values, config=CONFIG))
    assert whole.loss(0.0).item() == pytest.approx(-(whole.bound + whole.agreement).mean().item())
    shares = [slice(0, 11), slice(11, 24)]
    parts = [model.terms(batch(model, values, config=CONFIG, share=share)).agreement.sum() for share in shares]
    assert sum(parts).item() == pytest.approx(whole.agreement.sum().item(), rel=1e-5)
    without = model.terms(batch(model, values, config=CONFIG.model_copy(update={"agreement_weight": 0.0})))
    assert without.loss(0.0).item() == pytest.approx(-whole.bound.mean().item(), rel=1e-6)


@pytest.mark.parametrize("count", [2, 9, 20, 64])
def test_its_mean_over_steps_has_the_asked_weight_whatever_the_batch(count: int) -> None:
    model, values = sure_model(kept=WIDTH), values_of(count)
    loc = typical(model, values)
    with torch.no_grad():
        given = batch(model, values, config=CONFIG, image=torch.zeros(count, 1, 32, 32))
        _, target = _edits(model, loc, torch.arange(0, count, EVERY), given)
    gap = torch.tensor(2.0).log() - (target[:, 2:] * torch.tensor([0.0, 0.0, 20.0]).log_softmax(0)).sum(1)
    means = [found_at(model, values, loc, step=step).mean().item() for step in range(STEPS)]
    assert sum(means) / STEPS == pytest.approx(-3 * gap.mean().item(), rel=1e-4)
    assert not any(means[1:])


@pytest.mark.parametrize("cuts", [(3, 6), (1, 2, 12), (7, 8, 9)])
def test_a_share_may_have_no_image_that_is_edited(cuts: tuple[int, ...]) -> None:
    model, values = make(CCVAE, MIXED), values_of(cuts[-1])
    whole = model.terms(batch(model, values, config=CONFIG)).agreement
    shares = [slice(first, last) for first, last in zip((0, *cuts), cuts, strict=False)]
    parts = [model.terms(batch(model, values, config=CONFIG, share=share)).agreement for share in shares]
    assert torch.cat(parts).tolist() == pytest.approx(whole.tolist(), rel=1e-4, abs=1e-5)
