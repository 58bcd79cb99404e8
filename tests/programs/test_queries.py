"""Fixed changes of what classifiers are asked about, against loops pixel by pixel."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from classifier_models import CLASSES, IMAGES, SmallCnn, cnn, forest, image_records, pixels, row_records, text_records
from repromia.attacks import parse
from repromia.attacks.classifier.probe_bank import PRESETS
from repromia.errors import AttackError, TargetError
from repromia.programs import Binding
from repromia.programs.classifier import PLANS
from repromia.programs.overlay import DRAWS, LEVEL, Votes
from repromia.programs.queries import (
    Augmented,
    Blur,
    Contrast,
    Crops,
    DroppedWords,
    Flip,
    ImageQuery,
    LowerCase,
    Noisy,
    Query,
    Shifts,
    Turn,
)
from repromia.programs.registry import plan_for
from repromia.progress import Silent
from repromia.records import Example, LabelledRecords, Records
from repromia.scoring import run_attack
from repromia.store import Store
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_options import ClassifierOptions
from repromia.targets.classifiers import wrap_classifier
from repromia.views import Views

ORDER = ((1, 0), (-1, 0), (0, 1), (0, -1))  # right, left, down, up


@pytest.fixture
def images() -> Tensor:
    """Three colour images in [0, 1], with pixels at both ends."""
    drawn = torch.rand(3, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    drawn[0, 0, 0, 0], drawn[1, 2, 9, 9] = 0, 1
    return drawn


def by_pixel(images: Tensor, read: Callable[[int, int], tuple[float, float]]) -> np.ndarray:
    """Each pixel (row, column) bilinear from where `read` says, the edge repeated."""
    height, width = images.shape[-2:]
    values, found = images.double().numpy(), np.empty(images.shape)
    for row in range(height):
        for column in range(width):
            y, x = read(row, column)
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            top, left = int(np.floor(y)), int(np.floor(x))
            below, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = (1 - x + left) * values[..., top, left] + (x - left) * values[..., top, right]
            lower = (1 - x + left) * values[..., below, left] + (x - left) * values[..., below, right]
            found[..., row, column] = (1 - y + top) * upper + (y - top) * lower
    return found


def moved(images: Tensor, x: int, y: int) -> np.ndarray:
    return by_pixel(images, lambda row, column: (row - y, column - x))


def test_mirrored(images: Tensor) -> None:
    for axis, expected in (("horizontal", images.numpy()[..., ::-1]), ("vertical", images.numpy()[..., ::-1, :])):
        (found,) = Flip(axis).changed(images)
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(AttackError, match="horizontal or vertical"):
        Flip("diagonal").changed(images)


@pytest.mark.parametrize("far", [1, 2, 9])
def test_shifts_repeat_the_edge(far: int, images: Tensor) -> None:
    found = Shifts(far).changed(images)
    assert len(found) == 4
    for one, (x, y) in zip(found, ORDER, strict=True):
        np.testing.assert_array_equal(one, moved(images, far * x, far * y).astype(np.float32))


def test_a_shift_of_the_whole_image_is_refused(images: Tensor) -> None:
    with pytest.raises(AttackError, match="as large as the image"):
        Shifts(10.0).changed(images)


def test_augmented_begins_with_the_record(images: Tensor) -> None:
    found = Augmented().changed(images)
    assert torch.equal(found[0], images)
    np.testing.assert_array_equal(found[1], images.numpy()[..., ::-1])
    for one, (x, y) in zip(found[2:], ORDER, strict=True):
        np.testing.assert_array_equal(one, moved(images, x, y).astype(np.float32))
    for other in (["a text"], torch.rand(3, 5)):
        assert Augmented().changed(other) == (other,)


@pytest.mark.parametrize("times", [0, 1, 3])
def test_blur_is_a_mean_of_neighbours(times: int, images: Tensor) -> None:
    expected = images.double()
    for _ in range(times):
        around = [((2 - abs(x)) * (2 - abs(y)) / 16, moved(expected, x, y)) for x in (-1, 0, 1) for y in (-1, 0, 1)]
        expected = torch.from_numpy(sum(share * one for share, one in around))
    np.testing.assert_allclose(Blur(times).changed(images)[0], expected, atol=1e-6)


@pytest.mark.parametrize("degrees", [10.0, 20.0, 90.0, 0.0])
def test_turned_about_the_middle(degrees: float, images: Tensor) -> None:
    middle = (images.shape[-1] - 1) / 2
    found = Turn(degrees).changed(images)
    assert len(found) == 2
    for one, angle in zip(found, (np.deg2rad(degrees), -np.deg2rad(degrees)), strict=True):

        def read(row: int, column: int, angle: float = angle) -> tuple[float, float]:
            x, y = column - middle, row - middle
            return (
                np.sin(angle) * x + np.cos(angle) * y + middle,
                np.cos(angle) * x - np.sin(angle) * y + middle,
            )

        np.testing.assert_allclose(one, by_pixel(images, read), atol=2e-5)
    if degrees == 90:
        np.testing.assert_allclose(found[0], np.rot90(images.numpy(), 1, (-2, -1)), atol=1e-5)


def test_crops_are_the_middle_enlarged(images: Tensor) -> None:
    found = Crops(3).changed(images)
    for one, (size, top) in zip(found, ((9, 0), (8, 1), (7, 1)), strict=True):  # 95 (just below), 82.5, 70 %

        def read(row: int, column: int, size: int = size) -> tuple[float, float]:
            return (row + 0.5) * size / 10 - 0.5, (column + 0.5) * size / 10 - 0.5

        cut = images[..., top : top + size, top : top + size]
        padded = torch.from_numpy(np.pad(cut.numpy(), ((0, 0), (0, 0), (0, 10 - size), (0, 10 - size)), mode="edge"))
        np.testing.assert_allclose(one, by_pixel(padded, read), atol=1e-5)
    with pytest.raises(AttackError, match="count is at least 1"):
        Crops(0).changed(images)


@pytest.mark.parametrize("by", [0.0, 0.7, 1.4])
def test_contrast_keeps_each_mean_and_is_cut(by: float, images: Tensor) -> None:
    (found,) = Contrast(by).changed(images)
    for one, image in zip(found.numpy(), images.numpy(), strict=True):
        np.testing.assert_allclose(one, np.clip(image.mean() + by * (image - image.mean()), 0, 1), atol=1e-6)


def test_noise_is_the_same_for_every_record_and_has_its_level(images: Tensor) -> None:
    flat = torch.full((5, 3, 16, 16), 0.5)
    draws = Noisy(level=0.05, draws=3).changed(flat)
    assert len(draws) == 3
    for one in draws:
        assert torch.equal(one, one[:1].expand_as(one))
        assert 0.045 < float((one[0] - 0.5).std()) < 0.055  # 768 values: 4 standard deviations
    assert not torch.equal(draws[0], draws[1])
    noise = draws[0][0] - 0.5
    assert float(torch.stack([noise * (one[0] - 0.5) for one in draws[1:]]).mean().abs()) < 4 * 0.05**2 / 39
    alone = torch.cat([Noisy(draws=1).changed(one[None])[0] for one in images.flip(0)]).flip(0)
    assert torch.equal(alone, Noisy(draws=3).changed(images)[0])
    loud = Noisy(level=2.0).changed(images)[0]
    assert (float(loud.min()), float(loud.max())) == (0, 1)


def test_noise_of_a_table_is_relative_and_the_same_for_every_row() -> None:
    rows = torch.rand(4, 6, dtype=torch.float64) * torch.tensor([1, 10, 100, -5, 0, 1e6])
    (found,) = Noisy(level=0.1, draws=1).changed(rows)
    assert found.dtype == rows.dtype
    factor = (found / rows)[:, [0, 1, 2, 3, 5]]
    np.testing.assert_allclose(factor, factor[:1].expand_as(factor))
    assert (found[:, 4] == 0).all()
    assert 0 < float((factor - 1).abs().max()) < 0.5
    with pytest.raises(AttackError, match="draws is at least 1"):
        Noisy(draws=0).changed(rows)


def image_programs() -> list[Query]:
    of_bank = [plan_for(one, {}, "classifier") for one in (*PRESETS["small"], *PRESETS["full"])]
    given = [Query(), Augmented(), Votes("labels"), Turn(45), Contrast(9), Noisy(3.0), Flip("vertical"), *of_bank]
    return [one for one in given if isinstance(one, Query) and "image" in one.kinds]


@pytest.mark.parametrize("program", image_programs(), ids=lambda one: repr(one)[:60])
def test_a_change_stays_in_range_and_looks_at_each_record_alone(program: Query, images: Tensor) -> None:
    before, state = images.clone(), torch.random.get_rng_state()
    whole = program.changed(images)
    assert torch.equal(images, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    order = [2, 0, 1]
    for at, one in enumerate(whole):
        assert one.shape == images.shape
        assert one.dtype == images.dtype
        assert float(one.min()) >= 0
        assert float(one.max()) <= 1
        turned = torch.cat([program.changed(images[row : row + 1])[at] for row in order])
        torch.testing.assert_close(turned, one[order], rtol=0, atol=1e-6)


def test_votes_are_drawn_noises_or_the_record(images: Tensor) -> None:
    assert torch.equal(Votes("scores").changed(images)[0], images)
    found = Votes("labels").changed(images)
    noisy = Noisy(LEVEL, DRAWS).changed(images)
    assert len(found) == DRAWS
    assert all(torch.equal(one, other) for one, other in zip(found, noisy, strict=True))


def test_lower_case() -> None:
    assert LowerCase().changed(["Ein GRÜNER Ast", "", "ß"]) == (["ein grüner ast", "", "ß"],)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6), st.sampled_from([0.0, 0.15, 0.6, 1.0]))
def test_words_are_dropped_by_the_text_alone(texts: list[str], share: float) -> None:
    program = DroppedWords(share, 2)
    found = program.changed(texts)
    assert len(found) == 2
    for at, variant in enumerate(found):
        assert variant[::-1] == program.changed(texts[::-1])[at]
        for text, left in zip(texts, variant, strict=True):
            words = text.split()
            kept = iter(words)
            assert left.split()[:1] == words[:1]  # the first word stays
            assert all(word in kept for word in left.split())  # and the order
            if share in (0.0, 1.0):
                assert left == " ".join(words if share == 0 else words[:1])


def test_the_stated_share_of_words_is_dropped_and_draws_differ() -> None:
    """10,000 words: 4 standard deviations, once in 16,000."""
    texts = [" ".join(f"w{at}-{row}" for at in range(101)) for row in range(100)]
    first, second = DroppedWords(0.15, 2).changed(texts)
    for one in (first, second):
        dropped = 1 - sum(len(text.split()) - 1 for text in one) / 10_000
        assert abs(dropped - 0.15) < 4 * (0.15 * 0.85 / 10_000) ** 0.5
    assert all(one != other for one, other in zip(first, second, strict=True))


def of_texts() -> Classifier:
    return wrap_classifier(
        lambda texts: np.array([[0.1, 0.2, 0.7] if len(one) % 2 else [0.5, 0.3, 0.2] for one in texts]),
        records=text_records().records,
        options=ClassifierOptions(answer="probabilities", classes=("dull", "good", "bad")),
    )


def of_images(module: nn.Module | None = None, batch: int = 256) -> Classifier:
    given = ClassifierOptions(batch=batch)
    return wrap_classifier(module or cnn(), records=image_records().records, options=given)


def of_rows() -> Classifier:
    return wrap_classifier(forest(), records=row_records().records)


def test_answers_are_those_about_the_changed_record() -> None:
    changed = np.ascontiguousarray(IMAGES[:, :, ::-1])
    mirrored = repromia_records(changed)
    (under,) = Flip().ask(of_images(), image_records().records)
    (plain,) = Query().ask(of_images(), mirrored)
    np.testing.assert_allclose(under.logprobs, plain.logprobs, atol=1e-5)
    assert under.label.tolist() == plain.label.tolist() == CLASSES[:40]
    (first, *_) = Augmented().ask(of_images(), image_records().records)
    (own,) = Query().ask(of_images(), image_records().records)
    np.testing.assert_array_equal(first.logprobs, own.logprobs)
    assert np.abs(under.logprobs - own.logprobs).max() > 1e-2


def repromia_records(images: np.ndarray) -> Records:
    from repromia.class_records import class_records_from_objects

    return class_records_from_objects((images[:20], CLASSES[:20]), (images[20:40], CLASSES[20:40])).records


@pytest.mark.parametrize("program", [Noisy(draws=2), Shifts(), Augmented()])
@pytest.mark.parametrize("batch", [1, 7, 256])
def test_answers_depend_neither_on_batches_nor_on_parts_nor_on_order(program: Query, batch: int) -> None:
    records = image_records().records
    whole = program.ask(of_images(), records)
    order = np.random.default_rng(0).permutation(40)
    model = of_images(batch=batch)
    parts = [program.ask(model, records.take(order[at : at + 9])) for at in range(0, 40, 9)]
    for at, one in enumerate(whole):
        found = np.concatenate([part[at].logprobs for part in parts])
        np.testing.assert_allclose(found, one.logprobs[order], rtol=1e-4, atol=1e-5)
    assert model.asked == 40 * len(whole)


@pytest.mark.parametrize(
    ("program", "model", "records", "kind"),
    [
        (Flip(), of_texts, text_records, "text"),
        (Flip(), of_rows, row_records, "table"),
        (Votes(), of_rows, row_records, "table"),
        (LowerCase(), of_images, image_records, "image"),
        (DroppedWords(), of_rows, row_records, "table"),
        (Noisy(), of_texts, text_records, "text"),
    ],
)
def test_inputs_of_another_kind_are_refused(
    program: Query, model: Callable[[], Classifier], records: Callable[[], LabelledRecords], kind: str
) -> None:
    target = model()
    assert not program.applies(target)
    with pytest.raises(AttackError, match=rf"does not change inputs of this kind(.|\n)*{kind}"):
        program.ask(target, records().records)
    assert target.asked == 0


def test_what_is_no_classifier_is_refused() -> None:
    with pytest.raises(AttackError, match="asks classifiers"):
        Query().ask(object(), image_records().records)  # type: ignore[arg-type]
    assert not Query().applies(object())  # type: ignore[arg-type]


def views_of(model: Classifier, labelled: LabelledRecords) -> Views:
    rows = np.arange(len(labelled)).reshape(2, -1)  # a half of each side to fit and the same to select
    fit, select = (labelled.take(np.sort(rows[:, at::2].ravel())) for at in (0, 1))
    binding = Binding(model, fit, select, 0, Silent(), longest=0)
    return Views({"target": model}, labelled.records, binding, Store(None))


@pytest.mark.parametrize(
    ("model", "records", "families"),
    [
        (of_images, image_records, ["flip", "shifts", "noisy", "blur"]),
        (of_texts, text_records, ["lower_case", "dropped_words"]),
        (of_rows, row_records, ["noisy"]),
    ],
)
def test_a_bank_passes_over_programs_for_other_inputs(
    model: Callable[[], Classifier], records: Callable[[], LabelledRecords], families: list[str]
) -> None:
    scored = run_attack(parse("probe_bank", "classifier"), views_of(model(), records()))
    assert scored.reason == ""
    assert scored.bank is not None
    assert [probe.spec for probe in scored.bank.probes if probe.spec != "identity"] == families


def snapshot(module: nn.Module) -> tuple[Any, ...]:
    """All that a caller could notice."""
    return (
        {name: one.clone() for name, one in module.state_dict().items()},
        [one.training for one in module.modules()],
        [(one.requires_grad, one.grad) for one in module.parameters()],
        torch.random.get_rng_state(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]
        torch.is_grad_enabled(),
    )


def same(first: tuple[Any, ...], second: tuple[Any, ...]) -> bool:
    weights = all(torch.equal(one, second[0][name]) for name, one in first[0].items())
    return weights and first[1:3] == second[1:3] and torch.equal(first[3], second[3]) and first[4:] == second[4:]


class Fault(SmallCnn):
    """Raises at the n-th batch."""

    left = 10**6

    def forward(self, pixels: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("an injected fault")
        return super().forward(pixels)


@pytest.fixture
def fault() -> Fault:
    module = Fault()
    module.load_state_dict(cnn().state_dict())
    module.body[1].eval()
    module.head.weight.requires_grad_(False)
    module.train(module.training)
    return module


@pytest.mark.parametrize("program", [Query(), Augmented(), Noisy(), Crops(), Votes("labels")])
def test_the_module_is_as_it_was(program: Query, fault: Fault) -> None:
    fault.body[1].eval()
    before = snapshot(fault)
    program.ask(of_images(fault), image_records().records)
    assert same(snapshot(fault), before)
    fault.left = 3
    with pytest.raises(TargetError, match="an injected fault"):
        program.ask(of_images(fault, batch=8), image_records().records)
    assert same(snapshot(fault), before)


def test_every_plan_is_named_once_and_has_a_key_of_its_own() -> None:
    fixed = {name: kind() for name, kind in PLANS.items() if issubclass(kind, Query)}
    assert len({one.key for one in fixed.values()}) == len(fixed)
    assert all(isinstance(one.identity, Query) for one in fixed.values())
    assert Shifts(2.0).key != Shifts(1.0).key
    with pytest.raises(NotImplementedError):
        ImageQuery().changed(pixels(1))


def test_records_are_left_alone() -> None:
    records = text_records().records
    before = copy.deepcopy(records)
    DroppedWords().ask(of_texts(), records)
    LowerCase().ask(of_texts(), records)
    assert records == before
    upper = tuple(Example(one.text.upper(), one.label) for one in records.contents if isinstance(one, Example))
    (low,) = LowerCase().ask(of_texts(), replace(records, contents=upper))
    (plain,) = Query().ask(of_texts(), records)
    np.testing.assert_array_equal(low.logprobs, plain.logprobs)
