"""Former formats of this project's checkpoints, translated to the current one."""

from pathlib import Path

import torch
from torch import Tensor

from runtime.cli import UserError

from .options import RENAMED_FLAGS, RENAMED_KINDS

FORMAT_VERSION = 2
# Names that changed in version 2.
RENAMED_VALUES = {
    "recon_loss": {"psnr": "log_mse", "even": "mse"}, "augment": RENAMED_KINDS, "precision": {"fp16": "fp32"},
}  # fmt: skip
RENAMED_KEYS = {
    ".enter.0.0.": ".in_conv.", ".enter.0.1.": ".in_block.0.", ".enter.1.": ".in_block.2.",
    ".leave.": ".out_block.", ".inject.": ".z_proj.", ".deep.": ".levels.",
    "Generator.paint.": "Generator.to_pixels.",
}  # fmt: skip
# A weight that became two in version 2.
FUSED, REFERENCE = "Decoder_Fusion.enter.0.0.weight", "Decoder_Fusion.reference_conv.weight"


def upgraded(path: Path, checkpoint: dict) -> dict:
    """A checkpoint of version 1 in the current format; a `UserError` if it is damaged."""
    try:
        return _upgraded(checkpoint)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: damaged, or of another version ({type(error).__name__}: {error})") from None


def _upgraded(checkpoint: dict) -> dict:
    flags = {former.lstrip("-"): flag.lstrip("-") for former, flag in RENAMED_FLAGS.items()}
    args = {flags.get(name, name): value for name, value in checkpoint["args"].items()}
    for name, renamed in RENAMED_VALUES.items():
        if isinstance(args.get(name), str):
            args[name] = ",".join(renamed.get(value, value) for value in args[name].split(","))
    if FUSED in checkpoint["state_dict"]:
        checkpoint = _with_two_convolutions(checkpoint, args["F_dim"], args["L_dim"])
    weights = {_renamed(key): value for key, value in checkpoint["state_dict"].items()}
    return checkpoint | {"format_version": FORMAT_VERSION, "args": args, "state_dict": weights}


def _with_two_convolutions(checkpoint: dict, frame_chans: int, pose_chans: int) -> dict:
    """The first layer of the decoder fusion, and its state in the optimizer, as two convolutions."""

    def split(weight: Tensor) -> tuple[Tensor, Tensor]:
        frame, reference, pose = weight.split([frame_chans, frame_chans + pose_chans, pose_chans], dim=1)
        return torch.cat([frame, pose], dim=1), reference.clone()

    weights, optimizer = dict(checkpoint["state_dict"]), checkpoint["optimizer"]
    names = list(weights)
    index = names.index(FUSED)
    names.insert(index + 2, REFERENCE)  # after the bias
    weights[FUSED], weights[REFERENCE] = split(weights[FUSED])
    # The optimizer numbers parameters in this order.
    states = {number + (number > index + 1): state for number, state in optimizer["state"].items()}
    if index in states:
        halves = {k: split(v) if v.ndim == 4 else (v, v.clone()) for k, v in states[index].items()}
        states |= {index + 2 * i: {k: half[i] for k, half in halves.items()} for i in (0, 1)}
    groups = [group | {"params": list(range(len(names)))} for group in optimizer["param_groups"]]
    weights = {name: weights[name] for name in names}
    return checkpoint | {"state_dict": weights, "optimizer": {"state": states, "param_groups": groups}}


def _renamed(key: str) -> str:
    for former, current in RENAMED_KEYS.items():
        key = key.replace(former, current)
    return key
