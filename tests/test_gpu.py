"""The scripts on CUDA: on a real GPU where there is one, else on a pretended one."""

import contextlib
import io

import pytest
import torch

import Tester
import Trainer
from runtime import cuda_graph
from tests.helpers import FORKS, SMALL_PICTURES, load_libraries
from tests.pretended_gpu import GPU, on_gpu
from tools.benchmarking.measure import CALLS, Side
from training import checkpoint, options
from training.step import TrainingStep

REAL = torch.cuda.is_available()
MODEL = ["--F_dim=16", "--L_dim=8", "--D_out_dim=16"]
SMALL = [*MODEL, *SMALL_PICTURES, "--train_vi_len=4", "--start_vi_len=4", "--num_epoch=4", "--batch_size=2"]

pytestmark = pytest.mark.skipif(not (REAL or FORKS), reason="pretends in copies of this process")


@pytest.fixture(scope="module", autouse=True)
def libraries():
    load_libraries()


def command(dataset, folder, *flags):
    return ["--DR", str(dataset), "--save_root", str(folder), *SMALL, *flags]


def begin(argv):
    """The `Run` of a command line of Trainer.py."""
    args, start = checkpoint.trainer_flags(argv)
    args.save_root.mkdir(exist_ok=True)
    return Trainer.Run(args, start)


@pytest.mark.parametrize(
    "flags",
    [
        ["--tfr=1", "--tfr_sde=9"],
        ["--tfr=0"],
        ["--arch=lab", "--tfr=0"],
        ["--arch=lab", "--tfr=1", "--tfr_sde=9", "--optim=AdamW"],
        ["--recipe=lab", "--optim=Adam", "--output=sigmoid"],
        ["--augment=turn,scale,move,mirror,paste,tilt", "--pose_dropout=0.2"],
        ["--augment=none", "--z=sample", "--kl_reduction=sum", "--mse_weights=even", "--z_dropout=0"],
        ["--frame_H=11", "--frame_W=13", "--shifts=5"],
        ["--precision=fp32"],
        ["--precision=fp16"],
        ["--train_vi_len=6", "--start_vi_len=3", "--num_epoch=12"],
        ["--store_visualization", "--per_val=1"],
    ],
    ids=" ".join,
)
def test_training(dataset, tmp_path, flags):
    def train(gpu):
        run = begin(command(dataset, tmp_path, *flags))
        run.train()
        assert run.device == GPU and len(run.history.rows) == run.args.num_epoch
        assert run.device_clips.resident
        assert run.step._update._graphs and run.step.preparation_seconds > 0
        if gpu:  # the update was recorded, and validation has graphs of its own
            assert gpu.recorded > len(run.step._update._graphs)
            assert gpu.operators["aten::convolution"] > 100

    on_gpu(train)


def test_clips_that_do_not_fit_on_the_device_are_sent(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer.DeviceClips, "SHARE_OF_FREE_MEMORY", 0)

    def train(_):
        run = begin(command(dataset, tmp_path))
        run.train()
        assert not run.device_clips.resident and len(run.history.rows) == 4

    on_gpu(train)


@pytest.mark.parametrize("arch", ["unet", "lab"])
def test_run_from_the_cpu_goes_on(arch, dataset, tmp_path):
    Trainer.main(command(dataset, tmp_path, f"--arch={arch}", "--num_epoch=1", "--device=cpu"))

    def train(_):
        run = begin(["--DR", str(dataset), "--save_root", str(tmp_path), "--resume", "--num_epoch=4"])
        run.train()
        assert run.device == GPU and len(run.history.rows) == 4

    on_gpu(train)


@pytest.mark.parametrize("flags", [[], ["--z=sample", "--shifts=1"], ["--precision=fp32", "--fill_poses=0"]])
def test_tester(flags, finished_run, dataset, tmp_path):
    argv = ["--DR", str(dataset), "--save_root", str(tmp_path), "--no-make_gif", "--drift", "--submission"]
    argv += ["--samples=2", "--pose_dropout=0.3", "--ckpt_path", str(finished_run[0] / "last.ckpt"), *flags]

    def render(gpu):
        Tester.main(argv)
        assert gpu is None or gpu.recorded > 0

    on_gpu(render)
    assert (tmp_path / "results.json").exists()


@pytest.mark.parametrize(
    ("side", "arch", "measurements"),
    [
        ("product", "unet", ("step", "rate", "epoch", "render")),
        ("product", "lab", ("step",)),
        ("reference", "lab", ("step",)),
    ],
)
def test_measurements_of_the_benchmark(side, arch, measurements, dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(CALLS, "cuda", 2)
    args = options.trainer_args(command(dataset, tmp_path, f"--arch={arch}", "--tfr=0"))

    def measure(_):
        measured = Side(side, args)
        assert all(getattr(measured, name)() > 0 for name in measurements)

    on_gpu(measure)


# Faults that the pretended GPU has to find.


def noise_on_the_cpu(step, *clips, **settings):
    return clips[0].float() + torch.randn(clips[0].shape)


def value_that_is_read(step, *clips, **settings):
    return step._sums.sum().item()


def scalar_from_the_cpu(step, *clips, **settings):
    step._beta.copy_(torch.tensor(1.0))


def fault_of(fault, dataset, folder):
    """What a training run ends with, or prints, where each update has a fault."""
    compute = TrainingStep._compute

    def faulty(step, *clips, **settings):
        fault(step, *clips, **settings)
        compute(step, *clips, **settings)

    TrainingStep._compute = faulty
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            begin(command(dataset, folder)).train()
        except RuntimeError as error:
            return f"ended: {error}"
    return errors.getvalue()


@pytest.mark.skipif(REAL, reason="the pretended GPU has to find them")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (noise_on_the_cpu, "ended: "),
        (value_that_is_read, "no CUDA graph here (aten._local_scalar_dense.default"),
        (scalar_from_the_cpu, "no CUDA graph here (aten."),
    ],
)
def test_planted_fault_is_found(fault, words, dataset, tmp_path):
    def train(_):
        text = fault_of(fault, dataset, tmp_path)
        assert words in text, text

    on_gpu(train)


@pytest.mark.skipif(REAL, reason="the pretended GPU has to find them")
def test_moments_in_another_memory_order_are_found(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(cuda_graph, "WARM_UP_CALLS", 100)  # a failure in a recording would be passed over

    def train(_):
        run = begin(command(dataset, tmp_path, "--optim=AdamW"))
        run.train()
        for parameter, state in run.step.optimizer.state.items():
            if parameter.dim() == 4 and min(parameter.shape[1:3]) > 1:
                state["exp_avg"] = state["exp_avg"].contiguous()
        run.budget.epochs, run.first_epoch = 8, 4
        with pytest.raises(RuntimeError, match="do not match"):
            run.train()

    on_gpu(train)
