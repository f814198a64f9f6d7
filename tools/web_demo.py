"""Make a web demo: one HTML file in which a draggable skeleton or a camera drives the trained person.

    python -m tools.web_demo RUN/best.ckpt OUT.html --camera

OUT.html holds the networks, their runtime, and the motions and reference frames of the test and validation
videos; it needs no internet and no server. Keypoints come from the dataset's poses.json; without it,
motions can be played, but not edited or driven by a camera.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime import cli

if __name__ == "__main__":
    cli.prepare()

import argparse
from dataclasses import replace

from dataloader import Video, load_test_videos, load_validation_video
from images import numbered_images
from modules import VAE_Model
from runtime import files
from runtime.cli import UserError
from runtime.device import set_threads
from runtime.parser import Parser
from tools import pose_file
from tools.optional import require
from tools.poses.joints import BLAZEPOSE
from tools.poses.tracking import MIN_VISIBILITY
from tools.synthetic.skeleton import JOINTS
from tools.web import document, motions, packages
from training import evaluate
from training.checkpoint import load_for_inference
from training.configuration import require_dataset
from training.options import WHITE

# One prediction in fp32 per frame, as in the browser; 630 frames per motion.
PAGE_FLAGS = {"tta": 1, "precision": "fp32", "z": "mean", "val_vi_len": 630}
MIN_EFFECT = 2 / 255  # of z on a pixel; below this, the page has no z slider


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = Parser(prog="web_demo.py", description="Make a web demo of a trained person.")
    add = parser.add_argument
    add("ckpt", type=Path, metavar="CKPT", help="checkpoint of the trained person (--arch unet only)")
    add("out", type=Path, metavar="OUT.html", help="file to write")
    add("--DR", type=Path, help="dataset of the trained person; by default the one in the checkpoint")
    camera = (
        "let a camera drive the person; full: a larger pose network, more accurate and slower (default: lite)"
    )
    add("--camera", nargs="?", choices=("lite", "full"), const="lite", help=camera)
    add("--title", help="title of the page; by default the name of the video or dataset")
    add("--packages", type=Path, metavar="FOLDER", help="folder with the npm files; skips the download")
    return parser.parse_args(argv)


def scores(model: VAE_Model, videos: list[Video], config) -> list[str]:
    """The PSNR of each test video that has ground truth, as text."""
    with_truth = [video for video in videos if video.truth is not None]
    if not with_truth:
        return []
    evaluate.render(model, with_truth, config)
    for video in with_truth:
        evaluate.score(video, ssim=False)
    return [f"{video.scores['psnr']:.1f} dB on test sequence {video.number}" for video in with_truth]


def description(args, config, model: VAE_Model, results: list[str]) -> str:
    """The page's description of the model."""
    used = [weight for name, weight in model.named_parameters() if not name.startswith("Gaussian_Predictor")]
    parameters = sum(weight.numel() for weight in used)
    frames = len(numbered_images(args.DR / "train" / "train_img"))
    time = "" if config.train_seconds is None else f"for {config.train_seconds / 60:.1f} minutes "
    text = (
        f"A neural network ({parameters:,} parameters) renders this person; each frame is conditioned on the "
        f"previous one. Trained {time}on {frames:,} frames."
    )
    return text + (f" PSNR given the first frame and the poses: {', '.join(results)}." if results else "")


def uses_z(model: VAE_Model, video: Video, config) -> bool:
    """Whether a sample of z changes a frame visibly."""
    short = replace(video, poses=video.poses[:2])
    mean, sample = (evaluate.generate(model, [short], config, sample=sample)[0] for sample in (False, True))
    return float((mean - sample)[1].abs().max()) > MIN_EFFECT


def read_poses(dataset: Path, pose_background: str) -> pose_file.Poses | None:
    """The dataset's poses.json; None if it is missing, lists no folders, or cannot be drawn."""
    if pose_background != WHITE:
        cli.log(f"{dataset}: its pose images are not on white, so joints cannot be dragged")
        return None
    path = dataset / pose_file.NAME
    poses = pose_file.read(path) if path.exists() else None
    if poses is None or not poses.folders:
        cli.log(f"{dataset}: no {pose_file.NAME} with image folders, so joints cannot be dragged")
        return None
    return poses


def read_libraries(folder: Path | None) -> dict[str, bytes]:
    """The libraries of the page, by the names of `document.build_page`."""
    runtime, gif = (packages.package_folder(package, folder) for package in (packages.RUNTIME, packages.GIF))
    return {
        "runtime": (runtime / packages.RUNTIME_SCRIPT).read_bytes(),
        "runtime-wasm": (runtime / packages.RUNTIME_CODE).read_bytes(),
        "gifenc": (gif / packages.GIF_SCRIPT).read_bytes(),
    }


def read_pose_networks(args, poses: pose_file.Poses | None) -> dict[str, bytes]:
    """The pose networks by name; empty without --camera."""
    if args.camera is None:
        return {}
    if poses is None or not len(poses.of_folder("train/train_label")):
        raise UserError(f"{args.DR}: --camera needs the keypoints of the training poses in {pose_file.NAME}")
    require("tflite", "requirements-web.txt")
    from tools.web import pose_networks

    return pose_networks.load(args.camera, args.packages)


def camera_facts() -> dict:
    """How the page gets joints from landmarks, by the names that live_pose.js reads."""
    return {"landmarks": [BLAZEPOSE[joint] for joint in JOINTS], "minVisibility": MIN_VISIBILITY}


def main(argv: list[str] | None = None) -> None:
    """Score the test videos, export the networks, write the page."""
    args = parse(argv)
    if args.out.is_dir():
        raise UserError(f"{args.out}: is a folder; give a file to write")
    flags = PAGE_FLAGS | ({"DR": args.DR} if args.DR else {})
    model, config = load_for_inference(args.ckpt, **flags)
    require_dataset(config, "DR" in flags)
    args.DR = config.DR
    if config.arch != "unet":
        raise UserError(f"{args.ckpt}: --arch {config.arch} is too slow for a browser; train --arch unet")
    for module in ("onnx", "onnxscript"):
        require(module, "requirements-web.txt")
    from tools.web import networks

    libraries = read_libraries(args.packages)
    set_threads(None)
    test_videos = load_test_videos(config)
    videos, poses = [*test_videos, load_validation_video(config)], read_poses(args.DR, config.pose_background)
    size = config.frame_H, config.frame_W
    pose_networks = read_pose_networks(args, poses)
    facts = {
        "title": args.title
        or f"Person from {', '.join(poses.videos if poses else ()) or args.DR.resolve().name}",
        **motions.drawing_style(poses, size),
        "fps": videos[0].fps,
        "latent": model.latent_shape(*size),
        "usesZ": uses_z(model, videos[0], config),
        "about": description(args, config, model, scores(model, test_videos, config)),
        "camera": camera_facts() if pose_networks else None,
    }
    collected = motions.collect(videos, poses, config)
    graphs = networks.export(model, *size) | pose_networks
    page = document.build_page(facts, collected, graphs, libraries)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    files.write(args.out, page)
    cli.log(f"{args.out}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser")


if __name__ == "__main__":
    cli.run(main)
