"""Data parallelism over processes that torchrun starts; a single process is rank 0 of 1.

All ranks draw the same random numbers for the whole step and take their own part: a step of N ranks equals
a step of one rank with N times the batch, and a checkpoint continues with any number of ranks.
"""

import contextlib
import logging
import os
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from runtime import cli

# Other ranks wait while rank 0 decodes the dataset or validates.
TIMEOUT = timedelta(hours=1)


def is_launched() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def local_rank() -> int:
    """The number of this process on its machine; other launchers than torchrun may set LOCAL_RANK, too."""
    return int(os.environ.get("LOCAL_RANK", 0)) if is_launched() else 0


def local_world_size() -> int:
    """The number of processes on this machine that share the run."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if is_launched() else 1


def rank() -> int:
    """Global rank of this process."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes that share the run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def launch(count: int, script: str, argv: list[str]) -> None:
    """Run a script in `count` processes on this machine; exits with the first failing process's code."""
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
        cli.ignore_signals()  # torchrun's handlers would raise again
        raise cli.Stopped(stop.sigval) from None


@contextlib.contextmanager
def group() -> Iterator[None]:
    """The process group of the ranks, if torchrun started them; only rank 0 prints."""
    if not is_launched():
        yield
        return
    # By default newer torch has only nccl on a GPU machine; `_barrier` and --device cpu need gloo.
    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if has_nccl else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    with contextlib.ExitStack() as stack:
        if rank():
            null = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(null))
        try:
            yield
            _barrier()  # a rank that leaves while another still works can abort it
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise cli.UserError("lost the other ranks; see the error of the first rank to fail") from None
        dist.destroy_process_group()


@contextlib.contextmanager
def local_rank_0_first() -> Iterator[None]:
    """Run the block on local rank 0 before the other ranks, for example to decode the dataset."""
    if dist.is_initialized() and local_rank():
        _barrier()
    yield
    if dist.is_initialized() and not local_rank():
        _barrier()


def _barrier() -> None:
    """Wait for all ranks. On the CPU, because nccl's barrier guesses which GPU a rank uses."""
    dist.all_reduce(torch.zeros(1))


def check_same(values: list, what: str) -> None:
    """Raise a `UserError` if this rank's values differ from rank 0's, which would cause a deadlock."""
    if world_size() == 1:
        return
    own = torch.tensor([len(values), zlib.crc32(repr(values).encode())])
    by_rank = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(by_rank, own)
    if not own.equal(by_rank[0]):
        counts = f"{len(values)} instead of {by_rank[0][0]}"
        raise cli.UserError(f"{what} differ from rank 0 ({counts}); use the same data on all machines")


def data_parallel(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, wrapped to average gradients over the ranks if there are several.

    On CUDA, BatchNorm then normalizes over the batches of all ranks; torch has this nowhere else.
    """
    if world_size() == 1:
        return model
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place
    return nn.parallel.DistributedDataParallel(
        model, device_ids=[device] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def all_gather(*tensors: Tensor) -> list[Tensor]:
    """Each tensor concatenated over the ranks, along its first dimension; without gradients."""
    if world_size() == 1:
        return [tensor.detach() for tensor in tensors]
    gathered = []
    for tensor in tensors:
        parts = [torch.empty_like(tensor) for _ in range(world_size())]
        dist.all_gather(parts, tensor.detach().contiguous())
        gathered.append(torch.cat(parts))
    return gathered


def all_mean(values: Tensor) -> Tensor:
    """The mean of a tensor over the ranks."""
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total / world_size()


def broadcast(value: float, device: torch.device) -> float:
    """Rank 0's value, on all ranks: clocks differ, and decisions that depend on them must not."""
    if world_size() == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(tensor, 0)
    return tensor.item()


def draw(random: Callable[..., Tensor], batch_size: int, *shape: int, device: torch.device) -> Tensor:
    """This rank's slice, `(batch_size, *shape)`, of the numbers that `random` draws for all ranks."""
    drawn = random(world_size() * batch_size, *shape, device=device)
    return drawn[rank() * batch_size :][:batch_size]
