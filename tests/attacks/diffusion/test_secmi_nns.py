"""The network on deviation maps: reads what a mean square does not, finds nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffusion_models import picture, pictures, tiny, wrapped
from repromia.attacks import parse
from repromia.errors import AttackError
from repromia.metrics import auc
from repromia.programs import Binding
from repromia.programs.denoising import Denoised, inversion_maps
from repromia.programs.saved import Learned
from repromia.programs.secmi_network import LARGEST, MapReader, SecmiNetwork, deviation_maps
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records
from repromia.scoring import identity_scores, run_attack
from repromia.store import Store
from repromia.targets.diffusion import DiffusionModel
from repromia.targets.pipelines import wrap_callable
from repromia.views import Views

SIZES = {"fit": 120, "select": 60, "eval": 200}
ATTACK = parse("secmi_nns:t=20", "diffusion")
# Four standard deviations of an AUC of 100 against 100 when nothing is there: 1 false alarm in 16,000 runs.
REACH = 4 * (201 / (12 * 100 * 100)) ** 0.5


def curved(x: Tensor, t: Tensor) -> Tensor:
    """No model at all, but one that a step there and back does not return from."""
    return torch.sin(2 * x)


def labelled(role: str, planted: bool, side: int = 8) -> LabelledRecords:
    """Stripes of any phase and contrast; planted: members' stand, others' lie. Else all lie."""
    generator = np.random.default_rng(list(SIZES).index(role))
    member = np.arange(SIZES[role]) % 2 == 0
    found = []
    for inside in member:
        wave = np.sin(np.arange(side) * np.pi / 2 + generator.uniform(0, 2 * np.pi)) * generator.uniform(30, 90)
        pixels = np.tile(wave, (side, 1)) + generator.normal(0, 4, (side, side)) + 128
        found.append(picture((pixels if planted and inside else pixels.T).clip(0, 255).astype(np.uint8)[..., None]))
    ids = tuple(f"{role} {row}" for row in range(len(found)))
    return LabelledRecords(Records(ids, tuple(found), ids), member)


def binding_of(target: DiffusionModel, planted: bool = True, seed: int = 0) -> Binding:
    return Binding(target, labelled("fit", planted), labelled("select", planted), seed, Silent(), 0)


def views_of(binding: Binding, measured: Records) -> Views:
    parts = (binding.fit.records, binding.select.records, measured)
    ids, contents = (tuple(one for part in parts for one in getattr(part, name)) for name in ("ids", "contents"))
    return Views({"target": binding.target}, Records(ids, contents, ids), binding, Store(None))  # type: ignore[dict-item]


def target(**options: Any) -> DiffusionModel:
    return wrap_callable(curved, shape=(1, 8, 8), **options)


def scores(binding: Binding, measured: Records) -> np.ndarray:
    found = run_attack(ATTACK, views_of(binding, measured))
    assert found.scores is not None, found.reason
    return found.scores


def test_it_reads_a_pattern_that_the_mean_square_does_not_show() -> None:
    binding, measured = binding_of(target()), labelled("eval", True)
    found = run_attack(ATTACK, views_of(binding, measured.records))
    assert found.scores is not None, found.reason
    assert auc(found.scores[-200:], measured.member) > 0.9
    plain = identity_scores(ATTACK, views_of(binding, measured.records))
    assert abs(auc(plain[-200:], measured.member) - 0.5) < REACH
    assert found.used == {*binding.fit.records.ids, *binding.select.records.ids}
    about = found.details["read"]
    assert about["fit_records"] == 120
    assert about["select_auc"] == max(about["trace"])


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_nothing_where_nothing_is(seed: int) -> None:
    measured = labelled("eval", False)
    found = scores(binding_of(target(), False, seed), measured.records)
    assert abs(auc(found[-200:], measured.member) - 0.5) < REACH
    assert len(np.unique(found)) > 300


def test_the_same_seed_gives_the_same_network_and_the_global_one_is_not_touched() -> None:
    plan, state = SecmiNetwork(t="20", epochs=2), torch.get_rng_state()
    first, again, other = (plan.bind(binding_of(target(), seed=seed)) for seed in (0, 0, 1))
    assert first.key == again.key != other.key
    torch.testing.assert_close(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert plan.bind(binding_of(target())).key == first.key


def test_select_decides_how_long_and_what_is_measured_decides_nothing() -> None:
    binding, measured = binding_of(target(), False), labelled("eval", False)
    long = SecmiNetwork(t="20", epochs=8).bind(binding)
    kept = int(np.argmax(long.learned["trace"])) + 1
    assert long.learned["epochs"] == kept
    assert SecmiNetwork(t="20", epochs=kept).bind(binding).key == long.key
    turned = replace(binding, select=LabelledRecords(binding.select.records, ~binding.select.member))
    worst = SecmiNetwork(t="20", epochs=8).bind(turned)
    np.testing.assert_allclose(worst.learned["trace"], 1 - np.array(long.learned["trace"]))
    # There is no place for the labels of other records; nor do these records themselves matter.
    whole, some = (scores(binding, one) for one in (measured.records, measured.records.take(range(20))))
    np.testing.assert_allclose(some, whole[: len(some)], rtol=1e-4, atol=1e-5)


def test_maps_are_a_step_ahead_and_back_by_hand() -> None:
    model = wrapped(tiny("ddpm"))
    part = model.encode(pictures(2))
    network, alphas = tiny("ddpm").unet, tiny("ddpm").scheduler.alphas_cumprod.double()

    def step(x: Tensor, at: int, to: int, eps: Tensor) -> Tensor:
        clean = (x - (1 - alphas[at]).sqrt() * eps) / alphas[at].sqrt()
        return alphas[to].sqrt() * clean + (1 - alphas[to]).sqrt() * eps

    def noise(x: Tensor, t: int) -> Tensor:
        with torch.no_grad():
            return network(x.float(), t).sample.double()

    x = part.clean.double()
    for t in (0, 10):
        x = step(x, t, t + 10, noise(x, t))
    there = step(x, 20, 30, noise(x, 20))
    wanted = x - step(there, 30, 20, noise(there, 30))
    found = inversion_maps(model, part, 30, 10)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-5)
    (plain,) = Denoised(t="30", way="inversion").ask(model, Records(("a", "b"), tuple(pictures(2)), ("a", "b")))
    np.testing.assert_allclose(found.double().square().mean((1, 2, 3)).numpy(), plain.square[:, 0], rtol=1e-5)


def test_maps_are_asked_once_for_all_who_learn_and_large_ones_are_averaged() -> None:
    model, memory = target(), {}  # type: ignore[var-annotated]
    records = labelled("fit", True).records
    first = deviation_maps(model, records, 20, 10, memory)
    asked = model.asked
    assert deviation_maps(model, records, 20, 10, memory) is first
    assert model.asked == asked
    deviation_maps(model, records, 30, 10, memory)
    assert model.asked > asked
    side = 2 * LARGEST
    large = wrap_callable(curved, shape=(1, side, side))
    one = labelled("select", True, side).records.take(range(2))
    maps = deviation_maps(large, one, 20, 10, {})
    whole = inversion_maps(large, large.encode(one.contents), 20, 10).abs()
    torch.testing.assert_close(maps, torch.nn.functional.avg_pool2d(whole, 2))


def test_the_program_is_no_file_and_its_identity_is_secmi() -> None:
    binding = binding_of(target())
    program = SecmiNetwork(t="20", epochs=1).bind(binding)
    assert isinstance(program, MapReader)
    assert not isinstance(program, Learned)
    assert program.identity == Denoised(t="20", way="inversion", interval=10)
    other = wrap_callable(curved, shape=(3, 8, 8))
    with pytest.raises(AttackError, match="another shape"):
        program.ask(other, binding.select.records)


@pytest.mark.parametrize("side", [8, 11])
def test_any_size_and_a_conditional_model(side: int) -> None:
    odd = wrap_callable(curved, shape=(1, side, side))
    found = SecmiNetwork(t="20", epochs=1).bind(replace(binding_of(odd), target=odd))
    assert np.isfinite(found.ask(odd, labelled("eval", True).records)[0].square).all()
    model = wrapped(tiny("sd1"))
    contents, ids = tuple(pictures(8, ["a cat", "on the moon"])), tuple("abcdefgh")
    few = LabelledRecords(Records(ids, contents, ids), np.arange(8) % 2 == 0)
    read = SecmiNetwork(t="20", epochs=1).bind(Binding(model, few, few, 0, Silent(), 0)).ask(model, few.records)[0]
    assert read.square.shape == (8, 1)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (SecmiNetwork(t="20+30"), "one timestep"),
        (SecmiNetwork(t="25"), "DDIM path"),
        (SecmiNetwork(t="0"), "DDIM path"),
        (SecmiNetwork(t="2000"), "noise schedule"),
        (SecmiNetwork(interval=0), "DDIM path"),
        (SecmiNetwork(epochs=0), "at least 1"),
    ],
)
def test_what_cannot_be_asked_says_why(plan: SecmiNetwork, says: str) -> None:
    with pytest.raises(AttackError, match=says):
        plan.bind(binding_of(target()))
