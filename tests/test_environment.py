"""Odd surroundings: users without a home, names of any bytes, links, pipes, limits, lost output."""

import os
import resource
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers import (
    FORKS,
    HEIGHT,
    SMALL_RUN,
    WIDTH,
    assert_succeeds,
    assert_user_error,
    run_script,
    write_dataset,
)

pytestmark = pytest.mark.skipif(not FORKS, reason="tries what Linux allows")
NO_UTF8 = os.fsdecode(b"n\xff\xfcme")


@pytest.fixture
def data(dataset, tmp_path):
    """A copy of the dataset, to be broken."""
    return shutil.copytree(dataset, tmp_path / "data", ignore=shutil.ignore_patterns(".frame_cache"))


@pytest.fixture(scope="module")
def ckpt(finished_run):
    return finished_run[0] / "last.ckpt"


def train(data, folder, *flags, **settings):
    return run_script("Trainer.py", "--DR", data, "--save_root", folder, *SMALL_RUN, *flags, **settings)


def render(data, folder, ckpt, *flags, **settings):
    flags = ["--ckpt_path", ckpt, "--device=cpu", *flags]
    return run_script("Tester.py", "--DR", data, "--save_root", folder, *flags, **settings)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_user_without_a_home_and_without_a_name(tmp_path_factory):
    folder = Path("/tmp") / f"no_home_{os.getpid()}"
    folder.mkdir(mode=0o777)
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


@pytest.mark.parametrize("name", ["r\u00fcn \u4f60\u597d", NO_UTF8, "a\nb", "-x"])
def test_folders_and_pictures_of_any_name(data, tmp_path, name):
    folder = tmp_path / name
    shutil.move(data, folder / "data")
    pictures = folder / "data" / "train" / "train_img"
    (pictures / "frame000003.png").rename(pictures / f"{name} 3.png")
    assert_succeeds(train(folder / "data", folder / "run"))
    output = assert_succeeds(
        render(folder / "data", folder / "out", folder / "run" / "best.ckpt", "--mp4", "--submission")
    )
    assert "AVG: " in output and (folder / "out" / "compare_seq1.mp4").stat().st_size > 1000
    assert_user_error(train(folder / "nowhere", folder / "other"), "no such folder")


def test_names_that_are_too_long(dataset, tmp_path, ckpt):
    long = tmp_path / ("l" * 300)
    assert_user_error(train(dataset, long), "too long")
    assert_user_error(train(long, tmp_path / "run"), "too long")
    assert_user_error(render(dataset, tmp_path / "out", long), "too long")


def test_links_that_lead_nowhere_or_in_a_circle(data, tmp_path):
    picture = data / "train" / "train_img" / "frame000002.png"
    for target, word in (("nowhere.png", "No such file"), (picture.name, "symbolic links")):
        picture.unlink()
        picture.symlink_to(target)
        assert_user_error(train(data, tmp_path / "run"), "frame000002.png", word)
    (tmp_path / "circle").symlink_to("circle")
    assert_user_error(train(data, tmp_path / "circle"), "circle")
    assert_user_error(train(tmp_path / "circle", tmp_path / "run"), "circle")


def test_pipes_in_place_of_files(data, tmp_path, ckpt):
    assert_succeeds(render(data, tmp_path / "out", ckpt))
    for cache in (data / ".frame_cache").iterdir():
        cache.unlink()
        os.mkfifo(cache)
    assert_succeeds(render(data, tmp_path / "out", ckpt))
    os.mkfifo(tmp_path / "pipe.ckpt")
    assert_user_error(render(data, tmp_path / "out", tmp_path / "pipe.ckpt"), "no such checkpoint")
    picture = data / "test" / "test_label" / "0" / "frame000002.png"
    picture.unlink()
    os.mkfifo(picture)
    assert_user_error(render(data, tmp_path / "out", ckpt), "frame000002.png", "not a file")


@pytest.mark.parametrize("text", ["1,2\n".encode("utf-16"), bytes(range(256)) * 20, b"\0" * 99, b""])
def test_truth_that_is_no_text(data, tmp_path, ckpt, text):
    shutil.rmtree(data / "test" / "test_gt")
    (data / "Demo_Test").mkdir()
    (data / "Demo_Test" / "GT0.csv").write_bytes(text)
    assert_user_error(render(data, tmp_path / "out", ckpt), "GT0.csv")


def test_no_file_may_be_written(dataset, tmp_path, ckpt):
    """The output of the scripts goes to files here, too, so that only the exit code is left."""

    def no_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    assert train(dataset, tmp_path / "run", preexec_fn=no_files).returncode == 2
    assert render(dataset, tmp_path / "out", ckpt, preexec_fn=no_files).returncode == 2
    assert not [path for path in (tmp_path / "out").iterdir() if path.stat().st_size]


def test_disk_that_fills_up_under_tester_leaves_whole_files_only(dataset, tmp_path, ckpt):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    done = render(dataset, tmp_path, ckpt, preexec_fn=small_files)
    assert_user_error(done, "cannot save", str(tmp_path), "File too large")
    names = {path.name for path in tmp_path.iterdir()}
    assert "results.json" not in names and not [name for name in names if name.startswith(".")]
    assert_succeeds(render(dataset, tmp_path, ckpt))


def test_training_among_the_pictures_of_a_dataset_is_refused(data, tmp_path, ckpt):
    (tmp_path / "link").symlink_to(data / "train")
    for folder in (data / "train" / "train_img", data / "val" / "new", tmp_path / "link" / "run"):
        before = sorted(data.rglob("*"))
        assert_user_error(train(data, folder), "the dataset", "--save_root")
        assert_user_error(render(data, folder, ckpt), "the dataset", "--save_root")
        assert sorted(data.rglob("*")) == before
    assert_succeeds(train(data, data / "runs"))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.binary(min_size=1, max_size=60).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_any_name_of_a_picture_is_used_or_refused_in_one_line(data, tmp_path, name):
    picture = data / "val" / "val_img" / os.fsdecode(name + b".png")
    other = data / "val" / "val_img" / "frame000005.png"
    other.rename(picture)
    try:
        done = train(data, tmp_path / "run", "--overwrite", f"--frame_H={HEIGHT}", f"--frame_W={WIDTH}")
    finally:
        picture.rename(other)
    if done.returncode:
        assert_user_error(done)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_study_file_is_used_or_refused_in_one_line(tmp_path, text):
    (tmp_path / "study").write_bytes(text)
    flags = ["--DR", tmp_path / "nowhere", "--save_root", tmp_path / "runs"]
    done = run_script("tools/study.py", tmp_path / "study", *flags)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
