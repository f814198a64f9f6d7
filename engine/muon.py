"""Muon: an optimizer whose updates of a weight are equally large in all directions."""

import torch
from torch import Tensor

# Newton-Schulz iteration towards singular values of 1 (Jordan et al. 2024): its coefficients and its length.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95
# Root mean square of an update at a learning rate of 1, as AdamW's is (Liu et al. 2025, section 2.2).
UPDATE_RMS = 0.2


def orthogonalized(matrices: Tensor) -> Tensor:
    """The nearest matrices whose singular values are all 1, to within about 30 %.

    Args:
        matrices: `(..., rows, columns)`, finite. A matrix of zeros stays zero.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.AdamW):
    """Muon for the weights of convolutions, AdamW for all other parameters, at the same learning rate.

    A weight is a matrix of output channels by inputs. Its gradient's momentum (Nesterov's) is orthogonalized,
    so that directions which seldom have a gradient are learned as fast as all others (Jordan et al. 2024,
    "Muon: An optimizer for hidden layers in neural networks"), and scaled so that the learning rate and the
    weight decay of AdamW fit (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).
    torch.optim.Muon, in recent versions, takes parameters of two dimensions alone.

    Attributes:
        found_inf: a scalar on the parameters' device; where it is 1, `step` changes nothing.
    """

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.ndim == 4 and weight.grad is not None:
                    self._update(weight, group["lr"], group["weight_decay"])
                    weight.grad = None  # so AdamW passes over it
        super().step()

    @staticmethod
    def moments(parameter: Tensor) -> tuple[str, ...]:
        """The names of what is kept for a parameter, beside the number of steps."""
        return ("momentum",) if parameter.ndim == 4 else ("exp_avg", "exp_avg_sq")

    def _update(self, weight: Tensor, lr: Tensor | float, weight_decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
            state["step"] = torch.zeros((), device=weight.device)  # AdamW looks for it when it loads a state
        finite = 1 - self.found_inf
        gradient = torch.where(finite > 0, weight.grad, 0.0)
        momentum = state["momentum"]
        momentum.lerp_(gradient, (1 - MOMENTUM) * finite)
        matrix = gradient.lerp(momentum, MOMENTUM).flatten(1)
        update = orthogonalized(matrix).view(weight.shape)
        size = UPDATE_RMS * max(matrix.shape) ** 0.5
        weight.mul_(1 - lr * weight_decay * finite)
        weight.sub_(update * (lr * size * finite))
