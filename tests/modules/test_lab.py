"""The networks of the course, against weights and outputs that the course's own code wrote."""

import json

import numpy as np
import pytest
import torch

from modules import Gaussian_Predictor, VAE_Model
from modules.lab import posterior_sample
from tests.helpers import ROOT, small_model

REFERENCE = ROOT / "tests" / "reference"


@pytest.fixture(scope="module")
def vectors():
    """Weights, inputs and outputs of a small `lab` model; clips have 4 frames, other outputs are of t = 1."""
    with np.load(REFERENCE / "lab_vectors.npz") as arrays:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def lab_model(vectors):
    model = VAE_Model(small_model(F_dim=16, L_dim=8, N_dim=4, D_out_dim=16))
    weights = {key.removeprefix("weight/"): v for key, v in vectors.items() if key.startswith("weight/")}
    model.load_state_dict(weights, strict=True)
    return model.eval()


def test_full_size_model_has_the_keys_and_shapes_of_the_course():
    expected = json.loads((REFERENCE / "lab_state_dict.json").read_text())
    model = VAE_Model(small_model(F_dim=128, L_dim=32, N_dim=12, D_out_dim=192))
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == expected


@torch.no_grad()
def test_networks_equal_those_of_the_course(vectors, lab_model):
    frame, pose, z = (vectors[f"in/{name}"][:, 1] for name in ("img", "label", "z"))
    features = lab_model.frame_transformation(frame), lab_model.label_transformation(pose)
    fused = lab_model.Decoder_Fusion(*features, z)
    results = (*features, *lab_model.Gaussian_Predictor(*features)[1:], fused, lab_model.Generator(fused))
    names = "frame_feature", "pose_feature", "mu", "logvar", "fused", "generated"
    for name, result in zip(names, results, strict=True):
        torch.testing.assert_close(result, vectors[f"out/{name}"], rtol=0, atol=1e-5)


def test_rollout_equals_that_of_the_course(vectors, lab_model):
    frames, poses, z = (vectors[f"in/{name}"] for name in ("img", "label", "z"))
    video = lab_model.generate(frames[:, 0], poses, z=z)
    torch.testing.assert_close(video[:, 1:], vectors["out/rollout"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e3, 1e6])
def test_posterior_is_finite_for_features_of_any_size(scale):
    torch.manual_seed(0)
    feature = torch.randn(1, 3, 4, 4) * scale
    z, _, logvar = Gaussian_Predictor(6, 4)(feature, feature)
    assert z.isfinite().all() and logvar.exp().isfinite().all()


def test_posterior_samples_have_its_mean_and_variance():
    torch.manual_seed(0)
    parameters = torch.tensor([1.5, -2.0]).reshape(1, 2, 1, 1).expand(1, 2, 100, 200)
    samples, _, _ = posterior_sample(parameters)
    assert samples.mean().item() == pytest.approx(1.5, abs=0.02)
    assert samples.var().log().item() == pytest.approx(-2.0, abs=0.05)
