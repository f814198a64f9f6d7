import pytest
import torch

from runtime.cli import UserError
from training import memory, options

CPU = torch.device("cpu")


def args_of(*flags):
    return options.trainer_args(["--DR=data", "--save_root=run", *flags])


@pytest.mark.parametrize("flags", [[], ["--recipe=lab"], ["--recipe=lab", "--batch_size=4"]])
def test_what_fits_is_accepted(flags):
    memory.require_model(args_of(*flags), CPU, clips=2)


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--F_dim=1000000000"], "--F_dim 1000000000"),
        (["--D_out_dim=10000000000"], "--D_out_dim"),
        (["--N_dim=1000000", "--F_dim=300000"], "GiB"),
        (["--frame_H=100000", "--frame_W=100000"], "100000x100000"),
        (["--train_vi_len=100000000"], "100000000 frames"),
    ],
)
def test_what_cannot_fit_is_refused_with_what_there_is(flags, word):
    with pytest.raises(UserError, match=r"GiB of memory, and there are [\d.]+") as refusal:
        memory.require_model(args_of(*flags), CPU, clips=1)
    assert word in str(refusal.value)


def test_estimate_is_below_what_a_step_takes(monkeypatch):
    """A run that fits must not be refused: the estimate is a lower bound of the tensors of a real step."""
    from modules import VAE_Model
    from training.step import TrainingStep, make_optimizer

    args = args_of("--recipe=lab", "--F_dim=16", "--L_dim=8", "--D_out_dim=16", "--train_vi_len=4")
    saved = {}

    def count(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    step = TrainingStep(model := VAE_Model(args), make_optimizer(model, args), args)
    clips = torch.zeros(2, 2, 4, 32, 64, 3, dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        step(*clips, lr=1e-3, beta=1.0, teacher_forcing=True)
    needed = []
    monkeypatch.setattr(memory, "require", lambda bytes, *_: needed.append(bytes))
    memory.require_model(args, CPU, clips=2)
    assert 0.1 * sum(saved.values()) < needed[1] < sum(saved.values())


def test_limit_of_a_container_counts(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1048576\n")
    monkeypatch.setattr(memory, "CONTAINER_LIMITS", (str(tmp_path / "memory.max"), str(tmp_path / "none")))
    assert memory.installed() == 2**20
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.installed() > 2**28
