"""The benchmark on a small dataset; and the plain reference computes what the product computes."""

import copy
import json
import time
from types import SimpleNamespace

import pytest
import torch

from dataloader import ClipBatch, ClipDataset
from runtime.cli import UserError
from tests.helpers import SMALL_PICTURES, assert_user_error, random_uint8_clips, run_script
from tools import benchmark, plain_reference
from tools.benchmark import Row, number, spread
from tools.benchmarking import measure
from training import configuration
from utils import to_float

FLAGS = [
    "--F_dim=8", "--L_dim=8", "--N_dim=4", "--D_out_dim=8", *SMALL_PICTURES, "--device=cpu",
    "--batch_size=2", "--train_vi_len=4", "--num_workers=0", "--threads=1",
]  # fmt: skip


def flags(*more):
    return configuration.trainer_args(["--DR=none", "--save_root=none", *FLAGS, *more])


@pytest.mark.parametrize("teacher_forcing", [False, True])
@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_step_of_the_reference_has_the_loss_and_gradients_of_the_product(arch, teacher_forcing, monkeypatch):
    torch.manual_seed(0)
    run = measure.StepOnly(flags("--recipe=lab", f"--arch={arch}"), torch.device("cpu"))
    run.model.label_transformation.eval()  # its BatchNorm would see all poses of a clip, or one step's
    reference = copy.deepcopy(run.model)
    frames, poses = random_uint8_clips(length=4)
    noise = torch.randn(2, 3, *run.model.latent_shape(*frames.shape[2:4]))
    by_step = iter(noise.unbind(1))
    monkeypatch.setattr(torch, "randn", lambda *shape, device: noise)
    monkeypatch.setattr(torch, "randn_like", lambda like: next(by_step))

    run.training_step(ClipBatch(frames, poses), torch.tensor(0.3), teacher_forcing)
    adam = torch.optim.Adam(reference.parameters())
    clips = to_float(frames), to_float(poses)
    loss = plain_reference.training_step(reference, adam, *clips, 0.3, teacher_forcing)

    assert loss == pytest.approx(run.meter.read()["loss"], rel=1e-5)
    for parameter, expected in zip(run.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-3, atol=1e-6)


def test_clips_of_the_reference_hold_the_images_of_the_product(dataset):
    args = flags(f"--DR={dataset}", "--partial=0.9")
    product, reference = ClipDataset(args), plain_reference.Clips(args)
    assert len(reference) == 5
    for clip, images in zip(reference[2], (product.frames, product.poses), strict=True):
        torch.testing.assert_close(clip, to_float(images[8:12]))


def test_operators_of_forward_and_backward_passes_are_counted():
    a = torch.ones(3, requires_grad=True)
    assert measure.count_operators(lambda: None) == 0
    assert measure.count_operators(lambda: (a * 2 + 1).sin()) == 3
    assert measure.count_operators(lambda: a.view(3, 1)) == 0
    with_backward = measure.count_operators(lambda: (a * 2 + 1).sin().backward(torch.ones(3)))
    assert with_backward >= 3 + 3  # ones, cos and two products


def test_sides_are_measured_in_processes_of_their_own(dataset, tmp_path):
    common = [f"--DR={dataset}", f"--save_root={tmp_path}", *FLAGS, "--arch=unet", "--augment=none"]
    results = benchmark.sample("product", [*common, "--val_vi_len=4"])
    assert results.keys() == {row.key for row in benchmark.make_rows(flags())}
    assert min(results.values()) > 0


def test_dataset_is_rendered_if_none_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "EPOCH_CLIPS", {"cpu": 2})
    monkeypatch.setattr(benchmark, "DATASET", ["--size=32x16", *benchmark.DATASET[1:]])
    own = SimpleNamespace(save_root=tmp_path, DR=None, arch="lab", quick=False)
    prepared, device = benchmark.prepare(own, FLAGS)
    args = configuration.trainer_args(prepared)
    assert device.type == "cpu" and (args.train_vi_len, args.optim, args.precision) == (4, "Adam", "auto")
    assert len(ClipDataset(args).frames) == 2 * 4


@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_every_row_is_measured_on_both_sides(arch, dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "sample", lambda side, common: measure.measure(side, time.time(), common))
    monkeypatch.setattr(measure, "tune_malloc", lambda: None)
    monkeypatch.setattr(measure, "WARM_UP_STEPS", 1)
    monkeypatch.setattr(measure, "CALLS", {"cpu": 1})
    monkeypatch.setattr(measure, "COUNT_FLAGS", measure.COUNT_FLAGS.replace("vi_len=16", "vi_len=3"))
    command = ["--save_root", str(tmp_path), "--DR", str(dataset), "--quick", "--rounds=2", f"--arch={arch}"]
    benchmark.main([*command, *FLAGS])
    results = json.loads((tmp_path / "benchmark.json").read_text())
    assert capsys.readouterr().out.strip() in (tmp_path / "benchmark.md").read_text()
    assert len(results["rows"]) == 8
    for row in results["rows"]:
        assert len(row["product"]) == len(row["reference"]) == 2, row
        assert min(row["product"] + row["reference"]) > 0 and row["ratio"] > 0, row
    assert torch.__version__ in results["machine"] and results["command"] and results["date"]


def test_ratio_says_how_many_times_better_the_product_is():
    assert Row("time", "s", "step_free", product=[1.0, 2.0, 9.0], reference=[4.0, 4.0]).ratio == 2
    assert Row("rate", "clips/s", "epoch", product=[8.0], reference=[2.0]).ratio == 4


def test_numbers_have_three_digits_and_counts_all():
    assert [number(value) for value in (0.01234, 12.34, 7368, 12345.6, 2.0)] == [
        "0.0123", "12.3", "7,368", "12,346", "2",
    ]  # fmt: skip
    assert spread([3.0, 1.0, 2.0]) == "2 (1 .. 3)" and spread([5.0]) == "5"


def test_mistakes_are_one_line(dataset, tmp_path):
    common = ["--save_root", str(tmp_path / "out"), *FLAGS, "--quick"]
    assert_user_error(run_script("tools/benchmark.py", "--DR", tmp_path / "no", *common), "no such folder")
    for mistake in (["--no_such_flag"], ["--lr=-1"], ["--rounds=0"]):
        with pytest.raises(SystemExit) as ended:
            benchmark.main([*common, *mistake])
        assert ended.value.code == 2
    with pytest.raises(UserError, match="28 frames"):
        benchmark.main([*common, "--DR", str(dataset), "--batch_size=7"])
    assert not list(tmp_path.glob("out/*.json"))
