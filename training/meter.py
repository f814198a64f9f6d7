"""Statistics of the training steps between two reads."""

import torch
from torch import Tensor

from runtime import distributed


class Meter:
    """Running sums of training statistics on a device; only `read` waits for the device."""

    def __init__(self, device: torch.device):
        # Since the last read: sums of loss, mse and kl over finite updates, and the counts of both kinds.
        self._sums = torch.zeros(5, device=device)
        # Consecutive skipped updates: current, and longest so far.
        self._in_a_row = torch.zeros(2, device=device)

    def update(self, is_finite: Tensor, *losses: Tensor) -> None:
        """Add an update's loss, mse and kl; `is_finite` is a bool scalar."""
        counts = torch.stack([is_finite, ~is_finite]).float()
        self._sums += torch.cat([torch.where(is_finite, torch.stack(losses).detach(), 0.0), counts])
        current = (self._in_a_row[0] + 1) * ~is_finite
        self._in_a_row.copy_(torch.stack([current, torch.maximum(current, self._in_a_row[1])]))

    def read(self) -> dict[str, float]:
        """Sums over the updates since the last read, as means over the ranks.

        Returns:
            `loss, mse, kl` (without beta), `steps`, the number of finite updates, `skipped`, the number of
            others, and `skipped_in_a_row`, the longest row of these in the run.
        """
        sums = torch.cat([distributed.all_mean(self._sums), self._in_a_row[1:]]).tolist()
        self._sums.zero_()
        return dict(zip(("loss", "mse", "kl", "steps", "skipped", "skipped_in_a_row"), sums, strict=True))
