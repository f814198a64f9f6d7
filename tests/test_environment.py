"""Odd surroundings: users without a home, names of any bytes, links, pipes."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers import FORKS, SMALL_RUN, assert_succeeds, assert_user_error, run_script, write_dataset

pytestmark = [
    pytest.mark.skipif(not FORKS, reason="tries what Linux allows"),
    pytest.mark.usefixtures("no_images"),
]


def train(data, folder, *flags, **settings):
    return run_script("Trainer.py", "--DR", data, "--save_root", folder, *SMALL_RUN, *flags, **settings)


def render(data, folder, ckpt, *flags, **settings):
    flags = ["--ckpt_path", ckpt, "--device=cpu", "--no-make_gif", *flags]
    return run_script("Tester.py", "--DR", data, "--save_root", folder, *flags, **settings)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_user_without_a_home_and_without_a_name():
    folder = Path("/tmp") / f"no_home_{os.getpid()}"
    folder.mkdir()
    try:
        folder.chmod(0o777)

        def become_nobody():
            os.environ.pop("HOME")
            os.setgid(54321)
            os.setuid(54321)

        data = write_dataset(folder / "data")
        assert_succeeds(train(data, folder / "run", preexec_fn=become_nobody))
        assert_succeeds(render(data, folder / "out", folder / "run/best.ckpt", preexec_fn=become_nobody))
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", [os.fsdecode(b"n\xff\xfcme"), "-a\n\u4f60"])
def test_folders_and_images_of_any_name(data, tmp_path, name):
    folder = tmp_path / name
    shutil.move(data, folder / "data")
    images = folder / "data" / "train" / "train_img"
    (images / "frame000003.png").rename(images / f"{name} 3.png")
    # TensorBoard only writes to folders whose names are UTF-8.
    run = (tmp_path if "\udcff" in name else folder) / "run"
    assert_succeeds(train(folder / "data", run))
    flags = ["--ckpt_path", run / "best.ckpt", "--device=cpu", "--mp4", "--submission"]
    # The dataset is that of the run.
    output = assert_succeeds(run_script("Tester.py", "--save_root", folder / "out", *flags))
    assert "AVG: " in output and (folder / "out" / "compare_seq1.mp4").stat().st_size > 1000
    assert_user_error(train(folder / "nowhere", folder / "other"), "no such folder")


def test_names_that_are_too_long(dataset, tmp_path, ckpt):
    long = tmp_path / ("l" * 300)
    assert_user_error(train(dataset, long), "too long")
    assert_user_error(train(long, tmp_path / "run"), "too long")
    assert_user_error(render(dataset, tmp_path / "out", long), "too long")


def test_links_that_lead_nowhere_or_in_a_circle(data, tmp_path):
    image = data / "train" / "train_img" / "frame000002.png"
    for target, words in (("nowhere.png", "No such file"), (image.name, "symbolic links")):
        image.unlink()
        image.symlink_to(target)
        assert_user_error(train(data, tmp_path / "run"), "frame000002.png", words)
    (tmp_path / "circle").symlink_to("circle")
    assert_user_error(train(data, tmp_path / "circle"), "circle")
    assert_user_error(train(tmp_path / "circle", tmp_path / "run"), "circle")


def test_pipes_in_place_of_files(data, tmp_path, ckpt):
    os.mkfifo(tmp_path / "pipe.ckpt")
    assert_user_error(render(data, tmp_path / "out", tmp_path / "pipe.ckpt"), "no such checkpoint")
    image = data / "test" / "test_label" / "0" / "frame000002.png"
    image.unlink()
    os.mkfifo(image)
    assert_user_error(render(data, tmp_path / "out", ckpt), "frame000002.png", "not a file")


def test_save_root_among_the_images_of_a_dataset_is_refused(data, tmp_path, ckpt):
    (tmp_path / "link").symlink_to(data / "train")
    before = sorted(data.rglob("*"))
    for folder in (data / "train" / "train_img", data / "val" / "new", tmp_path / "link" / "run"):
        assert_user_error(train(data, folder), "the dataset", "--save_root")
        assert_user_error(render(data, folder, ckpt), "the dataset", "--save_root")
    assert sorted(data.rglob("*")) == before
    assert_succeeds(train(data, data / "runs"))


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.binary(min_size=1, max_size=60).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_any_name_of_an_image_is_used_or_refused_in_one_line(data, tmp_path, name):
    image = data / "val" / "val_img" / os.fsdecode(name + b".png")
    other = data / "val" / "val_img" / "frame000005.png"
    other.rename(image)
    try:
        done = train(data, tmp_path / "run", "--overwrite")
    finally:
        image.rename(other)
    if done.returncode:
        assert_user_error(done)
