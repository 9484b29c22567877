"""An autoencoder learns one collection of expression profiles; its encoder then serves another, smaller one.

Pre-train on the source without labels, keep the encoder, put a head on it, and fine-tune on the target's few labels:
the head alone, all layers, one layer after another, or all with smaller learning rates near the genes. Written in
Keras 3, so the same module runs on TensorFlow (the default), torch and JAX: set ``KERAS_BACKEND`` before the first
import.

:mod:`~shared.methods.autoencoder_transfer.networks` has the autoencoders, the encoder with its head, and the schedules
of fine-tuning; :mod:`~shared.methods.autoencoder_transfer.estimators` the classifier and the regressor.
"""

from shared.methods.autoencoder_transfer.estimators import AutoencoderClassifier, AutoencoderRegressor
from shared.methods.autoencoder_transfer.networks import (
    TUNING,
    autoencoder,
    compiled_autoencoder,
    compiled_encoder,
    stages,
    variational_autoencoder,
)
from shared.nn.keras_net import keras

__all__ = [
    "TUNING",
    "AutoencoderClassifier",
    "AutoencoderRegressor",
    "autoencoder",
    "compiled_autoencoder",
    "compiled_encoder",
    "keras",
    "stages",
    "variational_autoencoder",
]
