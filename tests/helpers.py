"""Small real things for the tests: a dataset of PNG files, a model's flags, and the scripts."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parent.parent
LAB_FORMAT_KEYS = {"state_dict", "optimizer", "lr", "tfr", "last_epoch"}
SIZES = {"F_dim": 8, "L_dim": 4, "N_dim": 4, "D_out_dim": 8}
HEIGHT, WIDTH = 8, 16

# A model and clips so small that an epoch takes a moment.
SMALL_PICTURES = [f"--frame_H={HEIGHT}", f"--frame_W={WIDTH}", "--val_vi_len=6"]
SMALL_MODEL = ["--arch=lab", *(f"--{name}={value}" for name, value in SIZES.items()), *SMALL_PICTURES]
SMALL_UNET = ["--F_dim=8", "--L_dim=8", "--D_out_dim=8", *SMALL_PICTURES]
# The protocol of the course lab, on small clips.
SMALL_RUN = ["--recipe=lab", "--z=mean", *SMALL_MODEL, "--train_vi_len=4", "--num_epoch=1", "--device=cpu"]


def small_model(**changes):
    """Flags of a small VAE_Model of the `lab` architecture, with some changes."""
    return SimpleNamespace(**({"arch": "lab"} | SIZES | changes))


def random_clips(batch=2, length=5, height=HEIGHT, width=WIDTH, seed=0):
    """Frames and poses `(B, T, 3, H, W)` in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, length, 3, height, width)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


def random_uint8_clips(**settings):
    """Frames and poses `(B, T, H, W, 3)` uint8, as a step takes them; `settings` of `random_clips`."""
    return [(255 * clip).round().to(torch.uint8).movedim(2, -1) for clip in random_clips(**settings)]


def write_pictures(folder: Path, count: int, seed=0, size=(2 * WIDTH, 2 * HEIGHT), numbers=None):
    """Smoothly changing RGB pictures, `frame000000.png` and on."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    ground = rng.integers(60, 200, (3, 4, 3), dtype=np.uint8)
    for index, number in enumerate(numbers if numbers is not None else range(count)):
        picture = Image.fromarray(np.roll(ground, index, axis=1)).resize(size)
        picture.save(folder / f"frame{number:06d}.png")


def write_dataset(root: Path, train=24, val=6, test=6, sequences=2, truth=True, **settings) -> Path:
    """A dataset folder (docs/contract.md, "Data")."""
    for seed, kind in enumerate(("img", "label")):
        write_pictures(root / "train" / f"train_{kind}", train, seed, **settings)
        write_pictures(root / "val" / f"val_{kind}", val, seed + 2, **settings)
    for i in range(sequences):
        write_pictures(root / "test" / "test_img" / str(i), 1, seed=10 + i, **settings)
        write_pictures(root / "test" / "test_label" / str(i), test, seed=20 + i, **settings)
        if truth:
            write_pictures(root / "test" / "test_gt" / str(i), test, seed=10 + i, **settings)
    return root


def one_thread() -> dict:
    """An environment in which a script does not compete with the other tests for the processor."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def run_script(name: str, *arguments, **settings) -> subprocess.CompletedProcess:
    """Run Trainer.py, Tester.py or a tool as a user does; output is text."""
    command = [sys.executable, str(ROOT / name), *map(str, arguments)]
    settings = {"capture_output": True, "text": True, "timeout": 300, "env": one_thread(), **settings}
    return subprocess.run(command, check=False, **settings)


def assert_succeeds(done: subprocess.CompletedProcess) -> str:
    """The run's output, after checking that it ended well."""
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def assert_user_error(done: subprocess.CompletedProcess, *words: str) -> None:
    """Exit code 2, one line that says the words, and no traceback."""
    assert done.returncode == 2, (done.returncode, done.stderr[-2000:])
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.replace("\r", "\n").split("\n") if ".py: " in line]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0], lines[0]
