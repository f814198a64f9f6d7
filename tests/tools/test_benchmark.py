"""tools/benchmark.py on a small dataset, and that its plain reference computes what ours does."""

import copy
import dataclasses
import json
from statistics import median

import pytest
import torch
from torch import nn

from dataloader import TrainingClips, to_float
from engine import options
from engine.console import UserError
from engine.step import MAX_GRAD_NORM, TrainingStep, make_optimizer
from modules import VAE_Model
from tests.helpers import SMALL_PICTURES, assert_user_error, random_clips, run_script
from tools import benchmark, plain_reference
from tools.benchmarking import measure, workers
from tools.benchmarking.peer import Peer
from tools.benchmarking.table import Row, number, spread

SMALL = ["--F_dim=8", "--L_dim=8", "--N_dim=4", "--D_out_dim=8", *SMALL_PICTURES]
FLAGS = [*SMALL, "--device=cpu", "--batch_size=2", "--train_vi_len=4", "--num_workers=0"]


def flags(*more):
    return options.resolve(options.trainer_parser(), ["--DR=none", "--save_root=none", *FLAGS, *more])


@pytest.mark.parametrize("teacher_forcing", [False, True])
@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_step_of_the_reference_has_the_loss_and_the_gradients_of_ours(arch, teacher_forcing, monkeypatch):
    args = flags(f"--arch={arch}", "--precision=fp32", "--kl_reduction=sum", "--augment=none", "--optim=Adam")
    torch.manual_seed(0)
    ours = VAE_Model(args).train()
    ours.label_transformation.eval()  # its BatchNorm would see all poses of a clip, or those of one step
    theirs = copy.deepcopy(ours)
    frames, poses = random_clips(length=4)
    noise = torch.randn(2, *ours.latent_shape(4, *frames.shape[-2:]))
    one_at_a_time = iter(noise.unbind(1))
    monkeypatch.setattr(torch, "randn", lambda *shape, device: noise)
    monkeypatch.setattr(torch, "randn_like", lambda like: next(one_at_a_time))

    step = TrainingStep(ours, make_optimizer(ours, args), args)
    step((frames, poses), lr=args.lr, beta=0.3, teacher_forcing=teacher_forcing)
    adam = torch.optim.Adam(theirs.parameters(), lr=args.lr)
    loss = plain_reference.training_step(theirs, adam, frames, poses, 0.3, teacher_forcing)

    assert loss == pytest.approx(step.read()["loss"], rel=1e-5)
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(its.grad, mine.grad, rtol=1e-3, atol=1e-6)
    norm = torch.stack([parameter.grad.norm() for parameter in theirs.parameters()]).norm()
    assert norm == pytest.approx(MAX_GRAD_NORM, rel=1e-3)


@pytest.mark.parametrize("arch", ["lab", "unet"])
def test_rendering_of_the_reference_is_ours(arch):
    torch.manual_seed(0)
    model = VAE_Model(flags(f"--arch={arch}"))
    frames, poses = random_clips()
    model.train()(frames, poses, False)  # so that BatchNorm's statistics are not those that it begins with
    ours = model.generate(frames[:, 0], poses)
    model.eval()
    theirs = [plain_reference.render(model, frames[i, 0], poses[i]) for i in range(2)]
    torch.testing.assert_close(torch.stack(theirs), ours, rtol=1e-4, atol=1e-5)


def test_clips_of_the_reference_hold_the_pictures_of_ours(dataset):
    args = flags(f"--DR={dataset}", "--partial=0.9")
    ours, theirs = TrainingClips(args), plain_reference.Clips(args)
    assert len(theirs) == 5
    for own, pictures in zip(theirs[2], (ours.frames, ours.poses), strict=True):
        torch.testing.assert_close(own, to_float(pictures[8:12]))
    with pytest.raises(UserError, match="28 frames"):
        plain_reference.clip_loader(flags(f"--DR={dataset}", "--batch_size=7"))


def test_reference_trains_as_a_script(dataset, capsys):
    plain_reference.main([f"--DR={dataset}", *FLAGS, "--arch=lab", "--steps=1"])
    assert measure.FIRST_STEP.search(capsys.readouterr().err.encode())


def test_operators_are_counted_those_of_the_backward_pass_too():
    a = torch.ones(3, requires_grad=True)
    assert measure.count_operators(lambda: None) == 0
    assert measure.count_operators(lambda: (a * 2 + 1).sin()) == 3
    with_backward = measure.count_operators(lambda: (a * 2 + 1).sin().backward(torch.ones(3)))
    assert with_backward >= 3 + 3  # ones, cos and two products


@pytest.mark.parametrize("groups", [1, 8])
def test_flops_of_a_convolution_are_three_times_those_of_its_forward_pass(groups):
    convolution = nn.Conv2d(8, 8, 3, padding=1, groups=groups)
    forward = 2 * (5 * 16 * 32) * 9 * 8 * 8 // groups
    assert measure.model_flops(convolution, torch.rand(5, 8, 16, 32, requires_grad=True)) == 3 * forward


def test_first_step_is_seen_in_trainer_s_bar_and_nowhere_else():
    line = (
        b"(train [TeacherForcing: OFF, 0.0], beta: 1) Epoch 0, lr:0.001:   0%%|   | %d/292 [00:00<?, ?it/s]"
    )
    assert not measure.FIRST_STEP.search(line % 0)
    assert not measure.FIRST_STEP.search(b"decode train-img:  4%|#   | 1/24 [00:00<?, ?it/s]\r" + line % 0)
    assert measure.FIRST_STEP.search(line % 0 + b"\r" + line % 10)


def test_script_is_ended_after_its_first_step(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time, pathlib\n"
        "print('(train) |  | 1/9', file=sys.stderr, flush=True)\n"
        "time.sleep(5)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
    )
    assert 0 < measure.seconds_to_first_step(str(script), [str(tmp_path / "late")]) < 5
    assert not (tmp_path / "late").exists()
    with pytest.raises(UserError, match=r"absent\.py ended before its first step: .*No such file"):
        measure.seconds_to_first_step(str(tmp_path / "absent.py"), [])


@pytest.fixture
def worker():
    return workers.Reference(["--DR=none", "--save_root=none", *FLAGS], 0.0)


def test_search_for_the_best_batch_ends_where_memory_does(worker, monkeypatch):
    def clips_per_second(batch_size):
        if batch_size > 2:
            raise torch.OutOfMemoryError
        return 10.0 * batch_size

    monkeypatch.setattr(worker, "clips_per_second", clips_per_second)
    assert worker.sweep((1, 2, 4, 8)) == {1: 10.0, 2: 20.0}
    monkeypatch.setattr(workers, "installed_memory", lambda: 0)
    assert worker.sweep((1, 2, 4, 8)) == {1: 10.0}


def test_state_of_a_row_is_kept_until_the_next_one(worker):
    first = worker.kept("a row", object)
    assert worker.kept("a row", object) is first
    assert worker.kept("another", object) is not first


def test_worker_answers_from_its_own_process_until_it_is_gone(tmp_path):
    argv = [f"--DR={tmp_path / 'nothing'}", f"--save_root={tmp_path}", *FLAGS]
    with Peer(workers.Reference, argv, 0.0) as peer:
        assert peer.ask("step", teacher_forcing=True, train_vi_len=2) > 0
        with pytest.raises(UserError, match="nothing"):
            peer.ask("epoch", cold=False)
        peer.process.join(timeout=60)
        with pytest.raises(RuntimeError, match="Reference ended in step"):
            peer.ask("step", teacher_forcing=True)


def test_data_is_drawn_once(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "PICTURE_SIZE", "32x16")
    data = benchmark.drawn_data(tmp_path, 5)
    pictures = list((data / "train" / "train_img").iterdir())
    assert len(pictures) == 5
    drawn = pictures[0].stat().st_mtime_ns
    assert benchmark.drawn_data(tmp_path, 5) == data
    assert pictures[0].stat().st_mtime_ns == drawn


class Near(Peer):
    """A worker in this very process, which saves the time to start others."""

    def __enter__(self):
        self.worker = self.kind(*self.settings)
        return self

    def __exit__(self, *_):
        pass

    def ask(self, method, **arguments):
        return getattr(self.worker, method)(**arguments)

    def ask_fresh(self, method, **arguments):
        return getattr(self.kind(*self.settings), method)(**arguments)


def test_whole_run_measures_every_row_on_both_sides(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "Peer", Near)
    monkeypatch.setattr(workers, "keep_pages", lambda: None)
    monkeypatch.setattr(workers, "seconds_to_first_step", lambda script, argv: 1.0 + ("tools" in script))
    monkeypatch.setattr(measure, "MATRICES", {"cpu": (64,)})
    monkeypatch.setitem(workers.COUNTED, "train_vi_len", 3)
    extent = dataclasses.replace(benchmark.EXTENTS["cpu", True], least_seconds=0.0, video_length=4)
    monkeypatch.setitem(benchmark.EXTENTS, ("cpu", True), extent)
    monkeypatch.setattr(benchmark, "SCALING", ([{"train_vi_len": 2}, {"frame_H": 4, "frame_W": 8}],))
    benchmark.main(
        ["--save_root", str(tmp_path), "--DR", str(dataset), "--quick", "--rounds=2", "--scaling", *FLAGS]
    )
    found = json.loads((tmp_path / "benchmark.json").read_text())
    rows = {row["row"]: row for row in found["rows"]}
    at = "batch 2, T 4"
    assert [name.split(" (")[0] for name in rows if not name.startswith("the same, share")] == [
        f"training step, {at}, free-running",
        f"training step, {at}, teacher-forced",
        f"an epoch, {at}, data included, warm",
        f"an epoch, {at}, data included, cold",
        "training at the best batch",
        "the same, arithmetic of the networks",
        "rendering 6 sequences of 4",
        f"launch to first step, {at}, warm",
        f"peak memory, training, {at}",
        "operators a step, batch 2, T 3, fp32, free-running",
        "operators a step, batch 2, T 3, fp32, teacher-forced",
        "ours alone, unet",
    ]
    for name, row in rows.items():
        check_row(name, row)
    assert rows[f"launch to first step, {at}, warm"]["ratio"] == 2
    assert len(rows[f"training step, {at}, free-running"]["product"]["samples"]) == 2
    assert [group["row"] for group in found["scaling"][0]] == ["batch 2, T 2, 16x8", "batch 2, T 4, 8x4"]
    assert found["machine"]["torch"] == torch.__version__ and found["command"] and found["date"]
    assert (tmp_path / "data_view" / ".frame_cache").is_dir()
    printed, page = capsys.readouterr().out, (tmp_path / "benchmark.md").read_text()
    for name in rows:
        assert f"| {name}" in printed and f"| {name}" in page


def check_row(name, row):
    """Medians of positive samples, and what they say of ours."""
    ours, theirs = row["product"], row["reference"]
    assert all(sample > 0 for sample in ours["samples"]), name
    if theirs is None:
        assert row["ratio"] is None and row["unit"] == "%"
        return
    assert ours["median"] == median(ours["samples"]) and theirs["median"] == median(theirs["samples"])
    ratio = theirs["median"] / ours["median"]
    assert row["ratio"] == pytest.approx(1 / ratio if row["unit"].endswith("/s") else ratio), name


def test_ratio_says_how_many_times_better_ours_is():
    assert Row("time", "s", products=[1.0, 2.0, 9.0], references=[4.0, 4.0]).ratio == 2
    assert Row("rate", "clips/s", products=[8.0], references=[2.0]).ratio == 4
    assert Row("alone", "s", products=[1.0]).ratio is None


def test_numbers_have_three_digits_and_counts_all():
    assert [number(value) for value in (0.01234, 12.34, 7368, 12345.6, 2.0)] == [
        "0.0123", "12.3", "7,368", "12,346", "2",
    ]  # fmt: skip
    assert spread([3.0, 1.0, 2.0]) == "2 (1 .. 3)" and spread([5.0]) == "5" and spread([]) == "-"


def test_mistakes_take_one_line(dataset, tmp_path):
    there = ["--save_root", tmp_path / "out", *FLAGS, "--quick"]
    assert_user_error(run_script("tools/benchmark.py", "--DR", tmp_path / "no", *there), "no such folder")
    for mistake in (["--no_such_flag"], ["--lr=-1"], ["--rounds=0"]):
        with pytest.raises(SystemExit) as ended:
            benchmark.main([*map(str, there), *mistake])
        assert ended.value.code == 2
    with pytest.raises(UserError, match="28 frames"):
        benchmark.main([*map(str, there), "--DR", str(dataset), "--batch_size=7"])
    assert not list(tmp_path.glob("out/*.json"))
