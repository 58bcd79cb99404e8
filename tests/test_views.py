"""Views are asked once; stored ones are used again, and anything that decides the answers makes them miss."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from repromia import parts as parts_module
from repromia import views as views_module
from repromia.attacks import parse
from repromia.programs import Binding, Identity, Program
from repromia.programs.edits import LowerCase, WordSwaps
from repromia.programs.saved import save_program
from repromia.programs.soft_prompt import SoftPrompt
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records
from repromia.scoring import run_attack
from repromia.signals import TOKEN_FIELDS, TokenSignals, size_of
from repromia.store import Store
from repromia.targets.language import LanguageModel
from repromia.targets.load import LoadOptions, wrap_language_model
from repromia.views import Views
from small import SmallModels


def labelled(members: list[str], nonmembers: list[str]) -> LabelledRecords:
    texts = (*members, *nonmembers)
    ids = tuple(f"id {text[:40]}" for text in texts)
    return LabelledRecords(Records(ids, texts, ids), np.arange(len(texts)) < len(members))


@pytest.fixture(scope="module")
def records(models: SmallModels) -> Records:
    return labelled(models.members[:5], models.nonmembers[:5]).records


def fresh(target: LanguageModel, **changes: Any) -> LanguageModel:
    """The same model as a new process would load it."""
    return replace(target, asked=0, _fingerprint="", **changes)


def make(models: SmallModels, target: LanguageModel, records: Records, folder: Path | None) -> Views:
    fit = labelled(models.members[20:30], models.nonmembers[20:30])
    select = labelled(models.members[30:40], models.nonmembers[30:40])
    return Views({"target": target}, records, Binding(target, fit, select, 0, Silent(), 128), Store(folder))


def equal(left: TokenSignals, right: TokenSignals) -> bool:
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in ("offsets", *TOKEN_FIELDS))


@pytest.mark.parametrize(
    "spec", ["loss", "lowercase", "pac:copies=2", "recall", "con_recall:shots=2", "reprogram:length=4:steps=1"]
)
def test_second_run_asks_nothing_and_scores_the_same(
    spec: str, models: SmallModels, records: Records, tmp_path: Path
) -> None:
    first, second = fresh(models.leaky), fresh(models.leaky)
    once = run_attack(parse(spec), make(models, first, records, tmp_path))
    views = make(models, second, records, tmp_path)
    again = run_attack(parse(spec), views)
    assert again.seconds > views.store.spent > 0  # what it took the first time counts
    assert views.store.spent > sum(one.seconds for one in views.costs) - 0.01
    assert once.scores is not None, once.reason
    assert again.scores is not None, again.reason
    assert first.asked > 0
    assert second.asked == 0
    assert once.scores.tolist() == again.scores.tolist()
    assert once.used == again.used


def other_weight(target: LanguageModel) -> LanguageModel:
    model = copy.deepcopy(target.model)
    with torch.no_grad():
        next(iter(model.parameters()))[3, 5] += 1e-4
    return fresh(target, model=model)


def other_dtype(target: LanguageModel) -> LanguageModel:
    return fresh(target, model=copy.deepcopy(target.model).to(torch.bfloat16))


def other_template(target: LanguageModel) -> LanguageModel:
    tokenizer = copy.deepcopy(target.tokenizer)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    return fresh(target, encoder=replace(target.encoder, tokenizer=tokenizer))


def other_vocabulary(target: LanguageModel) -> LanguageModel:
    tokenizer = copy.deepcopy(target.tokenizer)
    tokenizer.add_tokens(["qqzzqq"])
    return fresh(target, encoder=replace(target.encoder, tokenizer=tokenizer))


def other_policy(**policy: Any) -> Callable[[LanguageModel], LanguageModel]:
    return lambda target: fresh(target, encoder=replace(target.encoder, **policy))


@pytest.mark.parametrize(
    "change",
    [
        other_weight,
        other_dtype,
        other_template,
        other_vocabulary,
        other_policy(limit=64),
        other_policy(loss_on="all"),
        other_policy(score_end=True),
    ],
)
def test_another_model_tokenizer_or_policy_misses(
    change: Callable[[LanguageModel], LanguageModel], models: SmallModels, records: Records, tmp_path: Path
) -> None:
    target, same = fresh(models.leaky), fresh(models.leaky)
    make(models, target, records, tmp_path).ask("target", Identity())
    make(models, same, records, tmp_path).ask("target", Identity())
    assert same.asked == 0
    changed = change(target)
    assert changed.fingerprint != target.fingerprint
    make(models, changed, records, tmp_path).ask("target", Identity())
    assert changed.asked > 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Identity(), LowerCase()),
        (WordSwaps(copies=1), WordSwaps(copies=2)),
        (WordSwaps(copies=2), WordSwaps(copies=1)),
        (WordSwaps(copies=1), WordSwaps(copies=1, share=0.5)),
        (SoftPrompt(np.zeros((1, 64), np.float32), {}), SoftPrompt(np.ones((1, 64), np.float32), {})),
    ],
)
def test_another_program_misses(
    before: Program, after: Program, models: SmallModels, records: Records, tmp_path: Path
) -> None:
    make(models, fresh(models.leaky), records, tmp_path).ask("target", before)
    target = fresh(models.leaky)
    make(models, target, records, tmp_path).ask("target", after)
    assert target.asked > 0


def test_another_record_misses(models: SmallModels, records: Records, tmp_path: Path) -> None:
    make(models, fresh(models.leaky), records, tmp_path).ask("target", Identity())
    edited = replace(records, contents=(*records.contents[:-1], "Another text altogether."))
    for other in (edited, records.take(range(9)), records.take([1, 0, *range(2, 10)])):
        target = fresh(models.leaky)
        views = make(models, target, other, tmp_path)
        assert len(views.ask("target", Identity())[0]) == len(other)
        assert target.asked > 0


def test_other_code_misses(
    models: SmallModels, records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = parse("reprogram:length=4:steps=1")
    run_attack(chosen, make(models, fresh(models.leaky), records, tmp_path))
    for module in (views_module, parts_module):
        monkeypatch.setattr(module, "code_digest", lambda: "another version")
    target = fresh(models.leaky)
    views = make(models, target, records, tmp_path)
    views.ask("target", Identity())
    asked = target.asked
    assert asked > 0
    views.program("learned_soft_prompt", chosen.options)
    assert target.asked > 2 * asked  # learned again


@pytest.mark.parametrize("change", ["labels", "options", "seed"])
def test_a_program_is_learned_again_from_other_labels_options_or_seed(
    change: str, models: SmallModels, records: Records, tmp_path: Path
) -> None:
    options = parse("reprogram:length=4:steps=1").options
    make(models, fresh(models.leaky), records, tmp_path).program("learned_soft_prompt", options)
    target = fresh(models.leaky)
    views = make(models, target, records, tmp_path)
    if change == "labels":
        fit = views.binding.fit
        views.binding = replace(views.binding, fit=LabelledRecords(fit.records, ~fit.member))
    elif change == "seed":
        views.binding = replace(views.binding, seed=1)
    else:
        options = options | {"length": 5}
    views.program("learned_soft_prompt", options)
    assert target.asked > 0


def test_a_changed_program_file_is_read_again(models: SmallModels, records: Records, tmp_path: Path) -> None:
    path = tmp_path / "prompt.safetensors"
    scores = []
    for value in (0.0, 1.0):
        save_program(SoftPrompt(np.full((2, 64), value, np.float32), {}), path)
        views = make(models, fresh(models.leaky), records, tmp_path / "run")
        scores.append(run_attack(parse(f"reprogram:program={path}"), views).scores)
    assert scores[0] is not None
    assert scores[1] is not None
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


def test_a_killed_run_goes_on_at_the_part_it_lost(
    models: SmallModels, records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "PART_RECORDS", 4)
    target = fresh(models.leaky, batch_tokens=1)  # one record a batch: no padding to count
    whole = make(models, target, records, tmp_path).ask("target", Identity())[0]
    parts = sorted((tmp_path / "parts").glob("*.safetensors"))
    assert len(parts) == 3
    damaged = parts[0].read_bytes()
    parts[0].write_bytes(damaged[: len(damaged) // 2])
    again = fresh(models.leaky, batch_tokens=1)
    assert equal(make(models, again, records, tmp_path).ask("target", Identity())[0], whole)
    assert 0 < again.asked < target.asked


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft asks transformers
def test_adapter_on_and_off_are_asked_and_stored_apart(models: SmallModels, records: Records, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    tuned = get_peft_model(copy.deepcopy(models.base.model), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    target = wrap_language_model(tuned, models.base.tokenizer, options=LoadOptions(max_tokens=128), name="tuned")
    assert target.fingerprint != target.base().fingerprint
    signals = {}
    for _ in range(2):  # the second time both come from disk
        views = make(models, fresh(target), records, tmp_path)
        views.targets["reference"] = fresh(target.base())
        for of in ("target", "reference"):
            signals[of] = views.ask(of, Identity())[0]
    assert views.targets["target"].asked == views.targets["reference"].asked == 0
    assert np.abs(signals["target"].logprob - signals["reference"].logprob).max() > 0.1
    plain = models.base.signals(models.base.encode(records.contents))
    np.testing.assert_allclose(signals["reference"].logprob, plain.logprob, atol=1e-5)


def test_views_that_share_memory_ask_once_even_in_another_role(models: SmallModels, records: Records) -> None:
    base = fresh(models.base)
    views = make(models, fresh(models.leaky), records, None)
    views.targets["reference"] = base
    (first,) = views.ask("reference", Identity())
    asked = base.asked
    assert asked > 0
    null = make(models, base, records, None)
    null.memory = views.memory
    (second,) = null.ask("target", Identity())
    (some,) = null.ask("target", Identity(), np.array([3, 1]))
    assert base.asked == asked
    assert second is first
    assert equal(some, first.take([3, 1]))


@pytest.mark.parametrize("stored", [True, False])
def test_what_does_not_fit_into_memory_is_read_back(
    models: SmallModels, records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    target = fresh(models.leaky)
    views = make(models, target, records, tmp_path if stored else None)
    first, second = views.ask("target", Identity()), views.ask("target", WordSwaps(copies=2))
    size = sum(map(size_of, second))
    assert size_of(first[0]) == sum(array.nbytes for array in vars(first[0]).values())
    asked, costs = target.asked, views.cost_table()
    monkeypatch.setattr(views_module, "KEPT_BYTES", size)
    for _ in range(2):
        for program, known in ((Identity(), first), (WordSwaps(copies=2), second)):
            again = views.ask("target", program)
            assert all(map(equal, again, known))
            held = sum(size_of(one) for kept in views.memory.values() for one in kept)
            assert held <= size if stored else held == size + size_of(first[0])
    (some,) = views.ask("target", Identity(), np.array([3, 1]))
    assert equal(some, first[0].take([3, 1]))
    assert target.asked == asked
    assert views.cost_table() == costs


def test_rows_alone_are_asked_alone(models: SmallModels, records: Records) -> None:
    target = fresh(models.leaky)
    views = make(models, target, records, None)
    (some,) = views.ask("target", Identity(), np.array([3, 1]))
    asked = target.asked
    (whole,) = views.ask("target", Identity())
    assert 0 < asked < target.asked - asked
    np.testing.assert_allclose(some.logprob, whole.take([3, 1]).logprob, atol=1e-5)


def test_costs_and_events_hold_counts_and_no_text(models: SmallModels, records: Records, tmp_path: Path) -> None:
    target = fresh(models.leaky)
    tables = []
    for _ in range(2):
        views = make(models, target, records, tmp_path)
        views.ask("target", WordSwaps(copies=2))
        views.ask("target", WordSwaps(copies=2))
        tables.append(views.cost_table())
        ((cost,), asked) = tables[-1], target.asked
        assert (cost["of"], cost["program"], cost["records"], cost["passes"]) == ("target", "WordSwaps", 10, 2)
    assert tables[0] == tables[1]  # the second run asked nothing, and tells what the first one took
    assert cost["tokens"] == asked > 0
    events = (tmp_path / "events.jsonl").read_text()
    assert events.count("WordSwaps") == 2
    for text in records.texts():
        assert not any(word in events for word in text.split() if len(word) > 9)
