"""Measure training, rendering and start-up against a plain reference, in alternation, and write the table.

    python tools/benchmark.py --save_root OUT
    python tools/benchmark.py --save_root OUT --arch unet --device cpu --quick

The reference is tools/plain_reference.py: the lab's protocol as it reads. A ratio says how many times better
ours is. Flags that are not the tool's own are those of Trainer.py and go to both sides. Written to OUT:
benchmark.json (all samples), benchmark.md (the table), and the data, drawn once, if no --DR is given.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine import console  # noqa: E402

if __name__ == "__main__":
    console.quit_on_signals()

from engine import options  # noqa: E402
from engine.device import select_device  # noqa: E402
from engine.parser import Parser, whole  # noqa: E402
from tools.benchmarking import table  # noqa: E402
from tools.benchmarking.peer import Peer  # noqa: E402
from tools.benchmarking.table import Row  # noqa: E402
from tools.benchmarking.workers import COUNTED, Product, Reference  # noqa: E402
from tools.plain_reference import clip_loader  # noqa: E402

# The lab's pictures, and its batch.
PICTURE_SIZE = "1024x512"
BATCH = 2
# The lab's test set.
SEQUENCES = 6


@dataclass(frozen=True)
class Extent:
    """How much is measured.

    Args:
        rounds: samples of a row, of each side.
        least_seconds: over which a step is measured, to be long beside the clock and a GPU's queue.
        length: frames of a clip.
        epoch_clips: clips of the epoch, so many that its first batch, for which all wait, weighs little.
        video_length: frames of a rendered sequence.
        batches: sizes among which the best is looked for; the search ends where memory does.
    """

    rounds: int
    least_seconds: float
    length: int
    epoch_clips: int
    video_length: int
    batches: tuple[int, ...]


# On the CPU a step of the lab's networks takes seconds and a frame a tenth of one: few steps and short videos
# tell as much there. A quick run shortens the clips, too.
EXTENTS = {
    ("cpu", False): Extent(3, 1.0, 16, 12, 40, (1, 2, 4, 8)),
    ("cpu", True): Extent(1, 0.2, 4, 12, 10, (1, 2)),
    ("cuda", False): Extent(3, 1.0, 16, 64, 630, (2, 8, 32, 128, 256, 512)),
    ("cuda", True): Extent(1, 0.2, 16, 16, 100, (2, 32)),
}
MODES = {"free-running": False, "teacher-forced": True}
# Three points each, of which one is the lab's.
SCALING = (
    [{"train_vi_len": length} for length in (4, 8, 16)],
    [{"batch_size": size} for size in (1, 2, 4)],
    [{"frame_H": height, "frame_W": 2 * height} for height in (16, 32, 64)],
)


def parse(argv=None) -> tuple[argparse.Namespace, list[str]]:
    """The tool's flags, and the flags of Trainer.py for both sides."""
    parser = Parser(prog="benchmark.py", description="Measure ours against a plain reference.")
    add = parser.add_argument
    add("--save_root", type=Path, required=True, help="folder for everything that is written")
    add("--DR", type=Path, help=f"a dataset to train on; by default one is drawn, of {PICTURE_SIZE} pictures")
    add("--device", help="cuda, cuda:1, cpu; by default CUDA where there is one")
    add("--arch", choices=list(options.ARCH_DEFAULTS), default="lab", help="the networks of both sides")
    add("--quick", action="store_true", help="one sample of each, of less work: to see that all is well")
    add("--rounds", type=whole(1), help="samples of each row and side; 3 by default, 1 if --quick")
    add("--scaling", action="store_true", help="measure how a step's cost grows, too")
    return parser.parse_known_args(argv)


def view_data(data: Path, folder: Path) -> None:
    """Give a folder the splits of `data`, so that it has a frame cache of its own, to be deleted at will."""
    folder.mkdir(exist_ok=True)
    for split in ("train", "val", "test"):
        link = folder / split
        if link.is_symlink():
            link.unlink()
        link.symlink_to((data / split).resolve(), target_is_directory=True)


def drawn_data(folder: Path, frames: int) -> Path:
    """A drawn dataset with so many training frames, from an earlier call if there was one."""
    data = folder / f"data_{frames}"
    if not (data / "test").is_dir():
        parts = {"train_frames": frames, "val_frames": 16, "test_frames": 2, "test_sequences": 1}
        flags = [f"--{name}={value}" for name, value in parts.items()]
        command = [sys.executable, str(ROOT / "tools/make_dataset.py"), str(data), "--size", PICTURE_SIZE]
        subprocess.run([*command, "--overwrite", *flags], check=True)
    return data


@dataclass
class Comparison:
    """The rows, in order; each is to be measured before the next is asked for.

    Args:
        product, reference: the two sides.
        args: the flags of both.
        extent: how much is measured.
    """

    product: Peer
    reference: Peer
    args: argparse.Namespace
    extent: Extent

    def rows(self) -> Iterator[Row]:
        """All of them."""
        clip = f"T {self.args.train_vi_len}"
        at_batch = f"batch {self.args.batch_size}, {clip}"
        yield from self.training(at_batch)
        best = self.best_batch(self.product)
        yield from self.at_best_batch(clip, best)
        length = self.extent.video_length
        rendering = {"sequences": SEQUENCES, "length": length}
        yield self.both(f"rendering {SEQUENCES} sequences of {length}", "frames/s", "render", **rendering)
        yield self.both(f"launch to first step, {at_batch}, warm", "s", "launch")
        fresh = (partial(side.ask_fresh, "peak_memory") for side in (self.product, self.reference))
        yield Row(f"peak memory, training, {at_batch}", "MiB", *fresh, once=True)
        yield from self.operators()
        yield self.architectures(clip, {self.args.arch: best})

    def both(self, name: str, unit: str, method: str, **arguments) -> Row:
        """A row of the same measurement on both sides."""
        sides = (partial(side.ask, method, **arguments) for side in (self.product, self.reference))
        return Row(name, unit, *sides)

    def training(self, at_batch: str) -> Iterator[Row]:
        """Steps and epochs at the lab's batch size."""
        for mode, forced in MODES.items():
            yield self.both(f"training step, {at_batch}, {mode}", "s", "step", teacher_forcing=forced)
        name = f"an epoch, {at_batch}, data included"
        warm = self.both(f"{name}, warm", "clips/s", "epoch", cold=False)
        yield warm
        # The reference knows no cache, so its epochs are all alike.
        cold = partial(self.product.ask, "epoch", cold=True)
        yield Row(f"{name}, cold", "clips/s", cold, references=warm.references)

    def best_batch(self, side: Peer, **changes) -> int:
        """The batch size at which a side trains the most clips a second."""
        for holder in (self.product, self.reference):
            holder.ask("forget")
        rates = side.ask_fresh("sweep", sizes=self.extent.batches, **changes)
        return max(rates, key=rates.get)

    def at_best_batch(self, clip: str, ours: int) -> Iterator[Row]:
        """Training at each side's best batch size, and what that is of what the device can do."""
        theirs = self.best_batch(self.reference)
        rate = Row(
            f"training at the best batch (ours {ours}, reference {theirs}), {clip}",
            "clips/s",
            partial(self.product.ask, "clips_per_second", batch_size=ours),
            partial(self.reference.ask, "clips_per_second", batch_size=theirs),
        )
        yield rate
        flops = self.product.ask("flops_per_clip")
        done = ([flops * clips / 1e12 for clips in side] for side in (rate.products, rate.references))
        yield Row("the same, arithmetic of the networks", "TFLOP/s", None, None, *done)
        ceiling, precision = self.product.ask("ceiling")
        name = f"the same, share of {ceiling / 1e12:.3g} TFLOP/s in {precision} matrix products"
        yield Row(name, "%", products=[100 * flops * clips / ceiling for clips in rate.products])

    def operators(self) -> Iterator[Row]:
        """Operators dispatched in a step."""
        at = f"batch {COUNTED['batch_size']}, T {COUNTED['train_vi_len']}"
        for mode, forced in MODES.items():
            row = self.both(
                f"operators a step, {at}, {COUNTED['precision']}, {mode}",
                "",
                "operators",
                teacher_forcing=forced,
            )
            row.once = True
            yield row

    def architectures(self, clip: str, best: dict[str, int]) -> Row:
        """Our networks against the lab's, both trained by ours; `best`: batch sizes that are known."""
        unet, lab = (best.get(arch) or self.best_batch(self.product, arch=arch) for arch in ("unet", "lab"))
        return Row(
            f"ours alone, unet (batch {unet}) against lab (batch {lab}), {clip}",
            "clips/s",
            partial(self.product.ask, "clips_per_second", arch="unet", batch_size=unet),
            partial(self.product.ask, "clips_per_second", arch="lab", batch_size=lab),
        )


def scaling(product: Peer, args) -> Iterator[list[Row]]:
    """How the cost of a free-running step grows: a group of rows for each thing that it grows with."""
    for group in SCALING:
        made = []
        for changes in group:
            point = vars(args) | changes
            size = f"{point['frame_W']}x{point['frame_H']}"
            name = f"batch {point['batch_size']}, T {point['train_vi_len']}, {size}"
            made.append(Row(name, "s", partial(product.ask, "step", teacher_forcing=False, **changes)))
        yield made


def prepare(own: argparse.Namespace, common: list[str]) -> tuple[argparse.Namespace, list[str], Extent]:
    """Look at the flags and make the data; returns all flags, the same as text, and how much to measure."""

    def resolve(flags: list[str]) -> argparse.Namespace:
        return options.resolve(options.trainer_parser(), flags)

    data, run = own.save_root / "data_view", own.save_root / "launched_run"
    flags = [f"--DR={data}", f"--save_root={run}", "--overwrite", f"--arch={own.arch}"]
    flags += [f"--device={own.device}"] if own.device else []
    device = select_device(resolve([*flags, *common]))
    extent = EXTENTS[device.type, own.quick]
    # Clips in order, for then both sides make the same ones; without teacher forcing, as most steps are.
    protocol = [f"--batch_size={BATCH}", f"--train_vi_len={extent.length}", "--clips=in_order", "--tfr=0"]
    flags += [f"--device={device}", *protocol, *common]
    args = resolve(flags)
    own.save_root.mkdir(parents=True, exist_ok=True)
    view_data(own.DR or drawn_data(own.save_root, extent.epoch_clips * args.train_vi_len), data)
    clip_loader(args)  # whether there is enough to train on
    return args, flags, extent


def main(argv=None) -> None:
    """Prepare, measure, and write after each row."""
    own, common = parse(argv)
    args, flags, extent = prepare(own, common)
    about = {
        "machine": table.machine(args.device),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", *sys.argv]),
    }
    rows, groups, rounds = [], [], own.rounds or extent.rounds
    with ExitStack() as stack:
        sides = (Peer(side, flags, extent.least_seconds) for side in (Product, Reference))
        product, reference = map(stack.enter_context, sides)
        for row in Comparison(product, reference, args, extent).rows():
            print(row.name, file=sys.stderr, flush=True)
            row.measure(rounds)
            rows.append(row)
            table.write(own.save_root, about, rows, groups)
        for group in scaling(product, args) if own.scaling else ():
            for row in group:
                row.measure(rounds)
            groups.append(group)
    print(table.write(own.save_root, about, rows, groups))
    print(f"\nall samples are in {own.save_root / 'benchmark.json'}")


if __name__ == "__main__":
    console.run(main)
