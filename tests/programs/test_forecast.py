"""What a regressor expects of records that a classifier was not trained on, learned from non-members alone."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from classifier_models import IMAGES, SENTENCES, cnn, image_records
from repromia.attacks import registry
from repromia.class_records import class_records_from_objects
from repromia.errors import AttackError
from repromia.metrics import auc
from repromia.programs import Binding
from repromia.programs.forecast import LearnedForecast, _numbers
from repromia.programs.queries import Query
from repromia.progress import Silent
from repromia.records import LabelledRecords, TableRow
from repromia.scoring import run_attack
from repromia.signals import ClassSignals, ForecastSignals, join
from repromia.store import Store
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_options import ClassifierOptions
from repromia.targets.classifiers import wrap_classifier
from repromia.views import Views, passes_of

OPTIONS = ClassifierOptions(answer="logits", classes=("0", "1", "2"))
GAIN = 2.0


def expected(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the margin of a row that the model has not seen."""
    return 3 * x[:, 0] - 2, np.exp(0.5 * x[:, 1])


@cache
def rows(gain: float = GAIN, count: int = 2400, seed: int = 0) -> tuple[LabelledRecords, np.ndarray]:
    """Rows and the margins that a model gives them: normal, and higher for members by so many deviations."""
    generator = np.random.default_rng(seed)
    x, label = generator.normal(size=(count, 3)), generator.integers(0, 3, count)
    half = count // 2
    records = class_records_from_objects((x[:half], label[:half]), (x[half:], label[half:]))
    mean, spread = expected(x)
    return records, mean + spread * (generator.normal(size=count) + gain * records.member)


def target(records: LabelledRecords, margin: np.ndarray) -> Classifier:
    """A function that knows the margin of every row."""
    known = {one.values: at for at, one in enumerate(records.records.contents) if isinstance(one, TableRow)}
    label = [int(one.label) for one in records.records.contents if isinstance(one, TableRow)]

    def answer(values: np.ndarray) -> np.ndarray:
        logits = np.zeros((len(values), 3))
        for at, row in enumerate(values.tolist()):
            place = known[tuple(row)]
            logits[at, label[place]] = margin[place]
        return logits

    return wrap_classifier(answer, records=records.records, options=OPTIONS)


def parts(records: LabelledRecords) -> tuple[LabelledRecords, LabelledRecords, LabelledRecords]:
    """fit, select and eval: a third each of both sides."""
    at = np.arange(len(records)) % 3
    return (
        records.take(np.flatnonzero(at == 0)),
        records.take(np.flatnonzero(at == 1)),
        records.take(np.flatnonzero(at == 2)),
    )


def binding(model: Classifier, fit: LabelledRecords, select: LabelledRecords, seed: int = 0) -> Binding:
    return Binding(model, fit, select, seed, Silent(), longest=0)


def forecast(gain: float = GAIN) -> tuple[Any, Classifier, LabelledRecords]:
    records, margin = rows(gain)
    model = target(records, margin)
    fit, select, measured = parts(records)
    return LearnedForecast(epochs=40).bind(binding(model, fit, select)), model, measured


def values_of(records: LabelledRecords) -> np.ndarray:
    return np.array([one.values for one in records.records.contents if isinstance(one, TableRow)])


def test_the_forecast_is_that_of_non_members() -> None:
    """400 of them teach it means and deviations that range over 12 and over a factor of 10."""
    program, model, measured = forecast()
    (told,) = program.ask(model, measured.records)
    mean, spread = expected(values_of(measured))
    common = np.abs(values_of(measured)).max(axis=1) < 1.5
    assert np.abs(told.mean - mean)[common].mean() < 0.4
    assert np.abs(np.log(told.spread / spread))[common].mean() < 0.3
    assert program.details["epochs"] > 0
    assert program.details["fit_nonmembers"] == 400


def test_the_score_is_the_margin_against_the_forecast_and_beats_it() -> None:
    """Of 400 + 400 records; the best test has AUC Phi(2 / sqrt 2) = .92, the margin alone .70."""
    program, model, measured = forecast()
    (told,), (plain,) = program.ask(model, measured.records), Query().ask(model, measured.records)
    scores = registry("classifier")["qmia"].function(plain, told)
    for at in range(len(measured)):
        p = np.exp(plain.logprobs[at].astype(float)).tolist()
        own = p.pop(int(plain.label[at]))
        margin = np.log(own) - np.log(max(p))
        assert scores[at] == pytest.approx((margin - told.mean[at]) / told.spread[at], rel=1e-4, abs=1e-4)
    assert auc(scores, measured.member) > 0.86
    assert auc(plain.margin, measured.member) < 0.78


def test_nothing_is_found_where_nothing_was_learned() -> None:
    """Of 400 + 400 records: 4 standard deviations, 1 false alarm in 16,000 runs."""
    program, model, measured = forecast(0.0)
    (told,), (plain,) = program.ask(model, measured.records), Query().ask(model, measured.records)
    scores = registry("classifier")["qmia"].function(plain, told)
    assert abs(auc(scores, measured.member) - 0.5) < 4 * np.sqrt(801 / (12 * 400 * 400))


def test_members_teach_it_nothing() -> None:
    """Whatever the model says of members, and whichever there are, the forecast is the same."""
    records, margin = rows()
    fit, select, _ = parts(records)
    other = np.where(records.member, 50.0, margin)
    fewer = fit.take(np.flatnonzero(~fit.member | (np.arange(len(fit)) % 4 == 0)))
    keys = [
        LearnedForecast(epochs=3).bind(binding(target(records, one), some, select)).key
        for one, some in ((margin, fit), (other, fit), (margin, fewer))
    ]
    assert keys[0] == keys[1] == keys[2]
    turned = replace(fit, member=~fit.member)
    assert LearnedForecast(epochs=3).bind(binding(target(records, margin), turned, select)).key != keys[0]
    used = LearnedForecast(epochs=1).bind(binding(target(records, margin), fit, select)).used
    assert used == {*fit.nonmembers().ids, *select.nonmembers().ids}


def test_of_noise_it_keeps_what_is_the_same_for_all() -> None:
    """Margins that have nothing to do with the rows: the constant is a candidate, and hardly beaten."""
    records, _ = rows()
    margin = np.random.default_rng(5).normal(1, 2, len(records))
    model = target(records, margin)
    fit, select, measured = parts(records)
    (told,) = LearnedForecast(epochs=40).bind(binding(model, fit, select)).ask(model, measured.records)
    assert told.mean.std() < 0.6
    assert told.mean.mean() == pytest.approx(1, abs=0.4)
    assert told.spread.mean() == pytest.approx(2, abs=0.4)


def test_it_is_asked_of_no_model_and_batches_do_not_matter() -> None:
    program, model, measured = forecast()
    before = model.asked
    (told,) = program.ask(model, measured.records)
    assert model.asked == before
    assert passes_of(program, (told,)) == 0
    few = join([program.ask(model, measured.records.take(range(at, at + 40)))[0] for at in range(0, 800, 40)])
    np.testing.assert_allclose(few.mean, told.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(few.take([3, 1]).spread, told.spread[[3, 1]], rtol=1e-5)


def test_images_are_read_as_pixels() -> None:
    """Real digits and a real network: dark images are given another margin than light ones."""
    found = image_records(400)
    model = wrap_classifier(cnn(), records=found.records)
    at = np.arange(400) % 2 == 0
    fit, select = found.take(np.flatnonzero(at)), found.take(np.flatnonzero(~at))
    program = LearnedForecast(epochs=8).bind(binding(model, fit, select))
    (told,) = program.ask(model, select.records)
    assert np.isfinite(told.mean).all()
    assert min(program.details["select_nats"]) < program.details["select_nats"][0]
    larger = _numbers(torch.rand(2, 3, 100, 80), None)
    assert larger.shape == (2, 3, 32, 32)
    assert IMAGES.shape[1:] == _numbers(torch.rand(2, 1, 8, 8), None).shape[2:]


def test_texts_are_read_as_words() -> None:
    """The margin hangs on one word, which 90 texts hold."""
    texts = [f"{one} {tail}" for one in SENTENCES for tail in ("now", "then", "again")]
    tones = [one.split()[0] for one in texts]
    half = len(texts) // 2
    found = class_records_from_objects((texts[:half], tones[:half]), (texts[half:], tones[half:]))

    def answer(given: list[str]) -> np.ndarray:
        places = [("good", "bad", "dull").index(one.split()[0]) for one in given]
        high = [4.0 if "now" in one else 1.0 for one in given]
        return np.array([[h if at == place else 0.0 for at in range(3)] for place, h in zip(places, high, strict=True)])

    options = ClassifierOptions(answer="logits", classes=("good", "bad", "dull"))
    model = wrap_classifier(answer, records=found.records, options=options)
    program = LearnedForecast(epochs=60).bind(binding(model, found, found))
    (told,) = program.ask(model, found.records)
    now = np.array(["now" in one for one in found.records.texts()])
    assert told.mean[now].min() > told.mean[~now].max() + 1
    unseen = class_records_from_objects((["bad xyzzy"], ["bad"]), (["good"], ["good"])).records
    assert np.isfinite(program.ask(model, unseen)[0].mean).all()


def test_too_few_non_members_and_forecasts_that_are_none_are_refused() -> None:
    records, margin = rows()
    fit, select, _ = parts(records)
    few = fit.take(np.flatnonzero(fit.member | (np.arange(len(fit)) > len(fit) - 10)))
    with pytest.raises(AttackError, match=r"too few non-members(.|\n)*20 in the fit role(.|\n)*9 and 400"):
        LearnedForecast().bind(binding(target(records, margin), few, select))
    with pytest.raises(AttackError, match="epochs is at least 1"):
        LearnedForecast(epochs=0).bind(binding(target(records, margin), fit, select))
    for mean, spread in ((np.nan, 1.0), (0.0, 0.0), (0.0, np.inf)):
        with pytest.raises(AttackError, match=r"not finite(.|\n)*1 of 2 records"):
            ForecastSignals(np.array([0.0, mean]), np.array([1.0, spread]))


def test_the_attack_runs_through_views_and_is_stored(tmp_path: Any) -> None:
    records, margin = rows()
    model = target(records, margin)
    fit, select, measured = parts(records)
    views = Views({"target": model}, measured.records, binding(model, fit, select), Store(tmp_path))
    from repromia.attacks import parse

    scored = run_attack(parse("qmia:epochs=3", "classifier"), views)
    assert scored.reason == ""
    assert scored.passes == 1
    assert scored.details["forecast"]["fit_nonmembers"] == 400
    again = Views({"target": model}, measured.records, binding(model, fit, select), Store(tmp_path))
    np.testing.assert_array_equal(run_attack(parse("qmia:epochs=3", "classifier"), again).scores, scored.scores)
    assert "qmia" in registry("graph")  # shared, and left out where no regressor reads the records
    from repromia.programs.graph import PLANS

    assert "learned_forecast" not in PLANS


def test_the_margin_of_equal_classes_is_nothing() -> None:
    flat = ClassSignals(np.log(np.full((2, 4), 0.25)), np.zeros(2, dtype=int), np.array([0, 3]))
    np.testing.assert_allclose(flat.margin, 0, atol=1e-12)
