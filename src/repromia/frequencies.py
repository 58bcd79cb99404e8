"""How common tokens are in text that the target was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from repromia.errors import AttackError, said
from repromia.programs import Binding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repromia.records import Content


@dataclass(frozen=True)
class TokenFrequencies:
    """share: Laplace-smoothed share of each vocabulary entry. used: ids of the records it was counted on."""

    share: Float[np.ndarray, " vocabulary"]
    used: frozenset[str]
    source: str


def token_frequencies(binding: Binding, *, corpus: str = "") -> TokenFrequencies:
    """Counts over a text file (`corpus`, UTF-8), or over the non-members of the fit role.

    Raises AttackError without token ids, and for a corpus in which no token counts.
    """
    from repromia.targets.language import LanguageModel

    target = binding.target
    if not isinstance(target, LanguageModel):
        raise AttackError(
            "Token frequencies need the tokenizer of the model; the endpoint only returns log-probabilities.",
            expected="a model whose tokens have ids",
            found="tokens known by their text alone",
        )
    contents: Sequence[Content]
    if corpus:
        path = Path(corpus)
        if not path.is_file():
            raise AttackError(f"The corpus {corpus!r} is not a file.", expected="a UTF-8 text file")
        try:
            contents = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise AttackError(
                f"The corpus {corpus!r} cannot be read.", expected="a UTF-8 text file", found=said(error)
            ) from error
        used: frozenset[str] = frozenset()
    else:
        nonmembers = binding.fit.nonmembers()
        contents, used = nonmembers.contents, frozenset(nonmembers.ids)
    counts = np.ones(target.vocabulary)
    sequences = target.encode(contents, keep_bare=bool(corpus))  # a line may be a single token, of which none counts
    if corpus and not any(sequence.n_scored for sequence in sequences):
        raise AttackError(
            f"The corpus {corpus!r} has no token to count.",
            expected="lines of text, with two tokens where the tokenizer adds no BOS",
            found=f"{len(sequences)} lines that are not blank",
        )
    for sequence in sequences:
        np.add.at(counts, sequence.ids[sequence.scored], 1)
    return TokenFrequencies(counts / counts.sum(), used, corpus or "non-members of the fit role")
