"""Every defence of the registry in front of every kind of target that can carry it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import repromia
from classifier_models import cnn, forest, image_records, mlp, row_records, text_records
from diffusion_models import ddpm, wrapped
from graph_models import labelled as node_records
from graph_models import target as graph_target
from repromia.defences import DEFENCES, parse_defence
from repromia.errors import ConfigError, TargetError
from repromia.records import Records
from repromia.signals import ClassSignals, TokenSignals
from repromia.targets.classifier import Classifier
from repromia.targets.defended import defences_of, noisy_copies
from repromia.targets.language import LanguageModel
from repromia.targets.nodes import Nodes
from small import small_models

NOTHING = {  # options with which a defence changes nothing
    "noise": "noise:scale=0",
    "rounding": "rounding:digits=15",
    "top_k": "top_k:k=100000",
    "temperature": "temperature:t=1",
    "smoothing": "smoothing:spread=0:copies=2",
}
SOME = {name: name for name in DEFENCES if name != "label_only"}


def images() -> tuple[Classifier, Records]:
    records = image_records()
    return repromia.classifier(cnn(), records), records.records


def rows() -> tuple[Classifier, Records]:
    records = row_records()
    return repromia.classifier(forest(), records), records.records


def nodes() -> tuple[Classifier, Records]:
    records = node_records(40).records
    return graph_target(), records


CLASSIFIERS: dict[str, Callable[[], tuple[Classifier, Records]]] = {"images": images, "rows": rows, "nodes": nodes}


def answers(target: Classifier, records: Records) -> ClassSignals:
    batch = target.encode(records.contents, records.ids)
    return target.signals(batch.inputs, batch.label)


def texts(count: int = 30) -> tuple[LanguageModel, list[str]]:
    models = small_models()
    return replace(models.leaky, asked=0), models.members[:count]


def tokens(target: LanguageModel, given: list[str]) -> TokenSignals:
    return target.signals(target.encode(given))


def noise_of(target: Any, times: int = 300) -> Tensor:
    x = torch.randn(4, *target.denoiser.shape, generator=torch.Generator().manual_seed(5))
    return target.noise(x, torch.full((4,), times), {})


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("name", NOTHING)
def test_classifiers_answer_as_before_behind_a_defence_that_does_nothing(kind: str, name: str) -> None:
    target, records = CLASSIFIERS[kind]()
    before, after = (answers(one, records) for one in (target, repromia.defended(target, NOTHING[name])))
    np.testing.assert_allclose(np.exp(after.logprobs), np.exp(before.logprobs), atol=2e-6)
    assert np.array_equal(after.predicted, before.predicted)


def test_language_models_answer_as_before_behind_defences_that_do_nothing() -> None:
    target, given = texts()
    before = tokens(target, given)
    for name, defence in NOTHING.items():
        if "language" in DEFENCES[name].modalities:
            after = tokens(repromia.defended(target, defence), given)
            np.testing.assert_allclose(after.logprob, before.logprob, atol=1e-5, err_msg=name)
            if name in ("temperature", "top_k"):
                np.testing.assert_allclose(after.mean, before.mean, atol=1e-4, err_msg=name)


def test_denoisers_answer_as_before_behind_defences_that_do_nothing() -> None:
    target = wrapped(ddpm())
    before = noise_of(target)
    for name in ("noise", "rounding", "smoothing"):
        assert torch.allclose(noise_of(repromia.defended(target, NOTHING[name])), before, atol=1e-5), name


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("name", DEFENCES)
def test_no_answer_of_a_classifier_depends_on_batch_mates_or_order(kind: str, name: str) -> None:
    target, records = CLASSIFIERS[kind]()
    spec = "rounding:digits=1" if name == "rounding" else name  # the forest's own grid is .05
    together = answers(repromia.defended(target, spec), records)
    alone = repromia.defended(target, spec)
    alone.batch = 3
    backwards = answers(alone, records.take(range(len(records) - 1, -1, -1))).take(range(len(records) - 1, -1, -1))
    assert np.array_equal(backwards.predicted, together.predicted)
    if name == "label_only":
        assert not together.told
        return
    atol = 0.11 if name == "rounding" else 1e-5  # a probability on the edge may be rounded either way
    np.testing.assert_allclose(np.exp(backwards.logprobs), np.exp(together.logprobs), atol=atol)
    assert not np.allclose(together.logprobs, answers(target, records).logprobs, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in DEFENCES if "language" in DEFENCES[name].modalities])
def test_no_answer_of_a_language_model_depends_on_batch_mates_or_order(name: str) -> None:
    target, given = texts()
    target = repromia.defended(target, name)
    together = tokens(target, given)
    small = replace(target, batch_tokens=64)
    apart = tokens(small, given[::-1]).take(range(len(given) - 1, -1, -1))
    difference = np.abs(apart.logprob - together.logprob)
    assert difference.mean() < 1e-3
    assert difference.max() < 0.1  # rounding steps are .01, the noise's standard deviation .5
    assert np.abs(tokens(texts()[0], given).logprob - together.logprob).mean() > 2e-3


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def kept(odds: np.ndarray, k: int) -> np.ndarray:
    found = odds.copy()
    for row in found:
        low = row.argsort()[:-k]
        row[low] = row[low].mean()
    return found


def rounded(odds: np.ndarray) -> np.ndarray:
    found = odds.round(2)
    return found / found.sum(1, keepdims=True)


ORACLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "temperature:t=3": lambda odds: softmax(np.log(odds) / 3),
    "top_k:k=2": lambda odds: kept(odds, 2),
    "rounding:digits=2": rounded,
}


@pytest.mark.parametrize("defence", ORACLES)
def test_classes_against_a_naive_oracle(defence: str) -> None:
    target, records = images()
    odds = softmax(answers(target, records).logprobs.astype(np.float64))
    found = answers(repromia.defended(target, defence), records)
    np.testing.assert_allclose(np.exp(found.logprobs), ORACLES[defence](odds), atol=1e-5)
    assert found.logprobs.min() > -104


@pytest.mark.parametrize("defence", ["temperature:t=3", "top_k:k=2"])
def test_token_distributions_against_a_naive_oracle(defence: str) -> None:
    target, given = texts(1)
    (sequence,) = target.encode(given)
    with torch.no_grad(), target.asking():
        logits = target.model(input_ids=torch.from_numpy(sequence.ids)[None]).logits[0].double().numpy()
    at = np.flatnonzero(sequence.scored)
    odds = ORACLES[defence](softmax(logits[at - 1]))
    found = tokens(repromia.defended(target, defence), given)
    np.testing.assert_allclose(found.logprob, np.log(odds[np.arange(len(at)), sequence.ids[at]]), atol=1e-4)
    np.testing.assert_allclose(found.mean, (odds * np.log(odds)).sum(1), atol=1e-3)


def test_rounded_tokens_lie_on_the_grid_and_nothing_else_is_told() -> None:
    target, given = texts()
    found = tokens(repromia.defended(target, "rounding:digits=1"), given)
    np.testing.assert_allclose(found.logprob, tokens(target, given).logprob.astype(np.float64).round(1), atol=1e-5)
    assert not found.told
    assert np.isnan(found.top_logprob).all()


def test_labels_are_the_first_choices_and_labels_alone_are_audited() -> None:
    target, records = rows()
    found = answers(repromia.defended(target, "temperature:t=2", "label_only"), records)
    assert np.array_equal(found.predicted, answers(target, records).predicted)
    assert np.isnan(found.logprobs).all()
    numbered = image_records()
    named = repromia.classifier(cnn(), numbered, classes=tuple("9876543210"))  # classes in another order
    plain, behind = (answers(one, numbered.records) for one in (named, repromia.defended(named, "label_only")))
    assert np.array_equal(behind.predicted, plain.predicted)


@pytest.mark.parametrize(
    ("twice", "once"),
    [
        (("top_k:k=3", "top_k:k=3"), ("top_k:k=3",)),
        (("temperature:t=2", "temperature:t=1.5"), ("temperature:t=3",)),
        (("rounding:digits=4", "rounding:digits=4"), ("rounding:digits=4",)),
    ],
)
def test_defences_in_a_row(twice: tuple[str, ...], once: tuple[str, ...]) -> None:
    target, records = images()
    first, second = (answers(repromia.defended(target, *one), records) for one in (twice, once))
    np.testing.assert_allclose(np.exp(first.logprobs), np.exp(second.logprobs), atol=2e-4)


def test_smoothing_is_the_mean_probability_over_noisy_copies() -> None:
    target, records = images()
    defence = parse_defence("smoothing:spread=0.2:copies=3")
    batch = target.encode(records.contents)
    copies = noisy_copies(batch.inputs, defence)  # type: ignore[arg-type]
    odds = np.mean([np.exp(target.signals(one, batch.label).logprobs) for one in copies], axis=0)
    behind = repromia.defended(target, "smoothing:spread=0.2:copies=3")
    np.testing.assert_allclose(np.exp(answers(behind, records).logprobs), odds, atol=1e-5)
    assert behind.asked == 3 * len(records)
    assert behind.describe()["passes_an_answer"] == 3
    assert isinstance(copies[0], Tensor)
    assert (float(copies[0].min()), float(copies[0].max())) == (0, 1)


def test_noise_is_gaussian_independent_between_records_and_models_and_the_same_again() -> None:
    target, records = nodes()
    clean = answers(target, records).logprobs.astype(np.float64)

    def drawn(model: Classifier, seed: int = 0) -> np.ndarray:
        found = answers(repromia.defended(model, f"noise:scale=0.5:seed={seed}"), records).logprobs
        return found - clean  # but for what normalises each row

    first = drawn(target)
    centred = first - first.mean(1, keepdims=True)
    assert abs(centred.std() / np.sqrt(0.9) - 0.5) < 0.08  # 400 numbers: four standard errors are .07
    assert np.array_equal(first, drawn(target))
    assert not np.allclose(first, drawn(target, 1), atol=0.1)
    assert len({row.tobytes() for row in first}) == len(records)
    assert target.module is not None
    other = target.with_module(nudged(target.module), "other")
    assert np.abs(answers(other, records).logprobs - clean).max() < 1e-3
    assert np.abs(np.corrcoef(first.ravel(), drawn(other).ravel())[0, 1]) < 0.25  # 400 numbers: five standard errors


def nudged(module: torch.nn.Module) -> torch.nn.Module:
    import copy

    found = copy.deepcopy(module)
    with torch.no_grad():
        next(found.parameters()).add_(1e-7)
    return found


def test_noise_on_tokens_is_gaussian_and_another_question_gets_other_noise() -> None:
    target, given = texts(60)
    behind = repromia.defended(target, "noise:scale=0.3")
    clean, noisy = tokens(target, given), tokens(behind, given)
    far = clean.logprob < -2.5  # nothing there reaches 0, where log-probabilities are cut
    noise = (noisy.logprob - clean.logprob)[far]
    assert far.sum() > 300
    assert abs(noise.mean()) < 0.07
    assert abs(noise.std() - 0.3) < 0.04
    assert (noisy.logprob <= 0).all()
    shorter = [" ".join(one.split()[:-1]) for one in given]  # the same tokens before, but another record
    again = tokens(behind, shorter).logprob[:5] - tokens(target, shorter).logprob[:5]
    assert not np.allclose(again, (noisy.logprob - clean.logprob)[:5], atol=0.01)


def test_noise_drawn_anew_differs_and_is_declared_random() -> None:
    target, records = images()
    behind = repromia.defended(target, "noise:random=true")
    assert behind.random
    assert not np.allclose(answers(behind, records).logprobs, answers(behind, records).logprobs, atol=0.1)


def test_a_denoisers_noise_and_grid() -> None:
    target = wrapped(ddpm())
    clean = noise_of(target)
    noise = noise_of(repromia.defended(target, "noise:scale=0.2")) - clean
    assert abs(float(noise.std()) - 0.2) < 0.02
    on_grid = noise_of(repromia.defended(target, "rounding:digits=1"))
    assert torch.allclose(on_grid, clean.round(decimals=1), atol=1e-6)
    smooth = repromia.defended(target, "smoothing:copies=3:spread=0.3")
    assert (noise_of(smooth) - clean).abs().mean() > 1e-3
    assert smooth.asked == 12
    assert smooth.describe()["defences"] == ["smoothing:spread=0.3:copies=3:seed=0"]


@pytest.mark.parametrize("name", SOME)
def test_gradients_lead_through_every_defence_that_tells_probabilities(name: str) -> None:
    target, records = images()
    behind = repromia.defended(target, name)
    batch = behind.encode(records.contents)
    assert behind.differentiable
    assert isinstance(batch.inputs, Tensor)
    asked = batch.inputs.clone().requires_grad_()
    with behind.asking(), torch.enable_grad():
        own = behind.logits(asked).log_softmax(1)[torch.arange(len(batch.label)), torch.from_numpy(batch.label)]
        (gradient,) = torch.autograd.grad(own.sum(), asked)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    assert not repromia.defended(target, "label_only").differentiable


@pytest.mark.parametrize("name", ["temperature", "noise", "rounding", "top_k"])
def test_what_a_prompt_is_learned_from_is_what_is_told(name: str) -> None:
    target, given = texts(8)
    behind = repromia.defended(target, name)
    told, sequences = tokens(behind, given), behind.encode(given)
    prompt = behind.embed(torch.tensor([5, 6, 7])).detach().requires_grad_()
    with torch.no_grad():
        for picked, found in behind.record_logprobs(sequences, None):
            for row, one in zip(picked, found, strict=True):
                np.testing.assert_allclose(one.numpy(), told.take([row]).logprob, atol=0.05)
    total = sum(one.sum() for _, found in behind.record_logprobs(sequences, behind.key_values(prompt)) for one in found)
    (gradient,) = torch.autograd.grad(total, prompt)  # type: ignore[arg-type]
    assert gradient.abs().sum() > 0


def test_another_defence_is_another_target_and_the_first_is_left_as_it_was() -> None:
    for target, _ in (images(), nodes(), (texts()[0], None), (wrapped(ddpm()), None)):
        before = target.fingerprint
        specs = ("noise", "noise:seed=1", "rounding", "rounding:digits=3")
        prints = [repromia.defended(target, one).fingerprint for one in specs]
        both = repromia.defended(repromia.defended(target, "rounding:digits=3"), "noise")
        assert len({before, both.fingerprint, *prints}) == 6
        assert defences_of(both) == ("rounding:digits=3", "noise:scale=0.5:seed=0:random=False")
        together = repromia.defended(target, "rounding:digits=3", "noise")
        assert both.fingerprint == together.fingerprint
        assert target.fingerprint == before
        assert defences_of(target) == ()
        assert repromia.defended(target) is target
        both.refresh()
        assert both.fingerprint == together.fingerprint


def test_a_live_model_that_was_trained_on_is_another_target_behind_its_defence() -> None:
    import copy

    records = row_records()
    module = copy.deepcopy(mlp())
    behind = repromia.defended(repromia.classifier(module, records), "rounding")
    before = behind.fingerprint
    with torch.no_grad():
        next(module.parameters()).add_(0.1)
    behind.refresh()
    assert behind.fingerprint != before


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (("label_onyl",), "did you mean 'label_only'"),
        (("rounding:digit=2",), "digits=2"),
        (("rounding:digits=two",), "rounding:digits"),
        (("temperature:t=0",), "t above 0"),
        (("label_only", "temperature"), "label_only last"),
    ],
)
def test_what_cannot_be_meant_is_refused(specs: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        repromia.defended(images()[0], *specs)


def test_what_a_model_cannot_carry_is_refused() -> None:
    language, diffusion = texts()[0], wrapped(ddpm())
    for target, name in ((language, "label_only"), (language, "smoothing"), (diffusion, "temperature")):
        with pytest.raises(ConfigError, match=f"cannot carry the defence '{name}'"):
            repromia.defended(target, name)
    with pytest.raises(ConfigError, match="temperature and top_k first"):
        repromia.defended(language, "rounding", "temperature")
    for target in (language, diffusion):
        with pytest.raises(ConfigError, match="classifiers only"):
            repromia.defended(target, "noise:random=true")
    with pytest.raises(ConfigError, match="model in memory"):
        repromia.defended(object(), "noise")
    words = repromia.classifier(len, text_records(), answer="probabilities", classes=("good", "bad", "dull"))
    with pytest.raises(ConfigError, match="Texts cannot be smoothed"):
        repromia.defended(words, "smoothing")
    labels = repromia.classifier(forest().predict, row_records(), answer="label", classes=tuple("0123456789"))
    with pytest.raises(ConfigError, match="predicted class alone"):
        repromia.defended(labels, "rounding")


def test_what_is_wrong_with_a_model_shows_through_a_defence() -> None:
    records = row_records()
    broken = repromia.classifier(lambda x: np.full((len(x), 10), 0.5), records, answer="probabilities")
    behind = repromia.defended(broken, "temperature")
    with pytest.raises(TargetError, match="was said to answer with probabilities"):
        answers(behind, records.records)


def test_shadow_models_stand_behind_the_targets_defences() -> None:
    records = image_records()
    target = repromia.defended(repromia.classifier(cnn(), records), "temperature:t=4")
    shadows = repromia.shadow_models(lambda some, seed: cnn(), target, records, count=2)
    plain = repromia.shadow_models(lambda some, seed: cnn(), repromia.classifier(cnn(), records), records, count=2)
    assert defences_of(shadows.wrap(cnn())) == ("temperature:t=4.0",)  # type: ignore[attr-defined]
    assert shadows.key != plain.key
    with pytest.raises(ConfigError, match="label_only tells none"):
        repromia.shadow_models(lambda some, seed: cnn(), repromia.defended(target, "label_only"), records)


def test_copies_of_the_weights_stand_behind_the_same_defences() -> None:
    target, records = images()
    behind = repromia.defended(target, "temperature:t=3", "rounding:digits=3")
    assert behind.module is not None
    copied = behind.with_module(nudged(behind.module), "copy")
    assert defences_of(copied) == defences_of(behind)
    assert copied.fingerprint != behind.fingerprint
    np.testing.assert_allclose(
        np.exp(answers(copied, records).logprobs), np.exp(answers(behind, records).logprobs), atol=2e-3
    )


def test_nodes_with_neighbourhoods_of_their_own_are_smoothed_alike() -> None:
    target, records = nodes()
    inputs = target.encode(records.contents).inputs
    assert isinstance(inputs, Nodes)
    defence = parse_defence("smoothing:copies=2")
    whole, part = (noisy_copies(one, defence) for one in (inputs, inputs[:3]))  # type: ignore[arg-type]
    assert isinstance(whole[0], Nodes)
    assert isinstance(part[0], Nodes)
    assert torch.equal(whole[0].graphs[0].features, part[0].graphs[0].features)
    assert not torch.equal(whole[0].graphs[0].features, whole[1].graphs[0].features)
