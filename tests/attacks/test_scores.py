"""Every attack against a few lines written from its formula, on what the plain models answer, record by record."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from repromia.attacks import parse, registry
from repromia.attacks.ez_mia import ez_mia
from repromia.errors import AttackError
from repromia.programs.edits import generator_for, swap_words
from repromia.records import LabelledRecords
from repromia.scoring import run_attack
from repromia.signals import TOKEN_FIELDS, TokenSignals, from_token_arrays
from repromia.targets.language import LanguageModel
from repromia.targets.masked import MaskedModel
from repromia.views import Views
from small import SmallModels

LIMIT = 128  # tokens that the small models read of a text


def table(model: LanguageModel, ids: list[int], front: torch.Tensor | Sequence[int] = ()) -> np.ndarray:
    """log p(v | front, ids[:t]) for t = 1, 2, …: the model's own forward pass on one sequence."""
    plain = model.model
    embed = plain.get_input_embeddings()
    if not isinstance(front, torch.Tensor):
        front = embed(torch.tensor(front, dtype=torch.long))
    with torch.no_grad():
        logits = plain(inputs_embeds=torch.cat([front, embed(torch.tensor(ids))])[None]).logits[0].double()
    return logits.log_softmax(-1).numpy()[len(front) : -1]


@dataclass(frozen=True)
class Asked:
    """One record, and what it takes to ask about it."""

    models: SmallModels
    views: Views
    text: str
    options: dict[str, object]

    @property
    def ids(self) -> list[int]:
        return self.models.leaky.tokenizer(self.text)["input_ids"][:LIMIT]

    def logs(self, *, text: str | None = None, of: str = "leaky", front: torch.Tensor | None = None) -> np.ndarray:
        """Log-probability of each token."""
        model = getattr(self.models, of)
        ids = model.tokenizer(self.text if text is None else text)["input_ids"][:LIMIT]
        return table(model, ids, () if front is None else front)[np.arange(len(ids) - 1), ids[1:]]

    def behind_shots(self, plan: str) -> np.ndarray:
        """BOS, shots, record: the record's own tokens, without a second BOS."""
        shots = list(self.views.program(plan, self.options).ids)  # type: ignore[attr-defined]
        assert shots[0] == self.ids[0]
        whole = shots + self.ids[1:]
        return table(self.models.leaky, whole)[np.arange(len(whole) - 1), whole[1:]][-(len(self.ids) - 1) :]


def lowest(values: Sequence[float] | np.ndarray, k: float) -> float:
    return float(np.mean(sorted(values)[: max(1, math.floor(k * len(values) + 1e-9))]))


def zlib_per_character(asked: Asked) -> float:
    return asked.logs().mean() / (len(zlib.compress(asked.text.encode())) / len(asked.text))


def zlib_sum(asked: Asked) -> float:
    return asked.logs().sum() / len(zlib.compress(asked.text.encode()))


def zlib_mean(asked: Asked) -> float:
    return asked.logs().mean() / len(zlib.compress(asked.text.encode()))


def lowercase(asked: Asked) -> float:
    return asked.logs(text=asked.text.lower()).mean() / asked.logs().mean()


def min_k_plus_plus(asked: Asked) -> float:
    z = []
    for row, token in zip(table(asked.models.leaky, asked.ids), asked.ids[1:], strict=True):
        probability = np.exp(row)
        mean = (probability * row).sum()
        z.append((row[token] - mean) / math.sqrt((probability * (row - mean) ** 2).sum()))
    return lowest(z, 0.2)


def surp(asked: Asked) -> float:
    logs = asked.logs()
    entropies = [-(np.exp(row) * row).sum() for row in table(asked.models.leaky, asked.ids)]
    few = set(np.argsort(logs)[: max(1, math.floor(0.4 * len(logs)))])
    both = [logs[at] for at in few if entropies[at] < asked.options["entropy"]]
    return float(np.mean(both)) if both else lowest(logs, 0.4)


def gap_k(asked: Asked) -> float:
    gaps = []
    for row, token in zip(table(asked.models.leaky, asked.ids), asked.ids[1:], strict=True):
        probability = np.exp(row)
        spread = math.sqrt((probability * row**2).sum() - (probability * row).sum() ** 2)
        gaps.append((row[token] - row.max()) / spread)
    return lowest([np.mean(gaps[at : at + 3]) for at in range(len(gaps) - 2)], 0.2)


def recall(asked: Asked) -> float:
    return asked.behind_shots("nonmember_shots").mean() / asked.logs().mean()


def con_recall(asked: Asked) -> float:
    outside, inside = asked.behind_shots("nonmember_shots").mean(), asked.behind_shots("member_shots").mean()
    return (outside - 0.5 * inside) / asked.logs().mean()


def dc_pdd(asked: Asked) -> float:
    counts = np.ones(512)
    for text in asked.models.nonmembers[:20]:
        for token in asked.models.leaky.tokenizer(text)["input_ids"][1:]:
            counts[token] += 1
    seen: dict[int, float] = {}
    for token, log in zip(asked.ids[1:], asked.logs(), strict=True):
        seen.setdefault(token, min(math.exp(log) * math.log(counts.sum() / counts[token]), 0.01))
    return float(np.mean(list(seen.values())))


def pac(asked: Asked) -> float:
    def distance(logs: np.ndarray) -> float:
        return -lowest(-logs, 0.05) - lowest(logs, 0.3)

    swapped = [swap_words(asked.text, 0.3, generator_for(asked.text, 0, copy)) for copy in range(3)]
    assert len({asked.text, *swapped}) == 4
    return float(np.mean([distance(asked.logs(text=text)) for text in swapped])) - distance(asked.logs())


def neighbour(asked: Asked) -> float:
    masked = MaskedModel.load(str(asked.options["masked_model"]))
    texts = [masked.neighbour(asked.text, 0.1, 10, generator_for(asked.text, 0, copy)) for copy in range(3)]
    assert len({asked.text, *texts}) == 4
    return asked.logs().mean() - float(np.mean([asked.logs(text=text).mean() for text in texts]))


def ez(asked: Asked) -> float:
    own, base, gains, losses = asked.logs(), asked.logs(of="base"), 0.1, 0.1
    for at, row in enumerate(table(asked.models.leaky, asked.ids)):
        if row.argmax() != asked.ids[at + 1]:
            gains += max(own[at] - base[at], 0)
            losses += max(base[at] - own[at], 0)
    return math.log(gains / losses)


def wbc(asked: Asked) -> float:
    own, base = -asked.logs(), -asked.logs(of="base")
    shares = []
    for width in (2, 3, 4, 6, 9, 13, 18, 25, 32, 40):
        width = min(width, len(own))
        starts = range(len(own) - width + 1)
        shares.append(np.mean([base[at : at + width].sum() > own[at : at + width].sum() for at in starts]))
    return float(np.mean(shares))


def prompted(asked: Asked) -> np.ndarray:
    return asked.logs(front=torch.from_numpy(load_file(str(asked.options["program"]))["embeddings"]))


ORACLES: dict[str, Callable[[Asked], float]] = {
    "loss": lambda asked: asked.logs().mean(),
    "zlib": zlib_per_character,
    "zlib:form=per_character": zlib_per_character,
    "zlib:form=sum": zlib_sum,
    "zlib:form=mean": zlib_mean,
    "lowercase": lowercase,
    "min_k": lambda asked: lowest(asked.logs(), 0.2),
    "min_k:k=0.45": lambda asked: lowest(asked.logs(), 0.45),
    "min_k_plus_plus": min_k_plus_plus,
    "surp": surp,
    "surp:entropy=5.1": surp,  # where some tokens are surprising to a confident model, and some are not
    "gap_k": gap_k,
    "reference": lambda asked: asked.logs().mean() - asked.logs(of="base").mean(),
    "reference:form=ratio": lambda asked: asked.logs().mean() / -asked.logs(of="base").mean(),
    "recall": recall,
    "recall:shots=1": recall,
    "con_recall": con_recall,
    "dc_pdd": dc_pdd,
    "pac": pac,
    "neighbour": neighbour,
    "ez_mia": ez,
    "wbc": wbc,
    "reprogram": lambda asked: 2 * asked.logs().mean() - prompted(asked).mean(),
    "reprogram:recipe=paper": lambda asked: lowest(prompted(asked), 0.2),
}


@pytest.fixture(scope="module")
def views(models: SmallModels, make_views: Callable[..., Views], measured_records: LabelledRecords) -> Views:
    rows = [*range(6), *range(90, 96)]
    return make_views(models.leaky, models.base, measured_records.records.take(rows))


@pytest.mark.parametrize("spec", ORACLES)
def test_score_equals_the_formula(spec: str, models: SmallModels, views: Views, specs: dict[str, str]) -> None:
    name, _, options = spec.partition(":")
    chosen = parse(":".join(part for part in (specs.get(name, name), options) if part))
    scored = run_attack(chosen, views)
    assert scored.scores is not None, scored.reason
    expected = [ORACLES[spec](Asked(models, views, text, chosen.options)) for text in views.records.texts()]
    spread = float(np.ptp(expected))
    assert spread > 1e-4  # twelve different records
    np.testing.assert_allclose(scored.scores, expected, rtol=0, atol=min(1e-4, spread / 1000))


def test_every_attack_has_an_oracle() -> None:
    of_heads = {
        name for name, one in registry().items() if one.bank is not None
    }  # their statistics: test_probe_bank.py
    assert {parse(spec).attack.name for spec in ORACLES} == set(registry()) - of_heads


@pytest.mark.parametrize("spec", ["zlib:form=none", "reference:form=none", "min_k:k=5", "surp:k=1.5"])
def test_an_impossible_option_is_a_failed_row_that_says_why(spec: str, views: Views) -> None:
    scored = run_attack(parse(spec), views)
    assert scored.scores is None
    assert "form" in scored.reason or "share" in scored.reason


def test_neighbour_without_a_masked_model_says_what_to_do(views: Views) -> None:
    scored = run_attack(parse("neighbour"), views)
    assert scored.scores is None
    assert "masked_model=" in scored.reason


def signals_of(lengths: list[int], logprob: list[float], rank: list[int]) -> TokenSignals:
    arrays = {name: np.zeros(sum(lengths), dtype=np.float32) for name in TOKEN_FIELDS}
    arrays |= {name: np.zeros(sum(lengths), dtype=np.int32) for name in ("token", "top_token")}
    return from_token_arrays(
        lengths, arrays | {"logprob": np.array(logprob, np.float32), "rank": np.array(rank, np.int32)}
    )


def test_ez_mia_puts_records_without_losses_or_errors_on_top() -> None:
    """The published ratio is 0 for both, below every other record."""
    base = signals_of([3, 3, 3, 3], [-2.0] * 12, [1] * 12)
    target = signals_of(
        [3, 3, 3, 3],
        [-1.0, -1.0, -1.0, -0.1, -0.1, -0.1, -1.0, -3.0, -1.0, -3.0, -3.0, -1.0],
        [1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0],
    )
    no_loss, no_error, mixed, worse = ez_mia(target, base)
    assert no_error > no_loss > mixed > worse
    assert no_loss == pytest.approx(math.log(3.1 / 0.1))
    assert no_error == pytest.approx(math.log(5.8 / 0.1))
    assert mixed == pytest.approx(math.log(2.1 / 1.1))
    assert worse == pytest.approx(math.log(0.1 / 2.1))


def test_surp_without_a_confident_surprise_falls_back_to_the_lowest_share() -> None:
    signals = signals_of([4, 4], [-1.0, -4.0, -2.0, -3.0] * 2, [1] * 8)
    unsure = from_token_arrays(
        [4, 4],
        {name: getattr(signals, name) for name in TOKEN_FIELDS}
        | {"mean": np.array([-5.0] * 4 + [-5.0, -5.0, -5.0, -1.0], np.float32)},
    )
    scores = parse("surp:k=0.5").attack.function(unsure, k=0.5)
    assert scores.tolist() == [-3.5, -3.0]


def test_reference_attack_without_a_reference_fails_with_what_to_do(views: Views) -> None:
    alone = Views({"target": views.targets["target"]}, views.records, views.binding, views.store)
    scored = run_attack(parse("wbc"), alone)
    assert scored.scores is None
    assert "--reference" in scored.reason
    with pytest.raises(AttackError, match="no reference model"):
        alone.ask("reference", views.program("identity", {}))
