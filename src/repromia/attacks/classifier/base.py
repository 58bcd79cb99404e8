"""BASE: the loss against the mean probability of other models."""

from typing import Annotated

from repromia.attacks import Ask, AskReferences, attack
from repromia.attacks.classifier._references import check_option, inside, log_mean, outside
from repromia.signals import ClassSignals, ReferenceSignals, Scores


@attack(
    citation="Lassila et al. 2025 (BASE, arXiv 2505.24089)",
    access="probabilities",
    kind="reference",
    needs=("reference",),
    modality="classifier",
)
def base(
    plain: Annotated[ClassSignals, Ask("identity")],
    references: Annotated[ReferenceSignals, AskReferences()],
    *,
    scale: float = 1.0,
    models: str = "outside",
    queries: str = "plain",
) -> Scores:
    """log p - scale * log of the mean p over models; with scale=1 the order of RMIA at a=1.

    models: those that did not see the record (outside: the offline attack) or all (online; every record needs some
    that saw it too). queries: plain, or all: the mean is over augmentations too.
    """
    check_option("models", models, ("outside", "all"))
    saw = outside(references)
    if models == "all":
        saw = saw | inside(references)
    return plain.logprob - scale * log_mean(references, saw, queries)
