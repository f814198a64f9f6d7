"""The scale of the loss in fp16, in which small gradients are 0 (Micikevicius et al. 2018, section 3.2)."""

from collections.abc import Iterable

import torch
from torch import Tensor

FIRST, LEAST, MOST = 2.0**12, 1.0, 2.0**24
STEPS_TO_GROW = 2000


class LossScale:
    """A scale that is halved after a gradient that is not finite, and doubled after many that are.

    torch.amp.GradScaler does the same, but reads values back, which a recorded graph cannot.

    Args:
        device: of the loss.

    Attributes:
        scale: a scalar.
    """

    def __init__(self, device: torch.device):
        self.scale = torch.full((), FIRST, device=device)
        self._finite_steps = torch.zeros((), device=device)

    def backward(self, loss: Tensor, parameters: Iterable[Tensor]) -> None:
        """The gradients of the loss, computed from the scaled one."""
        (loss * self.scale).backward()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.scale)

    def update(self, finite: Tensor) -> None:
        """Adapt the scale; `finite` says whether the last gradient was."""
        self._finite_steps.copy_((self._finite_steps + 1) * finite)
        grows = self._finite_steps >= STEPS_TO_GROW
        self._finite_steps.mul_(~grows)
        factor = torch.where(finite, 1.0 + grows, 0.5)
        self.scale.copy_((self.scale * factor).clamp(LEAST, MOST))
