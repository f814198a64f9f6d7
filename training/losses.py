"""The training loss: reconstruction and KL divergence, as pure functions (docs/compatibility.md, "Loss").

Each rank computes its own share of the loss. Statistics over the batches of all ranks are arguments.
"""

from torch import Tensor

MAX_FRAME_WEIGHT = 5.0  # keeps a few easy frames from outweighing all others
MIN_MSE = 1e-5  # 50 dB


def kl_criterion(mu: Tensor, logvar: Tensor, batch_size: int) -> Tensor:
    """KL(N(mu, exp(logvar)) || N(0, I)), summed over all dimensions and divided by the batch size.

    Kingma and Welling 2014, appendix B.
    """
    return -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum() / batch_size


def reconstruction(frame_mse: Tensor, all_frame_mse: Tensor, kind: str) -> Tensor:
    """Reconstruction loss of a clip: the weighted MSE summed over time, a mean over the batch.

    Args:
        frame_mse: MSE of each frame, `(B, T-1)`.
        all_frame_mse: the same of all ranks, without gradients.
        kind: "mse", or "log_mse": a frame's weight is the mean MSE divided by its own MSE, at most
            `MAX_FRAME_WEIGHT`, normalized to a mean of 1. Its gradient is parallel to the mean PSNR's, and to
            an ELBO's with one optimal decoder variance per frame.
    """
    num_steps = frame_mse.shape[1]
    if kind == "mse":
        return frame_mse.mean() * num_steps

    def weights(mse: Tensor) -> Tensor:
        return (all_frame_mse.mean() / (mse + MIN_MSE)).clamp(max=MAX_FRAME_WEIGHT)

    weighted = weights(frame_mse.detach()) * frame_mse
    return weighted.mean() * num_steps / weights(all_frame_mse).mean()


def kl(
    mu: Tensor, logvar: Tensor, posterior_mask: Tensor, posterior_fraction: Tensor, scale: Tensor | float
) -> Tensor:
    """Scaled KL of the posterior, summed over a clip: the mean over the clips with z from the posterior.

    Args:
        mu, logvar: `(B, T-1, N_dim, h, w)`.
        posterior_mask: `(B,)`, 1 for clips with z from the posterior, 0 for clips with z = 0.
        posterior_fraction: the mean of the mask over all ranks.
        scale: see `kl_scale`.
    """
    mask = posterior_mask[:, None, None, None, None]
    divergence = kl_criterion(mu.float() * mask, logvar.float() * mask, len(mu))
    return divergence / posterior_fraction * scale


def kl_scale(reduction: str, all_frame_mse: Tensor, values_per_frame: int) -> Tensor | float:
    """KL scale: 1 for "sum"; for "elbo", the factor that makes beta = 1 the evidence lower bound.

    For a decoder N(predicted, s^2 I) of D values per frame, the negative ELBO times 2 s^2 / D is
    MSE + (2 s^2 / D) * KL, and the optimal s^2 is the MSE itself (Rybkin et al. 2021, optimal sigma-VAE).
    """
    return 2 * all_frame_mse.mean() / values_per_frame if reduction == "elbo" else 1.0
