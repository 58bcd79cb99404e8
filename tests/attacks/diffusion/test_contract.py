"""What holds for every registered attack on diffusion models, new ones included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffusion_models import tiny, wrapped
from repromia.attacks import choose, parse, registry
from repromia.errors import AttackError
from repromia.records import LabelledRecords
from repromia.scoring import run_attack
from repromia.targets.diffusion import DiffusionModel
from repromia.views import Views

from .oracles import target, views_of

NAMES = tuple(registry("diffusion"))
FIXED = tuple(name for name, one in registry("diffusion").items() if one.kind == "passive" or name == "shift_contrast")
QUICK = {
    "naive": "naive:t=20+50:draws=2",
    "pia": "pia:t=20+50",
    "pian": "pian:t=20+50",
    "sima": "sima:t=0+20",
    "pfami": "pfami:t=20:count=2",
    "secmi_stat": "secmi_stat:t=20+30",
    "clid": "clid:t=50:draws=1",
    "reference": "reference:t=20+50:draws=2",
    "shift_contrast": "shift_contrast:t=20",
    "probe_bank": "probe_bank:t=20",
    "reprogram": "reprogram:t=20:steps=1",
}


def views_for(name: str, batch: int = 64, **changes: object) -> Views:
    """Of a model with captions where the attack needs some, beside another one where it needs a reference."""
    if "captions" in registry("diffusion")[name].needs:
        return views_of(wrapped(tiny("sd1"), batch=batch), **changes)
    views = views_of(target(batch=batch), **changes)
    views.targets["reference"] = target(seed=1, batch=batch)
    return views


def figures(name: str, views: Views) -> np.ndarray:
    """A row a record: all variants; of attacks that wait for a head, their features."""
    found = run_attack(parse(QUICK.get(name, name), "diffusion"), views)
    assert not found.reason
    if found.bank is not None:
        assert not [probe.reason for probe in found.bank.probes if probe.reason]
        return found.bank.features
    return found.features


@pytest.mark.parametrize("name", FIXED)
def test_one_finite_row_a_record_whatever_batch_and_order(name: str) -> None:
    views = views_for(name)
    found = figures(name, views)
    count = len(views.records)
    assert found.shape[0] == count
    assert np.isfinite(found).all()
    order = np.random.default_rng(0).permutation(count)
    # CLiD scales by the spread over all records: the same records must be there
    turned = views_for(name, batch=7, records=views.records.take(order))
    np.testing.assert_allclose(figures(name, turned), found[order], rtol=1e-4, atol=1e-4 * np.abs(found).max())


@pytest.mark.parametrize("name", FIXED)
def test_labels_of_fit_play_no_part_in_a_passive_score(name: str) -> None:
    views = views_for(name)
    fit = views.binding.fit
    other = views_for(name)
    other.binding = replace(other.binding, fit=LabelledRecords(fit.records, ~fit.member))
    assert np.array_equal(figures(name, views), figures(name, other))


@pytest.mark.parametrize("name", NAMES)
def test_says_where_it_comes_from_and_what_it_does(name: str) -> None:
    one = registry("diffusion")[name]
    assert one.modality == "diffusion"
    assert len(one.citation) > 10
    assert one.access
    assert one.function.__doc__
    assert one.kind in ("passive", "reference", "reprogrammed", "head")
    looks_at_reference = any(getattr(mark, "of", "") == "reference" for mark, _ in one.inputs.values())
    assert looks_at_reference == ("reference" in one.needs) == (one.kind == "reference")


def names(*specs: str, captions: bool = False, reference: bool = False) -> list[str]:
    return [one.name for one in choose(specs, reference=reference, modality="diffusion", captions=captions)]


def test_lists_of_attacks() -> None:
    known = registry("diffusion")
    assert names("all", captions=True, reference=True) == list(known)
    assert set(names("all", captions=True, reference=True)) - set(names("all")) == {"clid", "reference"}
    default = {name for name, one in known.items() if one.default}
    assert set(names("default", captions=True, reference=True)) == default
    assert {"probe_bank", "shift_contrast", "naive", "sima"} <= default
    assert not {"probe_bank", "reprogram"} & set(names("passive"))
    assert names("clid") == ["clid"]  # named: kept, and fails visibly
    assert "loss" not in known
    assert "sima" not in registry()


def test_a_reprogrammed_attack_brings_its_passive_rivals() -> None:
    rivals = {"naive", "pfami", "pia", "pian", "secmi_stat", "sima"}
    for one in ("probe_bank", "reprogram", "shift_contrast"):
        assert set(names(one)) == {one, *rivals}
        assert set(names(one, captions=True)) == {one, "clid", *rivals}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sima:q=1", r"no option 'q'(.|\n)*t='0\+10"),
        ("naive:draws=many", "cannot be 'many'"),
        ("simaa", r"did you mean 'sima'\?"),
        ("loss", "There is no attack 'loss'"),
        ("sima:t=a", ""),
    ],
)
def test_wrong_specs_are_refused_with_what_there_is(spec: str, message: str) -> None:
    if message:
        with pytest.raises(AttackError, match=message):
            parse(spec, "diffusion")
    else:  # only the program knows what a timestep is
        found = run_attack(parse(spec, "diffusion"), views_of(target()))
        assert "Timesteps cannot be read" in found.reason


def test_a_reference_or_captions_that_are_not_there_are_a_reason() -> None:
    views = views_of(target())
    assert "--reference" in run_attack(parse("reference", "diffusion"), views).reason
    assert "caption" in run_attack(parse("clid", "diffusion"), views).reason


def test_passes_are_evaluations_a_record() -> None:
    expected = {
        "naive:t=20+50:draws=3": 6,
        "sima:t=0+20": 2,
        "shift_contrast:t=20+50": 10,
        "pfami:t=20+50:count=3": 8,
    }
    for spec, passes in expected.items():
        model: DiffusionModel = target()
        views = views_of(model)
        found = run_attack(parse(spec, "diffusion"), views)
        assert found.passes == passes == model.asked / len(views.records)
