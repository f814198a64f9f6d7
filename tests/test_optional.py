"""Both scripts without the packages that only tools, TensorBoard and MP4 need."""

import re
import subprocess
import sys

from tests.helpers import ROOT, SMALL_UNET, one_thread

OPTIONAL = ["scipy", "av", "tensorboard", "filelock", "onnx", "playwright", "ai_edge_litert"]
WITHOUT = f"""
import importlib.metadata, sys
missing = dict.fromkeys({OPTIONAL})
sys.modules |= missing  # to import them is an ImportError
find = importlib.metadata.distribution
def distribution(name):
    if name.replace("-", "_") in missing:
        raise importlib.metadata.PackageNotFoundError(name)
    return find(name)
importlib.metadata.distribution = distribution

import Tester, Trainer
script = sys.argv.index("Tester.py")
Trainer.main(sys.argv[1:script])
Tester.main(sys.argv[script + 1:])
"""


def test_scripts_do_without_optional_packages_and_say_what_to_install(dataset, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    data = ["--DR", dataset, "--device=cpu", "--save_root"]
    train = [*data, run, *SMALL_UNET, "--num_epoch=2"]
    test = [*data, out, "--ckpt", run / "best.ckpt", "--mp4", "--submission", "--samples=2"]
    settings = {"capture_output": True, "text": True, "timeout": 120, "env": one_thread(), "cwd": ROOT}
    command = [sys.executable, "-c", WITHOUT, *train, "Tester.py", *test]
    done = subprocess.run(command, check=False, **settings)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr, done.stderr
    assert len(re.findall(r"^.*pip install tensorboard.*$", done.stdout, re.M)) == 1
    assert len(re.findall(r"^--mp4: .*pip install av.*$", done.stdout, re.M)) == 1
    names = {path.name for path in run.iterdir()}
    assert {"last.ckpt", "best.ckpt", "history.csv", "losses.png", "val_epoch=1.gif"} <= names
    assert "tensorboard" not in names
    suffixes = {path.suffix for path in out.iterdir()}
    assert suffixes == {".gif", ".png", ".npz", ".csv", ".json"} and "SSIM: 0" in done.stdout
