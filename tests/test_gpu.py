"""Whole audits on a GPU beside the same on the CPU, and what only a GPU can do: run out of its memory."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import repromia
from attacks.diffusion.trained import Trained, trained
from graph_models import INSIDE, LABELS, OUTSIDE, graph, model, network
from graph_models import trained as trained_on_nodes
from repromia.config import Settings
from repromia.demo import classifier as digits
from repromia.pipeline import Audit, run_audit
from repromia.progress import Silent
from repromia.records import LabelledRecords, Node, Records
from repromia.store import Store
from repromia.targets.load import LoadOptions, wrap_language_model
from small import SmallModels, small_models

DEVICE = os.environ.get("REPROMIA_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(
    DEVICE.startswith("cuda") and not torch.cuda.is_available(), reason="needs a GPU that torch sees"
)
FIXED, LEARNED = 2e-3, 0.9  # standard deviations of a score apart at most; rank correlation at least
TRAINED = {"salem", "shokri", "ldc_mia", "bavaria", "bavaria_offline"}  # networks and fits on answers of shadow models

LANGUAGE = (
    "loss,min_k,min_k_plus_plus,gap_k,surp,zlib,lowercase,recall:shots=3,con_recall:shots=3,dc_pdd,pac:copies=2",
    "reference,ez_mia,wbc,reprogram:length=4:steps=1,reprogram:recipe=paper:length=4:steps=1",
    "probe_bank:programs=band/width=1+noise_and_repair/steps=2+band/width=0",
)
DIFFUSION = (
    "naive:t=50:draws=2,pia:t=50,pian:t=50,secmi_stat:t=50,sima:t=30+80,pfami:t=50:count=2,gsa:t=99+199",
    "shift_contrast:t=30+80,probe_bank:t=30+80,reference:t=50,reprogram:t=30:steps=2",
)
GRAPH = ("loss,augmented,rmia,lira,hop_posteriors,g_base:draws=2,reprogram:steps=5,probe_bank",)


def measured(target: Any, reference: Any, records: LabelledRecords, shadows: Any = None, **more: Any) -> Audit:
    settings = Settings(**{"fprs": (0.05,), "bootstrap": 200, "controls": False, **more})
    return run_audit(
        (target, reference, None), records, settings, store=Store(None), progress=Silent(), shadows=shadows
    )


def language(device: str) -> Audit:
    models = small_models()
    texts = (*models.members, *models.nonmembers)
    ids = tuple(f"r{row}" for row in range(len(texts)))
    records = LabelledRecords(Records(ids, texts, ids), np.arange(len(texts)) < len(models.members))
    target, reference = (
        dataclasses.replace(one, model=copy.deepcopy(one.model).to(device)) for one in (models.leaky, models.base)
    )
    return measured(target, reference, records, attacks=LANGUAGE)


def diffusion(device: str) -> Audit:
    small: Trained = trained()
    records = repromia.load_records(small.members, small.nonmembers)
    target, reference = (
        repromia.diffusion_model(copy.deepcopy(one).to(device)) for one in (small.leaky, small.private)
    )
    return measured(target, reference, records, attacks=DIFFUSION, fit=0.3, select=0.2)


def classifier(device: str) -> Audit:
    from sklearn.datasets import load_digits

    images, label = digits.half_hidden_digits(), load_digits().target
    rows = np.random.default_rng(0).permutation(len(images))[:300]
    records = repromia.load_records(*((images[side], label[side]) for side in (rows[:150], rows[150:])))
    epochs, digits.EPOCHS = digits.EPOCHS, 20
    try:
        target = repromia.classifier(digits.train(records.members(), 0).to(device), records)
        shadows = repromia.shadow_models(
            lambda of, seed: digits.train(of, seed).to(device), target, records, count=4, train_key="digits"
        )
        return measured(target, None, records, shadows)
    finally:
        digits.EPOCHS = epochs


def nodes(device: str) -> Audit:
    arrays = {"x": graph().features, "edge_index": graph().edges, "y": np.array(LABELS)}
    records = repromia.load_nodes(arrays, INSIDE, OUTSIDE)

    def train(of: Records, seed: int) -> Any:
        torch.manual_seed(seed)
        numbers = np.array([one.number for one in of.contents if isinstance(one, Node)])
        return trained_on_nodes(network("gcn"), numbers, 100).to(device)

    target = repromia.classifier(copy.deepcopy(model("gcn")).to(device), records)
    shadows = repromia.shadow_models(train, target, records, count=4, train_key="graph")
    return measured(target, None, records, shadows, attacks=GRAPH)


@pytest.mark.parametrize("audit", [language, diffusion, classifier, nodes])
def test_scores_on_a_gpu_are_those_of_the_cpu(audit: Callable[[str], Audit]) -> None:
    here, there = audit("cpu"), audit(DEVICE)
    reasons = [
        {row.name: row.reason for row in one.result.attacks if row.status != "measured"} for one in (here, there)
    ]
    assert reasons[0] == reasons[1]
    learned = {row.name for row in here.result.attacks if row.kind in ("reprogrammed", "head")} | TRAINED
    bad = {}
    for name, scores in here.scores.items():
        one, other = np.asarray(scores, dtype=float), np.asarray(there.scores[name], dtype=float)
        apart = np.abs(one - other).max() / (one.std() or 1.0)
        if apart > FIXED and (name not in learned or spearmanr(one, other).statistic < LEARNED):
            bad[name] = float(apart)
    assert not bad


def test_a_batch_too_large_for_the_gpu_is_halved_until_it_fits() -> None:
    """A fiftieth of a GPU's memory: batches of two million tokens do not fit, and every score stays the same."""
    models: SmallModels = small_models()
    if DEVICE == "cpu":
        pytest.skip("a CPU does not run out")
    sequences = models.base.encode(models.members * 200)
    target = dataclasses.replace(models.base, model=copy.deepcopy(models.base.model).to(DEVICE), batch_tokens=2**21)
    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        found = target.signals(sequences)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert target.batch_tokens < 2**21
    count = len(models.members)
    expected = models.base.signals(sequences[:count])
    size = len(expected.logprob)
    np.testing.assert_allclose(found.logprob.reshape(200, size), np.tile(expected.logprob, (200, 1)), atol=1e-4)


def test_16_bit_weights_rank_records_alike() -> None:
    """bfloat16 keeps eight bits: single scores move, their order hardly."""
    models = small_models()
    half = dataclasses.replace(models.leaky, model=copy.deepcopy(models.leaky.model).to(DEVICE, torch.bfloat16))
    sequences = half.encode([*models.members, *models.nonmembers])
    here, there = models.leaky.signals(sequences), half.signals(sequences)
    assert np.corrcoef(here.logprob, there.logprob)[0, 1] > 0.995


def test_a_model_spread_over_gpu_and_cpu_answers_the_same() -> None:
    from accelerate import dispatch_model

    models = small_models()
    whole = copy.deepcopy(models.base.model)
    here, there = ("cpu", "cpu") if DEVICE == "cpu" else (0, "cpu")
    places = {"model.embed_tokens": here, "model.rotary_emb": here, "model.norm": here, "lm_head": here}
    places |= {"model.layers.0": here, "model.layers.1": there}
    tokenizer, options = models.base.encoder.tokenizer, LoadOptions(max_tokens=128)
    spread = wrap_language_model(dispatch_model(whole, places), tokenizer, options=options)
    sequences = models.base.encode(models.members[:20])
    np.testing.assert_allclose(models.base.signals(sequences).logprob, spread.signals(sequences).logprob, atol=1e-4)
    assert spread.fingerprint == models.base.fingerprint
