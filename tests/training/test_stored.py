"""Checkpoints with wrong content: one line that names the key, and no crash."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import Trainer
from runtime.cli import UserError
from tests.helpers import SMALL_UNET, assert_user_error, run_script
from training import checkpoint, memory

NOTHING = object()


@pytest.fixture(scope="module")
def content(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    Trainer.main(
        ["--DR", str(dataset), "--save_root", str(folder), *SMALL_UNET, "--num_epoch=1", "--device=cpu"]
    )
    return checkpoint.read(folder / "last.ckpt")


def changed(content, keys, value):
    content = copy.deepcopy(content)
    place = content
    for key in keys[:-1]:
        place = place[key]
    if value is NOTHING:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return content


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("rng",), NOTHING), (("optimizer",), NOTHING), (("history",), NOTHING), (("step",), NOTHING),
        (("format_version",), "1"), (("step",), -1), (("lr",), float("nan")), (("last_epoch",), 1.5),
        (("args",), []), (("args", "D_out_dim"), None), (("args", "F_dim"), -4),
        (("args", "augment"), "spin"),
        (("args", "recipe"), "unknown"), (("args", "z_dropout"), float("nan")),
        (("args", "fast_train"), "yes"),
        (("history", "rows"), []), (("history", "rows", 0, "seconds"), None),
        (("history", "psnr_by_frame", "last"), ["a"]), (("history", "branch_point"), 7),
        (("rng", "cpu"), torch.zeros(3, dtype=torch.uint8)), (("rng", "cuda"), 5), (("rng", "cuda"), [5]),
        (("kept",), 1), (("history", "psnr_by_frame", "last"), []), (("history", "psnr_by_frame"), {}),
        (("history", "rows", 0, "loss"), 10**400), (("args", "seed"), 2**64),
        (("optimizer", "state", 0, "momentum"), torch.zeros(1)),
        (("optimizer", "state", 1, "exp_avg"), torch.zeros(1)),
        (("optimizer", "state", 1, "exp_avg_sq"), NOTHING), (("optimizer", "state", 999), {}),
        (("optimizer", "param_groups"), []), (("optimizer", "param_groups", 0, "params"), [0]),
        (("state_dict", 5), torch.zeros(1)),
        (("state_dict", "Generator.paint.bias"), torch.zeros(16, dtype=torch.int32)),
        (("state_dict", "Generator.paint.bias"), torch.zeros(16).to_sparse()),
        (("state_dict", "Generator.paint.bias"), torch.full((16,), float("inf"))),
        (("state_dict", "Generator.paint.bias"), torch.full((16,), 3e5)),
    ],
)  # fmt: skip
def test_wrong_value_is_refused_by_its_key(content, dataset, tmp_path, keys, value):
    torch.save(changed(content, keys, value), tmp_path / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt") as refusal:
        Trainer.main(
            ["--DR", str(dataset), "--save_root", str(tmp_path), "--resume", "--num_epoch=2", "--device=cpu"]
        )
    assert any(str(key) in str(refusal.value) for key in keys[-3:] if key) and "\n" not in str(refusal.value)


def test_sizes_beyond_the_memory_are_refused(content, dataset, tmp_path):
    torch.save(changed(content, ("args", "F_dim"), 10**9), tmp_path / "last.ckpt")
    shared = ["--DR", dataset, "--save_root", tmp_path]
    assert_user_error(run_script("Trainer.py", *shared, "--resume"), "--F_dim 1000000000", "GiB")
    assert_user_error(
        run_script("Tester.py", *shared, "--ckpt", tmp_path / "last.ckpt"), "--F_dim 1000000000"
    )


def test_flipped_bit_is_found(content, tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save(content, path)
    whole = bytearray(path.read_bytes())
    for place in range(len(whole) // 4, len(whole) * 3 // 4, len(whole) // 8):
        damaged = whole.copy()
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"a\.ckpt: damaged"):
            checkpoint.read(path)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), cut=st.integers(0, 60_000))
def test_arbitrary_bytes_and_cut_files_end_in_one_line(content, tmp_path_factory, data, cut):
    path = tmp_path_factory.mktemp("bytes") / "a.ckpt"
    torch.save(content, path)
    for damaged in (data, path.read_bytes()[:cut]):
        path.write_bytes(damaged)
        with pytest.raises(UserError) as refusal:
            checkpoint.read(path)
        assert "\n" not in str(refusal.value)


def test_diverged_run_writes_no_checkpoint_and_says_so(dataset, tmp_path):
    flags = [*SMALL_UNET, "--device=cpu", "--lr=1e38", "--lr_warmup=0", "--num_epoch=2"]
    done = run_script("Trainer.py", "--DR", dataset, "--save_root", tmp_path, *flags)
    assert_user_error(done, "diverged")
    assert not list(tmp_path.glob("*.ckpt"))


def test_tester_says_that_weights_are_not_finite(content, dataset, tmp_path):
    broken = changed(content, ("state_dict", "Generator.paint.bias"), torch.full((16,), float("nan")))
    torch.save(broken, tmp_path / "a.ckpt")
    done = run_script(
        "Tester.py", "--DR", dataset, "--save_root", tmp_path / "out", "--ckpt", tmp_path / "a.ckpt"
    )
    assert_user_error(done, "Generator.paint.bias", "not finite", "diverged")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value, keys=()):
    """Where a value stands that can be replaced: the keys to each entry of a checkpoint."""
    entries = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in entries:
        yield (*keys, key)
        yield from places(inner, (*keys, key))


@pytest.mark.parametrize("name", ["seed", "optim", "scales", "lr"])
def test_flag_that_a_checkpoint_lacks_has_its_default(content, dataset, tmp_path, name):
    torch.save(changed(content, ("args", name), NOTHING), tmp_path / "last.ckpt")
    args, start = checkpoint.trainer_flags(["--DR", str(dataset), "--save_root", str(tmp_path), "--resume"])
    args.device = "cpu"
    assert getattr(Trainer.Run(args, start).args, name) == content["args"][name]


@settings(max_examples=80, deadline=None)
@given(data=st.data(), value=PLAIN | st.just(NOTHING))
def test_any_plain_value_anywhere_is_used_or_refused_in_one_line(
    content, dataset, tmp_path_factory, data, value
):
    folder = tmp_path_factory.mktemp("values")
    keys = data.draw(st.sampled_from(list(places(content))))
    torch.save(changed(content, keys, value), folder / "last.ckpt")
    try:
        args, start = checkpoint.trainer_flags(["--DR", str(dataset), "--save_root", str(folder), "--resume"])
        args.device = "cpu"
        memory.require_model(args, torch.device("cpu"), clips=1)
        Trainer.Run(args, start)
    except UserError as refusal:
        assert "\n" not in str(refusal) and str(refusal)
