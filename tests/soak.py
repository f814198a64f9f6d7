"""Runs that are disturbed at random, for as long as is wanted; `make soak` runs it for an hour.

    python -m tests.soak --minutes 60 --seed 0

A case begins a small run in a new folder, disturbs it, continues it to its end, and compares the folder with
that of an undisturbed run; or it gives a damaged checkpoint to a script. A case that fails prints its number,
and `--only CASE` repeats it. At the end stands how many cases of each kind ended well.
"""

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

import Tester
import Trainer
from runtime import cli
from tests.helpers import start, wait, write_dataset
from tests.killing import contents, train
from tests.test_kill import new_run, resumed
from training import checkpoint

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
ENDS = {0, cli.USER_MISTAKE, *(128 + signum for signum in SIGNALS)}
LONGEST = 60  # seconds for a script to end
# That stand in a damaged checkpoint in place of others.
VALUES = (
    None, "", "x", b"x", -1, 0, 10**9, 10**30, 1.5, float("nan"), float("inf"), True, [], {}, [[]],
    torch.zeros(1), torch.zeros(3, 2).to_sparse(), torch.full((16,), float("nan")),
)  # fmt: skip


class DisturbedError(Exception):
    """What a case should not have done."""


class Soak:
    """The cases: each a method with a name `case_*`, a folder of its own, and a random generator.

    Args:
        root: folder for the dataset and for an undisturbed run.
    """

    def __init__(self, root: Path):
        self.data = write_dataset(root / "data")
        whole = root / "whole"
        Trainer.main(new_run(self.data, whole))  # loads libraries, once for all copies of this process
        log = root / "log"
        self.seconds = -time.monotonic()
        train(new_run(self.data, root / "again"), root / "again", log=log)
        self.seconds += time.monotonic()
        self.writes, self.expected = len(log.read_text().splitlines()), contents(root / "again")
        self.checkpoint = whole / "best.ckpt"

    # Runs

    def case_killed_at_a_write(self, folder, rng):
        """Killed before a write, up to three times."""
        for _ in range(rng.integers(1, 4)):
            train(self.command(folder), folder, kill_at=int(rng.integers(self.writes)))
        self.finish(folder)

    def case_killed_at_a_time(self, folder, rng):
        """Killed at any time, up to three times."""
        for _ in range(rng.integers(1, 4)):
            self.disturb(start(lambda: Trainer.main(self.command(folder))), [signal.SIGKILL], rng)
        self.finish(folder)

    def case_one_signal(self, folder, rng):
        """Ctrl-C, SIGTERM or SIGHUP."""
        self.stop(folder, [SIGNALS[rng.integers(3)]], rng)

    def case_two_signals(self, folder, rng):
        """Two signals within milliseconds."""
        self.stop(folder, [SIGNALS[rng.integers(3)], SIGNALS[rng.integers(3)]], rng)

    def case_full_disk(self, folder, rng):
        """No file can grow beyond a limit, as on a full disk."""
        limit = int(10 ** rng.uniform(0, 6))

        def limited():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            cli.run(lambda: Trainer.main(self.command(folder)))

        # The output goes to a pipe, because a file of it would be limited, too.
        code, output = self.output_of(limited)
        check_end(code, output, {0, cli.USER_MISTAKE})
        self.finish(folder)

    def case_two_writers(self, folder, rng):
        """Two runs in one folder: one of them is refused."""
        first = start(lambda: cli.run(lambda: Trainer.main(self.command(folder))))
        time.sleep(rng.uniform(0, 0.3))
        second = start(lambda: cli.run(lambda: Trainer.main(self.command(folder))))
        codes = [wait(first), wait(second)]
        if sorted(codes) != [0, cli.USER_MISTAKE]:
            raise DisturbedError(f"the exit codes are {codes}")
        self.finish(folder)

    def case_output_gone(self, folder, rng):
        """Nobody reads the output, or its disk is full."""
        if rng.random() < 0.5:
            reader, output = os.pipe()
            os.close(reader)
        else:
            output = os.open("/dev/full", os.O_WRONLY)
        code = wait(start(lambda: self.script(Trainer, self.command(folder)), output, output))
        os.close(output)
        if code:
            raise DisturbedError(f"the exit code is {code}")
        self.finish(folder)

    def case_tester_stopped(self, folder, rng):
        """Tester with one signal or two, then undisturbed."""
        argv = ["--DR", str(self.data), "--save_root", str(folder), "--device=cpu", "--mp4"]
        argv += ["--ckpt_path", str(self.checkpoint)]
        signals = [SIGNALS[rng.integers(3)] for _ in range(rng.integers(1, 3))]
        with tempfile.TemporaryFile() as file:
            child = start(lambda: self.script(Tester, argv), file.fileno(), file.fileno())
            time.sleep(0.05)  # until it answers signals
            code = self.disturb(child, signals, rng)
            file.seek(0)
            check_end(code, file.read().decode(errors="replace"), ENDS)
        code, output = self.output_of(lambda: cli.run(lambda: Tester.main(argv)))
        names = [path.name for path in folder.iterdir()]
        if code or len(names) != 14 or any(name.startswith(".") for name in names):
            raise DisturbedError(f"exit code {code}, files {names}, output {output[-500:]}")

    # Checkpoints

    def case_changed_bytes(self, folder, rng):
        """Bytes of a checkpoint are changed, removed or cut off."""
        data = bytearray(self.checkpoint.read_bytes())
        kind, place = rng.integers(3), int(rng.integers(len(data)))
        if kind == 0:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[place:]
        else:
            del data[place : place + int(rng.integers(1, 200))]
        (folder / "last.ckpt").write_bytes(data)
        self.use(folder, rng)

    def case_changed_values(self, folder, rng):
        """A value anywhere in a checkpoint is another, or is missing."""
        stored = checkpoint.read(self.checkpoint)
        place = stored
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = keys[rng.integers(len(keys))]
            if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.8:
                place = place[key]
                continue
            break
        choice = int(rng.integers(len(VALUES) + 1))
        if choice < len(VALUES):
            place[key] = VALUES[choice]
        else:
            del place[key]
        torch.save(stored, folder / "last.ckpt")
        self.use(folder, rng)

    # Helpers

    def command(self, folder: Path) -> list[str]:
        begun = (folder / "last.ckpt").exists()
        return resumed(self.data, folder) if begun else [*new_run(self.data, folder), "--overwrite"]

    @staticmethod
    def script(script, argv: list[str]) -> None:
        cli.prepare()
        cli.run(lambda: script.main(argv))

    def disturb(self, child: int, signals: list[int], rng) -> int:
        time.sleep(rng.uniform(0.02, self.seconds))
        for signum in signals:
            os.kill(child, signum)
            time.sleep(rng.uniform(0, 0.02))
        return wait(child, LONGEST)

    def output_of(self, function) -> tuple[int, str]:
        with tempfile.TemporaryFile() as file:
            reader, writer = os.pipe()
            child = start(function, writer, writer)
            os.close(writer)
            with os.fdopen(reader, "rb") as pipe:
                file.write(pipe.read())
            code = wait(child, LONGEST)
            file.seek(0)
            return code, file.read().decode(errors="replace")

    def stop(self, folder: Path, signals: list[int], rng) -> None:
        with tempfile.TemporaryFile() as file:
            child = start(lambda: self.script(Trainer, self.command(folder)), file.fileno(), file.fileno())
            time.sleep(0.05)  # until it answers signals
            code = self.disturb(child, signals, rng)
            file.seek(0)
            check_end(code, file.read().decode(errors="replace"), ENDS)
        self.finish(folder)

    def use(self, folder: Path, rng) -> None:
        """Give folder/last.ckpt to one of the scripts."""
        if rng.random() < 0.5:
            argv = ["--DR", str(self.data), "--save_root", str(folder / "out"), "--device=cpu"]
            script, argv = Tester, [*argv, "--ckpt_path", str(folder / "last.ckpt"), "--no-make_gif"]
        else:
            script, argv = Trainer, [*resumed(self.data, folder), "--num_epoch=4"]
        code, output = self.output_of(lambda: cli.run(lambda: script.main(argv)))
        check_end(code, output, {0, cli.USER_MISTAKE})

    def finish(self, folder: Path) -> None:
        """Continue the run to its end, and compare its folder."""
        code, output = self.output_of(lambda: cli.run(lambda: Trainer.main(self.command(folder))))
        if code:
            raise DisturbedError(f"it could not be continued: {output[-300:]}")
        found = contents(folder)
        different = sorted(found.keys() ^ self.expected.keys())
        different += [name for name in found.keys() & self.expected if found[name] != self.expected[name]]
        if different:
            raise DisturbedError(f"other than in an undisturbed run: {', '.join(different)}")


def check_end(code: int, output: str, codes: set[int]) -> None:
    """An expected exit code; a line about it if it is not 0; no traceback."""
    name = Path(sys.argv[0]).name
    lines = [line for line in output.replace("\r", "\n").split("\n") if line.startswith(f"{name}: ")]
    if code not in codes or "Traceback" in output or (code and not lines):
        raise DisturbedError(f"exit code {code}, output: {output[-1500:]}")


def main() -> None:
    """Run cases in turn until the time is over, and print how many of each kind ended well."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of the one case to run")
    own = parser.parse_args()
    torch.set_num_threads(1)  # a copy of this process has no other threads
    with tempfile.TemporaryDirectory() as root:
        soak, good, bad = Soak(Path(root)), Counter(), Counter()
        cases = [getattr(soak, name) for name in dir(soak) if name.startswith("case_")]
        until, number = time.monotonic() + 60 * own.minutes, own.only or 0
        while time.monotonic() < until:
            case = cases[number % len(cases)]
            with tempfile.TemporaryDirectory(dir=root) as folder:
                try:
                    case(Path(folder), np.random.default_rng([own.seed, number]))
                    good[case.__doc__] += 1
                except (DisturbedError, TimeoutError) as failure:
                    bad[case.__doc__] += 1
                    print(f"case {number}, {case.__name__}: {failure}", flush=True)
            number += 1
            if own.only is not None:
                break
    for name in sorted(good | bad):
        print(f"{good[name]:5} of {good[name] + bad[name]:5}  {name}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
