from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import dataloader
from dataloader import TrainingClips, clip_starts, load_test_sequences, validation_sequence
from runtime.cli import UserError
from tests.helpers import write_dataset, write_pictures
from utils import to_uint8


def flags(root, **changes):
    defaults = {
        "DR": root, "num_workers": 2, "frame_H": 8, "frame_W": 16, "val_vi_len": 6, "partial": 1.0,
        "train_vi_len": 4, "batch_size": 2, "clips": "shuffled", "first_frame": "clip", "seed": 0,
        "fast_train": False, "recipe": "default", "augment": "none", "fill_poses": 0,
        "fast_partial": 0.5, "fast_train_epoch": 2,
    }  # fmt: skip
    return SimpleNamespace(**(defaults | changes))


runs = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@given(runs=runs, length=st.integers(2, 16), step=st.integers(1, 3), seed=st.none() | st.integers(0, 99))
def test_clips_never_straddle_a_jump_nor_overlap(runs, length, step, seed):
    numbers, next_number = [], 0
    for run in runs:
        numbers.extend(range(next_number, next_number + run * step, step))
        next_number = numbers[-1] + 50
    rng = None if seed is None else np.random.default_rng(seed)
    starts = clip_starts(numbers, length, rng)
    gaps = np.diff(numbers)
    usual = step if (gaps == step).sum() >= (gaps == 50).sum() else None
    for start in starts:
        clip = np.diff(numbers[start : start + length])
        assert len(clip) == length - 1
        assert len(set(clip)) == 1
        assert usual is None or clip[0] == usual
    assert (np.diff(starts) >= length).all()


@given(run=st.integers(4, 60), length=st.integers(2, 20))
def test_clips_in_order_are_cut_end_to_end(run, length):
    starts = clip_starts(list(range(run)), length, None)
    assert starts.tolist() == [i * length for i in range(run // length)]


def test_epochs_differ_and_depend_on_seed_and_epoch_alone(tmp_path):
    root = write_dataset(tmp_path, train=40)
    clips = TrainingClips(flags(root))
    orders = [clips.order(epoch).tolist() for epoch in range(6)]
    assert len({tuple(order) for order in orders}) > 1
    assert len({order[0] % 4 for order in orders}) > 1, "the offset of the first clip changes"
    assert orders == [TrainingClips(flags(root)).order(epoch).tolist() for epoch in range(6)]
    assert orders != [TrainingClips(flags(root, seed=1)).order(epoch).tolist() for epoch in range(6)]


def test_batches_hold_the_frames_and_poses_of_their_clips(tmp_path):
    root = write_dataset(tmp_path, train=22)
    clips = TrainingClips(flags(root, clips="in_order"))
    batches = clips.batches(0)
    assert len(batches) == 2
    frames, poses = dataloader.DeviceClips(clips, "cpu").load(batches[1])
    assert frames.shape == poses.shape == (2, 4, 8, 16, 3) and frames.dtype == torch.uint8
    assert np.array_equal(frames[1], clips.frames[12:16])
    assert np.array_equal(poses[0], clips.poses[8:12])


def test_clips_of_resident_pictures_are_those_that_are_copied(tmp_path):
    clips = TrainingClips(flags(write_dataset(tmp_path)))
    copied, resident = dataloader.DeviceClips(clips, "cpu"), dataloader.DeviceClips(clips, "cpu")
    resident.make_resident()
    clips.frames = clips.poses = None  # the resident pictures are enough
    for indices in TrainingClips(flags(tmp_path)).batches(0):
        copied.clips = TrainingClips(flags(tmp_path))
        for expected, actual in zip(copied.load(indices), resident.load(indices), strict=True):
            assert torch.equal(expected, actual)


def test_clips_for_pasting_come_with_the_background_of_their_shot(tmp_path):
    root = write_dataset(tmp_path, train=20)
    rng = np.random.default_rng(0)
    walls = rng.integers(0, 200, (2, 8, 16, 3), dtype=np.uint8)
    for number in range(20):
        frame, pose = walls[number // 10].copy(), np.full((8, 16, 3), 255, np.uint8)
        frame[2:6, number % 10 : number % 10 + 3] = 255
        pose[2:6, number % 10 + 1] = 0
        Image.fromarray(frame).save(root / f"train/train_img/frame{number:06d}.png")
        Image.fromarray(pose).save(root / f"train/train_label/frame{number:06d}.png")
    for kind in ("img", "label"):  # a jump in the numbers is a new shot
        for number in range(10, 20):
            path = root / f"train/train_{kind}/frame{number:06d}.png"
            path.rename(path.with_name(f"frame{number + 100:06d}.png"))
    clips = TrainingClips(flags(root, augment="turn,paste", first_frame="any"))
    indices = np.array([[3, 5, 6, 7], [18, 11, 12, 13]])
    for resident in (False, True):
        device_clips = dataloader.DeviceClips(clips, "cpu")
        if resident:
            device_clips.make_resident()
        frames, poses, backgrounds = device_clips.load(indices)
        assert frames.shape == poses.shape == (2, 4, 8, 16, 3)
        assert np.array_equal(backgrounds[..., :3], walls) and (backgrounds[..., 3] == 255).all()


@pytest.mark.parametrize("first_frame", ["clip", "any"])
def test_ranks_share_the_steps_of_one_rank_with_a_larger_batch(tmp_path, first_frame):
    root = write_dataset(tmp_path, train=60)
    settings = {"first_frame": first_frame}
    shares = [TrainingClips(flags(root, batch_size=2, **settings)).batches(3, rank, 3) for rank in range(3)]
    whole = TrainingClips(flags(root, batch_size=6, **settings)).batches(3)
    assert len(whole) == 2
    for step, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert np.array_equal(step, np.concatenate(parts))


def test_every_rank_has_a_clip_if_there_are_fewer_than_ranks(tmp_path):
    clips = TrainingClips(flags(write_dataset(tmp_path, train=8), batch_size=1, clips="in_order"))
    shares = [clips.batches(0, rank, 3) for rank in range(3)]
    assert [[step[0][0] for step in share] for share in shares] == [[0], [4], [0]]


def test_first_frame_of_a_clip_comes_from_anywhere_in_its_shot(tmp_path):
    clips = TrainingClips(flags(write_dataset(tmp_path, train=40), batch_size=8, first_frame="any"))
    clips.numbers = [*range(20), *range(100, 120)]
    clips.shots = dataloader.shots(clips.numbers)
    clips.shot_of = np.repeat([0, 1], 20)
    firsts = set()
    for epoch in range(8):
        for clip, start in zip(clips.batches(epoch)[0], clips.order(epoch), strict=False):
            assert clip[1:].tolist() == [start + 1, start + 2, start + 3]
            assert clip[0] // 20 == start // 20
            firsts.add(clip[0])
    assert len(firsts) > 20


def test_partial_and_fast_train_keep_the_first_part(tmp_path):
    root = write_dataset(tmp_path, train=40)
    in_order = {"clips": "in_order"}
    assert TrainingClips(flags(root, **in_order)).order(0).tolist() == list(range(0, 40, 4))
    assert TrainingClips(flags(root, partial=0.5, **in_order)).order(0).tolist() == list(range(0, 20, 4))
    fast = TrainingClips(flags(root, fast_train=True, **in_order))
    assert [len(fast.order(epoch)) for epoch in range(4)] == [5, 5, 10, 10]
    assert max(TrainingClips(flags(root, fast_train=True)).order(0)) < 24


def test_batch_larger_than_the_split_is_one_step_of_all_clips(tmp_path):
    clips = TrainingClips(flags(write_dataset(tmp_path, train=13), batch_size=100, clips="in_order"))
    assert [len(step) for step in clips.batches(0)] == [3]


def test_fewer_frames_in_a_row_than_a_clip_are_refused(tmp_path):
    root = write_dataset(tmp_path, train=3)
    with pytest.raises(UserError, match="--train_vi_len"):
        TrainingClips(flags(root))
    assert len(TrainingClips(flags(root, train_vi_len=3)).order(0)) == 1


def test_video_shorter_or_longer_than_asked_for_is_used_and_said(tmp_path, capsys):
    root = write_dataset(tmp_path, val=6)
    assert len(validation_sequence(flags(root)).truth) == 6
    assert capsys.readouterr().out == ""
    assert len(validation_sequence(flags(root, val_vi_len=4)).truth) == 4
    assert "using the first 4" in capsys.readouterr().out
    assert len(validation_sequence(flags(root, val_vi_len=9)).poses) == 6
    assert "using all of them" in capsys.readouterr().out


def test_validation_sequence_holds_frames_and_poses_of_its_folders(tmp_path):
    root = write_dataset(tmp_path)
    sequence = validation_sequence(flags(root))
    assert np.array_equal(to_uint8(sequence.truth)[0], sequence.first_frame)
    assert sequence.poses.shape == (6, 8, 16, 3) and sequence.truth_source.endswith("val_img")


def test_test_sequences_come_in_the_order_of_their_numbers(tmp_path):
    root = write_dataset(tmp_path, sequences=11, test=2)
    sequences = load_test_sequences(flags(root, val_vi_len=2))
    assert [sequence.name for sequence in sequences] == [str(i) for i in range(11)]
    assert sequences[3].first_frame.shape == (8, 16, 3) and sequences[3].poses.shape == (2, 8, 16, 3)


def write_truth(root, truth, delimiter=" "):
    (root / "Demo_Test").mkdir()
    np.savetxt(root / "Demo_Test" / "GT0.csv", truth.flatten(1).numpy(), delimiter=delimiter)


@pytest.mark.parametrize("delimiter", [" ", ","])
def test_truth_from_csv_is_that_from_pictures(tmp_path, delimiter):
    root = write_dataset(tmp_path, sequences=1)
    (sequence,) = load_test_sequences(flags(root))
    from_pictures = sequence.truth
    assert sequence.truth_source.endswith("test_gt/0") and from_pictures.shape == (6, 3, 8, 16)
    for file in (root / "test" / "test_gt" / "0").iterdir():
        file.unlink()
    (root / "test" / "test_gt" / "0").rmdir()
    assert load_test_sequences(flags(root))[0].truth is None
    write_truth(root, from_pictures, delimiter)
    (sequence,) = load_test_sequences(flags(root))
    assert sequence.truth_source.endswith("GT0.csv")
    torch.testing.assert_close(sequence.truth, from_pictures, rtol=0, atol=1e-6)


def test_frames_of_different_sizes_are_all_resized(tmp_path):
    root = write_dataset(tmp_path, sequences=1)
    write_pictures(root / "train" / "train_img", 3, size=(50, 40))
    assert TrainingClips(flags(root)).frames.shape == (24, 8, 16, 3)
