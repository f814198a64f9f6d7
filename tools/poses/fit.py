"""The poses of one body fitted to another: with bones of the other's lengths, on the floor of that one."""

import numpy as np

from tools.synthetic.skeleton import BONES, JOINTS

ROOT = JOINTS.index("pelvis")
FEET = [JOINTS.index(name) for name in ("l_ankle", "r_ankle", "l_toe", "r_toe")]
EXTREMES = (5, 95)  # percentiles over time of where a person stands
LENGTH = 90  # percentile over time of a bone's length in the picture: it is seen from the side now and then


def _tree() -> list[tuple[int, int]]:
    """The bones as (start, end), from the pelvis outwards."""
    edges = [(JOINTS.index(start), JOINTS.index(end)) for start, end, _ in BONES]
    tree, reached = [], {ROOT}
    while len(tree) < len(edges):
        for start, end in edges:
            near, far = (start, end) if start in reached else (end, start)
            if near in reached and far not in reached:
                tree.append((near, far))
                reached.add(far)
    return tree


TREE = _tree()


def bone_lengths(places: np.ndarray) -> np.ndarray:
    """The length of each bone of `TREE` by places of joints `(T, J, 2)`; NaN where a bone is never seen."""
    starts, ends = np.array(TREE).T
    lengths = np.linalg.norm(places[:, ends] - places[:, starts], axis=-1)
    seen = ~np.isnan(lengths).all(axis=0)
    result = np.full(len(TREE), np.nan)
    result[seen] = np.nanpercentile(lengths[:, seen], LENGTH, axis=0)
    return result


def fitted(places: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Poses of a person as the trained person would hold them.

    Each bone keeps its direction and its foreshortening, and gets the length of the trained person's bone.
    The feet stay where they were after one zoom for all frames, which is moved so that the lowest foot stands
    on the trained person's floor. The middle of all positions is theirs; positions that reach farther than
    theirs are drawn together.

    Args:
        places: `(T, J, 2)`, in any pixels, NaN where a joint is not known.
        trained: the same of the trained person, in pixels of their pictures.

    Returns:
        `(T, J, 2)` in pixels of the trained person's pictures.
    """
    own, other = bone_lengths(places), bone_lengths(trained)
    zoom = np.nansum(other) / np.nansum(np.where(np.isnan(other), np.nan, own))
    ratios = np.where(np.isnan(other / own), zoom, other / own)
    result = np.full_like(places, np.nan)
    result[:, ROOT] = zoom * places[:, ROOT]
    for (start, end), ratio in zip(TREE, ratios, strict=True):
        result[:, end] = result[:, start] + ratio * (places[:, end] - places[:, start])
    result += _moves_to_feet(result, zoom * places)
    return result + _moves_to_room(result, trained)


def _moves_to_feet(result: np.ndarray, zoomed: np.ndarray) -> np.ndarray:
    """What has to be added to each frame so that its lowest foot is where it was."""
    moves = np.zeros((len(result), 1, 2))
    for frame, (now, before) in enumerate(zip(result, zoomed, strict=True)):
        if not np.isnan(before[FEET, 1]).all() and not np.isnan(now[FEET, 1]).all():
            foot = FEET[int(np.nanargmax(before[FEET, 1]))]
            move = before[foot] - now[foot]
            moves[frame, 0] = move if not np.isnan(move).any() else 0
    return moves


def _moves_to_room(result: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """What has to be added to each frame: down to the trained person's floor, and to where they stood."""
    moves = np.zeros((len(result), 1, 2))
    moves[..., 1] = _floor(trained) - _floor(result)
    columns = result[:, ROOT, 0]
    (left, right), (own_left, own_right) = (
        np.nanpercentile(places[:, ROOT, 0], EXTREMES) for places in (trained, result)
    )
    narrowing = min(1.0, (right - left) / max(own_right - own_left, 1e-6))
    wanted = (left + right) / 2 + narrowing * (columns - (own_left + own_right) / 2)
    moves[:, 0, 0] = np.nan_to_num(wanted - columns)
    return moves


def _floor(places: np.ndarray) -> float:
    """The row on which a person stands: that of the lower foot, in most frames."""
    feet = places[:, FEET, 1]
    known = ~np.isnan(feet).all(axis=1)
    return float(np.median(np.nanmax(feet[known], axis=1)))
