"""The positions of all joints of the person over time."""

from dataclasses import dataclass

import numpy as np

from .curves import smooth
from .geometry import forward, rotated, rotation, unit
from .gestures import arm_directions
from .motion import choreograph
from .steps import plan_feet

# Lengths in metres; the person is 1.75 m tall.
THIGH, SHIN = 0.43, 0.42
UPPER_ARM, FOREARM, HAND = 0.285, 0.255, 0.15
HALF_HIPS, HALF_SHOULDERS = 0.088, 0.166
PELVIS_HEIGHT = 0.955  # when the person stands
ANKLE = np.array([0.0, 0.085, -0.12])  # from the ball of the foot, in the foot's own coordinates

_MIDDLE = ("pelvis", "neck", "head", "nose", "hair_tie", "ponytail", "ponytail_end")
_SIDE = (*("shoulder", "elbow", "wrist", "fingers", "hip", "knee", "ankle", "heel", "toe"), "eye", "ear")
JOINTS = (*_MIDDLE, *(f"{side}_{joint}" for side in "lr" for joint in _SIDE))
INDEX = {name: i for i, name in enumerate(JOINTS)}

# Parts of the head: from its middle, in its own coordinates.
HEAD_PARTS = {
    "nose": (0.0, -0.01, 0.105),
    "l_eye": (0.034, 0.022, 0.085),
    "r_eye": (-0.034, 0.022, 0.085),
    "l_ear": (0.078, 0.0, 0.0),
    "r_ear": (-0.078, 0.0, 0.0),
    "hair_tie": (0.0, 0.055, -0.105),
}


@dataclass
class Figure:
    """The person over time.

    joints: (T, J, 3) metres, in the order of `JOINTS`; pelvis, chest, head: (T, 3, 3) rotations.
    """

    joints: np.ndarray
    pelvis: np.ndarray
    chest: np.ndarray
    head: np.ndarray


def random_figure(rng, frames, half_range):
    """The `Figure` of a new random motion, which stays within `half_range` metres of the middle."""
    tracks = choreograph(rng, frames, half_range)
    feet = plan_feet(tracks.t, np.stack([tracks.x, tracks.z], -1), tracks.yaw, tracks.moves)
    joints = np.zeros((frames, len(JOINTS), 3))
    at = {name: joints[:, i] for name, i in INDEX.items()}
    # The shoulders turn against the hips and the arms swing against the legs.
    ahead = _right_foot_ahead(tracks, feet)
    pelvis = rotation(tracks.yaw, 0.25 * tracks.lean, -0.6 * tracks.roll)
    chest = rotation(tracks.yaw + tracks.twist - 0.22 * ahead, tracks.lean, tracks.roll)
    turn = tracks.yaw + 0.6 * tracks.twist + tracks.look
    head = rotation(turn, 0.35 * tracks.lean + tracks.nod, 0.4 * tracks.roll)
    # Raised heels turn about the ball of the foot.
    ankles = feet.ball + rotation(feet.yaw, feet.pitch, np.zeros_like(feet.pitch)) @ ANKLE
    at["pelvis"][:] = _pelvis_position(tracks, pelvis, ankles)
    ankles[:, :, 1] += feet.flight[:, None]
    _place_legs(at, pelvis, ankles, feet)
    _place_trunk(at, pelvis, chest, head)
    swing = 0.62 * ahead
    uppers, fores = arm_directions(tracks.t, np.stack([swing, -swing], -1), tracks.gestures)
    _place_arms(at, chest, uppers, fores)
    return Figure(joints, pelvis, chest, head)


def _right_foot_ahead(tracks, feet):
    """(T,) distance of the right foot in front of the left one, in strides of 0.55 m."""
    apart = feet.ball[:, 1] - feet.ball[:, 0]
    return smooth((apart[:, 0] * np.sin(tracks.yaw) + apart[:, 2] * np.cos(tracks.yaw)) / 0.55, 2.0)


def _pelvis_position(tracks, pelvis, ankles):
    """(T, 3) position of the pelvis: over the feet, as high as straight legs allow, plus the track's lift.

    ankles: (T, 2, 3) without the flight of a hop.
    """
    loads = smooth(ankles[:, 1, 1] - ankles[:, 0, 1], 3.0)
    position = np.stack([tracks.x, np.zeros_like(tracks.x), tracks.z], -1)
    position += 0.22 * np.clip(loads, -0.1, 0.1)[:, None] * pelvis[:, :, 0]
    position -= 0.28 * np.maximum(-tracks.lift, 0.0)[:, None] * forward(tracks.yaw)
    limits = [np.full(len(position), PELVIS_HEIGHT)]
    for foot, side in ((0, 1), (1, -1)):
        to_hip = _to_hip(pelvis, side)
        aside = np.hypot(*(position + to_hip - ankles[:, foot])[:, [0, 2]].T)
        height = np.sqrt(np.maximum((0.998 * (THIGH + SHIN)) ** 2 - aside**2, 0.04))
        limits.append(ankles[:, foot, 1] + height - to_hip[:, 1])
    # A soft minimum, so that the height has no kinks where another limit takes over.
    softness = 0.005
    lowest = np.min(limits, axis=0)
    excess = sum(np.exp((lowest - limit) / softness) for limit in limits)
    position[:, 1] = smooth(lowest - softness * np.log(excess), 1.0) + tracks.lift
    return position


def _to_hip(pelvis, side):
    """(T, 3) from the pelvis to a hip joint; side: 1 left, -1 right."""
    return side * HALF_HIPS * pelvis[:, :, 0] - 0.02 * pelvis[:, :, 1]


def _place_legs(at, pelvis, ankles, feet):
    for foot, (name, side) in enumerate((("l", 1), ("r", -1))):
        yaw, pitch = feet.yaw[:, foot], feet.pitch[:, foot]
        hip = at["pelvis"] + _to_hip(pelvis, side)
        # Knees point between hips and toes, a little outwards.
        pole = pelvis[:, :, 2] + forward(yaw) + 0.12 * side * pelvis[:, :, 0]
        knee, ankle = _bend(hip, ankles[:, foot], THIGH, SHIN, pole)
        at[f"{name}_hip"][:], at[f"{name}_knee"][:], at[f"{name}_ankle"][:] = hip, knee, ankle
        sole = rotation(yaw, pitch, np.zeros_like(yaw))
        ball = ankle - sole @ ANKLE
        at[f"{name}_heel"][:] = ball + sole @ np.array([0.0, 0.0, -0.16])
        # The shoe bends at the ball, so that the toe of a raised heel stays on the floor.
        tip_pitch = np.minimum(pitch, np.maximum(ball[:, 1], 0.0) / 0.075)
        tip = rotation(yaw, tip_pitch, np.zeros_like(yaw))
        at[f"{name}_toe"][:] = ball + tip @ np.array([0.0, 0.0, 0.075])


def _place_trunk(at, pelvis, chest, head):
    spine = unit(pelvis[:, :, 1] + 2 * chest[:, :, 1])
    at["neck"][:] = at["pelvis"] + 0.525 * spine
    base = at["neck"] + 0.022 * chest[:, :, 1] + 0.01 * chest[:, :, 2]
    at["head"][:] = base + head @ np.array([0.0, 0.115, 0.025])
    for name, offset in HEAD_PARTS.items():
        at[name][:] = at["head"] + head @ np.array(offset)
    # The hair hangs down and lags a little behind every movement.
    hanging = at["hair_tie"] + smooth(head @ np.array([0.0, -0.115, -0.075]), 3.0)
    at["ponytail"][:] = hanging - 1.2 * _bounded(_speed(smooth(at["hair_tie"], 2.0)), 0.035)
    at["ponytail_end"][:] = at["ponytail"] + np.array([0.0, -0.075, 0.0])
    at["ponytail_end"][:] -= 2.0 * _bounded(_speed(smooth(at["hair_tie"], 4.0)), 0.035)


def _place_arms(at, chest, uppers, fores):
    for arm, (name, side) in enumerate((("l", 1), ("r", -1))):
        mirror = np.array([side, 1.0, 1.0])
        # A raised arm lifts its shoulder.
        shrug = 0.03 * (1 + uppers[:, arm, 1:2]) * np.array([-0.6 * side, 1.0, 0.0])
        shoulder = np.array([side * HALF_SHOULDERS, -0.085, 0.0]) + shrug
        upper, fore = (rotated(chest, directions[:, arm] * mirror) for directions in (uppers, fores))
        at[f"{name}_shoulder"][:] = at["neck"] + rotated(chest, shoulder)
        at[f"{name}_elbow"][:] = at[f"{name}_shoulder"] + UPPER_ARM * upper
        at[f"{name}_wrist"][:] = at[f"{name}_elbow"] + FOREARM * fore
        at[f"{name}_fingers"][:] = at[f"{name}_wrist"] + HAND * fore


def _bend(root, tip, upper, lower, pole):
    """The middle joint, bent towards `pole`, and the reached tip of a limb of two bones; all (T, 3)."""
    reach = tip - root
    span = np.linalg.norm(reach, axis=-1, keepdims=True)
    along = reach / np.maximum(span, 1e-6)
    span = np.clip(span, 1.05 * abs(upper - lower) + 0.05, 0.999 * (upper + lower))
    side = unit(pole - np.sum(pole * along, -1, keepdims=True) * along)
    to_middle = (span**2 + upper**2 - lower**2) / (2 * span)
    middle = root + to_middle * along + np.sqrt(np.maximum(upper**2 - to_middle**2, 0.0)) * side
    return middle, root + span * along


def _speed(positions):
    """Movement per frame, (T, 3) metres."""
    return np.gradient(positions, axis=0) if len(positions) > 1 else np.zeros_like(positions)


def _bounded(vectors, limit):
    """Vectors smoothly shortened to less than `limit`."""
    return vectors / np.sqrt(1.0 + np.sum(vectors**2, -1, keepdims=True) / limit**2)
