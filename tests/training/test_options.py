import pytest

from runtime.cli import UserError
from tests.helpers import ROOT
from tools.flag_table import flag_table
from training import options

NEEDED = ["--DR", "data", "--save_root", "run"]


def trainer_flags(*argv, stored=None):
    typed = vars(options.trainer_parser().parse_args([*NEEDED, *argv]))
    return options.resolve(options.TRAINER, typed, stored)


LAB_LINES = [
    "--DR LAB4_Dataset/ --save_root checkpoints/max_psnr/ --num_epoch 100 --fast_train --fast_train_epoch 9"
    " --kl_anneal_type NoKL_Annealing --tfr 0",
    "--DR LAB4_Dataset/ --save_root checkpoints/tfr1 --tfr 1 --tfr_sde 5 --kl_anneal_type Cyclical"
    " --kl_anneal_ratio 1.5 --num_epoch 22 --fast_train --fast_train_epoch 22 --batch_size 4",
    "--DR LAB4_Dataset/ --save_root checkpoints/max_psnr/ --test --ckpt checkpoints/max_psnr/epoch=99.ckpt",
]


@pytest.mark.parametrize("line", LAB_LINES)
def test_command_lines_of_the_course_lab_parse(line):
    args = options.trainer_args(line.split())
    assert str(args.DR) == "LAB4_Dataset"


def test_tester_line_of_the_course_lab_parses_with_its_abbreviation():
    args = options.tester_args(LAB_LINES[2].split())
    assert str(args.ckpt_path) == "checkpoints/max_psnr/epoch=99.ckpt"


def test_lab_recipe_has_the_defaults_of_the_course_lab():
    args = vars(trainer_flags("--recipe", "lab"))
    wanted = {
        "batch_size": 2, "lr": 0.001, "num_workers": 4, "num_epoch": 70, "per_save": 3, "partial": 1.0,
        "train_vi_len": 16, "val_vi_len": 630, "frame_H": 32, "frame_W": 64, "F_dim": 128, "L_dim": 32,
        "N_dim": 12, "D_out_dim": 192, "tfr": 1.0, "tfr_sde": 10, "fast_partial": 0.4,
        "fast_train_epoch": 5, "kl_anneal_cycle": 10, "kl_anneal_ratio": 1, "test": False,
        "start_vi_len": 16, "kl_anneal_start": 0.01,
    }  # fmt: skip
    assert wanted.items() <= args.items()


def test_lab_recipe_sets_the_protocol_and_flags_still_win():
    args = trainer_flags("--recipe", "lab", "--lr_schedule", "constant")
    assert (args.arch, args.output, args.kl_reduction, args.optim) == ("lab", "linear", "sum", "Adam")
    assert (args.clips, args.z, args.lr, args.lr_warmup) == ("in_order", "sample", 0.001, 0)
    assert args.lr_schedule == "constant"


def test_architecture_sets_its_networks_unless_given_and_nothing_else():
    args = trainer_flags("--arch", "lab", "--L_dim", "64")
    assert (args.F_dim, args.L_dim, args.D_out_dim, args.output) == (128, 64, 192, "linear")
    others = vars(args).keys() - set(options.MODEL_FLAGS)
    assert {name: getattr(args, name) for name in others} == {
        name: getattr(trainer_flags(), name) for name in others
    }
    args = trainer_flags("--batch_size", "3")
    assert (args.arch, args.output, args.first_frame, args.batch_size) == ("unet", "sigmoid", "any", 3)


def test_minutes_and_epochs_are_not_given_together_and_the_one_given_last_counts():
    with pytest.raises(UserError, match="--max_minutes"):
        trainer_flags("--num_epoch", "3", "--max_minutes", "3")
    assert trainer_flags(stored={"max_minutes": 5.0}).max_minutes == 5
    assert trainer_flags("--num_epoch", "3", stored={"max_minutes": 5.0}).max_minutes is None
    assert trainer_flags("--max_minutes", "3", stored={"num_epoch": 5}).max_minutes == 3


def test_long_budget_brings_wider_networks_unless_something_else_says_otherwise():
    long, short = trainer_flags("--max_minutes", "20"), trainer_flags("--max_minutes", "19")
    assert (long.D_out_dim, long.augment) == (96, "paste,tilt")
    assert (short.D_out_dim, short.augment) == (64, "turn,paste")
    assert trainer_flags("--max_minutes", "60", "--D_out_dim", "80").D_out_dim == 80
    assert trainer_flags("--max_minutes", "60", "--arch", "lab").D_out_dim == 192
    assert trainer_flags("--max_minutes", "60", "--recipe", "lab").augment == "none"
    assert trainer_flags("--max_minutes", "60", stored={"max_minutes": 5.0, "D_out_dim": 64}).D_out_dim == 64
    assert trainer_flags("--num_epoch", "9", stored={"max_minutes": 60.0}).D_out_dim == 64


def test_flags_win_in_the_order_default_architecture_recipe_checkpoint_command_line():
    assert trainer_flags().lr == 0.004
    assert trainer_flags("--recipe", "lab").lr == 0.001
    assert trainer_flags("--recipe", "lab", "--arch", "unet").F_dim == 32
    assert trainer_flags(stored={"recipe": "lab", "lr": 0.5}).lr == 0.5
    assert trainer_flags(stored={"recipe": "lab"}).F_dim == 128
    assert trainer_flags("--lr", "0.25", stored={"recipe": "lab", "lr": 0.5}).lr == 0.25


def test_recipe_on_the_command_line_wins_over_the_checkpoint():
    args = trainer_flags("--recipe", "lab", "--tfr", "0.5", stored={"lr": 0.5, "num_epoch": 3})
    assert (args.lr, args.tfr, args.num_epoch, args.recipe) == (0.001, 0.5, 3, "lab")


def test_flags_of_a_checkpoint_hold_unless_given_anew():
    stored = {"lr": 0.5, "num_epoch": 4, "recipe": "lab", "clips": "in_order", "DR": "old", "test": True}
    args = trainer_flags("--num_epoch", "6", stored=stored)
    assert (args.lr, args.num_epoch, args.recipe, args.z) == (0.5, 6, "lab", "sample")
    assert str(args.DR) == "data" and not args.test


@pytest.mark.parametrize(("name", "value"), [("arch", "transformer"), ("recipe", "quick")])
def test_architecture_or_recipe_of_a_later_version_is_refused(name, value):
    with pytest.raises(UserError, match=f"--{name} {value}"):
        trainer_flags(stored={name: value})


@pytest.mark.parametrize("groups", [options.TRAINER, options.TESTER], ids=["Trainer", "Tester"])
def test_help_shows_every_flag_with_its_default(groups):
    parser = options.trainer_parser() if groups is options.TRAINER else options.tester_parser()
    text = " ".join(parser.format_help().split())
    for flags in groups.values():
        for flag in flags:
            assert flag.name in text and flag.help.replace("%%", "%") in text
    assert "(default: 0.004)" in text or groups is options.TESTER


def test_page_of_flags_is_current():
    assert (ROOT / "docs" / "flags.md").read_text() == flag_table() + "\n"


WRONG = [
    "--tfr 2", "--tfr -0.1", "--tfr nan", "--batch_size 0", "--batch_size two", "--partial 0",
    "--partial 1.1", "--frame_H -1", "--frame_W 3", "--kl_anneal_cycle 0", "--kl_anneal_type Sometimes",
    "--lr 0", "--lr inf", "--num_epoch 0", "--train_vi_len 1", "--val_vi_len 1", "--per_save 0", "--gpu -1",
    "--num_workers -1", "--max_minutes 0", "--augment spin",
    "--fast_partial 0", "--F_dim 7", "--optim SGD", "--tfr_d_step 2", "--seed -1", "--no_such_flag",
]  # fmt: skip


@pytest.mark.parametrize("flags", WRONG)
def test_flags_out_of_range_are_refused_in_one_line(flags, capsys):
    with pytest.raises(SystemExit) as stopped:
        trainer_flags(*flags.split())
    assert stopped.value.code == 2
    message = capsys.readouterr().err.strip()
    assert flags.split()[0] in message and "\n" not in message


def test_large_frames_bring_their_networks_and_batch_unless_something_else_says_otherwise():
    small, middle = trainer_flags(), trainer_flags("--frame_H", "64", "--frame_W", "128")
    large = trainer_flags("--frame_H", "144", "--frame_W", "256")
    values = [(args.fold, args.batch_size, args.shifts) for args in (small, middle, large)]
    assert values == [(2, 2, 3), (2, 1, 1), (4, 1, 1)]
    size = "--frame_H", "144", "--frame_W", "256"
    args = trainer_flags(*size, "--scales", "3", "--batch_size", "3")
    assert (args.fold, args.scales, args.batch_size) == (4, 3, 3)
    assert trainer_flags(*size, "--recipe", "lab").batch_size == 2
    assert trainer_flags(*size, "--arch", "lab").batch_size == 1


def test_checkpoint_of_large_frames_from_before_keeps_its_networks():
    stored = {"frame_H": 144, "frame_W": 256, "arch": "unet", "batch_size": 2}
    args = trainer_flags(stored=stored)
    assert (args.fold, args.scales, args.batch_size) == (2, 2, 2)


def test_fold_has_to_leave_more_than_a_pixel():
    with pytest.raises(UserError, match="--fold 8"):
        trainer_flags("--frame_H", "4", "--frame_W", "8", "--fold", "8")


@pytest.mark.parametrize("flag", ["fold", "scales"])
def test_flags_of_the_other_architecture_are_refused(flag):
    with pytest.raises(UserError, match=f"--{flag} is of --arch unet, not of lab"):
        trainer_flags("--arch", "lab", f"--{flag}", "3")
