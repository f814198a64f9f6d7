"""The scripts on CUDA: on a real GPU where there is one, else on a pretended one."""

import contextlib
import io

import pytest
import torch

import Tester
import Trainer
from tests.helpers import FORKS, SMALL_PICTURES
from tests.pretended_gpu import on_gpu
from training import options

REAL = torch.cuda.is_available()
SMALL = [
    "--F_dim=16", "--L_dim=8", "--D_out_dim=16", *SMALL_PICTURES, "--train_vi_len=4", "--start_vi_len=4",
    "--per_val=9", "--num_epoch=4", "--batch_size=2",
]  # fmt: skip

pytestmark = [
    pytest.mark.skipif(not (REAL or FORKS), reason="pretends in copies of this process"),
    pytest.mark.usefixtures("no_images"),
]


def train(dataset, folder, *flags):
    command = ["--DR", str(dataset), "--save_root", str(folder), *SMALL, *flags]
    run = Trainer.Run(options.trainer_args(command), None)
    run.train()
    return run


@pytest.mark.parametrize(
    "flags", ["--augment=affine,copy_paste --pose_dropout=0.2 --start_vi_len=2", "--recipe=lab"]
)
def test_training(dataset, tmp_path, flags):
    def check(gpu):
        run = train(dataset, tmp_path, *flags.split())
        assert run.device.type == "cuda" and len(run.history.rows) == 4
        assert run.loader.resident and run.update.enabled and run.update.seconds > 0
        if gpu:  # training and validation have graphs
            assert gpu.recorded >= 2

    on_gpu(check)


def test_tester(ckpt, dataset, tmp_path):
    argv = ["--DR", str(dataset), "--save_root", str(tmp_path), "--no-make_gif", "--drift", "--submission"]
    argv += ["--samples=2", "--pose_dropout=0.3", "--tta=3", "--ckpt_path", str(ckpt)]

    def check(gpu):
        Tester.main(argv)
        assert gpu is None or gpu.recorded > 0

    on_gpu(check)
    assert (tmp_path / "results.json").exists()


def noise_on_the_cpu(run, frames):
    frames + torch.randn(frames.shape)


def value_that_is_read(run, frames):
    frames.sum().item()


def scalar_from_the_cpu(run, frames):
    run.optimizer.found_inf.copy_(torch.tensor(1.0))


@pytest.mark.skipif(REAL, reason="the pretended GPU has to find them")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (noise_on_the_cpu, "ended: Expected all tensors to be on the same device"),
        (value_that_is_read, "no CUDA graph here (aten._local_scalar_dense.default"),
        (scalar_from_the_cpu, "no CUDA graph here (aten."),
    ],
)
def test_planted_fault_is_found(fault, words, dataset, tmp_path):
    draw_latents, errors = Trainer.Run.draw_latents, io.StringIO()

    def faulty(run, frames):
        fault(run, frames)
        return draw_latents(run, frames)

    def check(gpu):
        Trainer.Run.draw_latents = faulty
        with contextlib.redirect_stderr(errors):
            try:
                train(dataset, tmp_path, "--augment=none", "--tfr=0", "--num_epoch=2")
            except RuntimeError as error:
                errors.write(f"ended: {error}")
        assert words in errors.getvalue(), errors.getvalue()

    on_gpu(check)
