"""Two processes on the CPU, started by torchrun as a user starts them."""

import csv
import os
import re
import subprocess
import sys

import pytest
import torch

from tests.helpers import ROOT, SMALL_UNET, assert_succeeds, one_thread, run_script
from training import checkpoint

# Clips so short that the dataset has enough of them for the step of all ranks.
FLAGS = [
    *SMALL_UNET, "--train_vi_len=4", "--device=cpu", "--precision=fp32", "--num_epoch=4", "--per_val=2",
    "--lr_warmup=0", "--lr=0.002",
]  # fmt: skip


def torchrun(script, *arguments, ranks=2, **settings):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}",
        str(script), *map(str, arguments),
    ]  # fmt: skip
    settings = {"capture_output": True, "text": True, "timeout": 120, "env": one_thread(), **settings}
    return subprocess.run(command, check=False, **settings)


def losses(folder):
    with (folder / "history.csv").open() as file:
        return [(float(row["loss"]), float(row["kl"])) for row in csv.DictReader(file)]


def run(dataset, folder, *flags):
    return ["--DR", dataset, "--save_root", folder, *FLAGS, *flags]


@pytest.fixture(scope="module")
def two_ranks(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    return folder, torchrun(ROOT / "Trainer.py", *run(dataset, folder, "--batch_size=2"))


@pytest.fixture(scope="module")
def one_rank(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rank")
    assert_succeeds(run_script("Trainer.py", *run(dataset, folder, "--batch_size=4")))
    return folder


def assert_same_curve(folder, other):
    torch.testing.assert_close(torch.tensor(losses(folder)), torch.tensor(losses(other)), rtol=2e-3, atol=0)
    weights, others = (checkpoint.read(run / "last.ckpt")["state_dict"] for run in (folder, other))
    torch.testing.assert_close(weights, others, rtol=1e-2, atol=1e-4)


def test_two_ranks_learn_what_one_learns_with_twice_the_batch(two_ranks, one_rank):
    """Augmentation, noise and the choice of clips included."""
    folder, done = two_ranks
    assert_succeeds(done)
    assert_same_curve(folder, one_rank)


def test_only_rank_0_writes_and_prints(two_ranks):
    folder, done = two_ranks
    assert done.stdout.count("AVG PSNR") == 3  # epochs 0, 2 and the last
    assert done.stdout.count("best: ") == 1
    assert done.stderr.replace("\r", "\n").count("Epoch 3") >= 1
    assert len(list((folder / "tensorboard").glob("events*"))) == 1


def test_run_goes_on_with_another_number_of_ranks(two_ranks, one_rank, dataset, tmp_path):
    """Two ranks begin what one ends, with the batch of both."""
    folder, _ = two_ranks
    begun = checkpoint.read(folder / "epoch=0.ckpt")
    begun["args"]["batch_size"] = 4
    checkpoint.write(tmp_path / "last.ckpt", begun)
    resume = ["--DR", dataset, "--save_root", tmp_path, "--resume", "--device=cpu"]
    assert_succeeds(run_script("Trainer.py", *resume))
    assert_same_curve(tmp_path, one_rank)


def test_user_s_mistake_ends_all_ranks_with_one_line(tmp_path):
    done = torchrun(ROOT / "Trainer.py", *run(tmp_path / "nowhere", tmp_path / "run"))
    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert done.stderr.count("no such folder") == 1


def test_failure_of_one_rank_ends_all_with_its_message(dataset, tmp_path):
    script = tmp_path / "broken.py"
    script.write_text(
        "import atexit, os, Trainer\n"
        "from runtime import cli\n"
        "atexit.register(os.abort)  # as a thread of gloo does now and then\n"
        "step = Trainer.TrainingStep.__call__\n"
        "def fail(self, *arguments, **settings):\n"
        "    if os.environ['RANK'] == '1':\n"
        "        raise cli.UserError('the disk of this machine is full')\n"
        "    step(self, *arguments, **settings)\n"
        "Trainer.TrainingStep.__call__ = fail\n"
        "cli.run(Trainer.main)\n"
    )
    environment = one_thread() | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    }
    done = torchrun(script, *run(dataset, tmp_path / "run"), env=environment)
    assert done.returncode != 0
    assert "rank 1: the disk of this machine is full" in done.stderr
    assert "best: " not in done.stdout
    assert re.search(r"exitcode +: 2 ", done.stderr), done.stderr


SEVERAL = """
import sys, Trainer
from runtime import cli
cli.prepare()
Trainer.gpu_count = lambda args: args.gpu
cli.run(Trainer.main)
"""


def run_on_several(dataset, folder, *flags):
    """The Trainer on a machine where `--gpu N` finds N devices (here processes on the CPU)."""
    environment = one_thread() | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SEVERAL, *map(str, run(dataset, folder, *flags))]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)


def test_several_gpus_get_a_process_each(dataset, tmp_path):
    done = run_on_several(dataset, tmp_path, "--gpu=2", "--batch_size=2", "--num_epoch=1")
    assert_succeeds(done)
    assert done.stdout.count("best: ") == 1
    assert checkpoint.read(tmp_path / "last.ckpt")["last_epoch"] == 0


def test_mistake_of_several_processes_ends_in_one_line_without_torchrun_s_traceback(tmp_path):
    done = run_on_several(tmp_path / "nowhere", tmp_path / "run", "--gpu=2")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("no such folder") == 1


def test_rank_with_other_data_says_so(dataset, tmp_path):
    script = tmp_path / "other.py"
    script.write_text(
        "import os, Trainer\n"
        "from runtime import cli\n"
        "clips = Trainer.TrainingClips\n"
        "def fewer(args):\n"
        "    args.partial = 0.8 if os.environ['RANK'] == '1' else 1.0\n"
        "    return clips(args)\n"
        "Trainer.TrainingClips = fewer\n"
        "cli.run(Trainer.main)\n"
    )
    done = torchrun(script, *run(dataset, tmp_path / "run"), env=one_thread() | {"PYTHONPATH": str(ROOT)})
    assert done.returncode != 0
    assert "rank 1: other frames of training than on rank 0 (19 instead of 24)" in done.stderr
