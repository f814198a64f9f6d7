"""Small real things for the tests: a dataset of PNG files, a model's flags, and the scripts."""

import contextlib
import functools
import io
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import utils

ROOT = Path(__file__).parent.parent
LAB_FORMAT_KEYS = {"state_dict", "optimizer", "lr", "tfr", "last_epoch"}
SIZES = {"F_dim": 8, "L_dim": 4, "N_dim": 4, "D_out_dim": 8}
HEIGHT, WIDTH = 8, 16
MAX_SECONDS = 300  # for a script to end
# The user's CUDA_VISIBLE_DEVICES, which pytest's workers inherit; conftest.py hides all GPUs.
USER_GPUS = os.environ.setdefault("USER_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
FORKS = sys.platform == "linux"  # elsewhere a fork of a process that has loaded torch may fail

# A model and clips so small that an epoch takes a moment.
SMALL_PICTURES = [f"--frame_H={HEIGHT}", f"--frame_W={WIDTH}", "--val_vi_len=6"]
SMALL_MODEL = ["--arch=lab", *(f"--{name}={value}" for name, value in SIZES.items()), *SMALL_PICTURES]
SMALL_UNET = ["--F_dim=8", "--L_dim=8", "--D_out_dim=8", *SMALL_PICTURES]
# The protocol of the course lab, on small clips.
SMALL_RUN = ["--recipe=lab", "--z=mean", *SMALL_MODEL, "--train_vi_len=4", "--num_epoch=1", "--device=cpu"]


def has_gpu() -> bool:
    """Whether a new process can use CUDA; asked there, because the answer would initialize CUDA here."""
    if not torch.version.cuda or not Path("/dev/nvidiactl").exists():
        return False
    question = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    with pytest.MonkeyPatch.context() as patch:
        show_gpus(patch)
        return not subprocess.run([sys.executable, "-c", question], check=False).returncode


def show_gpus(patch: pytest.MonkeyPatch) -> None:
    """Let new processes see the GPUs that the user sees."""
    patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if USER_GPUS != "all":
        patch.setenv("CUDA_VISIBLE_DEVICES", USER_GPUS)


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
    """Smoothly changing RGB images, `frame000000.png` and on; if they are labels, half of each is white."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    colours = rng.integers(60, 200, (3, 4, 3), dtype=np.uint8)
    for index, number in enumerate(numbers if numbers is not None else range(count)):
        image = Image.fromarray(np.roll(colours, index, axis=1)).resize(size)
        if "label" in folder.name + folder.parent.name:
            image.paste("white", (0, 0, size[0], size[1] // 2))
        image.save(folder / f"frame{number:06d}.png")


def write_dataset(root: Path, train=24, val=6, test=6, sequences=2, truth=True, **settings) -> Path:
    """A dataset folder (docs/compatibility.md, "Data")."""
    for seed, kind in enumerate(("img", "label")):
        write_pictures(root / "train" / f"train_{kind}", train, seed, **settings)
        write_pictures(root / "val" / f"val_{kind}", val, seed + 2, **settings)
    for i in range(sequences):
        write_pictures(root / "test" / "test_img" / str(i), 1, seed=10 + i, **settings)
        write_pictures(root / "test" / "test_label" / str(i), test, seed=20 + i, **settings)
        if truth:
            write_pictures(root / "test" / "test_gt" / str(i), test, seed=10 + i, **settings)
    return root


def draw_nothing(set_attribute=setattr) -> None:
    """Replace GIFs and plots by short texts: they take most of the time of so small a run."""
    for name in ("save_gif", *(name for name in dir(utils) if name.startswith("plot_"))):
        set_attribute(utils, name, lambda path, *_: path.write_text("an image"))


def one_thread() -> dict:
    """An environment in which a script uses one thread, because tests run side by side."""
    return os.environ | {"OMP_NUM_THREADS": "1"}


def start(function: Callable[[], object], output: int | None = None, errors: int | None = None) -> int:
    """Call a function in a forked copy of this process; returns its process id.

    Args:
        output, errors: file descriptors of its standard output and standard error; nowhere if not given.
    """
    if child := os.fork():
        return child
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for standard, descriptor in enumerate((output, errors), 1):
            os.dup2(null if descriptor is None else descriptor, standard)
        sys.stdout, sys.stderr = (open(standard, "w", closefd=False) for standard in (1, 2))  # noqa: SIM115
        function()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def wait(child: int, seconds: float = MAX_SECONDS) -> int:
    """The exit code of a process, when it has ended; -N after signal N.

    Raises:
        TimeoutError: it has not ended by itself; then it is killed.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"process {child} did not end within {seconds} s")


@functools.cache
def load_libraries() -> None:
    """Train and render briefly, so that copies of this process need not load what is loaded on first use."""
    import Tester
    import Trainer

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        root = write_dataset(Path(folder) / "data")
        shared = ["--DR", str(root), "--device=cpu", "--save_root", str(root / "run")]
        Trainer.main([*shared, *SMALL_RUN])
        Tester.main([*shared, "--ckpt_path", str(root / "run" / "last.ckpt"), "--mp4"])


def start_script(name: str, *arguments, output=None, errors=None, preexec_fn=None, cwd=None) -> int:
    """Run Trainer.py, Tester.py or a tool in a copy of this process, which has loaded the libraries.

    Args:
        output, errors: see `start`.
        preexec_fn: called before, in the copy.
        cwd: its current folder.
    """
    load_libraries()

    def execute() -> None:
        os.chdir(cwd or os.curdir)
        sys.argv = [str(ROOT / name), *map(str, arguments)]
        if preexec_fn:
            preexec_fn()
        runpy.run_path(sys.argv[0], run_name="__main__")

    return start(execute, output, errors)


def run_script(name: str, *arguments, preexec_fn=None, cwd=None) -> subprocess.CompletedProcess:
    """Run a script as a user does, to its end; output is text. See `start_script`."""
    command = [sys.executable, str(ROOT / name), *map(str, arguments)]
    if not FORKS:
        settings = {"preexec_fn": preexec_fn, "cwd": cwd, "timeout": MAX_SECONDS, "env": one_thread()}
        return subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        descriptors = {"output": output.fileno(), "errors": errors.fileno()}
        code = wait(start_script(name, *arguments, **descriptors, preexec_fn=preexec_fn, cwd=cwd))
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
    return subprocess.CompletedProcess(command, code, *texts)


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
