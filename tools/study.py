"""Train a list of runs, and write one page that compares them.

    python -m tools.study report --DR DATA --save_root STUDY
    python -m tools.study recipe --DR DATA --save_root STUDY --max_minutes 5 --seeds 3

A study is a text file with one run per line, `name: flags of Trainer.py`. Studies in tools/studies are called
by name. Flags of Trainer.py on the command line apply to every run. To continue a study, rerun the command.
Written to STUDY: runs/NAME/seed=S (each a run of Trainer.py, with Tester.py's results in test/), study.html
(one file, images embedded) and study.md with its images.
"""

import argparse
import importlib.util
import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime import cli

if __name__ == "__main__":
    cli.prepare()  # before torch and matplotlib, which take seconds to import

from runtime import files
from runtime.cli import UserError, log
from runtime.parser import Parser, int_range
from tools import children
from tools.study_page import MIN_VALUES, FinishedRun, write_pages
from training import configuration
from training.summary import idle_schedules

ROOT = Path(__file__).resolve().parents[1]
STUDIES = {path.stem: path for path in sorted((ROOT / "tools" / "studies").glob("*.txt"))}
BUDGET = {"num_epoch", "max_minutes"}
SET_HERE = {"DR", "save_root", "device", "seed", "resume", "ckpt_path", "test"}  # for each run


@dataclass(frozen=True)
class Job:
    """One training run of a study: its name, flags (without the seed), seed and folder."""

    name: str
    flags: tuple[str, ...]
    seed: int
    folder: Path


def parse(argv: list[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The tool's flags, and the flags for every run."""
    # Without abbreviations, because --seed would be read as --seeds.
    about = "Compare training runs on one page. Flags of Trainer.py apply to every run."
    parser = Parser(prog="study.py", description=about, allow_abbrev=False)
    add = parser.add_argument
    add("study", help=f"{', '.join(STUDIES)}, or a text file with lines `name: flags of Trainer.py`")
    add("--DR", type=Path, required=True, help="dataset root")
    add("--save_root", type=Path, required=True, help="folder for the runs and the page")
    add("--seeds", type=int_range(1), default=1, help="number of seeds per run: 0, 1, ...")
    add("--device", help="cpu, cuda, cuda:N or mps (Apple); by default CUDA where available")
    return parser.parse_known_args(argv)


def read_study(name: str) -> dict[str, list[str]]:
    """The runs of a study, name -> flags; a `UserError` if it does not exist or has a wrong line."""
    path = STUDIES.get(name, Path(name))
    if not path.is_file():
        raise UserError(f"{name}: neither a study ({', '.join(STUDIES)}) nor a file")
    runs = {}
    for number, line in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        run, colon, flags = (part.strip() for part in line.partition(":"))
        if not colon or not run:
            raise UserError(f"{path}, line {number}: expected `name: flags`")
        if slug(run) in map(slug, runs):
            raise UserError(f"{path}, line {number}: a second run with the name {run}")
        try:
            runs[run] = shlex.split(flags)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
    if not runs:
        raise UserError(f"{path}: no runs in it; expected lines of the form `name: flags`")
    return runs


def slug(name: str) -> str:
    """A run's name as a folder's name."""
    return re.sub(r"[^\w.=+-]+", "_", name).strip("_") or "run"


def flag_names(words: list[str], where: str) -> set[str]:
    """The names of the flags of Trainer.py in a part of its command line; a `UserError` if one is wrong."""
    known = vars(configuration.trainer_args(["--DR=.", "--save_root=.", *words])).keys() - SET_HERE
    names = {word[2:].partition("=")[0] for word in words if word.startswith("--")}
    if wrong := sorted(names - known):
        expected = "expected unabbreviated flags of Trainer.py that the study does not set itself"
        raise UserError(f"{where}: --{wrong[0]}: {expected}")
    return names


def check_flags(runs: dict[str, list[str]], common: list[str]) -> None:
    """Check the flags of all runs, and log schedules that a run is too short for.

    Raises:
        UserError: a flag is wrong, or is set both for every run and by a run.
    """
    common_names = flag_names(common, "command line")
    for run, flags in runs.items():
        for own in sorted(flag_names(flags, run)):
            for name in common_names & (BUDGET if own in BUDGET else {own}):
                remedy = f"leave --{name} out of the command line, or edit the study file"
                raise UserError(f"{run} sets --{own} itself; {remedy}")
        for line in idle_schedules(configuration.trainer_args(["--DR=.", "--save_root=.", *common, *flags])):
            log(f"{run}: {line}")


def plan(args, common: list[str]) -> list[Job]:
    """Every run of the study with every seed, the first seed of all runs first."""
    runs = read_study(args.study)
    check_flags(runs, common)
    return [
        Job(name, (*common, *flags), seed, args.save_root / "runs" / slug(name) / f"seed={seed}")
        for seed in range(args.seeds)
        for name, flags in runs.items()
    ]


def check_unchanged(job: Job) -> None:
    """Record the flags of a new run in study.json; a `UserError` if the run was begun with other flags."""
    record = job.folder / "study.json"
    if not record.exists():
        job.folder.mkdir(parents=True, exist_ok=True)
        files.write(record, json.dumps(job.flags))
    begun = json.loads(record.read_text())
    if begun != list(job.flags):
        flags = f"was started with the flags `{shlex.join(begun)}`, not `{shlex.join(job.flags)}`"
        raise UserError(f"{job.folder}: {flags}; delete it, or give another --save_root")


def call(script: str, *arguments) -> None:
    """Run Trainer.py or Tester.py; a `UserError` if it fails."""
    children.run([sys.executable, ROOT / script, *arguments])


def complete(job: Job, args) -> FinishedRun:
    """Train and test a run, skipping completed steps. Raises a `UserError` on failure."""
    if not (job.folder / "test" / "results.json").is_file():  # the last file of a test
        shared = ["--DR", args.DR, *(["--device", args.device] if args.device else [])]
        # If training is complete, --resume returns immediately.
        resume = ["--resume"] if (job.folder / "last.ckpt").is_file() else []
        call("Trainer.py", *shared, "--save_root", job.folder, "--seed", job.seed, *job.flags, *resume)
        checkpoint = job.folder / "best.ckpt"
        call("Tester.py", *shared, "--save_root", job.folder / "test", "--ckpt_path", checkpoint, "--drift")
    return FinishedRun.read(job.name, job.flags, job.folder)


def main(argv: list[str] | None = None) -> None:
    """Plan, complete every run, write the page."""
    args, common = parse(argv)
    jobs = plan(args, common)
    for job in jobs:
        check_unchanged(job)
    if args.seeds >= MIN_VALUES and not importlib.util.find_spec("scipy"):
        log("no confidence intervals: scipy is missing (pip install scipy)")
    finished = []
    for number, job in enumerate(jobs, 1):
        log(f"[{number}/{len(jobs)}] {job.name}, seed {job.seed}")
        try:
            finished.append(complete(job, args))
        except UserError as error:
            cli.print_error(f"{job.name}, seed {job.seed}: {error}")
            continue
        # After each run, so an interrupted study has a page, too.
        write_pages(args.save_root, args.study, finished)
    if failed := len(jobs) - len(finished):
        raise UserError(f"{failed} of {len(jobs)} runs failed; rerun the same command to retry them")
    log(f"the comparison is in {args.save_root / 'study.html'} and study.md")


if __name__ == "__main__":
    cli.run(main)
