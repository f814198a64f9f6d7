import numpy as np
import pytest
import torch

from training import copy_paste as paste_module
from training.augment import augment
from training.background import backgrounds, near_pose
from training.copy_paste import SHARES, paste, person_masks

HEIGHT, WIDTH = 32, 64


def wall(seed=0):
    """A smooth background `(H, W, 3)`, uint8."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    picture = 120 + 40 * np.sin(columns / 9 + seed) + rows
    return np.stack([picture, picture + 10, picture - 20], axis=-1).astype(np.uint8)


def video(places, background):
    """Frames and poses, uint8 `(N, H, W, 3)`, of a red body, 6 x 16, with its left edge at `places`."""
    frames, poses = (
        np.stack([background] * len(places)),
        np.full((len(places), HEIGHT, WIDTH, 3), 255, np.uint8),
    )
    for index, place in enumerate(places):
        frames[index, 8:24, place : place + 6] = (220, 20, 20)
        poses[index, 9:23, place + 2 : place + 4] = (0, 0, 255)
    return frames, poses


def to_clips(frames, poses, background, count):
    """`count` equal clips as `paste` takes them."""
    clips = (
        torch.from_numpy(a).movedim(-1, 1).float().div(255).expand(count, -1, -1, -1, -1)
        for a in (frames, poses)
    )
    return *clips, torch.from_numpy(background).movedim(-1, 0).float().div(255).expand(count, -1, -1, -1)


def test_background_is_the_wall_even_where_the_person_stands_most_of_the_time():
    places = [20] * 30 + [50] * 6
    frames, poses = video(places, wall())
    (background,) = backgrounds(frames, poses, [np.arange(36)])
    assert (background[..., 3] == 255).all()
    assert np.array_equal(background[..., :3], wall())


def test_background_that_a_shot_never_shows_comes_from_another_shot_of_the_same_wall():
    frames, poses = video([20] * 10 + list(range(4, 56)), wall())
    darker = (frames[:10].astype(int) - 12).astype(np.uint8)
    shots = [np.arange(10), np.arange(10, 62)]
    alone, whole = backgrounds(np.concatenate([darker, frames[10:]]), poses, shots)
    assert (alone[..., 3] == 255).all() and (whole[..., 3] == 255).all()
    assert np.abs(alone[..., :3].astype(int) - (wall().astype(int) - 12)).max() <= 1


def test_hidden_background_is_not_known_where_no_other_shot_has_the_same():
    hidden, poses = video([20] * 10, wall())
    others, other_poses = video(list(range(4, 56)), wall(seed=2))
    shots = [np.arange(10), np.arange(10, 62)]
    alone, _ = backgrounds(np.concatenate([hidden, others]), np.concatenate([poses, other_poses]), shots)
    assert not alone[10:22, 21:25, 3].any() and alone[:, 50:, 3].all()


def test_shot_of_a_moving_camera_has_no_background():
    places = list(range(4, 54))
    frames, poses = video(places, wall())
    frames = np.stack([np.roll(frame, 2 * index, axis=1) for index, frame in enumerate(frames)])
    poses = np.stack([np.roll(pose, 2 * index, axis=1) for index, pose in enumerate(poses)])
    (background,) = backgrounds(frames, poses, [np.arange(50)])
    assert not background[..., 3].any()


def known(background):
    return np.concatenate([background, np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], axis=-1)


def test_pasted_person_stands_at_the_pasted_pose_before_the_same_wall(monkeypatch):
    monkeypatch.setitem(SHARES, "paste", 1.0)
    torch.manual_seed(0)
    frames, poses, background = to_clips(*video([28, 29, 30], wall()), known(wall()), 40)
    new_frames, new_poses, _ = paste(frames, poses, background, ["paste"], first_apart=False)
    red = (new_frames[:, :, 0] - new_frames[:, :, 2]) > 0.4
    heights = red.any(dim=3).sum(dim=2).float()
    assert heights.max() > 1.5 * 16 and heights.min() < 0.85 * 16
    for clip in range(40):
        for t in range(3):
            ink = (1 - new_poses[clip, t]).amax(dim=0) > 0.7
            if ink.any():  # the pose is drawn on the body, and on nothing else
                assert red[clip, t][ink].float().mean() > 0.85
            if heights[clip, t] > 20:
                continue  # so close that the body reaches farther than `near_pose`
            far = near_pose(new_poses[clip, t][None, None])[0, 0, 0] == 0
            torch.testing.assert_close(
                new_frames[clip, t][:, far], background[clip, :3][:, far], atol=0.03, rtol=0
            )


def test_frames_of_a_clip_move_together_but_the_first_stays_if_it_is_from_another_time(monkeypatch):
    monkeypatch.setitem(SHARES, "paste", 1.0)
    torch.manual_seed(0)
    frames, poses, background = to_clips(*video([30, 30, 30], wall()), known(wall()), 6)
    together, *_ = paste(frames, poses, background, ["paste"], first_apart=False)
    torch.testing.assert_close(together[:, 0], together[:, 2])
    apart, *_ = paste(frames, poses, background, ["paste"], first_apart=True)
    torch.testing.assert_close(apart[:, 1], apart[:, 2])
    assert torch.equal(apart[:, 0], frames[:, 0])
    assert not torch.allclose(apart[:, 0], apart[:, 1], atol=0.1)


@pytest.mark.parametrize("alpha", [0, 255])
def test_clip_without_a_known_background_stays_as_it_is(alpha):
    torch.manual_seed(0)
    picture = known(wall())
    picture[..., 3] = alpha
    frames, poses, background = to_clips(*video([10, 11], wall()), picture, 30)
    new_frames, new_poses, _ = paste(frames, poses, background, ["paste"], first_apart=False)
    changed = (new_poses != poses).flatten(1).any(dim=1)
    assert changed.tolist() == (new_frames != frames).flatten(1).any(dim=1).tolist()
    assert not changed.any() if alpha == 0 else 1 < changed.sum() < 15


def test_masks_hold_the_body_and_no_far_noise():
    frames, poses = video([30], wall())
    frames[0, 2:4, 2:4] = 255  # a lamp
    frames, poses, background = to_clips(frames, poses, known(wall()), 1)
    mask = person_masks(frames, poses, background[:, None, :3])[0][0, 0, 0]
    assert (mask[9:23, 31:35] == 1).all()
    assert not mask[:6, :10].any() and not mask[:, 45:].any()


def test_poses_of_bodies_beyond_an_edge_are_lost_near_it_while_their_frames_stay(monkeypatch):
    monkeypatch.setitem(SHARES, "paste", 1.0)
    clips = to_clips(*video([28, 29], wall()), known(wall()), 60)
    pasted = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(paste_module, "LOST_AT_EDGE", share)
        torch.manual_seed(0)
        pasted.append(paste(*clips, ["paste"], first_apart=False)[:2])
    (frames, whole), (same_frames, cut) = pasted
    assert torch.equal(frames, same_frames)
    rows_of_ink = ((1 - whole).amax(dim=(2, 4)) > 0.1, (1 - cut).amax(dim=(2, 4)) > 0.1)
    touches = rows_of_ink[0][:, :, [0, -1]].any(dim=(1, 2))
    changed = (whole != cut).flatten(1).any(dim=1)
    assert 10 < changed.sum() < 60 and not (changed & ~touches).any()
    assert torch.equal(cut[cut != whole], torch.ones_like(cut[cut != whole]))  # erased, never added
    for before, after in zip(*(rows[changed] for rows in rows_of_ink), strict=True):
        lost = (before & ~after).any(dim=0)
        assert lost[0] or lost[-1]


def test_tilted_person_stays_near_and_leans_while_the_wall_stays(monkeypatch):
    monkeypatch.setitem(SHARES, "tilt", 1.0)
    torch.manual_seed(0)
    frames, poses, background = to_clips(*video([28, 29], wall()), known(wall()), 40)
    new_frames, new_poses, fixed = paste(frames, poses, background, ["tilt"], first_apart=False)
    assert not fixed.any()
    red = (new_frames[:, 0, 0] - new_frames[:, 0, 2]) > 0.4
    columns = torch.arange(WIDTH).float()
    middles = (red * columns).sum(dim=2) / red.sum(dim=2).clamp(min=1)  # of each row of a clip
    lean = torch.stack([m[r][[2, -3]].diff()[0] for m, r in zip(middles, red.any(dim=2), strict=True)])
    assert lean.min() < -2 and lean.max() > 2
    heights = red.any(dim=2).sum(dim=1)
    assert heights.min() >= 11 and heights.max() <= 21
    assert (middles[red.any(dim=2)] - 31).abs().max() < 14
    for clip in range(40):
        far = near_pose(new_poses[clip, 0][None, None], reach=0.3)[0, 0, 0] == 0
        torch.testing.assert_close(
            new_frames[clip, 0][:, far], background[clip, :3][:, far], atol=0.03, rtol=0
        )
        ink = (1 - new_poses[clip, 0]).amax(dim=0) > 0.7
        assert red[clip][ink].float().mean() > 0.85


def test_kinds_share_the_clips_and_none_is_both():
    torch.manual_seed(0)
    frames, poses, background = to_clips(*video([28, 29], wall()), known(wall()), 200)
    for kinds, share in ((["paste"], 0.2), (["tilt"], 0.5), (["paste", "tilt"], 0.7), ([], 0)):
        _, new_poses, _ = paste(frames, poses, background, kinds, first_apart=False)
        changed = (new_poses != poses).flatten(1).any(dim=1).float().mean()
        assert changed == pytest.approx(share, abs=0.08)


def test_tilt_turns_the_whole_picture_where_the_background_is_not_known():
    torch.manual_seed(0)
    frames, poses, background = to_clips(*video([28, 29], wall()), known(wall()), 60)
    background = background.clone()
    background[:30, 3] = 0
    new_frames, _ = augment(frames, poses, ["tilt"], background)
    corner = (new_frames - frames)[..., :4, :4].abs().amax(dim=(1, 2, 3, 4)) > 0.02
    assert corner[:30].any() and not corner[:30].all() and not corner[30:].any()
    moved = (new_frames - frames).abs().amax(dim=(1, 2, 3, 4)) > 0.1
    assert 8 < moved[30:].sum() < 24
