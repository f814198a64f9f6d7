"""Several processes that share a run, as torchrun starts them; one alone is rank 0 of 1.

All ranks draw the same random numbers, for the whole step, and take their own rows of them: so a step of N
ranks is that of one rank with N times the batch, and a checkpoint goes on with any number of ranks.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .console import UserError

# Others wait as long as this for rank 0 to decode a dataset, or to validate.
PATIENCE = timedelta(hours=1)
PEER_IS_GONE = re.compile(
    r"closed by peer|reset by peer|broken pipe|gloo|nccl|TCPStore|socket", re.IGNORECASE
)


def is_launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def local_rank() -> int:
    """The number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", 0))


def rank() -> int:
    """The number of this process among all."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes share the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def launch(count: int) -> None:
    """Replace this process by `count` of it on this machine, started by torchrun."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    os.execv(sys.executable, [*torchrun, *sys.argv])


@contextlib.contextmanager
def group() -> Iterator[None]:
    """The connection to the other ranks, if torchrun started this one; all but rank 0 print nothing.

    Raises:
        UserError: another rank has ended.
    """
    if not is_launched():
        yield
        return
    dist.init_process_group(timeout=PATIENCE)
    with contextlib.ExitStack() as stack:
        if rank():
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        try:
            yield
        except RuntimeError as error:
            if PEER_IS_GONE.search(str(error)):
                raise UserError("ends, for another process of the run did") from error
            raise
        dist.destroy_process_group()


@contextlib.contextmanager
def first_here_first() -> Iterator[None]:
    """What the first rank of a machine does before the others, as to decode what they all will read."""
    if dist.is_initialized() and local_rank():
        dist.barrier()
    yield
    if dist.is_initialized() and not local_rank():
        dist.barrier()


def share(model: nn.Module, device: torch.device) -> nn.Module | None:
    """The model wrapped to average gradients over the ranks; None if there is but one."""
    if world_size() == 1:
        return None
    return nn.parallel.DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def with_shared_statistics(model: nn.Module, device: torch.device) -> nn.Module:
    """Have BatchNorm normalize by the pictures of all ranks, which torch can on CUDA alone."""
    if world_size() == 1 or device.type != "cuda":
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def mean(values: Tensor) -> Tensor:
    """The mean over the ranks of a tensor that each of them has."""
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / world_size()


def of_rank_zero(value: float, device: torch.device) -> float:
    """What rank 0 says, on all ranks: clocks differ, and what depends on them must not."""
    if world_size() == 1:
        return value
    said = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(said, 0)
    return said.item()


def rows(draw: Callable[..., Tensor], count: int, *shape: int, device: torch.device) -> Tensor:
    """This rank's `(count, *shape)` of the random numbers that are drawn for all ranks.

    Args:
        draw: torch.rand or torch.randn.
    """
    drawn = draw(world_size() * count, *shape, device=device)
    return drawn[rank() * count :][:count]
