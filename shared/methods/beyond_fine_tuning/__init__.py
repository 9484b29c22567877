"""What can be added to an encoder: several tasks, and a second kind of data.

Small Keras 3 networks, so the same module runs on TensorFlow (the default), torch and JAX. Inputs are samples × genes,
logged. As in :mod:`shared.methods.autoencoder_transfer`, what an estimator remembers are plain arrays.

:mod:`~shared.methods.beyond_fine_tuning.multitask` has one trunk for several tasks;
:mod:`~shared.methods.beyond_fine_tuning.two_omics` joins two blocks of columns, the second of which may be missing.
"""

from shared.methods.beyond_fine_tuning.multitask import MultiTask, masked_error
from shared.methods.beyond_fine_tuning.two_omics import FUSIONS, TwoOmics
from shared.nn.keras_net import keras

__all__ = [
    "FUSIONS",
    "MultiTask",
    "TwoOmics",
    "keras",
    "masked_error",
]
