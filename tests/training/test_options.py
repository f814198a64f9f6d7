import pytest

from tests.helpers import ROOT
from tools.flag_table import flag_table
from training import options

REQUIRED = ["--DR", "data", "--save_root", "run"]


@pytest.mark.parametrize(
    "flags",
    [
        "--tfr 2", "--tfr -0.1", "--tfr nan", "--batch_size 0", "--batch_size two", "--partial 0",
        "--frame_H 3", "--lr 0", "--lr inf", "--max_minutes 0", "--seed -1", "--augment spin",
        "--pose_background transparent", "--pose_background #12345678", "--pose_background 0,0,0",
        "--pose_background rgb(300,0,0)",
        "--augment mirror", "--optim SGD", "--kl_anneal_type Linear", "--precision fp16", "--no_such_flag",
        # Former names; the line says the current one.
        "--first_frame any is now --reference_frame", "--shifts=1 is now --tta",
        "--fold 4 is now --patch_size", "--scales 3 is now --unet_levels",
        "--mse_weights psnr is now --recon_loss", "--augment turn is now 'affine'",
        "--augment affine,paste is now 'copy_paste'",
    ],
)  # fmt: skip
def test_wrong_flags_and_former_names_are_refused_in_one_line(flags, capsys):
    flags, _, current = flags.partition(" is now ")
    with pytest.raises(SystemExit) as stopped:
        options.parser(options.TRAINER).parse_args([*REQUIRED, *flags.split()])
    assert stopped.value.code == 2
    message = capsys.readouterr().err.strip()
    assert flags.split()[0].partition("=")[0] in message and "\n" not in message
    assert f"is now {current}" in message if current else "is now" not in message


@pytest.mark.parametrize("parser", [options.parser(options.TRAINER), options.parser(options.TESTER)])
def test_help_shows_defaults(parser):
    assert "(default: unet)" in " ".join(parser.format_help().split())


def test_page_of_flags_is_current():
    assert (ROOT / "docs" / "flags.md").read_text() == flag_table() + "\n"
