"""The scripts of the page by themselves, in a real browser."""

import base64

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from image_cache import resized
from tools import pose_file
from tools.synthetic.frames import paint_places
from tools.synthetic.skeleton import JOINTS
from tools.web import document, motions


@pytest.fixture(scope="module")
def scripts(browser):
    """An empty page in which modules of the page's scripts are tried: `scripts(name, body, argument)`."""
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


def test_painter_paints_what_python_paints(scripts):
    rng = np.random.default_rng(0)
    for size, frame in (
        ((64, 32), (64, 32)),
        ((256, 128), (64, 32)),
        ((100, 60), (64, 32)),
        ((64, 48), (80, 60)),
    ):
        look = motions.look(pose_file.Poses(np.zeros((0, len(JOINTS), 2)), size, []), frame[::-1])["look"]
        places = rng.uniform(-0.1, 1.1, (len(JOINTS), 2)) * size
        places[3] = np.nan
        stored = [None if np.isnan(place).any() else place.tolist() for place in places]
        picture = scripts(
            "painter", "return [...module.paintPose(argument[0], argument[1])];", [stored, look]
        )
        expected = resized(Image.fromarray(paint_places(places, *size)), frame[::-1])
        painted = (np.array(picture).reshape(3, *frame[::-1]) * 255).round().transpose(1, 2, 0)
        assert np.abs(painted - expected).max() <= 1


def test_places_are_stored_exactly_enough_even_in_large_pictures_and_outside(scripts):
    places = np.random.default_rng(0).uniform(-200, 4300, (3, len(JOINTS), 2))
    places[1, 2] = np.nan
    unit = 4096 / motions.UNITS
    stored = motions._stored(places, unit)
    body = "return module.readPlaces(new Uint8Array(argument.bytes), argument.joints, argument.unit);"
    argument = {"bytes": list(stored.tobytes()), "joints": len(JOINTS), "unit": unit}
    read = scripts("motions", body, argument)
    assert read[1][2] is None
    read[1][2] = [np.nan, np.nan]
    np.testing.assert_allclose(np.array(read), places, atol=0.6 * unit)


@pytest.mark.parametrize("is_old", [False, True])
def test_base64_is_decoded_in_old_and_new_browsers(scripts, is_old):
    content = np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8).tobytes()
    body = """
        const kept = Uint8Array.fromBase64;
        if (argument.old) Uint8Array.fromBase64 = undefined;
        try { return [...module.decoded(argument.text)]; } finally { Uint8Array.fromBase64 = kept; }
    """
    argument = {"text": base64.b64encode(content).decode(), "old": is_old}
    assert bytes(scripts("network", body, argument)) == content


SKELETON = motions.look(None, (32, 64))
DRAG = """
    const skeleton = new module.Skeleton(...argument.skeleton);
    return skeleton.drag(argument.places, argument.joint, argument.target);
"""


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_dragging_keeps_the_length_of_every_bone(scripts, data):
    number = st.floats(0, 100, allow_nan=False)
    places = [[data.draw(number), data.draw(number)] for _ in JOINTS]
    drags = [
        [data.draw(st.integers(0, len(JOINTS) - 1)), [data.draw(number), data.draw(number)]] for _ in range(4)
    ]
    body = """
        const [joints, bones, drags] = [argument.joints, argument.bones, argument.drags];
        const skeleton = new module.Skeleton(joints, bones);
        let places = argument.places;
        const before = JSON.stringify(places);
        for (const [joint, target] of drags) places = skeleton.drag(places, joint, target);
        return [places, JSON.stringify(argument.places) === before];
    """
    argument = {"joints": JOINTS, "bones": SKELETON["look"]["bones"], "drags": drags, "places": places}
    after, is_kept = scripts("kinematics", body, argument)
    assert is_kept  # the former places are not changed

    def lengths(places):
        at = np.array(places)
        return [np.linalg.norm(at[bone["start"]] - at[bone["end"]]) for bone in SKELETON["look"]["bones"]]

    np.testing.assert_allclose(lengths(after), lengths(places), atol=1e-6)


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
    places = rng.uniform(10, 30, (len(JOINTS), 2)).tolist()
    argument = {
        "skeleton": [JOINTS, SKELETON["look"]["bones"]], "places": places,
        "joint": JOINTS.index(joint), "target": target,
    }  # fmt: skip
    after = scripts("kinematics", DRAG, argument)
    changed = {name for name, old, new in zip(JOINTS, places, after, strict=True) if old != new}
    assert changed == moved


def test_hand_reaches_a_target_that_is_near_enough(scripts):
    places = [[20.0, 20.0] for _ in JOINTS]
    for name, place in {"r_shoulder": [20, 20], "r_elbow": [25, 20], "r_wrist": [25, 25]}.items():
        places[JOINTS.index(name)] = place
    wrist = JOINTS.index("r_wrist")
    skeleton = [JOINTS, SKELETON["look"]["bones"]]
    for target, reached in (([20, 28], [20, 28]), ([20, 50], [20, 30])):
        argument = {"skeleton": skeleton, "places": places, "joint": wrist, "target": target}
        np.testing.assert_allclose(scripts("kinematics", DRAG, argument)[wrist], reached, atol=1e-6)
