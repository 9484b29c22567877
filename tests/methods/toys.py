"""One toy for each protocol of the kit, in at most thirty lines: what a method has to write, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch.nn.functional import cross_entropy, mse_loss

from shared.data.constraints import Maybe, Probability
from shared.methods.base import Example, TransferEstimator, example_cells
from shared.methods.protocols import (
    Basis,
    Classifier,
    DomainAware,
    FewShotClassifier,
    Generator,
    Pretrained,
    Regressor,
    Translator,
)
from shared.methods.torch_method import TorchMethod


def classify_step(net, X, y):
    return cross_entropy(net(X), y)


@dataclass(eq=False, repr=False)
class ToyClassifier(Classifier, TorchMethod):
    constraints = {"unknown": Maybe(Probability())}

    epochs: int = 8
    lr: float = 0.03
    unknown: float | None = None

    @classmethod
    def example(cls):
        return Example(cls(random_state=0), example_cells(), checked={"epochs": 60})

    def build(self, cells):
        return torch.nn.Linear(cells.n_genes, cells.n_classes)

    def fit(self, X, y="cell_type", *, genes=None):
        cells, seed = self._read_labelled(X, y, genes=genes), self._seed()
        net, path = self.new_network(cells, seed=seed), self._checkpoint_of_fit(cells, seed=seed)
        self.history_ = self.train(net, classify_step, (cells.X, cells.codes), seed=seed, checkpoint=path)
        self.network_ = net
        return self

    def predict_proba(self, X, *, genes=None):
        check_is_fitted(self, "network_")
        return torch.from_numpy(self.forward(self.network_, self._read(X, genes=genes).X)).softmax(1).numpy()


def regress_step(net, X, y):
    return mse_loss(net(X), y)


@dataclass(eq=False, repr=False)
class ToyRegressor(Regressor, TorchMethod):
    epochs: int = 20
    lr: float = 0.03

    @classmethod
    def example(cls):
        return Example(cls(random_state=0), example_cells(), y="measured", checked={"epochs": 60})

    def build(self, cells):
        return torch.nn.Linear(cells.n_genes, cells.n_outputs)

    def fit(self, X, y, *, genes=None):
        (cells, y), seed = self._read_numbers(X, y, genes=genes), self._seed()
        net, path = self.new_network(cells, seed=seed), self._checkpoint_of_fit(cells, seed=seed)
        self.history_ = self.train(net, regress_step, (cells.X, y), seed=seed, checkpoint=path)
        self.network_ = net
        return self

    def predict(self, X, *, genes=None):
        check_is_fitted(self, "network_")
        return self._numbers(self.forward(self.network_, self._read(X, genes=genes).X))


class ToyDomainAware(DomainAware, Classifier, TransferEstimator):
    """Nearest centroid after moving the source's mean onto the target's."""

    expects = "any"

    @classmethod
    def example(cls):
        cells = example_cells()
        return Example(cls(), cells, fit={"sample_domain": cells.obs["domain"].to_numpy()})

    def fit(self, X, y="cell_type", sample_domain=None, *, genes=None):
        source, target = self._read_domains(X, y, sample_domain, genes=genes)
        means = [np.asarray(source.X[source.codes == c].mean(0)).ravel() for c in range(source.n_classes)]
        shift = np.asarray(target.X.mean(0) - source.X.mean(0)).ravel() if len(target) else 0
        self.centroids_ = np.stack(means) + shift
        return self

    def predict_proba(self, X, *, genes=None):
        check_is_fitted(self, "centroids_")
        away = -((dense(self._read(X, genes=genes).X)[:, None] - self.centroids_) ** 2).sum(2)
        return torch.from_numpy(away).softmax(1).numpy()


class ToyBasis(Basis, TransferEstimator):
    """Principal components of the source, projected by name onto whatever genes the target has."""

    @classmethod
    def example(cls):
        return Example(cls(), example_cells(), y=None)

    def fit(self, X, y=None, *, genes=None):
        X = dense(self._read(X, genes=genes, reset=True).X)
        self.loadings_ = np.linalg.svd(X - X.mean(0), full_matrices=False)[2][:3].T
        return self

    def project(self, X, *, genes=None):
        loadings, X = self._by_name(X, genes)
        return dense(X) @ loadings


class ToyFewShot(Pretrained, FewShotClassifier, TransferEstimator):
    """Cosine with the mean of each class's support, after scaling genes by their deviation in the source."""

    @classmethod
    def example(cls):
        return Example(cls(), example_cells(20), pretrain=(example_cells(seed=1),))

    def pretrain(self, X, *, genes=None):
        cells = self._read(X, genes=genes, reset=True, pretrains=True)
        return self._keep(cells, scale=1 / (dense(cells.X).std(0) + 0.1))

    def fit(self, X, y="cell_type", *, genes=None):
        support = self._read_labelled(X, y, genes=genes)
        self.scale_ = self.pretrained_["scale"] if hasattr(self, "pretrained_") else np.ones(support.n_genes)
        X = dense(support.X) * self.scale_
        self.prototypes_ = np.stack([X[support.codes == c].mean(0) for c in range(support.n_classes)])
        return self

    def scores(self, X, *, genes=None):
        check_is_fitted(self, "prototypes_")
        X = dense(self._read(X, genes=genes).X) * self.scale_
        lengths = np.linalg.norm(X, axis=1)[:, None] * np.linalg.norm(self.prototypes_, axis=1) + 1e-9
        return (0.5 + 0.5 * X @ self.prototypes_.T / lengths).astype(np.float32)


class ToyGenerator(Generator, TransferEstimator):
    """Adds the difference between the mean profiles of two conditions."""

    @classmethod
    def example(cls):
        return Example(cls(), example_cells(), y="domain")

    def fit(self, X, condition="condition", *, genes=None):
        cells = self._read(X, condition, genes=genes, reset=True)
        self.conditions_ = cells.classes
        self.means_ = np.stack([np.asarray(cells.X[cells.codes == c].mean(0)).ravel() for c in range(cells.n_classes)])
        self.mean_ = np.asarray(cells.X.mean(0)).ravel()
        return self

    def generate(self, X, condition, *, genes=None):
        check_is_fitted(self, "means_")
        return dense(self._read(X, genes=genes).X) + self.means_[list(self.conditions_).index(condition)] - self.mean_


class ToyTranslator(Translator, TransferEstimator):
    """One slope for all genes."""

    expects = "any"

    @classmethod
    def example(cls):
        return Example(cls(), example_cells(12), y=None)

    def fit(self, X, Y, *, genes=None):
        X, Y = self._read_rows(X, Y, genes=genes, reset=True)
        self.slope_ = float((X * Y).sum() / (X**2).sum())
        return self

    def predict(self, X, *, genes=None):
        check_is_fitted(self, "slope_")
        return self.slope_ * self._read_rows(X, genes=genes)[0]


def dense(X):
    return X.toarray() if hasattr(X, "toarray") else X


TOYS = (ToyClassifier, ToyRegressor, ToyDomainAware, ToyBasis, ToyFewShot, ToyGenerator, ToyTranslator)
