"""Asking a classifier: answers as from its own forward pass, whatever the batches; and every bad answer is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from classifier_models import CLASSES, DIGITS, IMAGES, cnn, image_records, mlp, pixels, row_records
from repromia.errors import TargetError
from repromia.records import Records, TableRow
from repromia.signals import ClassSignals
from repromia.targets.answers import LEAST
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_options import ClassifierOptions
from repromia.targets.classifiers import wrap_classifier


def ask(model: Classifier, records: Records) -> ClassSignals:
    batch = model.encode(records.contents, records.ids)
    return model.signals(batch.inputs, batch.label)


def function(
    answer: str, model: Callable[[Any], Any], classes: tuple[str, ...] = (), random: bool = False
) -> Classifier:
    options = ClassifierOptions(answer=answer, classes=classes, random=random)
    return wrap_classifier(model, records=row_records().records, options=options)


def softmax_rows(values: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return mlp()(torch.from_numpy(values).float() / 16).softmax(1).double().numpy()


def refused(model: Classifier, records: Records | None = None) -> str:
    with pytest.raises(TargetError) as caught:
        ask(model, records or row_records().records)
    return str(caught.value)


def test_a_module_answers_as_its_own_forward_pass() -> None:
    model = cnn().train()
    found = ask(wrap_classifier(model, records=image_records().records), image_records().records)
    assert model.training
    assert model.body[4].training  # as they were
    with torch.no_grad():
        expected = model.eval()(pixels(40)).double().log_softmax(1).numpy()
    model.train()
    np.testing.assert_allclose(found.logprobs, expected, rtol=1e-5, atol=1e-6)
    assert found.predicted.tolist() == expected.argmax(1).tolist()
    assert found.label.tolist() == CLASSES[:40]
    np.testing.assert_allclose(found.logprob, expected[range(40), CLASSES[:40]], rtol=1e-5, atol=1e-6)
    chance = np.exp(expected[range(40), CLASSES[:40]])
    np.testing.assert_allclose(np.exp(found.other), 1 - chance, atol=1e-6)


def test_only_layers_that_were_training_go_back_to_training() -> None:
    model = cnn().eval()
    model.body[1].train()
    ask(wrap_classifier(model, records=image_records().records), image_records().records)
    assert [one.training for one in model.body] == [False, True, False, False, False]
    assert not model.training
    model.train()


def test_pixels_are_scaled_for_the_module() -> None:
    options = ClassifierOptions(mean=(0.5,), std=(0.25,))
    found = ask(wrap_classifier(cnn(), records=image_records().records, options=options), image_records().records)
    model = cnn().eval()
    with torch.no_grad():
        expected = model((pixels(40) - 0.5) / 0.25).double().log_softmax(1).numpy()
    model.train()
    np.testing.assert_allclose(found.logprobs, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("batch", [1, 3, 7, 40])
def test_batches_and_order_do_not_matter(batch: int) -> None:
    records = image_records().records
    whole = ask(wrap_classifier(cnn(), records=records), records)
    order = np.random.default_rng(0).permutation(len(records))
    model = wrap_classifier(cnn(), records=records, options=ClassifierOptions(batch=batch))
    parts = ask(model, records.take(order))
    np.testing.assert_allclose(parts.logprobs, whole.logprobs[order], rtol=1e-5, atol=1e-6)
    assert parts.label.tolist() == whole.label[order].tolist()
    assert model.asked == len(records)


def test_no_record_gets_no_answer() -> None:
    records = row_records().records
    assert len(ask(function("probabilities", softmax_rows), records.take([]))) == 0


def test_labels_outside_the_classes() -> None:
    records = row_records().records
    few = replace(records, contents=tuple(TableRow(one.values, "12") for one in records.contents))  # type: ignore[union-attr]
    assert "number 9" not in refused(function("probabilities", softmax_rows, tuple("abcdefghij")), few)
    message = refused(function("probabilities", softmax_rows), few)
    assert "do not have" in message or "does not have" in message
    none = replace(records, contents=tuple(TableRow(one.values, "") for one in records.contents))  # type: ignore[union-attr]
    assert "40 of 40 records name no class" in refused(function("probabilities", softmax_rows), none)


def test_numbers_name_classes_by_place_only_where_no_class_is_called_by_one() -> None:
    records = row_records().records
    named = ask(function("probabilities", softmax_rows, tuple("abcdefghij")), records)
    assert named.label.tolist() == CLASSES[:40]
    odd = tuple(str(2 * one + 1) for one in range(10))  # no class 0, though there is a first one
    assert "name no class" in refused(function("probabilities", softmax_rows, odd))


def test_another_number_of_classes() -> None:
    more = tuple("abcdefghijk")
    assert "another number of classes" in refused(function("probabilities", softmax_rows, more))
    assert "another number of classes" in refused(function("logits", lambda rows: rows[:, :1]))
    with pytest.raises(TargetError, match="two classes of one name"):
        function("probabilities", softmax_rows, ("a", "a"))


def test_probabilities_that_are_none() -> None:
    assert "that do not" in refused(function("probabilities", lambda rows: softmax_rows(rows) * 0.9))
    assert "look like logits" in refused(function("probabilities", lambda rows: 20 * softmax_rows(rows) - 10))
    assert "that do not" in refused(function("top_k", lambda rows: softmax_rows(rows) * 1.1))
    hidden = np.array([np.nan] + [1.0] * 9)
    assert "that do not" in refused(function("probabilities", lambda rows: softmax_rows(rows) * hidden))


def test_logits_that_are_probabilities() -> None:
    assert "answers with probabilities" in refused(function("logits", softmax_rows))
    model = nn.Sequential(mlp(), nn.Softmax(1))
    assert "answers with probabilities" in refused(wrap_classifier(model, records=row_records().records))
    records = row_records(scale=1 / 16).records
    right = wrap_classifier(model, records=records, options=ClassifierOptions(answer="probabilities"))
    plain = ask(wrap_classifier(mlp(), records=records), records)
    np.testing.assert_allclose(ask(right, records).logprobs, plain.logprobs, atol=1e-4)


def test_numbers_that_are_not_finite() -> None:
    def broken(rows: np.ndarray) -> np.ndarray:
        found = np.log(softmax_rows(rows))
        found[3] = np.nan
        return found

    assert "not finite" in refused(function("logits", broken, random=True))
    assert "40 of 40" in refused(function("logits", lambda rows: np.full((len(rows), 10), np.nan)))
    assert "16 of" not in refused(function("logits", lambda rows: np.full((len(rows), 10), np.inf), random=True))
    assert refused(function("probabilities", lambda rows: np.full((len(rows), 10), np.nan)))


def test_top_k_shares_what_is_left_among_the_rest() -> None:
    def two(rows: np.ndarray) -> np.ndarray:
        found = softmax_rows(rows)
        least = np.sort(found, axis=1)[:, -2:-1]
        return np.where(found >= least, found, np.nan)

    records = row_records().records
    found, whole = ask(function("top_k", two), records), softmax_rows(DIGITS.data[:40])
    order = np.argsort(-whole, axis=1)
    rest = (1 - np.take_along_axis(whole, order[:, :2], 1).sum(1)) / 8
    expected = np.take_along_axis(np.exp(found.logprobs.astype(np.float64)), order, 1)
    np.testing.assert_allclose(expected[:, :2], np.take_along_axis(whole, order, 1)[:, :2], atol=1e-6)
    np.testing.assert_allclose(expected[:, 2:], np.repeat(rest[:, None], 8, 1), atol=1e-6)
    assert found.predicted.tolist() == whole.argmax(1).tolist()
    assert found.told


def test_a_probability_of_zero_has_a_finite_logarithm() -> None:
    def sure(rows: np.ndarray) -> np.ndarray:
        return np.eye(10)[softmax_rows(rows).argmax(1)]

    found = ask(function("probabilities", sure), row_records().records)
    assert np.isclose(found.logprobs.min(), LEAST)
    assert np.isfinite(found.scaled_logit).all()


@pytest.mark.parametrize("names", [False, True])
def test_labels_alone(names: bool) -> None:
    classes = tuple("abcdefghij") if names else ()

    def told(rows: np.ndarray) -> Any:
        found = softmax_rows(rows).argmax(1)
        return [classes[one] for one in found] if names else found

    found = ask(function("label", told, classes), row_records().records)
    assert not found.told
    assert found.predicted.tolist() == softmax_rows(DIGITS.data[:40]).argmax(1).tolist()


def test_labels_of_no_class() -> None:
    assert "does not exist" in refused(function("label", lambda rows: ["z"] * len(rows), tuple("abcdefghij")))
    assert "does not exist" in refused(function("label", lambda rows: np.full(len(rows), 10), tuple("abcdefghij")))
    assert "one row a record" in refused(function("label", softmax_rows))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda rows: softmax_rows(rows)[:-1],
        lambda rows: softmax_rows(rows)[:, :, None],
        lambda rows: softmax_rows(rows).argmax(1),
        lambda rows: [[0.5, 0.5]] * (len(rows) - 1) + [[1.0]],
        lambda rows: ["a"] * len(rows),
        lambda rows: None,
    ],
)
def test_wrong_shapes(wrong: Callable[[np.ndarray], Any]) -> None:
    assert "one row a record" in refused(function("probabilities", wrong))


def test_errors_of_the_model_say_what_it_was_asked() -> None:
    message = refused(wrap_classifier(nn.Linear(63, 10), records=row_records().records))
    assert "raised an error" in message
    assert "rows of 64 numbers" in message


class Drops(nn.Module):
    """Dropout left on whatever the mode."""

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = nn.functional.dropout(mlp()(rows), 0.5, training=True)
        return found


class Mates(nn.Module):
    """Batch statistics of the batch whatever the mode."""

    def forward(self, rows: Tensor) -> Tensor:
        return nn.functional.batch_norm(mlp()(rows), None, None, training=True)


@pytest.mark.parametrize("kind", [Drops, Mates])
@pytest.mark.parametrize("batch", [2, 16, 256])
def test_answers_that_depend_on_more_than_the_record_are_found(kind: type[nn.Module], batch: int) -> None:
    records = row_records(scale=1 / 16).records
    model = wrap_classifier(kind(), records=records, options=ClassifierOptions(batch=batch))
    assert "in other company" in refused(model, records)
    assert "in other company" in refused(model, records)  # and again: the first refusal proves nothing
    declared = wrap_classifier(kind(), records=records, options=ClassifierOptions(batch=batch, random=True))
    assert len(ask(declared, records)) == len(records)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_batches_are_halved_when_memory_runs_out(error: Exception) -> None:
    sizes: list[int] = []

    def scarce(rows: np.ndarray) -> np.ndarray:
        sizes.append(len(rows))
        if len(rows) > 6:
            raise error
        return softmax_rows(rows)

    records = row_records().records
    model = function("probabilities", scarce)
    found = ask(model, records)
    np.testing.assert_allclose(np.exp(found.logprobs), softmax_rows(DIGITS.data[:40]), atol=1e-6)
    assert model.asked == 40
    assert model.batch == 5
    assert max(sizes[-8:]) == 5  # what did not fit is not tried again


def test_memory_that_no_record_fits_in() -> None:
    def none(rows: np.ndarray) -> np.ndarray:
        raise MemoryError

    assert "single record" in refused(function("probabilities", none))


def test_fingerprints() -> None:
    records = row_records().records
    torch.manual_seed(3)
    one = nn.Linear(64, 10)
    same = wrap_classifier(one, records=records, options=ClassifierOptions(batch=3))
    first = same.fingerprint
    ask(same, records)  # now it knows how many classes there are
    same.refresh()
    assert same.fingerprint == first
    with torch.no_grad():
        one.bias += 1
    same.refresh()
    assert same.fingerprint != first
    assert function("label", softmax_rows).fingerprint != function("label", softmax_rows).fingerprint
    numbered = wrap_classifier(one, records=records, options=ClassifierOptions(classes=tuple("abcdefghij")))
    assert numbered.fingerprint != same.fingerprint


def test_references_must_classify_the_same_things() -> None:
    rows, images = row_records().records, image_records().records
    target = wrap_classifier(mlp(), records=rows)
    ask(target, rows)
    target.check_same_inputs(wrap_classifier(mlp(), records=rows))
    for other in (
        wrap_classifier(cnn(), records=images),
        wrap_classifier(mlp(), records=rows, options=ClassifierOptions(classes=tuple("abcdefghij"))),
    ):
        with pytest.raises(TargetError, match="something else"):
            target.check_same_inputs(other)


def test_records_of_another_kind() -> None:
    assert "another kind" in refused(wrap_classifier(cnn(), records=image_records().records), row_records().records)
    small = wrap_classifier(nn.Linear(3, 2), records=None, options=ClassifierOptions(pixels=8, channels=1))
    assert "another kind" in refused(small)


def test_images_of_another_size_are_fitted() -> None:
    from repromia.class_records import class_records_from_objects

    large = np.repeat(np.repeat(IMAGES, 2, 1), 2, 2)
    records = class_records_from_objects((large[:20], CLASSES[:20]), (large[20:40], CLASSES[20:40])).records
    model = wrap_classifier(cnn(), records=records, options=ClassifierOptions(pixels=8))
    assert model.encode(records.contents).inputs.shape == (40, 1, 8, 8)  # type: ignore[union-attr]
    strict = wrap_classifier(cnn(), records=records, options=ClassifierOptions(pixels=8, resize="refuse"))
    assert "another size" in refused(strict, records)
