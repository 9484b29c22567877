"""Learners of episodes: networks that are trained, over many small tasks, to learn the next one from a few rows.

Every learner has ``scores(support, query)``, episodes × queries × classes, the highest of which names the query, and
``loss(support, query, target)``, which meta-training lowers over many episodes::

    learner = Prototypical(encoder((n_genes, 256, 64), norm="layer"))
    learner.loss(support, query, target).backward()

The encoder is any module from rows × genes to rows × features. The softmax of the scores over the classes is the
learner's probability, and the loss is its cross-entropy, averaged over the queries.

:class:`Prototypical` and :class:`Matching` compare. :class:`MAML`, :class:`ANIL` and :class:`ScaleShift` take a few
gradient steps on the support, and are trained through those steps. :class:`Frozen` is not trained at all.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy, linear

from shared.data.constraints import Constraint, Maybe, OneOf, Positive, Whole, check, require
from shared.data.errors import DataError
from shared.nn.episodes import EpisodeNorm, encode
from shared.nn.heads import HEADS, METRICS, matching, prototypes


class Learner(torch.nn.Module):
    """What the learners share: an encoder, and the loss that follows from the scores."""

    def __init__(self, encoder: torch.nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, support: torch.Tensor, query: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of support and query; see :func:`shared.nn.episodes.encode`."""
        return encode(self.encoder, support, query)

    def scores(self, support: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Score of each class for each query.

        Parameters
        ----------
        support : float32 tensor, episodes × classes × shots × genes
            To learn from.
        query : float32 tensor, episodes × queries × genes
            To name.

        Returns
        -------
        float32 tensor, episodes × queries × classes
        """
        raise NotImplementedError

    def loss_and_scores(self, support, query, target):
        """Mean cross-entropy of the queries, and the scores it was worked out from."""
        scores = self.scores(support, query)
        return cross_entropy(scores.flatten(0, 1), target.flatten()), scores

    def loss(self, support: torch.Tensor, query: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of the queries; `target` is int64, episodes × queries."""
        return self.loss_and_scores(support, query, target)[0]


# Learners that compare.


class _Compares(Learner):
    """A learner whose scores are multiplied by one number, kept positive by its logarithm."""

    def __init__(self, encoder, scale, learn_scale):
        super().__init__(encoder)
        require(Positive(), scale=scale)
        self.log_scale = torch.nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learn_scale)


class Prototypical(_Compares):
    """The nearest mean, in features trained for it.

    Parameters
    ----------
    encoder : torch.nn.Module
    metric : {"euclidean", "cosine"}
        See :func:`shared.nn.heads.prototypes`.
    scale : float, optional
        Multiplies the scores at the start: 1 for distances (the paper), 10 for cosines, which no softmax could tell
        apart otherwise.
    learn_scale : bool
        Train it too. The paper has none; an encoder can make distances larger, but not cosines.

    References
    ----------
    Snell, Swersky and Zemel, *Prototypical networks for few-shot learning* (2017).
    """

    def __init__(self, encoder, metric="euclidean", scale=None, learn_scale=True):
        require(OneOf(*METRICS), metric=metric)
        super().__init__(encoder, (1.0 if metric == "euclidean" else 10.0) if scale is None else scale, learn_scale)
        self.metric = metric

    def scores(self, support, query):
        return prototypes(*self(support, query), self.metric, self.log_scale.exp())


class Matching(_Compares):
    """A vote of the support rows, the more alike counting more.

    Parameters
    ----------
    encoder : torch.nn.Module
    scale : float
        Multiplies the cosines at the start; 1 in the paper.
    learn_scale : bool
        Train it too; the paper does not.

    References
    ----------
    Vinyals and others, *Matching networks for one shot learning* (2016), without the full context embeddings.
    """

    def __init__(self, encoder, scale=10.0, learn_scale=True):
        super().__init__(encoder, scale, learn_scale)

    def scores(self, support, query):
        return matching(*self(support, query), scale=self.log_scale.exp())


class Frozen(Learner):
    """A head on an encoder's features, neither of them trained by episodes.

    Where many episodes are asked, encode all rows once (:func:`shared.nn.features.encoded`), sample from the features,
    and give ``torch.nn.Identity()`` for the encoder.

    Parameters
    ----------
    encoder : torch.nn.Module
        Used as it is, without gradients.
    head : str or callable
        A name in :data:`shared.nn.heads.HEADS`, or a function ``head(support, query, **options)``.
    **options
        Passed to the head, such as ``penalty=10``.
    """

    def __init__(self, encoder: torch.nn.Module, head: str | Callable = "nearest centroid", **options):
        super().__init__(encoder)
        known = Constraint(lambda v: callable(v) or v in HEADS, f"{OneOf(*HEADS).said}, or give a function")
        require(known, head=head)
        self.head, self.options = head if callable(head) else HEADS[head], options

    @torch.no_grad()
    def scores(self, support, query):
        return self.head(*self(support, query), **self.options)


# Learners that take steps.


def descend(loss: Callable, params: dict, steps: int, lr: float, first_order: bool = False) -> dict:
    """Plain gradient descent that can be differentiated through.

    Parameters
    ----------
    loss : callable
        From a dict of tensors to a scalar.
    params : dict of str to tensor
        Where to start; left as it is.
    steps, lr : int, float
        How many steps, and how long.
    first_order : bool
        Treat each gradient as a constant: the derivative of the result with respect to the start is then 1.

    Returns
    -------
    dict of str to tensor
    """
    for _ in range(steps):
        slope = grad(loss)(params)
        params = {k: p - lr * (slope[k].detach() if first_order else slope[k]) for k, p in params.items()}
    return params


class ANIL(Learner):
    """A linear classifier whose start, and the features under it, are trained so that a few steps are enough.

    "Almost no inner loop": only the classifier takes steps on the support. The features take part in the outer loop,
    and the encoder runs once for all episodes, with any norm.

    Parameters
    ----------
    encoder : torch.nn.Module
    n_way : int or None
        Classes of an episode, for which a start is learned. None starts from zero, and takes any number of classes.
    n_features : int, optional
        What the encoder gives; needed only where its last linear layer does not tell.
    inner_lr : float
        Length of a step, in training and afterwards. What is right depends on the size of the features.
    inner_steps : int
        Steps on the support, in training and afterwards.
    first_order : bool
        Leave out the second derivatives. They cost little here.

    References
    ----------
    Raghu, Raghu, Bengio and Vinyals, *Rapid learning or feature reuse?* (2020).
    """

    chunk = None

    def __init__(self, encoder, n_way=5, n_features=None, inner_lr=0.1, inner_steps=10, first_order=False):
        super().__init__(encoder)
        check(
            {"n_way": n_way, "inner_lr": inner_lr, "inner_steps": inner_steps},
            {"n_way": Maybe(Whole(2)), "inner_lr": Positive(), "inner_steps": Whole(1)},
        )
        self.n_way, self.inner_lr, self.inner_steps, self.first_order = n_way, inner_lr, inner_steps, first_order
        if n_way is not None:
            start = torch.nn.Linear(_width(encoder) if n_features is None else n_features, n_way)
            self.weight, self.bias = start.weight, start.bias

    def start(self, features: torch.Tensor, n_way: int) -> dict:
        """Weights and biases the classifier starts from."""
        if self.n_way is None:
            return {
                "head.weight": features.new_zeros(n_way, features.shape[-1]),
                "head.bias": features.new_zeros(n_way),
            }
        if n_way != self.n_way:
            raise DataError(
                f"episodes have {n_way} classes and the learner a start for {self.n_way}: use episodes of that many, "
                "or n_way=None, which starts from zero"
            )
        if features.shape[-1] != self.weight.shape[1]:
            raise DataError(
                f"the encoder gives {features.shape[-1]} features and the classifier reads {self.weight.shape[1]}: "
                f"pass n_features={features.shape[-1]}"
            )
        return {"head.weight": self.weight, "head.bias": self.bias}

    def scores(self, support, query):
        support, query = self(support, query)
        start = self.start(query, support.shape[1])

        def one(support, query):
            return self._adapted(_classify, start, support, query)

        return _each(one, support, query)

    def _adapted(self, classify, params, support, query):
        """Logits of one episode's queries, after steps on its support: classes × shots × ... and queries × ..."""
        C, K = support.shape[:2]
        rows, target = support.flatten(0, 1), torch.arange(C, device=support.device).repeat_interleave(K)
        params = descend(
            lambda p: cross_entropy(classify(p, rows), target),
            params,
            self.inner_steps,
            self.inner_lr,
            self.first_order,
        )
        return classify(params, query)


class MAML(ANIL):
    """A network, encoder and classifier together, that is trained to start a few steps away from each task.

    Parameters
    ----------
    encoder : torch.nn.Module
        Without batch norm: each episode has weights of its own after the first step, and no statistics to share.
    n_way, n_features
        As in :class:`ANIL`. With ``n_way=None`` the first step moves the classifier only, whose zeros hide the encoder.
    inner_lr, inner_steps : float, int
        As in :class:`ANIL`, for all weights.
    first_order : bool
        Leave out the second derivatives, which halves time and memory.
    chunk : int, optional
        Episodes adapted side by side; each holds its own weights. All by default.

    References
    ----------
    Finn, Abbeel and Levine, *Model-agnostic meta-learning for fast adaptation of deep networks* (2017).
    """

    def __init__(self, encoder, n_way=5, n_features=None, inner_lr=0.01, inner_steps=5, first_order=False, chunk=None):
        super().__init__(encoder, n_way, n_features, inner_lr, inner_steps, first_order)
        if any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in encoder.modules()):
            raise DataError("MAML gives each episode its own weights, which batch norm cannot serve: use norm='layer'")
        self.chunk = chunk

    def scores(self, support, query):
        encoder = {f"encoder.{k}": p for k, p in self.encoder.named_parameters() if p.requires_grad}
        with torch.no_grad():
            features = self.encoder(query[0, :1])
        params = encoder | self.start(features, support.shape[1])

        def classify(params, rows):
            own = {k.removeprefix("encoder."): p for k, p in params.items() if k.startswith("encoder.")}
            return _classify(params, functional_call(self.encoder, own, (rows,)))

        def one(support, query):
            return self._adapted(classify, params, support, query)

        return _each(one, support, query, randomness="different", chunk_size=self.chunk)


def _each(one, support, query, **options):
    """`one` for every episode, side by side; a single one is spared what that costs."""
    return one(support[0], query[0])[None] if len(support) == 1 else vmap(one, **options)(support, query)


def _classify(params, features):
    return linear(features, params["head.weight"], params["head.bias"])


def _width(encoder):
    found = [m.out_features for m in encoder.modules() if isinstance(m, torch.nn.Linear)]
    if not found:
        raise DataError("the encoder has no linear layer that tells how many features it gives: pass n_features")
    return found[-1]


class ScaledLinear(torch.nn.Module):
    """A frozen linear layer, each output of which is multiplied by one number and shifted by another.

    The weights of output j are multiplied by ``scale[j]``, and ``shift[j]`` is added to its bias.
    """

    def __init__(self, frozen: torch.nn.Linear):
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.scale = torch.nn.Parameter(torch.ones_like(frozen.weight[:, 0]))
        self.shift = torch.nn.Parameter(torch.zeros_like(frozen.weight[:, 0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = self.shift if self.frozen.bias is None else self.frozen.bias + self.shift
        return linear(x, self.frozen.weight) * self.scale + bias


class ScaleShift(ANIL):
    """Meta-transfer: weights that were trained before stay; one scale and one shift an output are trained by episodes.

    Two numbers for each output of each linear layer, in place of a weight for each of its inputs: thousands where the
    encoder has millions, too few to forget what it knew. On the support, a linear classifier takes steps, as in
    :class:`ANIL`; scales, shifts and the classifier's start are trained in the outer loop.

    Parameters
    ----------
    encoder : torch.nn.Module
        Pre-trained. A copy is kept, in evaluation mode for good, so that its norms stay what they were.
    n_way, n_features, inner_lr, inner_steps, first_order
        As in :class:`ANIL`.

    Raises
    ------
    shared.data.errors.DataError
        If the encoder has no linear layer, or normalises by the rows at hand, which would undo scale and shift.

    References
    ----------
    Sun, Liu, Chua and Schiele, *Meta-transfer learning for few-shot learning* (2019), without its hard tasks.
    """

    def __init__(self, encoder, n_way=5, n_features=None, inner_lr=0.1, inner_steps=10, first_order=False):
        width = _width(encoder) if n_features is None else n_features
        self._check_norms(encoder)
        encoder = copy.deepcopy(encoder).requires_grad_(False)
        layers = [name for name, m in encoder.named_modules() if isinstance(m, torch.nn.Linear)]
        if not layers:
            raise DataError("the encoder has no linear layer to scale and shift")
        for name in layers:
            if not name:  # the encoder is one linear layer
                encoder = ScaledLinear(encoder)
                break
            parent, _, last = name.rpartition(".")
            setattr(encoder.get_submodule(parent), last, ScaledLinear(encoder.get_submodule(name)))
        super().__init__(encoder, n_way, width, inner_lr, inner_steps, first_order)
        self.train(self.training)

    @staticmethod
    def _check_norms(encoder):
        if any(isinstance(m, EpisodeNorm) and m.at_test == "batch" for m in encoder.modules()):
            raise DataError(
                "batch norm by the rows at hand divides every scale away and subtracts every shift: "
                "shared.nn.episodes.use_statistics(encoder, 'running') has it use what it collected"
            )

    def forward(self, support, query):
        self._check_norms(self.encoder)
        return super().forward(support, query)

    def train(self, mode: bool = True):
        """Evaluation mode for the encoder, whatever the mode of the rest."""
        super().train(mode)
        self.encoder.eval()
        return self
