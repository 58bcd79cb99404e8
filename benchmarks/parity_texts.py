"""Language models: 120 records that a small Llama was fine-tuned on, and 120 of the same source."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import repromia
from benchmarks.parity_lines import Line, agreeing, aucs
from repromia.attacks import parse
from repromia.attacks.neighbour import neighbour
from repromia.benchmarks import texts
from repromia.programs import Binding
from repromia.programs.edits import generator_for, swap_words
from repromia.progress import Silent
from repromia.scoring import run_attack
from repromia.store import Store
from repromia.views import Views

LEARN, BATCH = 20, 16  # records of a side that shots come from; records of a padded batch
SURE = 5.0  # nats of entropy: this model is hardly ever below the published 2
MEEUS = "Meeus et al. (SoK), WBC"


@dataclass(frozen=True)
class Setting:
    """Records that are scored, and what the target says of each next token: (token, vocabulary) a record."""

    views: Views
    member: np.ndarray
    target: Any
    base: Any
    ids: list[list[int]]
    logs: list[np.ndarray]

    def ours(self, spec: str) -> np.ndarray:
        """Scores of the package."""
        found = run_attack(parse(spec), self.views)
        assert found.scores is not None, found.reason
        return found.scores

    def own(self, logs: list[np.ndarray] | None = None) -> list[np.ndarray]:
        """Log-probabilities of the records' own tokens."""
        return [row[np.arange(len(ids) - 1), ids[1:]] for row, ids in zip(logs or self.logs, self.ids, strict=True)]


def log_softmax(model: Any, ids: list[int]) -> np.ndarray:
    """(token, vocabulary) of every token but the first, one record at a time."""
    with torch.no_grad():
        logits = model.model(torch.tensor([ids])).logits[0].double()
    return logits.log_softmax(-1).numpy()


def setting(work: Path) -> Setting:
    """Shots come from records that are not scored."""
    target, base = (repromia.language_model(one) for one in texts.stand_in_model(work / "models"))
    members, nonmembers = texts.stand_in_records(texts.STAND_IN)
    parts = [
        repromia.load_records(members[at], nonmembers[at])
        for at in (slice(0, LEARN), slice(LEARN, LEARN + 10), slice(LEARN + 10, None))
    ]
    fit, select, scored = parts
    longest = max(len(target.tokenizer(str(one))["input_ids"]) for one in scored.records.contents)
    binding = Binding(target, fit, select, 0, Silent(), longest)
    views = Views({"target": target}, scored.records, binding, Store(None))
    views.add_reference(base)
    ids = [list(one.ids) for one in target.encoder.encode([str(one) for one in scored.records.contents])]
    return Setting(views, scored.member, target, base, ids, [log_softmax(target, one)[:-1] for one in ids])


def lowest(values: np.ndarray, k: float = 0.2) -> float:
    """Mean of the lowest share."""
    return float(np.sort(values)[: max(1, int(k * len(values) + 1e-9))].mean())


def lines(work: Path) -> list[Line]:
    """The table."""
    one = setting(work)
    return [*_loss(one), *_min_k(one), *_prefixes(one), *_references(one), *_others(one)]


def _loss(one: Setting) -> list[Line]:
    own = one.own()
    padded = []
    for at in range(0, len(own), BATCH):
        most = max(len(row) for row in own[at : at + BATCH])
        for logs, ids in list(zip(own, one.ids, strict=True))[at : at + BATCH]:
            pad = log_softmax(one.target, ids)[-1, one.target.tokenizer.eos_token_id]
            padded.append(np.mean(logs if len(logs) == most else [*logs, pad]))
    ours, theirs = one.ours("loss"), np.array(padded)
    changed = f"records changed by their batch, by {np.abs(ours - theirs).mean():.2f} nats a token on average"
    sizes = np.array([len(zlib.compress(str(text).encode())) for text in one.views.records.contents])
    return [
        agreeing("loss", "mean log-probability", ours, np.array([row.mean() for row in own])),
        Line("loss", MEEUS, changed, "0%", f"{(np.abs(ours - theirs) > 1e-3).mean():.0%}"),
        aucs("loss, padding counted as a token", MEEUS, ours, theirs, one.member),
        aucs(
            "zlib, of which there are three", "mink++, mimir (LL / bytes)", one.ours("zlib"), ours / sizes, one.member
        ),
    ]


def _min_k(one: Setting) -> list[Line]:
    own, ours, plus = one.own(), one.ours("min_k"), one.ours("min_k_plus_plus")
    exact = [(logs - mean(row)) / np.sqrt(variance(row)) for logs, row in zip(own, one.logs, strict=True)]
    uniform = [(logs - row.mean(1)) / row.std(1) for logs, row in zip(own, one.logs, strict=True)]
    highest = np.array([-lowest(-logs) for logs in own])
    unweighted = "Meeus et al. (moments over the vocabulary, unweighted)"
    return [
        agreeing("min_k", "mimir, Min-K% (k = 0.2)", ours, np.array([lowest(logs) for logs in own])),
        Line("min_k", "Min-K% (int(k n) tokens)", "score of 4 tokens", f"{lowest(own[0][:4]):.2f}", "not a number"),
        aucs("min_k", "pandora-llm (smallest losses: Max-K%)", ours, highest, one.member),
        agreeing("min_k_plus_plus", "Min-K%++", plus, np.array([lowest(z) for z in exact])),
        aucs("min_k_plus_plus", unweighted, plus, np.array([lowest(z) for z in uniform]), one.member),
        _half(one.logs),
    ]


def mean(row: np.ndarray) -> np.ndarray:
    """Of log p(v) under the model's own distribution, by token."""
    found: np.ndarray = (np.exp(row) * row).sum(1)
    return found


def variance(row: np.ndarray) -> np.ndarray:
    """Centred."""
    found: np.ndarray = (np.exp(row) * (row - mean(row)[:, None]) ** 2).sum(1)
    return found


def _half(logs: list[np.ndarray]) -> Line:
    """E[x^2] - E[x]^2 in float16 beside the centred variance, of a model made far surer: its logits times 24."""
    sharp = [24 * row - np.logaddexp.reduce(24 * row, axis=1, keepdims=True) for row in logs]
    half = [(row.astype(np.float16), np.exp(row).astype(np.float16)) for row in sharp]
    theirs = np.concatenate([(p * row**2).sum(1) - (p * row).sum(1) ** 2 for row, p in half]).astype(float)
    sure = np.concatenate([row.max(1) for row in sharp]) > np.log(1 - 1e-6)
    assert sure.any()
    said = f"tokens without a spread above 0, of {sure.sum()} with p > .999999 (logits x 24)"
    broken = [~np.isfinite(one) | (one <= 0) for one in (np.concatenate([variance(row) for row in sharp]), theirs)]
    return Line(
        "min_k_plus_plus in half precision", "recall, Con-ReCaLL", said, *(f"{one[sure].mean():.0%}" for one in broken)
    )


def _prefixes(one: Setting) -> list[Line]:
    shots = list(one.views.program("nonmember_shots", {"shots": 12}).ids)  # type: ignore[attr-defined]
    own, plain, ours = one.own(), one.ours("loss"), one.ours("recall")
    behind, whole = [], []
    for ids in one.ids:
        both = shots + ids[1:]
        logs = log_softmax(one.target, both)[np.arange(len(both) - 1), both[1:]]
        behind.append(logs[-(len(ids) - 1) :].mean())
        whole.append(logs.mean())
    formula = np.array(behind) / np.array([row.mean() for row in own])
    unmasked = np.array(whole) / plain
    return [
        agreeing("recall", "ReCaLL, the same tokens above and below", ours, formula),
        aucs("recall, the prefix counted too", MEEUS, ours, unmasked, one.member),
        aucs("the same, beside the loss", MEEUS, plain, unmasked, one.member),
    ]


def _references(one: Setting) -> list[Line]:
    target, base = one.own(), one.own([log_softmax(one.base, ids)[:-1] for ids in one.ids])
    ratios = []
    for logs, others, row, ids in zip(target, base, one.logs, one.ids, strict=True):
        change = (logs - others)[row.argmax(1) != np.array(ids[1:])]
        losses = np.maximum(-change, 0).sum()
        ratios.append(np.maximum(change, 0).sum() / losses if losses else 0.0)
    plain, other = (np.array([row.mean() for row in side]) for side in (target, base))
    return [
        agreeing("reference", "mimir (difference)", one.ours("reference"), plain - other),
        aucs("reference", "Meeus et al., LLM-PBE (ratio)", one.ours("reference"), plain / -other, one.member),
        aucs("ez_mia", "ez-mia (0 where nothing is lost)", one.ours("ez_mia"), np.array(ratios), one.member),
        Line(
            "ez_mia",
            "ez-mia",
            "members with the least score of all, 0, for want of losses",
            "0",
            str(int((np.array(ratios)[one.member] == 0).sum())),
        ),
    ]


def _others(one: Setting) -> list[Line]:
    originals = [str(text) for text in one.views.records.contents]
    copies = []
    for copy in range(10):
        swapped = [swap_words(text, 0.1, generator_for(text, 0, copy)) for text in originals]
        copies.append(one.target.signals(one.target.encode(swapped)))
    plain = one.target.signals(one.target.encode(originals))
    highest = np.max([copy.average(copy.logprob) for copy in copies], axis=0)
    lowest_of = np.min([copy.average(copy.logprob) for copy in copies], axis=0)
    assert (highest >= lowest_of).all()
    theirs = plain.average(plain.logprob) - lowest_of
    surp = np.array([_surp(logs, row) for logs, row in zip(one.own(), one.logs, strict=True)])
    without = f"{(surp == -100).mean():.0%} of records at -100"
    return [
        aucs(
            "neighbour",
            "mimir (the worst neighbour, not the mean)",
            neighbour(plain, tuple(copies)),
            theirs,
            one.member,
        ),
        aucs(
            "surp", f"Meeus et al. (no token qualifies: {without})", one.ours(f"surp:entropy={SURE}"), surp, one.member
        ),
    ]


def _surp(logs: np.ndarray, row: np.ndarray) -> float:
    few = logs[(logs <= np.sort(logs)[max(1, int(0.4 * len(logs))) - 1]) & (-(np.exp(row) * row).sum(1) < SURE)]
    return float(few.mean()) if len(few) else -100.0
