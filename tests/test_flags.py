"""The effect of every flag, measured on as little of a run as possible."""

import itertools
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import ImageColor

import image_cache
import Trainer
from dataloader import ClipBatch, ClipLoader
from runtime.cuda_graph import Graphed
from tests.helpers import SMALL_RUN
from training import configuration, evaluate, options
from training.augment import augment
from utils import to_float, to_float_rgb


@pytest.fixture
def build(dataset, tmp_path):
    """A function from flags to the `Run` of a new training run with SMALL_RUN and these."""

    def build(*flags):
        shared = ["--DR", str(dataset), "--save_root", str(tmp_path), *SMALL_RUN, "--num_epoch=10"]
        return Trainer.Run(configuration.trainer_args([*shared, *flags]), None)

    yield build
    torch.set_num_threads(1)


class Step(NamedTuple):
    indices: np.ndarray
    beta: float
    teacher_forcing: bool
    lr: float


def record_steps(run):
    """Replace the training step by one that only records what the loop gives to it, into the list."""
    given = []

    def update(batch, beta, teacher_forcing):
        lr = run.optimizer.param_groups[0]["lr"]
        given.append(Step(batch.frames, pytest.approx(beta.item()), teacher_forcing, lr / run.args.lr))

    run.update = Graphed(update, enabled=False)
    run.loader = SimpleNamespace(load=lambda indices: ClipBatch(indices, indices))
    return given


def steps(run, epoch=0):
    given = record_steps(run)
    run.train_epoch(epoch)
    return given


def by_epoch(name, *epochs):
    """An effect: a value of the first step of each epoch."""
    return lambda run: [getattr(steps(run, epoch)[0], name) for epoch in epochs]


def in_order(run):
    """Whether the clips are cut end to end from frame 0 on, and come in this order."""
    starts = [step.indices[:, 0] for step in steps(run)]
    return np.array_equal(np.concatenate(starts), range(0, 24, 4))


def teacher_forcing_ratios(run):
    record_steps(run)
    return [run.train_epoch(epoch)["tfr"] for epoch in range(4)]


def one_batch(run):
    return ClipLoader(run.dataset, run.device, run.background).load(np.arange(24).reshape(6, 4))


def train_once(run):
    """The statistics of one step with beta 0."""
    torch.manual_seed(0)
    run.training_step(one_batch(run), torch.zeros(()), teacher_forcing=True)
    return run.meter.read()


def weights(run):
    return torch.cat([parameter.detach().flatten() for parameter in run.model.parameters()])


def largest_update(run):
    before = weights(run)
    train_once(run)
    return (weights(run) - before).abs().max().item()


def decay(run):
    """The factor on the weights of an update whose gradient is 0."""
    before = weights(run).norm()
    for parameter in run.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    run.optimizer.step()
    return (weights(run).norm() / before).item()


def render(run):
    evaluate.render(run.model, [run.validation_video], run.args)
    return run.validation_video.prediction


def outputs(network):
    """An effect: `(N, C, H, W)` of what a network returns in generation."""

    def shape(run):
        shapes = []
        hook = getattr(run.model, network).register_forward_hook(lambda *call: shapes.append(call[2].shape))
        render(run)
        hook.remove()
        return tuple(shapes[0])

    return shape


def resolutions(run):
    """Number of resolutions in the decoder fusion."""
    sizes = set()
    for layer in run.model.Decoder_Fusion.modules():
        layer.register_forward_hook(lambda *call: sizes.add(call[2].shape[2:]))
    render(run)
    return len(sizes)


def smallest_output(run):
    run.model.Generator[7].bias.data.fill_(-5)
    return -1 if render(run)[1:].min() < 0 else 0


def dtypes(run):
    """Of the frame features, in training and in generation."""
    found = []
    run.model.frame_transformation.register_forward_hook(lambda *call: found.append(call[2].dtype))
    train_once(run)
    render(run)
    return set(found)


def depends_on_seed(run):
    predictions = []
    for run.args.seed in (0, 1):
        predictions.append(render(run))
    return not torch.equal(*predictions)


def fills_a_gap(run):
    """Whether a blank pose is as good as the one before it, in a rollout and with teacher forcing."""
    video, results = run.validation_video, []
    for pose in (ImageColor.getrgb(run.args.pose_background), video.poses[2]):
        video.poses[3] = pose
        evaluate.score_drift(run.model, [video], run.args)
        results.append([*render(run).flatten().tolist(), video.scores["psnr_forced"]])
    differs = np.array(results[0]) != results[1]
    return not differs.any() if differs[-1] == differs[:-1].any() else "only one of them is filled"


def augmentation(run):
    """Whether frames and poses stay as they are, and whether backgrounds are estimated."""
    batch = one_batch(run)
    frames, poses = augment(batch, run.args)
    return (
        torch.equal(frames, to_float(batch.frames)),
        torch.allclose(poses, to_float(batch.poses)),
        run.background is not None,
    )


def has_blank_poses(run):
    _, poses = augment(one_batch(run), run.args)
    return (poses == to_float_rgb(run.args.pose_background)).all(dim=(2, 3, 4)).any().item()


def num_clips(run):
    return [sum(len(step.indices) for step in steps(run, epoch)) for epoch in range(4)]


UNET = "--arch=unet --output=linear"
COSINE = [0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * progress)) for progress in (0, 0.2, 0.5)]
CYCLE = "--kl_anneal_cycle=4"
# Flag, what it changes, and the values with some flags.
EFFECTS = [
    ("--frame_H", lambda run: run.dataset.frames.shape[1:3], {"": (8, 16), "--frame_H=10": (10, 16)}),
    ("--frame_W", lambda run: run.dataset.frames.shape[1:3], {"": (8, 16), "--frame_W=12": (8, 12)}),
    ("--val_vi_len", lambda run: len(run.validation_video.poses), {"": 6, "--val_vi_len=4": 4}),
    ("--partial", lambda run: len(run.dataset.numbers), {"": 24, "--partial=0.5": 12}),
    ("--arch", lambda run: type(run.model.Generator).__module__, {"": "modules.lab", UNET: "modules.unet"}),
    ("--F_dim", outputs("frame_transformation"), {"": (1, 8, 8, 16), "--F_dim=16": (1, 16, 8, 16)}),
    ("--L_dim", outputs("label_transformation"), {"": (5, 4, 8, 16), "--L_dim=6": (5, 6, 8, 16)}),
    ("--N_dim", lambda run: run.draw_latents(torch.zeros(1, 2, 3, 8, 16))[0].shape[2],
     {"": 4, "--N_dim=6": 6}),
    ("--D_out_dim", outputs("Decoder_Fusion"), {"": (1, 8, 8, 16), "--D_out_dim=16": (1, 16, 8, 16)}),
    ("--patch_size", outputs("frame_transformation"),
     {f"{UNET} --patch_size=2": (1, 8, 4, 8), f"{UNET} --patch_size=4": (1, 8, 2, 4)}),
    ("--unet_levels", resolutions, {f"{UNET} --unet_levels=2": 2, f"{UNET} --unet_levels=3": 3}),
    ("--output", smallest_output, {"--output=linear": -1, "--output=sigmoid": 0}),
    ("--fill_poses", fills_a_gap,
     {"--fill_poses=0": False, "--fill_poses=1": True, "--fill_poses=1 --pose_background=black": True}),
    ("--pose_background", lambda run: run.model.label_transformation.background.flatten().tolist(),
     {f"{UNET} --pose_background={name}": rgb
      for name, rgb in (("black", [0, 0, 0]), ("FFFFFF", [1, 1, 1]), ("#ff0033", [1, 0, 0.2]))}),
    ("--tta", outputs("Generator"), {"--tta=1": (1, 3, 8, 16), "--tta=3": (3, 3, 8, 16)}),
    ("--z", depends_on_seed, {"--z=mean": False, "--z=sample": True}),
    ("--num_epoch", lambda run: [run.budget.is_finished(epoch) for epoch in (2, 3)],
     {"--num_epoch=3": [False, True], "--num_epoch=2": [True, True]}),
    ("--batch_size", lambda run: [len(step.indices) for step in steps(run)],
     {"--batch_size=2": [2, 2, 2], "--batch_size=3": [3, 3],
      "--batch_size=2 --train_vi_len=6 --start_vi_len=3": [4, 4]}),  # shorter clips, and more of them
    ("--train_vi_len", lambda run: steps(run)[0].indices.shape, {"": (2, 4), "--train_vi_len=6": (2, 6)}),
    ("--start_vi_len", lambda run: [steps(run, epoch)[0].indices.shape[1] for epoch in (0, 5, 9)],
     {"--train_vi_len=6": [6, 6, 6], "--train_vi_len=6 --start_vi_len=3": [3, 3, 6]}),
    ("--clips", in_order, {"--clips=in_order": True, "--clips=shuffled": False}),
    ("--reference_frame", lambda run: (np.diff(steps(run)[0].indices) == 1).all(),
     {"--reference_frame=clip": True, "--reference_frame=any": False}),
    ("--augment", augmentation,
     {"--augment=none": (True, True, False), "--augment=affine": (False, False, False),
      # Without a static camera it does nothing.
      "--augment=copy_paste": (True, True, True)}),
    ("--pose_dropout", has_blank_poses, {"--pose_dropout=0": False, "--pose_dropout=1": True}),
    # The lab's --fast_train lasts two epochs longer.
    ("--fast_train", num_clips, {"": [6] * 4, "--fast_train": [2] * 4}),
    ("--fast_partial", num_clips, {"--fast_train --fast_partial=0.7": [4] * 4}),
    ("--fast_train_epoch", num_clips, {"--fast_train --fast_train_epoch=1": [2, 2, 2, 6]}),
    ("--recon_loss", lambda run: (stats := train_once(run))["loss"] == pytest.approx(stats["mse"]),
     {"--recon_loss=mse": True, "--recon_loss=log_mse": False}),
    ("--optim", lambda run: type(run.optimizer).__name__,
     {f"--optim={name}": name for name in ("Adam", "AdamW", "Muon")}),
    ("--weight_decay", decay,
     {"--optim=AdamW": 1.0, "--optim=AdamW --weight_decay=0.5 --lr=0.1": 0.95}),
    ("--lr", largest_update, {"--lr=0.001": 0.001, "--lr=0.01": 0.01}),  # Adam's first update is lr
    ("--lr_schedule", by_epoch("lr", 0, 2, 5),
     {"--lr_schedule=constant": [1, 1, 1], "--lr_schedule=step": [1, 0.1, 0.01],
      "--lr_schedule=cosine": COSINE}),
    ("--lr_warmup", lambda run: [step.lr for step in steps(run)],
     {"--lr_warmup=0": [1, 1, 1], "--lr_warmup=4": [0.25, 0.5, 0.75]}),
    ("--tfr", by_epoch("teacher_forcing", 0, 1), {"--tfr=1": [True, True], "--tfr=0": [False, False]}),
    ("--tfr_sde", teacher_forcing_ratios,
     {"--num_epoch=4 --tfr_sde=2": [1, 1, 0.5, 0], "--num_epoch=4 --tfr_sde=0": [0.75, 0.5, 0.25, 0]}),
    ("--tfr_d_step", teacher_forcing_ratios,
     {"--tfr_sde=1 --tfr_d_step=0.25": [1, 0.75, 0.5, 0.25]}),
    ("--kl_anneal_type", by_epoch("beta", 0, 2, 4, 6),
     {f"{CYCLE} --kl_anneal_type=Cyclical": [0.01, 0.5, 0, 0.5],
      f"{CYCLE} --kl_anneal_type=Monotonic": [0.01, 0.5, 1, 1],
      f"{CYCLE} --kl_anneal_type=NoKL_Annealing": [1, 1, 1, 1],
      # What students call them.
      f"{CYCLE} --kl_anneal_type=cyclical": [0.01, 0.5, 0, 0.5],
      **{f"{CYCLE} --kl_anneal_type={name}": [1, 1, 1, 1] for name in ("None", "none", "without")}}),
    ("--kl_anneal_cycle", by_epoch("beta", 1, 2, 3), {CYCLE: [0.25, 0.5, 0.75]}),
    ("--kl_anneal_ratio", by_epoch("beta", 1, 2, 3), {f"{CYCLE} --kl_anneal_ratio=2": [0.5, 1, 1]}),
    ("--kl_anneal_start", by_epoch("beta", 0, 1, 2), {f"{CYCLE} --kl_anneal_start=0.3": [0.3, 0.3, 0.5]}),
    ("--z_dropout", lambda run: round(run.draw_latents(torch.zeros(2000, 2, 3, 8, 16))[1].mean().item(), 1),
     {"--z_dropout=0": 1.0, "--z_dropout=0.3": 0.7}),
    ("--precision", dtypes, {"--precision=fp32": {torch.float32}, "--precision=bf16": {torch.bfloat16}}),
    ("--threads", lambda run: torch.get_num_threads(), {"--threads=1": 1, "--threads=3": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("effect", "values"), [e[1:] for e in EFFECTS], ids=[e[0] for e in EFFECTS])
def test_effect_of(build, effect, values):
    for flags, expected in values.items():
        found = effect(build(*flags.split()))
        is_number = isinstance(expected, float | list) and not isinstance(expected, bool)
        assert found == (pytest.approx(expected, rel=1e-2) if is_number else expected), flags


def test_kl_reduction_elbo_divides_by_the_decoder_s_variance(build):
    """--kl_reduction"""
    summed, elbo = (train_once(build(f"--kl_reduction={kind}")) for kind in ("sum", "elbo"))
    mse_per_frame = summed["mse"] / 3
    assert elbo["kl"] == pytest.approx(summed["kl"] * 2 * mse_per_frame / (3 * 8 * 16), rel=1e-4)


def test_seed_determines_the_weights_and_the_order(build):
    """--seed"""
    runs = [build("--clips=shuffled", f"--seed={seed}") for seed in (1, 1, 2)]
    for value in (lambda run: steps(run)[0].indices.tolist(), lambda run: weights(run).tolist()):
        one, same, other = map(value, runs)
        assert one == same != other


def test_num_workers_images_are_decoded_at_once(build, monkeypatch):
    """--num_workers"""
    barrier, read = threading.Barrier(3, timeout=20), image_cache.read_image

    def read_together(*arguments):
        barrier.wait()  # fails unless three threads are here
        return read(*arguments)

    monkeypatch.setattr(image_cache, "read_image", read_together)
    build("--num_workers=3", "--frame_H=9")


TESTED_ELSEWHERE = {
    "test_trainer.py": {
        "--DR", "--save_root", "--max_minutes", "--per_val", "--per_save", "--store_visualization", "--test",
    },
    "test_resume.py": {"--resume", "--ckpt_path"},
    "training/test_configuration.py": {"--recipe"},
    "test_tester.py": {"--make_gif", "--mp4", "--submission", "--samples", "--drift"},
    "runtime/test_device.py": {"--device", "--gpu"},
    "runtime/test_run_dir.py": {"--overwrite"},
}  # fmt: skip


def test_every_flag_is_tested():
    here = {name for name, *_ in EFFECTS} | {"--kl_reduction", "--seed", "--num_workers"}
    for file, names in TESTED_ELSEWHERE.items():
        text = (Path(__file__).parent / file).read_text()
        assert not [name for name in names if name not in text], file
    groups = itertools.chain(options.TRAINER.values(), options.TESTER.values())
    flags = {flag.name for group in groups for flag in group}
    assert flags == here.union(*TESTED_ELSEWHERE.values())
