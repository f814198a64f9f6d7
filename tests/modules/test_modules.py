import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules import Gaussian_Predictor, VAE_Model
from modules.modules import LOGVAR_RANGE, posterior_sample
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


def assert_agree(result, expected):
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-5)


def test_full_size_model_has_the_keys_and_shapes_of_the_course_lab():
    wanted = json.loads((REFERENCE / "lab_state_dict.json").read_text())
    model = VAE_Model(small_model(F_dim=128, L_dim=32, N_dim=12, D_out_dim=192))
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == wanted
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_585_620


@torch.no_grad()
def test_networks_agree_with_the_vectors_of_the_course_lab(vectors, lab_model):
    frame, pose, z = (vectors[f"in/{name}"][:, 1] for name in ("img", "label", "z"))
    frame_feature, pose_feature = lab_model.frame_transformation(frame), lab_model.label_transformation(pose)
    _, mu, logvar = lab_model.Gaussian_Predictor(frame_feature, pose_feature)
    fused = lab_model.Decoder_Fusion(frame_feature, pose_feature, z)
    results = {
        "frame_feature": frame_feature,
        "pose_feature": pose_feature,
        "mu": mu,
        "logvar": logvar,
        "fused": fused,
        "generated": lab_model.Generator(fused),
    }
    for name, result in results.items():
        assert_agree(result, vectors[f"out/{name}"])


def test_rollout_agrees_with_the_vectors_of_the_course_lab(vectors, lab_model):
    frames, poses, z = (vectors[f"in/{name}"] for name in ("img", "label", "z"))
    video = lab_model.generate(frames[:, 0], poses, z=z)
    assert video.shape == frames.shape
    assert_agree(video[:, 1:], vectors["out/rollout"])


def test_residual_and_gated_blocks_compute_what_the_contract_says():
    from torch.nn.functional import leaky_relu

    from modules.layers import ConvFFN, ResidualBlock

    x = torch.randn(2, 4, 5, 6)
    block = ResidualBlock(4, 4)
    expected = leaky_relu(block.conv2(leaky_relu(block.conv1(x), 0.01)), 0.01) + x
    torch.testing.assert_close(block(x), expected)
    ffn = ConvFFN(4)
    a, b = ffn.conv(x).chunk(2, dim=1)
    torch.testing.assert_close(ffn(x), x + ffn.conv_out(a * leaky_relu(b, 0.1)))


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1, 1e6))
def test_posterior_is_finite_however_large_its_features_are(scale):
    torch.manual_seed(0)
    predictor = Gaussian_Predictor(6, 4)
    feature = torch.randn(1, 3, 4, 4) * scale
    z, _, logvar = predictor(feature, feature)
    assert torch.isfinite(z).all()
    assert logvar.min() >= LOGVAR_RANGE[0] and logvar.max() <= LOGVAR_RANGE[1]


def test_sample_of_the_posterior_has_its_mean_and_variance():
    torch.manual_seed(0)
    mu, logvar = torch.tensor(1.5), torch.tensor(-2.0)
    parameters = torch.stack([mu, logvar]).reshape(1, 2, 1, 1).expand(1, 2, 100, 200)
    draws, _, _ = posterior_sample(parameters)
    assert draws.mean().item() == pytest.approx(1.5, abs=0.02)
    assert draws.var().log().item() == pytest.approx(-2.0, abs=0.05)
