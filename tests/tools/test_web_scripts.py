"""The scripts of the web demo, one by one, in a real browser."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from images import resized
from tools import pose_file
from tools.poses.joints import BLAZEPOSE
from tools.poses.retarget import retarget
from tools.synthetic.body import random_figure
from tools.synthetic.frames import draw_keypoints, pose_keypoints, view_of
from tools.synthetic.skeleton import JOINTS
from tools.web import document, motions, packages


@pytest.fixture(scope="module")
def scripts(browser):
    """`scripts(name, body, argument)` runs code with a script's module in an empty page."""
    blank = browser.new_page()

    def call(name, body, argument=None):
        text = (document.FOLDER / f"{name}.js").read_text()
        return blank.evaluate(
            "async ([text, body, argument]) => {"
            " const address = URL.createObjectURL(new Blob([text], {type: 'text/javascript'}));"
            " const module = await import(address);"
            " return new Function('module', 'argument', body)(module, argument); }",
            [text, body, argument],
        )

    return call


@pytest.mark.parametrize(
    ("size", "frame"),
    [((64, 32), (64, 32)), ((256, 128), (64, 32)), ((100, 60), (64, 32)), ((64, 48), (80, 60))],
)
def test_poses_are_rendered_as_in_python(scripts, size, frame):
    poses = pose_file.Poses(np.zeros((0, len(JOINTS), 2)), size, [])
    style = motions.drawing_style(poses, frame[::-1])["style"]
    keypoints = np.random.default_rng(0).uniform(-0.1, 1.1, (len(JOINTS), 2)) * size
    keypoints[3] = np.nan
    plain = [None if np.isnan(point).any() else point.tolist() for point in keypoints]
    rendered = scripts("renderer", "return [...module.renderPose(...argument)];", [plain, style])
    expected = resized(Image.fromarray(draw_keypoints(keypoints, *size)), frame[::-1])
    image = (np.array(rendered).reshape(3, *frame[::-1]) * 255).round().transpose(1, 2, 0)
    assert np.abs(image - expected).max() <= 1


def test_keypoints_in_16_bits_are_exact_enough_even_in_large_images_and_outside(scripts):
    keypoints = np.random.default_rng(0).uniform(-200, 4300, (3, len(JOINTS), 2))
    keypoints[1, 2] = np.nan
    unit = 4096 / motions.UNITS
    body = "return module.readKeypoints(new Uint8Array(argument.bytes), argument.joints, argument.unit);"
    content = list(motions._to_int16(keypoints, unit).tobytes())
    read = scripts("motions", body, {"bytes": content, "joints": len(JOINTS), "unit": unit})
    assert read[1][2] is None
    read[1][2] = [np.nan, np.nan]
    np.testing.assert_allclose(np.array(read), keypoints, atol=0.6 * unit)


BONES = motions.drawing_style(None, (32, 64))["style"]["bones"]
DRAG = """
    const skeleton = new module.Skeleton(...argument.skeleton);
    return skeleton.drag(argument.keypoints, argument.joint, argument.target);
"""


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_dragging_keeps_the_length_of_every_bone(scripts, data):
    number = st.floats(0, 100, allow_nan=False)
    keypoints = [[data.draw(number), data.draw(number)] for _ in JOINTS]
    drags = [
        [data.draw(st.integers(0, len(JOINTS) - 1)), [data.draw(number), data.draw(number)]] for _ in range(4)
    ]
    body = """
        const [joints, bones, drags] = [argument.joints, argument.bones, argument.drags];
        const skeleton = new module.Skeleton(joints, bones);
        let keypoints = argument.keypoints;
        const before = JSON.stringify(keypoints);
        for (const [joint, target] of drags) keypoints = skeleton.drag(keypoints, joint, target);
        return [keypoints, JSON.stringify(argument.keypoints) === before];
    """
    argument = {"joints": JOINTS, "bones": BONES, "drags": drags, "keypoints": keypoints}
    after, is_unchanged = scripts("kinematics", body, argument)
    assert is_unchanged

    def lengths(keypoints):
        at = np.array(keypoints)
        return [np.linalg.norm(at[bone["start"]] - at[bone["end"]]) for bone in BONES]

    np.testing.assert_allclose(lengths(after), lengths(keypoints), atol=1e-6)


@pytest.mark.parametrize(
    ("joint", "target", "moved"),
    [
        ("r_wrist", (12.0, 8.0), {"r_elbow", "r_wrist"}),
        ("l_ankle", (22.0, 40.0), {"l_knee", "l_ankle", "l_toe"}),
        ("l_elbow", (30.0, 10.0), {"l_elbow", "l_wrist"}),
        ("pelvis", (25.0, 35.0), set(JOINTS)),
    ],
)
def test_limb_follows_a_dragged_joint_and_the_rest_stays(scripts, joint, target, moved):
    rng = np.random.default_rng(1)
    keypoints = rng.uniform(10, 30, (len(JOINTS), 2)).tolist()
    argument = {
        "skeleton": [JOINTS, BONES], "keypoints": keypoints,
        "joint": JOINTS.index(joint), "target": target,
    }  # fmt: skip
    after = scripts("kinematics", DRAG, argument)
    changed = {name for name, old, new in zip(JOINTS, keypoints, after, strict=True) if old != new}
    assert changed == moved


def test_hand_reaches_a_target_that_is_near_enough(scripts):
    keypoints = [[20.0, 20.0] for _ in JOINTS]
    for name, point in {"r_shoulder": [20, 20], "r_elbow": [25, 20], "r_wrist": [25, 25]}.items():
        keypoints[JOINTS.index(name)] = point
    wrist = JOINTS.index("r_wrist")
    skeleton = [JOINTS, BONES]
    for target, reached in (([20, 28], [20, 28]), ([20, 50], [20, 30])):
        argument = {"skeleton": skeleton, "keypoints": keypoints, "joint": wrist, "target": target}
        np.testing.assert_allclose(scripts("kinematics", DRAG, argument)[wrist], reached, atol=1e-6)


KINEMATICS = (document.FOLDER / "kinematics.js").read_text().replace("export ", "")
SKELETON = f"const Skeleton = (() => {{ {KINEMATICS}; return Skeleton; }})();"


def plain(keypoints):
    """Keypoints `(T, J, 2)` as the page has them."""
    return [[None if np.isnan(point).any() else point.tolist() for point in pose] for pose in keypoints]


def recorded(seed, size, frames=90):
    """A sequence of the synthetic person, `(T, J, 2)`."""
    figure = random_figure(np.random.default_rng(seed), frames, view_of(*size).half_range)
    return pose_keypoints(figure, *size)


def without(keypoints, *patterns):
    """Joints whose names have one of some parts are unknown."""
    keypoints = keypoints.copy()
    keypoints[:, [any(part in name for part in patterns) for name in JOINTS]] = np.nan
    return keypoints


def with_gaps(keypoints):
    is_known = np.random.default_rng(0).random(keypoints.shape[:2]) < 0.85
    return np.where(is_known[..., None], keypoints, np.nan)


@pytest.mark.parametrize(
    "change",
    [
        lambda keypoints: keypoints,
        with_gaps,
        lambda keypoints: keypoints * (1.3, 0.8) + (900, -40),
        lambda keypoints: without(keypoints, "knee", "ankle", "toe"),
        lambda keypoints: without(keypoints, "hip", "pelvis", "knee", "ankle", "toe"),
    ],
    ids=["whole", "gaps", "another body", "no legs", "no hips"],
)
@pytest.mark.parametrize("target_joints", [(), ("eye", "ear"), ("ankle", "toe")])
def test_retargeting_is_that_of_reenactment(scripts, change, target_joints):
    target, own = recorded(1, (64, 32)), change(recorded(2, (1280, 720)))
    target = without(target, *target_joints)
    expected = retarget(own, target)
    body = """
        const [joints, bones, target, own] = argument;
        const retargeting = new module.Retargeting(new Skeleton(joints, bones), target, own);
        return own.map((pose) => retargeting.apply(pose));
    """
    result = scripts("retarget", SKELETON + body, [JOINTS, BONES, plain(target), plain(own)])
    blank = [[None] * len(JOINTS)]
    found = np.array([[point or (np.nan, np.nan) for point in pose or blank[0]] for pose in result], float)
    np.testing.assert_allclose(found, expected, atol=1e-6)


LIVE = """
    const skeleton = new Skeleton(argument.joints, argument.bones);
    const live = new module.LivePose(skeleton, argument.landmarks, 0.2);
    const size = { width: 640, height: 480 };
    return argument.frames.map(([landmarks, seconds]) => live.next(landmarks, size, 400, seconds));
"""


@pytest.fixture
def live_pose(scripts):
    """`live_pose(frames)`: what LivePose finds in landmarks `(33, 3)` and seconds, one after another."""
    argument = {"joints": JOINTS, "bones": BONES, "landmarks": [BLAZEPOSE.get(joint, ()) for joint in JOINTS]}

    def call(frames):
        rows = [[landmarks.tolist(), seconds] for landmarks, seconds in frames]
        return scripts("live_pose", SKELETON + LIVE, argument | {"frames": rows})

    return call


def body_before_the_camera():
    landmarks = np.random.default_rng(3).uniform(100, 380, (33, 3))
    landmarks[:, 2] = 0.9
    return landmarks


def test_joints_of_the_camera_are_mirrored_smoothed_and_held(live_pose):
    landmarks = body_before_the_camera()
    (first,) = live_pose([(landmarks, 0.0)])
    left_wrist = landmarks[15, :2]
    np.testing.assert_allclose(first[JOINTS.index("r_wrist")], (640 - left_wrist[0], left_wrist[1]))
    below = landmarks.copy()
    below[[23, 24, 25, 27], 1] = 500  # hips, a knee and an ankle below the picture
    below[:, 0] += 10
    hidden = landmarks.copy()
    hidden[11, 2] = 0.1  # a shoulder, and so the neck
    poses = live_pose([(landmarks, 0.0), (below, 0.1), (hidden, 0.2)])
    assert poses[2] is None
    moved = np.subtract(poses[1][JOINTS.index("neck")], first[JOINTS.index("neck")])
    assert -10 < moved[0] < -1
    held = np.subtract(poses[1][JOINTS.index("pelvis")], first[JOINTS.index("pelvis")])
    np.testing.assert_allclose(held, moved, atol=1e-6)


def test_smoothing_calms_a_still_body_and_follows_a_fast_one(live_pose):
    landmarks, rng = body_before_the_camera(), np.random.default_rng(0)
    nose = JOINTS.index("nose")

    def track(offsets):
        frames = [(np.add(landmarks, (offset, 0, 0)), index / 30) for index, offset in enumerate(offsets)]
        return 640 - landmarks[0, 0] - np.array([pose[nose][0] for pose in live_pose(frames)])

    noise = rng.normal(0, 8, 90)
    assert track(noise)[30:].std() < 0.5 * noise[30:].std()
    motion = np.linspace(0, 200, 20)  # 0.75 body heights per second
    assert motion[-1] - track(motion)[-1] < 25


def test_networks_of_the_pose_are_those_of_tensorflow_lite(npm_packages):
    """The smallest differences are of float32."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    from onnx.reference import ReferenceEvaluator

    folder = packages.package_folder(packages.POSE, None)
    network = interpreter.Interpreter(str(folder / packages.LANDMARKS["lite"]))
    network.allocate_tensors()
    image = np.random.default_rng(0).random((1, 256, 256, 3), np.float32)
    network.set_tensor(network.get_input_details()[0]["index"], image)
    network.invoke()
    outputs = {entry["name"]: network.get_tensor(entry["index"]) for entry in network.get_output_details()}
    from tools.web import pose_networks

    graph = pose_networks.load("lite", None)["pose-landmarks"]
    landmarks, score = ReferenceEvaluator(graph).run(
        ["landmarks", "score"], {"input": image.transpose(0, 3, 1, 2)}
    )
    np.testing.assert_allclose(landmarks, outputs["Identity"], atol=0.02)
    np.testing.assert_allclose(score, outputs["Identity_1"], atol=1e-4)
