"""A bank of programs: failures stay apart, columns have owners, and nothing learned describes what it learned from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pytest

from repromia.attacks import BankRecipe
from repromia.attacks.probe_bank import FAMILIES, bank_statistics
from repromia.bank import CROSS_FITS, Bank, ask_bank, describe
from repromia.errors import AttackError, StoreError
from repromia.programs import Binding, Identity
from repromia.programs.context import Band
from repromia.programs.registry import PLANS, plan_for
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records
from repromia.signals import TokenSignals
from repromia.store import Store
from repromia.targets.language import LanguageModel
from repromia.views import Views
from small import SmallModels
from targets.architectures import target_of, tiny

MEAN = bank_statistics("mean")
SEVERAL = bank_statistics("mean+q50+errors")


def recipe(statistics: Callable[..., np.ndarray]) -> BankRecipe:
    """A bank read by these statistics."""
    return BankRecipe(lambda _: (), lambda _: statistics, FAMILIES)


FIT, SELECT, EVAL = 40, 20, 14


def labelled(models: SmallModels, start: int, end: int, group_of: int = 1) -> LabelledRecords:
    """Members and non-members start:end in turn; `group_of` neighbours share a group."""
    texts = [
        text for pair in zip(models.members[start:end], models.nonmembers[start:end], strict=True) for text in pair
    ]
    ids = tuple(f"{start}-{row}" for row in range(len(texts)))
    groups = tuple(f"{start}-group-{row // group_of}" for row in range(len(texts)))
    short = tuple(text[:60] for text in texts)
    return LabelledRecords(Records(ids, short, groups), np.arange(len(texts)) % 2 == 0)


def together(parts: list[Records]) -> Records:
    ids, contents, groups = (
        tuple(one for part in parts for one in getattr(part, name)) for name in ("ids", "contents", "groups")
    )
    return Records(ids, contents, groups)


@pytest.fixture
def views(models: SmallModels) -> Views:
    return make(models, models.leaky)


def make(models: SmallModels, target: LanguageModel, *, seed: int = 0, group_of: int = 4) -> Views:
    fit = labelled(models, 0, FIT // 2, group_of)
    select = labelled(models, 20, 20 + SELECT // 2)
    rest = labelled(models, 30, 30 + EVAL // 2)
    records = together([fit.records, select.records, rest.records])
    return Views({"target": target}, records, Binding(target, fit, select, seed, Silent(), 64), Store(None))


def asked(views: Views, spec: str) -> tuple[TokenSignals, ...]:
    return views.ask("target", views.program(spec, {}))


def test_columns_belong_to_the_programs_in_order(views: Views) -> None:
    specs = ["band/width=2", "embedding_noise/scale=0.6", "lower_case", "skipped_layers", "nonmember_shots/shots=1"]
    bank = ask_bank(views, specs, recipe(SEVERAL), {})
    assert [probe.spec for probe in bank.probes] == specs
    assert [probe.family for probe in bank.probes] == [
        "context",
        "embedding_noise",
        "edits",
        "skipped_layers",
        "prefixes",
    ]
    assert [column for probe in bank.probes for column in probe.columns] == list(range(bank.features.shape[1]))
    assert [len(probe.columns) for probe in bank.probes] == [3, 6, 2, 6, 3]
    assert [probe.passes for probe in bank.probes] == [1, 2, 1, 2, 1]
    assert bank.passes == 7
    assert np.isfinite(bank.features).all()
    (plain,) = views.ask("target", Identity())
    for probe in bank.probes:
        signals = asked(views, probe.spec)
        expected = [SEVERAL(plain, one, probe.spec == "lower_case") for one in signals]
        assert np.array_equal(bank.features[:, probe.columns], np.concatenate(expected, axis=1)), probe.spec
        assert probe.tokens > 0
    assert bank.used == asked_used(views, "nonmember_shots/shots=1")
    assert len(bank.used) == 1
    assert describe(bank) == {"programs": specs, "could_not": {}, "features": 20}


def asked_used(views: Views, spec: str) -> frozenset[str]:
    return views.program(spec, {}).used


def test_rows_are_taken_with_their_features(views: Views) -> None:
    bank = ask_bank(views, ["band", "dropout"], recipe(SEVERAL), {})
    rows = np.array([5, 0, 73])
    taken = bank.take(rows)
    assert np.array_equal(taken.features, bank.features[rows])
    assert taken.probes == bank.probes


def test_a_program_that_the_model_cannot_do_is_a_row_with_its_reason(models: SmallModels) -> None:
    views = make(models, target_of(tiny("mamba"), models.base.tokenizer))
    specs = ["band/width=2", "embedding_noise/draws=1", "chunks", "dropout/draws=1"]
    bank = ask_bank(views, specs, recipe(MEAN), {})
    failed = {probe.spec: probe for probe in bank.probes if probe.reason}
    assert list(failed) == ["band/width=2", "chunks"]
    for probe in failed.values():
        assert "context taken away" in probe.reason
        assert (probe.columns, probe.passes, probe.family) == ((), 0.0, "context")
    assert [probe.columns for probe in bank.probes if not probe.reason] == [(0,), (1,)]
    assert bank.features.shape == (FIT + SELECT + EVAL, 2)
    assert describe(bank)["could_not"] == {name: probe.reason for name, probe in failed.items()}
    alone = ask_bank(make(models, views.targets["target"]), specs[1::2], recipe(MEAN), {})
    np.testing.assert_allclose(bank.features, alone.features, atol=1e-5)


def test_no_program_at_all_is_an_error(models: SmallModels) -> None:
    views = make(models, target_of(tiny("mamba"), models.base.tokenizer))
    with pytest.raises(AttackError, match=r"No program[\s\S]*band/width=2: [\s\S]*chunks: "):
        ask_bank(views, ["band/width=2", "chunks"], recipe(MEAN), {})
    with pytest.raises(AttackError, match="an empty bank"):
        ask_bank(views, [], recipe(MEAN), {})


def test_an_unknown_program_is_not_a_program_that_the_model_cannot_do(views: Views) -> None:
    with pytest.raises(AttackError, match="no program 'bend'"):
        ask_bank(views, ["band", "bend"], recipe(MEAN), {})


def test_any_failure_of_a_program_has_its_type_as_reason(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise IndexError

    monkeypatch.setattr(Band, "ask", fails)
    bank = ask_bank(views, ["band", "dropout"], recipe(MEAN), {})
    assert bank.probes[0].reason.startswith("IndexError")
    assert bank.features.shape[1] == 2


def test_a_full_disk_is_no_property_of_a_program(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise StoreError("full")

    monkeypatch.setattr(Band, "ask", fails)
    with pytest.raises(StoreError):
        ask_bank(views, ["dropout", "band"], recipe(MEAN), {})


def test_what_was_asked_before_costs_no_tokens(views: Views) -> None:
    first = ask_bank(views, ["band", "dropout"], recipe(MEAN), {})
    again = ask_bank(views, ["band", "dropout"], recipe(MEAN), {})
    assert np.array_equal(first.features, again.features)
    assert all(probe.tokens > 0 for probe in first.probes)
    assert [probe.tokens for probe in again.probes] == [0, 0]
    assert again.passes == first.passes


@dataclass
class Spy:
    """A learned program that signs what it answers: the k-th adds 10 ** k to every log-probability."""

    number: int
    binding: Binding = field(repr=False)

    @property
    def key(self) -> str:
        return f"spy {self.number}"

    @property
    def used(self) -> frozenset[str]:
        return frozenset(self.binding.fit.records.ids)

    @property
    def details(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        pass

    def ask(self, target: LanguageModel, records: Records) -> tuple[TokenSignals, ...]:
        (plain,) = Identity().ask(target, records)
        return (replace(plain, logprob=plain.logprob + np.float32(10**self.number)),)


SPIES: list[Spy] = []


@dataclass(frozen=True)
class SpyPlan:
    learns: ClassVar[bool] = True

    def bind(self, binding: Binding) -> Spy:
        SPIES.append(Spy(len(SPIES), binding))
        return SPIES[-1]


@pytest.fixture
def spies(monkeypatch: pytest.MonkeyPatch) -> list[Spy]:
    monkeypatch.setitem(PLANS, "spy", SpyPlan)
    SPIES.clear()
    return SPIES


def signed_by(features: np.ndarray, spies: list[Spy]) -> list[int]:
    """Which spy each record's feature comes from, -1: the mean of all."""
    known = {10**spy.number: spy.number for spy in spies}
    known[round(np.mean([10**spy.number for spy in spies]))] = -1
    return [known[round(float(value))] for value in features]


@pytest.mark.parametrize("group_of", [1, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_fit_record_is_described_by_what_saw_it_or_its_group(
    group_of: int, seed: int, models: SmallModels, spies: list[Spy]
) -> None:
    views = make(models, models.leaky, seed=seed, group_of=group_of)
    bank = ask_bank(views, ["band", "spy"], recipe(MEAN), {})
    assert len(spies) == CROSS_FITS == 3
    fit = views.binding.fit
    signs = signed_by(bank.features[:, 1], spies)
    assert signs[FIT:] == [-1] * (SELECT + EVAL)
    assert set(signs[:FIT]) == {0, 1, 2}
    for row, sign in enumerate(signs[:FIT]):
        seen = spies[sign].binding.fit
        assert fit.records.ids[row] not in seen.records.ids
        assert fit.records.groups[row] not in seen.records.groups
    for spy in spies:
        seen = spy.binding.fit
        assert seen.member.any()
        assert not seen.member.all()
        assert (
            dict(zip(seen.records.ids, seen.member, strict=True)).items()
            <= dict(zip(fit.records.ids, fit.member, strict=True)).items()
        )
        assert len(seen) + signs[:FIT].count(spy.number) == FIT  # all it was not held out from
        assert spy.binding.select is views.binding.select
    assert bank.used == frozenset()  # so every fit record may teach the head
    assert bank.probes[1].passes == 3


def test_features_follow_the_records_wherever_they_stand(models: SmallModels, spies: list[Spy]) -> None:
    views = make(models, models.leaky)
    order = np.random.default_rng(0).permutation(len(views.records))
    views.records = views.records.take(order)
    bank = ask_bank(views, ["spy"], recipe(MEAN), {})
    fit = views.binding.fit.records
    group = dict(zip(fit.ids, fit.groups, strict=True))
    for name, sign in zip(views.records.ids, signed_by(bank.features[:, 0], spies), strict=True):
        if name not in group:
            assert sign == -1
        else:
            assert sign != -1
            assert group[name] not in spies[sign].binding.fit.records.groups


def test_a_learned_soft_prompt_is_cross_fitted(models: SmallModels, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = PLANS["learned_soft_prompt"]
    fits: list[tuple[str, ...]] = []
    bind = plan.bind

    def watched(self: Any, binding: Binding) -> Any:
        fits.append(binding.fit.records.ids)
        return bind(self, binding)

    monkeypatch.setattr(plan, "bind", watched)
    views = make(models, models.leaky)
    bank: Bank = ask_bank(views, ["learned_soft_prompt/length=4/steps=1/restarts=1"], recipe(MEAN), {})
    assert len(fits) == 3
    assert len(set(fits)) == 3
    assert all(0 < len(one) < FIT for one in fits)
    assert np.isfinite(bank.features).all()


def test_the_target_is_left_as_it_was(models: SmallModels) -> None:
    target = replace(models.leaky, model=copy.deepcopy(models.leaky.model), _fingerprint="")
    before = target.fingerprint
    ask_bank(make(models, target), ["band", "skipped_layers", "dropout", "weight_noise"], recipe(MEAN), {})
    assert replace(target, _fingerprint="").fingerprint == before


def test_programs_that_learn_or_edit_say_so() -> None:
    assert {name for name in PLANS if getattr(plan_for(name, {}), "learns", False)} == {"learned_soft_prompt"}
    edits = {name for name in PLANS if getattr(plan_for(name, {}), "changes_tokens", False)}
    assert edits == {"lower_case", "word_swaps", "masked_neighbours"}
