import pytest
import torch

import Trainer
from dataloader import Video
from modules import VAE_Model
from runtime.cli import UserError
from tests.helpers import SIZES, random_clips, random_uint8_clips, small_model
from training import checkpoint, evaluate
from training.checkpoint import load_for_inference

FORMER_FLAGS = {
    "reference_frame": "first_frame", "tta": "shifts", "patch_size": "fold", "unet_levels": "scales",
    "recon_loss": "mse_weights",
}  # fmt: skip
FORMER_VALUES = {"mse_weights": "psnr", "augment": "turn,paste"}
FORMER_KEYS = {
    ".in_conv.": ".enter.0.0.", ".in_block.0.": ".enter.0.1.", ".in_block.2.": ".enter.1.",
    ".out_block.": ".leave.", ".z_proj.": ".inject.", ".levels.": ".deep.", ".to_pixels.": ".paint.",
}  # fmt: skip


def fuse_first_layer(weights, states, frame_chans):
    """Merge the two convolutions of the decoder fusion, and the states of the optimizer, as in format 1."""

    def fuse(current, reference):
        frame, pose = current.split([frame_chans, current.shape[1] - frame_chans], dim=1)
        return torch.cat([frame, reference, pose], dim=1)

    current, reference = (f"Decoder_Fusion.{name}.weight" for name in ("in_conv", "reference_conv"))
    index, removed = (list(weights).index(name) for name in (current, reference))
    weights[current] = fuse(weights[current], weights.pop(reference))
    halves = states[index], states.pop(removed)
    states[index] = {
        name: fuse(value, halves[1][name]) if value.ndim == 4 else value for name, value in halves[0].items()
    }
    return {number - (number > removed): state for number, state in states.items()}


@pytest.fixture
def format_1(unet_run, tmp_path):
    """The first epoch of `unet_run`, as it was written before flags and layers had their present names."""
    content, weights = checkpoint.read(unet_run / "epoch=0.ckpt"), {}
    optimizer, args = content["optimizer"], content["args"]
    states = fuse_first_layer(content["state_dict"], optimizer["state"], args["F_dim"])
    for key, value in content["state_dict"].items():
        for current, former in FORMER_KEYS.items():
            key = key.replace(current, former)
        weights[key] = value
    groups = [group | {"params": list(range(len(weights)))} for group in optimizer["param_groups"]]
    path = tmp_path / "format_1.ckpt"
    content |= {"state_dict": weights, "optimizer": {"state": states, "param_groups": groups}}
    content["args"] = {FORMER_FLAGS.get(name, name): value for name, value in args.items()} | FORMER_VALUES
    torch.save(content | {"format_version": 1, "kept": False}, path)
    return path


def test_model_of_format_1_renders_the_same(unet_run, format_1):
    frames, poses = random_clips(batch=1, length=5)
    model, config = load_for_inference(unet_run / "epoch=0.ckpt")
    former_model, former_config = load_for_inference(format_1)
    assert vars(former_config) | {"ckpt_path": config.ckpt_path} == vars(config)
    video, former_video = (m.generate(frames[:, 0], poses, tta=3) for m in (model, former_model))
    assert torch.equal(video, former_video)


def test_run_of_format_1_resumes_to_the_same_weights(unet_run, format_1, dataset, tmp_path, no_images):
    branch = tmp_path / "branch"
    flags = ["--ckpt_path", str(format_1), "--save_root", str(branch), "--device=cpu"]
    Trainer.main(["--DR", str(dataset), *flags])
    expected, found = (checkpoint.read(folder / "last.ckpt") for folder in (unet_run, branch))
    torch.testing.assert_close(found["state_dict"], expected["state_dict"], rtol=0, atol=0)
    for name in ("augment", "recon_loss", "reference_frame", "tta", "patch_size", "unet_levels"):
        assert found["args"][name] == expected["args"][name]


def test_library_use_gives_the_videos_of_tester(unet_run):
    frames, poses = random_uint8_clips(batch=1, length=7)
    model, config = load_for_inference(unet_run / "best.ckpt", precision="fp32", fill_poses=0)
    first_frame, pose_images = frames[:, 0].movedim(-1, 1) / 255, poses.movedim(-1, 2) / 255
    video = model.generate(first_frame, pose_images, tta=config.tta)
    assert video.shape == (1, 7, 3, 8, 16) and torch.equal(video[:, 0], first_frame)
    (rendered,) = evaluate.generate(model, [Video(None, poses[0].numpy(), frames[0, 0].numpy())], config)
    assert torch.equal(video[0], rendered)


def test_configuration_is_that_of_the_checkpoint_with_overrides(unet_run, dataset, tmp_path):
    path = unet_run / "last.ckpt"
    model, config = load_for_inference(str(path))
    assert (config.arch, config.F_dim, config.frame_H, config.tta, config.seed) == ("unet", 8, 8, 3, 0)
    assert not model.training and config.last_epoch == 1 and config.train_seconds > 0
    assert (config.DR, config.save_root) == (dataset, None)
    _, config = load_for_inference(path, tta=1, seed=5, DR=tmp_path, save_root=tmp_path)
    assert (config.tta, config.seed, config.DR, config.save_root) == (1, 5, tmp_path, tmp_path)
    with pytest.raises(TypeError, match="'shifts'"):
        load_for_inference(path, shifts=1)
    with pytest.raises(UserError, match="--F_dim 8, not 16"):
        load_for_inference(path, F_dim=16)


def test_checkpoint_of_the_course_loads_with_its_recipe(tmp_path):
    model = VAE_Model(small_model()).eval()
    content = {"state_dict": model.state_dict(), "optimizer": {}, "lr": 1e-5, "tfr": 0.0, "last_epoch": 9}
    torch.save(content, tmp_path / "epoch=9.ckpt")
    loaded, config = load_for_inference(tmp_path / "epoch=9.ckpt", **SIZES)
    assert (config.arch, config.output, config.tta, config.z) == ("lab", "linear", 1, "mean")
    assert (config.last_epoch, config.last_lr, config.train_seconds) == (9, 1e-5, None)
    frames, poses = random_clips(batch=1, length=3)
    video = loaded.generate(frames[:, 0], poses)
    torch.testing.assert_close(video, model.generate(frames[:, 0], poses))


def test_flags_that_a_checkpoint_lacks_have_their_defaults(unet_run, dataset, tmp_path):
    content = checkpoint.read(unet_run / "last.ckpt")
    defaults = {name: content["args"].pop(name) for name in ("seed", "optim", "unet_levels", "lr")}
    torch.save(content, tmp_path / "last.ckpt")
    flags = ["--DR", str(dataset), "--save_root", str(tmp_path), "--resume", "--device=cpu"]
    run = Trainer.Run(*checkpoint.resolve_trainer(flags))
    assert {name: getattr(run.args, name) for name in defaults} == defaults
