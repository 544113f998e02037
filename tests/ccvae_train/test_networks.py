"""Sizes, parameter counts and ranges of the four networks (docs/mathematics.md, 1)."""

import pytest
import torch
from torch import nn

from ccvae_deploy.schema import ImageSpec, Label, LabelSet, LatentLayout
from ccvae_train.convolutions import Collapse, Double, Expand
from ccvae_train.networks import CCVAE


def made_model(size: int = 64, channels: int = 3, dims: tuple[int, ...] = (1,) * 18) -> CCVAE:
    labels = LabelSet(labels=tuple(Label(name=f"label {i}", dims=d) for i, d in enumerate(dims)))
    layout = LatentLayout(blocks=dims, residual=45 - sum(dims))
    return CCVAE(labels, layout, ImageSpec(size=size, channels=channels))


def test_live_parameters_are_those_of_the_paper() -> None:
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in made_model().named_children()}
    assert counts == {"encoder": 729_690, "decoder": 718_083, "states": 0, "classifier": 36, "conditional_prior": 72}


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_ranges(size: int, channels: int) -> None:
    model = made_model(size, channels)
    loc, scale = model.encoder(torch.rand(2, channels, size, size))
    image = model.decoder(loc)
    assert loc.shape == scale.shape == (2, 45)
    assert image.shape == (2, channels, size, size)
    assert scale.min() > 0
    assert 0 <= image.min() <= image.max() <= 1


QUICK = [
    (Collapse(6, 7, 4), nn.Conv2d(6, 7, 4), (5, 6, 4, 4)),
    (Expand(6, 7, 4), nn.ConvTranspose2d(6, 7, 4), (5, 6, 1, 1)),
    (Double(6, 7), nn.ConvTranspose2d(6, 7, 4, stride=2, padding=1), (5, 6, 3, 8)),
    (Double(6, 3), nn.ConvTranspose2d(6, 3, 4, stride=2, padding=1), (5, 6, 3, 8)),
    (Double(6, 1), nn.ConvTranspose2d(6, 1, 4, stride=2, padding=1), (5, 6, 1, 1)),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(("quick", "plain", "shape"), QUICK)
def test_quick_layers_have_values_and_gradients_of_torchs_own(
    quick: nn.Module, plain: nn.Module, shape: tuple[int, ...], layout: torch.memory_format, training: bool
) -> None:
    found, expected = (layer.to(memory_format=layout).train(training) for layer in (quick, plain))
    found.load_state_dict(expected.state_dict())
    x = torch.randn(shape).to(memory_format=layout).requires_grad_()
    given = torch.randn(expected(x).shape)
    sides = []
    for layer in (found, expected):
        result = layer(x)
        sides.append([result, *torch.autograd.grad(result, [x, layer.weight, layer.bias], given)])
    for ours, theirs in zip(*sides, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = found(x)
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.float(), sides[1][0], atol=0.05)


def test_a_quick_layer_of_held_weights_still_leads_to_its_input() -> None:
    layer = Double(6, 3)
    layer.requires_grad_(False)
    x = torch.randn(5, 6, 3, 8, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None


def test_a_label_sees_its_own_block_only() -> None:
    model = made_model(dims=(1, 3, 2))
    z_c = torch.randn(1, 6)
    moved = z_c.clone()
    moved[:, 1:4] += 1
    change = model.classifier(moved) - model.classifier(z_c)
    assert change[0].tolist() == pytest.approx([0, 3, 0], abs=1e-6)


def test_conditional_prior_starts_two_apart_and_interpolates() -> None:
    model = made_model(dims=(2,))
    for state, loc in ((0.0, -2.0), (1.0, 2.0), (0.25, -1.0)):
        found, scale = model.conditional_prior(torch.tensor([[state]]))
        assert found[0].tolist() == pytest.approx([loc, loc])
        assert scale[0, 0].item() == pytest.approx(1.3133 + 1e-3, abs=1e-4)


HAIR = Label(name="hair", kind="categorical", classes=("black", "blond", "brown"), dims=3)


def mixed_model(dims: int = 3, residual: int = 2) -> CCVAE:
    """A binary label, a categorical one of three classes, a binary one of two latents."""
    labels = (Label(name="smiling"), HAIR.model_copy(update={"dims": dims}), Label(name="young", dims=2))
    layout = LatentLayout(blocks=(1, dims, 2), residual=residual)
    return CCVAE(LabelSet(labels=labels), layout, ImageSpec(size=32))


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_classes_have_a_logit_each_and_see_their_own_block_only(dims: int) -> None:
    model = mixed_model(dims)
    z_c = torch.randn(4, dims + 3)
    logits = model.classifier(z_c)
    assert logits.shape == (4, 5)
    moved = z_c.clone()
    moved[:, 1 : 1 + dims] += 1
    change = (model.classifier(moved) - logits).abs()
    assert (change[:, [0, 4]] == 0).all()
    assert change[:, 1:4].max() > 0
    assert model.states.likeliest(logits).tolist() == [
        [int(row[0] > 0), int(row[1:4].argmax()), int(row[4] > 0)] for row in logits
    ]


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_new_label_of_classes_tells_the_means_of_its_conditional_prior_apart(dims: int) -> None:
    model = mixed_model(dims)
    for value in range(3):
        z_c, _ = model.conditional_prior.at(model.states.of_values(torch.tensor([[1, value, 0]])))
        assert model.states.likeliest(model.classifier(z_c)).tolist() == [[1, value, 0]]


def test_log_probabilities_are_those_of_a_logistic_and_a_softmax() -> None:
    model = mixed_model()
    logits = torch.randn(6, 5)
    found = model.states.log_probabilities(logits)
    assert torch.allclose(found[:, 1], torch.nn.functional.logsigmoid(logits[:, 0]), atol=1e-6)
    assert torch.allclose(found[:, 0], torch.nn.functional.logsigmoid(-logits[:, 0]), atol=1e-6)
    assert torch.allclose(found[:, 2:5], logits[:, 1:4].log_softmax(1), atol=1e-6)


def test_columns_of_y_and_values_meet_in_the_states() -> None:
    states = mixed_model().states
    y = torch.tensor([[1.0, 0, 0, 1, 0.0]])
    assert states.of_columns(y).tolist() == [[0, 1, 0, 0, 1, 1, 0]]
    assert states.of_values(torch.tensor([[1, 2, 0]])).tolist() == states.of_columns(y).tolist()
    assert states.of_values(torch.tensor([[-1, -1, 1]])).tolist() == [[1, 0, 1, 0, 0, 0, 1]]
