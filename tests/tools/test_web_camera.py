"""The web demo with a camera: the browser plays a video of the synthetic person as its camera."""

import shutil
import time

import numpy as np
import pytest
from PIL import Image

from tests.helpers import assert_user_error, run_script
from tests.tools.web import Tab, launch
from tools import web_demo
from tools.synthetic.body import random_figure
from tools.synthetic.frames import pose_keypoints, render_frame, view_of
from tools.synthetic.skeleton import JOINTS
from tools.web import packages

WIDTH, HEIGHT = 640, 320
NECK, PELVIS, RIGHT_WRIST, LEFT_WRIST = (
    JOINTS.index(name) for name in ("neck", "pelvis", "r_wrist", "l_wrist")
)
FAKE_CAMERA, ALLOWED = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"


@pytest.fixture(scope="module")
def camera_page(person, npm_packages):
    out = person / "camera.html"
    web_demo.main([str(person / "run" / "best.ckpt"), str(out), "--camera", "--title", "Anna & Ben"])
    return out


@pytest.fixture(scope="module")
def figure():
    return random_figure(np.random.default_rng(5), 600, view_of(WIDTH, HEIGHT).half_range)


@pytest.fixture(scope="module")
def poses(figure):
    """Frames in which the person faces the camera: with both hands down, and with the right hand up."""
    keypoints = pose_keypoints(figure, WIDTH, HEIGHT)
    x, y = keypoints[..., 0], keypoints[..., 1]
    faces = x[:, JOINTS.index("l_shoulder")] - x[:, JOINTS.index("r_shoulder")] > 12
    length = y[:, PELVIS] - y[:, NECK]
    is_down = np.minimum(y[:, RIGHT_WRIST], y[:, LEFT_WRIST]) > y[:, PELVIS] - 0.2 * length
    is_up = (y[:, RIGHT_WRIST] < y[:, NECK]) & (y[:, LEFT_WRIST] > y[:, NECK] + 0.5 * length)
    return [int(np.flatnonzero(flags & faces)[0]) for flags in (is_down, is_up)]


@pytest.fixture(scope="module")
def images(figure, poses):
    return [render_frame(figure, frame, WIDTH, HEIGHT) for frame in poses]


def write_camera(path, *parts):
    """A video for the browser's fake camera, which plays it in a loop at 30 fps: images and their seconds."""
    with path.open("wb") as file:
        for image, seconds in parts:
            for _ in range(round(30 * seconds)):
                Image.fromarray(image).save(file, "JPEG", quality=92)
    return path


@pytest.fixture
def open_page(starter, camera_page):
    """`open_page(*flags, **settings)`: the page in a browser of its own."""
    browsers = []

    def open_page(*flags, **settings):
        browsers.append(launch(starter, *flags))
        return Tab(browsers[-1], camera_page.as_uri(), **settings).ready()

    yield open_page
    for browser in browsers:
        browser.close()


def status(tab):
    return tab.page.inner_text("#camera-status")


def wait_for(tab, text, seconds=40):
    end = time.monotonic() + seconds
    while text not in status(tab):
        assert time.monotonic() < end, f"{text!r} is not said; {status(tab)!r} is"
        tab.page.wait_for_timeout(20)


def test_person_follows_the_camera_until_it_is_stopped(open_page, images, tmp_path):
    down, up = images
    nobody = np.full_like(down, 90)
    video = write_camera(tmp_path / "camera.mjpeg", (down, 3.5), (up, 2), (nobody, 1.5))
    tab = open_page(FAKE_CAMERA, ALLOWED, f"--use-file-for-fake-video-capture={video}")
    assert tab.page.title() == "Anna & Ben"
    tab.page.select_option("#rate", "0.25")
    tab.page.click("#play")
    tab.page.click("#camera")
    wait_for(tab, "The person mirrors")
    tab.wait("page.poseTime !== null")
    assert not tab.run("page.clock.playing")
    raised, statuses = [], []
    for _ in range(90):
        tab.page.wait_for_timeout(100)
        points = tab.run("page.keypoints")
        # The person before the camera raises the right hand; in a mirror, that is the left hand.
        raised.append(points[LEFT_WRIST][1] < points[NECK][1])
        assert points[RIGHT_WRIST][1] > points[NECK][1]
        statuses.append(status(tab))
    assert 0.15 < np.mean(raised) < 0.75
    lost = [index for index, text in enumerate(statuses) if "Holding the last pose" in text]
    assert lost and any("mirrors your" in text for text in statuses[lost[0] :])
    assert "from camera to screen" in tab.page.inner_text("#speed")
    tab.run("Object.defineProperty(page, 'rate', { get: () => 3 })")
    wait_for(tab, "Only 3 frames per second")
    tab.page.click("#record")
    tab.page.wait_for_selector("#countdown:not([hidden])")
    tab.page.wait_for_timeout(4500)
    with tab.page.expect_download() as download:
        tab.page.click("#record")
    assert download.value.suggested_filename == "dance.webm"
    stream = tab.page.evaluate_handle("page.webcam.camera.stream.getVideoTracks()[0]")
    tab.page.click("#camera")
    assert stream.evaluate("track => track.readyState") == "ended"
    assert status(tab) == "The camera is off." and not tab.page.is_visible("#camera-view")
    before = tab.run("page.keypoints")
    tab.drag("left wrist", 2, 2)
    assert tab.run("page.keypoints") != before
    tab.page.click("#camera")
    wait_for(tab, "Stand upright")
    assert tab.messages == []
    assert not [url for url in tab.requests if not url.startswith(("data:", "blob:", "file:"))]


def test_upper_body_is_enough_and_the_legs_stay(open_page, figure, poses, images, tmp_path):
    x, y = pose_keypoints(figure, WIDTH, HEIGHT)[poses[0]].T
    left, top = int(x[NECK]) - 96, int(y[PELVIS]) - 5 - 108
    half = np.asarray(Image.fromarray(images[0]).crop((left, top, left + 192, top + 108)).resize((640, 360)))
    video = write_camera(tmp_path / "half.mjpeg", (half, 1))
    tab = open_page(FAKE_CAMERA, ALLOWED, f"--use-file-for-fake-video-capture={video}")
    tab.page.click("#camera")
    wait_for(tab, "Step back until your feet are in view")
    wait_for(tab, "The person mirrors")
    tab.wait("page.poseTime !== null")
    points = tab.run("page.keypoints")
    assert all(points[JOINTS.index(name)] for name in ("l_ankle", "r_knee", "pelvis", "neck"))
    assert points[JOINTS.index("l_ankle")][1] > points[PELVIS][1]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([FAKE_CAMERA, "--deny-permission-prompts"], "access was denied"),
        ([], "No camera was found."),
    ],
)
def test_no_camera_is_one_sentence(open_page, flags, sentence):
    tab = open_page(*flags)
    tab.page.click("#camera")
    assert_says_error(tab, sentence)


def test_other_failures_of_a_camera_are_one_sentence(open_page):
    tab = open_page()
    for name, sentence in (
        ("NotReadableError", "Another program may be using it"),
        ("OverconstrainedError", "no longer connected"),
        ("AbortError", "The camera cannot be opened (cable)."),
    ):
        failure = "(name) => { navigator.mediaDevices.getUserMedia = async () => {"
        tab.run(failure + "throw new DOMException('cable', name); }; }", name)
        tab.page.click("#camera")
        assert_says_error(tab, sentence)
    assert tab.messages == []


def assert_says_error(tab, sentence):
    wait_for(tab, sentence)
    assert "error" in tab.page.get_attribute("#camera-status", "class")
    assert tab.page.inner_text("#camera") == "Start camera" and tab.page.is_enabled("#play")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_of_three_cameras_is_chosen_on_a_narrow_screen(open_page, scheme):
    size = {"width": 360, "height": 640}
    flags = FAKE_CAMERA + "=device-count=3", ALLOWED
    tab = open_page(*flags, viewport=size, color_scheme=scheme)
    tab.page.click("#camera")
    wait_for(tab, "No person in view.")
    assert tab.page.locator("#camera-choice option").count() == 3
    assert tab.run("document.documentElement.scrollWidth") <= 360
    second = tab.run("document.getElementById('camera-choice').options[1].value")
    tab.page.select_option("#camera-choice", second)
    tab.wait("page.webcam.camera.isOpen && !document.getElementById('camera-controls').disabled")
    assert tab.run("page.webcam.camera.deviceId") == second
    assert tab.run("document.getElementById('camera-choice').value") == second


def test_two_minutes_later_nothing_was_sent(open_page):
    """Timers of the page, such as those of telemetry, run at once."""
    tab = open_page(FAKE_CAMERA, ALLOWED)
    tab.page.clock.install()
    tab.page.reload()
    tab.ready()
    tab.page.click("#camera")
    tab.page.clock.fast_forward("02:00")
    tab.page.wait_for_timeout(1000)
    assert not [url for url in tab.requests if not url.startswith(("data:", "blob:", "file:"))]


def test_landmarks_are_those_of_the_python_estimator(open_page, images, tmp_path):
    """From the same region."""
    pytest.importorskip("ai_edge_litert")
    from tools.poses import blazepose

    folder = packages.package_folder(packages.POSE, None)
    shutil.copy(folder / packages.DETECTOR, tmp_path / blazepose.DETECTOR)
    shutil.copy(folder / packages.LANDMARKS["lite"], tmp_path / blazepose.LANDMARKS)
    Image.fromarray(images[1]).save(tmp_path / "image.png")
    tab = open_page()
    script = """async (bytes) => {
        const { NetworkWorker } = await import('network');
        const networks = { 'pose-detector': 'detector', 'pose-landmarks': 'landmarks' };
        const worker = await NetworkWorker.start('blazepose', networks);
        const bitmap = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
        const image = new VideoFrame(bitmap, { timestamp: 0 });
        const first = await worker.ask({ image: image.clone(), seconds: 0 });
        return [first, await worker.ask({ image, seconds: 1 })];
    }"""
    first, second = tab.run(script, list((tmp_path / "image.png").read_bytes()))
    region = first["region"]
    region = blazepose.Region(np.array(region["center"]), region["side"], region["angle"])
    pose = blazepose.BlazePose(tmp_path).find_landmarks(Image.fromarray(images[1]), region)
    found = np.array(second["landmarks"])
    assert np.abs(found[:, :2] - pose.landmarks[:, :2]).max() < 0.05
    assert np.abs(found[:, 2] - pose.landmarks[:, 2]).max() < 0.001


def test_mistakes_are_one_line(person, npm_packages, tmp_path):
    data, ckpt = tmp_path / "data", person / "run" / "best.ckpt"
    shutil.copytree(person / "data", data)
    (data / "poses.json").unlink()
    done = run_script("tools/web_demo.py", ckpt, tmp_path / "page.html", "--DR", data, "--camera")
    assert_user_error(done, "--camera needs")
    (tmp_path / packages.DETECTOR).write_text("another")
    folder = ["--packages", tmp_path]
    done = run_script("tools/web_demo.py", ckpt, tmp_path / "page.html", "--camera", "huge", *folder)
    assert_user_error(done, "huge")
    assert not (tmp_path / "page.html").exists()
