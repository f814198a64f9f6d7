"""What the model is: five networks, and `VAE_Model`, which rolls them out."""

from .cvae import ARCHITECTURES, VAE_Model
from .modules import (
    Decoder_Fusion,
    Gaussian_Predictor,
    Generator,
    Label_Encoder,
    RGB_Encoder,
)

__all__ = [
    "ARCHITECTURES",
    "Decoder_Fusion",
    "Gaussian_Predictor",
    "Generator",
    "Label_Encoder",
    "RGB_Encoder",
    "VAE_Model",
]
