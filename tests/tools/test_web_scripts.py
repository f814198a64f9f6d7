"""The scripts of the web demo, one by one, in a real browser."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from images import resized
from tools import pose_file
from tools.synthetic.frames import draw_keypoints
from tools.synthetic.skeleton import JOINTS
from tools.web import document, motions


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
