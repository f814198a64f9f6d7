import pytest

from runtime.cli import UserError
from training import configuration, options

REQUIRED = ["--DR", "data", "--save_root", "run"]


def trainer_args(*argv, checkpoint_args=None):
    cli_args = vars(options.parser(options.TRAINER).parse_args([*REQUIRED, *argv]))
    return configuration.resolve(options.TRAINER, cli_args, checkpoint_args)


COURSE_LINES = [
    "--DR LAB4_Dataset/ --save_root checkpoints/max_psnr/ --num_epoch 100 --fast_train --fast_train_epoch 9"
    " --kl_anneal_type NoKL_Annealing --tfr 0",
    "--DR LAB4_Dataset/ --save_root checkpoints/tfr1 --tfr 1 --tfr_sde 5 --kl_anneal_type Cyclical"
    " --kl_anneal_ratio 1.5 --num_epoch 22 --fast_train --fast_train_epoch 22 --batch_size 4",
    "--DR LAB4_Dataset/ --save_root checkpoints/a --test --ckpt checkpoints/a/epoch=99.ckpt",
]


def test_command_lines_of_the_course_parse(tmp_path, monkeypatch):
    (tmp_path / "LAB4_Dataset").mkdir()
    monkeypatch.chdir(tmp_path)
    for line in COURSE_LINES:
        assert str(configuration.trainer_args(line.split()).DR) == "LAB4_Dataset"
    args = options.parser(options.TESTER).parse_args(COURSE_LINES[2].split())
    assert str(args.ckpt_path) == "checkpoints/a/epoch=99.ckpt"


def test_lab_recipe_has_the_protocol_of_the_course():
    args = vars(trainer_args("--recipe", "lab"))
    expected = {
        "batch_size": 2, "lr": 0.001, "num_workers": 4, "num_epoch": 70, "per_save": 3, "partial": 1.0,
        "train_vi_len": 16, "val_vi_len": 630, "frame_H": 32, "frame_W": 64, "F_dim": 128, "L_dim": 32,
        "N_dim": 12, "D_out_dim": 192, "tfr": 1.0, "tfr_sde": 10, "fast_partial": 0.4,
        "fast_train_epoch": 5, "kl_anneal_cycle": 10, "kl_anneal_ratio": 1, "test": False,
        "start_vi_len": 16, "arch": "lab", "optim": "Adam", "kl_reduction": "sum", "output": "linear",
        "recon_loss": "mse", "clips": "in_order", "augment": "none", "z": "sample", "kl_anneal_start": 0,
    }  # fmt: skip
    assert {name: args[name] for name in expected} == expected


@pytest.mark.parametrize("flags", ["--frame_H=144 --frame_W=256", "--max_minutes=600"])
def test_no_other_flag_changes_the_recipe(flags):
    args, default = vars(trainer_args(*flags.split())), vars(trainer_args())
    names = {flag.partition("=")[0].lstrip("-") for flag in flags.split()}
    assert {name for name, value in args.items() if value != default[name]} == names


@pytest.mark.parametrize("recipe", options.RECIPES)
def test_precedence_is_recipe_checkpoint_command_line(recipe):
    of_recipe = options.RECIPES[recipe].get("lr", 0.004)
    stored = {"recipe": recipe, "lr": 0.5}
    assert trainer_args("--recipe", recipe).lr == of_recipe
    assert trainer_args(checkpoint_args={"recipe": recipe}).lr == of_recipe
    assert trainer_args(checkpoint_args=stored).lr == 0.5
    assert trainer_args("--recipe", recipe, checkpoint_args=stored).lr == 0.5
    assert trainer_args("--lr", "0.25", checkpoint_args=stored).lr == 0.25


def test_sizes_that_are_not_given_are_those_of_the_architecture():
    sizes = {"F_dim": 128, "L_dim": 64, "D_out_dim": 192, "patch_size": None}
    args = vars(trainer_args("--arch", "lab", "--L_dim", "64"))
    assert {name: args[name] for name in sizes} == sizes
    assert trainer_args("--recipe", "lab", "--arch", "unet").F_dim == trainer_args().F_dim
    assert trainer_args(checkpoint_args={"recipe": "lab"}).F_dim == 128


def test_flags_of_a_machine_or_a_command_are_not_those_of_the_checkpoint():
    args = trainer_args(checkpoint_args={"save_root": "old", "test": True, "threads": 7, "num_epoch": 4})
    assert (str(args.save_root), args.test, args.threads, args.num_epoch) == ("run", False, None, 4)


def test_dataset_is_that_of_the_checkpoint_unless_it_is_given():
    assert str(trainer_args(checkpoint_args={"DR": "old"}).DR) == "data"
    args = configuration.resolve(options.TRAINER, {}, {"DR": "old"})
    assert str(args.DR) == "old"
    with pytest.raises(UserError, match="old: the checkpoint's dataset was not found; set --DR"):
        configuration.require_dataset(args, is_given=False)
    with pytest.raises(UserError, match="--DR is required"):
        configuration.trainer_args(["--save_root=run"])


def test_minutes_or_epochs_whichever_is_given_last():
    assert trainer_args(checkpoint_args={"max_minutes": 5.0}).max_minutes == 5
    assert trainer_args("--num_epoch", "3", checkpoint_args={"max_minutes": 5.0}).max_minutes is None
    assert trainer_args("--max_minutes", "3", checkpoint_args={"num_epoch": 5}).max_minutes == 3


@pytest.mark.parametrize(
    ("flags", "checkpoint_args", "words"),
    [
        ("--num_epoch 3 --max_minutes 3", {}, "--max_minutes"),
        ("--recipe lab", {"recipe": "default"}, "--recipe lab: .*--recipe default"),
        ("--patch_size 8 --frame_H 4 --frame_W 8", {}, "--patch_size 8"),
        ("--arch lab --patch_size 3", {}, "--patch_size .*--arch lab"),
        ("--arch lab --unet_levels 3", {}, "--unet_levels .*--arch lab"),
        ("", {"arch": "transformer"}, "--arch transformer"),
        ("", {"kl_reduction": "mean"}, "--kl_reduction mean"),
        ("", {"augment": "affine,mirror"}, "--augment affine,mirror"),
    ],
)
def test_contradictions_are_refused_in_one_line(flags, checkpoint_args, words):
    with pytest.raises(UserError, match=words) as refusal:
        trainer_args(*flags.split(), checkpoint_args=checkpoint_args)
    assert "\n" not in str(refusal.value)
