"""Muon: orthogonalized updates for the weights of convolutions, AdamW for the rest."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from training.muon import UPDATE_RMS, Muon, orthogonalized


def make_optimizer(model: nn.Module, weight_decay: float = 0.0) -> Muon:
    optimizer = Muon(model.parameters(), lr=0.01, weight_decay=weight_decay, fused=True)
    optimizer.found_inf = torch.zeros(())
    return optimizer


def backward(model: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(2, 5, 6, 6, generator=generator)
    model(inputs).square().mean().backward()


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(5, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 3, 1))


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 40), columns=st.integers(1, 40), scale=st.floats(1e-4, 1e4), seed=st.integers(0, 99)
)
def test_singular_values_are_near_1(rows, columns, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    # The smaller side is at most half of the larger one: no singular value is near 0.
    matrix = scale * torch.randn(rows, max(1, columns), generator=generator)
    if max(rows, columns) < 2 * min(rows, columns):
        matrix = torch.cat([matrix, scale * torch.randn(rows, 2 * rows, generator=generator)], dim=1)
    values = torch.linalg.svdvals(orthogonalized(matrix))
    assert values.min() > 0.5 and values.max() < 1.35


def test_a_matrix_of_zeros_stays_zero():
    assert not orthogonalized(torch.zeros(3, 4)).any()


def test_several_matrices_are_orthogonalized_one_by_one():
    matrices = torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0))
    together = orthogonalized(matrices)
    for matrix, result in zip(matrices, together, strict=True):
        torch.testing.assert_close(orthogonalized(matrix), result)


def test_updates_of_convolutions_are_equally_large_in_all_directions(network):
    optimizer, before = make_optimizer(network), copy.deepcopy(network)
    backward(network)
    optimizer.step()
    moved = (network[0].weight - before[0].weight).flatten(1)  # 8 x 45
    values = torch.linalg.svdvals(moved) / (0.01 * UPDATE_RMS * 45**0.5)
    assert values.min() > 0.5 and values.max() < 1.35


def test_all_other_parameters_are_those_of_adamw(network):
    other = copy.deepcopy(network)
    muon = make_optimizer(network, weight_decay=0.1)
    adamw = torch.optim.AdamW(other.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    for model, optimizer in ((network, muon), (other, adamw)):
        backward(model)
        optimizer.step()
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)) == (parameter.ndim < 4)


def test_weights_decay(network):
    weight = network[0].weight
    before = weight.detach().clone()
    optimizer = make_optimizer(network, weight_decay=0.5)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 0.01 * 0.5))


def test_an_update_that_is_not_finite_changes_nothing(network):
    optimizer = make_optimizer(network, weight_decay=0.1)
    backward(network)
    optimizer.step()
    before = copy.deepcopy([list(network.parameters()), optimizer.state_dict()["state"]])
    for value in (float("nan"), float("inf")):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, value)
        optimizer.found_inf.fill_(1)
        optimizer.step()
    after = [list(network.parameters()), optimizer.state_dict()["state"]]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_state_goes_on_where_it_was_saved(network):
    optimizer = make_optimizer(network)
    backward(network)
    optimizer.step()
    copied = copy.deepcopy(network)
    restored = make_optimizer(copied)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, each in ((network, optimizer), (copied, restored)):
        each.zero_grad()
        backward(model, seed=1)
        each.step()
    for weight, restored_weight in zip(network.parameters(), copied.parameters(), strict=True):
        assert torch.equal(weight, restored_weight)
