"""Soft prompts of text classifiers: what is asked, how they are learned, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from classifier_models import SENTENCES, image_records, word_tokenizer
from repromia.attacks import choose, parse
from repromia.class_records import class_records_from_objects
from repromia.errors import AttackError
from repromia.metrics import auc
from repromia.programs import Binding, identity_of
from repromia.programs.class_prompt import ClassPrompt, prompted
from repromia.programs.learned_class_prompt import LearnedClassPrompt, _Side
from repromia.programs.learned_overlay import LearnedOverlay
from repromia.programs.overlay import Votes
from repromia.programs.saved import Learned, dump_program, load_program, parse_program, save_program
from repromia.progress import Silent
from repromia.records import LabelledRecords
from repromia.scoring import identity_scores, run_attack
from repromia.store import Store
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_options import ClassifierOptions
from repromia.targets.classifiers import wrap_classifier
from repromia.targets.defended import defended
from repromia.targets.prompted_texts import can_be_prompted, embeddings_of
from repromia.views import Views

TONES = ("good", "bad", "dull")
TEXTS = [f"{one} {' '.join(SENTENCES[(7 * at) % 60].split()[: at % 4])}".strip() for at, one in enumerate(SENTENCES)]
KINDS = ("bert", "distilbert", "roberta", "gpt2", "llama")
SIZE: dict[str, Any] = {"num_labels": 3, "pad_token_id": 0, "initializer_range": 0.4}


@cache
def network(kind: str) -> nn.Module:
    """A tiny model of this kind, random but for its size."""
    import transformers

    words, width = len(word_tokenizer()), {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(3)
    match kind:
        case "bert" | "roberta":
            name = {"bert": "Bert", "roberta": "Roberta"}[kind]
            config = getattr(transformers, f"{name}Config")(
                vocab_size=words, **width, intermediate_size=48, max_position_embeddings=28, **SIZE
            )
            model = getattr(transformers, f"{name}ForSequenceClassification")(config)
        case "distilbert":
            config = transformers.DistilBertConfig(
                vocab_size=words, dim=32, n_layers=2, n_heads=2, hidden_dim=48, max_position_embeddings=28, **SIZE
            )
            model = transformers.DistilBertForSequenceClassification(config)
        case "gpt2":
            config = transformers.GPT2Config(vocab_size=words, n_embd=32, n_layer=2, n_head=2, n_positions=28, **SIZE)
            model = transformers.GPT2ForSequenceClassification(config)
        case _:
            config = transformers.LlamaConfig(
                vocab_size=words, **width, intermediate_size=48, max_position_embeddings=28, **SIZE
            )
            model = transformers.LlamaForSequenceClassification(config)
    return model.eval().requires_grad_(False)


def records() -> LabelledRecords:
    label = [one.split()[0] for one in TEXTS]
    return class_records_from_objects((TEXTS[:30], label[:30]), (TEXTS[30:], label[30:]))


def target(kind: str = "bert", module: nn.Module | None = None, **options: Any) -> Classifier:
    given = ClassifierOptions(classes=TONES, **options)
    asked = module or network(kind)
    return wrap_classifier(asked, records=records().records, options=given, tokenizer=word_tokenizer(24))


def prompt_of(tokens: list[int], kind: str = "bert") -> np.ndarray:
    return embeddings_of(target(kind))[tokens].numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_of_words_is_those_words_behind_the_first(kind: str) -> None:
    """The same sequence asked as tokens, text by text; and no prompt is the text as it is."""
    model, told, tokenizer = target(kind), records().records, word_tokenizer(24)
    tokens = [5, 9, 2, 7]
    (found,) = ClassPrompt(prompt_of(tokens, kind)).ask(model, told)
    assert model.asked == len(told)
    for at, text in enumerate(told.contents):
        ids = tokenizer(getattr(text, "text", ""))["input_ids"]
        with torch.no_grad():
            logits = network(kind)(input_ids=torch.tensor([[ids[0], *tokens, *ids[1:]]])).logits
        np.testing.assert_allclose(found.logprobs[at], logits.log_softmax(1)[0].numpy(), rtol=1e-3, atol=1e-4)
    nothing = prompted(model, torch.zeros(0, 32)).signals([one.text for one in told.contents], found.label)  # type: ignore[union-attr]
    plain = model.signals([one.text for one in told.contents], found.label)  # type: ignore[union-attr]
    np.testing.assert_allclose(nothing.logprobs, plain.logprobs, rtol=1e-3, atol=1e-4)
    assert np.abs(found.logprobs - plain.logprobs).max() > 0.05


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_batches_company_and_order_do_not_matter(kind: str) -> None:
    told, program = records().records, ClassPrompt(prompt_of([4, 8], kind))
    (whole,) = program.ask(target(kind), told)
    (alone,) = program.ask(target(kind, batch=1), told)
    order = np.random.default_rng(0).permutation(len(told))
    (turned,) = program.ask(target(kind, batch=7), told.take(order))
    np.testing.assert_allclose(alone.logprobs, whole.logprobs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(turned.logprobs, whole.logprobs[order], rtol=1e-4, atol=1e-5)


def test_a_model_that_does_not_know_padding_is_asked_text_by_text() -> None:
    import copy

    module = copy.deepcopy(network("gpt2"))
    module.config.pad_token_id = None
    (found,) = ClassPrompt(prompt_of([4, 8], "gpt2")).ask(target(module=module), records().records)
    (known,) = ClassPrompt(prompt_of([4, 8], "gpt2")).ask(target("gpt2"), records().records)
    np.testing.assert_allclose(found.logprobs, known.logprobs, rtol=1e-4, atol=1e-5)


def test_texts_are_cut_to_what_the_prompt_leaves() -> None:
    long = class_records_from_objects((["good " * 60], ["good"]), (["bad film"], ["bad"])).records
    (found,) = ClassPrompt(prompt_of([3] * 10)).ask(target(), long)
    ids = word_tokenizer(24)("good " * 14)["input_ids"]
    with torch.no_grad():
        logits = network("bert")(input_ids=torch.tensor([[ids[0], *[3] * 10, *ids[1:]]])).logits
    np.testing.assert_allclose(found.logprobs[0], logits.log_softmax(1)[0].numpy(), rtol=1e-3, atol=1e-4)
    with pytest.raises(AttackError, match=r"too little room(.|\n)*at most 12 tokens(.|\n)*13"):
        ClassPrompt(prompt_of([3] * 13)).ask(target(), long)


def labelled() -> tuple[LabelledRecords, LabelledRecords, LabelledRecords]:
    """fit, select and eval of texts whose classes are drawn: only by heart can they be known."""
    generator = np.random.default_rng(2)
    words = sorted({word for one in SENTENCES for word in one.split()})
    texts = list(dict.fromkeys(" ".join(generator.choice(words, 5)) for _ in range(400)))[:360]
    label = generator.choice(TONES, 360).tolist()
    found = class_records_from_objects((texts[:180], label[:180]), (texts[180:], label[180:]))
    at = np.arange(360) % 3
    first, second, third = (found.take(np.flatnonzero(at == one)) for one in range(3))
    return first, second, third


@cache
@torch.enable_grad()
def leaky() -> nn.Module:
    """Trained on the members of all roles, which it comes to know a little by heart."""
    import copy

    module = copy.deepcopy(network("bert")).requires_grad_(True)
    contents = [one for part in labelled() for one in part.members().contents]
    given = word_tokenizer(24)([one.text for one in contents], padding=True, return_tensors="pt")  # type: ignore[union-attr]
    label = torch.tensor([TONES.index(one.label) for one in contents])  # type: ignore[union-attr]
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    for _ in range(25):
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(**given).logits, label).backward()
        optimiser.step()
    return module.eval().requires_grad_(False)


def binding(model: Classifier, seed: int = 0) -> Binding:
    fit, select, _ = labelled()
    return Binding(model, fit, select, seed, Silent(), longest=0)


def test_the_gradient_is_that_of_the_loss() -> None:
    """Against two-sided differences along drawn directions, in double precision."""
    import copy

    model = target(module=copy.deepcopy(leaky()).double())
    for recipe in ("contrast", "paper"):
        side = _Side(LearnedClassPrompt(recipe=recipe), model, labelled()[0].take(np.arange(0, 120, 3)))
        prompt = torch.from_numpy(prompt_of([4, 8])).double().requires_grad_()

        def loss(value: torch.Tensor, side: _Side = side) -> float:
            scores = side.scores(value.detach())
            inside, outside = scores[side.member], scores[~side.member]
            return float(np.log1p(np.exp((outside[None] - inside[:, None]) / side.plain.std())).mean())

        gradient = side.gradient(prompt)
        for seed in range(3):
            way = torch.randn(prompt.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            slope = (loss(prompt + 1e-3 * way) - loss(prompt - 1e-3 * way)) / 2e-3
            assert slope == pytest.approx(float((gradient * way).sum()), rel=0.01, abs=2e-4)
    assert model.module is not None
    assert all(one.grad is None for one in model.module.parameters())


def test_what_is_best_on_select_is_kept_and_learned_again_alike() -> None:
    model = target(module=leaky())
    program = LearnedClassPrompt(steps=6).bind(binding(model))
    areas = [one["select_auc"] for one in program.details["trace"]]
    assert program.details["select_auc"] == max(areas)
    assert program.is_identity == (max(areas) == areas[0])
    assert program.details["queries"] == program.details["trace"][-1]["answers"] == model.asked
    fit, select, _ = labelled()
    assert program.used == {*fit.records.ids, *select.records.ids}
    assert LearnedClassPrompt(steps=6).bind(binding(target(module=leaky()))).key == program.key
    if not program.is_identity:
        asked = target(module=leaky())
        (plain,), (probed,) = Votes().ask(asked, select.records), program.ask(asked, select.records)
        assert auc(2 * plain.scaled_logit - probed.scaled_logit, select.member) == pytest.approx(max(areas))


def test_it_learns_what_lies_in_the_prompt() -> None:
    """The loss on fit falls: a prompt that nothing had been learned of would leave it where it was."""
    model, (fit, _, _) = target(module=leaky()), labelled()
    side = _Side(LearnedClassPrompt(), model, fit)
    prompt = torch.from_numpy(prompt_of([4, 8, 3, 6])).requires_grad_()
    optimiser = torch.optim.Adam([prompt], lr=0.1)
    before = auc(side.scores(prompt.detach()), fit.member)
    for _ in range(15):
        prompt.grad = side.gradient(prompt)
        optimiser.step()
    assert auc(side.scores(prompt.detach()), fit.member) > before + 0.03


def test_the_budget_of_answers_is_kept() -> None:
    fit, select, _ = labelled()
    plain = len(fit) + len(select)
    program = LearnedClassPrompt(budget=plain + 2 * len(fit) + len(select)).bind(binding(target(module=leaky())))
    assert len(program.details["trace"]) == 2
    assert program.details["queries"] <= plain + 2 * len(fit) + len(select)
    with pytest.raises(AttackError, match=f"budget={plain} at least"):
        LearnedClassPrompt(budget=plain - 1).bind(binding(target(module=leaky())))


def test_the_attack_is_the_contrast_to_the_prompt(tmp_path: Path) -> None:
    _, _, measured = labelled()
    model = target(module=leaky())
    views = Views({"target": model}, measured.records, binding(model), Store(tmp_path))
    program = ClassPrompt(prompt_of([4, 8]))
    save_program(program, tmp_path / "mine.safetensors")
    for recipe, signs in (("contrast", (2, -1)), ("paper", (0, 1))):
        chosen = parse(f"reprogram:recipe={recipe}:program={tmp_path / 'mine.safetensors'}", "classifier")
        scored = run_attack(chosen, views)
        assert scored.reason == ""
        (plain,), (probed,) = Votes().ask(model, measured.records), program.ask(model, measured.records)
        expected = signs[0] * plain.scaled_logit + signs[1] * probed.scaled_logit
        np.testing.assert_allclose(scored.scores, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(identity_scores(chosen, views), plain.scaled_logit, rtol=1e-5, atol=1e-5)
    learned = run_attack(parse("reprogram:steps=2:length=3", "classifier"), views)
    assert learned.reason == ""
    assert learned.details["probed"]["length"] == 3
    assert "reprogram" in {one.name for one in choose(("default",), reference=False, modality="classifier")}


def test_programs_are_read_back_as_they_were(tmp_path: Path) -> None:
    program = ClassPrompt(prompt_of([4, 8]), {"recipe": "contrast", "steps": [1]}, frozenset({"a"}), frozenset({"b"}))
    assert isinstance(program, Learned)
    save_program(program, tmp_path / "programs" / "one.safetensors")
    for again in (
        load_program(tmp_path / "programs" / "one.safetensors", ClassPrompt),
        parse_program(dump_program(program)),
    ):
        assert again.key == program.key
        assert (again.learned, again.used, again.seen) == (program.learned, program.used, program.seen)
    nothing = ClassPrompt(np.zeros((0, 32), dtype=np.float32))
    assert nothing.is_identity
    assert parse_program(dump_program(nothing)).is_identity
    (same,), (plain,) = (one.ask(target(), records().records) for one in (nothing, identity_of(nothing)))
    np.testing.assert_array_equal(same.logprobs, plain.logprobs)
    save_file({"embeddings": np.full((2, 3), np.nan, dtype=np.float32)}, tmp_path / "bad.safetensors")
    (tmp_path / "bad.json").write_text((tmp_path / "programs" / "one.json").read_text())
    for name in ("bad", "missing"):
        with pytest.raises(AttackError, match="cannot be read"):
            load_program(tmp_path / f"{name}.safetensors", ClassPrompt)


class Embedded(nn.Module):
    """Of token ids alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.EmbeddingBag(len(word_tokenizer()), 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, token_type_ids: Any = None) -> torch.Tensor:
        found: torch.Tensor = self.inner(input_ids)
        return found


def test_what_a_model_cannot_do_is_said(tmp_path: Path) -> None:
    images, texts = image_records(), records()
    by_function = wrap_classifier(
        lambda given: np.zeros((len(given), 3)),
        records=texts.records,
        options=ClassifierOptions(answer="logits", classes=TONES),
    )
    for model in (by_function, defended(target(), ["temperature:t=2"])):
        assert not can_be_prompted(model)
        assert not LearnedOverlay().applies(model)
        with pytest.raises(AttackError, match="that a module of tokens is given"):
            LearnedOverlay().bind(replace(binding(target()), target=model))
    assert LearnedOverlay().applies(target())
    alone = target(module=Embedded())
    with pytest.raises(AttackError, match=r"takes no embeddings in place of tokens(.|\n)*Embedded"):
        LearnedOverlay().bind(replace(binding(target()), target=alone))
    scored = run_attack(
        parse("reprogram", "classifier"),
        Views({"target": alone}, texts.records, replace(binding(target()), target=alone), Store(tmp_path)),
    )
    assert "takes no embeddings" in scored.reason
    for wrong in ({"where": "border"}, {"answers": "labels"}, {"optimiser": "spsa"}, {"per_label": True}):
        with pytest.raises(AttackError, match="one soft prompt is learned by gradients"):
            LearnedOverlay(**wrong).bind(binding(target()))
    with pytest.raises(AttackError, match="length is at least 1"):
        LearnedOverlay(length=0).bind(binding(target()))
    with pytest.raises(AttackError, match="no recipe 'mine'"):
        LearnedClassPrompt(recipe="mine").bind(binding(target()))
    with pytest.raises(AttackError, match=r"another width(.|\n)*width 32(.|\n)*width 7"):
        ClassPrompt(np.zeros((2, 7), dtype=np.float32)).ask(target(), texts.records)
    with pytest.raises(AttackError, match=r"noised images(.|\n)*texts"):
        Votes("labels").ask(target(), texts.records)
    assert len(images) == 40
