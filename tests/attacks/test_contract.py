"""What holds for every registered attack, new ones included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from repromia import attacks
from repromia.attacks import SELF_REFERENCE, Plain, choose, parse, registry
from repromia.errors import AttackError
from repromia.metrics import auc
from repromia.records import LabelledRecords, Records
from repromia.scoring import run_attack
from repromia.signals import Scores
from repromia.views import Views
from small import SmallModels

NAMES = tuple(registry())
OF_MEMBERSHIP = tuple(name for name, one in registry().items() if one.kind in ("passive", "reference"))


def score(spec: str, views: Views) -> np.ndarray:
    """A number a record; of attacks that wait for a head, their features."""
    scored = run_attack(parse(spec), views)
    if scored.bank is not None:
        assert not [probe.reason for probe in scored.bank.probes if probe.reason]
        return scored.bank.features
    assert scored.scores is not None, scored.reason
    return scored.scores


@pytest.fixture(scope="module")
def few(measured_records: LabelledRecords) -> Records:
    return measured_records.records.take([0, 90, 1, 91, 2, 92, 3, 93])


@pytest.fixture(scope="module")
def views(models: SmallModels, make_views: Callable[..., Views], few: Records) -> Views:
    return make_views(models.leaky, models.base, few)


@pytest.fixture(scope="module")
def all_views(models: SmallModels, make_views: Callable[..., Views], measured_records: LabelledRecords) -> Views:
    return make_views(models.leaky, models.base, measured_records.records)


@pytest.mark.parametrize("name", NAMES)
def test_one_finite_number_a_record_whatever_their_order(
    name: str, models: SmallModels, make_views: Callable[..., Views], views: Views, few: Records, specs: dict[str, str]
) -> None:
    spec = specs.get(name, name)
    scores = score(spec, views)
    assert scores.shape[0] == len(few)
    assert (scores.ndim == 2) == (registry()[name].bank is not None)
    assert np.isfinite(scores).all()
    turned = make_views(models.leaky, models.base, few.take(range(len(few))[::-1]))
    np.testing.assert_allclose(score(spec, turned)[::-1], scores, atol=1e-4)
    alone = make_views(models.leaky, models.base, few.take([3]))
    np.testing.assert_allclose(score(spec, alone), scores[3:4], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_batch_size_does_not_matter(
    name: str, models: SmallModels, make_views: Callable[..., Views], few: Records, specs: dict[str, str]
) -> None:
    by_size = [
        score(
            specs.get(name, name),
            make_views(replace(models.leaky, batch_tokens=size), replace(models.base, batch_tokens=size), few),
        )
        for size in (64, 512, 8192)
    ]
    np.testing.assert_allclose(by_size[0], by_size[2], atol=1e-4)
    np.testing.assert_allclose(by_size[1], by_size[2], atol=1e-4)


@pytest.mark.parametrize("name", OF_MEMBERSHIP)
def test_higher_means_member_on_a_leaky_model(
    name: str, all_views: Views, measured_records: LabelledRecords, specs: dict[str, str]
) -> None:
    """Seeds are fixed. A score without any information would pass with probability .01 (90 + 90 records)."""
    scores = score(specs.get(name, name), all_views)
    chance = np.sqrt((90 + 90 + 1) / (12 * 90 * 90))
    assert auc(scores, measured_records.member) > 0.5 + 2.33 * chance


@pytest.mark.parametrize("name", NAMES)
def test_says_where_it_comes_from_and_what_it_does(name: str) -> None:
    one = registry()[name]
    assert len(one.citation) > 10
    assert one.access
    assert one.function.__doc__
    assert one.kind in ("passive", "reference", "reprogrammed")
    looks_at_reference = any(getattr(mark, "of", "") == "reference" for mark, _ in one.inputs.values())
    assert looks_at_reference == ("reference" in one.needs) == (one.kind == "reference")


def test_options_are_parsed_to_their_types() -> None:
    assert parse("min_k").options == {"k": 0.2}
    chosen = parse("min_k:k=0.1")
    assert (chosen.name, chosen.attack.name, chosen.options) == ("min_k:k=0.1", "min_k", {"k": 0.1})
    assert parse("con_recall:shots=3:gamma=1").options == {"shots": 3, "gamma": 1.0}
    assert parse("zlib:form=sum").options == {"form": "sum"}
    assert parse("min_k").options == {"k": 0.2}  # parsing changes no default


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("min_k:q=0.1", r"no option 'q'(.|\n)*k=0\.2"),
        ("loss:k=0.1", r"no option 'k'(.|\n)*no option"),
        ("min_k:k=many", r"cannot be 'many'(.|\n)*like 0\.2"),
        ("recall:shots=1.5", r"cannot be '1\.5'"),
        ("recall:shots", r"cannot be ''"),
        ("min_kk", r"did you mean 'min_k'\?"),
        ("qqqqqq", r"repromia attacks"),
        ("", r"There is no attack ''"),
    ],
)
def test_wrong_specs_are_refused_with_what_there_is(spec: str, message: str) -> None:
    with pytest.raises(AttackError, match=message):
        parse(spec)


def names(*specs: str, reference: bool = True) -> list[str]:
    return [one.name for one in choose(specs, reference=reference)]


def test_lists_of_attacks() -> None:
    known = registry()
    assert names("all") == [*sorted(known), SELF_REFERENCE]
    assert names("default") == [*(name for name, one in known.items() if one.default), SELF_REFERENCE]
    assert "neighbour" in names("all")
    assert "neighbour" not in names("default")
    assert "reprogram" in names("default")
    assert set(names("default")) - set(names("passive")) == {"reprogram", "probe_bank", SELF_REFERENCE}
    assert names("loss", "min_k:k=0.1", "loss") == ["loss", "min_k:k=0.1"]
    assert names("loss", "default")[0] == "loss"
    assert len(names("loss", "default")) == len(names("default"))


def test_a_learned_attack_brings_its_free_rivals() -> None:
    assert names("reprogram") == ["reprogram", "gap_k", "loss", "min_k", "min_k_plus_plus", "surp", "zlib"]


def test_lists_leave_out_reference_attacks_without_a_reference_but_keep_named_ones() -> None:
    left_out = {"reference", "ez_mia", "wbc"}
    for spec in ("all", "default", "passive"):
        assert set(names(spec)) - set(names(spec, reference=False)) == left_out
    assert names("wbc", reference=False) == ["wbc"]


@pytest.fixture
def new_attack() -> Iterator[str]:
    @attacks.attack(citation="this test, written by hand")
    def longest_token(plain: Plain, *, sign: float = 1.0) -> Scores:
        """The best log-probability."""
        return sign * np.maximum.reduceat(plain.logprob.astype(np.float64), plain.offsets[:-1])

    yield "longest_token"
    del attacks._REGISTRY["language", "longest_token"]


def test_one_decorated_function_is_a_new_attack(new_attack: str, views: Views) -> None:
    assert new_attack in names("default")
    plain = views.ask("target", views.program("identity", {}))[0]
    expected = [part.max() for part in np.split(plain.logprob, plain.offsets[1:-1])]
    np.testing.assert_allclose(score(f"{new_attack}:sign=-1", views), -np.array(expected))


def test_the_new_attack_is_gone_again() -> None:
    assert "longest_token" not in registry()


def test_a_parameter_that_does_not_say_what_it_looks_at_is_refused() -> None:
    def mute(plain: int) -> Scores:
        return np.zeros(plain)

    one = replace(registry()["loss"], name="mute", function=mute)
    with pytest.raises(TypeError, match=r"mute: parameter 'plain'"):
        _ = one.inputs


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda plain: np.zeros(len(plain) + 1), "wrong number of scores"),
        (lambda plain: np.full(len(plain), np.nan), "8 of 8 are NaN"),
        (lambda plain: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_is_not_a_number_a_record_is_a_reason_and_never_a_score(
    answer: object, message: str, views: Views
) -> None:
    def broken(plain: Plain) -> Scores:
        return answer(plain)  # type: ignore[operator]

    loss = parse("loss")
    scored = run_attack(replace(loss, attack=replace(loss.attack, function=broken)), views)
    assert scored.scores is None
    assert message in scored.reason


def test_a_program_stands_for_the_reference(views: Views) -> None:
    """The pseudo-reference replaces the reference's view, and nothing else: same function, by hand."""
    chosen = parse("wbc:reference=noise_and_repair/noise=0.4/steps=2")
    assert (chosen.attack.kind, chosen.attack.needs) == ("reprogrammed", ())
    scored = run_attack(chosen, views)
    assert scored.scores is not None, scored.reason
    plain = views.ask("target", views.program("identity", {}))[0]
    other = views.ask("target", views.program("noise_and_repair/noise=0.4/steps=2", {}))[0]
    assert scored.scores.tolist() == registry()["wbc"].function(plain, other).tolist()
    with pytest.raises(AttackError, match="no option 'reference'"):
        parse("loss:reference=noise_and_repair")
    unknown = run_attack(parse("wbc:reference=nothing"), views)
    assert "There is no program 'nothing'" in unknown.reason


def test_lists_for_an_endpoint_hold_only_what_it_can_answer() -> None:
    found = [one.name for one in choose(("default",), reference=False, weights=False)]
    assert set(found) == {
        "con_recall",
        "loss",
        "lowercase",
        "min_k",
        "pac",
        "probe_bank:preset=text_only",
        "recall",
        "zlib",
    }
    for name in found[:-1]:
        assert parse(name).attack.logprobs_suffice
    named = [one.name for one in choose(("gap_k",), reference=False, weights=False)]
    assert named == ["gap_k"]
