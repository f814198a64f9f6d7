"""The web demo, opened as a file in a real browser."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dataloader import Video, load_test_videos
from runtime.cli import UserError
from tests.helpers import assert_user_error, run_script
from tests.tools.web import Tab
from tools import web_demo
from tools.synthetic.skeleton import JOINTS
from tools.web import motions, packages
from training.checkpoint import load_for_inference
from utils import to_float

FRAMES = 24


@pytest.fixture(scope="module")
def built(person, npm_packages):
    web_demo.main([str(person / "run" / "best.ckpt"), str(person / "page.html")])
    return person / "page.html"


@pytest.fixture
def tab(browser, built):
    tab = Tab(browser, built.as_uri()).ready()
    yield tab
    tab.page.close()


def test_opens_from_a_file_without_a_message_or_a_request(tab, built):
    tab.rest()
    assert tab.messages == [] and built.stat().st_size < 7e6
    assert [url for url in tab.requests if not url.startswith(("data:", "blob:"))] == [built.as_uri()]
    about = tab.page.inner_text("#about")
    assert "parameters" in about and "60 frames" in about and "dB on test sequence 0" in about


def test_rendered_frames_are_those_of_torch(tab, person):
    model, config = load_for_inference(person / "run" / "best.ckpt", DR=person / "data")
    (video,) = load_test_videos(config)
    expected = model.generate(to_float(video.first_frame)[None], to_float(video.poses[:6])[None])[0]
    tab.rest()
    tab.run("async () => { await page.setReference(0); page.framesToRender = 0; }")
    for index in range(1, 6):
        render = "async (index) => { page.goTo(index); page.framesToRender = 1; await page.render(); }"
        tab.run(render, index)
        frame = (expected[index].clamp(0, 1) * 255).permute(1, 2, 0).numpy()
        assert np.abs(tab.image() - frame).max() <= 2


def test_drag_of_a_hand_moves_the_hand_and_not_the_wall(tab):
    tab.rest()
    before, keypoints = tab.image().astype(int), tab.run("page.keypoints")
    wrist, elbow = (JOINTS.index(name) for name in ("r_wrist", "r_elbow"))
    tab.drag("right wrist", 0, -12 if keypoints[wrist][1] > 16 else 12)
    tab.rest()
    after, moved = tab.image().astype(int), tab.run("page.keypoints")
    assert np.hypot(*np.subtract(moved[wrist], keypoints[wrist])) > 2
    for joint in set(range(len(JOINTS))) - {wrist, elbow}:
        assert moved[joint] == keypoints[joint]
    change = np.abs(after - before).max(axis=2)
    columns = np.array([point[0] for point in keypoints])
    far = [c for c in range(64) if abs(c - columns.mean()) > 24]
    near = change[:, [c for c in range(64) if abs(c - columns.mean()) <= 16]]
    assert near.max() > 2 * change[:, far].max() and near.max() > 3


def test_undo_and_reset_bring_the_pose_back(tab):
    first = tab.run("page.keypoints")
    tab.drag("left ankle", 3, -3)
    tab.drag("pelvis", 4, 0)
    tab.page.keyboard.press("Control+z")
    tab.page.click("#undo")
    assert tab.run("page.keypoints") == first
    assert tab.page.is_disabled("#undo")
    tab.drag("nose", 2, 2)
    tab.page.click("#reset")
    assert tab.run("page.keypoints") == first


def test_motion_plays_to_its_end_and_a_grabbed_joint_takes_over(tab):
    tab.page.select_option("#rate", "2")
    tab.page.click("#play")
    tab.wait(f"page.clock.position >= {FRAMES - 1}")
    tab.rest()
    assert tab.page.inner_text("#play") == "Play"
    assert tab.page.input_value("#scrub") == str(FRAMES - 1)
    tab.page.select_option("#rate", "0.25")
    tab.page.click("#play")
    tab.wait("page.clock.position > 1")
    tab.drag("left wrist", 2, 2)
    position = tab.run("page.clock.position")
    assert 1 < position < FRAMES - 1 and not tab.run("page.clock.playing")
    tab.rest()
    assert tab.messages == []


def test_reference_frame_and_motion_are_selected(tab):
    tab.page.select_option("#motion", label="validation")
    tab.page.select_option("#reference", label="validation")
    tab.rest()
    tab.page.fill("#scrub", "7")
    assert tab.run("page.clock.position") == 7
    assert tab.run("page.keypoints") == tab.run("page.motions[1].keypoints[7]")


def test_pose_unlike_the_training_is_marked(tab):
    assert "unlike-training" not in tab.stage_classes()
    for joint in ("nose", "left wrist", "right wrist", "left ankle"):
        tab.drag(joint, 20, 15)
    assert "unlike-training" in tab.stage_classes()
    tab.page.click("#reset")
    assert "unlike-training" not in tab.stage_classes()


@pytest.mark.parametrize(("kind", "start"), [("webm", b"\x1aE\xdf\xa3"), ("gif", b"GIF89a")])
def test_what_happens_is_recorded(tab, tmp_path, kind, start):
    tab.page.select_option("#format", kind)
    tab.page.click("#record")
    tab.drag("left wrist", 3, 3)
    tab.rest()
    with tab.page.expect_download() as download:
        tab.page.click("#record")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert path.suffix == f".{kind}" and path.read_bytes().startswith(start)
    if kind == "gif":
        with Image.open(path) as video:
            assert video.n_frames > 3 and video.size == (256, 128)
            video.seek(video.n_frames - 1)
            shown = np.asarray(video.convert("RGB").resize((64, 32), Image.Resampling.NEAREST), int)
        assert np.abs(shown - tab.image()).mean() < 6


def test_the_browser_refuses_requests_of_the_page_and_its_workers(tab):
    fetching = "fetch('https://example.org/').then(() => 'sent', () => 'refused')"
    assert tab.run(fetching) == "refused"
    in_worker = """new Promise((resolve) => {
        const script = `${'FETCHING'}.then((word) => postMessage(word))`;
        const worker = new Worker(URL.createObjectURL(new Blob([script], { type: 'text/javascript' })));
        worker.onmessage = ({ data }) => resolve(data);
    })""".replace("${'FETCHING'}", fetching)
    assert tab.run(in_worker) == "refused"
    assert not [url for url in tab.requests if url.startswith("http")]


def test_keys_switches_and_the_slider_of_z(tab):
    before = tab.run("page.keypoints")
    tab.page.get_by_role("button", name=re.compile("^left wrist:")).focus()
    tab.page.keyboard.press("Shift+ArrowUp")
    assert tab.run("page.keypoints") != before
    tab.page.uncheck("#skeleton")
    assert not tab.page.get_by_role("button", name=re.compile("^nose:")).is_visible()
    tab.page.check("#smooth")
    assert tab.run("getComputedStyle(document.getElementById('image')).imageRendering") == "auto"
    tab.run("document.getElementById('z-field').hidden = false")
    tab.page.fill("#z", "2")
    assert tab.run("Math.max(...page.model.z) > 0")


def test_joints_are_dragged_by_touch_on_a_narrow_dark_screen(browser, built):
    size = {"width": 360, "height": 640}
    tab = Tab(browser, built.as_uri(), viewport=size, has_touch=True, color_scheme="dark").ready()
    assert tab.run("document.documentElement.scrollWidth") <= 360
    background = tab.run("getComputedStyle(document.body).backgroundColor")
    assert int(re.findall(r"\d+", background)[0]) < 128
    circles = """[...document.querySelectorAll('.handle')]
        .map(({ cx, cy, r }) => [cx, cy, r].map((length) => length.baseVal.value))"""
    handles = np.array(tab.run(circles))
    for index, (x, y, radius) in enumerate(handles):
        others = handles[index + 1 :]
        assert (np.hypot(others[:, 0] - x, others[:, 1] - y) > others[:, 2] + radius - 0.01).all()
    before = tab.run("page.keypoints")
    handle = tab.page.get_by_role("button", name=re.compile("^right wrist:")).bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    touch = tab.page.context.new_cdp_session(tab.page)
    for kind, points in (("Start", [{"x": x, "y": y}]), ("Move", [{"x": x + 20, "y": y + 20}]), ("End", [])):
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    tab.wait("page.undoSteps.length > 0")
    assert tab.run("page.keypoints") != before
    tab.page.close()


@pytest.mark.parametrize("part", ["network-step", "references"])
def test_damaged_page_says_so(browser, built, tmp_path, part):
    text = built.read_text()
    start = text.index(f'id="{part}"') + 2000
    other = "A" if text[start] != "A" else "B"
    (tmp_path / "page.html").write_text(text[:start] + other * 8 + text[start + 8 :])
    tab = Tab(browser, (tmp_path / "page.html").as_uri())
    tab.page.wait_for_selector("#status.error")
    assert "damaged" in tab.page.inner_text("#status")
    tab.page.close()


def test_without_joints_motions_are_played_and_nothing_is_dragged(
    browser, person, npm_packages, tmp_path, capsys
):
    data = tmp_path / "data"
    shutil.copytree(person / "data", data)
    assert web_demo.read_poses(data, "#ffffff")
    assert web_demo.read_poses(data, "#000000") is None
    (data / "poses.json").unlink()
    web_demo.main([str(person / "run" / "best.ckpt"), str(tmp_path / "page.html"), "--DR", str(data)])
    assert "joints cannot be dragged" in capsys.readouterr().out
    tab = Tab(browser, (tmp_path / "page.html").as_uri()).ready()
    assert tab.page.get_by_role("button", name=re.compile("^nose:")).count() == 0
    tab.page.select_option("#rate", "2")
    tab.page.click("#play")
    tab.wait(f"page.clock.position >= {FRAMES - 1}")
    tab.rest()
    assert tab.messages == []
    tab.page.close()


def test_missing_pose_on_black_is_filled():
    poses = np.zeros((3, 8, 16, 3), np.uint8)
    poses[[0, 2], 2:6, 4] = 255
    config = SimpleNamespace(fill_poses=1, pose_background="#000000")
    collected = motions.collect([Video(0, poses, poses[0])], None, config)
    assert np.array_equal(collected.motions[0][1], poses[0])


def test_z_has_a_control_if_it_changes_a_frame(person):
    model, config = load_for_inference(person / "run" / "best.ckpt", DR=person / "data")
    video = Video(0, np.zeros((2, 32, 64, 3), np.uint8), np.zeros((32, 64, 3), np.uint8))
    torch.nn.init.zeros_(model.Decoder_Fusion.z_proj.weight)
    assert not web_demo.uses_z(model, video, config)
    torch.nn.init.normal_(model.Decoder_Fusion.z_proj.weight)
    assert web_demo.uses_z(model, video, config)


def test_runtime_that_cannot_be_downloaded_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "npm").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setattr(packages.sys, "executable", "/nowhere/python")
    for path, reason in ((str(tmp_path), "cannot be downloaded"), ("/nowhere", "needs npm")):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(UserError, match=f"{reason}.*--packages FOLDER"):
            packages.package_folder(packages.RUNTIME, None)


def test_mistakes_are_one_line(person, npm_packages, tmp_path, dataset, finished_run):
    ckpt, data = person / "run" / "best.ckpt", person / "data"
    (tmp_path / "ort.wasm.bundle.min.mjs").write_text("another")
    for arguments, word in (
        ([finished_run[0] / "best.ckpt", tmp_path / "page.html", "--DR", dataset], "--arch unet"),
        ([tmp_path / "none.ckpt", tmp_path / "page.html", "--DR", data], "no such checkpoint"),
        ([ckpt, tmp_path / "page.html", "--DR", tmp_path / "nowhere"], "nowhere"),
        ([ckpt, tmp_path / "page.html", "--DR", data, "--packages", tmp_path], "not the file of"),
        ([ckpt, tmp_path, "--DR", data], str(tmp_path)),
    ):
        assert_user_error(run_script("tools/web_demo.py", *arguments), word)
    assert not (tmp_path / "page.html").exists()
