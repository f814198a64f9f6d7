"""Backgrounds, and copy-paste augmentation, with a red person before a smooth wall."""

import numpy as np
import pytest
import torch

from dataloader import ClipBatch
from training.background import estimate_backgrounds, near_pose
from training.copy_paste import COPY_PASTE_FRACTION, copy_paste
from utils import to_float

HEIGHT, WIDTH = 32, 64


def wall(seed=0):
    """A background `(H, W, 3)`, uint8."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = 120 + 40 * np.sin(columns / 9 + seed) + rows
    return np.stack([image, image + 10, image - 20], axis=-1).astype(np.uint8)


def make_video(positions, background):
    """Frames and poses, uint8 `(N, H, W, 3)`, of a person whose left edge is at `positions`."""
    frames = np.stack([background] * len(positions))
    poses = np.full_like(frames, 255)
    for index, x in enumerate(positions):
        frames[index, 8:24, x : x + 6] = (220, 20, 20)
        poses[index, 9:23, x + 2 : x + 4] = (0, 0, 255)
    return frames, poses


def make_batch(positions, count, alpha=255):
    """`count` equal clips before the wall."""
    frames, poses = map(torch.from_numpy, make_video(positions, wall()))
    background = torch.from_numpy(np.dstack([wall(), np.full((HEIGHT, WIDTH), alpha, np.uint8)]))
    return ClipBatch(*(images.expand(count, *images.shape) for images in (frames, poses, background)))


def paste(positions, count=40, alpha=255, random_reference=False):
    """The given clips, poses as their difference from white, and the result of `copy_paste`."""
    torch.manual_seed(0)
    frames, poses, background = (to_float(images) for images in make_batch(positions, count, alpha))
    clips = [frames, 1 - poses, background]
    return clips, copy_paste(*clips, random_reference)


def is_red(frames):
    """Mask of the person, `(..., H, W)`."""
    return frames[..., 0, :, :] - frames[..., 2, :, :] > 0.4


def assert_person_is_at_the_pose_and_the_wall_elsewhere(frames, drawing, reach):
    is_drawn = drawing.amax(dim=2) > 0.7
    assert is_red(frames)[is_drawn].float().mean() > 0.95
    far = (near_pose(drawing, reach) == 0).expand_as(frames)
    expected = to_float(wall()[None]).expand_as(frames)
    torch.testing.assert_close(frames[far], expected[far], atol=0.03, rtol=0)


def test_background_is_the_wall_even_where_the_person_stands_most_of_the_time():
    frames, poses = make_video([20] * 30 + [50] * 6, wall())
    (background,) = estimate_backgrounds(frames, poses, [np.arange(36)], "#ffffff")
    assert (background[..., 3] == 255).all()
    assert np.array_equal(background[..., :3], wall())


def test_background_excludes_the_person_by_poses_on_black_too():
    frames, poses = make_video([20] * 30 + [50] * 6, wall())
    on_white, on_black = (
        estimate_backgrounds(frames, images, [np.arange(36)], colour)
        for images, colour in ((poses, "#ffffff"), (255 - poses, "#000000"))
    )
    assert np.array_equal(on_black, on_white)


@pytest.mark.parametrize("is_same_wall", [True, False])
def test_hidden_background_comes_from_a_shot_of_the_same_wall(is_same_wall):
    darker = wall() - 12
    frames, poses = make_video([20] * 10, darker)
    other_frames, other_poses = make_video(list(range(4, 56)), wall(seed=0 if is_same_wall else 2))
    shots = [np.arange(10), np.arange(10, 62)]
    images = np.concatenate([frames, other_frames]), np.concatenate([poses, other_poses])
    background, _ = estimate_backgrounds(*images, shots, "#ffffff")
    known = background[..., 3] > 0
    assert known[10:22, 21:25].all() if is_same_wall else not known[10:22, 21:25].any()
    assert np.abs(background[known][:, :3].astype(int) - darker[known]).max() <= 1


def test_shot_of_a_moving_camera_has_no_background():
    frames, poses = (
        np.stack([np.roll(image, 2 * index, axis=1) for index, image in enumerate(images)])
        for images in make_video(list(range(4, 54)), wall())
    )
    (background,) = estimate_backgrounds(frames, poses, [np.arange(50)], "#ffffff")
    assert not background[..., 3].any()


def test_pasted_person_stands_at_the_pasted_pose_before_the_same_wall(monkeypatch):
    monkeypatch.setattr("training.copy_paste.COPY_PASTE_FRACTION", 1.0)
    _, (frames, drawing) = paste([28, 29, 30])
    heights = is_red(frames).any(dim=3).sum(dim=2)
    assert heights.max() > 1.5 * 16 and heights.min() < 0.85 * 16
    is_near = heights.amax(dim=1) <= 20  # larger persons reach farther than `near_pose`
    assert_person_is_at_the_pose_and_the_wall_elsewhere(frames[is_near], drawing[is_near], reach=0.175)


@pytest.mark.parametrize("random_reference", [False, True])
def test_frames_of_a_clip_move_alike_except_a_random_reference_frame(monkeypatch, random_reference):
    monkeypatch.setattr("training.copy_paste.COPY_PASTE_FRACTION", 1.0)
    (given, *_), (frames, _) = paste([30] * 3, 6, random_reference=random_reference)
    torch.testing.assert_close(frames[:, 1], frames[:, 2])
    assert torch.equal(frames[:, 0], given[:, 0]) == random_reference
    assert torch.allclose(frames[:, 0], frames[:, 1], atol=0.1) == (not random_reference)


def test_a_fraction_of_the_clips_is_changed():
    (given, given_drawing, _), (frames, drawing) = paste([28, 29], 200)
    is_changed = (drawing != given_drawing).flatten(1).any(dim=1)
    assert is_changed.float().mean() == pytest.approx(COPY_PASTE_FRACTION, abs=0.08)
    assert torch.equal(is_changed, (frames != given).flatten(1).any(dim=1))


def test_clips_without_a_known_background_stay_as_they_are(monkeypatch):
    monkeypatch.setattr("training.copy_paste.COPY_PASTE_FRACTION", 1.0)
    (given, given_drawing, _), (frames, drawing) = paste([28, 29], alpha=0)
    assert torch.equal(frames, given) and torch.equal(drawing, given_drawing)


def test_poses_of_persons_beyond_an_edge_are_cropped_near_it_and_frames_are_not(monkeypatch):
    monkeypatch.setattr("training.copy_paste.COPY_PASTE_FRACTION", 1.0)
    pasted = []
    for probability in (0.0, 1.0):
        monkeypatch.setattr("training.copy_paste.CROP_PROBABILITY", probability)
        pasted.append(paste([28, 29], 60)[1])
    (frames, whole), (same_frames, cropped) = pasted
    assert torch.equal(frames, same_frames)
    is_cropped = (whole != cropped).flatten(1).any(dim=1)
    assert 10 < is_cropped.sum() < 60
    assert (cropped[whole != cropped] == 0).all()
    edges = whole[is_cropped][:, :, :, [0, -1]]
    assert (edges > 0.1).flatten(1).any(dim=1).all()
