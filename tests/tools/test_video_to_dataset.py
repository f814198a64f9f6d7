"""A video of the drawn dancer, whose joints are known, as a dataset."""

import json
import resource
import signal
import struct
import subprocess
import sys
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

import Trainer
from runtime import cli
from runtime.cli import UserError
from tests.helpers import ROOT, SMALL_UNET, assert_succeeds, assert_user_error, one_thread, run_script
from tools import video_to_dataset
from tools.poses import joints, models, video
from tools.poses.crop import Crop, find_crop
from tools.synthetic.body import INDEX, make_take
from tools.synthetic.frames import paint_frame, view_of
from tools.synthetic.skeleton import JOINTS

WIDTH, HEIGHT, COUNT = 640, 320, 40
NUMBERS = [INDEX[name] for name in JOINTS]


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
    return make_take(np.random.default_rng(5), COUNT, view_of(WIDTH, HEIGHT).half_range)


@pytest.fixture(scope="session")
def pictures(figure):
    return [paint_frame(figure, frame, WIDTH, HEIGHT) for frame in range(COUNT)]


def write_video(path, pictures, fps=30):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "12"}
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def studio(tmp_path_factory, pictures):
    return write_video(tmp_path_factory.mktemp("video") / "studio.mp4", pictures)


@pytest.fixture(scope="session")
def filmed(tmp_path_factory, studio, pose_models):
    folder = tmp_path_factory.mktemp("film") / "data"
    video_to_dataset.main([str(studio), "--DR", str(folder), "--size=128x64"])
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_film_is_divided_into_the_splits_of_the_lab(filmed):
    assert names(filmed) == ["film.png", "poses.json", "test", "train", "val"]
    splits = ("train/train_img", "val/val_img", "test/test_gt/0")
    assert [len(names(filmed / split)) for split in splits] == [32, 4, 4]
    numbers = [int(name[5:11]) for split in splits for name in names(filmed / split)]
    assert numbers == list(range(COUNT))
    for image, label in (("train/train_img", "train/train_label"), ("test/test_gt/0", "test/test_label/0")):
        assert names(filmed / image) == names(filmed / label)
    assert names(filmed / "test/test_img/0") == names(filmed / "test/test_gt/0")[:1]
    with Image.open(filmed / "train/train_img/frame000000.png") as picture:
        assert picture.size == (128, 64)
    assert (filmed / "film.png").stat().st_size > 5000


def test_joints_are_near_the_true_ones(filmed, figure):
    poses = json.loads((filmed / "poses.json").read_text())
    assert tuple(poses["joints"]) == JOINTS and len(poses["frames"]) >= 0.99 * COUNT
    view, errors = view_of(WIDTH, HEIGHT), []
    crop = Crop(**poses["crop"])
    for entry in poses["frames"]:
        true = crop.places(view.pixels(figure.joints[entry["frame"]])[NUMBERS], (1, 1))
        for place, expected in zip(entry["fractions"], true, strict=True):
            if place is not None:
                errors.append(np.linalg.norm((np.array(place) - expected) * (2, 1)))
    assert len(errors) > 0.8 * COUNT * len(JOINTS)
    assert np.mean(errors) < 10 / 512 * HEIGHT / crop.height * 1.05  # of 512 rows of the video


def test_trainer_takes_the_dataset(filmed, tmp_path):
    flags = [*SMALL_UNET, "--val_vi_len=4", "--train_vi_len=4", "--num_epoch=1", "--device=cpu"]
    Trainer.main(["--DR", str(filmed), "--save_root", str(tmp_path), *flags])
    assert (tmp_path / "best.ckpt").exists()


def test_stopped_tool_goes_on_where_it_was(studio, filmed, tmp_path, pose_models, monkeypatch):
    folder, estimated = tmp_path / "data", joints.estimated
    calls = []

    def stop_after_15(estimator, picture):
        calls.append(1)
        if len(calls) > 15:
            raise cli.Stopped(signal.SIGINT)
        return estimated(estimator, picture)

    monkeypatch.setattr(joints, "estimated", stop_after_15)
    command = [str(studio), "--DR", str(folder), "--size=128x64"]
    with pytest.raises(cli.Stopped):
        video_to_dataset.main(command)
    assert names(folder) == [video_to_dataset.NOTES]
    calls.clear()
    monkeypatch.setattr(joints, "estimated", lambda *a: (calls.append(1), estimated(*a))[1])
    video_to_dataset.main(command)
    assert len(calls) == COUNT - 15
    assert (folder / "poses.json").read_text() == (filmed / "poses.json").read_text()
    assert names(folder) == ["film.png", "poses.json", "test", "train", "val"]


@pytest.mark.parametrize(("person", "side"), [(1, "left"), (2, "right")])
def test_one_of_two_people_is_followed(tmp_path, figure, pictures, pose_models, person, side):
    """The second one is smaller, and dances on the right."""
    half, both = 110, []
    columns = view_of(WIDTH, HEIGHT).pixels(figure.joints)[:, INDEX["pelvis"], 0].astype(int)
    for picture, column in zip(pictures, columns.clip(half, WIDTH - half), strict=True):
        large = picture[:, column - half : column + half]
        small = np.asarray(Image.fromarray(large).resize((half * 3 // 2, HEIGHT * 3 // 4)))
        beside = np.full((HEIGHT, small.shape[1] + 1, 3), 190, np.uint8)
        beside[-len(small) :, 1:] = small
        both.append(np.concatenate([large, beside], axis=1))
    path = write_video(tmp_path / "two.mp4", both)
    video_to_dataset.main([str(path), "--DR", str(tmp_path / "data"), f"--person={person}", "--size=96x80"])
    poses = json.loads((tmp_path / "data" / "poses.json").read_text())
    crop = Crop(**poses["crop"])
    necks = np.array([entry["fractions"][JOINTS.index("neck")][0] for entry in poses["frames"]])
    assert len(necks) > 0.9 * COUNT
    on_left = crop.left + necks * crop.width < 2 * half
    assert on_left.all() if side == "left" else not on_left.any()


def test_gap_and_empty_frames_make_shots(tmp_path, pictures, pose_models, capsys):
    room = np.full_like(pictures[0], 200)
    path = write_video(tmp_path / "gap.mp4", [*pictures[:16], *[room] * 12, *pictures[16:32]])
    video_to_dataset.main([str(path), "--DR", str(tmp_path / "data"), "--size=64x32"])
    line = capsys.readouterr().out
    assert "in 2 shots" in line and "nobody was found in 12" in line


def test_video_that_is_turned_is_upright(tmp_path, pictures):
    """A phone that is held upright writes pictures that lie on their side, and how to turn them."""
    path = write_video(tmp_path / "turned.mp4", [np.rot90(picture) for picture in pictures[:3]])
    movie = path.read_bytes()
    place = movie.index(b"tkhd") + 44  # of the matrix in the track's header
    assert movie[place : place + 36] == struct.pack(">9i", 2**16, 0, 0, 0, 2**16, 0, 0, 0, 2**30)
    matrix = struct.pack(">9i", 0, 2**16, 0, -(2**16), 0, 0, 0, 0, 2**30)
    path.write_bytes(movie[:place] + matrix + movie[place + 36 :])
    frames = list(video.frames(path, 30))
    assert len(frames) == 3
    for frame, picture in zip(frames, pictures, strict=False):
        assert frame.shape == picture.shape
        assert np.abs(frame.astype(int) - picture).mean() < 3


def test_gif_is_a_video(tmp_path, pictures):
    pages = [Image.fromarray(picture) for picture in pictures[:5]]
    pages[0].save(tmp_path / "me.gif", save_all=True, append_images=pages[1:], duration=50)
    frames = list(video.frames(tmp_path / "me.gif", 30))
    assert len(frames) == 5 and frames[0].shape == pictures[0].shape


def test_frames_of_a_variable_rate_are_kept_by_their_times(tmp_path, pictures):
    """30 frames a second, then 10: at 10 a second, each third of the first, and all others."""
    path = tmp_path / "variable.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, time = "yuv420p", 0
        for index, picture in enumerate(pictures[:24]):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture))
            frame.pts, frame.time_base = time, Fraction(1, 30)
            time += 1 if index < 12 else 3
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert len(list(video.frames(path, 10))) == 4 + 12


@pytest.mark.parametrize(
    ("flags", "count"), [({}, COUNT), ({"fps": 10}, 14), ({"start": 0.5}, 25), ({"end": 0.5}, 16)]
)
def test_frames_per_second_start_and_end(studio, flags, count):
    settings = {"fps": 30.0} | flags
    assert len(list(video.frames(studio, **settings))) == pytest.approx(count, abs=1)


def test_folder_of_pictures_is_a_video(tmp_path, pictures):
    for number in range(3):
        Image.fromarray(pictures[number]).save(tmp_path / f"{number}.png")
    assert all(map(np.array_equal, video.frames(tmp_path, 30), pictures))


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
    found = np.zeros((30, len(JOINTS), 3))
    found[..., 0], found[..., 2] = np.arange(30)[:, None], 1
    found[5:9, 3, 2] = 0
    found[15:22, 4, 2] = 0
    found[29, 0] = np.nan
    places = joints.repaired(found)
    assert np.allclose(places[:29, 3, 0], np.arange(29))
    assert np.isnan(places[15:22, 4]).all() and not np.isnan(places[:15, 4]).any()
    assert np.isnan(places[29, 0]).all()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [((300, 50), (340, 150), Crop(0, 0, 640, 320)), ((10, 10), (20, 300), Crop(-324, -25, 679, 339))],
)
def test_crop_is_as_large_as_possible_and_holds_the_person(low, high, expected):
    places = np.array([[low, high]] * 3, float)
    crop = find_crop(places, (640, 320), 2.0)
    assert np.allclose(crop, expected, atol=2)
    picture = np.arange(320 * 640, dtype=np.uint8).reshape(320, 640, 1).repeat(3, axis=2)
    assert crop.apply(picture, (64, 32)).shape == (32, 64, 3)
    inside = crop.places(places, (64, 32))
    assert inside.min() >= 0 and (inside <= (64, 32)).all()


def test_input_that_is_no_video_of_a_person_takes_one_line(tmp_path, pose_models, pictures):
    write_video(tmp_path / "short.mp4", pictures[:1])
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty.mp4").write_text("")
    write_video(tmp_path / "black.mp4", [np.zeros((64, 128, 3), np.uint8)] * 3)
    whole = (tmp_path / "black.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 44100
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    for name, word in (
        ("missing.mp4", "no such video"), ("text.mp4", "cannot be read"), ("empty.mp4", "cannot be read"),
        ("cut.mp4", "cut.mp4: "), ("black.mp4", "0 frames show a person"),
        ("sound.mp4", "holds no pictures"), ("short.mp4", "at least 20 are needed"),
    ):  # fmt: skip
        done = run_script("tools/video_to_dataset.py", tmp_path / name, "--DR", tmp_path / "data")
        assert_user_error(done, word)
        assert not (tmp_path / "data").exists()


def test_full_disk_takes_one_line_and_the_next_call_goes_on(tmp_path, studio, pose_models):
    """The limit lets the joints through, but not the pictures."""
    command = [studio, "--DR", tmp_path / "data", "--size=512x256"]
    limit = 60_000, resource.RLIM_INFINITY
    done = run_script(
        "tools/video_to_dataset.py",
        *command,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert_user_error(done, "File too large")
    assert names(tmp_path / "data") == [video_to_dataset.NOTES]
    assert_succeeds(run_script("tools/video_to_dataset.py", *command))
    assert names(tmp_path / "data") == ["film.png", "poses.json", "test", "train", "val"]


def test_folder_that_is_not_empty_and_wrong_flags_take_one_line(tmp_path, studio):
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


def test_networks_that_cannot_be_fetched_or_are_others_take_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(models, "PACKAGE", "no-such-package-of-poses==0")
    with pytest.raises(UserError, match=r"cannot be fetched.*--pose_models"):
        models.model_folder(None)
    for name in models.MODELS:
        (tmp_path / name).write_text("another")
    with pytest.raises(UserError, match="another file"):
        models.model_folder(tmp_path)


def test_signal_ends_the_tool_and_the_next_call_goes_on(tmp_path, pictures, pose_models):
    path = write_video(tmp_path / "long.mp4", pictures * 20)
    command = [
        sys.executable,
        str(ROOT / "tools/video_to_dataset.py"),
        str(path),
        "--DR",
        str(tmp_path / "data"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=one_thread())
    found = tmp_path / "data" / video_to_dataset.NOTES
    while not found.exists() or found.stat().st_size < 10_000:
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and b"Traceback" not in errors
    assert names(tmp_path / "data") == [video_to_dataset.NOTES]
