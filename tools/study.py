"""Train a list of runs under one budget and write one page that compares them.

    python tools/study.py report --DR DATA --save_root STUDY --num_epoch 20
    python tools/study.py recipe --DR DATA --save_root STUDY --max_minutes 5 --seeds 3

A study is a text file of runs, one a line: `name: flags of Trainer.py`. Those in tools/studies go by their
names. A flag that is not the tool's own goes to every run. Stopped, the same command goes on where it was.
Written to STUDY: runs/NAME/seed=S (each a run of Trainer.py, with Tester.py's results in test/), study.html
(one file, pictures inside) and study.md with its pictures.
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine import console  # noqa: E402

if __name__ == "__main__":
    console.quit_on_signals()

from engine.console import UserError  # noqa: E402
from engine.parser import Parser, real, whole  # noqa: E402
from tools.study_page import Finished, write_pages  # noqa: E402

STUDIES = Path(__file__).parent / "studies"


@dataclass(frozen=True)
class Job:
    """One training run of a study: its name, its flags (budget and seed included) and its folder."""

    name: str
    flags: tuple[str, ...]
    seed: int
    folder: Path


def parse(argv=None) -> tuple[argparse.Namespace, list[str]]:
    """The tool's flags, and the flags for every run."""
    names = ", ".join(sorted(path.stem for path in STUDIES.glob("*.txt")))
    parser = Parser(prog="study.py", description="Train a list of runs and compare them on one page.")
    add = parser.add_argument
    add("study", help=f"{names}, or a file of your own: one run a line, `name: flags`")
    add("--DR", type=Path, required=True, help="dataset folder, in the lab's layout")
    add("--save_root", type=Path, required=True, help="folder for the runs and the page")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--num_epoch", type=whole(1), help="epochs of each run")
    budget.add_argument("--max_minutes", type=real(0, above=True), help="minutes of training of each run")
    add("--seeds", type=whole(1), default=1, help="how often each run is trained: seeds 0, 1, ..")
    add("--device", help="cuda, cuda:1, cpu; by default CUDA where there is one")
    return parser.parse_known_args(argv)


def read_study(name: str) -> dict[str, list[str]]:
    """The runs of a study: name -> flags.

    Raises:
        UserError: there is no such study, or a line is not `name: flags`.
    """
    path = STUDIES / f"{name}.txt"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(study.stem for study in STUDIES.glob("*.txt")))
        raise UserError(f"{name}: neither a study ({known}) nor a file")
    runs = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        run, colon, flags = line.partition(":")
        run = run.strip()
        if not colon or not run:
            raise UserError(f"{path}, line {number}: expected `name: flags`")
        if slug(run) in map(slug, runs):
            raise UserError(f"{path}, line {number}: a second run of the name {run}")
        try:
            runs[run] = shlex.split(flags)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
    if not runs:
        raise UserError(f"{path}: names no runs")
    return runs


def slug(name: str) -> str:
    """A run's name as a folder's name."""
    return re.sub(r"[^\w.=+-]+", "_", name).strip("_") or "run"


def plan(args, common: list[str]) -> list[Job]:
    """Every run of the study with every seed, the first seed of all runs first."""
    budget = []
    if args.num_epoch:
        budget = ["--num_epoch", str(args.num_epoch)]
    elif args.max_minutes:
        budget = ["--max_minutes", f"{args.max_minutes:g}"]
    runs = read_study(args.study)
    return [
        Job(name, (*common, *flags, *budget), seed, args.save_root / "runs" / slug(name) / f"seed={seed}")
        for seed in range(args.seeds)
        for name, flags in runs.items()
    ]


def check_unchanged(job: Job) -> None:
    """Refuse to go on with a run that was begun with other flags; note the flags of a new one."""
    note, flags = job.folder / "study.json", list(job.flags)
    if note.is_file():
        begun = json.loads(note.read_text())
        if begun != flags:
            raise UserError(
                f"{job.folder}: was begun with the flags `{shlex.join(begun)}`, not `{shlex.join(flags)}`; "
                "delete it, or give another --save_root"
            )
        return
    job.folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(flags))


def call(script: str, *arguments) -> int:
    """Run one of the two scripts; returns its exit code.

    Raises:
        Stopped, KeyboardInterrupt: this tool was told to stop, and the script with it.
    """
    process = subprocess.Popen([sys.executable, str(ROOT / script), *map(str, arguments)])
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise


def complete(job: Job, args) -> str | None:
    """Train and test a run, or what is left of that; returns what went wrong."""
    results = job.folder / "test" / "results.json"
    if results.is_file():
        return None
    shared = ["--DR", args.DR, *(["--device", args.device] if args.device else [])]
    resume = ["--resume"] if (job.folder / "last.ckpt").is_file() else []
    train = ["--save_root", job.folder, "--seed", job.seed, *job.flags, *resume]
    if code := call("Trainer.py", *shared, *train):
        return f"Trainer.py ended with exit code {code}"
    test = ["--save_root", results.parent, "--ckpt_path", job.folder / "best.ckpt", "--drift"]
    if code := call("Tester.py", *shared, *test):
        return f"Tester.py ended with exit code {code}"
    return None


def main(argv=None) -> None:
    """Plan, complete every run, write the page."""
    args, common = parse(argv)
    jobs = plan(args, common)
    for job in jobs:
        check_unchanged(job)
    finished, failed = [], []
    for number, job in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {job.name}, seed {job.seed}", flush=True)
        if trouble := complete(job, args):
            console.complain(f"{job.name}, seed {job.seed}: {trouble}")
            failed.append(job)
            continue
        finished.append(Finished.read(job.name, job.flags, job.seed, job.folder))
        # After each run, so that a stopped study shows what it has.
        write_pages(args.save_root, args.study, finished)
    if failed:
        raise UserError(f"{len(failed)} of {len(jobs)} runs failed; the same command tries them again")
    print(f"the comparison is in {args.save_root / 'study.html'} and study.md")


if __name__ == "__main__":
    console.run(main)
