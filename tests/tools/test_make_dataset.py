"""tools/make_dataset.py: the folders and pictures it writes."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from tests.tools.drawing import ROOT, SMALL, TINY, contents, names, run
from tools import pose_file
from tools.synthetic.body import INDEX, make_take
from tools.synthetic.dataset import SPLITS
from tools.synthetic.frames import paint_places


def pictures(folder):
    """(T, H, W, 3) float in [0, 1], in the order of names."""
    return np.stack([np.asarray(Image.open(folder / n), float) for n in names(folder)]) / 255


def squared_error(a, b):
    """Mean over pixels and channels of two stacks of pictures, (T,)."""
    return ((a - b) ** 2).mean((1, 2, 3))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A tiny dataset."""
    out = tmp_path_factory.mktemp("small") / "data"
    done = run(out, *SMALL, "--workers=2")
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """(pictures, poses) of a validation video in the usual size, long enough to walk across the room."""
    out = tmp_path_factory.mktemp("video") / "data"
    lengths = ("--train_frames=1", "--val_frames=150", "--test_frames=1", "--test_sequences=1")
    done = run(out, *lengths, "--workers=1")
    assert done.returncode == 0, done.stderr
    return pictures(out / "val" / "val_img"), pictures(out / "val" / "val_label")


def test_writes_the_layout_of_the_lab(small):
    assert names(small) == ["poses.json", "test", "train", "val"]
    twelve = [f"frame{i:06d}.png" for i in range(12)]
    assert names(small / "val/val_img") == names(small / "val/val_label") == twelve
    assert names(small / "train/train_img") == names(small / "train/train_label")
    assert len(names(small / "train/train_img")) == 80
    for kind in ("img", "label", "gt"):
        assert names(small / f"test/test_{kind}") == ["0", "1"]
    for i in "01":
        assert names(small / "test/test_img" / i) == twelve[:1]
        assert names(small / "test/test_label" / i) == names(small / "test/test_gt" / i) == twelve
        first = (small / "test/test_img" / i / twelve[0]).read_bytes()
        assert first == (small / "test/test_gt" / i / twelve[0]).read_bytes()


def test_poses_json_says_where_the_joints_are_in_the_pose_pictures(small):
    poses = pose_file.read(small / "poses.json")
    assert poses.size == (32, 16) and len(poses.places) == 80 + 12 + 2 * 12
    for folder in ("train/train_label", "val/val_label", "test/test_label/1"):
        of_folder = poses.places[[name == folder for name in poses.folders]]
        for places, name in zip(of_folder, names(small / folder), strict=True):
            with Image.open(small / folder / name) as picture:
                difference = paint_places(places, 32, 16).astype(int) - np.asarray(picture)
            assert np.abs(difference).max() <= 8  # places are rounded to a hundredth of a pixel


def test_pictures_are_rgb_of_the_asked_size(small):
    for path in small.rglob("*.png"):
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == ("RGB", (32, 16))


def test_the_numbers_jump_between_takes(small):
    numbers = np.array([int(n[5:-4]) for n in names(small / "train/train_img")])
    steps = np.diff(numbers)
    assert (steps > 0).all()
    assert (steps != 1).sum() == 1
    assert numbers[0] == 0


def test_takes_are_smooth_and_a_jump_is_not(small):
    numbers = np.array([int(n[5:-4]) for n in names(small / "train/train_img")])
    train = pictures(small / "train/train_img")
    change = np.abs(np.diff(train, axis=0)).mean((1, 2, 3))
    within = np.diff(numbers) == 1
    assert change[~within].min() > 2 * change[within].max()


def test_same_flags_give_the_same_bytes_with_any_number_of_workers(small, tmp_path):
    assert run(tmp_path / "again", *SMALL, "--workers=1", cwd=tmp_path).returncode == 0
    assert contents(tmp_path / "again") == contents(small)


def test_another_seed_gives_another_motion_in_the_same_room(small, tmp_path):
    assert run(tmp_path / "other", *SMALL, "--seed=1", "--workers=1").returncode == 0
    old, new = contents(small), contents(tmp_path / "other")
    assert old.keys() == new.keys()
    assert not {b for p, b in old.items() if "img" in p} & {b for p, b in new.items() if "img" in p}
    corner = (slice(None), slice(0, 4), slice(0, 4))
    room = [pictures(d / "val/val_img")[corner] for d in (small, tmp_path / "other")]
    assert np.array_equal(*room)


def test_no_picture_is_shared_between_splits_or_sequences(small):
    for kind, truth in (("img", "gt"), ("label", "label")):
        folders = [
            f"train/train_{kind}",
            f"val/val_{kind}",
            *(f"test/test_{truth}/{i}" for i in "01"),
        ]
        groups = [set(contents(small / folder).values()) for folder in folders]
        assert len(set.union(*groups)) == sum(map(len, groups))


def test_motion_is_smooth(video):
    frames, poses = video
    order = np.random.default_rng(0).permutation(len(frames))
    for stack in (frames, poses):
        change = np.abs(np.diff(stack, axis=0)).mean((1, 2, 3))
        shuffled = np.abs(stack - stack[order]).mean((1, 2, 3))
        assert change.max() < 0.04
        assert change.mean() < 0.25 * shuffled.mean()


def test_the_first_frame_is_a_poor_guess_for_the_others(video):
    frames, _ = video
    psnr = 10 * np.log10(1 / squared_error(frames[1:], frames[:1]))
    assert 14 < psnr.mean() < 24
    assert np.median(psnr) < 20


def test_the_pose_is_drawn_on_white_with_a_colour_for_each_side(video):
    _, poses = video
    assert (poses.min(-1) == 1.0).mean() > 0.8
    assert (poses[:, 0] == 1.0).all()
    red, green, blue = np.moveaxis(poses, -1, 0)
    warm = (red > blue + 0.3).sum((1, 2))
    cool = ((blue > red + 0.3) | (green > red + 0.2)).sum((1, 2))
    # In a view from the side, the limbs of one side may hide most of the others.
    assert warm.min() > 0
    assert cool.min() > 0
    assert np.median(warm) > 10
    assert np.median(cool) > 10


def test_the_pose_changes_sides_when_the_person_turns(video):
    """Facing us, the right limbs are on the left of the picture; facing away, on the right."""
    _, poses = video
    columns = np.arange(poses.shape[2])
    warm = np.clip(poses[..., 0] - poses[..., 2] - 0.2, 0, 1)
    cool = np.clip(poses[..., 1] - poses[..., 0] - 0.1, 0, 1)
    right, left = ((w * columns).sum((1, 2)) / w.sum((1, 2)) for w in (warm, cool))
    assert (right < left - 1).any()
    assert (right > left).any()


def test_the_person_stays_in_the_picture_and_crosses_it(video):
    _, poses = video
    drawn = poses.min(-1) < 0.9
    height, width = drawn.shape[1:]
    edges = (drawn[:, 0], drawn[:, -1], drawn[:, :, 0], drawn[:, :, -1])
    assert not any(edge.any() for edge in edges)
    rows = np.flatnonzero(drawn[0].any(1))
    assert 0.65 * height < np.ptp(rows) + 1 < 0.9 * height
    middles = [np.flatnonzero(d.any(0)).mean() for d in drawn]
    assert np.ptp(middles) > width / 4


def test_the_pose_lies_on_the_person(video):
    frames, poses = video
    # The person is somewhere else most of the time, so the median is the empty studio.
    person = np.abs(frames - np.median(frames, axis=0)).max(-1) > 0.12
    bones = poses.min(-1) < 0.6
    moving = [k for k in range(len(frames)) if person[k].sum() > 60]
    assert len(moving) > 60
    covered = [(person[k] & bones[k]).sum() / bones[k].sum() for k in moving]
    assert np.mean(covered) > 0.75


def test_draws_at_the_size_of_the_lab(tmp_path):
    lengths = ("--train_frames=1", "--val_frames=1", "--test_frames=1", "--test_sequences=1")
    assert run(tmp_path / "big", "--size", "1024x512", *lengths, "--workers=1").returncode == 0
    big = pictures(tmp_path / "big/train/train_img")
    assert big.shape == (1, 512, 1024, 3)
    assert run(tmp_path / "small", "--size", "64x32", *lengths, "--workers=1").returncode == 0
    same = pictures(tmp_path / "small/train/train_img")
    averaged = big.reshape(1, 32, 16, 64, 16, 3).mean((2, 4))
    assert np.abs(averaged - same).mean() < 0.02


def test_runs_as_a_module_and_without_torch(tmp_path):
    command = [sys.executable, "-m", "tools.make_dataset", str(tmp_path / "out"), *TINY]
    subprocess.run(command, cwd=ROOT, check=True)
    assert names(tmp_path / "out") == ["poses.json", *sorted(SPLITS)]
    code = "import sys, tools.make_dataset; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_help_names_every_flag():
    done = run("--help")
    assert done.returncode == 0
    flags = "--size --train_frames --val_frames --test_frames --test_sequences --seed --workers"
    assert all(flag in done.stdout for flag in flags.split())


def test_bones_keep_their_length_knees_bend_forwards_and_standing_feet_do_not_slide():
    for seed in range(5):
        figure = make_take(np.random.default_rng(seed), 400, 1.2)
        at = {name: figure.joints[:, i] for name, i in INDEX.items()}
        for chain in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist")):
            for side, (a, b) in ((s, pair) for s in "lr" for pair in pairwise(chain)):
                length = np.linalg.norm(at[f"{side}_{a}"] - at[f"{side}_{b}"], axis=-1)
                assert np.ptp(length) < 1e-6
        for side in "lr":
            hip, knee, ankle, toe = (at[f"{side}_{j}"] for j in ("hip", "knee", "ankle", "toe"))
            bend = knee - (hip + ankle) / 2
            assert ((bend * (toe - ankle)).sum(-1) > -0.01).all()
            heel = at[f"{side}_heel"]
            assert min(toe[:, 1].min(), heel[:, 1].min()) > -0.02
            flat = np.maximum(toe[:, 1], heel[:, 1]) < 0.003
            slide = np.linalg.norm(np.diff(toe, axis=0), axis=-1)[flat[1:] & flat[:-1]]
            assert len(slide) > 100
            assert slide.max() < 0.012
