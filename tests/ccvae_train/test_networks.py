"""Sizes, parameter counts and ranges of the four networks (docs/mathematics.md, 1)."""

import pytest
import torch

from ccvae_deploy.errors import LabelError
from ccvae_deploy.schema import ImageSpec, Label, LabelSet, LatentLayout
from ccvae_train.networks import CCVAE


def made_model(size: int = 64, channels: int = 3, dims: tuple[int, ...] = (1,) * 18) -> CCVAE:
    labels = LabelSet(labels=tuple(Label(name=f"label {i}", dims=d) for i, d in enumerate(dims)))
    layout = LatentLayout(blocks=dims, residual=45 - sum(dims))
    return CCVAE(labels, layout, ImageSpec(size=size, channels=channels))


def test_live_parameters_are_those_of_the_paper() -> None:
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in made_model().named_children()}
    assert counts == {"encoder": 729_690, "decoder": 718_083, "classifier": 36, "conditional_prior": 72}


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


def test_categorical_labels_are_refused_with_what_to_do() -> None:
    labels = LabelSet(labels=(Label(name="hair", kind="categorical", classes=("black", "blond", "brown")),))
    with pytest.raises(LabelError, match=r"hair has 3 classes.*0/1 column"):
        CCVAE(labels, LatentLayout(blocks=(1,), residual=1), ImageSpec())
