"""Two ranks on the CPU: copies of this process, and once processes that torchrun starts."""

import csv
import os
import socket
import subprocess
import sys
import tempfile

import pytest
import torch

import Trainer
from modules import VAE_Model
from runtime import cli
from tests.helpers import FORKS, ROOT, SMALL_UNET, load_libraries, one_thread, start, wait
from training import checkpoint

# Clips so short that the dataset has enough of them for the step of all ranks.
FLAGS = [
    *SMALL_UNET, "--train_vi_len=4", "--device=cpu", "--precision=fp32", "--num_epoch=4", "--per_val=2",
    "--lr_warmup=0", "--lr=0.002", "--augment=affine",
]  # fmt: skip

pytestmark = pytest.mark.skipif(not FORKS, reason="ranks are copies of this process")


def command(dataset, folder, *flags):
    return ["--DR", str(dataset), "--save_root", str(folder), *FLAGS, *flags]


def run_on_ranks(argv, ranks=2):
    """Run Trainer.py in a process per rank, as torchrun does; returns exit codes, output and errors."""
    load_libraries()
    with socket.socket() as server:
        server.bind(("localhost", 0))
        port = server.getsockname()[1]
    shared = {
        "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
    }  # fmt: skip

    def run(rank):
        os.environ |= shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        sys.argv = ["Trainer.py"]
        cli.prepare()
        cli.run(lambda: Trainer.main(argv))

    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        children = [
            start(lambda rank=rank: run(rank), output.fileno(), errors.fileno()) for rank in range(ranks)
        ]
        codes = [wait(child, 60) for child in children]
        output.seek(0)
        errors.seek(0)
        return codes, output.read(), errors.read()


def losses(folder):
    with (folder / "history.csv").open() as file:
        return [(float(row["loss"]), float(row["kl"])) for row in csv.DictReader(file)]


def assert_same_curve(folder, other):
    torch.testing.assert_close(torch.tensor(losses(folder)), torch.tensor(losses(other)), rtol=2e-3, atol=0)
    weights, others = (checkpoint.read(run / "last.ckpt")["state_dict"] for run in (folder, other))
    torch.testing.assert_close(weights, others, rtol=1e-2, atol=1e-4)


@pytest.mark.usefixtures("no_images")
def test_two_ranks_learn_what_one_learns_with_twice_the_batch(dataset, tmp_path):
    """Augmentation, noise and the choice of clips included."""
    one, two, resumed = (tmp_path / name for name in ("one", "two", "resumed"))
    Trainer.main(command(dataset, one, "--batch_size=4"))
    codes, output, errors = run_on_ranks(command(dataset, two, "--batch_size=2"))
    assert codes == [0, 0], errors
    assert_same_curve(two, one)
    # Only rank 0 writes.
    assert output.count("AVG PSNR") == 3  # epochs 0, 2 and the last
    assert output.count("best: ") == 1
    assert errors.count("Epoch 3") == 2  # the bars of training and validation
    assert len(list((two / "tensorboard").glob("events*"))) == 1
    # One rank continues what two have started.
    content = checkpoint.read(two / "epoch=0.ckpt")
    content["args"]["batch_size"] = 4
    resumed.mkdir()
    checkpoint.write(resumed / "last.ckpt", content)
    Trainer.main(["--DR", str(dataset), "--save_root", str(resumed), "--resume", "--device=cpu"])
    assert_same_curve(resumed, one)


@pytest.mark.usefixtures("no_images")
def test_ranks_average_shared_gradients(dataset, tmp_path, monkeypatch):
    """As on GPUs, where a rollout has one gradient per weight."""
    forward = VAE_Model.forward
    monkeypatch.setattr(
        VAE_Model, "forward", lambda *args, share_gradients: forward(*args, share_gradients=True)
    )
    flags = ["--tfr=0", "--num_epoch=1"]
    Trainer.main(command(dataset, tmp_path / "one", "--batch_size=4", *flags))
    codes, _, errors = run_on_ranks(command(dataset, tmp_path / "two", "--batch_size=2", *flags))
    assert codes == [0, 0], errors
    assert_same_curve(tmp_path / "two", tmp_path / "one")


def test_user_s_error_is_said_once_and_ends_all_ranks(tmp_path):
    codes, _, errors = run_on_ranks(command(tmp_path / "nowhere", tmp_path / "run"))
    assert codes == [2, 2] and "Traceback" not in errors
    assert errors.count("no such folder") == 1, errors


def test_rank_with_other_data_ends_all_ranks(dataset, tmp_path, monkeypatch):
    clip_dataset = Trainer.ClipDataset

    def fewer_on_rank_1(args):
        args.partial = 0.8 if os.environ["RANK"] == "1" else 1.0
        return clip_dataset(args)

    monkeypatch.setattr(Trainer, "ClipDataset", fewer_on_rank_1)
    codes, _, errors = run_on_ranks(command(dataset, tmp_path / "run"))
    assert codes == [2, 2] and "Traceback" not in errors
    assert "rank 1: training frames differ from rank 0 (19 instead of 24)" in errors, errors


LAUNCH = """
import Trainer
from modules import VAE_Model
from runtime import cli
cli.prepare()
Trainer.num_gpus = lambda name, gpu: gpu  # processes on the CPU
cli.run(Trainer.main)
"""


def test_failure_on_several_gpus_ends_in_one_line_without_torchrun_s_traceback(tmp_path):
    """`--gpu 2` starts two processes with torchrun."""
    argv = command(tmp_path / "nowhere", tmp_path / "run", "--gpu=2")
    environment = one_thread() | {"PYTHONPATH": str(ROOT)}
    settings = {"capture_output": True, "text": True, "timeout": 120, "env": environment}
    done = subprocess.run([sys.executable, "-c", LAUNCH, *argv], check=False, **settings)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("no such folder") == 1
