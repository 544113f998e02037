"""Rewritten networks compute what the trained ones compute."""

import copy

import pytest
import torch
from torch import nn

from ccvae_deploy.schema import ImageSpec, Label, LabelSet, LatentLayout
from ccvae_export.rewrite import Half, LinearTail, Unfolded, Upsample, equalise, fast, fast_decoder
from ccvae_train.networks import CCVAE, Decoder, Encoder

LABELS = (
    Label(name="smiling"),
    Label(name="hair", kind="categorical", classes=("black", "blond", "brown"), dims=2),
    Label(name="young", dims=3),
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("side", [1, 4, 5])
def test_a_transposed_convolution_is_a_convolution_and_depth_to_space(side: int) -> None:
    layer = nn.ConvTranspose2d(6, 5, 4, stride=2, padding=1)
    x = torch.randn(3, 6, side, side)
    assert torch.allclose(Upsample(layer)(x), torch.relu(layer(x)), atol=1e-6)


def test_a_transposed_convolution_of_one_pixel_is_a_matrix() -> None:
    layer = nn.ConvTranspose2d(6, 5, 4)
    x = torch.randn(3, 6, 1, 1)
    assert torch.allclose(Unfolded(layer)(x), layer(x), atol=1e-6)
    assert torch.allclose(Unfolded(layer)(x.flatten(1)), layer(x), atol=1e-6)


@pytest.mark.parametrize("size", [32, 64])
def test_whole_networks_stay_the_same(size: int) -> None:
    image = ImageSpec(size=size)  # type: ignore[arg-type]
    encoder, decoder = Encoder(image, 10), Decoder(image, 10)
    x, z = torch.rand(3, 3, size, size), torch.randn(3, 10)
    for expected, found in zip(encoder(x), LinearTail(encoder)(x), strict=True):
        assert torch.allclose(found, expected, atol=1e-5)
    for upsampled in ((), (0,), (0, 1)):
        assert torch.allclose(fast_decoder(decoder, upsampled)(z), decoder(z), atol=1e-6)
    kinds = [type(layer).__name__ for layer in fast_decoder(decoder, (0,)).layers]
    assert kinds.count("Upsample") == 1
    assert kinds[-1] == "Double"


def test_equalised_channels_have_one_peak_and_change_nothing() -> None:
    decoder, z = Decoder(ImageSpec(size=32), 10), torch.randn(64, 10)
    with torch.no_grad():
        decoder.layers[3].weight[:, 5] *= 40
    level = copy.deepcopy(decoder)
    equalise(list(level.layers), z)
    assert torch.allclose(level(z), decoder(z), atol=1e-5)
    x = z
    for layer in level.layers:
        x = layer(x)
        if isinstance(layer, nn.ReLU):
            peaks = x.transpose(0, 1).flatten(1).amax(dim=1)
            assert (peaks[peaks > 0] / peaks.max()).min() > 0.99


def made_model() -> CCVAE:
    """Labels of both kinds, with random weights in the two small networks."""
    model = CCVAE(LabelSet(labels=LABELS), LatentLayout(blocks=(1, 2, 3), residual=2), ImageSpec(size=32))
    with torch.no_grad():
        for parameter in (*model.classifier.parameters(), *model.conditional_prior.parameters()):
            parameter.copy_(torch.randn_like(parameter))
    return model


def test_a_classifier_is_one_matrix_and_a_conditional_prior_two() -> None:
    model = made_model()
    z_c, y = torch.randn(7, 6), torch.rand(7, 5)
    classifier = fast(model.classifier)
    assert isinstance(classifier, nn.Linear)
    assert torch.allclose(classifier(z_c), model.classifier(z_c), atol=1e-6)
    for found, expected in zip(fast(model.conditional_prior)(y), model.conditional_prior(y), strict=True):
        assert torch.allclose(found, expected, atol=1e-6)


def test_half_precision_keeps_its_inputs_and_outputs() -> None:
    classifier = fast(made_model().classifier)
    z_c = torch.randn(5, 6)
    found = Half(classifier)(z_c)
    assert found.dtype == torch.float32
    assert 0 < (found - classifier(z_c)).abs().max() < 0.01
    assert {parameter.dtype for parameter in classifier.parameters()} == {torch.float32}
