"""A learned perturbation: its gradient, its bound, what it may see, how it is kept, and a case that it solves."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor

from attacks.diffusion.oracles import (
    SIZE,
    Image,
    images,
    labelled,
    noises,
    pipeline,
    pixels_of,
    spied,
    target,
    views_of,
)
from repromia.attacks import parse
from repromia.errors import AttackError
from repromia.programs import Binding
from repromia.programs.denoising import Denoised, Inverted, Noised
from repromia.programs.perturbation import (
    LearnedPerturbation,
    Perturbation,
    Unperturbed,
    saved_spec,
)
from repromia.programs.saved import dump_program, load_program, parse_program, save_program
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records, content_digest
from repromia.scoring import run_attack
from repromia.signals import DenoiseSignals
from repromia.store import Store
from repromia.targets.diffusion import DiffusionModel
from repromia.targets.pipelines import wrap_callable
from repromia.views import Views

WHERE = ("input", "state", "noise")


def binding_of(model: DiffusionModel, seed: int = 0) -> Binding:
    return replace(views_of(model).binding, seed=seed)


def learned(model: DiffusionModel, *, seed: int = 0, **options: Any) -> Perturbation:
    return LearnedPerturbation(**{"t": "20+30", "steps": 2, **options}).bind(binding_of(model, seed))


class Recorder:
    """Stands for Adam: keeps weights and gradients, and changes nothing."""

    seen: list[tuple[Tensor, Tensor]]

    def __init__(self, weights: list[Tensor], lr: float) -> None:
        (self.weights,) = weights

    def zero_grad(self) -> None:
        self.weights.grad = None

    def step(self) -> None:
        assert self.weights.grad is not None
        self.seen.append((self.weights.detach().clone(), self.weights.grad.clone()))


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    seen: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(Recorder, "seen", seen, raising=False)
    monkeypatch.setattr(torch.optim, "Adam", Recorder)
    return seen


def precise(content: Any) -> Image:
    """An image before the network in float64, so that differences can be small."""
    own = pipeline(1)
    return Image(pixels_of(content).double(), _double(), own.scheduler.alphas_cumprod.double())


@cache
def _double() -> Any:
    return copy.deepcopy(pipeline(1).unet).double()


def oracle_loss(where: str, recipe: str, fit: LabelledRecords, times: tuple[int, ...]) -> Callable[[Tensor], float]:
    """Mean softplus over pairs of members and non-members, in standard deviations of the plain score."""
    ones = [precise(content) for content in fit.records.contents]
    drawn = {t: noises(1, tuple((t, 0) for t in times))[t, 0].double() for t in times}
    plain = np.array([np.mean([one.plainly(where, t, drawn[t]) for t in times]) for one in ones])

    def loss(delta: Tensor) -> float:
        probed = np.array([np.mean([one.under(where, delta, t) for t in times]) for one in ones])
        scores = 2 * plain - probed if recipe == "contrast" else probed
        gaps = (scores[fit.member][:, None] - scores[~fit.member][None]) / plain.std(ddof=1)
        return float(np.mean(np.log1p(np.exp(-gaps))))

    return loss


@pytest.mark.parametrize(
    ("where", "recipe"), [("input", "contrast"), ("input", "paper"), ("state", "contrast"), ("noise", "contrast")]
)
def test_gradient_equals_differences_of_the_loss(
    where: str, recipe: str, gradients: list[tuple[Tensor, Tensor]]
) -> None:
    model = target(batch=5)  # several batches
    learned(model, where=where, recipe=recipe, t="20+30", steps=1, bound=16.0)
    ((weights, gradient),) = gradients
    assert weights.shape == gradient.shape == (1, SIZE, SIZE)
    loss = oracle_loss(where, recipe, binding_of(model).fit, (20, 30))
    centre = noises(1, ((20, 0), (30, 0)))[20, 0].double() if where == "noise" else torch.zeros(1).double()
    reach = 1.6 if where == "noise" else 32 / 255

    def at(place: int, step: float) -> float:
        moved = weights.double().clone()
        moved.view(-1)[place] += step
        return loss(centre + reach * torch.tanh(moved))

    largest = gradient.abs().flatten().argsort(descending=True)
    for place in (int(largest[0]), int(largest[7]), int(largest[30])):
        difference = (at(place, 1e-4) - at(place, -1e-4)) / 2e-4
        assert float(gradient.view(-1)[place]) == pytest.approx(
            difference, rel=5e-3, abs=1e-3 * float(gradient.abs().max())
        )


def test_gradient_does_not_depend_on_the_batch(gradients: list[tuple[Tensor, Tensor]]) -> None:
    for batch in (1, 7, 64):
        learned(target(batch=batch), steps=1)
    for _, one in gradients[1:]:
        assert torch.allclose(one, gradients[0][1], rtol=1e-3, atol=1e-3 * float(gradients[0][1].abs().max()))


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Perturbation]:
    """The last step of learning is always what does best on select; a rate of 5 drives tanh to its ends."""

    def learn(model: DiffusionModel, where: str, **options: Any) -> Perturbation:
        better = count()
        with monkeypatch.context() as patched:
            patched.setattr("repromia.metrics.auc", lambda *_: next(better) / 100)
            return learned(model, where=where, **{"rate": 5.0, "steps": 3, **options})

    return learn


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("bound", [4.0, 64.0])
def test_the_bound_is_never_exceeded(where: str, bound: float, kept: Callable[..., Perturbation]) -> None:
    found = kept(target(), where, bound=bound)
    if where == "noise":
        centre = noises(1, ((20, 0), (30, 0)))[20, 0][0].numpy()
        reach = np.abs(found.delta - centre).max() / (bound / 10)
    else:
        reach = np.abs(found.delta).max() / (2 * bound / 255)
    assert 0.9 < reach <= 1 + 1e-5


def test_what_the_model_sees_stays_an_image_within_the_bound(kept: Callable[..., Perturbation]) -> None:
    model = target()
    program = kept(model, "input", bound=64.0)
    records = labelled(np.concatenate([images(3), np.full((1, 8, 8, 1), 255, np.uint8)])).records
    clean = model.encode(records.contents).clean.clone()
    asked = spied(model)
    (found,) = program.ask(model, records)
    seen = torch.stack([x for x, _ in asked])
    assert [t for _, t in asked] == [20] * 4 + [30] * 4
    assert float(seen.abs().max()) == 1
    assert float((seen - torch.cat([clean, clean])).abs().max()) <= 2 * 64 / 255 + 1e-6
    assert torch.equal(model.encode(records.contents).clean, clean)  # nothing was written on
    assert found.t.tolist() == [20, 30]
    assert found.draw.tolist() == [-1, -1]


def test_a_live_model_is_left_without_gradients() -> None:
    model = target()
    weights = pipeline(1).unet.parameters()
    for one in pipeline(1).unet.parameters():
        one.grad = None
    learned(model, steps=1)
    assert all(one.grad is None for one in weights)


@pytest.mark.parametrize("where", WHERE)
def test_neither_target_nor_records_nor_random_state_change(where: str) -> None:
    model = target()
    weights = {name: one.clone() for name, one in pipeline(1).unet.state_dict().items()}
    views = views_of(model)
    contents = [content.pixels().copy() for content in views.records.contents]  # type: ignore[union-attr]
    random = torch.get_rng_state()
    learned(model, where=where)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(one, weights[name]) for name, one in pipeline(1).unet.state_dict().items())
    after = [content.pixels() for content in views.records.contents]  # type: ignore[union-attr]
    assert all(np.array_equal(one, other) for one, other in zip(contents, after, strict=True))


def test_the_seed_decides(kept: Callable[..., Perturbation]) -> None:
    first, second, other = (kept(target(), "input", seed=seed, rate=0.1) for seed in (0, 0, 1))
    assert np.array_equal(first.delta, second.delta)
    assert first.key == second.key != other.key


def test_labels_of_fit_and_select_are_all_there_is() -> None:
    """There is no place for eval labels in what a plan is given, nor in what is asked."""
    names = {one.name for one in fields(Binding)}
    assert names == {"target", "fit", "select", "seed", "progress", "longest", "memory", "about", "spread"}
    assert not any(isinstance(getattr(views_of(target()), one.name), LabelledRecords) for one in fields(Views))
    assert "member" not in {one.name for one in fields(Records)}


def test_labels_of_fit_teach_and_those_of_select_choose(gradients: list[tuple[Tensor, Tensor]]) -> None:
    binding = binding_of(target())
    fit, select = binding.fit, binding.select
    turned = replace(binding, fit=LabelledRecords(fit.records, ~fit.member))
    chosen = replace(binding, select=LabelledRecords(select.records, ~select.member))
    plan = LearnedPerturbation(t="20", steps=1)
    traces = [plan.bind(one).learned["trace"] for one in (binding, turned, chosen)]
    first, other, same = (gradient for _, gradient in gradients)
    assert not torch.allclose(first, other)
    assert torch.equal(first, same)
    assert [one["select_auc"] for one in traces[2]] == pytest.approx([1 - one["select_auc"] for one in traces[0]])


def test_what_it_was_learned_on_is_known() -> None:
    model = target()
    found = learned(model, steps=1)
    views = views_of(model)
    both = [views.binding.fit.records, views.binding.select.records]
    assert found.used == {name for one in both for name in one.ids}
    assert found.seen == {content_digest(content) for one in both for content in one.contents}


# A planted case: a mark that only shows when the image is made brighter at one place.


class Marked(torch.nn.Module):
    """eps has one size for each image: some nuisance, and six times as much where pixel (2, 3) is above .4."""

    def __init__(self) -> None:
        super().__init__()
        self.steepness = torch.nn.Parameter(torch.tensor(20.0), requires_grad=False)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        size = torch.exp(0.3 * x[:, 0, 6, 6]) * (1 + 5 * torch.sigmoid(self.steepness * (x[:, 0, 2, 3] - 0.4)))
        return size[:, None, None, None] * torch.ones_like(x)


def marked(count: int, seed: int, name: str) -> LabelledRecords:
    """Members have .2 at the mark, others -.2; everything else is noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 1)).astype(np.uint8)
    pixels[: count // 2, 2, 3], pixels[count // 2 :, 2, 3] = 153, 102
    return labelled(pixels, name=name)


def marked_views(store: Store | None = None, network: Any = None) -> tuple[Views, np.ndarray]:
    """Views, and who is a member (for the test alone)."""
    model = wrap_callable(network or Marked(), shape=(1, SIZE, SIZE))
    parts = [marked(40, 1, "fit"), marked(30, 2, "select"), marked(60, 3, "eval")]
    records = Records(
        tuple(name for one in parts for name in one.records.ids),
        tuple(content for one in parts for content in one.records.contents),
        tuple(name for one in parts for name in one.records.groups),
    )
    binding = Binding(model, parts[0], parts[1], 0, Silent(), 0)
    views = Views({"target": model}, records, binding, store or Store(None))
    return views, np.concatenate([one.member for one in parts])


def area(scores: np.ndarray, member: np.ndarray) -> float:
    inside, outside = scores[member], scores[~member]
    return float((inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean())


PLANTED = "reprogram:bound=64:t=20"


def test_a_mark_that_shows_under_a_perturbation_is_found() -> None:
    """Eval has 30 + 30 records: a score without information is above .95 once in a billion."""
    views, member = marked_views()
    found = run_attack(parse(PLANTED, "diffusion"), views)
    plain = run_attack(parse("sima:t=20", "diffusion"), views)
    assert found.scores is not None, found.reason
    assert plain.scores is not None
    details = found.details["probed"]
    assert details["kept"] == "perturbation"
    assert details["identity_select_auc"] < 0.6 < 0.95 < details["select_auc"]
    eval_rows = np.arange(70, 130)
    assert area(plain.scores[eval_rows], member[eval_rows]) < 0.6
    assert area(found.scores[eval_rows], member[eval_rows]) > 0.95
    program = next(iter(views.learned().values()))
    assert program.delta[0, 2, 3] > 0.15  # type: ignore[attr-defined]

    fit = np.arange(40)  # what it was to lower

    def loss(scores: np.ndarray) -> float:
        gaps = scores[fit][member[fit]][:, None] - scores[fit][~member[fit]]
        return float(np.log1p(np.exp(-gaps / s.std(ddof=1))).mean())

    (unperturbed,) = views.ask("target", views.program("unperturbed", parse(PLANTED, "diffusion").options))
    s = -np.log(unperturbed.square[fit, 0])
    assert loss(found.scores) < 0.5 * loss(-np.log(unperturbed.square[:, 0]))


class Dull(torch.nn.Module):
    """Answers the same to everything."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.0 * x + 0.5


class Open(torch.nn.Module):
    """Tells members by itself, perfectly: small answers where pixel (2, 3) is bright."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.exp(-x[:, 0, 2, 3])[:, None, None, None] * torch.ones_like(x)


@pytest.mark.parametrize("network", [Dull(), Open()], ids=["dull", "open"])
@pytest.mark.parametrize("recipe", ["contrast", "paper"])
def test_where_nothing_is_better_on_select_the_identity_is_kept(network: Any, recipe: str) -> None:
    views, _ = marked_views(network=network)
    found = run_attack(parse(f"{PLANTED}:steps=3:recipe={recipe}", "diffusion"), views)
    assert found.scores is not None, found.reason
    assert found.details["probed"]["kept"] == "identity"
    assert views.learned() == {}
    (plain,) = Denoised(t="20").ask(views.targets["target"], views.records)
    assert found.scores == pytest.approx(-np.log(plain.square[:, 0]))  # s(x) itself


def test_learned_once_and_read_back_from_the_run(tmp_path: Path) -> None:
    first, _ = marked_views(Store(tmp_path))
    again, _ = marked_views(Store(tmp_path))
    chosen = parse(PLANTED, "diffusion")
    once, twice = run_attack(chosen, first), run_attack(chosen, again)
    assert once.scores is not None
    assert twice.scores is not None
    assert first.targets["target"].asked > 0
    assert again.targets["target"].asked == 0
    assert once.scores.tolist() == twice.scores.tolist()
    assert once.details == twice.details


@pytest.mark.parametrize("where", WHERE)
def test_nothing_added_is_the_question_itself(where: str) -> None:
    """The comparison shares evaluations with the plain ways."""
    model = target()
    records = labelled(images(4)).records
    plain = {"input": Denoised(t="20"), "state": Inverted(t="20"), "noise": Noised(t="20")}[where]
    (expected,) = plain.ask(model, records)
    asked = model.asked
    (found,) = Unperturbed(t="20", where=where).ask(model, records)
    (identity,) = Perturbation(np.zeros(0, np.float32), where, "20", 10).ask(model, records)
    assert model.asked == asked
    for one in (found, identity):
        assert np.array_equal(one.square, expected.square)
        assert np.array_equal(one.draw, expected.draw)
    if where != "noise":
        zero = Perturbation(np.zeros((1, SIZE, SIZE), np.float32), where, "20", 10)
        np.testing.assert_allclose(zero.ask(model, records)[0].square, expected.square, rtol=1e-4)


@pytest.fixture
def program() -> Perturbation:
    delta = np.random.default_rng(0).normal(0, 0.1, (1, SIZE, SIZE)).astype(np.float32)
    details = {"recipe": "paper", "select_auc": 1 / 3, "trace": [{"step": 0, "select_auc": 0.1 + 0.2}]}
    return Perturbation(delta, "noise", "20+30", 10, details, frozenset({"a", "b"}), frozenset({"c"}))


def same(one: Perturbation, other: Perturbation) -> bool:
    rest = [
        getattr(one, name) == getattr(other, name) for name in ("where", "t", "interval", "learned", "used", "seen")
    ]
    return one.delta.dtype == other.delta.dtype and np.array_equal(one.delta, other.delta) and all(rest)


def test_saved_and_read_exactly(program: Perturbation, tmp_path: Path) -> None:
    path = tmp_path / "new" / "program.safetensors"
    save_program(program, path)
    read = load_program(path, Perturbation)
    assert same(read, program)
    assert read.key == program.key
    records = labelled(images(3)).records
    one, other = (each.ask(target(), records)[0] for each in (read, program))
    assert one.square.tolist() == other.square.tolist()
    assert saved_spec(path) == f"reprogram:where=noise:recipe=paper:t=20+30:program={path}"


@pytest.mark.parametrize("empty", [False, True])
def test_through_json_exactly(empty: bool, program: Perturbation) -> None:
    if empty:
        program = replace(program, delta=np.zeros(0, np.float32))
    value = json.loads(json.dumps(dump_program(program)))
    assert same(parse_program(value), program)
    assert parse_program(value).is_identity == empty


def test_everything_that_decides_the_answers_is_in_the_key(program: Perturbation) -> None:
    moved = program.delta.copy()
    moved[0, 0, 0] += 1e-6
    others = [
        replace(program, delta=moved),
        replace(program, delta=program.delta.reshape(SIZE, SIZE, 1)),
        replace(program, where="state"),
        replace(program, t="20"),
        replace(program, interval=5),
    ]
    assert len({program.key, *(one.key for one in others)}) == 6
    assert replace(program, learned={}).key == program.key


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def _rewritten(**changes: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        about = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps({**about, **changes}))

    return change


def _not_finite(path: Path) -> None:
    save_file({"delta": np.full((1, SIZE, SIZE), np.nan, np.float32)}, path)


def _other_tensor(path: Path) -> None:
    save_file({"embeddings": np.zeros((1, SIZE, SIZE), np.float32)}, path)


@pytest.mark.parametrize(
    "damage",
    [
        _cut,
        _not_finite,
        _other_tensor,
        _rewritten(where="nowhere"),
        _rewritten(interval="ten"),
        _rewritten(used=None),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
        lambda path: path.with_suffix(".json").write_text("[]"),
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_file_is_refused(damage: Callable[[Path], None], program: Perturbation, tmp_path: Path) -> None:
    path = tmp_path / "program.safetensors"
    save_program(program, path)
    damage(path)
    with pytest.raises(AttackError, match=r"cannot be read(.|\n)*OUT/programs"):
        load_program(path, Perturbation)
    found = run_attack(parse(f"reprogram:program={path}", "diffusion"), views_of(target()))
    assert found.scores is None
    assert "cannot be read" in found.reason


def test_a_model_of_another_shape_is_refused(program: Perturbation, tmp_path: Path) -> None:
    save_program(program, tmp_path / "program.safetensors")
    spec = saved_spec(tmp_path / "program.safetensors")
    found = run_attack(parse(spec, "diffusion"), views_of(target(3)))
    assert found.scores is None
    assert "another shape" in found.reason
    assert "(3, 8, 8)" in found.reason
    assert "(1, 8, 8)" in found.reason


def test_a_program_asked_at_other_timesteps_than_the_plain_view_is_refused(
    program: Perturbation, tmp_path: Path
) -> None:
    """s(x) at 50 and 160 and s(x under delta) at 20 and 30 cannot be compared."""
    path = tmp_path / "program.safetensors"
    save_program(program, path)
    assert run_attack(parse(f"reprogram:program={path}", "diffusion"), views_of(target())).scores is None


def test_a_program_learned_on_what_is_measured_is_refused(tmp_path: Path) -> None:
    """Whatever the records are called."""
    views = views_of(target())
    eval_content = views.records.contents[-1]
    delta = np.full((1, SIZE, SIZE), 0.1, np.float32)
    path = tmp_path / "program.safetensors"
    save_program(
        Perturbation(delta, "input", "20", 10, {}, frozenset(), frozenset({content_digest(eval_content)})), path
    )
    found = run_attack(parse(saved_spec(path), "diffusion"), views)
    assert found.scores is None
    assert "records that are measured here" in found.reason


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"where": "weights"}, r"Nothing can be added to 'weights'(.|\n)*input, state, noise"),
        ({"recipe": "secret"}, "no recipe 'secret'"),
        ({"where": "state", "t": "15"}, "not on the DDIM path"),
        ({"t": "many"}, "cannot be read"),
    ],
)
def test_what_cannot_be_learned_says_why(options: dict[str, Any], message: str) -> None:
    with pytest.raises(AttackError, match=message):
        learned(target(), **options)


@pytest.mark.parametrize("where", WHERE)
def test_a_timestep_outside_the_schedule_is_no_score(where: str) -> None:
    found = run_attack(parse(f"reprogram:where={where}:t=1000:steps=1", "diffusion"), views_of(target()))
    assert found.scores is None
    assert "outside the noise schedule" in found.reason


def test_signals_of_a_part_do_not_depend_on_the_batch(program: Perturbation) -> None:
    records = labelled(images(9)).records
    answers: list[DenoiseSignals] = []
    for where in WHERE:
        for batch in (1, 4, 64):
            one = replace(program, where=where)
            answers += one.ask(target(batch=batch), records)
    for at in range(0, 9, 3):
        for other in answers[at : at + 2]:
            np.testing.assert_allclose(other.square, answers[at + 2].square, rtol=1e-4)
    assert math.isfinite(sum(one.fourth.sum() for one in answers))
