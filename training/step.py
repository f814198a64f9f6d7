"""One update of the model: floats, augmentation, forward, loss, backward, clipping, optimizer.

Nothing here waits for the device except `TrainingStep.read`, so that a GPU is never idle between two steps.
"""

from functools import partial

import torch
from torch import Tensor, nn

from runtime import distributed
from runtime.cuda_graph import Graphed
from runtime.device import autocast, resolved_precision
from training.augment import augment
from training.loss_scale import LossScale
from training.muon import Muon
from training.pose_dropout import drop_poses
from utils import to_float

OPTIMIZERS = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW, "Muon": Muon}
MAX_GRAD_NORM = 1.0
LARGEST_WEIGHT = 5.0  # of a frame, so that a few easy frames do not outweigh all others
SMALLEST_MSE = 1e-5  # 50 dB


def kl_criterion(mu: Tensor, logvar: Tensor, batch_size: int) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, I)), summed over all dimensions and divided by the batch size.

    Kingma and Welling 2014, appendix B.

    Args:
        mu, logvar: of the same shape.
        batch_size: number of clips that the tensors hold.
    """
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum() / batch_size


def clip_loss(
    predicted: Tensor,
    truth: Tensor,
    mu: Tensor,
    logvar: Tensor,
    beta: Tensor | float,
    kl_reduction: str,
    mse_weights: str = "even",
    from_posterior: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of a clip, a mean over the batch: sum over time of the MSE + beta * KL (docs/contract.md, "Loss").

    Args:
        predicted, truth: `(B, T-1, 3, H, W)`, the frames 1 .. T-1.
        mu, logvar: `(B, T-1, N_dim, h, w)`.
        beta: weight of the KL.
        kl_reduction: "sum" over channels and pixels, "mean" over them, or "elbo", the weight at which beta 1
            is the evidence lower bound. For a decoder N(predicted, s^2 I) of D values a frame, the negative
            ELBO divided by D / (2 s^2) is MSE + (2 s^2 / D) * KL, and the s^2 that maximizes the ELBO is the
            MSE itself (Rybkin et al. 2021, optimal sigma-VAE).
        mse_weights: of the frames: "even", or "psnr", the mean MSE divided by the frame's own, at most
            `LARGEST_WEIGHT`, then all divided by their mean. The gradient has the direction of that of the
            mean PSNR, and of an ELBO in which s^2 of each frame is its own MSE.
        from_posterior: `(B,)`, 1 for clips with z from the posterior, 0 for those with z = 0, which have no
            KL; all from the posterior if not given.

    Returns:
        loss, mse, kl: scalars; `mse` with even weights; `kl` without beta, a mean over the clips with z from
        the posterior.
    """
    steps, values = predicted.shape[1], predicted[0, 0].numel()
    by_frame = (predicted.float() - truth).square().mean(dim=(2, 3, 4))
    mse = error = by_frame.mean() * steps
    mean = distributed.all_mean(mse.detach()) / steps
    if mse_weights == "psnr":
        weights = (mean / (by_frame.detach() + SMALLEST_MSE)).clamp(max=LARGEST_WEIGHT)
        error = (weights * by_frame).mean() * steps / distributed.all_mean(weights.mean())
    mu, logvar, share = mu.float(), logvar.float(), 1.0
    if from_posterior is not None:
        mu, logvar = (value * from_posterior[:, None, None, None, None] for value in (mu, logvar))
        share = distributed.all_mean(from_posterior.mean()).clamp(min=1e-6)
    kl = kl_criterion(mu, logvar, len(truth)) / share
    if kl_reduction == "mean":
        kl = kl * (1 / mu[0, 0].numel())
    elif kl_reduction == "elbo":
        kl = kl * (2 * mean / values)
    return error + beta * share * kl, mse, kl


def make_optimizer(model: nn.Module, args) -> torch.optim.Optimizer:
    """Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019) or `Muon`, by `--optim`.

    Fused: one launch for all parameters, and an update can be skipped on the device. On CUDA its learning
    rate is a tensor, which a recorded graph reads anew in each replay.
    """
    device = next(model.parameters()).device
    on_cuda = device.type == "cuda"
    lr = torch.tensor(args.lr, device=device) if on_cuda else args.lr
    return OPTIMIZERS[args.optim](
        model.parameters(), lr=lr, weight_decay=args.weight_decay, fused=True, capturable=on_cuda
    )


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Restore the moments of another optimizer of the same kind, possibly from another device."""
    own = optimizer.state_dict()["param_groups"]
    groups = [
        group | {"params": saved["params"]} for saved, group in zip(state["param_groups"], own, strict=True)
    ]
    optimizer.load_state_dict(state | {"param_groups": groups})


class TrainingStep:
    """Updates a model by one batch of clips at a time.

    An update whose loss or gradient is not finite changes nothing and is counted.

    Args:
        model: the `VAE_Model`.
        optimizer: from `make_optimizer`.
        args: `precision, kl_reduction, mse_weights, z_dropout, augment, pose_dropout, first_frame`.
        parallel: a wrapper of the model with the same forward, if several processes share a step.

    Attributes:
        updates: number of updates in the whole run, those included that were not finite.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, args, parallel: nn.Module | None = None
    ):
        self.model, self.optimizer = model, optimizer
        self.forward = parallel or model
        self.updates = 0
        self.precision = args.precision
        self.loss = partial(clip_loss, kl_reduction=args.kl_reduction, mse_weights=args.mse_weights)
        self.z_dropout, self.pose_dropout = args.z_dropout, args.pose_dropout
        self.first_apart = args.first_frame == "any"
        self.augmentations = () if args.augment == "none" else tuple(args.augment.split(","))
        self.device = device = next(model.parameters()).device
        self._beta = torch.zeros((), device=device)
        # A fused optimizer does nothing where this is 1; torch.amp.GradScaler skips updates in the same way.
        self._not_finite = optimizer.found_inf = torch.zeros((), device=device)
        # Since the last read: loss, mse and kl of the finite updates, their number, that of the others.
        self._sums = torch.zeros(5, device=device)
        # Updates skipped in a row: the current number, and the largest so far.
        self._in_a_row = torch.zeros(2, device=device)
        self._loss_scale = LossScale(device) if resolved_precision(args.precision, device) == "fp16" else None
        # A graph of one process cannot hold the communication with the others.
        records = device.type == "cuda" and parallel is None
        self._update = Graphed(self._compute) if records else self._compute

    @property
    def preparation_seconds(self) -> float:
        """What the search for algorithms and the recording of graphs took so far."""
        return self._update.seconds if isinstance(self._update, Graphed) else 0.0

    def __call__(self, *clips: Tensor, lr: float, beta: float, teacher_forcing: bool) -> None:
        """One update.

        Args:
            clips: frames and poses, uint8 `(B, T, H, W, 3)`, and, for the augmentation `paste`, backgrounds,
                uint8 `(B, H, W, 4)`, on the model's device.
            lr: learning rate.
            beta: weight of the KL term.
        """
        self._beta.fill_(beta)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        self._update(*clips, teacher_forcing=teacher_forcing)
        self.updates += 1

    def read(self) -> dict[str, float]:
        """What happened since the last read; waits for the device.

        Returns:
            Sums over the updates: `loss, mse, kl` (without beta) and `steps`, their number; `skipped`, the
            number of updates that were not finite; and `skipped_in_a_row`, their longest row in the run.
        """
        sums = torch.cat([distributed.all_mean(self._sums), self._in_a_row[1:]]).tolist()
        self._sums.zero_()
        return dict(zip(("loss", "mse", "kl", "steps", "skipped", "skipped_in_a_row"), sums, strict=True))

    def _compute(
        self, frames: Tensor, poses: Tensor, backgrounds: Tensor | None = None, *, teacher_forcing: bool
    ) -> None:
        """The update, without any work on the host."""
        frames, poses = to_float(frames), to_float(poses)
        backgrounds = None if backgrounds is None else to_float(backgrounds)
        if self.augmentations:
            frames, poses = augment(frames, poses, self.augmentations, backgrounds, self.first_apart)
        if self.pose_dropout:
            poses = drop_poses(poses, self.pose_dropout)
        batch, length, _, height, width = frames.shape
        latents = length - 1, *self.model.latent_shape(height, width)
        noise = distributed.draw(torch.randn, batch, *latents, device=frames.device)
        from_posterior = None
        if self.z_dropout:
            drawn = distributed.draw(torch.rand, batch, device=frames.device)
            from_posterior = (drawn >= self.z_dropout).float()
        with autocast(self.precision, frames.device):
            predicted, mu, logvar = self.forward(frames, poses, teacher_forcing, noise, from_posterior)
        truth = frames[:, 1:]
        losses = self.loss(predicted, truth, mu, logvar, self._beta, from_posterior=from_posterior)
        self.optimizer.zero_grad()
        if self._loss_scale:
            self._loss_scale.backward(losses[0], self.model.parameters())
        else:
            losses[0].backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
        finite = torch.isfinite(norm)
        self._not_finite.copy_(~finite)
        self.optimizer.step()
        if self._loss_scale:
            self._loss_scale.update(finite)
        self._count(finite, torch.stack(losses).detach())

    def _count(self, finite: Tensor, losses: Tensor) -> None:
        counts = torch.stack([finite, ~finite]).float()
        self._sums += torch.cat([torch.where(finite, losses, 0.0), counts])
        current = (self._in_a_row[0] + 1) * ~finite
        self._in_a_row.copy_(torch.stack([current, torch.maximum(current, self._in_a_row[1])]))
