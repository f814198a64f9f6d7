"""A run that is killed between any two writes, and resumed, leaves what an undisturbed run leaves."""

import numpy as np
import pytest

from tests.helpers import FORKS, SMALL_UNET
from tests.killing import contents, train

FLAGS = [
    *SMALL_UNET, "--train_vi_len=4", "--start_vi_len=4", "--num_epoch=3", "--per_val=2", "--per_save=2",
    "--device=cpu",
]  # fmt: skip
KILLS = 4

pytestmark = pytest.mark.skipif(not FORKS, reason="kills copies of this process")


def run(dataset, folder, kill_at=None, log=None):
    """Start or, if an epoch was finished, resume a run."""
    shared = ["--DR", str(dataset), "--save_root", str(folder)]
    is_started = (folder / "last.ckpt").exists()
    flags = ["--resume", "--device=cpu"] if is_started else [*FLAGS, "--overwrite"]
    return train([*shared, *flags], folder, kill_at, log)


@pytest.fixture(scope="module")
def undisturbed(dataset, finished_run, tmp_path_factory):
    """What the folder holds, and the number of writes to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run(dataset, folder / "run", log=folder / "log") == 0
    return contents(folder / "run"), len((folder / "log").read_text().splitlines())


def assert_same_folder(folder, expected):
    found = contents(folder)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.parametrize("kill", range(KILLS))
def test_folder_of_a_killed_and_resumed_run_is_that_of_an_undisturbed_one(
    dataset, undisturbed, tmp_path, kill
):
    expected, writes = undisturbed
    # One kill in each part of the run; the part of a run in which it falls is the same each time.
    at = int((kill + np.random.default_rng(kill).random()) / KILLS * writes)
    assert run(dataset, tmp_path, kill_at=at) == -9
    assert run(dataset, tmp_path) == 0
    assert_same_folder(tmp_path, expected)


def test_resume_writes_what_is_missing_even_if_it_is_killed_while_it_does(dataset, undisturbed, tmp_path):
    assert run(dataset, tmp_path) == 0
    for name in ("best.ckpt", "epoch=2.ckpt", "history.csv", "args.json", "losses.png"):
        (tmp_path / name).unlink()
    (tmp_path / ".last.0123abcd.tmp.ckpt").write_text("half")
    assert run(dataset, tmp_path, kill_at=12) == -9
    assert run(dataset, tmp_path) == 0
    assert_same_folder(tmp_path, undisturbed[0])
