#!/bin/sh
# Reproduce the quality figures of README.md, docs/results.md and docs/own-video.md.
#
#     sh docs/measure.sh DANCE OUT [PART ...]
#
# DANCE is the dataset "dance". PARTs are dance, ablation, synthetic and own_video; by default all of them,
# which takes about 4 hours on one core. Repeat the command to continue. Needs the packages of requirements-video.txt.
set -eu
dance=$1 out=$2
shift 2
: "${PYTHON:=.venv/bin/python}" "${THREADS:=1}" # more threads change the figures by rounding

dataset() { # NAME FLAGS: a synthetic dataset
    name=$1
    shift
    [ -d "$out/$name/test" ] || $PYTHON tools/make_dataset.py "$out/$name" "$@"
}

run() { # NAME DATASET SEEDS FLAGS: a study of one run
    name=$1 data=$2 seeds=$3
    shift 3
    mkdir -p "$out"
    echo "$name: $*" > "$out/$name.txt"
    $PYTHON -m tools.study "$out/$name.txt" --DR "$data" --save_root "$out/$name" --seeds "$seeds" \
        --threads "$THREADS" --per_val 1000
}

retest() { # STUDY/runs/RUN NAME FLAGS: test seed 0 of a run in another way
    checkpoint=$out/$1/seed=0/best.ckpt test=$out/$1/seed=0/$2
    shift 2
    [ -f "$test/results.json" ] ||
        $PYTHON Tester.py --ckpt "$checkpoint" --save_root "$test" --threads "$THREADS" --no-make_gif "$@"
}

dance() {
    run default "$dance" 3 --num_epoch 60
    run lab "$dance" 1 --recipe lab --precision bf16 --num_epoch 6
    for tta in 1 5; do
        retest default/runs/default "tta_$tta" --tta $tta
    done
    retest default/runs/default missing_poses --pose_dropout 0.04
    retest default/runs/default missing_poses_unfilled --pose_dropout 0.04 --fill_poses 0
    retest default/runs/default samples --samples 20
}

ablation() {
    $PYTHON -m tools.study ablation --DR "$dance" --save_root "$out/ablation" --threads "$THREADS" \
        --num_epoch 15 --seeds 3 --per_val 1000
    for name in KL_summed no_z_dropout; do
        retest "ablation/runs/$name" samples --samples 20
    done
}

synthetic() {
    dataset data_64x32 --size 64x32
    run synthetic_64x32 "$out/data_64x32" 1 --num_epoch 30 --augment affine
    dataset data_128x64 --size 128x64
    run synthetic_128x64 "$out/data_128x64" 1 --frame_H 64 --frame_W 128 --batch_size 1 --tta 1 --num_epoch 12 \
        --augment affine
    dataset data_256x128 --size 256x128
    run synthetic_256x128 "$out/data_256x128" 1 --frame_H 128 --frame_W 256 --recipe large --num_epoch 12 \
        --augment affine
}

own_video() { # the validation video of a synthetic dataset as the user's video
    dataset person --size 512x256 --train_frames 20 --val_frames 900 --test_frames 2 --test_sequences 1
    if [ ! -d "$out/own_video_data/test" ]; then
        $PYTHON -c "
import sys, pathlib, imageio.v3 as iio
frames = [iio.imread(path) for path in sorted(pathlib.Path(sys.argv[1]).glob('*.png'))]
iio.imwrite(sys.argv[2], frames, plugin='pyav', codec='libx264', fps=30)
" "$out/person/val/val_img" "$out/person.mp4"
        $PYTHON -m tools.video_to_dataset "$out/person.mp4" --DR "$out/own_video_data"
    fi
    run own_video "$out/own_video_data" 1 --frame_H 64 --frame_W 128 --batch_size 1 --tta 1 --num_epoch 20
    dataset driver --size 512x256 --seed 1 --train_frames 20 --val_frames 20 --test_frames 200 --test_sequences 1
    $PYTHON -m tools.reenact "$out/own_video/runs/own_video/seed=0/best.ckpt" "$out/driver/test/test_label/0" "$out/reenacted"
}

for part in ${*:-dance ablation synthetic own_video}; do
    $part
done

$PYTHON - "$out" <<'END'
"""Print a row per test: PSNR by sequence, SSIM, drift, and the PSNR of copying the first frame."""
import json, sys
from pathlib import Path

import numpy as np

sys.path.insert(0, ".")
from utils import psnr_by_frame, to_float

out = Path(sys.argv[1])
for path in sorted(out.rglob("results.json")):
    results = json.loads(path.read_text())
    cells, baseline = [], []
    for sequence in results["sequences"]:
        truth = np.load(path.parent / f"pred_seq{sequence['sequence']}.npz")["truth"]
        first = to_float(truth[:1]).expand(len(truth) - 1, -1, -1, -1)
        baseline.append(psnr_by_frame(first, to_float(truth[1:])).mean().item())
        cells.append(f"{sequence['psnr']:.2f} drift {sequence.get('drift', float('nan')):.2f}")
    for name in ("pose_dropout", "samples"):
        cells += [f"{name} {scores}" for sequence in results["sequences"] if (scores := sequence.get(name))]
    ssim, first = results["average"].get("ssim", float("nan")), " ".join(f"{psnr:.2f}" for psnr in baseline)
    print(path.parent.relative_to(out), *cells, f"SSIM {ssim:.4f}", f"first frame {first}", sep=" | ")
END
