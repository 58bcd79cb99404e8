"""The target against a model that did not see the records."""

from repromia.attacks import Plain, Reference, attack
from repromia.signals import Scores


@attack(citation="Carlini et al. 2021, arXiv 2012.07805", kind="reference", needs=("reference",))
def reference(plain: Plain, base: Reference, *, form: str = "difference") -> Scores:
    """difference: LL - LL_ref, nats a token; ratio: LL / |LL_ref|."""
    own, other = plain.average(plain.logprob), base.average(base.logprob)
    if form == "difference":
        return own - other
    if form == "ratio":
        return own / -other
    raise ValueError(f"reference:form is difference or ratio, not {form!r}")
