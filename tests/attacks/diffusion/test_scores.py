"""Every attack against a few lines written from its formula, on what the network answers, image by image."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from diffusion_models import tiny, wrapped
from repromia.attacks import parse, registry
from repromia.records import LabelledRecords
from repromia.scoring import Scored, run_attack
from repromia.views import Views

from .oracles import SIZE, Image, image, noises, pixels_of, spied, target, views_of

TIMES = (20, 50, 120)
T = "20+50+120"


def naive(one: Image, t: int, channels: int) -> float:
    drawn = noises(channels, tuple((time, 2) for time in TIMES))
    return -float(np.mean([one.loss(drawn[t, draw], t) for draw in range(3)]))


def pfami(one: Image, t: int, channels: int) -> float:
    """Crops of 95 to 70 % of the side, enlarged again, with the image's own noise."""
    noise = noises(channels, tuple((time, 2) for time in TIMES))[t, 0]
    own, rises = one.loss(noise, t), []
    for share in (0.95, 0.825, 0.70):
        side = round(SIZE * share)
        edge = (SIZE - side) // 2
        cut = one.x[:, :, edge : edge + side, edge : edge + side]
        crop = torch.nn.functional.interpolate(cut, (SIZE, SIZE), mode="bilinear", align_corners=False)
        rises.append((one.on(crop).loss(noise, t) - own) / own)
    return float(np.mean(rises))


# attack -> (image, timestep, channels) -> the variant's score
ORACLES: dict[str, Callable[[Image, int, int], float]] = {
    f"naive:draws=3:t={T}": naive,
    f"sima:t={T}": lambda one, t, _: -one.sima(t),
    f"pia:t={T}": lambda one, t, _: -one.pia(t),
    f"pian:t={T}": lambda one, t, _: -one.pia(t, normalised=True),
    f"secmi_stat:t={T}": lambda one, t, _: -one.secmi(t),
    f"pfami:count=3:t={T}": pfami,
}


@pytest.fixture(scope="module", params=[1, 3], ids=["grey", "colour"])
def channels(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def views(channels: int) -> Views:
    return views_of(target(channels))


def scored(spec: str, views: Views) -> Scored:
    found = run_attack(parse(spec, "diffusion"), views)
    assert not found.reason
    return found


@pytest.mark.parametrize("spec", ORACLES)
def test_variants_equal_the_formula(spec: str, views: Views, channels: int) -> None:
    found = scored(spec, views)
    assert found.variants is not None
    assert found.variants.names == tuple(f"t={t}" for t in TIMES)
    rows = [0, 9, 17, 28, 31]
    few = [image(views.records.contents[row], channels) for row in rows]
    expected = np.array([[ORACLES[spec](one, t, channels) for t in TIMES] for one in few])
    assert np.ptp(expected, axis=0).min() > 1e-4 * np.abs(expected).max()  # different images
    exact = 1e-4 if "secmi" in spec else 1e-5  # the path and its way back cancel in float32
    np.testing.assert_allclose(found.variants.scores[rows], expected, rtol=exact, atol=1e-5 * np.abs(expected).max())


def test_secmi_is_the_official_chain_in_eleven_evaluations(views: Views, channels: int) -> None:
    """t_SEC = 100, interval 10: 0, 10, …, 90, then ahead to 100 and back to 90."""
    model = target(channels)
    found = scored("secmi_stat:t=100", views_of(model))
    assert model.asked == 11 * len(found.features)
    one = image(views.records.contents[3], channels)
    x = one.x
    for now in range(0, 90, 10):
        x = one.step(x, one.eps(x, now), now, now + 10)
    ahead = one.step(x, one.eps(x, 90), 90, 100)
    back = one.step(ahead, one.eps(ahead, 100), 100, 90)
    assert found.features[3, 0] == pytest.approx(-one.power(x - back, 2), rel=1e-4)  # x - back cancels


def test_the_clean_image_stands_at_index_0_of_the_schedule(channels: int) -> None:
    """alphas_cumprod[0] = .9999, not 1: the first step of SecMI starts from there."""
    model = target(channels)
    one = image(views_of(model).records.contents[0], channels)
    found = scored("secmi_stat:t=10", views_of(model)).features[0, 0]
    assert found == pytest.approx(-one.secmi(10), rel=1e-5)
    pretended = one.alphas.clone()
    pretended[0] = 1
    assert found != pytest.approx(-Image(one.x, one.network, pretended).secmi(10), rel=1e-5)


@pytest.mark.parametrize(("spec", "far"), [("shift_contrast:t=20+50", 1), ("shift_contrast:t=20+50:far=2", 2)])
def test_shift_contrast_by_hand(spec: str, far: int, views: Views, channels: int) -> None:
    found = scored(spec, views)
    assert found.variants is None
    for row in (0, 20, 31):
        one = image(views.records.contents[row], channels)
        moved = [one.moved(far, 0), one.moved(-far, 0), one.moved(0, far), one.moved(0, -far)]
        by_time = [one.s(t) - np.mean([other.s(t) for other in moved]) for t in (20, 50)]
        assert found.scores is not None
        assert found.scores[row] == pytest.approx(np.mean(by_time), rel=1e-5, abs=2e-6)


def saved(path: Path, where: str, channels: int, t: str = "20+50") -> tuple[str, torch.Tensor]:
    """A perturbation on disk, written by hand."""
    delta = np.random.default_rng(3).normal(0, 0.2, (channels, SIZE, SIZE)).astype(np.float32)
    save_file({"delta": delta}, path / f"{where}.safetensors")
    about = {"kind": "perturbation", "where": where, "t": t, "interval": 10, "learned": {}, "used": [], "seen": []}
    (path / f"{where}.json").write_text(json.dumps(about))
    return str(path / f"{where}.safetensors"), torch.from_numpy(delta)[None]


@pytest.mark.parametrize("recipe", ["contrast", "paper"])
@pytest.mark.parametrize("where", ["input", "state", "noise"])
def test_reprogram_by_hand(where: str, recipe: str, views: Views, channels: int, tmp_path: Path) -> None:
    path, delta = saved(tmp_path, where, channels)
    drawn = noises(channels, tuple((time, 2) for time in TIMES))
    found = scored(f"reprogram:where={where}:recipe={recipe}:t=20+50:program={path}", views)
    assert found.scores is not None
    for row in (0, 20, 31):
        one = image(views.records.contents[row], channels)
        probed = np.mean([one.under(where, delta, t) for t in (20, 50)])
        own = np.mean([one.plainly(where, t, drawn[t, 0]) for t in (20, 50)])
        expected = 2 * own - probed if recipe == "contrast" else probed
        assert found.scores[row] == pytest.approx(expected, rel=1e-5, abs=2e-6)


def test_clid_by_hand() -> None:
    """Loss under the own, the empty and half a caption, scaled by the interquartile range, weighed by alpha."""
    model, own = wrapped(tiny("sd1")), tiny("sd1")
    asked = spied(model)
    views = views_of(model)
    found = scored("clid:t=100+300:draws=2", views)
    assert found.variants is not None
    alphas = own.scheduler.alphas_cumprod
    contents = views.records.contents
    with torch.no_grad():
        latents = torch.cat([own.vae.encode(pixels_of(one)).latent_dist.mean for one in contents])
        latents = latents * own.vae.config.scaling_factor
    drawn: dict[int, list[torch.Tensor]] = {100: [], 300: []}
    for at in range(4):  # timesteps, then draws; all records of each
        x, t = asked[at * len(contents)]
        drawn[t].append((x - alphas[t].sqrt() * latents[0]) / (1 - alphas[t]).sqrt())
    assert [len(one) for one in drawn.values()] == [2, 2]

    def losses(captions: Sequence[str]) -> np.ndarray:
        tokens = own.tokenizer(
            list(captions), padding="max_length", max_length=own.tokenizer.model_max_length, truncation=True
        )
        with torch.no_grad():
            states = own.text_encoder(torch.tensor(tokens["input_ids"]))[0]
            found = []
            for t, noise in ((t, noise) for t, each in drawn.items() for noise in each):
                x = alphas[t].sqrt() * latents + (1 - alphas[t]).sqrt() * noise
                times = torch.full((len(x),), t)
                error = own.unet(x, times, encoder_hidden_states=states).sample - noise
                found.append(error.double().square().mean((1, 2, 3)).numpy())
        return np.mean(found, axis=0)

    captions = [one.caption for one in contents]  # type: ignore[union-attr]
    halves = {"a red cat on the mat": "a red cat", "two dogs": "two", "nothing": ""}
    halves["the moon over a dark sea"] = "the moon over"
    loss, empty = losses(captions), losses([""] * len(captions))
    half = losses([halves[one] for one in captions])
    helped = (empty - loss + half - loss) / 2

    def scaled(values: np.ndarray) -> np.ndarray:
        ordered = np.sort(values)
        low, middle, high = (np.interp(q * (len(ordered) - 1), range(len(ordered)), ordered) for q in (0.25, 0.5, 0.75))
        return (values - middle) / (high - low)

    assert found.variants.names == tuple(f"alpha={one}" for one in (0.0, 0.25, 0.5, 0.75, 0.9, 1.0))
    for at, alpha in enumerate((0, 0.25, 0.5, 0.75, 0.9, 1)):
        expected = alpha * scaled(helped) - (1 - alpha) * scaled(loss)
        np.testing.assert_allclose(found.variants.scores[:, at], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prompts", ["same", "shuffled"])
def test_clid_with_prompts_that_are_not_the_images_own(prompts: str) -> None:
    views = views_of(wrapped(tiny("sd1")))
    own, other = (scored(f"clid:t=100:draws=1:prompts={one}", views).features for one in ("own", prompts))
    assert np.abs(own - other).max() > 0.1


def test_reference_by_hand(views: Views, channels: int) -> None:
    other = target(channels, seed=1)
    beside = Views({**views.targets, "reference": other}, views.records, views.binding, views.store)
    found = scored(f"reference:t={T}", beside)
    assert found.variants is not None
    drawn = noises(channels, tuple((time, 2) for time in TIMES))
    for row in (0, 31):
        ours, theirs = (image(views.records.contents[row], channels, seed) for seed in (0, 1))
        pairs = [[(theirs.loss(drawn[t, at], t), ours.loss(drawn[t, at], t)) for at in range(3)] for t in TIMES]
        expected = [np.mean([math.log(one / own) for one, own in each]) for each in pairs]
        np.testing.assert_allclose(found.variants.scores[row], expected, rtol=1e-5, atol=1e-6)


def test_every_attack_has_an_oracle() -> None:
    others = {"shift_contrast", "reprogram", "clid", "reference", "secmi_nns"}  # the last: test_secmi_nns.py
    of_heads = {name for name, one in registry("diffusion").items() if one.bank}  # test_probe_bank.py
    assert {spec.partition(":")[0] for spec in ORACLES} | others | of_heads == set(registry("diffusion"))


def test_the_variant_with_the_best_auc_on_select_is_chosen(views: Views) -> None:
    found = scored(f"sima:t={T}", views)
    assert found.variants is not None
    select = views.binding.select
    rows = [views.records.ids.index(name) for name in select.records.ids]
    areas = [pairs(one[rows], select.member) for one in found.variants.scores.T]
    assert found.details["chosen_on_select"]["auc"] == pytest.approx(
        dict(zip(found.variants.names, areas, strict=True))
    )
    best = int(np.argmax(areas))
    assert found.details["chosen_on_select"]["variant"] == found.variants.names[best]
    assert found.scores is not None
    assert found.scores.tolist() == found.variants.scores[:, best].tolist()


def pairs(scores: np.ndarray, member: np.ndarray) -> float:
    """Share of member and non-member pairs in the right order."""
    inside, outside = scores[member], scores[~member]
    return float(np.mean((inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)))


def test_turned_labels_of_select_choose_the_variant_that_was_worst(views: Views) -> None:
    """Only the labels of select are turned; nothing else decides."""
    select = views.binding.select
    turned = replace(views.binding, select=LabelledRecords(select.records, ~select.member))
    other = Views(views.targets, views.records, turned, views.store, views.costs, views.memory)
    before, after = scored(f"pia:t={T}", views), scored(f"pia:t={T}", other)
    assert before.variants is not None
    areas = before.details["chosen_on_select"]["auc"]
    assert after.details["chosen_on_select"]["variant"] == min(areas, key=areas.get)
    assert after.details["chosen_on_select"]["auc"] == pytest.approx({name: 1 - one for name, one in areas.items()})
