"""Render the test sequences with a checkpoint, and score them where the truth is known.

    python Tester.py --DR DATA --save_root OUT --ckpt RUN/best.ckpt

Written to OUT: results.json, psnr_by_frame.png, and for each sequence pred_seq{i}.gif (the prediction),
compare_seq{i}.gif (pose | prediction | truth | error), sheet_seq{i}.png (some frames of that) and
pred_seq{i}.npz (the frames as arrays); by flags MP4s and submission.csv, too.
"""

from runtime import cli

if __name__ == "__main__":
    cli.prepare()  # before torch, which takes seconds to load

import csv
import json
from pathlib import Path

import numpy as np

import utils
from dataloader import load_test_sequences
from modules import VAE_Model
from runtime import files, run_dir
from runtime.device import keep_pages, on_device, select_device
from runtime.progress import Progress
from runtime.threads import Threads
from training import checkpoint, evaluate, memory
from training.evaluate import Sequence


def main(argv: list[str] | None = None) -> None:
    """Parse, render, score, write."""
    args, stored = checkpoint.tester_flags(argv)
    run_dir.make_writable(args.save_root, args.DR)
    run_dir.tidy(args.save_root)
    keep_pages()
    device, threads = select_device(args), Threads(args.threads)
    memory.require_model(args, device)
    model = VAE_Model(args)
    checkpoint.load_weights(model, args.ckpt_path, stored)
    on_device(model, args, device)

    sequences = load_test_sequences(args)
    threads.update()
    frames = max(len(sequence.poses) for sequence in sequences) - 1
    what = f"rendering {len(sequences)} sequences"
    with Progress(total=frames, descriptions=(what,), unit="frame") as bar:
        evaluate.render(model, sequences, args, bar.update)
    with_truth = [sequence for sequence in sequences if sequence.truth is not None]
    for sequence in with_truth:
        evaluate.score(sequence)
        if args.drift:
            evaluate.score_drift(model, sequence, args)
    if args.pose_dropout and with_truth:
        evaluate.score_pose_dropout(model, with_truth, args)
    if args.samples and with_truth:
        evaluate.score_samples(model, with_truth, args)

    print_scores(sequences)
    for number, sequence in enumerate(sequences, 1):
        write_sequence(args, number, sequence)
    if args.submission:
        write_submission(args.save_root / "submission.csv", sequences)
    write_results(args, sequences, stored.get("last_epoch"))  # last: results.json means that all is there
    print(f"all results are in {args.save_root}")


def averages(sequences: list[Sequence]) -> dict[str, float]:
    """Mean PSNR and SSIM over the sequences with scores; empty if there are none."""
    scores = [sequence.scores for sequence in sequences if sequence.scores]
    names = [name for name in ("psnr", "ssim") if all(name in s for s in scores)]
    return {name: float(np.mean([s[name] for s in scores])) for name in names if scores}


def print_scores(sequences: list[Sequence]) -> None:
    """Print the result lines of the contract (docs/contract.md, "Command line")."""
    print("\n===== Your Result =====")
    for number, sequence in enumerate(sequences, 1):
        scores = sequence.scores
        if not scores:
            print(f"no score for testing sequence{number}: its true frames are not there")
            continue
        print(f"PSNR for testing sequence{number}: {scores['psnr']:.3f}")
        if "psnr_forced" in scores:
            drift = f", drift at the end: {scores['drift']:.3f}" if "drift" in scores else ""
            print(f"    from true frames: {scores['psnr_forced']:.3f}{drift}")
        for name in ("pose_dropout", "samples"):
            if name in scores:
                print("    " + ", ".join(f"{key}: {value:.6g}" for key, value in scores[name].items()))
    if average := averages(sequences):
        print(f"AVG: {average['psnr']:.3f}")
        ssim = f"{average['ssim']:.4f}" if "ssim" in average else f"none below {utils.SSIM_LEAST_SIDE} pixels"
        print(f"SSIM: {ssim}")


def write_results(args, sequences: list[Sequence], last_epoch: int | None) -> None:
    """results.json, with every score, and the plot of PSNR by frame."""
    results = {
        "average": averages(sequences),
        "sequences": [
            {"sequence": number, "folder": s.name, "samples": None, **s.scores, "truth": s.truth_source}
            for number, s in enumerate(sequences, 1)
        ],
        "checkpoint": str(args.ckpt_path),
        "last_epoch": last_epoch,
        "z": args.z,
    }
    files.write(args.save_root / "results.json", json.dumps(results, indent=1))
    curves = {f"sequence {i}": s.scores["psnr_by_frame"] for i, s in enumerate(sequences, 1) if s.scores}
    if curves:
        utils.plot_psnr_by_frame(curves, args.save_root / "psnr_by_frame.png")


def write_sequence(args, number: int, sequence: Sequence) -> None:
    """The frames of one sequence as arrays, a sheet of some, and the GIFs and MP4s that the flags ask for."""
    root = args.save_root
    arrays = {"prediction": utils.to_uint8(sequence.prediction), "pose": sequence.poses}
    if sequence.truth is not None:
        arrays["truth"] = utils.to_uint8(sequence.truth)
    with files.replacing(root / f"pred_seq{number}.npz") as temporary:
        np.savez_compressed(temporary, **arrays)
    films = {
        f"pred_seq{number}": utils.film({"prediction": arrays["prediction"]}, named=False),
        f"compare_seq{number}": sequence.film(),
    }
    utils.save_sheet(root / f"sheet_seq{number}.png", films[f"compare_seq{number}"])
    if sequence.samples:
        columns = {"pose": sequence.poses, "truth": arrays["truth"]}
        columns |= {f"sample {i}": utils.to_uint8(sample) for i, sample in enumerate(sequence.samples, 1)}
        films[f"samples_seq{number}"] = utils.film(columns)
        utils.save_sheet(root / f"samples_sheet_seq{number}.png", films[f"samples_seq{number}"])
    for name, film in films.items():
        if args.make_gif:
            utils.save_gif(root / f"{name}.gif", film)
        if args.mp4:
            utils.save_mp4(root / f"{name}.mp4", [film])


def write_submission(path: Path, sequences: list[Sequence]) -> None:
    """Every frame of every sequence in a row of its own: id, then its values 0..255, channel first."""
    with files.replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", *range(sequences[0].prediction[0].numel())])
        frames = (frame for sequence in sequences for frame in utils.to_uint8(sequence.prediction))
        for row, frame in enumerate(frames):
            writer.writerow([row, *frame.transpose(2, 0, 1).ravel().tolist()])


if __name__ == "__main__":
    cli.run(main)
