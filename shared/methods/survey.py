"""Scenarios of transfer, decided by facts, and the methods of the survey with the scenario that each belongs to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from shared.data.errors import DataError


class Scenario(NamedTuple):
    """A scenario of transfer: its name, the kind within it, and the facts that decide."""

    name: str
    kind: str
    why: str


def scenario(*, source_labels, target_labels, target_data=True, same_task=True, same_domain=False) -> Scenario:
    """Which scenario of transfer a problem is, from what is at hand when the model is trained.

    Parameters
    ----------
    source_labels : bool
        The source comes with labels, and training uses them.
    target_labels : bool
        Some target samples come with labels, and training uses them.
    target_data : bool, default True
        Target samples, with or without labels, are at hand in training.
    same_task : bool, default True
        The labels asked for in the target are those of the source.
    same_domain : bool, default False
        Source and target follow one distribution: same genes, platform, species, mix of samples.

    Returns
    -------
    Scenario
        ``name`` is ``inductive``, ``transductive``, ``unsupervised`` or ``none``.

    References
    ----------
    Pan and Yang (2010), IEEE Transactions on Knowledge and Data Engineering 22, 1345; Table 2.
    """
    facts = {"source_labels": source_labels, "target_labels": target_labels, "target_data": target_data}
    facts |= {"same_task": same_task, "same_domain": same_domain}
    vague = [name for name, value in facts.items() if not isinstance(value, (bool, np.bool_))]
    if vague:
        raise DataError(f"{vague[0]} is {facts[vague[0]]!r}: answer with True or False")
    if target_labels and not target_data:
        raise DataError("target labels without target data cannot be used: is target_data True?")
    if same_domain and same_task and (source_labels or target_labels):
        return Scenario("none", "supervised learning", "source and target are one problem")
    if target_labels:
        kind = "fine-tuning or multi-task" if source_labels else "self-taught"
        return Scenario("inductive", kind, "target labels guide the training")
    if not source_labels:
        return Scenario("unsupervised", "representation", "no labels on either side")
    if not same_task:
        return Scenario("none", "no bridge", "no label says what the target's task is: label a few target samples")
    if not target_data:
        return Scenario("none", "applied as it is", "the target has no part in the training")
    return Scenario(
        "transductive", "domain adaptation", "labels in the source only, target samples seen without theirs"
    )


class Method(NamedTuple):
    """One method of the survey: what it takes, what it moves, how the survey files it, and the facts that decide."""

    name: str
    year: int
    key: str
    source: str
    target: str
    moves: str
    filed: str
    source_labels: bool
    target_labels: bool
    target_data: bool = True
    same_task: bool = True
    chapter: str = ""

    @property
    def scenario(self) -> Scenario:
        """By :func:`scenario`, from the method's own facts."""
        return scenario(
            source_labels=self.source_labels,
            target_labels=self.target_labels,
            target_data=self.target_data,
            same_task=self.same_task,
        )


# The survey's sixteen, in the order of its Table 1; `filed` is the strategy its Table 6 gives, `key` a citation of the
# book. The facts are read from each method's own paper: which labels its training uses, and if it meets the target.
# fmt: off
METHODS = (
    Method("MultiPLIER", 2019, "taroni2019", "37,000 human RNA-seq samples", "small rare-disease sets",
           "gene loadings tied to pathways", "unsupervised", False, False),
    Method("projectR", 2019, "steinobrien2019", "mouse retina, single cell", "brain of human and mouse",
           "gene loadings of a factorisation", "unsupervised", False, False),
    Method("projectR_ICI", 2021, "davismarcisak2021", "treated mouse tumours, single cell", "human tumours",
           "gene loadings of a factorisation", "unsupervised", False, False),
    Method("FIT", 2018, "normand2018", "170 matched mouse and human studies", "a new mouse study",
           "one mouse-to-human slope a gene", "unsupervised", True, False, False),
    Method("CaSTLe", 2018, "lieberman2018", "labelled single cells", "unlabelled cells of another study",
           "a classifier on binned genes both show", "supervised", True, False),
    Method("TF-Binding", 2021, "novakovsky2021", "DNA bound by fifty factors", "few regions bound by one factor",
           "weights of a convolutional network", "unsupervised", True, True, same_task=False),
    Method("scJoint", 2022, "lin2022", "labelled single-cell RNA", "unlabelled single-cell chromatin",
           "an encoder and its cell types", "domain adaptation", True, False),
    Method("BERMUDA", 2019, "wang2019", "one batch of single cells", "another batch",
           "an autoencoder's shared code", "domain adaptation", False, False),
    Method("trVAE", 2020, "lotfollahi2020", "cells under two conditions", "a cell type seen under one",
           "the effect of the condition", "transductive", True, False),
    Method("XGSEA", 2021, "cai2021", "scored gene sets of mouse or zebrafish", "unscored human gene sets",
           "enrichment scores", "transductive", True, False),
    Method("PRECISE", 2019, "mourragui2019", "cell lines and grafts with drug response", "human tumours",
           "a subspace common to both", "transductive", True, False),
    Method("AITL", 2020, "sharifinoghabi2020", "cell lines with drug response", "few patients with response",
           "an encoder, aligned by adversaries", "inductive", True, True, same_task=False),
    Method("ssNN", 2019, "brubaker2019", "mouse studies, sick or healthy", "human studies without labels",
           "labels, by self-training", "transductive", True, False),
    Method("TransComp-R", 2020, "brubaker2020", "mouse proteins", "human biopsies with drug response",
           "the mouse's principal components", "unsupervised", False, True, same_task=False),
    Method("scDEAL", 2022, "chen2022", "bulk cell lines with drug response", "single cells without",
           "a predictor on matched codes", "supervised", True, False),
    Method("CaSee", 2022, "yuan2022", "bulk tumours and normal tissue", "single cells",
           "a classifier, as it is", "supervised", True, False, False),
)
# fmt: on


def methods() -> pd.DataFrame:
    """:data:`METHODS` as a table for a reader, one row a method.

    Returns
    -------
    DataFrame
        Indexed by method: ``Year``, ``Source``, ``Target``, ``Labels`` (where training uses them), ``Survey says``,
        ``By its facts`` (:func:`scenario`), ``What moves``, and ``Chapter`` of this book once one teaches any of them.
    """
    where = {(True, True): "both", (True, False): "source", (False, True): "target", (False, False): "none"}
    rows = {
        m.name: {
            "Year": m.year,
            "Source": m.source,
            "Target": m.target,
            "Labels": where[m.source_labels, m.target_labels],
            "Survey says": m.filed,
            "By its facts": m.scenario.name,
            "What moves": m.moves,
            "Chapter": m.chapter or "–",
        }
        for m in METHODS
    }
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("Method")
    return table if any(m.chapter for m in METHODS) else table.drop(columns="Chapter")
