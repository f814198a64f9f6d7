"""A trained person moved by the poses of another one."""

import json

import av
import numpy as np
import pytest
from PIL import Image

import Trainer
from runtime.cli import UserError
from tests.helpers import SMALL_UNET, assert_user_error, run_script, write_dataset
from tools import pose_file, reenact
from tools.poses.fit import FEET, ROOT, TREE, bone_lengths, fitted
from tools.synthetic.body import INDEX, make_take
from tools.synthetic.frames import view_of
from tools.synthetic.skeleton import JOINTS

FRAMES = 60
MOVE = np.array([400.0, -90.0])


@pytest.fixture(scope="module")
def trained():
    """The places of the joints of the drawn dancer, in a picture of 128x64."""
    view = view_of(512, 256)
    figure = make_take(np.random.default_rng(1), FRAMES, view.half_range)
    numbers = [INDEX[name] for name in JOINTS]
    return np.stack([view.pixels(joints)[numbers] / 4 for joints in figure.joints])


def other_body(places):
    """The same motion of a person with long arms, elsewhere in a picture three times as large."""
    other = 3 * places
    for start, end, joint in (("r_shoulder", "r_elbow", "r_elbow"), ("r_elbow", "r_wrist", "r_wrist")):
        length = places[:, JOINTS.index(end)] - places[:, JOINTS.index(start)]
        other[:, JOINTS.index(joint)] += 2 * length
    return other + MOVE


def test_fit_gives_the_bones_the_lengths_of_the_trained_person(trained):
    result = fitted(other_body(trained), trained)
    assert np.allclose(bone_lengths(result), bone_lengths(trained), rtol=0.01)


def test_fit_of_a_larger_body_elsewhere_is_where_the_trained_person_was(trained):
    result = fitted(3 * trained + MOVE, trained)
    assert np.abs(result - trained).max() < 0.5


def test_person_who_walks_farther_stays_where_the_trained_one_stood(trained):
    walk = np.linspace(-90, 90, len(trained))[:, None, None] * (1, 0)
    result = fitted(trained + walk, trained)
    own, theirs = (np.percentile(places[:, ROOT, 0], (5, 95)) for places in (result, trained))
    assert own == pytest.approx(theirs, abs=0.5)
    assert np.allclose(bone_lengths(result), bone_lengths(trained), rtol=0.01)


def test_feet_stand_on_the_floor_and_joints_that_are_not_known_stay_unknown(trained):
    places = other_body(trained)
    places[10:20, JOINTS.index("l_wrist")] = np.nan
    places[30] = np.nan
    result = fitted(places, trained)
    lowest, floor = (np.nanmedian(np.nanmax(p[:, FEET, 1], axis=1)) for p in (result[:30], trained[:30]))
    assert lowest == pytest.approx(floor, abs=1.5)
    assert np.isnan(result[10:20, JOINTS.index("l_wrist")]).all() and np.isnan(result[30]).all()
    assert not np.isnan(result[:10]).any()


def test_bones_form_a_tree_from_the_pelvis():
    assert len(TREE) == len(JOINTS) - 1
    reached = {ROOT}
    for start, end in TREE:
        assert start in reached and end not in reached
        reached.add(end)


def write_poses(path, places, size=(128, 64)):
    frames = [
        {"pixels": [None if np.isnan(place).any() else place.tolist() for place in row]} for row in places
    ]
    path.write_text(json.dumps({"joints": JOINTS, "size": size, "frames": frames}))
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


def frames_of(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("flags", [[], ["--no-fit"]])
def test_poses_of_another_person_move_the_trained_one(person, trained, tmp_path, flags, monkeypatch):
    monkeypatch.setattr(reenact, "POSES_AT_ONCE", 8)  # three pieces
    data, ckpt = person
    source = write_poses(tmp_path / "poses.json", other_body(trained)[:20], (900, 400))
    reenact.main([str(ckpt), str(source), str(tmp_path / "out"), "--DR", str(data), "--device=cpu", *flags])
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["driven.gif", "driven.mp4", "driven_sheet.png"]
    frames = frames_of(tmp_path / "out" / "driven.mp4")
    assert len(frames) == 20
    poses = np.stack(frames)[:, 20:, : frames[0].shape[1] // 2 - 20]
    assert (poses < 200).any(axis=(1, 2, 3)).all()  # something is drawn in each frame
    with Image.open(tmp_path / "out" / "driven.gif") as gif:
        assert gif.n_frames == 20


def test_long_film_has_a_short_gif(person, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(reenact, "POSES_AT_ONCE", 8)
    monkeypatch.setattr(reenact, "GIF_FRAMES", 16)
    data, ckpt = person
    source = write_poses(tmp_path / "poses.json", trained[:40])
    reenact.main([str(ckpt), str(source), str(tmp_path), "--DR", str(data), "--device=cpu"])
    assert len(frames_of(tmp_path / "driven.mp4")) == 40
    with Image.open(tmp_path / "driven.gif") as gif:
        assert gif.n_frames == 16


def test_pose_pictures_of_another_dataset_move_the_trained_one(person, tmp_path):
    data, ckpt = person
    source = data / "test" / "test_label" / "0"
    reenact.main([str(ckpt), str(source), str(tmp_path), "--DR", str(data), "--device=cpu"])
    assert len(frames_of(tmp_path / "driven.mp4")) == 6


def test_wrong_sources_take_one_line(person, tmp_path):
    data, ckpt = person
    (tmp_path / "poses.json").write_text('{"joints": []}')
    (tmp_path / "empty").mkdir()
    for source, word in ((tmp_path / "poses.json", "not the poses"), (tmp_path / "empty", "no PNG")):
        done = run_script("tools/reenact.py", ckpt, source, tmp_path / "out", "--DR", data, "--device=cpu")
        assert_user_error(done, word)
    with pytest.raises(UserError, match="no such file"):
        pose_file.read(tmp_path / "none.json")
    with pytest.raises(UserError, match="nobody is in them"):
        pose_file.read(write_poses(tmp_path / "empty.json", np.zeros((0, len(JOINTS), 2))))
