"""The model: five networks, and `VAE_Model`, which rolls them out over time."""

from .cvae import ARCHITECTURES, VAE_Model
from .lab import Decoder_Fusion, Gaussian_Predictor, Generator, Label_Encoder, RGB_Encoder

__all__ = [
    "ARCHITECTURES", "Decoder_Fusion", "Gaussian_Predictor", "Generator", "Label_Encoder", "RGB_Encoder",
    "VAE_Model",
]  # fmt: skip
