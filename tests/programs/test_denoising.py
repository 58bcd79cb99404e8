"""Ways of asking a denoiser against the network itself; what is asked once, and what never changes an answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attacks.diffusion.oracles import SIZE, Image, image, images, labelled, noises, pixels_of, spied, target, views_of
from diffusion_models import ddpm, tiny, wrapped
from repromia.attacks import choose, parse
from repromia.errors import AttackError, TargetError
from repromia.programs import denoising
from repromia.programs.denoising import (
    Denoised,
    Inverted,
    Noised,
    NoisedWithHalfCaption,
    NoisedWithoutCaption,
    OwnNoise,
    OwnNoiseNormalised,
    changed_captions,
    timesteps_of,
)
from repromia.programs.transforms import Flip, Shifts
from repromia.records import Picture, Records
from repromia.scoring import programs_asked, run_attack
from repromia.signals import DenoiseSignals
from repromia.store import Store
from repromia.targets.diffusion import DiffusionModel
from repromia.views import Views

TIMES = (0, 20, 50)
T = "0+20+50"
WAYS: dict[str, Callable[[Image, int, int], float]] = {
    "clean": lambda one, t, p: one.sima(t, p),
    "own_noise": lambda one, t, p: one.pia(t, p),
    "own_noise_normalised": lambda one, t, p: one.pia(t, p, normalised=True),
}


def records(count: int = 6, channels: int = 1) -> Records:
    return labelled(images(count, channels)).records


def equal(one: DenoiseSignals, other: DenoiseSignals, rtol: float = 0.0) -> bool:
    same = np.array_equal(one.t, other.t) and np.array_equal(one.draw, other.draw)
    return same and all(
        np.allclose(getattr(one, name), getattr(other, name), rtol=rtol, atol=0) for name in ("square", "fourth")
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("way", WAYS)
def test_second_and_fourth_powers_of_every_way(way: str, channels: int) -> None:
    asked = records(4, channels)
    (found,) = Denoised(t=T, way=way).ask(target(channels), asked)
    assert found.timesteps == TIMES
    assert found.draw.tolist() == [-1 if way == "clean" else -2] * 3
    ones = [image(content, channels) for content in asked.contents]
    for power, values in ((2, found.square), (4, found.fourth)):
        expected = [[WAYS[way](one, t, power) for t in TIMES] for one in ones]
        exact = 1e-5 if way == "clean" else 1e-4  # two predictions that nearly cancel at small t, in float32
        np.testing.assert_allclose(values, expected, rtol=exact)


@pytest.mark.parametrize("channels", [1, 3])
def test_drawn_noise_by_timestep_and_draw(channels: int) -> None:
    asked = records(4, channels)
    (found,) = Noised(t="20+50+120", draws=3).ask(target(channels), asked)
    assert found.t.tolist() == [20, 20, 20, 50, 50, 50, 120, 120, 120]
    assert found.draw.tolist() == [0, 1, 2] * 3
    drawn = noises(channels, ((20, 2), (50, 2), (120, 2)))
    for row, content in enumerate(asked.contents):
        one = image(content, channels)
        expected = [one.loss(drawn[int(t), int(draw)], int(t)) for t, draw in zip(found.t, found.draw, strict=True)]
        np.testing.assert_allclose(found.square[row], expected, rtol=1e-5)


@pytest.mark.parametrize(("t", "interval"), [("10", 10), ("50+20", 10), ("60+30", 15)])
def test_inversion_at_several_points_of_one_path(t: str, interval: int) -> None:
    asked = records(3)
    model = target()
    (found,) = Inverted(t=t, interval=interval).ask(model, asked)
    times = [int(one) for one in t.split("+")]
    assert found.t.tolist() == times
    assert model.asked == 3 * (max(times) // interval + 1)
    for row, content in enumerate(asked.contents):
        one = image(content, 1)
        assert found.square[row] == pytest.approx([one.secmi(at, interval) for at in times], rel=1e-4)
        assert found.fourth[row] == pytest.approx([one.secmi(at, interval, 4) for at in times], rel=1e-4)


def test_the_noise_is_normal_and_the_same_for_every_record_and_program() -> None:
    model = target()
    asked = spied(model)
    contents = records(5)
    for program in (Noised(t="100+200", draws=2), replace(Noised(t="200"), draws=3)):
        model._part = None
        program.ask(model, contents)
    alphas = model.alphas
    drawn: dict[int, list[torch.Tensor]] = {100: [], 200: []}
    clean = torch.cat([pixels_of(one) for one in contents.contents])
    for at in range(0, len(asked), 5):
        t = asked[at][1]
        x = torch.stack([one for one, _ in asked[at : at + 5]])
        noise = (x - alphas[t].sqrt() * clean) / (1 - alphas[t]).sqrt()
        assert np.ptp(noise.numpy(), axis=0).max() < 1e-5  # one noise for all records
        drawn[t].append(noise[0])
    assert [len(one) for one in drawn.values()] == [2, 5]
    for one, other in ((0, 2), (1, 3)):  # another program, the same draws
        assert torch.allclose(drawn[200][one], drawn[200][other], atol=1e-5)
    different = torch.stack([*drawn[100], *drawn[200][:2], drawn[200][4]])
    assert torch.corrcoef(different.flatten(1)).triu(1).abs().max() < 0.5  # of 64 pixels: 1/8 is one deviation
    many = torch.stack([one for each in noises(3, tuple((t, 4) for t in range(50, 60))).values() for one in each])
    assert abs(float(many.mean())) < 4 / many.numel() ** 0.5  # fixed seeds; else once in 16,000
    assert abs(float(many.square().mean()) - 1) < 4 * (2 / many.numel()) ** 0.5


@dataclass
class Counted:
    """A model of its own and what its questions cost a record."""

    model: DiffusionModel
    records: Records

    def __call__(self, *programs: Any) -> float:
        before = self.model.asked
        for program in programs:
            program.ask(self.model, self.records)
        return (self.model.asked - before) / len(self.records)


@pytest.fixture
def cost() -> Counted:
    return Counted(target(), records())


def test_the_clean_image_at_0_is_asked_once_for_sima_pia_pian_and_secmi(cost: Counted) -> None:
    assert cost(OwnNoise(t="50")) == 2
    assert cost(OwnNoiseNormalised(t="50")) == 1
    assert cost(Inverted(t="20")) == 2
    assert cost(Denoised(t="0")) == 0
    other = Counted(target(), records())
    assert other(Denoised(t="0")) == 1
    assert other(OwnNoise(t="50"), OwnNoiseNormalised(t="50"), Inverted(t="20")) == 4


def test_what_was_asked_before_costs_nothing(cost: Counted) -> None:
    assert cost(Noised(t="20+50", draws=2)) == 4
    assert cost(Noised(t="50+20", draws=2)) == 0
    assert cost(Noised(t="20+50+60", draws=3)) == 5
    assert cost(Inverted(t="50")) == 6
    assert cost(Inverted(t="20+30+40")) == 0  # on the way
    assert cost(Inverted(t="50", interval=5)) == 10  # another path
    assert cost(Shifts(t="50")) == 4
    assert cost(Shifts(t="50+60")) == 4
    assert cost(Shifts(t="50", far=2)) == 4  # another change
    assert cost(Flip(t="50"), Flip(t="50", axis="vertical")) == 2
    assert cost(Flip(t="50", way="noised")) == 1


def test_shared_answers_are_the_answers(cost: Counted) -> None:
    programs = [OwnNoise(t="50"), Inverted(t="20+40"), Denoised(t="0+30"), Noised(t="30", draws=2), Inverted(t="30")]
    for program in programs:
        (shared,) = program.ask(cost.model, cost.records)
        (alone,) = program.ask(target(), cost.records)
        assert equal(shared, alone, 1e-5)


def test_other_records_share_nothing(cost: Counted) -> None:
    assert cost(Denoised(t="0+30")) == 2
    others = labelled(images(6, seed=9)).records
    (found,) = Denoised(t="0+30").ask(cost.model, others)
    assert cost.model.asked == 4 * 6
    assert equal(found, Denoised(t="0+30").ask(target(), others)[0], 1e-5)


def test_captions_are_part_of_the_question() -> None:
    model = wrapped(tiny("sd1"))
    pixels = images(3, 3).repeat(2, 1).repeat(2, 2)
    cost = Counted(model, labelled(pixels, ("a red cat", "two dogs", "the sea")).records)
    assert cost(Noised(t="50", draws=2), NoisedWithoutCaption(t="50", draws=2)) == 4
    assert cost(NoisedWithHalfCaption(t="50", draws=2)) == 2
    assert cost(Noised(t="50", draws=2), NoisedWithoutCaption(t="50", draws=2)) == 0
    assert cost(Noised(t="50", prompts="shuffled")) == 1
    (own,) = Noised(t="50", draws=2).ask(model, cost.records)
    (empty,) = NoisedWithoutCaption(t="50", draws=2).ask(model, cost.records)
    assert np.abs(own.square / empty.square - 1).min() > 1e-5


PASSIVE = "naive:t=20+50,pia:t=20+50,pian:t=20+50,secmi_stat:t=20,sima:t=0+20,pfami:t=20:count=2,shift_contrast:t=20"


def asked_by(views: Views, specs: str = PASSIVE) -> list[Any]:
    chosen = choose(tuple(specs.split(",")), reference=False, modality="diffusion")
    return programs_asked([one for one in chosen if one.name in specs.split(",")], views, "target")


def test_asked_together_and_one_by_one_are_equal() -> None:
    together, one_by_one = views_of(target()), views_of(target())
    programs = asked_by(together)
    together.ask_together("target", programs)
    spent = together.targets["target"].asked
    # clean: 0 and 20; noised: 2 times 3; PIA 2, PIAN 2; SecMI 2; crops: 2; shifts: 4
    assert spent == len(together.records) * (2 + 6 + 2 + 2 + 2 + 2 + 4)
    for program in programs:
        found = together.ask("target", program)
        expected = one_by_one.ask("target", program)
        assert len(found) == len(expected)
        assert all(equal(one, other, 1e-6) for one, other in zip(found, expected, strict=True))
    assert together.targets["target"].asked == spent
    assert sum(one.tokens for one in together.costs) == spent


def test_a_program_that_fails_is_left_out_and_the_others_survive() -> None:
    views = views_of(target())
    good, bad = Denoised(t="20"), Shifts(t="20", far=SIZE)
    views.ask_together("target", [bad, good, Inverted(t="15"), Denoised(t="5000")])
    asked = views.targets["target"].asked
    assert asked == len(views.records)
    assert len(views.ask("target", good)[0]) == len(views.records)
    assert views.targets["target"].asked == asked
    with pytest.raises(AttackError, match="as large as the image"):
        views.ask("target", bad)
    for spec, reason in (("secmi_stat:t=15", "not on the DDIM path"), ("sima:t=5000", "outside the noise schedule")):
        assert reason in run_attack(parse(spec, "diffusion"), views).reason


def test_answers_that_are_not_finite_at_one_timestep_leave_the_others() -> None:
    model = target()
    predict = model.denoiser.predict

    def overflowing(x: torch.Tensor, t: torch.Tensor, conditions: Any) -> torch.Tensor:
        return torch.where((t == 80)[:, None, None, None], float("nan"), predict(x, t, conditions))

    model.denoiser.predict = overflowing  # type: ignore[method-assign]
    views = views_of(model)
    views.ask_together("target", [Noised(t="80"), Denoised(t="20")])
    assert "not finite" in run_attack(parse("naive:t=80", "diffusion"), views).reason
    assert not run_attack(parse("sima:t=20", "diffusion"), views).reason


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiffusionModel, "part_records", 10)


@pytest.mark.usefixtures("small_parts")
def test_stored_parts_are_read_again_at_no_cost(tmp_path: Path) -> None:
    first, second = (views_of(target(), store=Store(tmp_path)) for _ in range(2))
    programs = asked_by(first)
    first.ask_together("target", programs)
    second.ask_together("target", programs)
    assert first.targets["target"].asked > 0
    assert second.targets["target"].asked == 0
    for program in programs:
        pairs = zip(first.ask("target", program), second.ask("target", program), strict=True)
        assert all(equal(one, other) for one, other in pairs)


@pytest.mark.usefixtures("small_parts")
def test_a_killed_run_goes_on_with_the_missing_parts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 records in parts of 10, 10, 10 and 2; killed at the third part, after half of its programs."""
    whole = views_of(target())
    programs = [Noised(t="20", draws=2), Denoised(t="0+30"), Flip(t="30"), OwnNoise(t="50")]
    whole.ask_together("target", programs)

    class Killed(BaseException):
        pass

    killed = views_of(target(), store=Store(tmp_path))
    model = killed.targets["target"]
    noise = model.noise
    monkeypatch.setattr(model, "noise", lambda *a: noise(*a) if model.asked < 140 else (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        killed.ask_together("target", programs)
    kept = len(list((tmp_path / "parts").glob("*.safetensors")))
    assert kept == 2 * 4 + 1
    again = views_of(target(), store=Store(tmp_path))
    again.ask_together("target", programs)
    # a record costs 2 + 2 + 1 + 1, OwnNoise starts from what Denoised asked; of the third part 2 are stored
    assert whole.targets["target"].asked == 32 * 6
    assert again.targets["target"].asked == 10 * 4 + 2 * 6
    for program in programs:
        assert equal(again.ask("target", program)[0], whole.ask("target", program)[0], 1e-5)


@pytest.mark.usefixtures("small_parts")
def test_parts_share_within_themselves_though_some_are_stored(tmp_path: Path) -> None:
    first = views_of(target(), store=Store(tmp_path))
    first.ask_together("target", [Denoised(t="0")])
    again = views_of(target(), store=Store(tmp_path))
    again.ask_together("target", [Denoised(t="0"), OwnNoise(t="50"), OwnNoiseNormalised(t="50")])
    assert again.targets["target"].asked == 3 * len(again.records)  # the stored mean is not the prediction


SPECS = (*PASSIVE.split(","), "probe_bank:t=20", "probe_bank:programs=shifts+noised/t=50/draws=2:t=20")


def figures(views: Views) -> list[np.ndarray]:
    found = [run_attack(parse(spec, "diffusion"), views) for spec in SPECS]
    assert not [one.reason for one in found if one.reason]
    return [one.bank.features if one.bank is not None else one.features for one in found]


@pytest.fixture(scope="module")
def expected() -> list[np.ndarray]:
    return figures(views_of(target()))


@pytest.mark.parametrize("batch", [1, 7])
def test_batch_size_does_not_matter(batch: int, expected: list[np.ndarray]) -> None:
    for one, other in zip(figures(views_of(target(batch=batch))), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("size", [4, 31])
def test_part_size_does_not_matter(size: int, expected: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DiffusionModel, "part_records", size)
    for one, other in zip(figures(views_of(target())), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_order_and_company_do_not_matter(expected: list[np.ndarray]) -> None:
    """Select has to be there to choose; everything else may come and go."""
    views = views_of(target())
    order = np.random.default_rng(0).permutation(len(views.records))
    turned = views_of(target(), records=views.records.take(order))
    few = [*range(16, 28), 30]
    alone = views_of(target(), records=views.records.take(few))
    for one, other, third in zip(figures(turned), expected, figures(alone), strict=True):
        np.testing.assert_allclose(one, other[order], rtol=1e-4, atol=1e-5 * np.abs(other).max())
        np.testing.assert_allclose(third, other[few], rtol=1e-4, atol=1e-5 * np.abs(other).max())


def test_folding_over_timesteps_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    programs = [Noised(t="20+50", draws=3), Denoised(t="0+20+50"), OwnNoise(t="20+50+60"), Inverted(t="20+40")]
    folded = [one.ask(target(), records())[0] for one in programs]
    monkeypatch.setattr(denoising, "FOLDED_FLOATS", 1)
    for program, expected in zip(programs, folded, strict=True):
        assert equal(program.ask(target(), records())[0], expected, 1e-5)


@pytest.mark.parametrize(
    ("text", "found"),
    [("30", (30,)), ("30+80", (30, 80)), ("30-80", (30, 80)), ("5+5+3", (5, 3)), ("0+7-9", (0, 7, 9))],
)
def test_timesteps(text: str, found: tuple[int, ...]) -> None:
    assert timesteps_of(text) == found


@pytest.mark.parametrize("text", ["", "a", "3.5", "3,5", "-3", "1++2"])
def test_no_timesteps(text: str) -> None:
    with pytest.raises(AttackError, match="cannot be read"):
        timesteps_of(text)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Denoised(way="backwards"), "no way to ask"),
        (Denoised(prompts="none"), "no prompts"),
        (Denoised(reduced="third"), "no prompts"),
        (Noised(draws=0), "at least 1"),
        (Denoised(t="1000"), r"outside the noise schedule(.|\n)*0 to 999(.|\n)*1000"),
        (Inverted(t="15"), "not on the DDIM path"),
        (Inverted(t="0+10"), "not on the DDIM path"),
        (NoisedWithoutCaption(), "not asked with captions"),
    ],
)
def test_what_cannot_be_asked_says_why(program: Any, message: str) -> None:
    with pytest.raises(AttackError, match=message):
        program.ask(target(), records())


@pytest.mark.parametrize("interval", [0, -10])
def test_an_interval_that_goes_nowhere(interval: int) -> None:
    with pytest.raises(AttackError, match="not on the DDIM path"):
        Inverted(t="20", interval=interval).ask(target(), records())


def test_answers_that_are_not_finite_are_no_signals() -> None:
    model = target()
    predict = model.denoiser.predict
    model.denoiser.predict = lambda *asked: predict(*asked) * float("nan")  # type: ignore[method-assign]
    with pytest.raises(TargetError, match="not finite"):
        Denoised().ask(model, records())


def test_captions_changed() -> None:
    captions = ["one two three four", "five six seven", "eight", ""]
    assert changed_captions(captions, "own", "half") == ["one two", "five", "", ""]
    assert changed_captions(captions, "own", "empty") == [""] * 4
    assert len(set(changed_captions(captions, "same", ""))) == 1
    shuffled = changed_captions(captions, "shuffled", "")
    assert sorted(shuffled) == sorted(captions)
    assert shuffled != captions
    assert changed_captions(captions, "shuffled", "") == shuffled


def test_records_that_are_no_images_are_refused() -> None:
    with pytest.raises(TargetError, match="records are not images"):
        Denoised().ask(target(), Records(("a",), ("a text",), ("a",)))
    assert all(isinstance(one, Picture) for one in records().contents)


@pytest.mark.parametrize("count", [2, 3, 8, 64])
def test_shuffled_captions_are_never_the_own(count: int) -> None:
    captions = [str(one) for one in range(count)]
    shuffled = changed_captions(captions, "shuffled", "")
    assert sorted(shuffled) == sorted(captions)
    assert not any(one == other for one, other in zip(captions, shuffled, strict=True))


def test_a_short_schedule_says_how_short_it_is_and_what_to_write() -> None:
    model = wrapped(ddpm(num_train_timesteps=50))
    with pytest.raises(AttackError, match=r"(?s)has 50 timesteps.*0 to 49.*50, 160.*t=2\+8") as refused:
        Denoised(t="50+160").ask(model, records(channels=3))
    assert [len(line) < 120 for line in str(refused.value).splitlines()] == [True] * 4
