"""Checkpoints: what one holds, written and read; complete or not written at all; read without running code.

Keys of the course lab: `state_dict, optimizer, lr, tfr, last_epoch` (the last finished epoch). Beside them:
`format_version, args, step, history, rng, kept`. Only tensors and plain values are stored (docs/contract.md,
"Checkpoint").
"""

import argparse
import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from runtime import files, run_dir
from runtime.cli import UserError
from training import options
from training.history import COLUMNS, History
from training.step import TrainingStep, load_optimizer
from training.stored import Checked, check_intact, check_optimizer, check_values, check_weights

FORMAT_VERSION = 1
# A checkpoint in the course lab's format holds no flags. It was trained by that protocol; here its z is not
# sampled, because z = 0 scores higher.
COURSE_FLAGS = {"recipe": "lab", "z": "mean"}


class Checkpoints:
    """Saves a run in its folder, and restores it.

    Args:
        args: all flags of the run.
        step: the training step, with its model and optimizer.
        history: the records of the run.

    Attributes:
        kept: whether last.ckpt is kept as epoch=E.ckpt, too.
    """

    def __init__(self, args, step: TrainingStep, history: History):
        self.args, self.step, self.history = args, step, history
        self.kept = False

    def begin_folder(self) -> None:
        """Make the folder of a new run ready: no former run, args.json, and the start of a branch."""
        args = self.args
        if args.overwrite:
            run_dir.delete_run(args.save_root, keep=args.ckpt_path)
        self.write_args()
        if self.history.rows:
            self.history.branch()
            self.save(keep=False)

    def write_args(self) -> None:
        """Write args.json."""
        files.write(self.args.save_root / "args.json", json.dumps(options.storable(self.args), indent=2))

    def save(self, keep: bool) -> None:
        """Write last.ckpt; copy it to best.ckpt if the last epoch is the best, to epoch=E.ckpt if `keep`.

        Raises:
            UserError: the disk is full, or the folder cannot be written; each file is what it was before.
        """
        self.kept = keep
        write(self.args.save_root / "last.ckpt", self._checkpoint())
        self.complete()

    def complete(self) -> None:
        """Write the copies of last.ckpt; a run that was killed between it and them makes up for it so."""
        root, epoch = self.args.save_root, self.history.rows[-1]["epoch"]
        for name in ["best.ckpt"] * self.history.last_is_best() + [f"epoch={epoch}.ckpt"] * self.kept:
            files.copy(root / "last.ckpt", root / name)

    def _checkpoint(self) -> dict:
        row = self.history.rows[-1]
        return {
            "state_dict": self.step.model.state_dict(),
            "optimizer": self.step.optimizer.state_dict(),
            "lr": row["lr"],
            "tfr": row["tfr"],
            "last_epoch": row["epoch"],
            "format_version": FORMAT_VERSION,
            "args": options.storable(self.args),
            "step": self.step.updates,
            "history": self.history.state_dict(),
            "rng": rng_state(self.step.device),
            "kept": self.kept,
        }

    def restore(self, path: Path, checkpoint: dict) -> int:
        """Continue from a checkpoint that `read` returned; returns the next epoch.

        A checkpoint of the course lab brings its weights and its epoch alone. The state of another optimizer
        than `--optim`, and of random generators of another `--seed`, are left out.
        """
        load_weights(self.step.model, path, checkpoint)
        if is_complete(checkpoint):
            flags = checkpoint["args"]
            if (former := flags.get("optim", self.args.optim)) == self.args.optim:
                check_optimizer(path, checkpoint["optimizer"], self.step.optimizer)
                load_optimizer(self.step.optimizer, checkpoint["optimizer"])
            else:
                print(f"{path}: trained with --optim {former}; {self.args.optim} starts without a state")
            self.step.updates = checkpoint["step"]
            self.history.load_state_dict(checkpoint["history"])
            self.kept = checkpoint.get("kept", False)  # a former version did not store it
            if flags.get("seed", self.args.seed) == self.args.seed:
                restore_rng(checkpoint["rng"], self.step.device)
        else:
            print(f"{path}: in the course lab's format; the optimizer starts without its state")
        return checkpoint.get("last_epoch", -1) + 1


def write(path: Path, checkpoint: dict) -> None:
    """Save a checkpoint so that `path` holds either what it held before, or all of this.

    Raises:
        UserError: the disk is full, or the folder cannot be written.
    """
    # torch.save reports a full disk as a RuntimeError without a cause; writing bytes raises an OSError.
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    files.write(path, buffer.getvalue())


def read(path: Path) -> dict:
    """Load a checkpoint of this project or of the course lab to the CPU; never runs code that a file holds.

    Raises:
        UserError: no such file, damaged, not a checkpoint, or a pickle of more than plain values.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    check_intact(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickles, which end in an error below
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(_why_unreadable(path, error)) from None
    except PermissionError:
        raise
    except Exception as error:  # the unpickler raises errors of any kind for arbitrary bytes
        raise UserError(f"{path}: damaged, or not a checkpoint ({_first_line(error)})") from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{path}: not a checkpoint, it has no state_dict")
    if is_complete(checkpoint):
        if Checked(path, checkpoint).count("format_version") > FORMAT_VERSION:
            raise UserError(f"{path}: written by a newer version of this program")
        check_values(path, checkpoint, COLUMNS)
    elif "last_epoch" in checkpoint:
        Checked(path, checkpoint).count("last_epoch")
    return checkpoint


def _why_unreadable(path: Path, error: Exception) -> str:
    if zipfile.is_zipfile(path) or "Unsupported" in str(error) or "GLOBAL" in str(error):
        return f"{path}: holds more than tensors and plain values, so it was not loaded (it may run code)"
    return f"{path}: damaged, or not a checkpoint"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__


def is_complete(checkpoint: dict) -> bool:
    """Whether a checkpoint brings all that a resume needs; those of the course lab bring weights alone."""
    return "format_version" in checkpoint


def stored_flags(checkpoint: dict) -> dict:
    """The flags that a checkpoint was trained with."""
    return checkpoint.get("args", COURSE_FLAGS)


def check_model_flags(path: Path, checkpoint: dict, typed: dict) -> None:
    """Refuse flags on the command line that contradict the model of a checkpoint."""
    stored = stored_flags(checkpoint)
    for name in options.MODEL_FLAGS:
        if name in typed and name in stored and typed[name] != stored[name]:
            raise UserError(f"{path}: has --{name} {stored[name]}, not {typed[name]}; leave the flag out")


def resolve(groups: dict, typed: dict, path: Path) -> tuple[argparse.Namespace, dict]:
    """Read a checkpoint, and decide every flag by the command line and by what the checkpoint stores.

    Args:
        groups, typed: see `options.resolve`.

    Raises:
        UserError: the checkpoint cannot be read, or a flag contradicts its model.
    """
    checkpoint = read(path)
    check_model_flags(path, checkpoint, typed)
    stored = stored_flags(checkpoint)
    if groups is options.TESTER:
        own = {flag.dest for flag in options.TEST}  # in training, some of these names mean something else
        stored = {name: value for name, value in stored.items() if name not in own}
    args = options.resolve(groups, typed, stored)
    args.ckpt_path = path
    return args, checkpoint


def trainer_flags(argv: list[str] | None) -> tuple[argparse.Namespace, dict | None]:
    """The flags of Trainer.py, and the checkpoint that they continue or test (None for a new run).

    Raises:
        UserError: see `resolve`; or the flags name two checkpoints, or none where one is needed.
    """
    typed = vars(options.trainer_parser().parse_args(argv))
    path, resume = typed.get("ckpt_path"), typed.get("resume")
    if resume and path:
        raise UserError("--resume and --ckpt_path name two checkpoints; give one of them")
    if typed.get("test") and not path:
        raise UserError("--test needs --ckpt_path, the checkpoint to validate")
    if typed.get("overwrite") and (resume or typed.get("test")):
        raise UserError("--overwrite deletes the run in --save_root, but --resume and --test need or keep it")
    if resume:
        path = typed["save_root"] / "last.ckpt"
        if not path.is_file():
            raise UserError(f"{path}: nothing to resume there; leave out --resume to start a run")
    if not path:
        return options.resolve(options.TRAINER, typed), None
    args, checkpoint = resolve(options.TRAINER, typed, path)
    if resume:
        _check_same_run(args, checkpoint)
    return args, checkpoint


def _check_same_run(args, checkpoint: dict) -> None:
    """Refuse flags that a resumed run cannot have: its optimizer and its random numbers go on."""
    for name in ("optim", "seed"):
        stored = stored_flags(checkpoint).get(name, getattr(args, name))
        if getattr(args, name) != stored:
            remedy = "--ckpt_path with another --save_root starts a branch with another"
            raise UserError(
                f"--{name} {getattr(args, name)}: the run has {stored}, and goes on with it; {remedy}"
            )


def tester_flags(argv: list[str] | None) -> tuple[argparse.Namespace, dict]:
    """The flags of Tester.py, and the checkpoint to render with. Raises as `resolve` does."""
    typed = vars(options.tester_parser().parse_args(argv))
    return resolve(options.TESTER, typed, typed["ckpt_path"])


def load_weights(model: nn.Module, path: Path, checkpoint: dict) -> None:
    """Put a checkpoint's weights into a model of the same sizes.

    Raises:
        UserError: other names, shapes or types than the model's, or values that are not sane.
    """
    hint = "check --arch, --F_dim, --L_dim, --N_dim, --D_out_dim, --fold and --scales"
    check_weights(path, checkpoint["state_dict"], model.state_dict(), hint)
    model.load_state_dict(checkpoint["state_dict"])


def rng_state(device: torch.device) -> dict:
    """The states of torch's random generators, of the CPU and of the run's device if that is CUDA."""
    cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_rng(state: dict, device: torch.device) -> None:
    """Set the generators to what `rng_state` returned; CUDA's only if that run was on CUDA, too."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and state["cuda"]:
        torch.cuda.set_rng_state(state["cuda"][0], device)
