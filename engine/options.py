"""Every flag, declared once, in groups, for both scripts.

A flag's value is decided by, in this order: the command line, the checkpoint that is continued, the
recipe, the default.
"""

import argparse
from pathlib import Path

from .augment import KINDS
from .console import UserError
from .parser import Parser, real, subset, whole

# Where the lab's networks want other values than the defaults, which are those of `--arch unet`.
ARCH_DEFAULTS = {
    "unet": {},
    "lab": {
        "F_dim": 128,
        "L_dim": 32,
        "N_dim": 12,
        "D_out_dim": 192,
        "output": "linear",
        "optim": "Adam",
        "weight_decay": 0.0,
        "lr": 0.001,
        "batch_size": 2,
        "train_vi_len": 16,
        "first_frame": "clip",
        "augment": "none",
        "per_val": 1,
        "tfr": 1.0,
        "kl_reduction": "sum",
    },
}
RECIPES = {
    "default": {},
    "lab": {
        "arch": "lab",
        **ARCH_DEFAULTS["lab"],
        "lr_schedule": "step",
        "lr_warmup": 0,
        "clips": "in_order",
        "z": "sample",
        "precision": "fp32",
    },
}


def _add_data(parser: Parser) -> None:
    group = parser.add_argument_group("data")
    add = group.add_argument
    add("--DR", type=Path, required=True, help="dataset folder, in the lab's layout")
    add("--save_root", type=Path, required=True, help="folder for everything that is written")
    add("--num_workers", type=whole(0), default=4, help="threads that decode pictures, once")
    add("--val_vi_len", type=whole(2), default=630, help="frames of a validation or test video")
    # The pose encoder mirrors 3 pixels at each edge, so a side has at least 4.
    add("--frame_H", type=whole(4), default=32, help="height to which pictures are resized")
    add("--frame_W", type=whole(4), default=64, help="width to which pictures are resized")


def _add_model(parser: Parser) -> None:
    add = parser.add_argument_group("model (stored in the checkpoint)").add_argument
    add(
        "--arch",
        choices=list(ARCH_DEFAULTS),
        default="unet",
        help="the networks: U-shaped ones over two scales, or the lab's, which bring the lab's values of "
        + ", ".join(f"--{name}" for name in ARCH_DEFAULTS["lab"]),
    )
    add("--F_dim", type=whole(8), default=32, help="channels of the frame feature")
    add("--L_dim", type=whole(2), default=32, help="channels of the pose feature")
    add("--N_dim", type=whole(4), default=12, help="channels of the latent z")
    add("--D_out_dim", type=whole(8), default=64, help="channels of the fused feature")
    add(
        "--output",
        choices=["linear", "sigmoid"],
        default="sigmoid",
        help="range of the generator's pictures; the lab's own Tester draws only linear ones",
    )
    add(
        "--z",
        choices=["mean", "sample"],
        default="mean",
        help="latent in generation: the prior's mean (0), or a sample of it",
    )


def _add_hardware(parser: Parser) -> None:
    add = parser.add_argument_group("hardware").add_argument
    add("--device", default=None, help="cuda, cuda:1, cpu; by default CUDA where there is one")
    add("--gpu", type=whole(0), default=1, help="number of GPUs to use, with a process each; 0 is the CPU")
    add(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="arithmetic of the networks; auto is bf16 where the device has it in hardware",
    )
    add("--seed", type=whole(0), default=0, help="source of all randomness")


def _add_training(parser: Parser) -> None:
    add = parser.add_argument_group("training").add_argument
    add(
        "--recipe",
        choices=list(RECIPES),
        default="default",
        help="a set of defaults: ours, or the lab's protocol",
    )
    add("--num_epoch", type=whole(1), default=70, help="epochs in all")
    add(
        "--max_minutes",
        type=real(0, above=True),
        default=None,
        help="train for so many minutes, validation not counted, instead of --num_epoch epochs; the learning "
        "rate and teacher forcing reach their ends then",
    )
    add("--batch_size", type=whole(1), default=12, help="clips a step")
    add("--train_vi_len", type=whole(2), default=3, help="frames of a training clip")
    add(
        "--clips",
        choices=["shuffled", "in_order"],
        default="shuffled",
        help="cut anew at a random offset each epoch and shuffled, or end to end and in order",
    )
    add(
        "--first_frame",
        choices=["clip", "any"],
        default="any",
        help="a training clip starts from its own first frame, or from any of its shot",
    )
    add(
        "--augment",
        type=subset(KINDS),
        default="turn",
        help=f"change training clips at random, frames and poses alike: some of {','.join(KINDS)}, or none",
    )
    add("--partial", type=real(0, 1, above=True), default=1.0, help="fraction of the training frames to use")
    add(
        "--fast_train",
        action="store_true",
        help="use only --fast_partial of the clips up to epoch --fast_train_epoch",
    )
    add(
        "--fast_partial",
        type=real(0, 1, above=True),
        default=0.4,
        help="fraction of the training clips while --fast_train lasts",
    )
    add("--fast_train_epoch", type=whole(0), default=5, help="epochs that --fast_train lasts")
    add("--optim", choices=["Adam", "AdamW"], default="AdamW", help="optimizer")
    add("--weight_decay", type=real(0), default=0.2, help="of AdamW decoupled, of Adam an L2 penalty")
    add("--lr", type=real(0, above=True), default=0.002, help="highest learning rate")
    add(
        "--lr_schedule",
        choices=["cosine", "step", "constant"],
        default="cosine",
        help="cosine down to lr / 100; a tenth at epochs 2 and 5 each; or no change",
    )
    add("--lr_warmup", type=whole(0), default=50, help="steps of linear warm-up")


def _add_schedules(parser: Parser) -> None:
    add = parser.add_argument_group("teacher forcing and KL annealing").add_argument
    add("--tfr", type=real(0, 1), default=0.0, help="teacher-forcing ratio at the start")
    add("--tfr_sde", type=whole(0), default=10, help="epoch in which the ratio starts to fall")
    add(
        "--tfr_d_step",
        type=real(0, 1),
        default=None,
        help="fall of the ratio each epoch; by default evenly, to 0 in the last epoch",
    )
    add(
        "--kl_anneal_type",
        choices=["Cyclical", "Monotonic", "NoKL_Annealing"],
        default="Cyclical",
        help="how beta, the weight of the KL term, rises",
    )
    add(
        "--kl_anneal_cycle",
        type=whole(1),
        default=10,
        help="length of a cycle in epochs (Fu et al. 2019 count cycles instead)",
    )
    add(
        "--kl_anneal_ratio",
        type=real(0),
        default=1.0,
        help="slope of beta: R = 1.5 reaches 1 at two thirds of a cycle",
    )
    add("--kl_anneal_start", type=real(0, 1), default=0.01, help="least beta")
    add(
        "--kl_reduction",
        choices=["sum", "mean", "elbo"],
        default="mean",
        help="KL summed, or averaged, over channels and pixels (always summed over time), or weighed so that "
        "beta 1 is the evidence lower bound",
    )


def _add_run(parser: Parser) -> None:
    add = parser.add_argument_group("run").add_argument
    add("--resume", action="store_true", help="go on with the run in --save_root (last.ckpt)")
    add("--ckpt_path", type=Path, default=None, help="checkpoint to continue, or to --test")
    add("--overwrite", action="store_true", help="delete the run that --save_root holds")
    add("--per_save", type=whole(1), default=3, help="epochs between kept checkpoints")
    add("--per_val", type=whole(1), default=5, help="epochs between validations; the last epoch has one")
    add("--test", action="store_true", help="no training: validate --ckpt_path")
    add(
        "--store_visualization",
        action="store_true",
        help="write the validation GIF and its plot after every epoch",
    )


# What another machine, or the next call, decides anew; all other flags define a run and go with it.
NOT_INHERITED = {
    "DR",
    "save_root",
    "num_workers",
    "device",
    "gpu",
    "resume",
    "ckpt_path",
    "overwrite",
    "test",
    "store_visualization",
}
MODEL_FLAGS = ("arch", "F_dim", "L_dim", "N_dim", "D_out_dim", "output")


def trainer_parser() -> Parser:
    """The flags of Trainer.py."""
    parser = Parser(prog="Trainer.py", description="Train a model, or validate one with --test.")
    for add_group in (
        _add_data,
        _add_model,
        _add_training,
        _add_schedules,
        _add_run,
        _add_hardware,
    ):
        add_group(parser)
    return parser


def tester_parser() -> Parser:
    """The flags of Tester.py."""
    parser = Parser(prog="Tester.py", description="Render and score the test sequences.")
    _add_data(parser)
    _add_model(parser)
    add = parser.add_argument_group("test").add_argument
    add("--ckpt_path", type=Path, required=True, help="checkpoint to render with")
    add(
        "--make_gif",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write GIFs: the prediction alone, and beside pose, truth and error",
    )
    add("--mp4", action="store_true", help="write the same as MP4, too")
    add("--submission", action="store_true", help="write submission.csv, as handed in since 2024")
    add(
        "--samples",
        type=whole(1),
        default=None,
        metavar="N",
        help="score z = 0, one sample of z, the best and mean of N, and how much of z is used; show some",
    )
    add("--drift", action="store_true", help="score frames made from the true last frame, too, and the drift")
    add("--test", action="store_true", help="what Tester always does; the lab's command has it")
    _add_hardware(parser)
    return parser


def resolve(parser: Parser, argv: list[str] | None = None, stored: dict | None = None) -> argparse.Namespace:
    """Decide every flag: command line, then `stored` (a checkpoint's args), recipe, architecture, default."""
    given = parser.given(argv)
    if {"num_epoch", "max_minutes"} <= given.keys():
        raise UserError("--num_epoch and --max_minutes both say when training ends; give one of them")
    stored = {k: v for k, v in (stored or {}).items() if k not in NOT_INHERITED}
    if "num_epoch" in given:
        stored.pop("max_minutes", None)
    recipe = RECIPES[given.get("recipe", stored.get("recipe", "default"))]
    # A recipe named anew is meant to replace what the checkpoint brought.
    inherited = {**stored, **recipe} if "recipe" in given else {**recipe, **stored}
    arch = given.get("arch", inherited.get("arch", "unet"))
    if arch not in ARCH_DEFAULTS:
        raise UserError(f"the checkpoint's --arch {arch} is not known to this version")
    inherited = {**ARCH_DEFAULTS[arch], **inherited}
    known = {action.dest for action in parser._actions}
    parser.set_defaults(**{k: v for k, v in inherited.items() if k in known})
    return parser.parse_args(argv)


def storable(args: argparse.Namespace) -> dict:
    """The flags as plain values, for a checkpoint and for args.json."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
