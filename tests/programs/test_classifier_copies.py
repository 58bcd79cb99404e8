"""Noised and repaired copies of classifiers of images and rows: what they are made of, and what stays as it was."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_queries import same, snapshot
from torch import Tensor, nn

from classifier_models import (
    CLASSES,
    IMAGES,
    SmallCnn,
    bert,
    cnn,
    forest,
    image_records,
    mlp,
    row_records,
    text_records,
)
from repromia.attacks import parse
from repromia.errors import AttackError
from repromia.metrics import auc
from repromia.parts import Asking, Workers
from repromia.programs import Binding
from repromia.programs.classifier_copies import NoiseAndRepair, RepairedCopies, mixture
from repromia.programs.queries import Augmented
from repromia.progress import Silent
from repromia.records import LabelledRecords, Picture, TableRow
from repromia.scoring import run_attack
from repromia.signals import ReferenceSignals
from repromia.store import Store
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_forwards import ModuleForward
from repromia.targets.classifier_options import ClassifierOptions
from repromia.targets.classifiers import wrap_classifier
from repromia.views import Views

FIT, EVAL = image_records(60), image_records(200)


def target(module: nn.Module | None = None, **options: Any) -> Classifier:
    """Of images, unless told otherwise."""
    return wrap_classifier(module or cnn(), records=FIT.records, options=ClassifierOptions(**options))


def of_rows() -> Classifier:
    return wrap_classifier(mlp(), records=row_records().records)


def bound(asked: Classifier, seed: int = 0, fit: LabelledRecords = FIT, **options: float) -> RepairedCopies:
    plan = NoiseAndRepair(**{"copies": 2, "steps": 12, **options})  # type: ignore[arg-type]
    return plan.bind(Binding(asked, fit, FIT, seed, Silent(), longest=0))


def told(asked: Classifier, program: RepairedCopies, of: LabelledRecords = EVAL) -> ReferenceSignals:
    (found,) = program.ask(asked, of.records)
    return found


@pytest.mark.parametrize("batch", [7, 256])
def test_without_noise_and_repair_a_copy_is_the_target(batch: int) -> None:
    """Of images with batch statistics and dropout, left in train mode, and of rows."""
    for asked, fit, of in ((target(batch=batch), FIT, EVAL), (of_rows(), row_records(60), row_records(90))):
        found = told(asked, bound(asked, fit=fit, noise=0, steps=0), of)
        own = Augmented().ask(asked, of.records)
        assert found.logprob.shape == (2, len(of), len(own))
        assert len(own) == (6 if fit is FIT else 1)
        assert not found.inside.any()
        for at, one in enumerate(own):
            for each in range(2):
                np.testing.assert_allclose(found.logprob[each, :, at], one.logprob, rtol=1e-5, atol=1e-5)
                np.testing.assert_allclose(found.other[each, :, at], one.other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["images", "rows"])
def test_repair_brings_a_copy_nearer_to_the_target_which_stays_as_it_was(kind: str) -> None:
    asked, fit, of = (target(), FIT, EVAL) if kind == "images" else (of_rows(), row_records(60), row_records(200))
    module = asked.module
    assert module is not None
    first_weight = next(module.parameters()).requires_grad_(False)  # as a user may have left it
    before, fingerprint = snapshot(module), asked.fingerprint
    program = bound(asked, fit=fit, steps=60)
    own = Augmented().ask(asked, of.records)[0].logprob
    repaired, noised = told(asked, program, of), told(asked, bound(asked, fit=fit, steps=0), of)
    assert same(snapshot(module), before)
    first_weight.requires_grad_(True)
    asked.refresh()
    assert asked.fingerprint == fingerprint
    for number in range(2):
        first, last = (program.details[f"divergence_{when}_{number}"] for when in ("before", "after"))
        assert 0 < last < 0.5 * first
        near, far = (np.abs(one.logprob[number, :, 0] - own).mean() for one in (repaired, noised))
        assert 0 < near < far  # on records that it was not repaired on
    assert (repaired.logprob[0] != repaired.logprob[1]).any()


def test_noise_has_its_size_on_every_matrix_and_is_on_nothing_else() -> None:
    """Of the 2,880 weights of the head the spread is told within 6 %: four standard deviations, once in 16,000."""
    asked = target()
    program = bound(asked, noise=0.5, steps=0, copies=1)
    told(asked, program)
    module = program._made[0].module
    assert module is not None
    own = cnn().state_dict()
    for name, one in module.state_dict().items():
        if one.ndim >= 2:
            assert not torch.equal(one, own[name])
        else:
            assert torch.equal(one, own[name])  # biases, batch statistics
    moved = module.get_parameter("head.weight") - own["head.weight"]
    assert float(moved.std() / own["head.weight"].std()) == pytest.approx(0.5, rel=0.06)


def test_batch_statistics_of_the_copy_alone_are_brought_back() -> None:
    torch.manual_seed(0)
    deep = nn.Sequential(SmallCnn().body[:3], nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(128, 10))
    deep.train()
    asked, before = target(deep), copy.deepcopy(deep.state_dict())
    program = bound(asked, copies=1)
    found = told(asked, program)
    made = program._made[0].module
    assert made is not None
    statistics = [name for name in before if "running_" in name]
    assert len(statistics) == 4
    assert all(not torch.equal(made.state_dict()[name], before[name]) for name in statistics)
    assert all(torch.equal(one, before[name]) for name, one in deep.state_dict().items())
    assert deep.training
    assert not any(one.training for one in made.modules())  # asked with the statistics that it has come to
    parts = [told(asked, program, EVAL.take(range(at, at + 50))) for at in range(0, 200, 50)]
    together = np.concatenate([one.logprob for one in parts], axis=1)
    np.testing.assert_allclose(together, found.logprob, rtol=1e-4, atol=1e-5)


def renamed(given: LabelledRecords) -> LabelledRecords:
    """Of other classes, and members for non-members."""
    contents = tuple(
        replace(one, caption=str((int(one.caption) + 3) % 10))
        for one in given.records.contents
        if isinstance(one, Picture)
    )
    return LabelledRecords(replace(given.records, contents=contents), ~given.member)


def test_copies_are_the_same_in_every_run_whatever_members_and_classes() -> None:
    asked = target()
    first = told(asked, bound(asked))
    torch.rand(5)
    np.random.default_rng().random()
    program = bound(target(), fit=renamed(FIT))
    np.testing.assert_array_equal(told(target(), program).logprob, first.logprob)
    made = program._made[0]
    program.close()
    np.testing.assert_array_equal(told(asked, program).logprob, first.logprob)  # made anew
    assert program._made[0] is not made
    assert (told(asked, bound(asked, seed=1)).logprob != first.logprob).any()
    assert (told(asked, bound(asked, fit=image_records(50))).logprob != first.logprob).any()
    assert program.used == frozenset()
    keys = [bound(asked).key, bound(asked, seed=1).key, bound(asked, noise=0.5).key, bound(target(SmallCnn())).key]
    assert len({*keys, bound(asked, fit=image_records(50)).key}) == 5
    assert bound(target()).key == keys[0]


def test_labels_of_the_fit_role_are_read_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the mixtures reaches target and copies, and no mixture is a record."""
    asked, shown = target(), list[Tensor]()
    real = ModuleForward.__call__
    monkeypatch.setattr(ModuleForward, "__call__", lambda self, given: shown.append(given) or real(self, given))
    program = bound(asked, copies=1, steps=3)
    told(asked, program, EVAL.take(range(10)))
    repair, answers = shown[:6], shown[6:]
    assert [len(one) for one in repair] == [64] * 6
    assert all(torch.equal(one, other) for one, other in zip(repair[::2], repair[1::2], strict=True))
    assert sum(map(len, answers)) <= 6 * 10 + 2 * 10  # and the ten are asked twice, once a model, whether it is steady
    own = {one.numpy().tobytes() for one in torch.from_numpy(IMAGES[:60, None]).float() / 255}
    assert not own & {one.numpy().tobytes() for batch in repair for one in batch}


def test_a_mixture_is_of_two_inputs_mirrored_half_the_time() -> None:
    """Single pixels tell what was mixed: 2,000 draws, four standard deviations, once in 16,000."""
    inputs = torch.eye(16).reshape(16, 1, 4, 4)
    mixed = mixture(inputs, 2000, torch.Generator().manual_seed(0)).flatten(1)
    pairs = mixture(torch.eye(16, dtype=torch.float64), 2000, torch.Generator().manual_seed(0))
    assert pairs.dtype == torch.float64
    torch.testing.assert_close(mixed.sum(1), torch.ones(2000))
    assert mixed.shape == (2000, 16)
    lit = (pairs > 0).sum(1)
    assert set(lit.tolist()) == {1, 2}  # a record is drawn beside itself once in 16 mixtures
    assert float((lit == 1).float().mean()) == pytest.approx(1 / 16, abs=4 * (15 / 256 / 2000) ** 0.5)
    share = pairs[lit == 2].max(1).values
    assert 0.5 <= float(share.min()) <= float(share.max()) <= 0.7
    plain = mixture(inputs, 2000, torch.Generator().manual_seed(0))
    as_is = pairs.reshape(2000, 4, 4).float()
    kept = (plain[:, 0] - as_is).flatten(1).abs().amax(1) < 1e-6
    turned = (plain[:, 0] - as_is.flip(-1)).flatten(1).abs().amax(1) < 1e-6
    assert (kept | turned).all()
    assert float(kept.float().mean()) == pytest.approx(0.5, abs=4 * 0.5 / 2000**0.5)


def test_what_copies_answered_is_counted_to_the_target() -> None:
    asked = target()
    told(asked, bound(asked, steps=3, batch=16))
    assert asked.asked == 2 * 2 * 3 * 16 + 2 * 6 * len(EVAL)  # mixtures to both, then six variants


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -1}, "noise is at least 0"),
        ({"steps": -1}, "steps is at least 0"),
        ({"rate": -1}, "rate is at least 0"),
        ({"batch": 0}, "batch is at least 1"),
        ({"copies": 0}, "copies is at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(AttackError, match=message):
        bound(target(), **options)


def test_models_without_weights_or_logits_are_refused(tmp_path: Any) -> None:
    from repromia.targets.load import quiet

    with quiet():
        bert(tmp_path)
    from repromia.targets.classifier_loading import load_classifier

    label = wrap_classifier(
        lambda pixels: np.zeros(len(pixels), np.int64), records=FIT.records, options=ClassifierOptions(answer="label")
    )
    cases = [
        (wrap_classifier(forest(), records=row_records().records), row_records(), "RandomForestClassifier"),
        (label, FIT, "callable"),
        (target(nn.Sequential(copy.deepcopy(cnn()), nn.Softmax(1)), answer="probabilities"), FIT, "Sequential"),
        (load_classifier(str(tmp_path), None, text_records().records), text_records(), "BertForSequence"),
    ]
    for asked, records, found in cases:
        with pytest.raises(AttackError, match=rf"weights that can be noised[\s\S]*expected[\s\S]*{found}"):
            told(asked, bound(asked, fit=records), records)
    with pytest.raises(AttackError, match="asks classifiers"):
        bound(target()).ask(object(), EVAL.records)  # type: ignore[arg-type]


ROWS = np.random.default_rng(0).permutation(len(IMAGES))[:480].reshape(3, 160)  # members, non-members, elsewhere


@cache
@torch.enable_grad()
def leaky(*, private: bool) -> tuple[Classifier, LabelledRecords]:
    """Digits of which a third have a class drawn by lot, known by heart; a private model knows others."""
    generator = np.random.default_rng(1)
    named = np.where(generator.random(len(IMAGES)) < 0.3, generator.integers(0, 10, len(IMAGES)), CLASSES)
    from repromia.class_records import class_records_from_objects

    given = class_records_from_objects(*((IMAGES[one], named[one]) for one in ROWS[:2]))
    rows = ROWS[2 if private else 0]
    torch.manual_seed(0)
    model = SmallCnn()
    inputs, label = torch.from_numpy(IMAGES[rows, None]).float() / 255, torch.from_numpy(named[rows])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), label).backward()
        optimiser.step()
    return wrap_classifier(model, records=given.records), given


@pytest.mark.parametrize("private", [False, True])
def test_copies_stand_for_references(private: bool) -> None:
    """120 + 120 digits: of a model that saw none of them 4 standard deviations, 1 false alarm in 16,000 draws."""
    asked, given = leaky(private=private)
    rows = np.arange(320).reshape(2, 160)
    fit, measured = given.take(rows[:, :40].ravel()), rows[:, 40:].ravel()
    views = Views({"target": asked}, given.records, Binding(asked, fit, fit, 0, Silent(), longest=0), Store(None))
    scored = run_attack(parse("rmia:reference=noise_and_repair/steps=30/copies=2", "classifier"), views)
    assert scored.reason == ""
    assert scored.scores is not None
    found = auc(scored.scores[measured], given.member[measured])
    chance = 4 * np.sqrt((120 + 120 + 1) / (12 * 120 * 120))
    assert abs(found - 0.5) < chance if private else found > 0.5 + chance


def test_rows_are_mixed_and_not_mirrored() -> None:
    asked, fit = of_rows(), row_records(60)
    assert all(isinstance(one, TableRow) for one in fit.records.contents)
    program = bound(asked, fit=fit, steps=20)
    found = told(asked, program, row_records(90))
    assert found.logprob.shape == (2, 90, 1)
    assert np.isfinite(found.logprob).all()
    assert program.details["divergence_after_0"] < program.details["divergence_before_0"]


def test_how_copies_were_repaired_is_known_when_their_answers_are_read_back(tmp_path: Path) -> None:
    asked, fit, details = of_rows(), row_records(60), []
    for _ in range(2):
        program = bound(asked, fit=fit, steps=3)
        Asking(asked, Store(tmp_path), Silent(), Workers()).ask([program], fit.records, "copies")
        details.append((program.details, len(program._made)))
    assert len(details[0][0]) == 4
    assert details == [(details[0][0], 2), (details[0][0], 0)]
