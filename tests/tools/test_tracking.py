"""One person is followed, or nobody; keypoints of estimators belong to the frames of their numbers."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.cli import UserError
from tests.tools.videos import bars, write_video
from tools import video_to_dataset
from tools.poses import keypoint_files, video
from tools.poses.joints import LAYOUTS
from tools.poses.tracking import Tracker
from tools.synthetic.skeleton import JOINTS

IMAGES = [{"id": 70, "file_name": "f_3.png"}, {"id": 71, "file_name": "f_4.png"}]
NECK, PELVIS = JOINTS.index("neck"), JOINTS.index("pelvis")


def body(x, height=100, missing=()):
    """Joints `(J, 3)` of a body whose center is at column x."""
    joints = np.ones((len(JOINTS), 3))
    joints[:, 0] = x + np.linspace(-20, 20, len(JOINTS))
    joints[:, 1] = np.linspace(0, height, len(JOINTS))
    joints[list(missing)] = 0
    return joints


@given(
    gap=st.integers(1, 60), start=st.integers(5, 20), beside=st.integers(60, 200),
    missing=st.sets(st.integers(0, len(JOINTS) - 1), max_size=12), swaps=st.booleans(),
)  # fmt: skip
@settings(max_examples=100, deadline=None)
def test_nobody_else_is_followed_while_a_person_is_lost(gap, start, beside, missing, swaps):
    tracker = Tracker()
    for frame in range(start + gap + 10):
        target, other = body(frame, 120), body(frame + beside, 100, missing)
        is_lost = start <= frame < start + gap
        people = [other] if is_lost else [target, other][:: -1 if swaps and frame % 2 else 1]
        chosen = tracker.update(people, frame / 30)
        assert (chosen is None) if is_lost else people[chosen] is target


def test_someone_who_moves_or_returns_is_not_taken_after_a_long_time():
    tracker = Tracker()
    assert tracker.update([body(0, 120), body(150)], 0.0) == 0
    for frame in range(1, 900):
        people = [] if 200 < frame < 300 else [body(150 + 10 * (frame % 2))]
        assert tracker.update(people, frame / 30) is None
    assert tracker.update([body(150), body(10, 120)], 30.0) == 1


def test_person_who_is_farther_than_a_body_moves_is_not_taken():
    tracker = Tracker()
    assert tracker.update([body(100)], 0.0) == 0
    assert tracker.update([body(260)], 0.1) is None
    assert tracker.update([body(120, 400)], 0.2) is None  # another size
    assert tracker.update([body(150)], 0.5) == 0


def test_second_person_is_awaited():
    tracker = Tracker(person=2)
    assert tracker.update([body(100)], 0.0) is None
    assert tracker.update([body(300, 80), body(100)], 0.1) == 0


def landmarks(count, x=200.0, height=100.0):
    return np.column_stack(
        [np.linspace(x, x + 20, count), np.linspace(50, 50 + height, count), np.full(count, 0.9)]
    )


def instances(count, *args):
    points = landmarks(count, *args)
    return {"keypoints": points[:, :2].tolist(), "keypoint_scores": points[:, 2].tolist()}


def openpose(count, *args):
    return {"people": [{"pose_keypoints_2d": landmarks(count, *args).ravel().tolist()}]}


def mmpose(number):
    return {"frame_id": number, "instances": [instances(17)]}


def coco(image_id, **more):
    return {"image_id": image_id, "keypoints": landmarks(17).ravel().tolist(), **more}


@pytest.mark.parametrize(
    ("count", "files"),
    [
        *((count, {f"v_{n:012d}_keypoints.json": openpose(count) for n in (3, 4)}) for count in LAYOUTS),
        (17, {"results.json": [coco(3, score=1), coco(4)]}),
        (17, {"alphapose.json": [coco("3.jpg"), coco("4.jpg")]}),
        (17, {"coco.json": {"images": IMAGES, "annotations": [coco(70), coco(71)]}}),
        (133, {f"{n}.json": [instances(133)] for n in (3, 4)}),
        (133, {f"{n}.json": {"instance_info": [instances(133)]} for n in (3, 4)}),
        (17, {"all.json": {"instance_info": [mmpose(3), mmpose(4)]}}),
        (18, {"list.json": [{"people": []}] * 3 + [openpose(18)] * 2}),
    ],
)  # fmt: skip
def test_keypoints_of_each_estimator_are_read(tmp_path, count, files):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    path = tmp_path if len(files) > 1 else tmp_path / name
    followed = keypoint_files.follow(keypoint_files.read_people(path), 30)
    seen = {number: joints for number, joints in followed.items() if not np.isnan(joints).any()}
    assert list(seen) == [3, 4]
    for joints in seen.values():
        nose = landmarks(count)[LAYOUTS[count]["nose"][0]]
        assert (
            np.allclose(joints[JOINTS.index("nose")], nose)
            and joints[NECK, 2] > 0.8
            and joints[PELVIS, 2] > 0.8
        )


def test_frames_have_the_pose_of_their_number(tmp_path, capsys):
    """60 per second at 30, files of some frames missing, and files that are no poses."""
    folder = tmp_path / "json"
    folder.mkdir()
    for number in range(160):
        if number % 40 != 20:
            (folder / f"v_{number:012d}_keypoints.json").write_text(json.dumps(openpose(25, 10.0 + number)))
    (folder / "._v_000000000020_keypoints.json").write_bytes(b"\0")
    (folder / "settings.json").write_text('{"version": 20, "images": ["a.png"], "canvas_width": "wide"}')
    (folder / "v_000000000060_keypoints.json").write_text('{"people": [null, {"pose_keypoints_2d": []}]}')
    movie = write_video(tmp_path / "v.mp4", bars(160, width=320), fps=60)
    data = tmp_path / "data"
    video_to_dataset.main([str(movie), "--DR", str(data), "--openpose", str(folder), "--start", "0.5"])
    poses = json.loads((data / "poses.json").read_text())
    frames = [entry["frame"] for entry in poses["frames"]]
    assert frames == list(range(30, 160, 2)) or set(range(30, 160, 2)) - set(frames) <= {60, 100, 140}
    for entry in poses["frames"]:
        x = entry["fractions"][NECK][0] * poses["crop"]["width"] + poses["crop"]["left"]
        assert x == pytest.approx(10 + entry["frame"] + 20 / 24, abs=0.6)
    output = capsys.readouterr().out
    assert "skipped 1 JSON files without poses" in output and "65 of 160 frames used, 30 of 60 fps" in output


def test_files_that_count_from_1_or_with_relative_coordinates(tmp_path, capsys):
    timeline = video.uniform(10, (200, 100), 30)
    content = [{"frame_id": n, "instances": [instances(17, 0.1 + n / 100, 0.5)]} for n in range(1, 11)]
    for frame in content:
        points = np.array(frame["instances"][0]["keypoints"]) % 1
        frame["instances"][0]["keypoints"] = points.tolist()
    (tmp_path / "a.json").write_text(json.dumps(content))
    joints = keypoint_files.read_joints(tmp_path / "a.json", timeline, np.arange(10))
    assert np.allclose(joints[:, JOINTS.index("nose"), 0], 200 * (0.11 + np.arange(10) / 100))
    assert "frame numbers start at 1" in capsys.readouterr().out
    with pytest.raises(UserError, match="relative to an unknown image size"):
        keypoint_files.read_all(tmp_path / "a.json", 30)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a_1.json": openpose(18), "b_1.json": openpose(18)}, "frame 1 is also in a_1.json"),
        ({"1.json": openpose(30)}, "30 landmarks per person"),
        ({"1.json": {"people": []}, "2.json": []}, "contains no OpenPose"),
        ({"1.json": {"people": [{"keypoints": [-0.9, 0.5, 1] * 9 + [0.3, 0.9, 1] * 8}]}}, r"in \[-1, 1\]"),
    ],
)
def test_keypoints_that_cannot_be_used_are_one_line(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        keypoint_files.read_people(tmp_path)
