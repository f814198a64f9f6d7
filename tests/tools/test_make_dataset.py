"""tools/make_dataset.py: the folders and images it writes."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from tests.tools.synthetic import SMALL, contents, names, run
from tools import pose_file
from tools.synthetic.body import INDEX, random_figure
from tools.synthetic.frames import draw_keypoints


def images(folder):
    """(T, H, W, 3) float in [0, 1], in the order of names."""
    return np.stack([np.asarray(Image.open(folder / n), float) for n in names(folder)]) / 255


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A tiny dataset."""
    out = tmp_path_factory.mktemp("small") / "data"
    run(out, *SMALL, "--workers=2")
    return out


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """(images, poses) of a validation video in the usual size, long enough to walk across the room."""
    out = tmp_path_factory.mktemp("video") / "data"
    run(out, "--train_frames=1", "--val_frames=150", "--test_frames=1", "--test_sequences=1")
    return images(out / "val" / "val_img"), images(out / "val" / "val_label")


def test_layout_of_the_course(small):
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
    for path in small.rglob("*.png"):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (32, 16))


def test_poses_json_has_the_keypoints_of_the_pose_images(small):
    poses = pose_file.read(small / "poses.json")
    assert poses.size == (32, 16) and len(poses.keypoints) == 80 + 12 + 2 * 12
    for folder in ("train/train_label", "val/val_label", "test/test_label/1"):
        for keypoints, name in zip(poses.of_folder(folder), names(small / folder), strict=True):
            with Image.open(small / folder / name) as image:
                difference = draw_keypoints(keypoints, 32, 16).astype(int) - np.asarray(image)
            assert np.abs(difference).max() <= 8  # keypoints are rounded to a hundredth of a pixel


def test_numbers_jump_between_shots_and_motion_is_smooth_within(small):
    numbers = np.array([int(n[5:-4]) for n in names(small / "train/train_img")])
    within = np.diff(numbers) == 1
    assert numbers[0] == 0 and (np.diff(numbers) > 0).all() and (~within).sum() == 1
    change = np.abs(np.diff(images(small / "train/train_img"), axis=0)).mean((1, 2, 3))
    assert change[~within].min() > 2 * change[within].max()


def test_same_flags_give_the_same_bytes_with_any_number_of_workers(small, tmp_path):
    run(tmp_path / "again", *SMALL, "--workers=1")
    assert contents(tmp_path / "again") == contents(small)


def test_another_seed_gives_another_motion(small, tmp_path):
    run(tmp_path / "other", *SMALL, "--seed=1")
    old, new = contents(small), contents(tmp_path / "other")
    assert old.keys() == new.keys()
    assert not {b for p, b in old.items() if "img" in p} & {b for p, b in new.items() if "img" in p}


def test_no_image_is_shared_between_splits_or_sequences(small):
    for kind, truth in (("img", "gt"), ("label", "label")):
        folders = [f"train/train_{kind}", f"val/val_{kind}", *(f"test/test_{truth}/{i}" for i in "01")]
        groups = [set(contents(small / folder).values()) for folder in folders]
        assert len(set.union(*groups)) == sum(map(len, groups))


def test_motion_is_smooth_and_the_first_frame_a_poor_guess_for_the_others(video):
    frames, poses = video
    order = np.random.default_rng(0).permutation(len(frames))
    for stack in (frames, poses):
        change = np.abs(np.diff(stack, axis=0)).mean((1, 2, 3))
        shuffled = np.abs(stack - stack[order]).mean((1, 2, 3))
        assert change.max() < 0.04
        assert change.mean() < 0.25 * shuffled.mean()
    psnr = -10 * np.log10(((frames[1:] - frames[:1]) ** 2).mean((1, 2, 3)))
    assert 14 < psnr.mean() < 24


def test_pose_has_a_colour_for_each_side_and_changes_sides_when_the_person_turns(video):
    """Facing us, the right limbs are on the left of the image; facing away, on the right."""
    _, poses = video
    assert (poses.min(-1) == 1.0).mean() > 0.8
    columns = np.arange(poses.shape[2])
    warm = np.clip(poses[..., 0] - poses[..., 2] - 0.2, 0, 1)
    cool = np.clip(poses[..., 1] - poses[..., 0] - 0.1, 0, 1)
    assert warm.sum((1, 2)).min() > 0 and cool.sum((1, 2)).min() > 0
    right, left = ((w * columns).sum((1, 2)) / w.sum((1, 2)) for w in (warm, cool))
    assert (right < left - 1).any()
    assert (right > left).any()


def test_person_stays_in_the_image_and_crosses_it(video):
    _, poses = video
    drawn = poses.min(-1) < 0.9
    height, width = drawn.shape[1:]
    edges = (drawn[:, 0], drawn[:, -1], drawn[:, :, 0], drawn[:, :, -1])
    assert not any(edge.any() for edge in edges)
    rows = np.flatnonzero(drawn[0].any(1))
    assert 0.65 * height < np.ptp(rows) + 1 < 0.9 * height
    centers = [np.flatnonzero(d.any(0)).mean() for d in drawn]
    assert np.ptp(centers) > width / 4


def test_pose_lies_on_the_person(video):
    frames, poses = video
    # The person is somewhere else most of the time, so the median is the empty room.
    person = np.abs(frames - np.median(frames, axis=0)).max(-1) > 0.12
    bones = poses.min(-1) < 0.6
    moving = [k for k in range(len(frames)) if person[k].sum() > 60]
    assert len(moving) > 60
    covered = [(person[k] & bones[k]).sum() / bones[k].sum() for k in moving]
    assert np.mean(covered) > 0.75


def test_bones_keep_their_length_knees_bend_forwards_and_standing_feet_do_not_slide():
    for seed in range(5):
        figure = random_figure(np.random.default_rng(seed), 400, 1.2)
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
