"""A bank of programs read by one small head: the strongest attack without a reference found so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
from jaxtyping import Float

from repromia.attacks import AskBank, BankRecipe, attack
from repromia.errors import AttackError
from repromia.signals import TokenSignals

Features = Float[np.ndarray, "record feature"]

PREFIXES = ("nonmember_shots/shots=1", "generated_prefix/draw=0", "generated_prefix/draw=1")
MORE_PREFIXES = ("nonmember_shots/shots=1/draw=1", "nonmember_shots/shots=1/draw=2", "generated_prefix/draw=2")
INFERENCE_ONLY = (
    "band/width=1",
    "band/width=2",
    "band/width=4",
    "band/width=8",
    "chunks/size=8",
    "chunks/size=16",
    "embedding_noise/scale=0.3",
    "embedding_noise/scale=0.6",
    "embedding_noise/scale=1.0",
    *PREFIXES,
    *MORE_PREFIXES,
    "skipped_layers",
    "dropout/rate=0.1",
    "dropout/rate=0.3",
    "lower_case",
)
REPAIR = ("noise_and_repair/noise=0.2", "noise_and_repair/noise=0.3")
PRESETS: dict[str, tuple[str, ...]] = {
    "repair": REPAIR,
    "small": (
        "band/width=1",
        "band/width=2",
        "chunks/size=8",
        "embedding_noise/scale=0.6",
        "embedding_noise/scale=1.0",
        *PREFIXES,
        "skipped_layers",
        *REPAIR,
    ),
    "inference_only": INFERENCE_ONLY,
    "full": (
        *INFERENCE_ONLY,
        "weight_noise/scale=0.1",
        "weight_noise/scale=0.2",
        "learned_soft_prompt",
        *REPAIR,
        "noise_and_repair/noise=0.1",
        "noise_and_repair/noise=0.4",
    ),
    "text_only": (*PREFIXES[:1], *MORE_PREFIXES[:2], "lower_case", "word_swaps/copies=5"),
}
FAMILIES = {
    "band": "context",
    "chunks": "context",
    "nonmember_shots": "prefixes",
    "member_shots": "prefixes",
    "generated_prefix": "prefixes",
    "lower_case": "edits",
    "word_swaps": "edits",
    "masked_neighbours": "edits",
}


RECIPE = BankRecipe(
    specs=lambda options: bank_specs(options["preset"], options["programs"]),
    statistics=lambda options: bank_statistics(options["statistics"]),
    families=FAMILIES,
)


@attack(
    citation="this project (docs/results/probe_bank.md)",
    access="weights (text_only: log-probabilities)",
    kind="reprogrammed",
    needs=("labels",),
    bank=RECIPE,
)
def probe_bank(
    bank: Annotated[Features, AskBank()],
    *,
    preset: str = "small",
    programs: str = "",
    statistics: str = "errors+windows",
) -> Features:
    """Statistics of plain log p against log p under each program, for a logistic head beside the passive scores.

    preset: small, repair, full, inference_only or text_only. programs: another bank, such as
    `band/width=1+embedding_noise/scale=0.6`. statistics: names joined by +; `qNN` is a quantile.
    """
    return bank


def bank_specs(preset: str, programs: str) -> tuple[str, ...]:
    """The programs that the options name. Raises AttackError."""
    if programs:
        return tuple(dict.fromkeys(programs.split("+")))
    if preset not in PRESETS:
        raise AttackError(f"There is no preset {preset!r}.", expected=", ".join(PRESETS))
    return PRESETS[preset]


def bank_statistics(names: str) -> Callable[[TokenSignals, TokenSignals, bool], Features]:
    """The function from plain and probed signals to features. Raises AttackError on an unknown name."""
    chosen = names.split("+")
    functions = [_named(name) for name in chosen]

    def statistics(plain: TokenSignals, probed: TokenSignals, edited: bool) -> Features:
        if edited:
            return _of_other_tokens(plain, probed)
        if not (np.array_equal(plain.offsets, probed.offsets) and np.array_equal(plain.token, probed.token)):
            raise AttackError("A program that leaves the tokens as they are came back with others.")
        return np.stack([one(plain, probed) for one in functions], axis=1)

    return statistics


def _of_other_tokens(plain: TokenSignals, probed: TokenSignals) -> Features:
    """An edited text has other tokens: only statistics of whole records can be compared."""
    return np.stack(
        [
            probed.average(probed.logprob) - plain.average(plain.logprob),
            probed.average_lowest(probed.logprob, 0.2) - plain.average_lowest(plain.logprob, 0.2),
        ],
        axis=1,
    )


def _named(name: str) -> Callable[[TokenSignals, TokenSignals], Float[np.ndarray, " record"]]:
    if name in _STATISTICS:
        return _STATISTICS[name]
    if name[:1] == "q" and name[1:].isdigit() and 0 < int(name[1:]) < 100:
        share = int(name[1:]) / 100
        return lambda plain, probed: plain.quantile(_change(plain, probed), share)
    raise AttackError(f"There is no statistic {name!r}.", expected=", ".join(_STATISTICS) + ", q10, q50, …")


def _change(plain: TokenSignals, probed: TokenSignals) -> Float[np.ndarray, " token"]:
    return probed.logprob.astype(np.float64) - plain.logprob


def _errors(plain: TokenSignals, probed: TokenSignals) -> Float[np.ndarray, " record"]:
    """EZ-MIA (arXiv 2601.12104) with the probed model as the reference; on all tokens where ranks are not told (-1)."""
    from repromia.attacks.ez_mia import ez_mia

    return ez_mia(plain, probed)


def _windows(plain: TokenSignals, probed: TokenSignals) -> Float[np.ndarray, " record"]:
    """WBC (arXiv 2601.02751) with the probed model as the reference: bounded, so that no token decides by itself."""
    from repromia.attacks.wbc import wbc

    return wbc(plain, probed)


_STATISTICS: dict[str, Callable[[TokenSignals, TokenSignals], Float[np.ndarray, " record"]]] = {
    "mean": lambda plain, probed: plain.average(_change(plain, probed)),
    "std": lambda plain, probed: np.sqrt(
        np.maximum(plain.average(_change(plain, probed) ** 2) - plain.average(_change(plain, probed)) ** 2, 0)
    ),
    "lowest": lambda plain, probed: plain.average_lowest(_change(plain, probed), 0.2),
    "highest": lambda plain, probed: plain.average_highest(_change(plain, probed), 0.2),
    "scaled": lambda plain, probed: plain.average(_change(plain, probed) / np.maximum(plain.std, 1e-2)),
    "errors": _errors,
    "windows": _windows,
}
