"""Every flag of Trainer.py and Tester.py, declared once, and how its value is decided.

`default < architecture < pictures' size < budget < recipe < checkpoint < command line`: see `resolve`.
"""

import argparse
from pathlib import Path

from modules import ARCHITECTURES
from runtime.cli import UserError
from runtime.parser import REQUIRED, Flag, Parser, choice, real, subset, switch, value, whole
from training.augment import KINDS
from training.presets import RECIPES, by_minutes, by_size
from training.schedules import KL_CYCLES, KL_END, TFR_END

_UNET = ARCHITECTURES["unet"].DEFAULTS
DATA = (
    value("--DR", Path, REQUIRED, "dataset root: folder with train, val and test"),
    value("--save_root", Path, REQUIRED, "folder for everything that is written"),
    value("--num_workers", whole(0, 256), 4, "threads that decode pictures, once for each dataset and size"),
    # The pose encoder of the lab architecture mirrors 3 pixels at each edge, so a side has at least 4.
    value("--frame_H", whole(4), 32, "frame height to which pictures are resized"),
    value("--frame_W", whole(4), 64, "frame width to which pictures are resized"),
)
MODEL = (
    choice(
        "--arch", ARCHITECTURES, "unet",
        "architecture: U-shaped networks over a few scales, or the networks of the course lab; sets the "
        "defaults of the other flags of this group (those listed are of unet)",
    ),
    value("--F_dim", whole(8), _UNET["F_dim"], "channels of the frame feature"),
    value("--L_dim", whole(2), _UNET["L_dim"], "channels of the pose (label) feature"),
    value("--N_dim", whole(4), _UNET["N_dim"], "channels of the latent z (noise)"),
    value("--D_out_dim", whole(8), _UNET["D_out_dim"], "channels of the decoder fusion's output"),
    value("--fold", whole(1, 16), _UNET["fold"], "unet: how much smaller than a frame its features are"),
    value(
        "--scales", whole(2, 8), _UNET["scales"],
        "unet: scales of the decoder fusion, each half the size of the one before",
    ),
    choice(
        "--output", ["linear", "sigmoid"], _UNET["output"],
        "range of the generator's frames: unbounded, or (0, 1); the course lab's own Tester expects linear",
    ),
)  # fmt: skip
VALIDATION = (value("--val_vi_len", whole(2), 630, "validation video length, in frames"),)
GENERATION = (
    value(
        "--fill_poses", whole(0), 5,
        "blank poses in a row that are taken for lost, and filled with the pose before or after them; longer "
        "gaps stay blank, because the person is gone",
    ),
    value(
        "--shifts", whole(1, 99), 3,
        "a frame is the mean of this many predictions, from inputs that are shifted sideways by 0, 1, -1, "
        "2, .. pixels; 1 is the fastest",
    ),
    choice(
        "--z", ["mean", "sample"], "mean",
        "latent in generation: the prior's mean (0), or a sample of it",
    ),
)  # fmt: skip
TRAINING = (
    choice(
        "--recipe", ["default", "lab"], "default",
        "a set of defaults: those listed here, or the architecture and the protocol of the course lab",
    ),
    value("--num_epoch", whole(1), 70, "number of epochs"),
    value(
        "--max_minutes", real(0, above=True), None,
        "minutes of training (validation is not counted), instead of --num_epoch; the learning rate and "
        "teacher forcing reach their final values at that time",
    ),
    value(
        "--batch_size", whole(1), 2,
        "clips of --train_vi_len frames in a step; of shorter clips as many as have about the same work",
    ),
    value("--train_vi_len", whole(2), 16, "training video length: frames of a clip at the end of a run"),
    value(
        "--start_vi_len", whole(2), 3,
        "frames of a clip at the start of a run; clips grow to --train_vi_len (off if both are equal)",
    ),
    choice(
        "--clips", ["shuffled", "in_order"], "shuffled",
        "cut from a random offset in each epoch and shuffled, or cut end to end and read in order",
    ),
    choice(
        "--first_frame", ["clip", "any"], "any",
        "a training clip starts from its own first frame, or from any frame of its shot",
    ),
    value(
        "--augment", subset(KINDS), "turn,paste",
        f"change training clips at random, frames and poses alike: some of {','.join(KINDS)}, or none; over "
        "a background that stays, paste moves and scales the person, and tilt turns and shears them",
    ),
    value(
        "--pose_dropout", real(0, 1), 0.0,
        "fraction of the poses in training that lose the body or a part of it, for up to 3 frames in a row",
    ),
    value("--partial", real(0, 1, above=True), 1.0, "fraction of the training frames to use"),
    switch("--fast_train", "use only --fast_partial of the clips in the epochs before --fast_train_epoch"),
    value("--fast_partial", real(0, 1, above=True), 0.4, "fraction of the clips while --fast_train lasts"),
    value("--fast_train_epoch", whole(0), 5, "number of epochs that --fast_train lasts"),
    choice(
        "--mse_weights", ["psnr", "even"], "psnr",
        "weights of the frames in the MSE: the inverse of a frame's own MSE, so that the mean PSNR rises "
        "fastest, or even",
    ),
    choice(
        "--optim", ["Adam", "AdamW", "Muon"], "Muon",
        "optimizer; Muon orthogonalizes the updates of convolutions, and updates the rest as AdamW does",
    ),
    value("--weight_decay", real(0), 0.2, "weight decay: an L2 penalty in Adam, decoupled in the others"),
    value("--lr", real(0, above=True), 0.004, "highest learning rate"),
    choice(
        "--lr_schedule", ["cosine", "step", "constant"], "cosine",
        "learning rate: cosine down to lr / 100; a tenth at epoch 2 and again at epoch 5; or constant",
    ),
    value("--lr_warmup", whole(0), 50, "steps of linear warm-up"),
)  # fmt: skip
SCHEDULES = (
    value("--tfr", real(0, 1), 1.0, "teacher-forcing ratio at the start"),
    value(
        "--tfr_sde", whole(0), None,
        "teacher-forcing start of decay: epoch in which it starts to fall; if not given, it falls from the "
        f"start of the run to 0 at {TFR_END:.0%}% of it",
    ),
    value(
        "--tfr_d_step", real(0, 1), None,
        "teacher-forcing decay step: fall of the ratio in each epoch; if not given, it falls evenly, with "
        "--tfr_sde to 0 in the last epoch",
    ),
    choice(
        "--kl_anneal_type", ["Cyclical", "Monotonic", "NoKL_Annealing"], "Cyclical",
        "how beta, the weight of the KL term, rises",
    ),
    value(
        "--kl_anneal_cycle", whole(1), None,
        "length of a cycle in epochs (Fu et al. 2019 give the number of cycles instead); if not given, "
        f"{KL_CYCLES} cycles take the run up to {KL_END:.0%}% of it, and beta is 1 afterwards",
    ),
    value("--kl_anneal_ratio", real(0), 2.0, "slope of beta: R = 2 reaches 1 in the middle of a cycle"),
    # Lower on the ELBO's scale, the posterior tells what generation will not know (docs/quality.md).
    value("--kl_anneal_start", real(0, 1), 0.3, "smallest beta"),
    choice(
        "--kl_reduction", ["sum", "mean", "elbo"], "elbo",
        "KL over channels and pixels: summed, averaged, or weighted so that beta 1 is the evidence lower "
        "bound (always summed over time)",
    ),
    # A posterior that has opened makes the frames of training better and those of generation worse.
    value(
        "--z_dropout", real(0, 1), 0.5,
        "fraction of the training clips that have z = 0, the prior's mean, as in generation; the others have "
        "z from the posterior",
    ),
)  # fmt: skip
RUN = (
    switch("--resume", "continue the run in --save_root from its last.ckpt"),
    value("--ckpt_path", Path, None, "checkpoint to continue in a new --save_root, or to --test"),
    switch("--overwrite", "delete the run that --save_root holds"),
    value("--per_save", whole(1), 3, "epochs from one kept checkpoint to the next"),
    value("--per_val", whole(1), 5, "epochs from one validation to the next; the last epoch has one"),
    switch("--test", "no training: validate --ckpt_path"),
    switch("--store_visualization", "write the GIF and the plot of every validation, not only of the last"),
)
TEST = (
    value("--ckpt_path", Path, REQUIRED, "checkpoint to render with"),
    value("--val_vi_len", whole(2), None, "frames of a test video; if not given, all"),
    Flag(
        "--make_gif", True, "write GIFs: the prediction alone, and beside pose, truth and error",
        {"action": argparse.BooleanOptionalAction},
    ),
    switch("--mp4", "write the same videos as MP4, too"),
    switch("--submission", "write submission.csv, which the course lab has asked for since 2024"),
    Flag(
        "--samples", None,
        "score z = 0, one sample of z, the best and the mean of N, and how much of z is used; show some",
        {"type": whole(1), "metavar": "N"},
    ),
    value(
        "--pose_dropout", real(0, 1), 0.0,
        "score with this fraction of the poses blank, too, and say what is lost",
    ),
    switch("--drift", "score frames predicted from the true last frame, too, and the drift"),
    switch("--test", "accepted because the course lab's command has it; Tester always tests"),
)  # fmt: skip
HARDWARE = (
    value("--device", str, None, "cuda, cuda:1, cpu; if not given, CUDA where available"),
    value("--gpu", whole(0), 1, "number of GPUs to use, with one process for each; 0 is the CPU"),
    choice(
        "--precision", ["auto", "fp32", "bf16", "fp16"], "auto",
        "arithmetic of the networks; auto is bf16 where the device has it in hardware, else fp16 on GPUs and "
        "fp32 on CPUs",
    ),
    value(
        "--threads", whole(1, 1024), None,
        "threads on the CPU; if not given, as many as there are cores that other programs leave free, looked "
        "at again in each epoch",
    ),
    # torch takes 64 bits.
    value("--seed", whole(0, 2**63 - 1), 0, "seed of all randomness"),
)  # fmt: skip
TRAINER = {
    "data": (*DATA, *VALIDATION),
    "model (stored in the checkpoint)": (*MODEL, *GENERATION),
    "training": TRAINING,
    "teacher forcing and KL annealing": SCHEDULES,
    "run": RUN,
    "hardware": HARDWARE,
}
TESTER = {
    "data": DATA,
    "model (stored in the checkpoint)": (*MODEL, *GENERATION),
    "test": TEST,
    "hardware": HARDWARE,
}
MODEL_FLAGS = tuple(flag.dest for flag in MODEL)
# These flags belong to a machine or to a command; all others define a run and go with its checkpoint.
NOT_INHERITED = {
    "DR", "save_root", "num_workers", "device", "gpu", "threads", "resume", "ckpt_path", "overwrite",
    "test", "store_visualization",
}  # fmt: skip


def trainer_parser() -> Parser:
    """The parser of Trainer.py; it returns only the flags on the command line."""
    return _parser(TRAINER, prog="Trainer.py", description="Train a model, or validate one with --test.")


def tester_parser() -> Parser:
    """The parser of Tester.py; it returns only the flags on the command line."""
    return _parser(TESTER, prog="Tester.py", description="Render and score the test sequences.")


def _parser(groups: dict[str, tuple[Flag, ...]], **settings) -> Parser:
    parser = Parser(**settings)
    for title, flags in groups.items():
        group = parser.add_argument_group(title)
        for flag in flags:
            flag.add_to(group)
    return parser


def resolve(
    groups: dict[str, tuple[Flag, ...]], typed: dict, stored: dict | None = None
) -> argparse.Namespace:
    """Decide every flag.

    Args:
        groups: `TRAINER` or `TESTER`.
        typed: the flags on the command line. A recipe there counts as if all its flags stood there.
        stored: the flags of the checkpoint that is continued or tested.

    Raises:
        UserError: flags contradict each other, or the checkpoint's architecture or recipe is not known.
    """
    if {"num_epoch", "max_minutes"} <= typed.keys():
        raise UserError("--num_epoch and --max_minutes both say when training ends; give one of them")
    stored = {name: value for name, value in (stored or {}).items() if name not in NOT_INHERITED}
    if "num_epoch" in typed:
        stored.pop("max_minutes", None)
    typed = RECIPES[typed.get("recipe", "default")] | typed
    defaults = {flag.dest: flag.default for flags in groups.values() for flag in flags}
    recipe = _known(RECIPES, "recipe", stored.get("recipe", "default"))
    decided = defaults | recipe | stored | typed
    arch = _known(ARCHITECTURES, "arch", decided["arch"])
    if foreign := {"fold", "scales"} & typed.keys() - arch.DEFAULTS.keys():
        raise UserError(f"--{min(foreign)} is of --arch unet, not of {decided['arch']}")
    presets = {}
    if not stored:  # a checkpoint brings what its run was given, by itself or by a version without presets
        presets = by_size(decided["arch"], decided["frame_H"] * decided["frame_W"])
        presets |= by_minutes(decided["arch"], decided.get("max_minutes"))
    decided = defaults | arch.DEFAULTS | presets | recipe | stored | typed
    if arch is ARCHITECTURES["unet"] and decided["fold"] >= max(decided["frame_H"], decided["frame_W"]):
        raise UserError(f"--fold {decided['fold']} leaves nothing of a frame as small as this")
    return argparse.Namespace(**{name: decided[name] for name in defaults})


def _known(table: dict, name: str, value: object):
    if value not in table:
        raise UserError(f"the checkpoint's --{name} {value} is not known to this version")
    return table[value]


def trainer_args(argv: list[str] | None = None) -> argparse.Namespace:
    """All flags of a new run, from its command line alone."""
    return resolve(TRAINER, vars(trainer_parser().parse_args(argv)))


def tester_args(argv: list[str] | None = None) -> argparse.Namespace:
    """All flags of Tester.py, from its command line alone."""
    return resolve(TESTER, vars(tester_parser().parse_args(argv)))


def storable(args: argparse.Namespace) -> dict:
    """The flags as plain values, for a checkpoint and for args.json."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
