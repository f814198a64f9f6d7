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

    The iteration is x <- p x with p = a + b g + c g^2 and g = x x^T. All of it but its first and its last
    product is done with g and with the product of all p, which are as small as the shorter side of x.

    Args:
        matrices: `(..., rows, columns)`, finite. A matrix of zeros stays zero.
    """
    a, b, c = QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).reshape(-1, *sorted(matrices.shape[-2:]))
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram = x @ x.mT
    product = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device).expand_as(gram)
    for _ in range(ITERATIONS):
        change = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # p without its first term
        product = torch.baddbmm(product, product, change, beta=a)
        gram = torch.baddbmm(gram, gram, change, beta=a)
        gram = torch.baddbmm(gram, gram, change, beta=a)
    x = product @ x
    return (x.mT if tall else x).reshape(matrices.shape)


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
        finite = 1 - self.found_inf
        share = (1 - MOMENTUM) * finite
        for group in self.param_groups:
            lr = group["lr"] * finite
            kept = 1 - lr * group["weight_decay"]
            for weight in group["params"]:
                if weight.ndim == 4 and weight.grad is not None:
                    gradient = torch.where(finite > 0, weight.grad, 0.0)
                    update = self._update(weight, gradient, share)
                    weight.mul_(kept).sub_(update * lr)
                    weight.grad = None  # so AdamW passes over it
        super().step()

    @staticmethod
    def moments(parameter: Tensor) -> tuple[str, ...]:
        """The names of what is kept for a parameter, beside the number of steps."""
        return ("momentum",) if parameter.ndim == 4 else ("exp_avg", "exp_avg_sq")

    def _update(self, weight: Tensor, gradient: Tensor, share: Tensor) -> Tensor:
        """The update of a weight at a learning rate of 1; `share` of the gradient enters its momentum."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
            state["step"] = torch.zeros((), device=weight.device)  # AdamW looks for it when it loads a state
        momentum = state["momentum"].lerp_(gradient, share)
        matrix = gradient.lerp(momentum, MOMENTUM).flatten(1)
        return orthogonalized(matrix).view(weight.shape) * (UPDATE_RMS * max(matrix.shape) ** 0.5)
