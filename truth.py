"""Ground truth of the test videos: numbered images, or rows of a CSV file."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from image_cache import load_images
from images import numbered_images
from runtime.cli import UserError, log
from utils import to_float

MAX_OFFSET = 0.4  # of a pose from its line in a CSV, in steps


def true_frames(
    args, name: str, numbers: list[int], first_number: int, step: float
) -> tuple[Tensor | None, str | None]:
    """Ground truth of a test video, `(T, 3, H, W)` in [0, 1], and its source; `(None, None)` without one.

    Images in `DR/test/test_gt/{i}` come first, with the numbers of the poses, then `GT{i}.csv` in
    `DR/Demo_Test` or `./Demo_Test`: a line per frame, channel first.

    Args:
        numbers: of the poses, in order.
        first_number: number of the first frame, which the first row of a CSV holds.
        step: between the numbers of two frames.

    Raises:
        UserError: a true frame is missing, has another shape, or values outside of [0, 1].
    """
    size = (args.frame_H, args.frame_W)
    folder = args.DR / "test" / "test_gt" / name
    if folder.is_dir():
        entries = numbered_images(folder)
        if missing := [number for number in numbers if number not in entries]:
            raise UserError(f"{folder}: no ground truth for pose {missing[0]} ({len(missing)} missing)")
        others = sorted(entries.keys() - set(numbers))
        if others and args.val_vi_len is None:
            log(f"{folder}: no pose for ground-truth frame {others[0]} (ignoring {len(others)})")
        images = load_images(args.DR, f"test-gt-{name}", list(entries.values()), size, args.num_workers)
        return to_float(images[np.searchsorted(list(entries), numbers)]), str(folder)
    for folder in (args.DR / "Demo_Test", Path("Demo_Test")):
        path = folder / f"GT{name}.csv"
        if path.is_file():
            positions = [(number - first_number) / step for number in numbers]
            rows = np.rint(positions).astype(int)
            if len(set(rows)) < len(rows) or abs(positions - rows).max() > MAX_OFFSET:
                raise UserError(f"{path}: cannot match rows to poses: pose numbers are not evenly spaced")
            table = _read_table(path, rows[-1] + 1, size)
            if len(table) > len(rows) and args.val_vi_len is None:
                log(f"{path}: {len(table)} rows, using {len(rows)}")
            return torch.from_numpy(table[rows].reshape(len(rows), 3, *size)), str(path)
    return None, None


def _read_table(path: Path, length: int, size: tuple[int, int]) -> np.ndarray:
    """The frames of a truth CSV, one per row, at least `length`."""
    height, width = size
    try:
        with path.open(encoding="utf-8-sig") as file:  # spreadsheets write a byte-order mark
            lines = file.read().rstrip().split("\n")
        if empty := [number for number, line in enumerate(lines, 1) if not line.strip()]:
            raise ValueError(f"line {empty[0]} is empty")
        delimiter = next((mark for mark in ";," if mark in lines[0]), None)
        if delimiter == ";":  # then decimals may have commas
            lines = [line.replace(",", ".") for line in lines]
        if len(lines) > 1 and _is_header(lines[0].split(delimiter)):
            del lines[0]
        table = np.loadtxt(lines, np.float32, delimiter=delimiter, ndmin=2, comments=None)
    except ValueError as error:
        raise UserError(f"{path}: not a table of numbers ({error})") from None
    if table.shape[1] == 1 + 3 * height * width and (table[:, 0] == np.arange(len(table))).all():
        table = table[:, 1:]  # pandas numbers the lines
    if len(table) < length or table.shape[1] != 3 * height * width:
        raise UserError(
            f"{path}: {table.shape[0]} rows of {table.shape[1]} numbers; expected {length} rows "
            f"of {3 * height * width} (3 x {height} x {width})"
        )
    if not ((table >= 0) & (table <= 1)).all():
        raise UserError(f"{path}: contains NaN or values outside [0, 1] (are they 0..255?)")
    return table


def _is_header(fields: list[str]) -> bool:
    """Whether a line names or, as pandas does, numbers the columns, perhaps after a named one."""
    names = [field.strip() for field in fields]
    names = names if _is_number(names[0]) else names[1:]
    is_numbered = len(names) > 2 and names == [str(number) for number in range(len(names))]
    return is_numbered or not any(map(_is_number, names))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
