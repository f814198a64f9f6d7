"""Make a page on which a skeleton is dragged and the trained person follows: one file for any browser.

    python -m tools.web_demo RUN/best.ckpt --DR DATA OUT.html

OUT.html holds the networks, what runs them, the first frames and the motions of the test sequences and of
validation; it needs neither a network nor a server. DR is the dataset of the person; its poses.json tells the
joints. Without one the motions are played, but nothing can be dragged.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime import cli

if __name__ == "__main__":
    cli.prepare()

import argparse

import torch

from dataloader import load_test_sequences, validation_sequence
from image_cache import numbered_frames
from modules import VAE_Model
from runtime import files
from runtime.cli import UserError
from runtime.parser import Parser
from runtime.progress import Progress
from runtime.threads import Threads
from tools import pose_file
from tools.web import document, motions
from training import checkpoint, evaluate
from training.evaluate import Sequence

LONGEST_MOTION = 630  # frames
LEAST_EFFECT = 2 / 255  # of z on a pixel, so that the page has a control for it


def parse(argv=None) -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(
        prog="web_demo.py", description="Make a page on which a skeleton moves the trained person."
    )
    add = parser.add_argument
    add("ckpt", type=Path, metavar="CKPT", help="checkpoint of the trained person, of --arch unet")
    add("out", type=Path, metavar="OUT.html", help="file to write")
    add("--DR", type=Path, required=True, help="dataset of the trained person")
    runtime = "folder with the two files of the browser's runtime, instead of fetching them"
    add("--runtime", type=Path, metavar="FOLDER", help=runtime)
    return parser.parse_args(argv)


def load(args) -> tuple[argparse.Namespace, dict, VAE_Model]:
    """The flags of the checkpoint, the checkpoint, and its model on the CPU."""
    stored = ["--DR", str(args.DR), "--save_root", str(args.out), "--ckpt_path", str(args.ckpt)]
    length = ["--val_vi_len", str(LONGEST_MOTION)]
    # A page paints each frame once, in fp32.
    settings = ["--shifts", "1", "--precision", "fp32", "--z", "mean", "--device", "cpu"]
    flags, start = checkpoint.tester_flags([*stored, *length, *settings])
    if flags.arch != "unet":
        raise UserError(f"{args.ckpt}: is of --arch {flags.arch}; a page is for --arch unet, which is faster")
    model = VAE_Model(flags)
    checkpoint.load_weights(model, args.ckpt, start)
    return flags, start, model.eval()


def scores(model: VAE_Model, sequences: list[Sequence], flags) -> list[str]:
    """What the PSNR of each test sequence with a truth is, in words."""
    with_truth = [sequence for sequence in sequences if sequence.truth is not None]
    if not with_truth:
        return []
    frames = max(len(sequence.poses) for sequence in with_truth) - 1
    with Progress(total=frames, descriptions=("test sequences",), unit="frame") as bar:
        evaluate.render(model, with_truth, flags, bar.update)
    for sequence in with_truth:
        evaluate.score(sequence, ssim=False)
    return [f"{sequence.scores['psnr']:.1f} dB on test sequence {sequence.name}" for sequence in with_truth]


def sentences(args, start: dict, model: VAE_Model, results: list[str]) -> str:
    """What the page says about itself."""
    used = [weight for name, weight in model.named_parameters() if not name.startswith("Gaussian_Predictor")]
    minutes = sum(row["seconds"] for row in start["history"]["rows"]) / 60
    parameters = sum(weight.numel() for weight in used)
    frames = len(numbered_frames(args.DR / "train" / "train_img"))
    lines = [
        f"This person is painted by a neural network of {parameters:,} parameters, each frame from its own "
        f"last one. It was trained for {minutes:.1f} minutes on {frames:,} frames."
    ]
    if results:
        lines.append(f"Its PSNR, from the first frame and the poses alone: {', '.join(results)}.")
    return " ".join(lines)


@torch.no_grad()
def uses_z(model: VAE_Model, sequence: Sequence, flags) -> bool:
    """Whether a sample of z changes a frame visibly."""
    few = Sequence(sequence.name, sequence.poses[:2], sequence.first_frame)
    mean, sample = (evaluate.generate(model, [few], flags, sample=sample)[0] for sample in (False, True))
    return float((mean - sample)[1].abs().max()) > LEAST_EFFECT


def main(argv=None) -> None:
    """Render the test for its score, export the networks, put the page together."""
    args = parse(argv)
    flags, start, model = load(args)
    try:
        from tools.web import networks, runtime
    except ImportError as missing:
        raise UserError(f"{missing}; pip install -r requirements-web.txt") from None
    where = runtime.runtime_folder(args.runtime)
    Threads(flags.threads).update()
    sequences = load_test_sequences(flags)
    recordings = [*sequences, validation_sequence(flags)]
    poses = args.DR / pose_file.NAME
    joints = pose_file.read(poses) if poses.exists() else None
    if joints is None or not joints.folders:
        joints = None
        print(f"{args.DR}: no {pose_file.NAME} that says where pictures are, so nothing can be dragged")
    size = flags.frame_H, flags.frame_W
    facts = {
        **motions.look(joints, size),
        "latent": model.latent_shape(*size),
        "usesZ": uses_z(model, recordings[0], flags),
        "sentences": sentences(args, start, model, scores(model, sequences, flags)),
    }
    recorded = motions.recorded(recordings, joints)
    page = document.page(facts, recorded, networks.graphs(model, *size), where)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    files.write(args.out, page)
    print(f"{args.out}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    cli.run(main)
