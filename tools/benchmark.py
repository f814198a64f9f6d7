"""Measure the product against a plain reference, in alternation, and write a table.

    python -m tools.benchmark --save_root OUT --arch unet --device cpu --quick

The product is this project's Trainer and Tester, the reference is tools/plain_reference.py. Written to OUT:
benchmark.json (all samples), benchmark.md (the table), and, without --DR, a drawn dataset.
"""

import json
import platform
import shlex
import sys
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime import cli

if __name__ == "__main__":
    cli.prepare()  # before torch, which takes seconds to load

import torch

from runtime import files
from runtime.device import select_device
from runtime.parser import Parser, whole
from tools import children
from tools.benchmarking import measure
from training import options

# Each architecture is measured with its own recipe: `lab` with the protocol of the course lab.
RECIPES = {"unet": "--arch=unet --recipe=default", "lab": "--arch=lab --recipe=lab"}
# Clips in order, because then both sides train on the same ones.
PROTOCOL = "--precision=auto --shifts=1 --clips=in_order --tfr=0 --batch_size=2 --train_vi_len=16 --overwrite"
QUICK = ["--train_vi_len=4", "--val_vi_len=10"]
DRAWN = ["--size=1024x512", "--overwrite", "--val_frames=16", "--test_frames=2", "--test_sequences=1"]
VIDEO_LENGTH = {"cpu": 40, "cuda": 630}  # of the sequences to render
EPOCH_CLIPS = {"cpu": 12, "cuda": 64}  # drawn: so many that the wait for the first batch counts little
BATCH_SIZES = {"cpu": (1, 2, 4, 8), "cuda": (2, 8, 32, 128, 256, 512)}  # to try, until the memory ends
# Operators are counted in fp32, as the reference computes, and on small pictures, which changes no count.
COUNTED = "--batch_size=2 --train_vi_len=16 --frame_H=8 --frame_W=16 --precision=fp32 --device=cpu"
SCALING = ("--train_vi_len=4", "--train_vi_len=8", "--batch_size=1", "--batch_size=4")
SCALING += ("--frame_H=16 --frame_W=32", "--frame_H=64 --frame_W=128")


@dataclass
class Row:
    """Samples of one measurement, and of what they are compared to; counts have the unit ""."""

    name: str
    unit: str
    product: list[float] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """How many times better the product is, by the medians: more is better in a rate, less elsewhere."""
        if not self.reference:
            return None
        ratio = median(self.product) / median(self.reference)
        return ratio if self.unit.endswith("/s") else 1 / ratio


def number(value: float) -> str:
    """Three digits, or all digits of a whole number."""
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"


def spread(samples: list[float]) -> str:
    """`median (min .. max)`, or the value alone if all samples are equal."""
    if len(set(samples)) < 2:
        return number(samples[0]) if samples else "-"
    return f"{number(median(samples))} ({number(min(samples))} .. {number(max(samples))})"


def write(folder: Path, about: dict, rows: list[Row]) -> str:
    """Write benchmark.json and benchmark.md; returns the table."""
    results = about | {"rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}
    files.write(folder / "benchmark.json", json.dumps(results, indent=1))
    table = "| row | product: median (min .. max) | reference | ratio |\n|---|---|---|---|"
    for row in rows:
        name = f"{row.name}, {row.unit}" if row.unit else row.name
        ratio = f"{row.ratio:.2f}" if row.reference else "-"
        table += f"\n| {name} | {spread(row.product)} | {spread(row.reference)} | {ratio} |"
    heading = f"{about['machine']}; {about['date']}; `{about['command']}`"
    files.write(folder / "benchmark.md", f"{heading}\n\n{table}\n")
    return table


def sample(command: str, flags: list[str]) -> float:
    """One measurement in a new process; `command`: side, measurement, and changes of the flags."""
    side, measurement, *changes = command.split()
    if measurement == "launch":
        return measure.launch(side, [*flags, *changes])
    process = [sys.executable, "-m", "tools.benchmarking.measure", side, measurement, *flags, *changes]
    # In a session of its own, so that Ctrl-C is answered once, here.
    try:
        printed = children.run(process, output=True, cwd=measure.ROOT, start_new_session=True)
    except children.ChildError as failure:
        raise SystemExit(failure.code) from None
    return float(printed.split()[-1])


def best_batch(command: str, flags: list[str], sizes: tuple[int, ...]) -> int:
    """The batch size with the best rate, which `command` measures, of those that fit into memory."""
    rates = {}
    for size in sizes:
        rates[size] = sample(f"{command} --batch_size={size}", flags)
        if not rates[size]:
            break
    return max(rates, key=rates.get)


def rows(flags: list[str], device: torch.device, sizes: tuple[int, ...], scaling: bool):
    """Each row with the commands of its samples, which are taken before the next row is asked for."""

    def both(command: str) -> tuple[str, str]:
        return f"product {command}", f"reference {command}"

    args = options.trainer_args(flags)
    clip = f"T {args.train_vi_len}"
    at_batch = f"batch {args.batch_size}, {clip}"
    step = Row(f"training step, {at_batch}, free-running", "s")
    yield step, *both("step --tfr=0")
    yield Row(f"training step, {at_batch}, teacher-forced", "s"), *both("step --tfr=1")
    warm = Row(f"an epoch, {at_batch}, data included, warm cache", "clips/s")
    yield warm, *both("epoch")
    cold = Row(f"an epoch, {at_batch}, data included, cold cache", "clips/s", reference=warm.reference)
    yield cold, "product cold_epoch"  # the reference has no cache: all its epochs are alike
    yield Row(f"peak memory, training, {at_batch}", "MiB"), *both("memory")
    product, reference = (best_batch(command, flags, sizes) for command in both("rate"))
    name = f"training at the best batch size (product {product}, reference {reference}), {clip}"
    rate = Row(name, "clips/s")
    yield rate, f"product rate --batch_size={product}", f"reference rate --batch_size={reference}"
    flops, ceiling, dtype = measure.limits(args, device)
    teraflops = ([flops * clips / 1e12 for clips in side] for side in (rate.product, rate.reference))
    yield (Row("the same, arithmetic of the networks", "TFLOP/s", *teraflops),)
    share = [100 * flops * clips / ceiling for clips in rate.product]
    yield (Row(f"the same, share of {ceiling / 1e12:.3g} TFLOP/s in {dtype} matrix products", "%", share),)
    name = f"rendering {measure.VIDEOS} sequences of {args.val_vi_len} frames"
    yield Row(name, "frames/s"), *both("render")
    yield Row(f"launch to first step, {at_batch}, warm cache", "s"), *both("launch")
    for mode, tfr in (("free-running", 0), ("teacher-forced", 1)):
        name = f"operators in a step, batch 2, T 16, fp32, {mode}"
        yield Row(name, ""), *both(f"operators {COUNTED} --tfr={tfr}")
    commands = [f"product rate {recipe}" for recipe in RECIPES.values()]
    unet, lab = (best_batch(command, flags, sizes) for command in commands)
    name = f"product alone, unet (batch {unet}) against lab (batch {lab}), {clip}"
    yield Row(name, "clips/s"), f"{commands[0]} --batch_size={unet}", f"{commands[1]} --batch_size={lab}"
    for change in SCALING if scaling else ():
        name = f"training step, product alone, {change}, against {at_batch}"
        yield Row(name, "s", reference=step.product), f"product step {change}"


def machine(device: torch.device) -> str:
    """The hardware and software that is measured."""
    info = Path("/proc/cpuinfo")
    model = info.read_text().partition("model name\t: ")[2].partition("\n")[0] if info.is_file() else ""
    gpu = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    processor = f"{model or platform.machine()}, {torch.get_num_threads()} threads{gpu}"
    return f"{processor}, {platform.system()}, torch {torch.__version__}, Python {platform.python_version()}"


def prepare(own, trainer_flags: list[str]) -> tuple[list[str], torch.device]:
    """The flags of both sides and the device; draws the dataset."""
    folder, data = own.save_root.resolve(), (own.DR or own.save_root / "data").resolve()
    flags = [f"--DR={data}", f"--save_root={folder / 'run'}", *RECIPES[own.arch].split(), *PROTOCOL.split()]
    device = select_device(options.trainer_args([*flags, *trainer_flags]))
    flags += [f"--device={device}", f"--val_vi_len={VIDEO_LENGTH[device.type]}"]
    flags += [*QUICK, *trainer_flags] if own.quick else trainer_flags
    folder.mkdir(parents=True, exist_ok=True)
    if not own.DR:
        frames = EPOCH_CLIPS[device.type] * options.trainer_args(flags).train_vi_len
        command = [sys.executable, "tools/make_dataset.py", data, *DRAWN, f"--train_frames={frames}"]
        children.run(command, cwd=measure.ROOT)
    return flags, device


def main(argv=None) -> None:
    """Measure the rows, and write those so far after each."""
    others = "Other flags, such as --device, are those of Trainer.py, and hold for both sides."
    parser = Parser(prog="benchmark.py", description=f"Compare the product with a plain reference. {others}")
    add = parser.add_argument
    add("--save_root", type=Path, required=True, help="folder for everything that is written")
    add("--DR", type=Path, help="dataset to train on; by default one is drawn, with pictures of 1024x512")
    add("--arch", choices=list(RECIPES), default="lab", help="architecture of both sides")
    add("--quick", action="store_true", help="measure less, once, to check that everything works")
    add("--rounds", type=whole(1), help="samples of each row and side; 3 by default, 1 with --quick")
    add("--scaling", action="store_true", help="measure also how the time of a step grows")
    own, trainer_flags = parser.parse_known_args(argv)
    flags, device = prepare(own, trainer_flags)
    for side in ("product", "reference"):
        measure.launch(side, flags)  # finds mistakes in the dataset, and decodes it for the warm rows
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    call = shlex.join(["python", "-m", "tools.benchmark", *sys.argv[1:]])
    about = {"machine": machine(device), "date": date, "command": call}
    sizes, measured = BATCH_SIZES[device.type][: 2 if own.quick else None], []
    for row, *commands in rows(flags, device, sizes, own.scaling):
        print(row.name, file=sys.stderr, flush=True)
        for _ in range(own.rounds or (1 if own.quick else 3)):
            for command, samples in zip(commands, (row.product, row.reference), strict=False):
                samples.append(sample(command, flags))
        measured.append(row)
        table = write(own.save_root, about, measured)
    print(table)


if __name__ == "__main__":
    cli.run(main)
