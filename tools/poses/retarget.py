"""Motion retargeting: the poses of one person with the bone lengths, floor and range of another."""

import numpy as np

from tools.synthetic.skeleton import BONES, JOINTS

ROOT = JOINTS.index("pelvis")
FEET = [JOINTS.index(name) for name in ("l_ankle", "r_ankle", "l_toe", "r_toe")]
RANGE = (5, 95)  # percentiles over time of a person's position
LENGTH = 90  # percentile over time of a bone's length in the image: sometimes it is not foreshortened


def _tree() -> list[tuple[int, int]]:
    """The bones as (parent, child), from the pelvis outwards."""
    edges = [(JOINTS.index(start), JOINTS.index(end)) for start, end, _ in BONES]
    tree, reached = [], {ROOT}
    while len(tree) < len(edges):
        for start, end in edges:
            parent, child = (start, end) if start in reached else (end, start)
            if parent in reached and child not in reached:
                tree.append((parent, child))
                reached.add(child)
    return tree


TREE = _tree()


def bone_lengths(keypoints: np.ndarray) -> np.ndarray:
    """The length of each bone of `TREE` by keypoints `(T, J, 2)`; NaN where a bone is never seen."""
    parents, children = np.array(TREE).T
    lengths = np.linalg.norm(keypoints[:, children] - keypoints[:, parents], axis=-1)
    seen = ~np.isnan(lengths).all(axis=0)
    result = np.full(len(TREE), np.nan)
    result[seen] = np.nanpercentile(lengths[:, seen], LENGTH, axis=0)
    return result


def retarget(keypoints: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The poses of one person as the target person would hold them.

    Each bone keeps its direction and foreshortening, and gets the length of the target's bone. One zoom for
    all frames scales the motion of the feet, and a shift puts the lowest foot on the target's floor. The
    range of horizontal positions is centered on that of the target, and narrowed if it is wider.

    Args:
        keypoints: `(T, J, 2)`, in any pixels, NaN where unknown.
        target: keypoints of the target person, in pixels of their images.

    Returns:
        `(T, J, 2)` in pixels of the target's images.
    """
    own, other = bone_lengths(keypoints), bone_lengths(target)
    zoom = np.nansum(other) / np.nansum(np.where(np.isnan(other), np.nan, own))
    ratios = np.where(np.isnan(other / own), zoom, other / own)
    result = np.full_like(keypoints, np.nan)
    result[:, ROOT] = zoom * keypoints[:, ROOT]
    for (parent, child), ratio in zip(TREE, ratios, strict=True):
        result[:, child] = result[:, parent] + ratio * (keypoints[:, child] - keypoints[:, parent])
    result += _foot_offsets(result, zoom * keypoints)
    return result + _position_offsets(result, target)


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
    """Offsets `(T, 1, 2)` to the target's floor, and to their range of horizontal positions."""
    offsets = np.zeros((len(result), 1, 2))
    offsets[..., 1] = _floor(target) - _floor(result)
    x = result[:, ROOT, 0]
    (left, right), (own_left, own_right) = (
        np.nanpercentile(keypoints[:, ROOT, 0], RANGE) for keypoints in (target, result)
    )
    narrowing = min(1.0, (right - left) / max(own_right - own_left, 1e-6))
    new_x = (left + right) / 2 + narrowing * (x - (own_left + own_right) / 2)
    offsets[:, 0, 0] = np.nan_to_num(new_x - x)
    return offsets


def _floor(keypoints: np.ndarray) -> float:
    """The y of the floor: the median over time of the lower foot."""
    feet = keypoints[:, FEET, 1]
    known = ~np.isnan(feet).all(axis=1)
    return float(np.median(np.nanmax(feet[known], axis=1)))
