"""A trained person is driven by the poses of another person."""

import json
import shutil

import av
import numpy as np
import pytest
from PIL import Image

import Trainer
from runtime.cli import UserError
from tests.helpers import SMALL_UNET, assert_user_error, run_script, write_dataset
from tests.tools.videos import bars, write_video
from tools import optional, pose_file, reenact
from tools.poses import sound
from tools.poses.joints import COCO_17
from tools.poses.retarget import FEET, ROOTS, bone_lengths, missing_joints, retarget
from tools.synthetic.body import random_figure
from tools.synthetic.frames import pose_keypoints, view_of
from tools.synthetic.skeleton import JOINTS
from training import checkpoint

SIZE = (128, 64)
SHIFT = np.array([400.0, -90.0])


@pytest.fixture(scope="module")
def trained():
    """The keypoints of the synthetic person."""
    figure = random_figure(np.random.default_rng(1), 60, view_of(*SIZE).half_range)
    return pose_keypoints(figure, *SIZE)


def other_body(keypoints):
    """The same motion of a person with long arms, elsewhere in an image three times as large."""
    other = 3 * keypoints
    for start, end, joint in (("r_shoulder", "r_elbow", "r_elbow"), ("r_elbow", "r_wrist", "r_wrist")):
        length = keypoints[:, JOINTS.index(end)] - keypoints[:, JOINTS.index(start)]
        other[:, JOINTS.index(joint)] += 2 * length
    return other + SHIFT


def test_retargeted_bones_have_the_lengths_of_the_trained_person(trained):
    result = retarget(other_body(trained), trained)
    assert np.allclose(bone_lengths(result), bone_lengths(trained), rtol=0.01)


def test_larger_body_elsewhere_is_moved_to_where_the_trained_person_was(trained):
    result = retarget(3 * trained + SHIFT, trained)
    assert np.abs(result - trained).max() < 0.5


def test_person_who_walks_farther_stays_where_the_trained_one_stood(trained):
    walk = np.linspace(-90, 90, len(trained))[:, None, None] * (1, 0)
    result = retarget(trained + walk, trained)
    own, theirs = (np.percentile(keypoints[:, ROOTS[0], 0], (5, 95)) for keypoints in (result, trained))
    assert own == pytest.approx(theirs, abs=0.5)
    assert np.allclose(bone_lengths(result), bone_lengths(trained), rtol=0.01)


def test_feet_stand_on_the_floor_and_unknown_keypoints_stay_unknown(trained):
    keypoints = other_body(trained)
    keypoints[10:20, JOINTS.index("l_wrist")] = np.nan
    keypoints[30] = np.nan
    result = retarget(keypoints, trained)
    lowest, floor = (np.nanmedian(np.nanmax(p[:, FEET, 1], axis=1)) for p in (result[:30], trained[:30]))
    assert lowest == pytest.approx(floor, abs=1.5)
    assert np.isnan(result[10:20, JOINTS.index("l_wrist")]).all() and np.isnan(result[30]).all()
    assert not np.isnan(result[:10]).any()


def test_person_who_jumps_down_or_up_stays_in_the_image(trained):
    keypoints = trained.copy()
    keypoints[40:50, :, 1] += 200
    keypoints[50:, :, 1] -= 30
    result = retarget(keypoints, trained)
    assert np.nanmax(result[..., 1]) <= trained[..., 1].max() + 0.01 and result[..., 1].min() > -0.01
    assert np.allclose(result[:40], trained[:40], atol=0.5)


LEGS = "knee", "ankle", "toe"


@pytest.mark.parametrize(
    "hidden", [LEGS, (*LEGS, "hip", "pelvis"), (*LEGS, "hip", "pelvis", "elbow", "wrist")]
)
def test_half_bodies_have_a_pose_in_each_frame(trained, hidden):
    missing = [index for index, name in enumerate(JOINTS) if name.endswith(hidden)]
    keypoints = other_body(trained)
    keypoints[:, missing] = np.nan
    assert set(missing_joints(keypoints, trained)) == {JOINTS[index] for index in missing}
    result = retarget(keypoints, trained)
    assert not np.isnan(result).any()
    neck = JOINTS.index("neck")
    assert np.abs(np.median(result - trained, axis=0)[neck]).max() < 6
    assert (
        np.ptp(result[:, FEET[0]] - result[:, JOINTS.index("l_knee")], axis=0).max() < 1e-6
    )  # legs are left


def test_hips_that_leave_the_picture_for_a_while_keep_their_place(trained):
    keypoints = other_body(trained)
    keypoints[:, [index for index, name in enumerate(JOINTS) if name.endswith(LEGS)]] = np.nan
    expected = retarget(keypoints, trained)
    keypoints[20:40, [index for index, name in enumerate(JOINTS) if "hip" in name or name == "pelvis"]] = (
        np.nan
    )
    result = retarget(keypoints, trained)
    assert not np.isnan(result).any()
    assert np.abs(result - expected).mean() < 3


def test_joints_that_the_trained_person_never_shows_are_left_out(trained):
    selfie = trained.copy()
    selfie[:, [ROOTS[0], *FEET]] = np.nan
    result = retarget(other_body(trained), selfie)
    assert np.isnan(result[:, FEET]).all() and not np.isnan(result[:, JOINTS.index("l_wrist")]).any()
    with pytest.raises(UserError, match="the driver shows r_toe, l_toe; the trained person shows neck"):
        only_feet = np.full_like(trained, np.nan)
        only_feet[:, FEET[2:]] = trained[:, FEET[2:]]
        retarget(only_feet, trained)


def write_poses(path, keypoints, size=SIZE, fps=None):
    frames = [{"pixels": [None if np.isnan(p).any() else p.tolist() for p in row]} for row in keypoints]
    rate = {"fps": fps} if fps else {}
    path.write_text(json.dumps({"joints": JOINTS, "size": size, **rate, "frames": frames}))
    return path


@pytest.fixture(scope="module")
def person(tmp_path_factory, trained):
    """A dataset with poses.json, and a checkpoint that was trained on it."""
    root = tmp_path_factory.mktemp("person")
    write_dataset(root / "data", sequences=1)
    write_poses(root / "data" / "poses.json", trained)
    flags = [*SMALL_UNET, "--num_epoch=1", "--device=cpu"]
    Trainer.main(["--DR", str(root / "data"), "--save_root", str(root / "run"), *flags])
    return root / "data", root / "run" / "best.ckpt"


def drive(person, source, out, *flags):
    """The frames of reenacted.mp4, and the number of those of reenacted.gif."""
    reenact.main([str(person[1]), str(source), str(out), "--device=cpu", *flags])
    assert sorted(path.name for path in out.glob("reenacted*")) == [
        "reenacted.gif", "reenacted.mp4", "reenacted_sheet.png",
    ]  # fmt: skip
    with av.open(str(out / "reenacted.mp4")) as video, Image.open(out / "reenacted.gif") as gif:
        return [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)], gif.n_frames


@pytest.mark.parametrize("flags", [[], ["--no-fit"]])
def test_poses_of_another_person_drive_the_trained_one(person, trained, tmp_path, flags, monkeypatch):
    monkeypatch.setattr(reenact, "POSE_CHUNK", 8)  # three chunks
    monkeypatch.setattr(reenact, "MAX_GIF_FRAMES", 12)  # ends within the second
    source = write_poses(tmp_path / "poses.json", other_body(trained)[:20], (900, 400))
    frames, num_gif_frames = drive(person, source, tmp_path, *flags)
    assert len(frames) == 20 and num_gif_frames == 12
    poses = np.stack(frames)[:, 20:, : frames[0].shape[1] // 2 - 20]
    assert (poses < 200).any(axis=(1, 2, 3)).all()  # each frame has a pose


@pytest.mark.parametrize(("value", "fps"), [(1e300, 20), (np.inf, 20), (0, 1e-9), (0, 1e9)])
def test_absurd_numbers_in_a_poses_file_are_one_line(trained, tmp_path, value, fps):
    keypoints = trained.copy()
    keypoints[3, 5] += value
    with pytest.raises(UserError, match=r"not a poses\.json"):
        pose_file.read(write_poses(tmp_path / "poses.json", keypoints, fps=fps))
    with pytest.raises(UserError, match="no bone is visible in both"):
        retarget(np.zeros_like(trained), trained)


def seconds_of(path):
    """The length of each stream."""
    with av.open(str(path)) as video:
        return {stream.type: float(stream.duration * stream.time_base) for stream in video.streams}


@pytest.mark.parametrize(
    ("source_fps", "dataset_fps", "expected"), [(5, None, 5), (60, 30, 30), (60, None, 20)]
)
def test_driven_video_has_the_length_and_speed_of_its_driver(
    person, trained, tmp_path, source_fps, dataset_fps, expected
):
    data = tmp_path / "data"
    shutil.copytree(person[0], data)
    write_poses(data / "poses.json", trained, fps=dataset_fps)
    source = write_poses(tmp_path / "poses.json", np.tile(trained, (2, 1, 1)), fps=source_fps)
    frames, _ = drive(person, source, tmp_path / "out", "--DR", str(data))
    length = seconds_of(tmp_path / "out" / "reenacted.mp4")["video"]
    assert length == pytest.approx(120 / source_fps, abs=1.01 / expected)
    assert len(frames) / length == pytest.approx(expected, rel=0.01)
    with Image.open(tmp_path / "out" / "reenacted.gif") as gif:
        durations = [(gif.seek(frame), gif.info["duration"])[1] for frame in range(gif.n_frames)]
    assert sum(durations) / 1000 == pytest.approx(length, abs=0.02)


@pytest.mark.parametrize("flags", [{}, {"start": 1.0}, {"start": 0.5, "end": 1.5}])
def test_sound_of_the_driver_is_cut_to_the_length(tmp_path, flags):
    """The sound is a beep in the second second; the driver has 2 seconds of frames, 3 of sound."""
    start, end = flags.get("start", 0.0), flags.get("end", 2.0)
    time = np.arange(3 * 48_000) / 48_000
    beep = np.where((time >= 1) & (time < 2), np.sin(2 * np.pi * 440 * time), 0)
    source = write_video(tmp_path / "a.mp4", bars(60), sound=beep)
    silent = write_video(tmp_path / "silent.mp4", bars(round(20 * (end - start))), fps=20)
    sound.add_sound(tmp_path / "out.mp4", silent, source, start)
    lengths = seconds_of(tmp_path / "out.mp4")
    assert lengths["audio"] == pytest.approx(end - start, abs=0.05) and lengths["video"] == end - start
    with av.open(str(tmp_path / "out.mp4")) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    loud = np.flatnonzero(np.abs(samples) > 0.3) / 48_000
    assert loud[0] + start == pytest.approx(1, abs=0.05) and loud[-1] + start == pytest.approx(
        min(2, end), abs=0.05
    )


def test_keypoint_files_drive_the_trained_person(person, trained, tmp_path, capsys):
    folder = tmp_path / "json"
    folder.mkdir()
    for number in range(20):
        if number not in range(8, 16):
            points = np.column_stack([other_body(trained)[number], np.ones(len(JOINTS))])
            order = [JOINTS.index(name) for name in COCO_17 if name not in ("neck", "pelvis")]
            people = [{"keypoints": points[order].ravel().tolist()}]
            (folder / f"{number:06d}.json").write_text(json.dumps({"people": people}))
    for source in (folder, write_poses(tmp_path / "poses.json", trained)):
        frames, _ = drive(person, source, tmp_path / "out")
    assert len(frames) == len(trained)
    output = capsys.readouterr().out
    assert "8 of 20 poses are blank" in output and "0 of 60 poses are blank" in output
    assert "never shows l_toe, r_toe" in output or "never shows r_toe, l_toe" in output


def test_pose_images_of_another_dataset_drive_the_trained_person(person, tmp_path):
    frames, num_gif_frames = drive(person, person[0] / "test" / "test_label" / "0", tmp_path)
    assert len(frames) == num_gif_frames == 6


def test_poses_are_drawn_only_for_a_model_of_poses_on_white(person, tmp_path):
    data, ckpt = person
    content = checkpoint.read(ckpt)
    checkpoint.write(
        tmp_path / "black.ckpt", content | {"args": content["args"] | {"pose_background": "#000000"}}
    )
    source = data / "poses.json"
    with pytest.raises(
        UserError, match="on black, but skeletons are drawn on white; give a folder of pose images on black"
    ):
        drive((data, tmp_path / "black.ckpt"), source, tmp_path)
    frames, _ = drive((data, tmp_path / "black.ckpt"), data / "test" / "test_label" / "0", tmp_path)
    assert len(frames) == 6


def test_mistakes_are_one_line(person, tmp_path):
    data, ckpt = person
    source, nowhere = data / "poses.json", tmp_path / "nowhere"
    done = run_script("tools/reenact.py", ckpt, source, tmp_path / "out", "--DR", nowhere, "--device=cpu")
    assert_user_error(done, str(nowhere))
    (tmp_path / "poses.json").write_text('{"joints": []}')
    (tmp_path / "empty").mkdir()
    for source, word in ((tmp_path / "poses.json", "not a poses.json"), (tmp_path / "empty", "no images")):
        done = run_script("tools/reenact.py", ckpt, source, tmp_path / "out", "--DR", data, "--device=cpu")
        assert_user_error(done, word)
    with pytest.raises(UserError, match="no frame has a person"):
        pose_file.read(write_poses(tmp_path / "empty.json", np.zeros((0, len(JOINTS), 2))))
    with pytest.raises(UserError, match=r"no_such_package is missing: pip install -r requirements-video.txt"):
        optional.require("no_such_package.part", "requirements-video.txt")
