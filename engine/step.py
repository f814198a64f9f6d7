"""One optimisation step: loss, precision, clipping, and what happens when it is not finite."""

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from .console import UserError
from .device import autocast

MAX_GRAD_NORM = 1.0
SKIPS_IN_A_ROW = 10


def kl_criterion(mu: Tensor, logvar: Tensor, batch_size: int) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, I)), summed over all but the batch, a mean over that.

    Kingma and Welling 2014, appendix B.

    Args:
        mu, logvar: any one shape.
        batch_size: the clips that the tensors hold.
    """
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum() / batch_size


def make_optimizer(model: nn.Module, args) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019), by `--optim`."""
    return getattr(torch.optim, args.optim)(model.parameters(), lr=args.lr)


class TrainingStep:
    """Updates a model by one batch of clips at a time.

    Loss of a clip: sum over time of the MSE + beta * KL (SPEC: "The model").

    Args:
        model: the `VAE_Model`, or a wrapper of it with the same forward.
        optimizer: over the model's parameters.
        args: `precision, kl_reduction`.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, args):
        self.model, self.optimizer = model, optimizer
        self.precision, self.kl_reduction = args.precision, args.kl_reduction
        self.skipped = 0
        self._skipped_in_a_row = 0

    def __call__(self, frames: Tensor, poses: Tensor, beta: float, teacher_forcing: bool) -> dict | None:
        """One update. A loss or gradient that is not finite changes nothing and is counted.

        Args:
            frames, poses: `(B, T, 3, H, W)` in [0, 1], on the model's device.
            beta: weight of the KL term.

        Returns:
            `loss, mse, kl` (without beta) as floats, per clip and summed over time; None if skipped.

        Raises:
            UserError: the tenth skipped update in a row.
        """
        with autocast(self.precision, frames.device):
            predicted, mu, logvar = self.model(frames, poses, teacher_forcing)
        mse = mse_loss(predicted.float(), frames[:, 1:]) * predicted.shape[1]
        kl = kl_criterion(mu.float(), logvar.float(), len(frames)) * self._kl_scale(predicted, mu, mse)
        loss = mse + beta * kl
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
        if not torch.isfinite(loss + norm):
            self._skip()
            return None
        self._skipped_in_a_row = 0
        self.optimizer.step()
        return {"loss": loss.item(), "mse": mse.item(), "kl": kl.item()}

    def _kl_scale(self, predicted: Tensor, mu: Tensor, mse: Tensor) -> Tensor | float:
        """What `--kl_reduction` multiplies the sum of the KL by.

        "elbo": for a decoder N(predicted, s^2 I) of D values a frame the negative ELBO is, divided by
        D / (2 s^2), MSE + (2 s^2 / D) * KL, and the s^2 that maximizes the ELBO is the MSE itself (Rybkin et
        al. 2021: the optimal sigma-VAE).
        """
        if self.kl_reduction == "mean":
            return 1 / mu[0, 0].numel()
        if self.kl_reduction == "elbo":
            return 2 * mse.detach() / predicted.shape[1] / predicted[0, 0].numel()
        return 1.0

    def _skip(self) -> None:
        self.skipped += 1
        self._skipped_in_a_row += 1
        if self._skipped_in_a_row == SKIPS_IN_A_ROW:
            raise UserError(
                f"{SKIPS_IN_A_ROW} updates in a row were not finite: the run has diverged; its last good "
                "checkpoint is untouched (lower --lr, and continue it with --ckpt_path)"
            )
