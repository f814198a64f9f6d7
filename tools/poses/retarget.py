"""Motion retargeting: the poses of one person with the bone lengths, place and range of another."""

import numpy as np

from runtime.cli import UserError
from tools.synthetic.skeleton import BONES, JOINTS

EDGES = [(JOINTS.index(start), JOINTS.index(end)) for start, end, _ in BONES]
ROOTS = [JOINTS.index(name) for name in ("pelvis", "neck", "nose")]  # the first visible one is the root
TRUNK = [JOINTS.index(name) for name in ("neck", "l_shoulder", "r_shoulder", "pelvis", "l_hip", "r_hip")]
FEET = [JOINTS.index(name) for name in ("l_ankle", "r_ankle", "l_toe", "r_toe")]
RANGE = (5, 95)  # percentiles over time of a person's position
LENGTH = 90  # percentile over time of a bone's length in the image: sometimes it is not foreshortened
MIN_SEEN = 0.1  # of the frames, for a joint to count as seen


def is_seen(keypoints: np.ndarray) -> np.ndarray:
    """Which joints are seen in enough frames of `(T, J, 2)`: `(J,)`."""
    is_known = ~np.isnan(keypoints[..., 0])
    return is_known[is_known.any(axis=1)].mean(axis=0) >= MIN_SEEN if is_known.any() else is_known.any(axis=0)


def bone_lengths(keypoints: np.ndarray) -> np.ndarray:
    """The length of each of `BONES` by keypoints `(T, J, 2)`; NaN where a bone is never seen."""
    starts, ends = np.array(EDGES).T
    lengths = np.linalg.norm(keypoints[:, ends] - keypoints[:, starts], axis=-1)
    seen = ~np.isnan(lengths).all(axis=0)
    result = np.full(len(EDGES), np.nan)
    result[seen] = np.nanpercentile(lengths[:, seen], LENGTH, axis=0)
    return result


def retarget(keypoints: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Adapt one person's poses to the target person's body.

    Each bone keeps its direction and foreshortening, and gets the length of the target's bone. One zoom for
    all frames, from the bones that both show, scales the motion of the feet, and a shift puts the lowest foot
    on the target's floor; without feet, the hips, neck or nose are as high as the target's. The range of
    horizontal positions is centered on the target's, and narrowed if it is wider. The body never leaves the
    image at the top, or the target's range below and sideways. Joints that the person never shows, and the
    trunk where it is unknown, keep their usual place on the target's body. Joints that the target never shows
    are left out. The page with a camera follows the same rules (tools/web/retarget.js).

    Args:
        keypoints: `(T, J, 2)`, in any pixels, NaN where unknown.
        target: keypoints of the target person, in pixels of their images.

    Returns:
        `(T, J, 2)` in pixels of the target's images.

    Raises:
        UserError: no bone is visible in both.
    """
    keypoints = np.where(is_seen(keypoints)[:, None], keypoints, np.nan)
    own, other = bone_lengths(keypoints), bone_lengths(target)
    shared = ~np.isnan(own + other) & (own > 0)
    if not shared.any():
        shown = (", ".join(np.array(JOINTS)[is_seen(points)]) or "nothing" for points in (keypoints, target))
        raise UserError(
            "no bone is visible in both: the driver shows {}; the trained person shows {}".format(*shown)
        )
    zoom = other[shared].sum() / own[shared].sum()
    result = _lay_out(keypoints, target, zoom, np.where(own > 0, other / np.where(own > 0, own, 1), zoom))
    result += _foot_offsets(result, zoom * keypoints)
    result += _position_offsets(result, target)
    return result + _limits(result, target)


def missing_joints(keypoints: np.ndarray, target: np.ndarray) -> list[str]:
    """The joints that the target person shows and the other person does not."""
    return [JOINTS[joint] for joint in np.flatnonzero(is_seen(target) & ~is_seen(keypoints))]


def _lay_out(keypoints: np.ndarray, target: np.ndarray, zoom: float, ratios: np.ndarray) -> np.ndarray:
    """The poses with other bone lengths, `ratios` of their own; in each frame from its first root."""
    is_drawn = is_seen(target)
    filled = missing_joints(keypoints, target)
    result = np.full_like(keypoints, np.nan)
    for root in ROOTS:
        rows = np.isnan(result).all(axis=(1, 2)) & ~np.isnan(keypoints[:, root, 0]) & is_drawn[root]
        result[rows, root] = zoom * keypoints[rows, root]
        for parent, child, bone in _tree(root):
            step = ratios[bone] * (keypoints[rows, child] - keypoints[rows, parent])
            if JOINTS[child] in filled or (is_drawn[child] and child in TRUNK):
                usual = target[:, child] - target[:, parent]
                usual = np.median(usual[~np.isnan(usual[:, 0])] if is_drawn[parent] else usual, axis=0)
                step = np.where(np.isnan(step), usual, step)
            result[rows, child] = result[rows, parent] + step
    return result


def _tree(root: int) -> list[tuple[int, int, int]]:
    """Each bone as parent, child and index, from a root outwards."""
    tree, reached = [], {root}
    while len(tree) < len(EDGES):
        for bone, (start, end) in enumerate(EDGES):
            parent, child = (start, end) if start in reached else (end, start)
            if parent in reached and child not in reached:
                tree.append((parent, child, bone))
                reached.add(child)
    return tree


def _foot_offsets(result: np.ndarray, zoomed: np.ndarray) -> np.ndarray:
    """Offsets `(T, 1, 2)` that put the lowest foot of each frame where it was."""
    offsets = np.zeros((len(result), 1, 2))
    for frame, (now, before) in enumerate(zip(result, zoomed, strict=True)):
        if not np.isnan(before[FEET, 1]).all() and not np.isnan(now[FEET, 1]).all():
            foot = FEET[int(np.nanargmax(before[FEET, 1]))]
            offset = before[foot] - now[foot]
            offsets[frame, 0] = offset if not np.isnan(offset).any() else 0
    return offsets


def _position_offsets(result: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Offsets `(T, 1, 2)` to the target's height in the image, and to their range of horizontal positions."""
    seen = is_seen(result) & is_seen(target)
    root = _common_root(result, target)
    offsets = np.zeros((len(result), 1, 2))
    level = FEET if seen[FEET].any() else [root]
    offsets[..., 1] = _height(target, level) - _height(result, level)
    x = result[:, root, 0]
    (left, right), (own_left, own_right) = (
        np.nanpercentile(keypoints[:, root, 0], RANGE) for keypoints in (target, result)
    )
    narrowing = min(1.0, (right - left) / max(own_right - own_left, 1e-6))
    new_x = (left + right) / 2 + narrowing * (x - (own_left + own_right) / 2)
    offsets[:, 0, 0] = np.nan_to_num(new_x - x, nan=np.nanmedian(new_x - x))
    return offsets


def _limits(result: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Offsets `(T, 1, 2)` that move bodies back into the image and the target's range."""
    offsets = np.zeros((len(result), 1, 2))
    known = ~np.isnan(result[..., 1]).all(axis=1)
    top, bottom = (extreme(result[known, :, 1], axis=1) for extreme in (np.nanmin, np.nanmax))
    room = np.nanmax(target[..., 1]) - bottom
    offsets[known, 0, 1] = np.minimum((-top).clip(min=0), room.clip(min=0)) + np.minimum(room, 0)
    root = _common_root(result, target)
    x, target_x = result[:, root, 0], target[:, root, 0]
    offsets[:, 0, 0] = np.nan_to_num(x.clip(np.nanmin(target_x), np.nanmax(target_x)) - x)
    return offsets


def _common_root(result: np.ndarray, target: np.ndarray) -> int:
    seen = is_seen(result) & is_seen(target)
    return next(joint for joint in ROOTS if seen[joint])


def _height(keypoints: np.ndarray, level: list[int]) -> float:
    """The median over time of the lowest of some joints, in y."""
    y = keypoints[:, level, 1]
    known = ~np.isnan(y).all(axis=1)
    return float(np.median(np.nanmax(y[known], axis=1)))
