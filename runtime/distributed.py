"""Several processes that share a run, started by torchrun; a single process is rank 0 of 1.

All ranks draw the same random numbers for the whole step, and each takes its own part of them: a step of N
ranks equals a step of one rank with N times the batch, and a checkpoint continues with any number of ranks.
"""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from runtime import cli

# The time that other ranks wait for rank 0 to decode a dataset, or to validate.
TIMEOUT = timedelta(hours=1)


def is_launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def local_rank() -> int:
    """The number of this process among those of its machine; other programs than torchrun may set it, too."""
    return int(os.environ.get("LOCAL_RANK", 0)) if is_launched() else 0


def local_world_size() -> int:
    """The number of processes on this machine that share the run."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_launched() else 1


def rank() -> int:
    """The number of this process among all."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes that share the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def launch(count: int, script: str, argv: list[str]) -> None:
    """Run a script in `count` processes on this machine; returns if all end well.

    Raises:
        SystemExit: with the exit code of the process that failed first, which has printed the reason.
        Stopped: by a signal.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        torchrun(["--standalone", f"--nproc_per_node={count}", script, *argv])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        raise SystemExit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode) from None
    except SignalException as stop:
        cli.ignore_signals()  # torchrun's handlers raise again
        raise cli.Stopped(stop.sigval) from None


@contextlib.contextmanager
def group() -> Iterator[None]:
    """The connection between the ranks, if torchrun started them; only rank 0 prints.

    Raises:
        UserError: another rank has ended.
    """
    if not is_launched():
        yield
        return
    # A thread of gloo that asks for the interpreter while this ends aborts the process.
    cli.end_at_once()
    dist.init_process_group(timeout=TIMEOUT)
    with contextlib.ExitStack() as stack:
        if rank():
            null = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(null))
        try:
            yield
            dist.barrier()  # a rank that leaves while another still works can abort it
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise cli.UserError(
                "lost the other processes; the line of the first that ended says why"
            ) from None
        dist.destroy_process_group()


@contextlib.contextmanager
def local_rank_0_first() -> Iterator[None]:
    """The first process of a machine runs the block before the others, such as decoding the dataset."""
    if dist.is_initialized() and local_rank():
        dist.barrier()
    yield
    if dist.is_initialized() and not local_rank():
        dist.barrier()


def check_same(values: list, what: str) -> None:
    """Refuse to share a run between ranks that have other values than rank 0, which would wait for ever.

    Raises:
        UserError: on a rank that differs.
    """
    if world_size() == 1:
        return
    of_ranks: list = [None] * world_size()
    dist.all_gather_object(of_ranks, values)
    if values != of_ranks[0]:
        counts = f"{len(values)} instead of {len(of_ranks[0])}"
        raise cli.UserError(f"other {what} than on rank 0 ({counts}); give all machines the same data")


def data_parallel(model: nn.Module, device: torch.device) -> nn.Module | None:
    """The model wrapped to average gradients over the ranks; None for a single rank."""
    if world_size() == 1:
        return None
    return nn.parallel.DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def sync_batchnorm(model: nn.Module, device: torch.device) -> nn.Module:
    """Have BatchNorm normalize by the pictures of all ranks; torch has this on CUDA alone."""
    if world_size() == 1 or device.type != "cuda":
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def all_mean(values: Tensor) -> Tensor:
    """The mean over the ranks of a tensor that each of them has."""
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / world_size()


def broadcast_from_0(value: float, device: torch.device) -> float:
    """Rank 0's value, on all ranks: clocks differ, and decisions that depend on them must not."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(tensor, 0)
    return tensor.item()


def draw(random: Callable[..., Tensor], count: int, *shape: int, device: torch.device) -> Tensor:
    """This rank's `(count, *shape)` of the random numbers that are drawn for all ranks.

    Args:
        random: torch.rand or torch.randn.
    """
    drawn = random(world_size() * count, *shape, device=device)
    return drawn[rank() * count :][:count]
