import pytest

import Trainer
from tests.helpers import SMALL_UNET


@pytest.fixture(scope="session")
def unet_run(dataset, tmp_path_factory):
    """The folder of a run of small `unet` networks, with a checkpoint of each epoch; no test changes it."""
    folder = tmp_path_factory.mktemp("unet") / "run"
    shared = ["--DR", str(dataset), "--save_root", str(folder), "--device=cpu", "--per_save=1"]
    Trainer.main([*shared, *SMALL_UNET, "--num_epoch=2", "--train_vi_len=4"])
    return folder
