"""A run that is killed between any two writes, and resumed, leaves what an undisturbed run leaves."""

import numpy as np
import pytest

from tests.helpers import FORKS, SMALL_UNET, load_libraries
from tests.killing import contents, train

FLAGS = [
    *SMALL_UNET, "--train_vi_len=4", "--start_vi_len=4", "--num_epoch=3", "--per_val=2", "--per_save=2",
    "--device=cpu",
]  # fmt: skip
KILLS = 8

pytestmark = pytest.mark.skipif(not FORKS, reason="kills copies of this process")


def new_run(dataset, folder):
    return ["--DR", str(dataset), "--save_root", str(folder), *FLAGS]


def resumed(dataset, folder):
    return ["--DR", str(dataset), "--save_root", str(folder), "--resume", "--device=cpu"]


@pytest.fixture(scope="module")
def undisturbed(dataset, tmp_path_factory):
    """What the folder holds, and the number of writes to it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    log = folder / "log"
    load_libraries()
    assert train(new_run(dataset, folder / "run"), folder / "run", log=log) == 0
    return contents(folder / "run"), len(log.read_text().splitlines())


def continue_run(dataset, folder, kill_at=None):
    """Begin again if no epoch was finished, else resume."""
    begun = (folder / "last.ckpt").exists()
    command = resumed(dataset, folder) if begun else [*new_run(dataset, folder), "--overwrite"]
    return train(command, folder, kill_at)


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
    assert train(new_run(dataset, tmp_path), tmp_path, kill_at=at) == -9
    assert continue_run(dataset, tmp_path) == 0
    assert_same_folder(tmp_path, expected)


def test_run_that_is_killed_again_while_it_repairs_its_folder_is_repaired_later(
    dataset, undisturbed, tmp_path
):
    expected, writes = undisturbed
    assert train(new_run(dataset, tmp_path), tmp_path, kill_at=writes * 2 // 3) == -9
    assert continue_run(dataset, tmp_path, kill_at=12) == -9
    assert continue_run(dataset, tmp_path) == 0
    assert_same_folder(tmp_path, expected)


def test_finished_run_gets_its_missing_files_back(dataset, undisturbed, tmp_path):
    assert train(new_run(dataset, tmp_path), tmp_path) == 0
    for name in ("best.ckpt", "epoch=2.ckpt", "history.csv", "args.json", "losses.png"):
        (tmp_path / name).unlink()
    (tmp_path / ".last.0123abcd.tmp.ckpt").write_text("half")
    assert continue_run(dataset, tmp_path) == 0
    assert_same_folder(tmp_path, undisturbed[0])
