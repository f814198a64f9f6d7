"""Optimizers: Adam, AdamW, and Muon (orthogonalized momentum)."""

import math
from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

# Newton-Schulz iteration towards singular values of 1 (Jordan et al. 2024): its coefficients and its length.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
SIZE_STEP = 32  # shorter sides are padded to a multiple of this; equal sizes form one batch
MOMENTUM = 0.95
# Root mean square of an update at a learning rate of 1, as AdamW's is (Liu et al. 2025, section 2.2).
UPDATE_RMS = 0.2


def orthogonalized(matrices: list[Tensor]) -> list[Tensor]:
    """Approximately orthogonalize each matrix: singular values become 1, to within about 30 %.

    The iteration is x <- p x with p = a + b g + c g^2 and g = x x^T. It works on g and the product of all p,
    which are as small as the shorter side of x.
    """
    wide = [x.mT if x.shape[0] > x.shape[1] else x for x in matrices]
    wide = [x / (x.norm() + 1e-7) for x in wide]
    batches, products = defaultdict(list), {}
    for index, x in enumerate(wide):
        batches[math.ceil(len(x) / SIZE_STEP) * SIZE_STEP].append(index)
    for size, indices in batches.items():  # padding does not mix with a matrix, and is cut off
        grams = [pad(x @ x.mT, (0, size - len(x)) * 2) for x in (wide[index] for index in indices)]
        products |= zip(indices, _iterate(torch.stack(grams)), strict=True)
    wide = [products[index][: len(x), : len(x)] @ x for index, x in enumerate(wide)]
    return [x if x.shape == matrix.shape else x.mT for x, matrix in zip(wide, matrices, strict=True)]


def _iterate(gram: Tensor) -> Tensor:
    """The product of all p, see `orthogonalized`, for each g `(N, n, n)`."""
    a, b, c = QUINTIC
    product = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device).expand_as(gram)
    for _ in range(ITERATIONS):
        change = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # p without its first term
        product = torch.baddbmm(product, product, change, beta=a)
        gram = torch.baddbmm(gram, gram, change, beta=a)
        gram = torch.baddbmm(gram, gram, change, beta=a)
    return product


class Muon(torch.optim.AdamW):
    """Muon for the weights of convolutions, AdamW for all other parameters, at the same learning rate.

    A weight is a matrix of output channels by inputs. Its Nesterov momentum is orthogonalized (Jordan et al.
    2024, "Muon: An optimizer for hidden layers in neural networks"), and scaled to suit the learning rate and
    weight decay of AdamW (Liu et al. 2025, "Muon is scalable for LLM training", section 2.2).
    torch.optim.Muon takes only parameters of two dimensions.

    Attributes:
        found_inf: a scalar on the parameters' device; where it is 1, `step` changes nothing.
    """

    @torch.no_grad()
    def step(self) -> None:
        is_finite = 1 - self.found_inf
        for group in self.param_groups:
            lr = group["lr"] * is_finite
            decay = 1 - lr * group["weight_decay"]
            weights = [w for w in group["params"] if w.ndim == 4 and w.grad is not None]
            matrices = [self._nesterov(weight, is_finite).flatten(1) for weight in weights]
            for weight, update in zip(weights, orthogonalized(matrices), strict=True):
                scale = UPDATE_RMS * max(update.shape) ** 0.5
                weight.mul_(decay).sub_(update.view(weight.shape) * (scale * lr))
                weight.grad = None  # so AdamW passes over it
        super().step()

    @staticmethod
    def moments(parameter: Tensor) -> tuple[str, ...]:
        """Names of the state of a parameter, beside `step`."""
        return ("momentum",) if parameter.ndim == 4 else ("exp_avg", "exp_avg_sq")

    def _nesterov(self, weight: Tensor, is_finite: Tensor) -> Tensor:
        """The Nesterov momentum of a weight, after this step's gradient."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
            state["step"] = torch.zeros((), device=weight.device)  # AdamW looks for it when it loads a state
        gradient = torch.where(is_finite > 0, weight.grad, 0.0)
        momentum = state["momentum"].lerp_(gradient, (1 - MOMENTUM) * is_finite)
        return gradient.lerp(momentum, MOMENTUM)


# Each takes `fused` and `capturable`, skips an update where `found_inf` is 1, and has the state exp_avg and
# exp_avg_sq or names its own by `moments`.
OPTIMIZERS = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW, "Muon": Muon}


def make_optimizer(model: nn.Module, args) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019) or `Muon`, by `args.optim`.

    On CUDA the learning rate is a tensor, which a recorded graph reads in each replay.
    """
    device = next(model.parameters()).device
    on_cuda = device.type == "cuda"
    lr = torch.tensor(args.lr, device=device) if on_cuda else args.lr
    optimizer = OPTIMIZERS[args.optim](
        model.parameters(), lr=lr, weight_decay=args.weight_decay, fused=True, capturable=on_cuda
    )
    optimizer.found_inf = torch.zeros((), device=device)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next update."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def step_if_finite(optimizer: torch.optim.Optimizer, is_finite: Tensor) -> None:
    """Update the parameters, or do nothing where `is_finite`, a bool scalar on their device, is false."""
    optimizer.found_inf.copy_(~is_finite)  # where it is 1, a fused optimizer skips the update
    # Fused optimizers ignore it on Apple GPUs (github.com/pytorch/pytorch/pull/186360): read the value there.
    if is_finite.device.type != "mps" or is_finite:
        optimizer.step()


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Restore the moments of another optimizer of the same kind, possibly from another device."""
    own = optimizer.state_dict()["param_groups"]  # settings such as `fused` depend on this device
    optimizer.load_state_dict(state | {"param_groups": own})
