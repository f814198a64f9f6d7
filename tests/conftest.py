import os
import shutil
import signal

import pytest
import torch

from runtime import cli
from tests.helpers import SMALL_RUN, assert_succeeds, draw_nothing, run_script, write_dataset

torch.set_num_threads(1)  # the tests run side by side
# Tests fork this process, and a forked process cannot use CUDA; tests/test_gpu.py spawns its processes.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# As in a terminal, and not as under nohup.
HANDLERS = dict.fromkeys(cli.STOP_SIGNALS, signal.SIG_DFL) | {signal.SIGINT: signal.default_int_handler}


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """Answer signals as a new process does: a script whose main was called here ends by ignoring them."""
    for signum, handler in HANDLERS.items():
        signal.signal(signum, handler)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A dataset that no test changes."""
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def data(dataset, tmp_path):
    """A copy of the dataset, to be damaged."""
    return shutil.copytree(dataset, tmp_path / "data", ignore=shutil.ignore_patterns(".frame_cache"))


@pytest.fixture(scope="session")
def finished_run(dataset, tmp_path_factory):
    """The folder of a training run of two epochs, which no test changes, and what it printed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = run_script(
        "Trainer.py", "--DR", dataset, "--save_root", folder, *SMALL_RUN, "--num_epoch=2", "--per_save=1"
    )
    assert_succeeds(done)
    return folder, done


@pytest.fixture(scope="session")
def ckpt(finished_run):
    """The last checkpoint of `finished_run`."""
    return finished_run[0] / "last.ckpt"


@pytest.fixture
def no_images(monkeypatch):
    """Draw no GIFs and plots, in this process and its copies."""
    draw_nothing(monkeypatch.setattr)
