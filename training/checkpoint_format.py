"""Former formats of this project's checkpoints, translated to the current one."""

FORMAT_VERSION = 2
# Names that changed in version 2.
RENAMED_FLAGS = {
    "first_frame": "reference_frame", "shifts": "tta", "fold": "patch_size", "scales": "unet_levels",
    "mse_weights": "recon_loss",
}  # fmt: skip
RENAMED_VALUES = {
    "recon_loss": {"psnr": "log_mse", "even": "mse"},
    "augment": {"turn": "affine", "paste": "copy_paste", "tilt": "person_affine"},
    "precision": {"fp16": "fp32"},
}
RENAMED_KEYS = {
    ".enter.": ".in_block.", ".leave.": ".out_block.", ".inject.": ".z_proj.", ".deep.": ".levels.",
    "Generator.paint.": "Generator.to_pixels.",
}  # fmt: skip


def upgraded(checkpoint: dict) -> dict:
    """A checkpoint of version 1 in the current format."""
    args = {RENAMED_FLAGS.get(name, name): value for name, value in checkpoint["args"].items()}
    for name, renamed in RENAMED_VALUES.items():
        if isinstance(args.get(name), str):
            args[name] = ",".join(renamed.get(value, value) for value in args[name].split(","))
    return checkpoint | {
        "format_version": FORMAT_VERSION,
        "args": args,
        "state_dict": {_renamed(key): value for key, value in checkpoint["state_dict"].items()},
    }


def _renamed(key: str) -> str:
    for former, current in RENAMED_KEYS.items():
        key = key.replace(former, current)
    return key
