import pytest

import Trainer
from runtime.cli import UserError
from tests.tools.synthetic import run
from tests.tools.web import launch
from tools.web import packages


@pytest.fixture(scope="module")
def starter():
    """Playwright, which starts browsers."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as starter:
        yield starter


@pytest.fixture(scope="module")
def browser(starter):
    browser = launch(starter)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    """A synthetic dataset, and a checkpoint that was trained on it."""
    root = tmp_path_factory.mktemp("person")
    frames = ["--val_frames=24", "--test_frames=24", "--test_sequences=1"]
    run(root / "data", "--size=64x32", "--train_frames=60", *frames)
    flags = ["--F_dim=16", "--L_dim=16", "--D_out_dim=24", "--num_epoch=10", "--per_val=10", "--device=cpu"]
    Trainer.main(["--DR", str(root / "data"), "--save_root", str(root / "run"), *flags])
    return root


@pytest.fixture(scope="session")
def npm_packages():
    """The npm packages of the web demo; a machine without a network has none."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("tflite")
    try:
        for package in (packages.RUNTIME, packages.GIF, packages.POSE):
            packages.package_folder(package, None)
    except UserError as refusal:
        pytest.skip(str(refusal))
