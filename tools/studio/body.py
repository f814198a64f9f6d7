"""From motion to bones: the place of every joint of the person over time."""

from dataclasses import dataclass

import numpy as np

from .curves import smooth
from .gestures import arm_directions
from .motion import choreograph
from .steps import plan_feet

THIGH, SHIN = 0.43, 0.42  # m; the person is 1.75 m tall
UPPER_ARM, FOREARM, HAND = 0.285, 0.255, 0.15
ANKLE = np.array([0.0, 0.085, -0.12])  # from the ball of the foot, in the frame of the foot
HIP_REST = 0.955  # standing at ease
HALF_HIPS, HALF_SHOULDERS = 0.088, 0.166

JOINTS = (
    *("pelvis", "neck", "head", "nose", "tie", "tail", "tail_end"),
    *(
        "l_shoulder",
        "l_elbow",
        "l_wrist",
        "l_fingers",
        "l_hip",
        "l_knee",
        "l_ankle",
        "l_heel",
        "l_toe",
    ),
    *(
        "r_shoulder",
        "r_elbow",
        "r_wrist",
        "r_fingers",
        "r_hip",
        "r_knee",
        "r_ankle",
        "r_heel",
        "r_toe",
    ),
    *("l_eye", "l_ear", "r_eye", "r_ear"),
)
INDEX = {name: i for i, name in enumerate(JOINTS)}


@dataclass
class Figure:
    """The person over time: joints (T, J, 3) in metres, and the frames (T, 3, 3) of pelvis, chest and
    head, whose columns are the body's own left, up and forward."""

    joints: np.ndarray
    pelvis: np.ndarray
    chest: np.ndarray
    head: np.ndarray

    def part(self, start, stop):
        """The same person in frames `start..stop - 1`."""
        return Figure(*(a[start:stop] for a in (self.joints, self.pelvis, self.chest, self.head)))


def make_take(rng, frames, half_range):
    """The `Figure` of a new random take; `half_range` in metres is how far it strays sideways."""
    return _embody(choreograph(rng, frames, half_range))


def _embody(tracks):
    pelvis = _rotation(tracks.yaw, 0.25 * tracks.lean, -0.6 * tracks.roll)
    feet = plan_feet(tracks.t, np.stack([tracks.x, tracks.z], -1), tracks.yaw, tracks.moves)
    joints = np.zeros((len(tracks.t), len(JOINTS), 3))
    at = {name: joints[:, i] for name, i in INDEX.items()}
    ahead = _feet_ahead(tracks, feet)
    # Shoulders turn against the hips and the arms swing against the legs.
    chest = _rotation(tracks.yaw + tracks.twist - 0.22 * ahead, tracks.lean, tracks.roll)
    turn = tracks.yaw + 0.6 * tracks.twist + tracks.look
    head = _rotation(turn, 0.35 * tracks.lean + tracks.nod, 0.4 * tracks.roll)
    ankles = _ankles(feet)
    at["pelvis"][:] = _pelvis(tracks, pelvis, ankles)
    ankles[:, :, 1] += feet.flight[:, None]
    _place_legs(at, pelvis, ankles, feet)
    _place_trunk(at, pelvis, chest, head)
    swing = 0.62 * ahead
    uppers, fores = arm_directions(tracks.t, np.stack([swing, -swing], -1), tracks.gestures)
    _place_arms(at, chest, uppers, fores)
    return Figure(joints, pelvis, chest, head)


def _feet_ahead(tracks, feet):
    """(T,) how far the right foot is in front of the left one, in strides of half a metre."""
    apart = feet.ball[:, 1] - feet.ball[:, 0]
    return smooth((apart[:, 0] * np.sin(tracks.yaw) + apart[:, 2] * np.cos(tracks.yaw)) / 0.55, 2.0)


def _ankles(feet):
    """(T, 2, 3) ankles without the flight; raised heels turn about the ball of the foot."""
    frames = _rotation(feet.yaw, feet.pitch, np.zeros_like(feet.pitch))
    return feet.ball + frames @ ANKLE


def _pelvis(tracks, frame, ankles):
    """(T, 3) the pelvis: over the feet, as high as straight legs allow, and lower when bending."""
    loads = smooth(ankles[:, 1, 1] - ankles[:, 0, 1], 3.0)
    place = np.stack([tracks.x, np.zeros_like(tracks.x), tracks.z], -1)
    place += 0.22 * np.clip(loads, -0.1, 0.1)[:, None] * frame[:, :, 0]
    place -= 0.28 * np.maximum(-tracks.lift, 0.0)[:, None] * _forward(tracks.yaw)
    reach = [np.full(len(place), HIP_REST)]
    for foot, side in ((0, 1), (1, -1)):
        hip = place + _hip(frame, side)
        aside = np.hypot(*(hip - ankles[:, foot])[:, [0, 2]].T)
        height = np.sqrt(np.maximum((0.998 * (THIGH + SHIN)) ** 2 - aside**2, 0.04))
        reach.append(ankles[:, foot, 1] + height - _hip(frame, side)[:, 1])
    softness = 0.005
    lowest = np.min(reach, axis=0)
    excess = sum(np.exp((lowest - r) / softness) for r in reach)
    place[:, 1] = smooth(lowest - softness * np.log(excess), 1.0) + tracks.lift
    return place


def _hip(frame, side):
    """(T, 3) from the pelvis to a hip joint."""
    return side * HALF_HIPS * frame[:, :, 0] - 0.02 * frame[:, :, 1]


def _place_legs(at, frame, ankles, feet):
    left, forward = frame[:, :, 0], frame[:, :, 2]
    for foot, (name, side) in enumerate((("l", 1), ("r", -1))):
        hip = at["pelvis"] + _hip(frame, side)
        # Knees point between hips and toes, a little outwards.
        pole = forward + _forward(feet.yaw[:, foot]) + 0.12 * side * left
        knee, ankle = _bend(hip, ankles[:, foot], THIGH, SHIN, pole)
        foot_frame = _rotation(feet.yaw[:, foot], feet.pitch[:, foot], np.zeros(len(pole)))
        ball = ankle - foot_frame @ ANKLE
        at[f"{name}_hip"][:], at[f"{name}_knee"][:], at[f"{name}_ankle"][:] = hip, knee, ankle
        at[f"{name}_heel"][:] = ball + foot_frame @ np.array([0.0, 0.0, -0.16])
        # The shoe bends at the ball, so that the toe of a raised heel stays on the floor.
        tip = np.minimum(feet.pitch[:, foot], np.maximum(ball[:, 1], 0.0) / 0.075)
        toe_frame = _rotation(feet.yaw[:, foot], tip, np.zeros(len(pole)))
        at[f"{name}_toe"][:] = ball + toe_frame @ np.array([0.0, 0.0, 0.075])


def _place_trunk(at, pelvis, chest, head):
    spine = _unit(pelvis[:, :, 1] + 2 * chest[:, :, 1])
    at["neck"][:] = at["pelvis"] + 0.525 * spine
    base = at["neck"] + 0.022 * chest[:, :, 1] + 0.01 * chest[:, :, 2]
    at["head"][:] = base + head @ np.array([0.0, 0.115, 0.025])
    spots = {
        "nose": (0.0, -0.01, 0.105),
        "l_eye": (0.034, 0.022, 0.085),
        "r_eye": (-0.034, 0.022, 0.085),
        "l_ear": (0.078, 0.0, 0.0),
        "r_ear": (-0.078, 0.0, 0.0),
        "tie": (0.0, 0.055, -0.105),
    }
    for name, spot in spots.items():
        at[name][:] = at["head"] + head @ np.array(spot)
    # Hair hangs down from the tie and is left behind a little by every movement.
    hanging = at["tie"] + smooth(head @ np.array([0.0, -0.115, -0.075]), 3.0)
    at["tail"][:] = hanging - 1.2 * _bounded(_speed(smooth(at["tie"], 2.0)), 0.035)
    at["tail_end"][:] = at["tail"] + np.array([0.0, -0.075, 0.0])
    at["tail_end"][:] -= 2.0 * _bounded(_speed(smooth(at["tie"], 4.0)), 0.035)


def _place_arms(at, chest, uppers, fores):
    for arm, (name, side) in enumerate((("l", 1), ("r", -1))):
        mirror = np.array([side, 1.0, 1.0])
        # A raised arm takes its shoulder along.
        shrug = 0.03 * (1 + uppers[:, arm, 1:2]) * np.array([-0.6 * side, 1.0, 0.0])
        shoulder = np.array([side * HALF_SHOULDERS, -0.085, 0.0]) + shrug
        fore = _turned(chest, fores[:, arm] * mirror)
        at[f"{name}_shoulder"][:] = at["neck"] + _turned(chest, shoulder)
        upper = _turned(chest, uppers[:, arm] * mirror)
        at[f"{name}_elbow"][:] = at[f"{name}_shoulder"] + UPPER_ARM * upper
        at[f"{name}_wrist"][:] = at[f"{name}_elbow"] + FOREARM * fore
        at[f"{name}_fingers"][:] = at[f"{name}_wrist"] + HAND * fore


def _bend(root, tip, upper, lower, pole):
    """Middle joint and reached tip of a two-bone limb that bends towards `pole`; all (T, 3)."""
    reach = tip - root
    span = np.linalg.norm(reach, axis=-1, keepdims=True)
    along = reach / np.maximum(span, 1e-6)
    span = np.clip(span, 1.05 * abs(upper - lower) + 0.05, 0.999 * (upper + lower))
    side = _unit(pole - np.sum(pole * along, -1, keepdims=True) * along)
    fore = (span**2 + upper**2 - lower**2) / (2 * span)
    middle = root + fore * along + np.sqrt(np.maximum(upper**2 - fore**2, 0.0)) * side
    return middle, root + span * along


def _rotation(yaw, pitch, roll):
    """(..., 3, 3) frames turned by yaw about up, then pitch (forwards), then roll (to the body's right,
    when positive, its left side up)."""
    zero, one = np.zeros_like(yaw), np.ones_like(yaw)

    def stack(*rows):
        return np.stack([np.stack(row, -1) for row in rows], -2)

    cy, sy, cp, sp, cr, sr = *_cos_sin(yaw), *_cos_sin(pitch), *_cos_sin(roll)
    about_up = stack((cy, zero, sy), (zero, one, zero), (-sy, zero, cy))
    about_left = stack((one, zero, zero), (zero, cp, -sp), (zero, sp, cp))
    about_forward = stack((cr, -sr, zero), (sr, cr, zero), (zero, zero, one))
    return about_up @ about_left @ about_forward


def _cos_sin(angle):
    return np.cos(angle), np.sin(angle)


def _forward(yaw):
    return np.stack([np.sin(yaw), np.zeros_like(yaw), np.cos(yaw)], -1)


def _turned(frames, vectors):
    return np.einsum("tij,tj->ti", frames, vectors)


def _unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def _speed(places):
    """Movement a frame, (T, 3) metres."""
    return np.gradient(places, axis=0) if len(places) > 1 else np.zeros_like(places)


def _bounded(vectors, limit):
    """Vectors of any length squeezed under `limit`, smoothly."""
    return vectors / np.sqrt(1.0 + np.sum(vectors**2, -1, keepdims=True) / limit**2)
