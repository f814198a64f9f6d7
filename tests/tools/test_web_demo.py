"""The page on which the skeleton is dragged, opened as a file in a real browser."""

import os
import re
import shutil

import numpy as np
import pytest
import torch

import Trainer
from dataloader import load_test_sequences
from modules import VAE_Model
from runtime.cli import UserError
from tests.helpers import assert_user_error, run_script
from tests.tools.drawing import run
from tools import web_demo
from tools.synthetic.skeleton import JOINTS
from training import checkpoint, options
from training.evaluate import Sequence
from utils import to_float

FRAMES = 24


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    """A drawn dataset, and a checkpoint that was trained on it."""
    root = tmp_path_factory.mktemp("person")
    frames = [
        "--train_frames=60", f"--val_frames={FRAMES}", f"--test_frames={FRAMES}", "--test_sequences=1"
    ]  # fmt: skip
    run(root / "data", "--size=64x32", *frames, "--workers=1").check_returncode()
    flags = ["--F_dim=16", "--L_dim=16", "--D_out_dim=24", "--num_epoch=10", "--per_val=10", "--device=cpu"]
    Trainer.main(["--DR", str(root / "data"), "--save_root", str(root / "run"), *flags])
    return root


@pytest.fixture(scope="module")
def runtime_folder():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from tools.web import runtime

    try:
        return runtime.runtime_folder(None)
    except UserError as refusal:
        pytest.skip(str(refusal))


@pytest.fixture(scope="module")
def built(person, runtime_folder):
    web_demo.main(
        [str(person / "run" / "best.ckpt"), str(person / "page.html"), "--DR", str(person / "data")]
    )
    return person / "page.html"


class Tab:
    """A page in the browser, with what it complained about and what it asked for."""

    def __init__(self, browser, address, **settings):
        self.page = browser.new_page(**settings)
        self.complaints, self.requests = [], []
        self.page.on("console", lambda line: self.complaints.append(line.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def ready(self):
        self.page.wait_for_selector("#app:not([hidden])", timeout=60_000)
        return self

    def run(self, script, argument=None):
        return self.page.evaluate(script, argument)

    def wait(self, script):
        self.page.wait_for_function(script, timeout=60_000)

    def rest(self):
        """Wait until nothing is painted any more."""
        self.wait("page.restless === 0 && !page.clock.playing")

    def picture(self):
        """What the canvas shows, uint8 `(H, W, 3)`."""
        script = (
            "() => { const c = document.getElementById('picture'), at = c.getContext('2d');"
            " return [c.height, c.width, [...at.getImageData(0, 0, c.width, c.height).data]]; }"
        )
        height, width, values = self.run(script)
        return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]

    def stage_classes(self):
        return self.page.locator("#stage").get_attribute("class") or ""

    def drag(self, joint, across, down):
        """Drag a joint by some pixels of the pose picture, with the mouse."""
        handle = self.page.get_by_role("button", name=re.compile(f"^{joint}:")).bounding_box()
        x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
        zoom = self.page.locator("#overlay").bounding_box()["width"] / self.run("page.facts.look.size[0]")
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + across * zoom, y + down * zoom, steps=4)
        self.page.mouse.up()


@pytest.fixture
def tab(browser, built):
    tab = Tab(browser, built.as_uri()).ready()
    yield tab
    tab.page.close()


def test_opens_from_a_file_without_a_complaint_or_a_request(tab, built):
    tab.rest()
    assert tab.complaints == []
    assert [url for url in tab.requests if not url.startswith(("data:", "blob:"))] == [built.as_uri()]
    about = tab.page.inner_text("#about")
    assert "parameters" in about and "60 frames" in about and "dB on test sequence 0" in about


def test_file_is_small(built):
    assert built.stat().st_size < 7e6


def test_painted_pictures_are_those_of_torch(tab, person):
    path = person / "run" / "best.ckpt"
    stored = ["--DR", str(person / "data"), "--save_root", str(person), "--ckpt_path", str(path)]
    flags, start = checkpoint.tester_flags(stored)
    model = VAE_Model(flags)
    checkpoint.load_weights(model, path, start)
    (sequence,) = load_test_sequences(flags)
    video = model.generate(to_float(sequence.first_frame)[None], to_float(sequence.poses[:6])[None])[0]
    tab.rest()
    tab.run("async () => { await page.begin(0); page.restless = 0; }")
    for index in range(1, 6):
        paint = "async (index) => { page.goTo(index); page.restless = 1; await page.paint(); }"
        tab.run(paint, index)
        expected = (video[index].clamp(0, 1) * 255).permute(1, 2, 0).numpy()
        assert np.abs(tab.picture() - expected).max() <= 2


def test_drag_of_a_hand_moves_the_hand_and_not_the_wall(tab):
    tab.rest()
    before, places = tab.picture().astype(int), tab.run("page.places")
    wrist, elbow = (JOINTS.index(name) for name in ("r_wrist", "r_elbow"))
    tab.drag("right wrist", 0, -12 if places[wrist][1] > 16 else 12)
    tab.rest()
    after, moved = tab.picture().astype(int), tab.run("page.places")
    assert np.hypot(*np.subtract(moved[wrist], places[wrist])) > 2
    for joint in set(range(len(JOINTS))) - {wrist, elbow}:
        assert moved[joint] == places[joint]
    change = np.abs(after - before).max(axis=2)
    columns = np.array([place[0] for place in places])
    far = [c for c in range(64) if abs(c - columns.mean()) > 24]
    near = change[:, [c for c in range(64) if abs(c - columns.mean()) <= 16]]
    assert near.max() > 2 * change[:, far].max() and near.max() > 3


def test_undo_and_reset_bring_the_pose_back(tab):
    first = tab.run("page.places")
    tab.drag("left ankle", 3, -3)
    tab.drag("pelvis", 4, 0)
    tab.page.keyboard.press("Control+z")
    tab.page.click("#undo")
    assert tab.run("page.places") == first
    assert tab.page.is_disabled("#undo")
    tab.drag("nose", 2, 2)
    tab.page.click("#reset")
    assert tab.run("page.places") == first


def test_joints_are_moved_by_keys(tab):
    number = JOINTS.index("l_wrist")
    before = tab.run("page.places")
    tab.page.get_by_role("button", name=re.compile("^left wrist:")).focus()
    for key in ("ArrowUp", "Shift+ArrowUp"):
        tab.page.keyboard.press(key)
    after = tab.run("page.places")
    assert before[number] != after[number]


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
    assert tab.complaints == []


def test_start_frame_and_motion_are_chosen(tab):
    tab.page.select_option("#motion", label="validation")
    tab.page.select_option("#start", label="validation")
    tab.rest()
    tab.page.fill("#scrub", "7")
    assert tab.run("page.clock.position") == 7
    assert tab.run("page.places") == tab.run("page.motions[1].places[7]")


def test_pose_that_is_unlike_those_of_the_training_is_marked(tab):
    assert "unfamiliar" not in tab.stage_classes()
    for joint in ("nose", "left wrist", "right wrist", "left ankle"):
        tab.drag(joint, 20, 15)
    assert "unfamiliar" in tab.stage_classes()
    tab.page.click("#reset")
    assert "unfamiliar" not in tab.stage_classes()


def test_what_happens_is_recorded_as_a_webm(tab, tmp_path):
    tab.page.click("#record")
    tab.drag("left wrist", 3, 3)
    tab.rest()
    with tab.page.expect_download() as download:
        tab.page.click("#record")
    download.value.save_as(tmp_path / "dancer.webm")
    assert (tmp_path / "dancer.webm").read_bytes()[:4] == b"\x1aE\xdf\xa3"  # of Matroska, which WebM is


def test_switches_show_and_hide(tab):
    tab.page.uncheck("#skeleton")
    assert not tab.page.get_by_role("button", name=re.compile("^nose:")).is_visible()
    tab.page.check("#smooth")
    rendering = "getComputedStyle(document.getElementById('picture')).imageRendering"
    assert tab.run(rendering) == "auto"


def test_memory_stays_the_same_over_2000_frames(tab):
    session, used = tab.page.context.new_cdp_session(tab.page), []
    for count in (200, 2000):
        paint = (
            "async (count) => { for (let i = 0; i < count; i++) await page.dancer.next(page.posePicture()); }"
        )
        tab.run(paint, count)
        session.send("HeapProfiler.collectGarbage")
        used.append(tab.run("performance.memory.usedJSHeapSize"))
    assert used[1] < used[0] + 3e6


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_narrow_screen(browser, built, color_scheme):
    size = {"width": 360, "height": 640}
    tab = Tab(browser, built.as_uri(), viewport=size, has_touch=True, color_scheme=color_scheme).ready()
    assert tab.run("document.documentElement.scrollWidth") <= 360
    background = tab.run("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", background)[0]) < 128) == (color_scheme == "dark")
    before = tab.run("page.places")
    handle = tab.page.get_by_role("button", name=re.compile("^right wrist:")).bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    touch = tab.page.context.new_cdp_session(tab.page)
    for kind, points in (("Start", [{"x": x, "y": y}]), ("Move", [{"x": x + 20, "y": y + 20}]), ("End", [])):
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    tab.wait("page.undoSteps.length > 0")
    assert tab.run("page.places") != before
    tab.page.close()


@pytest.mark.parametrize("part", ["network-step", "runtime-wasm", "starts"])
def test_damaged_page_says_so(browser, built, tmp_path, part):
    text = built.read_text()
    start = text.index(f'id="{part}">') + 2000
    other = "A" if text[start] != "A" else "B"
    (tmp_path / "page.html").write_text(text[:start] + other * 8 + text[start + 8 :])
    tab = Tab(browser, (tmp_path / "page.html").as_uri())
    tab.page.wait_for_selector("#status.error")
    assert "damaged" in tab.page.inner_text("#status")
    tab.page.close()


def test_page_that_is_cut_short_is_not_blank(browser, built, tmp_path):
    text = built.read_text()
    (tmp_path / "page.html").write_text(text[: len(text) // 2])
    tab = Tab(browser, (tmp_path / "page.html").as_uri())
    assert "damaged" in tab.page.inner_text("#status")
    tab.page.close()


def test_without_joints_motions_are_played_and_nothing_is_dragged(
    browser, person, runtime_folder, tmp_path, capsys
):
    data = tmp_path / "data"
    shutil.copytree(person / "data", data)
    (data / "poses.json").unlink()
    web_demo.main([str(person / "run" / "best.ckpt"), str(tmp_path / "page.html"), "--DR", str(data)])
    assert "nothing can be dragged" in capsys.readouterr().out
    tab = Tab(browser, (tmp_path / "page.html").as_uri()).ready()
    assert tab.page.get_by_role("button", name=re.compile("^nose:")).count() == 0
    tab.page.select_option("#rate", "2")
    tab.page.click("#play")
    tab.wait(f"page.clock.position >= {FRAMES - 1}")
    tab.rest()
    assert tab.complaints == []
    tab.page.close()


def test_z_has_a_control_where_it_changes_a_frame():
    sequence = Sequence("0", np.zeros((2, 8, 16, 3), np.uint8), np.zeros((8, 16, 3), np.uint8))
    flags = options.tester_args(
        ["--DR=d", "--save_root=r", "--ckpt=c", "--F_dim=8", "--L_dim=8", "--D_out_dim=8"]
    )
    torch.manual_seed(0)
    model = VAE_Model(flags)
    assert not web_demo.uses_z(model, sequence, flags)
    torch.nn.init.normal_(model.Decoder_Fusion.inject.weight)
    assert web_demo.uses_z(model, sequence, flags)


def test_slider_of_z_changes_z(tab):
    tab.run("document.getElementById('z-field').hidden = false")
    tab.page.fill("#z", "2")
    assert tab.run("Math.max(...page.dancer.z) > 0")
    tab.page.fill("#z", "0")
    assert tab.run("page.dancer.z.every((value) => value === 0)")


@pytest.mark.skipif(os.name == "nt", reason="a shell script takes the place of npm")
@pytest.mark.parametrize("npm", ["exit 1", "exit 0", None])
def test_runtime_that_cannot_be_fetched_takes_one_line(tmp_path, monkeypatch, npm):
    pytest.importorskip("onnx")
    from tools.web import runtime

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(runtime.sys, "executable", str(tmp_path / "python"))
    if npm:
        (tmp_path / "npm").write_text(f"#!/bin/sh\n{npm}\n")
        (tmp_path / "npm").chmod(0o755)
    reason = "cannot be fetched" if npm else "needs npm"
    with pytest.raises(UserError, match=f"{reason}.*--runtime FOLDER"):
        runtime.runtime_folder(None)


def test_wrong_arguments_take_one_line(person, runtime_folder, tmp_path, dataset):
    lab = [
        "--arch=lab",
        "--F_dim=8",
        "--L_dim=2",
        "--N_dim=4",
        "--D_out_dim=8",
        "--num_epoch=1",
        "--device=cpu",
    ]
    Trainer.main(["--DR", str(dataset), "--save_root", str(tmp_path / "lab"), *lab])
    ckpt, data = person / "run" / "best.ckpt", person / "data"
    (tmp_path / "ort.wasm.bundle.min.mjs").write_text("another")
    for arguments, word in (
        ([tmp_path / "lab" / "best.ckpt", tmp_path / "page.html", "--DR", dataset], "--arch unet"),
        ([tmp_path / "none.ckpt", tmp_path / "page.html", "--DR", data], "no such checkpoint"),
        ([ckpt, tmp_path / "page.html", "--DR", tmp_path / "nowhere"], "nowhere"),
        ([ckpt, tmp_path / "page.html", "--DR", data, "--runtime", tmp_path], "another file"),
        ([ckpt, tmp_path, "--DR", data], str(tmp_path)),
    ):
        assert_user_error(run_script("tools/web_demo.py", *arguments), word)
    assert not (tmp_path / "page.html").exists()
