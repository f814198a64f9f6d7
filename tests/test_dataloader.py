from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataloader import (
    ClipDataset,
    ClipLoader,
    clip_starts,
    load_test_videos,
    load_validation_video,
    split_shots,
    usual_step,
)  # fmt: skip
from runtime.cli import UserError
from tests.helpers import HEIGHT, WIDTH, write_dataset
from utils import to_uint8


def flags(root, **changes):
    defaults = {
        "DR": root, "num_workers": 2, "frame_H": HEIGHT, "frame_W": WIDTH, "val_vi_len": 6, "partial": 1.0,
        "train_vi_len": 4, "clips": "shuffled", "reference_frame": "clip", "seed": 0,
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


def test_epochs_differ_and_depend_only_on_seed_and_epoch(tmp_path):
    root = write_dataset(tmp_path, train=40)

    def starts(**changes):
        dataset = ClipDataset(flags(root, **changes))
        return [dataset.starts(epoch, 4).tolist() for epoch in range(6)]

    first = starts()
    assert len({start[0] % 4 for start in first}) > 1, "the offset of the first clip changes"
    assert len({tuple(start) for start in first}) == 6
    assert first == starts() != starts(seed=1)
    assert max(ClipDataset(flags(root)).starts(0, 4, fraction=0.5)) < 24, "the first part"


def test_batches_hold_the_frames_and_poses_of_their_clips(tmp_path):
    dataset = ClipDataset(flags(write_dataset(tmp_path, train=22), clips="in_order"))
    batches = dataset.batches(0, length=4, batch_size=2)
    assert len(batches) == 2
    frames, poses, background = ClipLoader(dataset, torch.device("cpu")).load(batches[1])
    assert frames.shape == poses.shape == (2, 4, 8, 16, 3) and frames.dtype == torch.uint8
    assert np.array_equal(frames[1], dataset.frames[12:16])
    assert np.array_equal(poses[0], dataset.poses[8:12])
    assert background is None


def test_background_of_a_clip_is_that_of_its_shot(tmp_path):
    dataset = ClipDataset(flags(write_dataset(tmp_path, train=24, numbers=[*range(10), *range(100, 114)])))
    backgrounds = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 4), dtype=np.uint8)
    loader = ClipLoader(dataset, torch.device("cpu"), backgrounds)
    # Frame 0 of a clip may be any of the shot.
    background = loader.load(np.array([[3, 5, 6, 7], [18, 10, 11, 12]])).background
    assert np.array_equal(background, backgrounds)


@pytest.mark.parametrize("reference_frame", ["clip", "any"])
def test_ranks_share_the_steps_of_one_rank_with_a_larger_batch(tmp_path, reference_frame):
    dataset = ClipDataset(flags(write_dataset(tmp_path, train=60), reference_frame=reference_frame))
    shares = [dataset.batches(3, 4, 2, rank=rank, ranks=3) for rank in range(3)]
    whole = dataset.batches(3, 4, 6)
    assert len(whole) == 2
    for step, parts in zip(whole, zip(*shares, strict=True), strict=True):
        assert np.array_equal(step, np.concatenate(parts))


def test_small_splits_fill_one_step_and_every_rank(tmp_path):
    dataset = ClipDataset(flags(write_dataset(tmp_path, train=8), clips="in_order"))
    assert [len(step) for step in dataset.batches(0, 4, 100)] == [2]
    shares = [dataset.batches(0, 4, 1, rank=rank, ranks=3) for rank in range(3)]
    assert [[step[0][0] for step in share] for share in shares] == [[0], [4], [0]]


def test_reference_frame_comes_from_anywhere_in_its_shot(tmp_path):
    numbers = [*range(20), *range(100, 120)]
    dataset = ClipDataset(flags(write_dataset(tmp_path, train=40, numbers=numbers), reference_frame="any"))
    references = set()
    for epoch in range(8):
        for clip, start in zip(dataset.batches(epoch, 4, 8)[0], dataset.starts(epoch, 4), strict=False):
            assert clip[1:].tolist() == [start + 1, start + 2, start + 3]
            assert clip[0] // 20 == start // 20
            references.add(clip[0])
    assert len(references) > 20


def test_fewer_frames_in_a_row_than_a_clip_are_refused(tmp_path):
    root = write_dataset(tmp_path, train=8, numbers=[0, 1, 2, 3, 10, 11, 12, 13])
    with pytest.raises(UserError, match="--train_vi_len"):
        ClipDataset(flags(root, train_vi_len=5))
    assert len(ClipDataset(flags(root)).starts(0, 4)) == 2


def test_video_shorter_or_longer_than_asked_for_is_used_and_said(tmp_path, capsys):
    root = write_dataset(tmp_path, val=6)
    video = load_validation_video(flags(root))
    assert np.array_equal(to_uint8(video.truth)[0], video.first_frame)
    assert video.poses.shape == (6, 8, 16, 3) and video.truth_source.endswith("val_img")
    assert capsys.readouterr().out == ""
    assert len(load_validation_video(flags(root, val_vi_len=4)).truth) == 4
    assert "using the first 4" in capsys.readouterr().out
    assert len(load_validation_video(flags(root, val_vi_len=9)).poses) == 6
    assert "using all of them" in capsys.readouterr().out


def test_test_videos_come_in_the_order_of_their_numbers(tmp_path):
    videos = load_test_videos(flags(write_dataset(tmp_path, sequences=11, test=2), val_vi_len=2))
    assert [video.number for video in videos] == list(range(11))
    assert videos[3].first_frame.shape == (8, 16, 3) and videos[3].poses.shape == (2, 8, 16, 3)


def as_pandas_writes_it(text):
    """With the numbers of columns and lines."""
    header = "," + ",".join(map(str, range(3 * 8 * 16)))
    return "\n".join([header, *(f"{number},{line}" for number, line in enumerate(text.split()))])


@pytest.mark.parametrize(
    ("delimiter", "change"),
    [
        (" ", lambda text: text),
        (",", lambda text: text),
        (";", lambda text: text),
        (";", lambda text: text.replace(".", ",")),
        (",", lambda text: "\ufeff" + text),
        (",", lambda text: text.replace("\n", "\r\n")),
        (", ", lambda text: text + "\n"),
        (",", lambda text: ",".join(map(str, range(3 * 8 * 16))) + "\n" + text),
        (",", as_pandas_writes_it),
        (",", lambda text: "index" + as_pandas_writes_it(text)),
        (";", lambda text: "".join(f"pixel {i};" for i in range(3 * 8 * 16))[:-1] + "\n" + text),
    ],
)
def test_truth_from_csv_is_that_from_images(tmp_path, delimiter, change):
    root = write_dataset(tmp_path, sequences=1)
    (video,) = load_test_videos(flags(root))
    assert video.truth_source.endswith("test_gt/0") and video.truth.shape == (6, 3, 8, 16)
    (root / "test" / "test_gt").rename(root / "test_gt")
    assert load_test_videos(flags(root))[0].truth is None
    (root / "Demo_Test").mkdir()
    path = root / "Demo_Test" / "GT0.csv"
    np.savetxt(path, video.truth.flatten(1).numpy(), delimiter=delimiter)
    path.write_bytes(change(path.read_text()).encode())
    (from_csv,) = load_test_videos(flags(root))
    assert from_csv.truth_source.endswith("GT0.csv")
    torch.testing.assert_close(from_csv.truth, video.truth, rtol=0, atol=1e-6)


def test_gaps_and_true_frames_without_a_pose_are_printed(tmp_path, capsys):
    root = write_dataset(tmp_path, sequences=1)
    (root / "test" / "test_label" / "0" / "frame000005.png").unlink()
    for folder in ("val_img", "val_label"):
        (root / "val" / folder / "frame000002.png").unlink()
    load_test_videos(flags(root, val_vi_len=None))
    load_validation_video(flags(root, val_vi_len=None))
    printed = capsys.readouterr().out
    assert "test_gt/0: no pose for ground-truth frame 5 (ignoring 1)" in printed
    assert "val_label: no poses between 1 and 3" in printed


def test_lines_of_a_truth_csv_beyond_the_last_pose_are_printed(tmp_path, capsys):
    root = write_dataset(tmp_path, sequences=1, truth=False)
    (root / "Demo_Test").mkdir()
    np.savetxt(root / "Demo_Test" / "GT0.csv", np.linspace(0, 1, 9)[:, None].repeat(3 * 8 * 16, axis=1))
    (video,) = load_test_videos(flags(root, val_vi_len=None))
    assert "GT0.csv: 9 rows, using 6" in capsys.readouterr().out
    assert video.truth[5].unique().tolist() == [0.625]


@pytest.mark.parametrize("rate", [24, 30, 50, 60, 120, 144, 240])
def test_rounded_times_are_one_shot(rate):
    times = [round(1000 * index / rate) for index in range(400)]
    assert len(split_shots(times)) == 1
    assert [len(shot) for shot in split_shots([*times[:100], *times[103:]])] == [100, 297]
    assert np.allclose(np.array(times) / usual_step(times), np.arange(400), atol=0.4)


def test_line_of_a_pose_in_a_csv_that_is_open_is_refused(tmp_path):
    root = write_dataset(tmp_path, sequences=1, test=7, truth=False)
    poses = sorted((root / "test" / "test_label" / "0").iterdir())
    for path, number in zip(poses, (0, 2, 3, 4, 6, 8, 10), strict=True):
        path.rename(path.with_name(f"t{number}.png"))
    (root / "Demo_Test").mkdir()
    np.savetxt(root / "Demo_Test" / "GT0.csv", np.zeros((11, 3 * HEIGHT * WIDTH)))
    with pytest.raises(UserError, match=r"GT0\.csv: cannot match rows"):
        load_test_videos(flags(root, val_vi_len=None))


def test_numbers_may_be_dates(tmp_path):
    root = write_dataset(tmp_path, sequences=1, truth=False)
    for index, path in enumerate(sorted((root / "test" / "test_label" / "0").iterdir())):
        path.rename(path.with_name(f"t2023123123595912345{index}.png"))
    assert len(load_test_videos(flags(root))[0].poses) == 6


@pytest.mark.parametrize("missing", [[0], [3], [5], [2, 3]])
@pytest.mark.parametrize("has_csv", [False, True])
@pytest.mark.parametrize("step", [1, 33])
def test_poses_and_truth_are_paired_by_number(tmp_path, capsys, missing, has_csv, step):
    root = write_dataset(tmp_path, sequences=1, test=8)
    for folder in ("test_img", "test_label", "test_gt"):
        for path in sorted((root / "test" / folder / "0").iterdir()):
            path.rename(path.with_name(f"t{int(path.stem[5:]) * step}.png"))
    (whole,) = load_test_videos(flags(root, val_vi_len=None))
    if has_csv:
        (root / "test" / "test_gt").rename(root / "test_gt")
        (root / "Demo_Test").mkdir()
        np.savetxt(root / "Demo_Test" / "GT0.csv", whole.truth.flatten(1).numpy())
    for index in missing:
        (root / "test" / "test_label" / "0" / f"t{index * step}.png").unlink()
    capsys.readouterr()
    (video,) = load_test_videos(flags(root, val_vi_len=None))
    left = [index for index in range(8) if index not in missing]
    assert np.array_equal(video.poses, whole.poses[left])
    torch.testing.assert_close(video.truth, whole.truth[left], rtol=0, atol=1e-6)
    said = f"paired with the first pose image, number {step}" if missing == [0] else "no poses between "
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((5, 3 * HEIGHT * WIDTH)), "5 rows"),
        (np.zeros((6, 100)), "of 100 numbers"),
        (np.full((6, 3 * HEIGHT * WIDTH), np.nan), "NaN"),
        (np.full((6, 3 * HEIGHT * WIDTH), 255.0), r"\[0, 1\]"),
        (b"hello, world\n", "not a table"),
        (b"", "line 1 is empty"),
        (b"0 0\n\n0 0\n", "line 2 is empty"),
        (b"# 0\n0 0\n", "not a table"),
        (b"pixel,value\n0,0\n", "1 rows of 2 numbers"),
        (b"0.1,,0.3\n0,0,0\n", "not a table"),
        (b"a,b,c\nd,e,f\n", "not a table"),
        ("1,2\n".encode("utf-16"), "not a table"),
    ],
)
def test_truth_of_wrong_shape_or_not_numbers_is_refused(tmp_path, content, words):
    root = write_dataset(tmp_path, sequences=1, truth=False)
    (root / "Demo_Test").mkdir()
    path = root / "Demo_Test" / "GT0.csv"
    path.write_bytes(content) if isinstance(content, bytes) else np.savetxt(path, content)
    with pytest.raises(UserError, match=rf"GT0\.csv: .*{words}"):
        load_test_videos(flags(root))
