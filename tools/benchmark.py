"""Compare the speed and memory of training and rendering with a plain reference, and write a table.

    python -m tools.benchmark --save_root OUT --arch unet --device cpu --quick

The product is this project's Trainer and Tester, the reference is tools/plain_reference.py; both are measured
in turn. Written to OUT: benchmark.json (all samples), benchmark.md (the table), and without --DR a synthetic
dataset.
"""

import argparse
import json
import platform
import shlex
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime import cli

if __name__ == "__main__":
    cli.prepare()  # before torch, which takes seconds to import

import torch

from dataloader import ClipDataset
from runtime import files
from runtime.cli import log
from runtime.device import select_device
from runtime.parser import Parser, int_range
from tools import children, plain_reference
from tools.benchmarking.measure import NUM_VIDEOS
from training import configuration

ROOT = Path(__file__).resolve().parents[1]
# Each architecture has its own recipe: `lab` the protocol of the course.
RECIPES = {"unet": "--arch=unet --recipe=default", "lab": "--arch=lab --recipe=lab"}
# Clips in order, to train both sides on the same data.
PROTOCOL = "--precision=auto --tta=1 --clips=in_order --tfr=0 --batch_size=2 --train_vi_len=16"
QUICK = ["--train_vi_len=4", "--val_vi_len=10"]
DATASET = ["--size=1024x512", "--overwrite", "--val_frames=16", "--test_frames=2", "--test_sequences=1"]
VIDEO_LENGTH = {"cpu": 40, "mps": 40, "cuda": 630}  # frames per rendered sequence
# Clips in the synthetic dataset: enough to amortize the wait for the first batch.
EPOCH_CLIPS = {"cpu": 12, "mps": 12, "cuda": 64}


@dataclass
class Row:
    """Samples of one measurement of both sides.

    Attributes:
        unit: empty for counts.
        key: in the results of `tools.benchmarking.measure`.
    """

    name: str
    unit: str
    key: str
    product: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """How many times better the product is, by the medians: rates are better if larger."""
        ratio = median(self.product) / median(self.reference)
        return ratio if self.unit.endswith("/s") else 1 / ratio


def make_rows(args) -> list[Row]:
    """What is measured, without samples; `args` are the flags of both sides."""
    at_batch = f"batch {args.batch_size}, T {args.train_vi_len}"
    count = "operators per step on the CPU, batch 2, T 16, fp32"
    return [
        Row(f"training step, {at_batch}, free-running", "s", "step_free"),
        Row(f"training step, {at_batch}, teacher-forced", "s", "step_forced"),
        Row(f"epoch, {at_batch}, including data loading, warm cache", "clips/s", "epoch"),
        Row(f"rendering {NUM_VIDEOS} sequences of {args.val_vi_len} frames", "frames/s", "render"),
        Row(f"peak memory, training, {at_batch}", "MiB", "memory"),
        Row("startup: from process start to the third step, excluding data loading", "s", "start"),
        Row(f"{count}, free-running", "", "operators_free"),
        Row(f"{count}, teacher-forced", "", "operators_forced"),
    ]


def number(value: float) -> str:
    """Three digits, or all digits of a whole number."""
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def spread(samples: list[float]) -> str:
    """`median (min .. max)`, or the value if all samples are equal."""
    if len(set(samples)) < 2:
        return number(samples[0])
    return f"{number(median(samples))} ({number(min(samples))} .. {number(max(samples))})"


def write(folder: Path, about: dict, rows: list[Row]) -> str:
    """Write benchmark.json and benchmark.md; returns the table."""
    results = about | {"rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}
    files.write(folder / "benchmark.json", json.dumps(results, indent=1))
    table = "| row | product: median (min .. max) | plain loop | ratio |\n|---|---|---|---|"
    for row in rows:
        name = f"{row.name}, {row.unit}" if row.unit else row.name
        table += f"\n| {name} | {spread(row.product)} | {spread(row.reference)} | {row.ratio:.2f} |"
    heading = f"{about['machine']}; {about['date']}; `{about['command']}`"
    files.write(folder / "benchmark.md", f"{heading}\n\n{table}\n")
    return table


def sample(side: str, flags: list[str]) -> dict[str, float]:
    """A sample of each row of a side, measured in a new process."""
    process = [sys.executable, "-m", "tools.benchmarking.measure", side, str(time.time()), *flags]
    # In its own session, so only this process handles Ctrl-C.
    output = children.run(process, output=True, cwd=ROOT, start_new_session=True)
    return json.loads(output.splitlines()[-1])


def machine(device: torch.device) -> str:
    """The hardware and software that is measured."""
    info = Path("/proc/cpuinfo")
    model = info.read_text().partition("model name\t: ")[2].partition("\n")[0] if info.is_file() else ""
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    processor = f"{model or platform.machine()}, {torch.get_num_threads()} threads{gpu}"
    return f"{processor}, {platform.system()}, torch {torch.__version__}, Python {platform.python_version()}"


def prepare(own: argparse.Namespace, trainer_flags: list[str]) -> tuple[list[str], torch.device]:
    """The flags of both sides and the device; renders the dataset."""
    folder, data = own.save_root.resolve(), (own.DR or own.save_root / "data").resolve()
    flags = [f"--DR={data}", f"--save_root={folder / 'run'}", *RECIPES[own.arch].split(), *PROTOCOL.split()]
    args = configuration.trainer_args([*flags, *trainer_flags])
    device = select_device(args.device, args.gpu)
    flags += [f"--device={device}", f"--val_vi_len={VIDEO_LENGTH[device.type]}"]
    flags += [*QUICK, *trainer_flags] if own.quick else trainer_flags
    folder.mkdir(parents=True, exist_ok=True)
    if not own.DR:
        frames = EPOCH_CLIPS[device.type] * configuration.trainer_args(flags).train_vi_len
        command = [sys.executable, "tools/make_dataset.py", data, *DATASET, f"--train_frames={frames}"]
        children.run(command, cwd=ROOT)
    return flags, device


def main(argv: list[str] | None = None) -> None:
    """Measure in turns, and write the table after each round."""
    others = "Flags of Trainer.py, such as --device, are also accepted and apply to both sides."
    parser = Parser(prog="benchmark.py", description=f"Compare speed with a plain reference. {others}")
    add = parser.add_argument
    add("--save_root", type=Path, required=True, help="output folder")
    add("--DR", type=Path, help="dataset to train on; by default a synthetic one, with images of 1024x512")
    add("--arch", choices=list(RECIPES), default="lab", help="architecture of both sides")
    add("--quick", action="store_true", help="measure less, once, to check that everything works")
    add("--rounds", type=int_range(1), help="samples per side; by default 3, or 1 with --quick")
    own, trainer_flags = parser.parse_known_args(argv)
    flags, device = prepare(own, trainer_flags)
    args = configuration.trainer_args(flags)
    ClipDataset(args)  # decodes the images, and finds mistakes
    plain_reference.clip_loader(args)
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    call = shlex.join(["python", "-m", "tools.benchmark", *sys.argv[1:]])
    about, rows = {"machine": machine(device), "date": date, "command": call}, make_rows(args)
    for index in range(own.rounds or (1 if own.quick else 3)):
        print(f"round {index + 1}", file=sys.stderr, flush=True)
        product, reference = (sample(side, flags) for side in ("product", "reference"))
        for row in rows:
            row.product.append(product[row.key])
            row.reference.append(reference[row.key])
        table = write(own.save_root, about, rows)
    log(table)


if __name__ == "__main__":
    cli.run(main)
