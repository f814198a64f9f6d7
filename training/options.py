"""Every flag of Trainer.py and Tester.py, declared once, and the recipes.

Defaults are the default recipe's; training/configuration.py resolves each flag's value.
"""

import argparse
from pathlib import Path

from modules import ARCHITECTURES
from runtime.parser import REQUIRED, Flag, Parser, colour, float_range, int_range, subset

from .augment import KINDS
from .schedules import KL_CYCLES, KL_END, TFR_END

# Those of "default" are declared with the flags.
RECIPES = {
    "default": {},
    "lab": {
        "arch": "lab", "optim": "Adam", "weight_decay": 0.0,
        "lr": 0.001, "lr_schedule": "step", "lr_warmup": 0,
        "batch_size": 2, "train_vi_len": 16, "start_vi_len": 16,
        "clips": "in_order", "reference_frame": "clip", "augment": "none",
        "tfr": 1.0, "tfr_sde": 10,
        "kl_anneal_cycle": 10, "kl_anneal_ratio": 1.0, "kl_anneal_start": 0.0,
        "kl_reduction": "sum", "z_dropout": 0.0, "recon_loss": "mse",
        "per_val": 1, "z": "sample", "fill_poses": 0, "tta": 1, "precision": "fp32",
    },
    # For frames of about 256x128 (docs/own-video.md).
    "large": {"batch_size": 1, "patch_size": 4, "tta": 1},
}  # fmt: skip
# By their names in lower case, and what students call them.
KL_ANNEAL_TYPES = {
    "cyclical": "Cyclical", "monotonic": "Monotonic", "nokl_annealing": "NoKL_Annealing",
    "none": "NoKL_Annealing", "without": "NoKL_Annealing",
}  # fmt: skip
RENAMED_FLAGS = {
    "--first_frame": "--reference_frame", "--shifts": "--tta", "--fold": "--patch_size",
    "--scales": "--unet_levels", "--mse_weights": "--recon_loss",
}  # fmt: skip
RENAMED_KINDS = {"turn": "affine", "paste": "copy_paste"}

WHITE = "#ffffff"
COUNT, FRAMES = int_range(1), int_range(2)
POSITIVE, FRACTION, PART = (
    float_range(0, exclusive=True),
    float_range(0, 1),
    float_range(0, 1, exclusive=True),
)


def _size(name: str, help: str, **settings) -> Flag:
    """A flag whose default depends on the architecture."""
    sizes = {arch: networks.DEFAULTS.get(name.lstrip("-")) for arch, networks in ARCHITECTURES.items()}
    text = ", ".join(f"{size} for {arch}" for arch, size in sizes.items() if size is not None)
    return Flag(name, None, f"{help} (default: {text})", **settings)


DATASET = Flag(
    "--DR", None, "dataset root folder with train, val and test; by default that of the checkpoint",
    type=Path,
)  # fmt: skip
IMAGES = (
    Flag("--num_workers", 4, "number of threads that decode images for the cache", type=int_range(0, 256)),
    # The pose encoder of the lab architecture mirrors 3 pixels at each edge, so a side has at least 4.
    Flag("--frame_H", 32, "height to which frames are resized", type=int_range(4)),
    Flag("--frame_W", 64, "width to which frames are resized", type=int_range(4)),
)
VALIDATION = (Flag("--val_vi_len", 630, "maximum validation video length in frames", type=FRAMES),)
MODEL = (
    Flag(
        "--arch", "unet", "architecture: multi-scale networks (unet) or the course's (lab); sets the "
        "default sizes below",
        choices=list(ARCHITECTURES),
    ),
    _size("--F_dim", "channels of the frame feature", type=int_range(8)),
    _size("--L_dim", "channels of the pose (label) feature", type=int_range(2)),
    _size("--N_dim", "channels of the latent z", type=int_range(4)),
    _size("--D_out_dim", "channels of the decoder fusion's output", type=int_range(8)),
    _size("--patch_size", "patch size of the encoders", type=int_range(1, 16)),
    _size("--unet_levels", "number of U-Net levels of the decoder fusion", type=int_range(2, 8)),
    _size(
        "--output", "output activation of the generator: linear, or sigmoid for values in (0, 1); the "
        "course's Tester expects linear",
        choices=["linear", "sigmoid"],
    ),
)  # fmt: skip
GENERATION = (
    Flag("--fill_poses", 5, "fill gaps of up to N missing poses with the nearest pose", type=int_range(0)),
    Flag(
        "--pose_background", None, "background colour of the pose images, such as black or 808080; "
        "by default the training poses' most frequent colour", type=colour,
    ),
    Flag(
        "--tta", 3, "test-time augmentation: number of shifted inputs to average over", type=int_range(1, 99)
    ),
    Flag(
        "--z", "mean", "latent in generation: the prior's mean (0) or a sample from the prior",
        choices=["mean", "sample"],
    ),
)  # fmt: skip
TRAINING = (
    Flag(
        "--recipe", "default", "set of default values: those of this list (default), of the course's "
        "protocol (lab), or for frames of about 256x128 (large)", choices=list(RECIPES),
    ),
    Flag("--num_epoch", 70, "number of epochs", type=COUNT),
    Flag(
        "--max_minutes", None, "training time in minutes, excluding validation; replaces --num_epoch",
        type=POSITIVE,
    ),
    Flag("--batch_size", 2, "clips per step at --train_vi_len; more while clips are shorter", type=COUNT),
    Flag("--train_vi_len", 16, "final number of frames per training clip", type=FRAMES),
    Flag("--start_vi_len", 3, "initial number of frames per clip; grows to --train_vi_len", type=FRAMES),
    Flag(
        "--clips", "shuffled", "clip sampling: shuffled at random offsets, or consecutive and in order",
        choices=["shuffled", "in_order"],
    ),
    Flag(
        "--reference_frame", "any", "reference frame in training: the clip's first, or any frame of its shot",
        choices=["clip", "any"],
    ),
    Flag(
        "--augment", "affine,copy_paste", "data augmentations, separated by commas, or none: affine rotates "
        "and shears images, copy_paste moves, rescales and warps the person",
        type=subset(KINDS, RENAMED_KINDS),
    ),
    Flag("--pose_dropout", 0.0, "fraction of training poses to erase, completely or in part", type=FRACTION),
    Flag("--partial", 1.0, "fraction of the training frames to use", type=PART),
    Flag("--fast_train", False, "use fewer clips (--fast_partial) in the first epochs", action="store_true"),
    Flag("--fast_partial", 0.4, "fraction of the clips that --fast_train uses", type=PART),
    Flag("--fast_train_epoch", 5, "number of initial epochs that --fast_train shortens", type=int_range(0)),
    Flag(
        "--recon_loss", "log_mse", "reconstruction loss; log_mse weights the MSE of each frame by 1 / MSE",
        choices=["log_mse", "mse"],
    ),
    Flag("--optim", "Muon", "optimizer; Muon uses AdamW for biases", choices=["Adam", "AdamW", "Muon"]),
    Flag("--weight_decay", 0.2, "weight decay (L2 penalty with --optim Adam)", type=float_range(0)),
    Flag("--lr", 0.004, "peak learning rate", type=POSITIVE),
    Flag(
        "--lr_schedule", "cosine", "learning rate: cosine decay to lr / 100, division by 10 at epochs 2 and "
        "5 (step), or constant",
        choices=["cosine", "step", "constant"],
    ),
    Flag("--lr_warmup", 50, "steps of linear warm-up", type=int_range(0)),
)  # fmt: skip
SCHEDULES = (
    Flag("--tfr", 1.0, "initial teacher-forcing ratio", type=FRACTION),
    Flag(
        "--tfr_sde", None, "epoch at which the teacher-forcing ratio starts to decay; by default "
        f"it decays from the start and reaches 0 at {TFR_END:.0%}% of the run", type=int_range(0),
    ),
    Flag(
        "--tfr_d_step", None, "decrease of the teacher-forcing ratio per epoch; by default, with --tfr_sde, "
        "the ratio reaches 0 in the last epoch", type=FRACTION,
    ),
    Flag(
        "--kl_anneal_type", "Cyclical", "schedule of beta, the KL weight; 'None' and 'without' are aliases "
        "of NoKL_Annealing", type=lambda text: KL_ANNEAL_TYPES.get(text.lower(), text),
        choices=[*dict.fromkeys(KL_ANNEAL_TYPES.values())],
    ),
    Flag(
        "--kl_anneal_cycle", None, "length of a cycle in epochs; by "
        f"default {KL_CYCLES} cycles in the first {KL_END:.0%}% of the run, then beta 1", type=COUNT,
    ),
    Flag("--kl_anneal_ratio", 2.0, "slope R: beta reaches 1 after 1/R of a cycle", type=float_range(0)),
    # With less KL weight the posterior carries information that generation lacks.
    Flag("--kl_anneal_start", 0.3, "minimum of beta", type=FRACTION),
    Flag(
        "--kl_reduction", "elbo", "KL term: summed over z, or (elbo) scaled so that beta 1 gives the ELBO",
        choices=["sum", "elbo"],
    ),
    # An informative posterior lowers the training loss and harms generation, which has z = 0.
    Flag("--z_dropout", 0.5, "fraction of training clips with z = 0", type=FRACTION),
)  # fmt: skip
RUN = (
    Flag("--resume", False, "continue training from last.ckpt in --save_root", action="store_true"),
    Flag("--ckpt_path", None, "checkpoint to continue in a new --save_root, or for --test", type=Path),
    Flag("--overwrite", False, "delete the existing run in --save_root", action="store_true"),
    Flag("--per_save", 3, "save epoch=E.ckpt every N epochs, and after the last", type=COUNT),
    Flag("--per_val", 5, "validate every N epochs, and after the last", type=COUNT),
    Flag("--test", False, "validate --ckpt_path without training", action="store_true"),
    Flag("--store_visualization", False, "keep the GIF and plot of every validation", action="store_true"),
)
TEST = (
    Flag("--ckpt_path", REQUIRED, "checkpoint of the model", type=Path),
    Flag("--val_vi_len", None, "maximum test video length in frames; by default all frames", type=FRAMES),
    Flag(
        "--make_gif", True, "write two GIFs per sequence: the prediction, and a comparison with pose, truth "
        "and error",
        action=argparse.BooleanOptionalAction,
    ),
    Flag("--mp4", False, "write the same videos as MP4 (needs PyAV)", action="store_true"),
    Flag("--submission", False, "write submission.csv in the course's format", action="store_true"),
    Flag(
        "--samples", None, "also report PSNR with z = 0 and one sample of z, and the best and mean of N",
        type=COUNT, metavar="N",
    ),
    Flag("--pose_dropout", 0.0, "also report PSNR with this fraction of the poses erased", type=FRACTION),
    Flag(
        "--drift", False, "also report teacher-forced PSNR, and drift: its lead over the last 100 frames",
        action="store_true",
    ),
    Flag("--test", False, "ignored; the course's command has it", action="store_true"),
)  # fmt: skip
HARDWARE = (
    Flag("--device", None, "cpu, cuda, cuda:N or mps (Apple); by default CUDA where available", type=str),
    Flag("--gpu", 1, "number of GPUs, one process each; 0 selects the CPU", type=int_range(0)),
    Flag(
        "--precision", "auto", "compute precision; auto selects bf16 where the hardware supports it",
        choices=["auto", "fp32", "bf16"],
    ),
    Flag("--threads", None, "CPU threads; by default one per idle core", type=COUNT),
    Flag("--seed", 0, "random seed", type=int_range(0, 2**63 - 1)),
)  # fmt: skip
TRAINER = {
    "data": (DATASET, Flag("--save_root", REQUIRED, "output folder", type=Path), *IMAGES, *VALIDATION),
    "model and generation": (*MODEL, *GENERATION),
    "training": TRAINING,
    "teacher forcing and KL annealing": SCHEDULES,
    "run": RUN,
    "hardware": HARDWARE,
}
TESTER = {
    "data": (
        DATASET,
        Flag("--save_root", None, "output folder; by default `test` beside the checkpoint", type=Path),
        *IMAGES,
    ),
    "model and generation": (*MODEL, *GENERATION),
    "test": TEST,
    "hardware": HARDWARE,
}
MODEL_FLAGS = tuple(flag.dest for flag in MODEL)
WEIGHT_FLAGS = (*MODEL_FLAGS, "pose_background")  # the weights fit no other value
# Flags of a machine or a command; all others belong to the run and are stored in its checkpoints.
NOT_INHERITED = {
    "save_root", "num_workers", "device", "gpu", "threads", "resume", "ckpt_path", "overwrite",
    "test", "store_visualization",
}  # fmt: skip


def parser(groups: dict[str, tuple[Flag, ...]]) -> Parser:
    """The parser of `TRAINER` or `TESTER`; it returns only the flags on the command line."""
    texts = {
        "Trainer.py": "Train a model, or validate one.",
        "Tester.py": "Render and score the test videos.",
    }
    prog = "Trainer.py" if groups is TRAINER else "Tester.py"
    result = Parser(renamed=RENAMED_FLAGS, prog=prog, description=texts[prog])
    for title, flags in groups.items():
        group = result.add_argument_group(title)
        for flag in flags:
            flag.add_to(group)
    return result
