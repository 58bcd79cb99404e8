"""Shadow models: random halves, training, asking, resuming, and models saved elsewhere."""

from __future__ import annotations

import gc
import sys
import weakref
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from repromia.errors import ConfigError, RecordsError, RepromiaError, TargetError
from repromia.function_key import described
from repromia.programs.queries import Augmented
from repromia.progress import Silent
from repromia.records import Records, TableRow
from repromia.shadow_files import SavedShadows
from repromia.shadows import TrainedShadows, masks, training_function
from repromia.store import Store
from repromia.targets.classifier import Classifier
from repromia.targets.inputs import Rows

CLASSES = tuple("0123456789")
NOWHERE = Store(None)


@cache
def digits(count: int = 240) -> Records:
    """Real handwritten digits, 64 numbers each."""
    values, labels = load_digits(return_X_y=True)
    rows = [TableRow(tuple(map(float, values[at] / 16)), str(labels[at])) for at in range(count)]
    names = tuple(f"digit {at}" for at in range(count))
    return Records(names, tuple(rows), names)


def arrays(records: Records) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and classes."""
    rows = [one for one in records.contents if isinstance(one, TableRow)]
    return np.array([one.values for one in rows]), np.array([int(one.label) for one in rows])


def regression(records: Records, seed: int) -> LogisticRegression:
    """Loose enough to remember its half."""
    return LogisticRegression(C=100.0, max_iter=200, random_state=seed).fit(*arrays(records))


def network(records: Records, seed: int) -> torch.nn.Module:
    """Trained with the global generator: seeded before it is called."""
    values, labels = (torch.from_numpy(one) for one in arrays(records))
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(30):
        rows = torch.randperm(len(values))[:64]
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(model(values[rows]), labels[rows]).backward()
        optimiser.step()
    return model


def as_classifier(model: Any) -> Classifier:
    """What a pipeline's own wrapper does."""
    if isinstance(model, torch.nn.Module):
        return Classifier(model, Rows(64), module=model)
    return Classifier(
        lambda values: model.predict_proba(values.numpy()),
        Rows(64),
        classes=tuple(map(str, model.classes_)) if hasattr(model, "classes_") else (),
        answer="probabilities",
        identity=repr(model),
    )


def shadows(train: Any = regression, **options: Any) -> TrainedShadows:
    return TrainedShadows(train, options.pop("wrap", as_classifier), **{"count": 4, "classes": CLASSES, **options})


@given(
    count=st.integers(2, 9),
    groups=st.lists(st.integers(0, 7), min_size=1, max_size=30),
    seed=st.integers(0, 2**32),
)
def test_every_record_is_in_half_of_the_models_and_groups_stay_together(
    count: int, groups: list[int], seed: int
) -> None:
    names = tuple(map(str, range(len(groups))))
    records = Records(names, names, tuple(map(str, groups)))
    inside = masks(count, records, seed)
    assert inside.shape == (count, len(groups))
    assert set(inside.sum(axis=0).tolist()) <= {count // 2, (count + 1) // 2}
    for group in set(groups):
        assert len(np.unique(inside[:, np.array(groups) == group], axis=1).T) == 1
    assert (inside == masks(count, records, seed)).all()


def test_halves_are_drawn_record_by_record() -> None:
    inside = masks(16, digits(), 0).astype(float)
    assert (inside != masks(16, digits(), 1)).any()
    assert np.abs(inside.mean(axis=1) - 0.5).max() < 0.15
    together = np.corrcoef(inside.T)[np.triu_indices(len(inside.T), 1)]
    assert abs(together.mean()) < 0.02
    odd = masks(5, digits(), 0).sum(axis=0)
    assert 0.35 < (odd == 3).mean() < 0.65


def test_fewer_than_two_models_and_records_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ConfigError, match="pairs"):
        masks(1, digits(), 0)
    one = digits().take([0])
    with pytest.raises(RecordsError, match="too few"):
        shadows().signals(one, NOWHERE, Silent())
    with pytest.raises(RecordsError, match="null model"):
        shadows().null_model(one)


@pytest.mark.parametrize("train", [regression, network])
def test_shadows_tell_their_own_half_apart_and_are_the_models_that_they_say(train: Any) -> None:
    told = shadows(train, count=6).signals(digits(), NOWHERE, Silent())
    assert told.logprob.shape == (6, 240, 1)
    assert told.logprob.dtype == told.other.dtype == np.float32
    assert (told.inside == masks(6, digits(), 0)).all()
    held = told.scaled_logit[:, :, 0]
    assert held[told.inside].mean() > held[~told.inside].mean() + 0.2


def test_figures_are_those_of_a_model_trained_by_hand() -> None:
    built = shadows()
    told = built.signals(digits(), NOWHERE, Silent())
    by_hand = as_classifier(regression(digits().take(np.flatnonzero(told.inside[2])), built._seeds()[2]))
    (answer,) = Augmented().ask(by_hand, digits())
    np.testing.assert_allclose(told.logprob[2, :, 0], answer.logprob, rtol=1e-4, atol=1e-6)
    assert told.top.shape == told.top_classes.shape == (4, 240, 3)
    for at, row in enumerate(answer.logprobs.tolist()):
        best = sorted(range(10), key=lambda one: -row[one])[:3]
        assert told.top_classes[2, at].tolist() == best
        np.testing.assert_allclose(told.top[2, at], [row[one] for one in best], rtol=1e-4, atol=1e-6)


def test_global_generators_are_seeded_for_the_training_and_left_as_they_were() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads())  # type: ignore[index]
    first = shadows(network).signals(digits(), NOWHERE, Silent())
    assert (torch.get_rng_state() == before[0]).all()
    assert (np.random.get_state()[1] == before[1]).all()  # type: ignore[index]
    assert torch.get_num_threads() == before[2]
    torch.manual_seed(6)
    again = shadows(network).signals(digits(), NOWHERE, Silent())
    assert (first.logprob == again.logprob).all()
    assert (first.logprob != shadows(network, seed=1).signals(digits(), NOWHERE, Silent()).logprob).any()


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    runs: list[int] = []

    def stumbling(records: Records, seed: int) -> Any:
        runs.append(seed)
        if len(runs) == 3:
            raise KeyboardInterrupt
        return regression(records, seed)

    built, store = shadows(stumbling, train_key="regression"), Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        built.signals(digits(), store, Silent())
    told = built.signals(digits(), store, Silent())
    assert runs == [*built._seeds()[:3], *built._seeds()[2:4]]
    built.signals(digits(), store, Silent())
    assert len(runs) == 5
    assert (told.logprob == shadows().signals(digits(), NOWHERE, Silent()).logprob).all()
    for other in ({"train_key": "another"}, {"seed": 1}, {"wrap_key": "another"}, {"count": 2}):
        options: dict[str, Any] = {"train_key": "regression", "count": 4, **other}
        assert shadows(stumbling, **options).key != built.key
        before = len(runs)
        shadows(stumbling, **options).signals(digits(), store, Silent())
        assert len(runs) == before + options["count"]


def test_one_model_is_held_at_a_time() -> None:
    alive: list[weakref.ref[torch.nn.Module]] = []

    def watched(records: Records, seed: int) -> torch.nn.Module:
        assert all(one() is None for one in alive)
        model = network(records, seed)
        alive.append(weakref.ref(model))
        return model

    shadows(watched).signals(digits(), NOWHERE, Silent())
    assert len(alive) == 4


def test_the_null_model_has_a_half_and_a_seed_of_its_own() -> None:
    seen: list[tuple[tuple[str, ...], int]] = []

    def watched(records: Records, seed: int) -> Any:
        seen.append((records.ids, seed))
        return regression(records, seed)

    built = shadows(watched)
    assert isinstance(built.null_model(digits()), Classifier)
    built.signals(digits(), NOWHERE, Silent())
    (null, null_seed), *others = seen
    assert 60 < len(null) < 180
    assert all(null != ids and null_seed != seed for ids, seed in others)


def failing(records: Records, seed: int) -> Any:
    raise ZeroDivisionError("a loss of nothing")


def few_classes(records: Records, seed: int) -> Any:
    return regression(records.take([at for at, one in enumerate(records.contents) if one.label in "01"]), seed)  # type: ignore[union-attr]


def collapsed(records: Records, seed: int) -> torch.nn.Module:
    model = network(records, seed)
    torch.nn.init.zeros_(model[2].weight)  # type: ignore[index]
    return model


def five_logits(records: Records, seed: int) -> torch.nn.Module:
    return torch.nn.Linear(64, 5).double()


def unfitted(records: Records, seed: int) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)).double()


def labels_only(model: Any) -> Classifier:
    return Classifier(lambda values: model.predict(values.numpy()), Rows(64), answer="label", classes=CLASSES)


@pytest.mark.parametrize(
    ("train", "wrap", "message"),
    [
        (failing, as_classifier, r"training function failed.*\n.*ZeroDivisionError: a loss of nothing"),
        (lambda records, seed: None, as_classifier, "returned nothing"),
        (lambda records, seed: LogisticRegression(), as_classifier, "NotFittedError"),
        (unfitted, as_classifier, r"knows nothing of the records.*expected: a fitted model.*found:    right on"),
        (few_classes, as_classifier, r"not those of the target.*10 classes.*found:    2"),
        (five_logits, as_classifier, r"another number of classes.*10 classes.*found:    5"),
        (collapsed, as_classifier, "the same to everything"),
        (regression, labels_only, "labels only"),
        (regression, lambda model: model, "no classifier"),
        (regression, lambda model: model.no_such, r"cannot be taken for a classifier.*\n.*AttributeError"),
    ],
)
def test_bad_models_end_the_run_by_their_number(train: Any, wrap: Any, message: str) -> None:
    with pytest.raises(TargetError, match=f"(?s)Shadow model 1 of 4: .*{message}"):
        shadows(train, wrap=wrap).signals(digits(), NOWHERE, Silent())


def test_the_cause_of_a_failed_training_is_kept() -> None:
    with pytest.raises(TargetError) as caught:
        shadows(failing).signals(digits(), NOWHERE, Silent())
    chain = [error := caught.value] + [error := error.__cause__ for _ in range(2)]  # type: ignore[union-attr]
    assert isinstance(chain[-1], ZeroDivisionError)
    with pytest.raises(TargetError, match="The null model: "):
        shadows(failing).null_model(digits())


def test_a_training_function_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    source = """
import numpy as np
from sklearn.linear_model import LogisticRegression

C = 100.0

def train(records, seed):
    values = np.array([one.values for one in records.contents])
    labels = np.array([int(one.label) for one in records.contents])
    return LogisticRegression(C=C, max_iter=200, random_state=seed).fit(values, labels)
"""
    (tmp_path / "own_training.py").write_text(source)
    told = shadows("own_training:train").signals(digits(), NOWHERE, Silent())
    assert (told.logprob == shadows().signals(digits(), NOWHERE, Silent()).logprob).all()
    for wrong in ("own_training:absent", "own_training", "no_such_module:train"):
        with pytest.raises(ConfigError, match="cannot be imported"):
            training_function(wrong)
    with pytest.raises(ConfigError, match="no function"):
        training_function("own_training:C")


def test_what_a_function_refers_to_is_part_of_its_key() -> None:
    def made(rate: Any, penalty: float = 1.0) -> Any:
        def train(records: Records, seed: int, extra: float = penalty) -> Any:
            return rate

        return train

    class Trainer:
        def __init__(self, rate: float) -> None:
            self.rate = rate

        def train(self, records: Records, seed: int) -> Any:
            return self.rate

    noise = np.random.default_rng(0).random(5000)
    other = noise.copy()
    other[2500] += 1e-9
    layers = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
    kinds = [
        lambda: regression,
        lambda: network,
        lambda: partial(regression, seed=1),
        lambda: partial(regression, seed=2),
        lambda: made(1),
        lambda: made(2),
        lambda: made(1, 2.0),
        lambda: made(noise),
        lambda: made(other),
        lambda: made(layers[0]),
        lambda: made(layers[1]),
        lambda: Trainer(1).train,
        lambda: Trainer(2).train,
    ]
    assert [described(one()) for one in kinds] == [described(one()) for one in kinds]
    assert len({described(one()) for one in kinds}) == len(kinds)


def save_shadows(folder: Path) -> np.ndarray:
    """Networks in safetensors files, and their masks."""
    inside = masks(5, digits(), 0)
    for number, row in enumerate(inside):
        torch.manual_seed(number)
        save_file(
            network(digits().take(np.flatnonzero(row)), number).state_dict(), folder / f"net-{number}.safetensors"
        )
    np.savez(folder / "masks.npz", inside=inside, ids=np.array(digits().ids))
    return inside


def load_network(path: Path) -> Classifier:
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)).double()
    model.load_state_dict(load_file(path))
    return Classifier(model, Rows(64), module=model)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five."""
    folder = tmp_path_factory.mktemp("saved")
    save_shadows(folder)
    return folder


def test_saved_shadows_are_read_in_order_and_by_id(saved: Path, tmp_path: Path) -> None:
    rows = [7, 3, 200]
    some = digits().take(rows)
    told = SavedShadows(saved, load_network, CLASSES).signals(some, Store(tmp_path), Silent())
    assert (told.inside == masks(5, digits(), 0)[:4, rows]).all()  # the last is kept as the null model
    (answer,) = Augmented().ask(load_network(saved / "net-2.safetensors"), some)
    np.testing.assert_allclose(told.logprob[2, :, 0], answer.logprob, rtol=1e-6)

    def never(path: Path) -> Classifier:
        raise AssertionError(path)

    key = described(load_network)
    again = SavedShadows(saved, never, CLASSES, load_key=key).signals(some, Store(tmp_path), Silent())
    assert (again.logprob == told.logprob).all()
    null = SavedShadows(saved, load_network, CLASSES).null_model(some)
    assert null is not None
    assert null.fingerprint == load_network(saved / "net-4.safetensors").fingerprint


def refused(saved: Path, tmp_path: Path, **changed: Any) -> str:
    """What is said of a copy of the folder with other masks."""
    for path in saved.glob("net-*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    given = {"inside": masks(5, digits(), 0), "ids": np.array(digits().ids), **changed}
    np.savez(tmp_path / "masks.npz", **{name: one for name, one in given.items() if one is not None})
    with pytest.raises(RepromiaError) as caught:
        SavedShadows(tmp_path, load_network, CLASSES).signals(digits(), NOWHERE, Silent())
    return str(caught.value)


def changed_mask(row: Any, value: bool) -> np.ndarray:
    inside = masks(5, digits(), 0)
    inside[row, :3] = value
    return inside


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inside": changed_mask(slice(None), True)}, "3 records in all, 0 in none of 4"),
        ({"inside": changed_mask(slice(None), False)}, "0 records in all, 3 in none of 4"),
        ({"ids": np.array([f"x{at}" for at in range(240)])}, "240 of 240 records without"),
        ({"ids": np.array(["x", "y", *digits().ids[2:]])}, "2 of 240 records without"),
        ({"ids": np.array(["digit 1", *digits().ids[1:]])}, "twice"),
        ({"ids": np.array(digits().ids)[:100]}, "does not say which"),
        ({"ids": np.arange(240)}, "does not say which"),
        ({"ids": np.array(digits().ids, dtype=object)}, "cannot be read"),
        ({"inside": masks(5, digits(), 0).astype(float)}, "does not say which"),
        ({"inside": masks(5, digits(), 0)[0]}, "does not say which"),
        ({"inside": masks(6, digits(), 0)}, "not those of the masks"),
        ({"inside": masks(2, digits(), 0)}, "not those of the masks"),
        ({"inside": None}, "cannot be read"),
    ],
)
def test_masks_that_say_too_little_are_refused(
    saved: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    assert message in refused(saved, tmp_path, **changed)


def test_damaged_and_missing_files_are_refused(saved: Path, tmp_path: Path) -> None:
    def signals() -> Any:
        return SavedShadows(tmp_path, load_network, CLASSES).signals(digits(), NOWHERE, Silent())

    with pytest.raises(RecordsError, match="cannot be read"):
        signals()
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "net-1.safetensors").write_bytes(b"not a model")
    with pytest.raises(TargetError, match=r"Shadow model net-1\.safetensors: It cannot be loaded"):
        signals()
    (tmp_path / "net-1.safetensors").rename(tmp_path / "net-x.safetensors")
    with pytest.raises(TargetError, match="not those of the masks"):
        signals()
    (tmp_path / "masks.npz").write_bytes((saved / "masks.npz").read_bytes()[:300])
    with pytest.raises(RecordsError, match="cannot be read"):
        signals()


def test_nothing_is_left_behind() -> None:
    gc.collect()
    before = torch.get_num_threads()
    with pytest.raises(TargetError):
        shadows(failing).signals(digits(), NOWHERE, Silent())
    assert torch.get_num_threads() == before
