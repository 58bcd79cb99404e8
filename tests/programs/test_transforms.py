"""Fixed changes of images, pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attacks.diffusion.oracles import SIZE, images, labelled, target
from repromia.attacks.diffusion.probe_bank import PRESETS
from repromia.errors import AttackError
from repromia.programs.denoising import Denoised
from repromia.programs.diffusion import PLANS
from repromia.programs.registry import plan_for
from repromia.programs.transforms import (
    Blur,
    Brighter,
    ChannelTurn,
    Contrast,
    Crops,
    Flip,
    NoisedCrops,
    Noisy,
    QuarterTurn,
    Shift,
    Shifts,
    shifted,
)


@pytest.fixture
def clean() -> Tensor:
    """Two colour images, wider than high, so that no axis can stand for another."""
    return torch.randn(2, 3, 6, 9, generator=torch.Generator().manual_seed(0))


def by_pixel(clean: Tensor, x: int, y: int) -> Tensor:
    """Moved right by x and down by y: each pixel comes from there, or from the nearest edge."""
    height, width = clean.shape[-2:]
    found = torch.empty_like(clean)
    for row in range(height):
        for column in range(width):
            found[..., row, column] = clean[..., min(max(row - y, 0), height - 1), min(max(column - x, 0), width - 1)]
    return found


@pytest.mark.parametrize(("x", "y"), [(1, 0), (-1, 0), (0, 1), (0, -1), (2, -3), (-5, 4), (0, 0)])
def test_a_whole_shift_repeats_the_edge(x: int, y: int, clean: Tensor) -> None:
    (found,) = Shift(x=x, y=y).changed(clean)
    assert torch.equal(found, by_pixel(clean, x, y))


def test_four_shifts_are_right_left_down_and_up(clean: Tensor) -> None:
    found = Shifts(far=2).changed(clean)
    expected = [by_pixel(clean, x, y) for x, y in ((2, 0), (-2, 0), (0, 2), (0, -2))]
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("x", "y"), [(1, 0), (-2, 0), (0, 1), (1, -2)])
def test_a_shift_by_parts_of_a_pixel_meets_the_whole_one(x: int, y: int, clean: Tensor) -> None:
    """Bicubic interpolation at whole pixels is the pixels themselves."""
    near = shifted(clean, x + 1e-6, y + 1e-6)
    assert torch.allclose(near, by_pixel(clean, x, y), atol=1e-4)


def test_half_a_pixel_is_bicubic_and_twice_is_nearly_one() -> None:
    """A ramp stays a ramp inside; the kernel of Keys (a = -.75) has weights -3/32, 19/32, 19/32, -3/32 at a half."""
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    half = shifted(ramp, 0.5, 0.0)
    assert torch.allclose(half[..., 3:-3], ramp[..., 3:-3] - 0.5, atol=1e-5)
    noisy = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    kernel = {-2: -3 / 32, -1: 19 / 32, 0: 19 / 32, 1: -3 / 32}
    expected = sum(weight * noisy[..., 3 + at : 9 + at] for at, weight in kernel.items())
    assert torch.allclose(shifted(noisy, 0.5, 0.0)[..., 3:9], expected, atol=1e-5)
    smooth = torch.sin(torch.linspace(0, 3, 24)).expand(1, 1, 24, 24)
    twice = shifted(shifted(smooth, 0.0, 0.5), 0.5, 0.0)
    twice = shifted(shifted(twice, 0.5, 0.0), 0.0, 0.5)
    assert torch.allclose(twice[..., 5:-5, 5:-5], by_pixel(smooth, 1, 1)[..., 5:-5, 5:-5], atol=5e-3)


@pytest.mark.parametrize("change", [{"x": 6.0}, {"y": -6.0}, {"x": 40.0}])
def test_a_shift_as_large_as_the_image_is_refused(change: dict[str, float], clean: Tensor) -> None:
    with pytest.raises(AttackError, match="as large as the image"):
        Shift(**change).changed(clean)


def test_turned_all_the_way_round_is_nothing(clean: Tensor) -> None:
    for axis in ("horizontal", "vertical"):
        (once,) = Flip(axis=axis).changed(clean)
        assert torch.equal(once[0, 0, 0, 0], clean[0, 0, 0, -1] if axis == "horizontal" else clean[0, 0, -1, 0])
        assert torch.equal(Flip(axis=axis).changed(once)[0], clean)
    square = turned = clean[..., :6]
    for _ in range(4):
        assert torch.equal(QuarterTurn().changed(turned)[0][..., 0, :], turned[..., :, -1])  # against the clock
        (turned,) = QuarterTurn().changed(turned)
    assert torch.equal(turned, square)
    assert torch.equal(QuarterTurn(times=3).changed(QuarterTurn().changed(square)[0])[0], square)
    assert torch.equal(QuarterTurn(times=2).changed(clean)[0], clean.flip(-1, -2))  # need not be square
    rolled = clean
    for _ in range(3):
        (rolled,) = ChannelTurn().changed(rolled)
    assert torch.equal(rolled, clean)
    assert torch.equal(ChannelTurn().changed(clean)[0][:, 1], clean[:, 0])  # red becomes green


def test_values(clean: Tensor) -> None:
    assert torch.equal(Brighter(by=0.25).changed(clean)[0], clean + 0.25)
    mean = clean[1].mean()
    assert torch.allclose(Contrast(by=0.5).changed(clean)[0][1], (clean[1] + mean) / 2, atol=1e-6)
    noise = Noisy(level=0.5).changed(clean)[0] - clean
    assert torch.allclose(noise[0], noise[1], atol=1e-6)  # the same for all records
    assert 0.35 < float(noise[0].std()) < 0.65  # 162 values
    assert torch.allclose(Noisy(level=0.25).changed(clean)[0] - clean, noise / 2, atol=1e-6)
    assert not torch.allclose(Noisy(level=0.5, draw=1).changed(clean)[0] - clean, noise, atol=0.1)


def test_blur_by_hand(clean: Tensor) -> None:
    found = Blur().changed(clean)[0]
    weights = {-1: 0.25, 0: 0.5, 1: 0.25}
    around = [(dx, dy, weights[dx] * weights[dy]) for dx in weights for dy in weights]
    expected = sum(share * by_pixel(clean, dx, dy) for dx, dy, share in around)
    assert torch.allclose(found, expected, atol=1e-6)
    assert torch.allclose(Blur(times=2).changed(clean)[0], Blur().changed(found)[0])
    assert torch.equal(Blur(times=0).changed(clean)[0], clean)


def enlarged(cut: Tensor, size: int) -> Tensor:
    """Bilinear between pixel centres, edges repeated."""
    small = cut.shape[-1]
    at = ((torch.arange(size) + 0.5) * small / size - 0.5).clamp(0, small - 1).double()
    low = at.floor().long().clamp(max=small - 1)
    high = (low + 1).clamp(max=small - 1)
    share = at - low

    def along(values: Tensor) -> Tensor:
        return values[..., low] * (1 - share) + values[..., high] * share

    return along(along(cut.double()).transpose(-1, -2)).transpose(-1, -2)


@pytest.mark.parametrize("plan", [Crops(count=3), NoisedCrops(count=3)])
def test_crops_by_hand(plan: Crops) -> None:
    clean = torch.randn(2, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    found = plan.changed(clean)
    for one, (size, edge) in zip(found, ((19, 0), (16, 2), (14, 3)), strict=True):  # 95, 82.5 and 70 % of 20
        cut = clean[..., edge : edge + size, edge : edge + size]
        assert torch.allclose(one.double(), enlarged(cut, 20), atol=1e-5)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (Flip(axis="diagonal"), r"no such axis(.|\n)*horizontal or vertical(.|\n)*diagonal"),
        (QuarterTurn(), "needs square images"),
        (QuarterTurn(times=-1), "needs square images"),
    ],
)
def test_what_cannot_be_done_says_so(program: Any, message: str, clean: Tensor) -> None:
    with pytest.raises(AttackError, match=message):
        program.changed(clean)


def test_a_single_channel_cannot_be_passed_on(clean: Tensor) -> None:
    with pytest.raises(AttackError, match="single channel"):
        ChannelTurn().changed(clean[:, :1])


def every_plan() -> list[Any]:
    others = {"learned_perturbation", "unperturbed", "noised_without_caption", "noised_with_half_caption"}
    plans = [kind() for name, kind in PLANS.items() if name not in others and issubclass(kind, Denoised)]
    of_bank = [plan_for(one, {}, "diffusion") for one in PRESETS["full"]]
    return [*plans, Shift(x=1), Shift(x=0.5), Shifts(far=0.5), *of_bank]


@pytest.mark.parametrize("program", every_plan(), ids=lambda one: repr(one)[:60])
def test_nothing_else_is_changed(program: Any, clean: Tensor) -> None:
    """The image that came is not written on; what comes out fits; the name says what was done."""
    square = torch.cat([clean, clean], dim=-2)[..., :9, :].contiguous()
    before = square.clone()
    found = program.changed(square)
    assert torch.equal(square, before)
    assert all(one.shape == before.shape and one.isfinite().all() for one in found)
    again = program.changed(square)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


def test_no_two_changes_have_one_name() -> None:
    """Equal names share evaluations."""
    plans = [one for one in every_plan() if type(one).changed is not Denoised.changed]
    clean = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    by_name: dict[str, tuple[Tensor, ...]] = {}
    for plan in plans:
        found = by_name.setdefault(plan.change, plan.changed(clean))
        assert all(torch.equal(one, other) for one, other in zip(found, plan.changed(clean), strict=True)), plan.change
    assert len(by_name) > 15


def test_a_change_is_asked_about_in_place_of_the_image() -> None:
    """Flipped pictures asked plainly, and plain pictures asked under a flip."""
    pixels = images(3, 3)
    flipped = labelled(np.ascontiguousarray(pixels[:, :, ::-1])).records
    (under,) = Flip(t="20+50").ask(target(3), labelled(pixels).records)
    (plain,) = Denoised(t="20+50").ask(target(3), flipped)
    np.testing.assert_allclose(under.square, plain.square, rtol=1e-5)
    np.testing.assert_allclose(under.fourth, plain.fourth, rtol=1e-5)
    (other,) = Denoised(t="20+50").ask(target(3), labelled(pixels).records)
    assert np.abs(under.square / other.square - 1).max() > 1e-3


def test_variants_stand_in_order() -> None:
    records, model = labelled(images(3)).records, target()
    found = Shifts(t="20").ask(model, records)
    singles = [Shift(t="20", x=x, y=y) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    for one, single in zip(found, singles, strict=True):
        np.testing.assert_allclose(one.square, single.ask(target(), records)[0].square, rtol=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("shiftt", "no program 'shiftt'"),
        ("shift/z=1", r"no option 'z'(.|\n)*x="),
        ("shifts/far=near", "cannot be 'near'"),
        ("lower_case", "no program 'lower_case'"),
    ],
)
def test_wrong_specs_are_refused(spec: str, message: str) -> None:
    with pytest.raises(AttackError, match=message):
        plan_for(spec, {}, "diffusion")
