import copy

import pytest
import torch
from torch import nn

from tests.helpers import small_model
from training.optimizers import UPDATE_RMS, load_optimizer, make_optimizer, orthogonalized, step_if_finite


def optimizer_of(network, optim="Muon", weight_decay=0.0):
    return make_optimizer(network, small_model(optim=optim, lr=0.01, weight_decay=weight_decay))


def backward(network, seed=0):
    network.zero_grad()
    inputs = torch.randn(2, 5, 6, 6, generator=torch.Generator().manual_seed(seed))
    network(inputs).square().mean().backward()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(5, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 3, 1))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_singular_values_of_orthogonalized_matrices_are_near_1(scale):
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 1), (3, 8), (40, 17), (20, 90)]
    matrices = [scale * torch.randn(shape, generator=generator) for shape in shapes]
    for matrix, result in zip(matrices, orthogonalized(matrices), strict=True):
        assert result.shape == matrix.shape
        values = torch.linalg.svdvals(result)
        assert values.min() > 0.5 and values.max() < 1.35
        torch.testing.assert_close(result, orthogonalized([matrix])[0], rtol=1e-3, atol=1e-4)


def test_muon_updates_of_convolutions_are_equally_large_in_all_directions(network):
    optimizer, before = optimizer_of(network), copy.deepcopy(network)
    backward(network)
    optimizer.step()
    update = (network[0].weight - before[0].weight).flatten(1)  # 8 x 45
    values = torch.linalg.svdvals(update) / (0.01 * UPDATE_RMS * 45**0.5)
    assert values.min() > 0.5 and values.max() < 1.35


def test_muon_updates_all_other_parameters_as_adamw(network):
    other = copy.deepcopy(network)
    for model, optim in ((network, "Muon"), (other, "AdamW")):
        optimizer = optimizer_of(model, optim, weight_decay=0.1)
        backward(model)
        optimizer.step()
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, other.get_parameter(name)) == (parameter.ndim < 4)


@pytest.mark.parametrize("optim", ["Adam", "AdamW", "Muon"])
def test_update_that_is_not_finite_changes_nothing(network, optim):
    optimizer = optimizer_of(network, optim, weight_decay=0.5)
    for is_finite in (True, False, True):
        before = copy.deepcopy(network.state_dict())
        backward(network)
        if not is_finite:
            network[0].weight.grad.fill_(torch.nan)
        step_if_finite(optimizer, torch.tensor(is_finite))
        changes = [not torch.equal(value, before[name]) for name, value in network.state_dict().items()]
        assert any(changes) == is_finite
    assert {int(state["step"]) for state in optimizer.state.values()} <= {0, 2}


def test_apple_gpu_whose_optimizers_ignore_found_inf_makes_no_update_either(network):
    class OnAppleGPU:
        device = torch.device("mps")

        def __init__(self, value):
            self.value = value

        def __bool__(self):
            return self.value

        def __invert__(self):
            return torch.tensor(not self.value)

    optimizer, steps = optimizer_of(network), []
    optimizer.step = lambda: steps.append(optimizer.found_inf.item())
    for is_finite in (True, False):
        step_if_finite(optimizer, OnAppleGPU(is_finite))
    assert steps == [0.0]


def test_muon_decays_weights(network):
    weight, optimizer = network[0].weight, optimizer_of(network, weight_decay=0.5)
    before = weight.detach().clone()
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before * (1 - 0.01 * 0.5))


def test_state_of_another_device_continues_with_the_settings_of_this_one(network):
    """CUDA's learning rate is a tensor, and CPUs without fused kernels have other settings, too."""
    other = torch.optim.AdamW(network.parameters(), lr=torch.tensor(0.5), foreach=False)
    backward(network)
    other.step()
    optimizer = optimizer_of(network, "AdamW")
    load_optimizer(optimizer, copy.deepcopy(other.state_dict()))
    (group,) = optimizer.param_groups
    assert group["fused"] and group["lr"] == 0.01
    backward(network)
    optimizer.step()
    assert {state["step"].item() for state in optimizer.state.values()} == {2.0}
