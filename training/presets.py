"""Defaults that come together: of a recipe, of a long run, of large frames."""

from training.schedules import KL_ANNEAL_START

RECIPES = {
    "default": {},
    "lab": {
        "arch": "lab", "optim": "Adam", "weight_decay": 0.0,
        "lr": 0.001, "lr_schedule": "step", "lr_warmup": 0,
        "batch_size": 2, "train_vi_len": 16, "start_vi_len": 16,
        "clips": "in_order", "first_frame": "clip", "augment": "none",
        "tfr": 1.0, "tfr_sde": 10,
        "kl_anneal_cycle": 10, "kl_anneal_ratio": 1.0, "kl_anneal_start": KL_ANNEAL_START,
        "kl_reduction": "sum", "z_dropout": 0.0, "mse_weights": "even",
        "per_val": 1, "z": "sample", "fill_poses": 0, "shifts": 1, "precision": "fp32",
    },
}  # fmt: skip

# What pays in a run of many minutes alone (docs/quality.md): from LONG_RUN minutes on, with --arch unet.
LONG_RUN = 20
LONG_RUN_DEFAULTS = {"D_out_dim": 96, "augment": "paste,tilt"}

# What pays for large frames alone (docs/own-video.md): from a number of pixels on.
LARGE_FRAMES = {128 * 64: {"batch_size": 1, "shifts": 1}, 192 * 96: {"fold": 4}}


def by_minutes(arch: str, minutes: float | None) -> dict:
    """What a run of some minutes sets; nothing if it is short, or counted in epochs."""
    return LONG_RUN_DEFAULTS if arch == "unet" and (minutes or 0) >= LONG_RUN else {}


def by_size(arch: str, pixels: int) -> dict:
    """What frames of some pixels set; nothing if they are small."""
    values = {}
    for least, preset in LARGE_FRAMES.items():
        values |= preset if pixels >= least else {}
    return {name: value for name, value in values.items() if arch == "unet" or name != "fold"}
