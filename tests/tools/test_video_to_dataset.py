"""A dataset from a video of the synthetic person, whose joints are known."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import cli
from runtime.cli import UserError
from tests.helpers import assert_user_error, run_script
from tests.tools.synthetic import names
from tests.tools.videos import write_video
from tools import video_to_dataset
from tools.poses import dataset, joints, models
from tools.poses.crop import Crop, find_crop
from tools.poses.estimate import JointEstimator
from tools.synthetic.body import INDEX, random_figure
from tools.synthetic.frames import pose_keypoints, render_frame, view_of
from tools.synthetic.skeleton import JOINTS
from training import configuration

WIDTH, HEIGHT, COUNT = 640, 320, 40
FILES = ["poses.json", "poses.png", "test", "train", "val"]


@pytest.fixture(scope="session")
def pose_models():
    """The folder with the pose networks; a machine without a network has none."""
    pytest.importorskip("ai_edge_litert")
    try:
        return models.model_folder(None)
    except UserError as refusal:
        pytest.skip(str(refusal))


@pytest.fixture(scope="session")
def figure():
    return random_figure(np.random.default_rng(5), COUNT, view_of(WIDTH, HEIGHT).half_range)


@pytest.fixture(scope="session")
def images(figure):
    return [render_frame(figure, frame, WIDTH, HEIGHT) for frame in range(COUNT)]


@pytest.fixture(scope="session")
def studio(tmp_path_factory, images):
    return write_video(tmp_path_factory.mktemp("video") / "studio.mp4", images)


@pytest.fixture(scope="session")
def made(tmp_path_factory, studio, pose_models):
    folder = tmp_path_factory.mktemp("made") / "data"
    video_to_dataset.main([str(studio), "--DR", str(folder), "--size=128x64"])
    return folder


def test_video_is_divided_into_the_splits_of_the_course(made):
    assert names(made) == FILES
    splits = ("train/train_img", "val/val_img", "test/test_gt/0")
    assert [len(names(made / split)) for split in splits] == [32, 4, 4]
    numbers = [int(name[5:11]) for split in splits for name in names(made / split)]
    assert numbers == list(range(COUNT))
    for image, label in (("train/train_img", "train/train_label"), ("test/test_gt/0", "test/test_label/0")):
        assert names(made / image) == names(made / label)
    assert names(made / "test/test_img/0") == names(made / "test/test_gt/0")[:1]
    with Image.open(made / "train/train_img/frame000000.png") as image:
        assert image.size == (128, 64)
    assert (made / "poses.png").stat().st_size > 5000


def test_joints_are_near_the_true_ones(made, figure):
    poses = json.loads((made / "poses.json").read_text())
    assert tuple(poses["joints"]) == JOINTS and len(poses["frames"]) >= 0.99 * COUNT
    crop, errors = Crop(**poses["crop"]), []
    keypoints = crop.transform(pose_keypoints(figure, WIDTH, HEIGHT), (1, 1))
    for entry in poses["frames"]:
        for point, expected in zip(entry["fractions"], keypoints[entry["frame"]], strict=True):
            if point is not None:
                errors.append(np.linalg.norm((np.array(point) - expected) * (2, 1)))
    assert len(errors) > 0.8 * COUNT * len(JOINTS)
    assert np.mean(errors) < 10 / 512 * HEIGHT / crop.height * 1.05  # of 512 rows of the video


def test_stopped_tool_is_continued(studio, made, tmp_path, pose_models, monkeypatch):
    folder, estimate = tmp_path / "data", JointEstimator.__call__
    calls = []

    def stop_after_15(*arguments):
        calls.append(1)
        if len(calls) > 15:
            raise cli.Stopped(signal.SIGINT)
        return estimate(*arguments)

    monkeypatch.setattr(JointEstimator, "__call__", stop_after_15)
    command = [str(studio), "--DR", str(folder), "--size=128x64"]
    with pytest.raises(cli.Stopped):
        video_to_dataset.main(command)
    assert names(folder) == [video_to_dataset.JOINTS_LOG]
    with (folder / video_to_dataset.JOINTS_LOG).open("a") as log:
        log.write("[[[0.")  # killed while it wrote
    calls.clear()
    with pytest.raises(cli.Stopped):
        video_to_dataset.main(command)
    calls.clear()
    monkeypatch.setattr(JointEstimator, "__call__", lambda *a: (calls.append(1), estimate(*a))[1])
    video_to_dataset.main(command)
    assert len(calls) == COUNT - 30
    assert (folder / "poses.json").read_text() == (made / "poses.json").read_text()
    assert names(folder) == FILES


# The second one is smaller, and dances on the right. The first one is hidden for half a second.
@pytest.mark.parametrize(("person", "hidden"), [(1, range(0)), (2, range(0)), (1, range(14, 29))])
def test_one_of_two_people_is_followed(tmp_path, figure, images, pose_models, person, hidden):
    half, both = 110, []
    columns = view_of(WIDTH, HEIGHT).pixels(figure.joints)[:, INDEX["pelvis"], 0].astype(int)
    for frame, column in enumerate(columns.clip(half, WIDTH - half)):
        large = images[frame][:, column - half : column + half]
        small = np.asarray(Image.fromarray(large).resize((half * 3 // 2, HEIGHT * 3 // 4)))
        beside = np.full((HEIGHT, small.shape[1] + 1, 3), 190, np.uint8)
        beside[-len(small) :, 1:] = small
        both.append(np.concatenate([np.full_like(large, 190) if frame in hidden else large, beside], axis=1))
    path = write_video(tmp_path / "two.mp4", both)
    video_to_dataset.main([str(path), "--DR", str(tmp_path / "data"), f"--person={person}", "--size=96x80"])
    poses = json.loads((tmp_path / "data" / "poses.json").read_text())
    crop = Crop(**poses["crop"])
    necks = np.array([entry["fractions"][JOINTS.index("neck")][0] for entry in poses["frames"]])
    assert [entry["frame"] for entry in poses["frames"]] == [n for n in range(COUNT) if n not in hidden]
    on_left = crop.left + necks * crop.width < 2 * half
    assert on_left.all() if person == 1 else not on_left.any()


def test_gap_and_empty_frames_make_shots(tmp_path, images, pose_models, capsys):
    room = np.full_like(images[0], 200)
    path = write_video(tmp_path / "gap.mp4", [*images[:16], *[room] * 12, *images[16:32]])
    video_to_dataset.main([str(path), "--DR", str(tmp_path / "data"), "--size=64x32"])
    output = capsys.readouterr().out
    assert "32 of 44 frames in 2 shots; in the others, neck and hips or head are not visible" in output


def openpose(path, people):
    path.write_text(json.dumps({"people": [{"pose_keypoints_2d": list(map(float, p))} for p in people]}))


@pytest.mark.parametrize("count", [18, 25])
def test_poses_of_openpose_are_taken(tmp_path, studio, count):
    (tmp_path / "json").mkdir()
    for frame in range(COUNT):
        small = np.column_stack([np.linspace(300, 310, count), np.linspace(100, 150, count), np.ones(count)])
        large = np.column_stack([np.linspace(200, 210, count), np.linspace(60, 260, count), np.ones(count)])
        people = [small.ravel(), large.ravel()] if frame % 2 else [large.ravel(), small.ravel()]
        openpose(tmp_path / "json" / f"me_{frame:012d}_keypoints.json", people)
    video_to_dataset.main([str(studio), "--DR", str(tmp_path / "data"), "--openpose", str(tmp_path / "json")])
    poses = json.loads((tmp_path / "data" / "poses.json").read_text())
    necks = np.array([entry["pixels"][JOINTS.index("neck")] for entry in poses["frames"]])
    assert len(necks) == COUNT and np.ptp(necks, axis=0).max() < 1  # the same person in all frames


def test_joints_are_interpolated_over_short_gaps_only():
    estimates = np.zeros((30, len(JOINTS), 3))
    estimates[..., 0], estimates[..., 2] = np.arange(30)[:, None], 1
    estimates[5:9, 3, 2] = 0
    estimates[15:22, 4, 2] = 0
    estimates[10, 5, 0] += 400  # an outlier
    estimates[29, 0] = np.nan
    keypoints = joints.smooth(estimates)
    assert np.allclose(keypoints[:29, 3, 0], np.arange(29))
    assert np.isnan(keypoints[15:22, 4]).all() and not np.isnan(keypoints[:15, 4]).any()
    assert np.isnan(keypoints[29, 0]).all()
    assert abs(keypoints[10, 5, 0] - 10) < 1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [((300, 50), (340, 150), Crop(0, 0, 640, 320)), ((10, 10), (20, 300), Crop(-324, -25, 679, 339))],
)
def test_crop_is_as_large_as_possible_and_holds_the_person(low, high, expected):
    keypoints = np.array([[low, high]] * 3, float)
    crop = find_crop(keypoints, (640, 320), 2.0)
    assert np.allclose(crop, expected, atol=2)
    image = np.arange(320 * 640, dtype=np.uint8).reshape(320, 640, 1).repeat(3, axis=2)
    assert crop.apply(image, (64, 32)).shape == (32, 64, 3)
    inside = crop.transform(keypoints, (64, 32))
    assert inside.min() >= 0 and (inside <= (64, 32)).all()


def test_input_that_is_no_video_of_a_person_is_one_line(tmp_path, pose_models, images):
    write_video(tmp_path / "short.mp4", images[:1])
    (tmp_path / "text.mp4").write_text("hello")
    write_video(tmp_path / "black.mp4", [np.zeros((64, 128, 3), np.uint8)] * 3)
    whole = (tmp_path / "black.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    for name, word in (
        ("missing.mp4", "no such video"), ("text.mp4", "cannot be read"), ("cut.mp4", "cut.mp4: "),
        ("black.mp4", "0 frames show a person"), ("short.mp4", "at least 20 are needed"),
    ):  # fmt: skip
        done = run_script("tools/video_to_dataset.py", tmp_path / name, "--DR", tmp_path / "data")
        assert_user_error(done, word)
        assert not (tmp_path / "data").exists()


def test_folder_that_is_not_empty_and_wrong_flags_are_one_line(tmp_path, studio):
    (tmp_path / "mine.txt").write_text("mine")
    assert_user_error(
        run_script("tools/video_to_dataset.py", studio, "--DR", tmp_path), "not empty", "--overwrite"
    )
    for flags, word in (
        (["--crop=1,2"], "LEFT,TOP"), (["--fps=0"], "--fps"), (["--size=3"], "--size"),
        (["--openpose", "a", "b"], "--openpose"), (["--pose_models", tmp_path], "no such file"),
    ):  # fmt: skip
        assert_user_error(
            run_script("tools/video_to_dataset.py", studio, "--DR", tmp_path / "data", *flags), word
        )
    assert names(tmp_path) == ["mine.txt"]


@pytest.mark.parametrize(
    ("size", "flags"),
    [
        ((256, 128), "--recipe large --frame_W 256 --frame_H 128 --max_minutes 20"),
        ((128, 64), "--frame_W 128 --frame_H 64 --max_minutes 20 --batch_size 1 --tta 1"),
        ((64, 32), "--frame_W 64 --frame_H 32 --max_minutes 20"),
    ],
)
def test_training_command_suits_the_size(size, flags):
    command = video_to_dataset.training_command(Path("data/me"), size)
    assert command == f"python Trainer.py --DR data/me --save_root runs/me {flags}"
    configuration.trainer_args(command.split()[2:])


def test_networks_that_cannot_be_downloaded_or_are_others_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=r"cannot be downloaded.*--pose_models"):
        models.model_folder(None)
    for name in models.MODELS:
        (tmp_path / name).write_text("another")
    with pytest.raises(UserError, match="not the file of"):
        models.model_folder(tmp_path)


def test_hidden_joints_follow_the_visible_ones_and_fast_moves_stay():
    time = np.arange(60)
    estimates = np.ones((60, len(JOINTS), 3))
    estimates[:, 0, :2] = 100, 300  # the size of a body
    estimates[:, 3, 0] = 50 * np.sin(time / 3)
    estimates[:, 4, 0] = np.where((time > 20) & (time < 30), 80, 40)
    estimates[21:30, 4, 2] = 0.02
    keypoints = joints.smooth(estimates)
    assert np.abs(keypoints[5:-5, 3, 0] - estimates[5:-5, 3, 0]).max() < 2
    assert np.abs(keypoints[:20, 4, 0] - 40).max() < 2 and not np.isnan(keypoints[:, 4]).any()
    estimates[:, 5, 0] = -20
    assert np.isnan(joints.smooth(estimates, (200, 400))[:, 5]).all()  # outside the image


def test_videos_of_different_sizes_make_one_dataset(tmp_path, images, pose_models):
    large = write_video(tmp_path / "large.mp4", images[:16])
    small = [np.asarray(Image.fromarray(image).resize((480, 240))) for image in images[16:32]]
    small = write_video(tmp_path / "small.mp4", small, fps=15)
    video_to_dataset.main([str(large), str(small), "--DR", str(tmp_path / "data"), "--size=128x64"])
    poses = json.loads((tmp_path / "data" / "poses.json").read_text())
    assert [crop["width"] for crop in poses["crops"]] == [640, 480] and poses["fps"] == 15
    assert [entry["video"] for entry in poses["frames"]] == [0] * 8 + [1] * 16
    assert [entry["frame"] for entry in poses["frames"]][:9] == [*range(0, 16, 2), 0]


def test_sheet_shows_the_frames_that_are_doubtful():
    selected = []
    for number in range(80):
        estimates = np.ones((len(JOINTS), 3))
        estimates[:, :2] = np.arange(len(JOINTS))[:, None] * 10 + number + 60 * (number >= 50)
        estimates[:, 2] = 0.1 if number == 33 else 0.9
        if number in (15, 65):
            estimates[:] = np.nan  # interpolated
        selected.append(dataset.Frame(number, 0, number, estimates, estimates[:, :2]))
    reasons = dataset.frames_to_check(selected)
    assert reasons[33] == "unsure" and reasons[50] == "jump"
    assert list(reasons) == sorted(reasons) and {0, 79} <= set(reasons)
