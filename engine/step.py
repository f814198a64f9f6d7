"""One optimisation step: loss, precision, clipping, and what happens when it is not finite.

Nothing here waits for the device but `TrainingStep.read`, so that a GPU is never idle between two steps.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from modules.graph import Graphed

from . import distributed
from .augment import augment
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
    """Adam (Kingma and Ba 2015) or AdamW (Loshchilov and Hutter 2019), by `--optim`.

    Fused: all parameters in one launch, and an update can be skipped on the device. On CUDA its learning
    rate is a tensor, which a recorded graph can read anew.
    """
    device = next(model.parameters()).device
    on_cuda = device.type == "cuda"
    lr = torch.tensor(args.lr, device=device) if on_cuda else args.lr
    kind = getattr(torch.optim, args.optim)
    return kind(model.parameters(), lr=lr, weight_decay=args.weight_decay, fused=True, capturable=on_cuda)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Restore the moments that another optimizer of the same kind had, perhaps on another device."""
    own = optimizer.state_dict()["param_groups"]
    how = ("lr", "weight_decay", "fused", "capturable", "foreach")
    groups = [
        saved | {name: mine[name] for name in how}
        for saved, mine in zip(state["param_groups"], own, strict=True)
    ]
    optimizer.load_state_dict(state | {"param_groups": groups})


class TrainingStep:
    """Updates a model by one batch of clips at a time.

    Loss of a clip: sum over time of the MSE + beta * KL (SPEC: "The model"). A loss or gradient that is
    not finite changes nothing and is counted.

    Args:
        model: the `VAE_Model`.
        optimizer: from `make_optimizer`.
        args: `precision, kl_reduction, augment`.
        decode: makes float clips of what a batch holds, on the device; a batch is frames and poses if None.
        parallel: a wrapper of the model with the same forward, if several processes share a step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        args,
        decode: Callable[..., tuple[Tensor, Tensor]] | None = None,
        parallel: nn.Module | None = None,
    ):
        self.model, self.optimizer = model, optimizer
        self.forward = parallel or model
        self.decode = decode or (lambda frames, poses: (frames, poses))
        self.precision, self.kl_reduction = args.precision, args.kl_reduction
        self.augmentations = () if args.augment == "none" else tuple(args.augment.split(","))
        device = next(model.parameters()).device
        self._beta = torch.zeros((), device=device)
        # A fused optimizer does nothing where this is 1; it is how torch.amp.GradScaler skips updates.
        self._not_finite = optimizer.found_inf = torch.zeros((), device=device)
        # Since the last read: loss, mse, kl over the finite updates, their number, that of the others.
        self._sums = torch.zeros(5, device=device)
        # Updates skipped in a row, now and at most.
        self._in_a_row = torch.zeros(2, device=device)
        # What several processes do together cannot be recorded by one of them.
        whole = device.type == "cuda" and parallel is None
        self._update = Graphed(self._compute) if whole else self._compute

    def __call__(self, batch: tuple[Tensor, ...], lr: float, beta: float, teacher_forcing: bool) -> None:
        """One update.

        Args:
            batch: what `decode` takes, on the model's device: frames and poses are to be
                `(B, T, 3, H, W)` in [0, 1].
            lr: learning rate.
            beta: weight of the KL term.
        """
        self._beta.fill_(beta)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        self._update(*batch, teacher_forcing=teacher_forcing)

    def read(self) -> dict:
        """What happened since the last read; waits for the device.

        Returns:
            `loss, mse, kl` (without beta): means over the updates, per clip and summed over time, nan
            without an update; `steps`, how many were made, and `skipped`, how many were not.

        Raises:
            UserError: ten updates in a row were skipped.
        """
        counted = torch.cat([distributed.mean(self._sums), self._in_a_row[1:]])
        *losses, steps, skipped, most_in_a_row = counted.tolist()
        self._sums.zero_()
        if most_in_a_row >= SKIPS_IN_A_ROW:
            raise UserError(
                f"{SKIPS_IN_A_ROW} updates in a row were not finite: the run has diverged; its last good "
                "checkpoint is untouched (lower --lr, and continue it with --ckpt_path)"
            )
        means = [total / steps if steps else float("nan") for total in losses]
        return dict(zip(("loss", "mse", "kl"), means, strict=True)) | {"steps": steps, "skipped": skipped}

    def _compute(self, *batch: Tensor, teacher_forcing: bool) -> None:
        """The update, as work for the device alone."""
        frames, poses = self.decode(*batch)
        if self.augmentations:
            frames, poses = augment(frames, poses, self.augmentations)
        length, _, height, width = frames.shape[1:]
        latents = self.model.latent_shape(length, height, width)
        noise = distributed.rows(torch.randn, len(frames), *latents, device=frames.device)
        with autocast(self.precision, frames.device):
            predicted, mu, logvar = self.forward(frames, poses, teacher_forcing, noise)
        mse = mse_loss(predicted.float(), frames[:, 1:]) * predicted.shape[1]
        kl = kl_criterion(mu.float(), logvar.float(), len(frames)) * self._kl_scale(predicted, mu, mse)
        loss = mse + self._beta * kl
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
        finite = torch.isfinite(norm)
        self._not_finite.copy_(~finite)
        self.optimizer.step()
        self._count(finite, torch.stack([loss, mse, kl]).detach())

    def _count(self, finite: Tensor, losses: Tensor) -> None:
        made = torch.stack([finite, ~finite]).float()
        self._sums += torch.cat([torch.where(finite, losses, 0.0), made])
        now = (self._in_a_row[0] + 1) * ~finite
        self._in_a_row.copy_(torch.stack([now, torch.maximum(now, self._in_a_row[1])]))

    def _kl_scale(self, predicted: Tensor, mu: Tensor, mse: Tensor) -> Tensor | float:
        """What `--kl_reduction` multiplies the sum of the KL by.

        "elbo": for a decoder N(predicted, s^2 I) of D values a frame the negative ELBO is, divided by
        D / (2 s^2), MSE + (2 s^2 / D) * KL, and the s^2 that maximizes the ELBO is the MSE itself (Rybkin et
        al. 2021: the optimal sigma-VAE).
        """
        if self.kl_reduction == "mean":
            return 1 / mu[0, 0].numel()
        if self.kl_reduction == "elbo":
            return 2 * distributed.mean(mse.detach()) / predicted.shape[1] / predicted[0, 0].numel()
        return 1.0
