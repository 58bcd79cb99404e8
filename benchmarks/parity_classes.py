"""Classifiers of handwritten digits with twelve shadow models, and a graph network on digits that look alike."""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

import repromia
from benchmarks.parity_lines import Line, agreeing, aucs
from repromia.attacks import Variants
from repromia.attacks.classifier.base import base
from repromia.attacks.classifier.lira import lira, lira_offline
from repromia.attacks.classifier.rmia import rmia, rmia_share
from repromia.benchmarks import graph_networks
from repromia.demo.classifier import half_hidden_digits
from repromia.demo.graph import digits_graph
from repromia.metrics import auc
from repromia.signals import ClassSignals, ReferenceSignals

COUNT, SHADOWS = 1200, 12
GRAPH_EPOCHS = 100


def lines(work: Path) -> list[Line]:
    """The table."""
    return [*_shadows(), *_graph()]


def _answers(images: np.ndarray, digits: np.ndarray, shown: np.ndarray, seed: int) -> np.ndarray:
    """Log-probabilities (record, class) of a network that knows the shown half by heart."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network = MLPClassifier((64,), max_iter=60, random_state=seed, alpha=0.0, learning_rate_init=5e-3)
        network.fit(images[shown], digits[shown])
    return np.log(np.maximum(network.predict_proba(images), 1e-12))


def _shadows() -> list[Line]:
    from sklearn.datasets import load_digits

    images, digits = half_hidden_digits().reshape(-1, 64)[:COUNT] / 255, load_digits().target[:COUNT]
    halves = np.random.default_rng(0).random((SHADOWS + 1, COUNT)).argsort(axis=1) < COUNT // 2
    answers = [_answers(images, digits, shown, seed) for seed, shown in enumerate(halves)]
    told = [ClassSignals(one, one.argmax(1), digits) for one in answers]
    target, member, inside = told[-1], halves[-1], halves[:-1]
    references = ReferenceSignals(
        inside,
        np.stack([one.logprob for one in told[:-1]])[:, :, None],
        np.stack([one.other for one in told[:-1]])[:, :, None],
        np.stack(answers[:-1]).max(-1, keepdims=True),
        np.stack(answers[:-1]).argmax(-1)[:, :, None],
    )
    seen_by_none = (inside.sum(0) == 0) | (inside.sum(0) == SHADOWS)
    kept = np.flatnonzero(~seen_by_none)
    target, references, member = target.take(kept), references.take(kept), member[kept]
    return [*_lira(target, references, member), *_rmia(target, references, member)]


def _lira(target: ClassSignals, references: ReferenceSignals, member: np.ndarray) -> list[Line]:
    asked, values = target.scaled_logit, references.scaled_logit[:, :, 0]
    sides = [np.where(saw, values, np.nan) for saw in (references.inside, ~references.inside)]
    (inside, outside), spread = ([np.nanmean(one, axis=0) for one in sides], [_pooled(one) for one in sides])
    formula = norm.logpdf(asked, inside, spread[0]) - norm.logpdf(asked, outside, spread[1])
    shared = norm.logpdf(asked, inside, spread[0]) - norm.logpdf(asked, outside, spread[0])
    options = {"variance": "fixed", "queries": "plain"}
    ours = np.asarray(lira((target,), references, **options))  # type: ignore[arg-type]
    one_sided = np.asarray(lira_offline((target,), references, **options))  # type: ignore[arg-type]
    code = "LiRA, TensorFlow Privacy"
    return [
        agreeing("lira, one variance for all", code, ours, formula),
        aucs("lira", f"{code} (the spread of IN for OUT too)", ours, shared, member),
        agreeing("lira_offline", "LiRA, the paper (one-sided)", one_sided, norm.logcdf(asked, outside, spread[1])),
        aucs("lira_offline", f"{code} (two-sided)", one_sided, -norm.logpdf(asked, outside, spread[1]), member),
    ]


def _pooled(values: np.ndarray) -> float:
    """One standard deviation for all records."""
    free = (np.isfinite(values).sum(0) - 1).clip(0).sum()
    return float(np.sqrt(np.nansum((values - np.nanmean(values, axis=0)) ** 2) / free))


def _rmia(target: ClassSignals, references: ReferenceSignals, member: np.ndarray) -> list[Line]:
    shares, out = np.exp(references.logprob[:, :, 0]), ~references.inside
    own, mean_out = np.exp(target.logprob), (shares * out).sum(0) / out.sum(0)
    ratios = own / mean_out
    matrix = (ratios[:, None] >= ratios[None]).mean(1)
    zeros = np.sort(np.where(out, shares, 0), axis=0)[::-1][: SHADOWS // 2].mean(0)
    leaky = own / np.maximum(zeros, 1e-12)
    found = rmia(target, references, a="1", queries="plain")
    assert isinstance(found, Variants)
    ours, losses, code = found.scores[:, 0], target.logprob, "RMIA, ml_privacy_meter"
    cells = f"{len(ratios) ** 2:,} ratios in memory"
    return [
        Line(
            "rmia",
            f"{code} (a matrix record x population)",
            "largest difference of the share; work",
            f"{np.abs(rmia_share(ratios, ratios) - matrix).max():.0e}; a sort",
            cells,
        ),
        aucs("rmia", f"{code} (zeros of models that saw a record in its mean)", ours, leaky, member),
        aucs("rmia at a = 1, beside base", "BASE (the same order)", ours, base(target, references), member),
        aucs("loss", f"{code} (minus the probability, as a score)", losses, -own, member),
    ]


def _graph() -> list[Line]:
    """Members asked on the subgraph that they were trained on, others on the whole graph; and both on the whole."""
    graph = digits_graph(0)
    order = np.random.default_rng(0).permutation(len(graph.labels))
    members, nonmembers = np.split(order[: len(order) // 2 * 2], 2)
    records = repromia.load_nodes(graph, members, nonmembers)
    classes = len(set(graph.labels))
    model = graph_networks.train(records.members(), 0, kind="gcn", classes=classes, epochs=GRAPH_EPOCHS)
    whole = records.records.contents[0].graph  # type: ignore[union-attr]
    logits = partial(_logits, model, whole.features)
    full, own = logits(whole.edges), logits(whole.induced(members).edges)
    digit = np.array([int(one.label) for one in records.records.contents])  # type: ignore[union-attr]
    rows = np.array([one.number for one in records.records.contents])  # type: ignore[union-attr]
    member = records.member
    ours, theirs = (
        np.take_along_axis(one[rows], digit[:, None], 1)[:, 0]
        for one in (full, np.where(np.isin(np.arange(len(full)), members)[:, None], own, full))
    )
    degree = _degree(whole.edges, len(full))
    inner = _degree(whole.induced(members).edges, len(full))
    seen = np.where(member, inner[rows], degree[rows]).astype(float)
    cut = ours > np.median(ours)
    code = "rebMIGraph"
    return [
        aucs("loss of a GCN", f"{code} (members asked on their own subgraph)", ours, theirs, member),
        Line(
            "degree, no model",
            f"{code} (the same)",
            "AUC",
            f"{auc(-degree[rows].astype(float), member):.3f}",
            f"{auc(-seen, member):.3f}",
        ),
        Line(
            "auc",
            f"{code} ('AUROC' of hard labels: balanced accuracy)",
            "of the same score, cut at its median",
            f"{auc(ours, member):.3f}",
            f"{auc(cut.astype(float), member):.3f}",
        ),
    ]


def _logits(model: torch.nn.Module, features: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Log-probabilities (node, class)."""
    found: np.ndarray = model(torch.from_numpy(features), torch.from_numpy(edges)).log_softmax(-1).numpy()
    return found


def _degree(edges: np.ndarray, nodes: int) -> np.ndarray:
    return np.bincount(edges[1], minlength=nodes)
