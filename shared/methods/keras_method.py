"""Methods whose network is a Keras model: building, training, predicting and resuming, written once. No torch here.

A method says what its network is (:meth:`KerasMethod.build`). What a fitted estimator remembers are plain arrays, so it
can be cloned, sent to another process and saved on any back end of Keras (TensorFlow by default; torch or JAX with
``KERAS_BACKEND``).
"""

from __future__ import annotations

import threading

from shared.data.cells import Cells, Outline
from shared.methods.base import TransferEstimator
from shared.nn.keras_net import keras

BUSY = threading.RLock()  # a network of one shape is built once and shared, by one user at a time


class KerasMethod(TransferEstimator):
    """A method whose network is a Keras model; after `fit` its weights are ``weights_``, a list of ndarray."""

    def build(self, *cells: Cells | Outline) -> keras.Model:
        """The compiled network for these cells; sizes come from ``cells.n_genes``, ``n_classes``, ...

        Compiling takes seconds, so a method keeps compiled networks by their sizes (``functools.lru_cache``).
        """
        raise NotImplementedError
