"""tools/benchmark.py on a small dataset, and that the plain reference computes what the product computes."""

import copy
import json
import shutil
import subprocess
import sys
from statistics import median
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dataloader import TrainingClips
from modules import VAE_Model
from runtime.cli import UserError
from tests.helpers import (
    ROOT,
    SMALL_PICTURES,
    assert_user_error,
    random_clips,
    random_uint8_clips,
    run_script,
)
from tools import benchmark, plain_reference
from tools.benchmark import Row, number, spread
from tools.benchmarking import measure
from training import options
from training.step import MAX_GRAD_NORM, TrainingStep, make_optimizer
from utils import to_float

SMALL = ["--F_dim=8", "--L_dim=8", "--N_dim=4", "--D_out_dim=8", *SMALL_PICTURES]
FLAGS = [*SMALL, "--device=cpu", "--batch_size=2", "--train_vi_len=4", "--num_workers=0"]


def flags(*more):
    return options.trainer_args(["--DR=none", "--save_root=none", *FLAGS, *more])


@pytest.mark.parametrize("teacher_forcing", [False, True])
@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_step_of_the_reference_has_the_loss_and_the_gradients_of_the_product(
    arch, teacher_forcing, monkeypatch
):
    args = flags("--recipe=lab", f"--arch={arch}")
    torch.manual_seed(0)
    product = VAE_Model(args).train()
    product.label_transformation.eval()  # its BatchNorm would see all poses of a clip, or those of one step
    reference = copy.deepcopy(product)
    frames, poses = random_uint8_clips(length=4)
    noise = torch.randn(2, 3, *product.latent_shape(*frames.shape[2:4]))
    one_at_a_time = iter(noise.unbind(1))
    monkeypatch.setattr(torch, "randn", lambda *shape, device: noise)
    monkeypatch.setattr(torch, "randn_like", lambda like: next(one_at_a_time))

    step = TrainingStep(product, make_optimizer(product, args), args)
    step(frames, poses, lr=args.lr, beta=0.3, teacher_forcing=teacher_forcing)
    adam = torch.optim.Adam(reference.parameters(), lr=args.lr)
    clips = to_float(frames), to_float(poses)
    loss = plain_reference.training_step(reference, adam, *clips, 0.3, teacher_forcing)

    assert loss == pytest.approx(step.read()["loss"], rel=1e-5)
    for parameter, expected in zip(product.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-3, atol=1e-6)
    norm = torch.stack([parameter.grad.norm() for parameter in reference.parameters()]).norm()
    assert norm == pytest.approx(MAX_GRAD_NORM, rel=1e-3)


@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_rendering_of_the_reference_is_that_of_the_product(arch):
    torch.manual_seed(0)
    model = VAE_Model(flags(f"--arch={arch}"))
    frames, poses = random_clips()
    model.train()(frames, poses, False)  # so that BatchNorm's statistics are not those that it begins with
    expected = model.generate(frames[:, 0], poses)
    model.eval()
    rendered = [plain_reference.render(model, frames[i, 0], poses[i]) for i in range(2)]
    torch.testing.assert_close(torch.stack(rendered), expected, rtol=1e-4, atol=1e-5)


def test_clips_of_the_reference_hold_the_pictures_of_the_product(dataset):
    args = flags(f"--DR={dataset}", "--partial=0.9")
    product, reference = TrainingClips(args), plain_reference.Clips(args)
    assert len(reference) == 5
    for clip, pictures in zip(reference[2], (product.frames, product.poses), strict=True):
        torch.testing.assert_close(clip, to_float(pictures[8:12]))
    with pytest.raises(UserError, match="28 frames"):
        plain_reference.clip_loader(flags(f"--DR={dataset}", "--batch_size=7"))


def test_reference_trains_as_a_script(dataset, capsys):
    plain_reference.main([f"--DR={dataset}", *FLAGS, "--steps=1"])
    assert measure.FIRST_STEP.search(capsys.readouterr().err.encode())


def test_operators_are_counted_those_of_the_backward_pass_too():
    a = torch.ones(3, requires_grad=True)
    assert measure.count_operators(lambda: None) == 0
    assert measure.count_operators(lambda: (a * 2 + 1).sin()) == 3
    assert measure.count_operators(lambda: a.view(3, 1)) == 0
    with_backward = measure.count_operators(lambda: (a * 2 + 1).sin().backward(torch.ones(3)))
    assert with_backward >= 3 + 3  # ones, cos and two products


@pytest.mark.parametrize("groups", [1, 8])
def test_flops_of_a_step_are_three_times_those_of_the_forward_pass_of_one_clip(groups, monkeypatch):
    class Convolution(nn.Conv2d):
        def __init__(self, args):
            super().__init__(3 * groups, 8, 3, padding=1, groups=groups)

        def forward(self, frames, poses, teacher_forcing):
            return super().forward(frames.flatten(0, 1).repeat(1, groups, 1, 1))

    monkeypatch.setattr(measure, "VAE_Model", Convolution)
    monkeypatch.setattr(measure, "MATRIX_SIZE", {"cpu": 64})
    flops, ceiling, _ = measure.limits(flags("--batch_size=7"), torch.device("cpu"))
    assert flops == 3 * 2 * (4 * 8 * 16) * 9 * 3 * 8
    assert ceiling > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_ceiling_is_measured_in_the_precision_of_the_steps(precision, monkeypatch):
    monkeypatch.setattr(measure, "MATRIX_SIZE", {"cpu": 64})
    assert measure.limits(flags(f"--precision={precision}"), torch.device("cpu"))[2] == precision


def test_first_step_is_seen_in_trainer_s_bar_and_nowhere_else():
    line = (
        b"(train [TeacherForcing: OFF, 0.0], beta: 1) Epoch 0, lr:0.001:   0%%|   | %d/292 [00:00<?, ?it/s]"
    )
    assert not measure.FIRST_STEP.search(line % 0)
    assert not measure.FIRST_STEP.search(b"decode train-img:  4%|#   | 1/24 [00:00<?, ?it/s]\r" + line % 0)
    assert measure.FIRST_STEP.search(line % 0 + b"\r" + line % 10)


def test_script_is_ended_after_its_first_step(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time, pathlib\n"
        "print('(train) |  | 1/9', file=sys.stderr, flush=True)\n"
        "time.sleep(5)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
    )
    monkeypatch.setattr(measure, "SCRIPTS", {"product": script, "reference": tmp_path / "absent.py"})
    assert 0 < measure.launch("product", [str(tmp_path / "late")]) < 5
    assert not (tmp_path / "late").exists()
    with pytest.raises(UserError, match=r"absent\.py ended before its first step: .*No such file"):
        measure.launch("reference", [])


def test_search_for_the_best_batch_ends_where_memory_does(monkeypatch):
    rates = {1: 10.0, 2: 20.0, 4: 15.0, 8: 0.0}
    asked = []

    def sample(command, flags):
        asked.append(command)
        return rates[int(command.partition("=")[2])]

    monkeypatch.setattr(benchmark, "sample", sample)
    assert benchmark.best_batch("product rate", [], (1, 2, 4, 8, 16)) == 2
    assert asked == [f"product rate --batch_size={size}" for size in (1, 2, 4, 8)]


def test_rate_is_0_where_memory_does_not_suffice(monkeypatch):
    monkeypatch.setattr(measure, "WARM_UP_STEPS", {"cpu": 1})
    small = ["--DR=none", "--save_root=none", *FLAGS]
    assert measure.measure("reference", "rate", *small) > 0
    with monkeypatch.context() as little_memory:
        little_memory.setattr(measure.os, "sysconf", lambda name: 1)
        assert measure.measure("reference", "rate", *small) == 0
        assert measure.measure("reference", "rate", *small, "--batch_size=1") > 0

    def out_of_memory(*_, **settings):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(plain_reference, "training_step", out_of_memory)
    assert measure.measure("reference", "rate", *small) == 0
    with pytest.raises(torch.OutOfMemoryError):
        measure.measure("reference", "step", *small)


def test_sample_comes_from_a_process_of_its_own_whose_mistakes_end_the_run(tmp_path, capfd):
    common = [f"--DR={tmp_path / 'nothing'}", f"--save_root={tmp_path}", *FLAGS]
    assert benchmark.sample("product step --tfr=1 --train_vi_len=2", common) > 0
    with pytest.raises(SystemExit) as ended:
        benchmark.sample("product epoch", common)
    assert ended.value.code == 2
    assert "nothing" in capfd.readouterr().err


def test_dataset_is_drawn_if_none_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "EPOCH_CLIPS", {"cpu": 2})
    monkeypatch.setattr(benchmark, "DRAWN", ["--size=32x16", *benchmark.DRAWN[1:]])
    own = SimpleNamespace(save_root=tmp_path, DR=None, arch="lab", quick=False)
    prepared, device = benchmark.prepare(own, FLAGS)
    args = options.trainer_args(prepared)
    assert device.type == "cpu" and (args.train_vi_len, args.optim, args.precision) == (4, "Adam", "auto")
    assert len(TrainingClips(args).frames) == 2 * 4


@pytest.fixture
def in_this_process(monkeypatch):
    """Short measurements, without the time to start processes and without a change of this one."""

    def sample(command, common):
        side, measurement, *changes = command.split()
        if measurement == "launch":
            return {"product": 1.0, "reference": 2.0}[side]
        return measure.measure(side, measurement, *common, *changes)

    monkeypatch.setattr(benchmark, "sample", sample)
    monkeypatch.setattr(measure, "launch", lambda side, common: None)
    monkeypatch.setattr(measure, "keep_pages", lambda: None)
    monkeypatch.setattr(measure, "WARM_UP_STEPS", {"cpu": 1})
    monkeypatch.setattr(measure, "CALLS", {"cpu": 1})
    monkeypatch.setattr(measure, "MATRIX_SIZE", {"cpu": 64})
    monkeypatch.setattr(benchmark, "COUNTED", benchmark.COUNTED.replace("train_vi_len=16", "train_vi_len=3"))
    monkeypatch.setattr(benchmark, "SCALING", ("--train_vi_len=2", "--frame_H=4 --frame_W=8"))


def test_whole_run_measures_every_row_on_both_sides(dataset, tmp_path, in_this_process, capsys):
    options = ["--save_root", str(tmp_path), "--DR", str(dataset), "--quick", "--rounds=2", "--scaling"]
    benchmark.main([*options, *FLAGS])
    results = json.loads((tmp_path / "benchmark.json").read_text())
    rows = {row["name"]: row for row in results["rows"]}
    at = "batch 2, T 4"
    assert [name.split(" (")[0] for name in rows if not name.startswith("the same, share")] == [
        f"training step, {at}, free-running",
        f"training step, {at}, teacher-forced",
        f"an epoch, {at}, data included, warm cache",
        f"an epoch, {at}, data included, cold cache",
        f"peak memory, training, {at}",
        "training at the best batch size",
        "the same, arithmetic of the networks",
        "rendering 6 sequences of 6 frames",
        f"launch to first step, {at}, warm cache",
        "operators in a step, batch 2, T 16, fp32, free-running",
        "operators in a step, batch 2, T 16, fp32, teacher-forced",
        "product alone, unet",
        f"training step, product alone, --train_vi_len=2, against {at}",
        f"training step, product alone, --frame_H=4 --frame_W=8, against {at}",
    ]
    for name, row in rows.items():
        check_row(name, row)
    assert rows[f"launch to first step, {at}, warm cache"]["ratio"] == 2
    assert len(rows[f"training step, {at}, free-running"]["product"]) == 2
    assert torch.__version__ in results["machine"] and results["command"] and results["date"]
    assert (dataset / ".frame_cache").is_dir()
    printed, page = capsys.readouterr().out, (tmp_path / "benchmark.md").read_text()
    for name in rows:
        assert f"| {name}" in printed and f"| {name}" in page


def check_row(name, row):
    """Positive samples, and the ratio of their medians that is above 1 where the product is better."""
    assert all(sample > 0 for sample in row["product"]), name
    if not row["reference"]:
        assert row["ratio"] is None and row["unit"] == "%"
        return
    ratio = median(row["reference"]) / median(row["product"])
    assert row["ratio"] == pytest.approx(1 / ratio if row["unit"].endswith("/s") else ratio), name


def test_cold_epoch_decodes_the_pictures_again_and_leaves_the_dataset_alone(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "keep_pages", lambda: None)
    monkeypatch.setattr(measure, "WARM_UP_STEPS", {"cpu": 1})
    opened = []
    monkeypatch.setattr(measure, "TrainingClips", lambda args: opened.append(args.DR) or TrainingClips(args))
    data = shutil.copytree(dataset, tmp_path / "data", ignore=shutil.ignore_patterns(".frame_cache"))
    common = [f"--DR={data}", "--save_root=none", *FLAGS]
    assert measure.measure("product", "cold_epoch", *common) > 0
    assert not (data / ".frame_cache").exists() and not opened[0].exists()
    assert measure.measure("product", "epoch", *common) > 0
    assert (data / ".frame_cache").is_dir()


def test_ratio_says_how_many_times_better_the_product_is():
    assert Row("time", "s", product=[1.0, 2.0, 9.0], reference=[4.0, 4.0]).ratio == 2
    assert Row("rate", "clips/s", product=[8.0], reference=[2.0]).ratio == 4
    assert Row("alone", "s", product=[1.0]).ratio is None


def test_numbers_have_three_digits_and_counts_all():
    assert [number(value) for value in (0.01234, 12.34, 7368, 12345.6, 2.0)] == [
        "0.0123", "12.3", "7,368", "12,346", "2",
    ]  # fmt: skip
    assert spread([3.0, 1.0, 2.0]) == "2 (1 .. 3)" and spread([5.0]) == "5" and spread([]) == "-"


def test_mistakes_take_one_line(dataset, tmp_path):
    common = ["--save_root", str(tmp_path / "out"), *FLAGS, "--quick"]
    assert_user_error(run_script("tools/benchmark.py", "--DR", tmp_path / "no", *common), "no such folder")
    for mistake in (["--no_such_flag"], ["--lr=-1"], ["--rounds=0"]):
        with pytest.raises(SystemExit) as ended:
            benchmark.main([*common, *mistake])
        assert ended.value.code == 2
    with pytest.raises(UserError, match="28 frames"):
        benchmark.main([*common, "--DR", str(dataset), "--batch_size=7"])
    assert not list(tmp_path.glob("out/*.json"))


def test_module_names_a_broken_picture_in_one_line(dataset, tmp_path):
    broken = shutil.copytree(dataset, tmp_path / "broken", ignore=shutil.ignore_patterns(".frame_cache"))
    picture = broken / "train" / "train_label" / "frame000017.png"
    picture.write_bytes(picture.read_bytes()[:80])
    command = [sys.executable, "-m", "tools.benchmark", "--DR", broken, "--save_root", tmp_path, *FLAGS]
    assert_user_error(subprocess.run(command, cwd=ROOT, capture_output=True, text=True), str(picture))
