import torch

from engine.augment import move_and_scale
from tests.helpers import random_clips


def test_frames_and_poses_of_a_clip_move_together_and_clips_apart():
    torch.manual_seed(0)
    picture = torch.zeros(3, 32, 64)
    picture[:, 12:20, 20:40] = 1.0
    clips = picture.expand(4, 5, 3, 32, 64)
    frames, poses = move_and_scale(clips, 1 - clips)
    inside = (slice(None), slice(None), slice(None), slice(8, 24), slice(16, 48))
    torch.testing.assert_close(frames[inside], 1 - poses[inside])
    assert all(torch.equal(frames[:, 0], frames[:, t]) for t in range(5))
    assert not any(torch.equal(frames[0], frames[b]) for b in range(1, 4))


def test_what_enters_is_white_in_poses_and_the_edge_s_colour_in_frames():
    torch.manual_seed(0)
    frames, poses = move_and_scale(torch.full((8, 2, 3, 32, 64), 0.3), torch.ones(8, 2, 3, 32, 64))
    torch.testing.assert_close(frames, torch.full_like(frames, 0.3))
    torch.testing.assert_close(poses, torch.ones_like(poses))


def test_values_stay_in_their_range_and_pictures_are_moved():
    torch.manual_seed(0)
    frames, poses = random_clips(batch=4, length=3, height=32, width=64)
    moved, moved_poses = move_and_scale(frames, poses)
    assert moved.shape == frames.shape and moved_poses.shape == poses.shape
    for each in (moved, moved_poses):
        assert each.min() >= -1e-6 and each.max() <= 1 + 1e-6
    assert (moved - frames).abs().mean() > 0.05
