"""Checkpoints: atomic saving, safe loading, models for inference, and resuming a run.

Keys of the course: `state_dict, optimizer, lr, tfr, last_epoch` (the last finished epoch). Beside them:
`format_version, args, step, history, rng` (docs/compatibility.md, "Checkpoint").
"""

import argparse
import io
import json
import pickle
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn
from torch.serialization import safe_globals

from modules import VAE_Model
from runtime import files, run_dir
from runtime.cli import UserError, log
from runtime.device import to_device

from . import configuration, course_checkpoint, options
from .checkpoint_format import FORMAT_VERSION, upgraded
from .checkpoint_validation import check_optimizer, check_types, check_weights
from .history import History
from .optimizers import load_optimizer

MAX_NAMES = 8  # of entries, to print


def load_for_inference(
    path: str | Path, device: str | torch.device = "cpu", **overrides
) -> tuple[VAE_Model, argparse.Namespace]:
    """A trained model, and the configuration to generate with.

        model, config = load_for_inference("RUN/best.ckpt")
        video = model.generate(first_frame, poses, tta=config.tta)

    Args:
        path: a checkpoint of this project or of the course.
        overrides: flags of Tester.py that override the checkpoint's values, such as `tta=1`.

    Returns:
        The model in eval mode on `device`; and every flag of Tester.py, with `last_epoch`, `last_lr` and
        `train_seconds` of the checkpoint (None if unknown).

    Raises:
        UserError: not a checkpoint, damaged, or an override contradicts its model.
        TypeError: an override is not a flag of Tester.py.
    """
    path = Path(path)
    checkpoint = read(path)
    config = _resolve(options.TESTER, overrides, path, checkpoint)
    if unknown := sorted(overrides.keys() - vars(config).keys()):
        raise TypeError(f"load_for_inference() has no override {unknown[0]!r}; see the flags of Tester.py")
    rows = checkpoint.get("history", {}).get("rows")
    config.train_seconds = sum(row["seconds"] for row in rows) if rows else None
    config.last_epoch, config.last_lr = checkpoint.get("last_epoch"), checkpoint.get("lr")
    model = VAE_Model(config)
    load_weights(model, path, checkpoint)
    return to_device(model, config.arch, torch.device(device)).eval(), config


def read(path: Path) -> dict:
    """Load a checkpoint of this project or of the course to the CPU; never runs code from the file."""
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        if zipfile.is_zipfile(path) and (part := zipfile.ZipFile(path).testzip()):
            raise ValueError(f"{part} differs from its checksum")  # torch.load does not compare them
        with warnings.catch_warnings(), safe_globals(course_checkpoint.harmless_types()):
            warnings.simplefilter("ignore")  # about unusual pickles, which fail anyway
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # the unpickler raises errors of any kind for arbitrary bytes
        raise UserError(f"{path}: cannot load: {_why_not_loaded(path, error)}") from None
    if not isinstance(checkpoint, dict):
        raise UserError(f"{path}: not a checkpoint")
    if not is_own(checkpoint):
        return course_checkpoint.converted(path, checkpoint)
    version = checkpoint["format_version"]
    if not isinstance(version, int) or version not in (1, FORMAT_VERSION):
        raise UserError(f"{path}: written by a newer version of this project")
    check_types(path, checkpoint)
    checkpoint["args"].setdefault("pose_background", options.WHITE)  # former versions assumed it
    return upgraded(path, checkpoint) if version == 1 else checkpoint


def _why_not_loaded(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        if file.read(2) not in (b"PK", b"\x80\x02"):  # of a zip file, and of a pickle of protocol 2
            return "not written by torch.save with its default settings"
    if name := re.search(r"GLOBAL (\S+)", str(error)):
        return f"contains {name[1]}, which may run code; save only the state_dict"
    if "Unsupported operand" in str(error):
        return "damaged, or saved with another pickle_protocol than torch.save's default"
    if isinstance(error, pickle.UnpicklingError):
        return "damaged, or it may run code"
    reason = re.split(r"\n|\. ", str(error).strip())[0] or type(error).__name__
    return f"damaged, or not a checkpoint ({reason[:120]})"


def write(path: Path, checkpoint: dict) -> None:
    """Save a checkpoint atomically."""
    # torch.save reports a full disk as a RuntimeError without a cause; writing bytes raises an OSError.
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    files.write(path, buffer.getvalue())


def is_own(checkpoint: dict) -> bool:
    """Whether a checkpoint is of this project, and has all that a resume needs; the course's have weights."""
    return "format_version" in checkpoint


def load_weights(model: nn.Module, path: Path, checkpoint: dict) -> None:
    """Load a checkpoint's weights if they match; logs the ignored entries of a course checkpoint."""
    if left_out := checkpoint.get("left_out"):
        more = f" and {len(left_out) - MAX_NAMES} more" if len(left_out) > MAX_NAMES else ""
        log(f"{path}: course checkpoint; ignoring {', '.join(left_out[:MAX_NAMES])}{more}")
    check_weights(path, checkpoint["state_dict"], model.state_dict())
    model.load_state_dict(checkpoint["state_dict"])


def _resolve(groups: dict, cli_args: dict, path: Path, checkpoint: dict) -> argparse.Namespace:
    """Every flag, by the checkpoint and the command line, which must not contradict its model."""
    checkpoint_args = checkpoint["args"]
    for name in options.WEIGHT_FLAGS:
        if name in cli_args and cli_args[name] != checkpoint_args.get(name, cli_args[name]):
            values = f"{checkpoint_args[name]}, not {cli_args[name]}"
            raise UserError(f"{path}: trained with --{name} {values}; omit the flag")
    args = configuration.resolve(groups, cli_args, checkpoint_args)
    args.ckpt_path = path
    return args


def resolve_trainer(argv: list[str] | None) -> tuple[argparse.Namespace, dict | None]:
    """The flags of Trainer.py, and the checkpoint that they continue or test (None for a new run)."""
    cli_args = vars(options.parser(options.TRAINER).parse_args(argv))
    path, resume = cli_args.get("ckpt_path"), cli_args.get("resume")
    if resume and path:
        raise UserError("--resume and --ckpt_path are mutually exclusive")
    if cli_args.get("test") and not path:
        raise UserError("--test needs --ckpt_path, the checkpoint to validate")
    if cli_args.get("overwrite") and (resume or cli_args.get("test")):
        raise UserError("--overwrite cannot be combined with --resume or --test")
    if resume:
        path = cli_args["save_root"] / "last.ckpt"
        if not path.is_file():
            raise UserError(f"{path}: not found; omit --resume to start a new run")
    checkpoint = read(path) if path else None
    if checkpoint is None:
        args = configuration.resolve(options.TRAINER, cli_args)
    else:
        args = _resolve(options.TRAINER, cli_args, path, checkpoint)
    configuration.require_dataset(args, "DR" in cli_args)
    for name in ("optim", "seed") if resume else ():
        former = checkpoint["args"].get(name, getattr(args, name)) if is_own(checkpoint) else None
        if getattr(args, name) != former:
            remedy = "to change it, continue from --ckpt_path in a new --save_root"
            raise UserError(f"--{name} {getattr(args, name)}: the run has {former}; {remedy}")
    return args, checkpoint


class Checkpoints:
    """Saves a run in its folder, and restores it."""

    def __init__(self, args, model: nn.Module, optimizer: torch.optim.Optimizer, history: History):
        self.args, self.model, self.optimizer, self.history = args, model, optimizer, history
        self.on_cuda = next(model.parameters()).is_cuda

    def start_folder(self, updates: int) -> None:
        """Prepare the folder of a new run: no former run, args.json, and the start of a branch."""
        if self.args.overwrite:
            run_dir.delete_run(self.args.save_root, keep=self.args.ckpt_path)
        self.write_args()
        if self.history.rows:
            self.history.branch()
            self.save(updates, keep=False)

    def write_args(self) -> None:
        """Write args.json."""
        values = configuration.plain_values(self.args)
        files.write(self.args.save_root / "args.json", json.dumps(values, indent=2))

    def save(self, updates: int, keep: bool) -> None:
        """Write last.ckpt; copy it to best.ckpt if the last epoch is the best, to epoch=E.ckpt if `keep`."""
        row = self.history.rows[-1]
        checkpoint = {
            "state_dict": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr": row["lr"],
            "tfr": row["tfr"],
            "last_epoch": row["epoch"],
            "format_version": FORMAT_VERSION,
            "args": configuration.plain_values(self.args),
            "step": updates,
            "history": self.history.state_dict(),
            "rng": {
                "cpu": torch.get_rng_state(),
                "cuda": [torch.cuda.get_rng_state()] if self.on_cuda else [],
            },
        }
        write(self.args.save_root / "last.ckpt", checkpoint)
        self.write_copies(keep)

    def write_copies(self, keep: bool) -> None:
        """Write the copies of last.ckpt, which a killed run may lack."""
        root, epoch = self.args.save_root, self.history.rows[-1]["epoch"]
        for name in ["best.ckpt"] * self.history.last_is_best() + [f"epoch={epoch}.ckpt"] * keep:
            files.copy(root / "last.ckpt", root / name)

    def restore(self, path: Path, checkpoint: dict) -> tuple[int, int]:
        """Continue from a checkpoint that `read` returned; returns the next epoch and the number of updates.

        A checkpoint of the course has only weights and an epoch. The optimizer state is ignored if
        `--optim` differs, and the RNG state if `--seed` differs.

        Raises:
            UserError: the checkpoint does not fit the run, or is damaged.
        """
        load_weights(self.model, path, checkpoint)
        if not is_own(checkpoint):
            log(f"{path}: course checkpoint; starting with a fresh optimizer state")
            epoch = checkpoint["last_epoch"]
            return 0 if epoch is None else epoch + 1, 0
        try:
            self._restore_state(path, checkpoint)
            return checkpoint["last_epoch"] + 1, checkpoint["step"]
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{path}: its run cannot be restored ({reason})") from None

    def _restore_state(self, path: Path, checkpoint: dict) -> None:
        flags = checkpoint["args"]
        if (former := flags.get("optim", self.args.optim)) == self.args.optim:
            check_optimizer(path, checkpoint["optimizer"], self.optimizer)
            load_optimizer(self.optimizer, checkpoint["optimizer"])
        else:
            log(f"{path}: trained with --optim {former}; starting {self.args.optim} with fresh state")
        self.history.load_state_dict(checkpoint["history"])
        if flags.get("seed", self.args.seed) == self.args.seed:
            torch.set_rng_state(checkpoint["rng"]["cpu"])
            if self.on_cuda and checkpoint["rng"]["cuda"]:
                torch.cuda.set_rng_state(checkpoint["rng"]["cuda"][0])
