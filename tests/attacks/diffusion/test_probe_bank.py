"""The bank's features by hand, its presets and options, and what happens to a program that cannot be asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from repromia.attacks import parse
from repromia.attacks.diffusion.probe_bank import PRESETS
from repromia.bank import Bank
from repromia.errors import AttackError
from repromia.heads import Shape, fit_with
from repromia.programs.registry import plan_for
from repromia.scoring import run_attack
from repromia.supervision import supervised_rows
from repromia.views import Views

from .oracles import Image, image, noises, target, views_of

ROWS = (0, 20, 31)


def bank_of(spec: str, views: Views) -> Bank:
    found = run_attack(parse(spec, "diffusion"), views)
    assert found.bank is not None, found.reason
    return found.bank


def flipped(one: Image) -> Image:
    return one.on(one.x.flip(-1))


def blurred(one: Image) -> Image:
    weights = {-1: 0.25, 0: 0.5, 1: 0.25}
    return one.on(sum(weights[x] * weights[y] * one.moved(x, y).x for x in weights for y in weights))  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3])
def test_features_of_the_small_preset_by_hand(channels: int) -> None:
    """s itself; its falls under shifts, a flip and a blur, timestep by timestep; raw strengths of noised images."""
    views = views_of(target(channels))
    bank = bank_of("probe_bank:t=20+50", views)
    times, drawn = (20, 50), noises(channels, tuple((t, 0) for t in (50, 100, 150, 200)))
    for row in ROWS:
        one = image(views.records.contents[row], channels)
        changed = [one.moved(1, 0), one.moved(-1, 0), one.moved(0, 1), one.moved(0, -1), flipped(one), blurred(one)]
        expected = [one.s(t) for t in times]
        expected += [one.s(t) - other.s(t) for other in changed for t in times]
        expected += [-np.log(one.loss(drawn[t, 0], t)) for t in (50, 100, 150, 200)]
        np.testing.assert_allclose(bank.features[row], expected, rtol=1e-5, atol=1e-5)
    assert [probe.spec for probe in bank.probes] == list(PRESETS["small"])
    assert [len(probe.columns) for probe in bank.probes] == [2, 8, 2, 2, 4]
    assert bank.passes == 18
    assert views.targets["target"].asked == 18 * len(views.records)  # the count that the docstring states


def test_anchored_at_the_shift_contrast() -> None:
    views = views_of(target())
    bank = bank_of("probe_bank:t=20+50", views)
    contrast = run_attack(parse("shift_contrast:t=20+50", "diffusion"), views)
    assert contrast.scores is not None
    assert bank.names[-1] == "anchor"
    assert bank.shape == Shape(1.5, 1)
    np.testing.assert_allclose(bank.table[:, -1], contrast.scores, atol=1e-9)
    assert np.array_equal(bank.table[:, :-1], bank.features)
    assert bank_of("probe_bank:programs=flip:t=20", views).anchor == ()
    assert bank_of("probe_bank:programs=flip:t=20", views).shape == Shape(1.5, 0)


def test_the_anchor_is_hardly_shrunk() -> None:
    """The last column counts tenfold after standardising and cutting; by hand, with scikit-learn alone."""
    from sklearn.linear_model import LogisticRegression

    views = views_of(target())
    table = bank_of("probe_bank:t=20", views).table[:16]
    member = views.binding.fit.member
    head = fit_with(table, member, 0.1, Shape(1.5, 1))
    standard = np.clip((table - table.mean(0)) / table.std(0), -1.5, 1.5) * ([1.0] * (table.shape[1] - 1) + [10.0])
    plain = LogisticRegression(C=0.1, max_iter=1000).fit(standard, member)
    np.testing.assert_allclose(head(table), plain.decision_function(standard), atol=1e-6)


def test_the_head_is_the_banks_own_and_the_plain_head_reads_every_variant() -> None:
    views = views_of(target())
    specs = ("sima:t=20+50+80", "naive:t=20+50:draws=2", "probe_bank:t=20")
    scored = [run_attack(parse(one, "diffusion"), views) for one in specs]
    plain, bank = supervised_rows(scored, views.binding.fit, seed=0)
    expected = [f"{specs[0]} t={t}" for t in (20, 50, 80)] + [f"{specs[1]} t={t}" for t in (20, 50)]
    assert (plain.name, list(plain.columns)) == ("same_supervision", expected)
    assert bank.rival == "same_supervision"
    assert bank.bank is not None
    assert bank.columns == bank.bank.names  # not beside the passive scores
    assert bank.attacks == ()


def test_programs_of_ones_own() -> None:
    views = views_of(target())
    bank = bank_of("probe_bank:programs=shifts/far=2+flip/axis=vertical+noised/t=50-100/draws=2:t=20", views)
    assert [probe.spec for probe in bank.probes] == [
        "identity",
        "shifts/far=2",
        "flip/axis=vertical",
        "noised/t=50-100/draws=2",
    ]
    assert [len(probe.columns) for probe in bank.probes] == [1, 4, 1, 4]
    assert bank.anchor == (1, 2, 3, 4)
    drawn = noises(1, ((50, 1), (100, 1)))
    one = image(views.records.contents[31], 1)
    assert bank.features[31, 5] == pytest.approx(one.s(20) - one.on(one.x.flip(-2)).s(20), rel=1e-5, abs=1e-5)
    expected = [-np.log(one.loss(drawn[t, draw], t)) for t in (50, 100) for draw in (0, 1)]
    assert bank.features[31, 6:] == pytest.approx(expected, rel=1e-5)


def test_another_way_of_asking_is_read_by_itself() -> None:
    """As the docstring says; s of what the model says of its own noise has no fall from s of the clean image."""
    views = views_of(target())
    bank = bank_of("probe_bank:programs=own_noise:t=20", views)
    expected = -np.log(image(views.records.contents[0], 1).pia(20, 2))
    assert bank.features[0, 1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_full_preset_costs_what_it_says(channels: int) -> None:
    views = views_of(target(channels))
    bank = bank_of("probe_bank:preset=full", views)
    could_not = {probe.spec: probe.reason for probe in bank.probes if probe.reason}
    assert list(could_not) == (["channel_turn"] if channels == 1 else [])
    assert all("single channel" in reason for reason in could_not.values())
    assert bank.passes == views.targets["target"].asked / len(views.records) == (66 if channels == 1 else 68)
    assert len(bank.anchor) == 16  # both distances
    assert all(len(probe.columns) for probe in bank.probes if not probe.reason)


def test_a_program_that_cannot_be_asked_is_a_row_with_its_reason() -> None:
    views = views_of(target())
    found = run_attack(parse("probe_bank:programs=channel_turn+shifts/far=9+flip:t=20", "diffusion"), views)
    assert found.bank is not None
    assert found.bank.features.shape == (len(views.records), 2)
    assert found.details["bank"]["programs"] == ["identity", "flip"]
    reasons = found.details["bank"]["could_not"]
    assert list(reasons) == ["channel_turn", "shifts/far=9"]
    assert "single channel" in reasons["channel_turn"]
    assert "as large as the image" in reasons["shifts/far=9"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("probe_bank:preset=huge", "no preset 'huge'"),
        ("probe_bank:programs=shiftt", "no program 'shiftt'"),
        ("probe_bank:programs=shifts/near=2", "no option 'near'"),
        ("probe_bank:t=2000", "outside the noise schedule"),
    ],
)
def test_wrong_options_are_a_reason(spec: str, message: str) -> None:
    found = run_attack(parse(spec, "diffusion"), views_of(target()))
    assert found.scores is None
    assert found.bank is None
    assert message in found.reason


@pytest.mark.parametrize("name", PRESETS)
def test_presets_hold_programs_that_exist(name: str) -> None:
    options: dict[str, Any] = parse("probe_bank", "diffusion").options
    plans = [plan_for(one, options, "diffusion") for one in PRESETS[name]]
    assert len({repr(one) for one in plans}) == len(plans)
    with pytest.raises(AttackError):
        plan_for("lower_case", options, "diffusion")
