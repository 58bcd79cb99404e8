"""Loss set against how well the text compresses."""

import zlib as compression
from typing import Annotated

import numpy as np

from repromia.attacks import Fact, Plain, attack
from repromia.signals import Scores


@attack(citation="Carlini et al. 2021, arXiv 2012.07805")
def zlib(plain: Plain, texts: Annotated[list[str], Fact("texts")], *, form: str = "per_character") -> Scores:
    """Three forms in the wild, z the compressed size in bytes.

    per_character: LL / (z / characters); sum: total log-probability / z; both hardly depend on length.
    mean: LL / z, which is a length detector unless all texts are equally long.
    """
    compressed = np.array([len(compression.compress(text.encode("utf-8", "surrogatepass"))) for text in texts])
    if form == "per_character":
        characters = np.array([max(1, len(text)) for text in texts])
        return plain.average(plain.logprob) / (compressed / characters)
    if form == "sum":
        return plain.total(plain.logprob) / compressed
    if form == "mean":
        return plain.average(plain.logprob) / compressed
    raise ValueError(f"zlib:form is per_character, sum or mean, not {form!r}")
