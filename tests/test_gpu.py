"""The scripts on CUDA: on a pretended GPU, and on a real one where there is one."""

import contextlib
import io
import json
import multiprocessing

import pytest
import torch

import Tester
import Trainer
from runtime.cuda_graph import Graphed
from tests.helpers import FORKS, MAX_SECONDS, SMALL_PICTURES, draw_nothing, has_gpu, show_gpus
from tests.pretended_gpu import pretend
from training import configuration

SMALL = [
    "--F_dim=16", "--L_dim=8", "--D_out_dim=16", *SMALL_PICTURES, "--train_vi_len=4", "--start_vi_len=4",
    "--per_val=9", "--num_epoch=4", "--batch_size=2",
]  # fmt: skip

pretended = pytest.mark.skipif(not FORKS, reason="pretends in copies of this process")
real = pytest.mark.skipif(not has_gpu(), reason="needs a GPU")


def call_on_gpu(monkeypatch, function, *args) -> None:
    """Call `function(None, *args)` in a new process, which sees the GPUs of this machine."""
    with monkeypatch.context() as patch:
        show_gpus(patch)
        process = multiprocessing.get_context("spawn").Process(target=function, args=(None, *args))
        process.start()
    process.join(MAX_SECONDS)
    process.kill()
    assert process.exitcode == 0


def train(dataset, folder, *flags):
    command = ["--DR", str(dataset), "--save_root", str(folder), *SMALL, *flags]
    run = Trainer.Run(configuration.trainer_args(command), None)
    run.train()
    return run


def check_training(gpu, dataset, folder, flags):
    draw_nothing()
    run = train(dataset, folder, *flags.split())
    assert run.device.type == "cuda" and len(run.history.rows) == 4
    assert run.update.enabled and run.update.seconds > 0
    if gpu:  # training and validation have graphs
        assert gpu.recorded >= 2


RUNS = ["--augment=affine,copy_paste --pose_dropout=0.2 --start_vi_len=2", "--recipe=lab"]


@pretended
@pytest.mark.parametrize("flags", RUNS)
def test_training(dataset, tmp_path, flags):
    pretend(check_training, dataset, tmp_path, flags)


@real
@pytest.mark.parametrize("flags", RUNS)
def test_training_on_a_real_gpu(dataset, tmp_path, monkeypatch, flags):
    call_on_gpu(monkeypatch, check_training, dataset, tmp_path, flags)


def check_tester(gpu, argv):
    draw_nothing()
    Tester.main(argv)
    assert gpu is None or gpu.recorded > 0


TESTER = ["--no-make_gif", "--drift", "--submission", "--samples=2", "--pose_dropout=0.3", "--tta=3"]


@pretended
def test_tester(ckpt, dataset, tmp_path):
    argv = ["--DR", str(dataset), "--save_root", str(tmp_path), "--ckpt_path", str(ckpt), *TESTER]
    pretend(check_tester, argv)
    assert (tmp_path / "results.json").exists()


@real
def test_real_gpu_renders_what_the_cpu_renders(ckpt, dataset, tmp_path, monkeypatch):
    results = []
    for device in ("cpu", "cuda"):
        argv = ["--DR", str(dataset), "--save_root", str(tmp_path / device), "--ckpt_path", str(ckpt)]
        call_on_gpu(monkeypatch, check_tester, [*argv, f"--device={device}", *TESTER])
        results.append(json.loads((tmp_path / device / "results.json").read_text())["average"]["psnr"])
    assert results[0] == pytest.approx(results[1], abs=0.1)


def losses(dataset, folder, is_graphed):
    folder.mkdir()
    Trainer.Graphed = lambda function, enabled: Graphed(function, enabled and is_graphed)
    run = train(
        dataset, folder, "--augment=none", "--z_dropout=0", "--precision=fp32", "--tfr=0", "--lr=1e-4"
    )
    assert run.update.enabled == is_graphed
    return torch.tensor([[row["mse"], row["kl"]] for row in run.history.rows])


def check_graph(_gpu, dataset, folder):
    draw_nothing()
    torch.testing.assert_close(
        losses(dataset, folder / "graph", True), losses(dataset, folder / "eager", False), rtol=0.02, atol=0
    )


@real
def test_graph_of_a_real_gpu_trains_as_eager_mode_does(dataset, tmp_path, monkeypatch):
    call_on_gpu(monkeypatch, check_graph, dataset, tmp_path)


def noise_on_the_cpu(run, frames):
    frames + torch.randn(frames.shape)


def value_that_is_read(run, frames):
    frames.sum().item()


def scalar_from_the_cpu(run, frames):
    run.optimizer.found_inf.copy_(torch.tensor(1.0))


def check_fault(gpu, dataset, folder, fault, words):
    draw_latents, errors = Trainer.Run.draw_latents, io.StringIO()

    def faulty(run, frames):
        fault(run, frames)
        return draw_latents(run, frames)

    Trainer.Run.draw_latents = faulty
    draw_nothing()
    with contextlib.redirect_stderr(errors):
        try:
            train(dataset, folder, "--augment=none", "--tfr=0", "--num_epoch=2")
        except RuntimeError as error:
            errors.write(f"ended: {error}")
    assert words in errors.getvalue(), errors.getvalue()


@pretended
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (noise_on_the_cpu, "ended: Expected all tensors to be on the same device"),
        (value_that_is_read, "no CUDA graph here (aten._local_scalar_dense.default"),
        (scalar_from_the_cpu, "no CUDA graph here (aten."),
    ],
)
def test_planted_fault_is_found(fault, words, dataset, tmp_path):
    pretend(check_fault, dataset, tmp_path, fault, words)
