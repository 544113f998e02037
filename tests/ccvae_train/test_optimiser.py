"""Muon's step against its definition, AdamW's against torch's own, and which weights take which."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ccvae_deploy.schema import ImageSpec, Label, LabelSet, LatentLayout
from ccvae_train.config import make_config
from ccvae_train.datasets.source import settled
from ccvae_train.families import new_model
from ccvae_train.optimiser import AdamWMuon, make_optimiser, orthogonal

LABELS = LabelSet(labels=(Label(name="a"), Label(name="b")))
ADAMW = {"encoder_optimiser": "adamw", "decoder_optimiser": "adamw"}
LAYOUT = LatentLayout(blocks=(1, 1), residual=4)


def common_form(matrix: Tensor) -> Tensor:
    """The iteration as it is published, on the matrix itself, its shorter side first."""
    if matrix.shape[0] > matrix.shape[1]:
        return common_form(matrix.T).T
    x = matrix / torch.linalg.vector_norm(matrix)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (7, 7), (256, 45)])
def test_it_is_the_published_iteration(shape: tuple[int, int]) -> None:
    matrix = torch.from_numpy(np.random.default_rng(0).standard_normal(shape))
    assert torch.allclose(orthogonal(matrix), common_form(matrix), atol=1e-9)
    assert torch.allclose(orthogonal(matrix.float()).double(), common_form(matrix), atol=1e-4)
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert 0.65 < values.min() <= values.max() < 1.25


def test_singular_vectors_stay_and_small_values_grow() -> None:
    rng = np.random.default_rng(1)
    left, right = (torch.from_numpy(np.linalg.qr(rng.standard_normal((n, 5)))[0]) for n in (8, 30))
    found = left.T @ orthogonal(left @ torch.diag(torch.tensor([9.0, 3, 1, 0.3, 0.1]).double()) @ right.T) @ right
    assert torch.allclose(found, torch.diag(found.diagonal()), atol=1e-9)
    assert 0.65 < found.diagonal().min() <= found.diagonal().max() < 1.25


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_is_a_matrix_with_a_row_an_input_channel(memory: torch.memory_format) -> None:
    torch.manual_seed(0)
    kernel = torch.randn(12, 5, 4, 4, dtype=torch.float64).to(memory_format=memory)
    found = orthogonal(kernel)
    assert torch.allclose(found.flatten(1), common_form(kernel.flatten(1)), atol=1e-9)


def test_groups_take_turns_with_steps_of_their_own_sizes() -> None:
    """A step of a group is two updates at once, along the momentum of all gradients."""
    torch.manual_seed(0)
    weights, sizes = [nn.Parameter(torch.ones(30, 50)) for _ in range(2)], (0.15, 0.8)
    groups = [{"params": [w], "muon": size, "weight_decay": 0.5} for w, size in zip(weights, sizes, strict=True)]
    optimiser = AdamWMuon(groups, lr=0.01)
    momentum = torch.zeros(30, 50)
    for step in range(4):
        gradient = torch.randn(30, 50)
        momentum = 0.95 * momentum + 0.05 * gradient
        before = [weight.detach().clone() for weight in weights]
        for weight in weights:
            weight.grad = gradient.clone()
        optimiser.step()
        assert all(weight.grad is None for weight in weights)
        moving, resting = (1, 0) if step % 2 == 0 else (0, 1)
        assert torch.equal(weights[resting], before[resting])
        moved, size = weights[moving].detach() - before[moving] * (1 - 0.02 * 0.5), sizes[moving]
        assert moved.square().mean().sqrt() == pytest.approx(size * 0.02, rel=0.2)
        expected = -0.02 * size * 50**0.5 * orthogonal(0.05 * gradient + 0.95 * momentum)
        assert torch.allclose(moved, expected, atol=1e-6)


def test_without_muon_it_is_adamw_to_the_bit() -> None:
    model = new_model("ccvae", LABELS, LAYOUT, ImageSpec(size=32))
    twin = new_model("ccvae", LABELS, LAYOUT, ImageSpec(size=32))
    twin.load_state_dict(model.state_dict())
    ours = make_optimiser(model, settled(make_config({"weight_decay": 0.0} | ADAMW)))
    theirs = torch.optim.AdamW(twin.parameters(), lr=2e-3, weight_decay=0.0, fused=True)
    for step in range(3):
        for network in (model, twin):
            torch.manual_seed(step)
            for parameter in network.parameters():
                parameter.grad = torch.randn_like(parameter)
        ours.step()
        theirs.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize("family", ["ccvae", "vae-classifier", "diva", "m2", "mvae"])
def test_matrices_of_decoder_and_encoder_take_muon_as_asked(family) -> None:
    model = new_model(family, LABELS, LAYOUT, ImageSpec(size=32))
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def muon(**settings: str) -> dict[str, float]:
        groups = make_optimiser(model, settled(make_config({"model": family} | settings))).param_groups
        assert sorted(names[id(p)] for group in groups for p in group["params"]) == sorted(names.values())
        return {names[id(p)]: group["muon"] for group in groups if group["muon"] for p in group["params"]}

    def large(part: str, size: float) -> dict[str, float]:
        return {name: size for name, p in model.named_parameters() if name.startswith(part) and p.dim() > 1}

    assert muon() == large("decoder.", 0.8) | large("encoder.", 0.13)
    assert muon(encoder_optimiser="adamw") == large("decoder.", 0.8)
    assert muon(**ADAMW) == {}
