"""What the runs of a study leave, without training."""

import json

import numpy as np

from tools.study_page import FinishedRun
from training.history import COLUMNS


def write_training(folder, psnr=(20.0, 21.0, 22.0), annealing="Cyclical"):
    """What Trainer.py leaves of a run with a validation after each epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("last.ckpt", "best.ckpt"):
        (folder / name).touch()
    (folder / "args.json").write_text(json.dumps({"kl_anneal_type": annealing}))
    lines = [",".join(COLUMNS)]
    for epoch, value in enumerate(psnr):
        row = dict.fromkeys(COLUMNS, 0.1) | {"epoch": epoch, "val_psnr": value, "seconds": 30}
        lines.append(",".join(map(str, row.values())))
    (folder / "history.csv").write_text("\n".join(lines) + "\n")
    (folder / "val_psnr_by_frame.csv").write_text("frame,last,best\n1,20.0,21.0\n2,19.0,20.0\n")


def write_test(folder, frames=6, truth=True, drift=0.5, size=(8, 16)):
    """What Tester.py leaves of two sequences."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = {"psnr": 25.0, "ssim": 0.9, "drift": drift, "psnr_by_frame": [25.0] * (frames - 1)}
    results = {
        "average": {"psnr": 25.0, "ssim": 0.9} if truth else {},
        "sequences": [{"sequence": i, **(scores if truth else {})} for i in (0, 1)],
    }
    (folder / "results.json").write_text(json.dumps(results))
    video = np.random.default_rng(0).integers(0, 255, (frames, *size, 3), dtype=np.uint8)
    videos = {"prediction": video, "pose": video, **({"truth": video} if truth else {})}
    np.savez(folder / "pred_seq0.npz", **videos)


def finished(folder, name, **settings):
    """A run as the page reads it."""
    training = {key: settings.pop(key) for key in ("psnr", "annealing") if key in settings}
    write_training(folder / name, **training)
    write_test(folder / name / "test", **settings)
    return FinishedRun.read(name, ("--lr", "0.1"), folder / name)
