"""What a report calls things, by the kind of model."""

from __future__ import annotations

from typing import Final, NamedTuple


class Vocabulary(NamedTuple):
    """What is called differently for another kind of model.

    passes: what an attack's cost is counted in; unit: what a view's cost is; not_timed: why a family of programs has
    no cost; second: what reference attacks compare with; beside: what a bank's families are read with; glossary: terms
    of this kind of model alone.
    """

    passes: str
    unit: str
    not_timed: str
    second: str
    beside: str = ""
    glossary: tuple[tuple[str, str], ...] = ()


_PROGRAM: Final = (
    "A program is a change to how the frozen model is asked: its input, {}. A bank asks many and lets a small head, "
    "fitted on labelled records, read the answers."
)
_LANGUAGE: Final = Vocabulary(
    passes="forward passes of the target",
    unit="tokens",
    not_timed="read back from an earlier run",
    second="a second model or text",
    beside=" (beside the passive scores)",
    glossary=(
        ("Program, bank", _PROGRAM.format("what it may see of it, or a throw-away copy of the model")),
        (
            "Noise and repair",
            "A copy of the model with noise on its weights, brought back to the model's behaviour on text that the "
            "model wrote itself. It forgets single records more than the language, and serves as the reference model "
            "that is not there.",
        ),
    ),
)
_OTHER: Final = Vocabulary(
    passes="evaluations of the target",
    unit="evaluations",
    not_timed="not timed apart: evaluations are shared",
    second="a second model",
    glossary=(("Program, bank", _PROGRAM.format("or what is added on its way through the model")),),
)
VOCABULARIES: Final[dict[str, Vocabulary]] = {
    "language": _LANGUAGE,
    "diffusion": _OTHER._replace(
        passes="evaluations of the denoiser",
        glossary=(
            *_OTHER.glossary,
            (
                "Timestep, noise",
                "A diffusion model is asked how much noise is in an image. The timestep t says how much was added, "
                "from 0 for none; t=0 asks about the clean image.",
            ),
        ),
    ),
}


def vocabulary(modality: str) -> Vocabulary:
    """The words for a kind of model; of one that has none of its own those that fit any."""
    return VOCABULARIES.get(modality, _OTHER)


_GLOSSARY: Final = (
    ("Member, non-member", "A record that was, or was not, in the data the model was trained on."),
    (
        "AUC",
        "The probability that a random member scores higher than a random non-member: 0.5 is guessing, 1 is always.",
    ),
    (
        "TPR at FPR",
        "The share of members found (true positive rate) when at most this share of non-members is wrongly flagged "
        "(false positive rate). Guessing finds as many as it wrongly flags.",
    ),
    (
        "Epsilon",
        "The parameter of differential privacy: the smaller, the less one record can change what training produces.",
    ),
    ("Blind baseline", "A classifier that sees the records but never the model."),
    ("Null target", "A model that cannot have seen the records, asked in exactly the same way."),
    (
        "Same supervision",
        "A comparison that gets the same labelled records as the learned attack, without its program.",
    ),
)
_LAST_TERMS: Final = (
    ("Roles: fit, select, eval", "Fit learns, select chooses, eval is only measured. No record has two roles."),
    (
        "Coarse, refused",
        "Coarse: fewer than 3 false positives were allowed, so only the interval can be read. Refused: there are too "
        "few records for a figure.",
    ),
)


def glossary(modality: str) -> tuple[tuple[str, str], ...]:
    """Terms of a report with their meanings."""
    return (*_GLOSSARY, *vocabulary(modality).glossary, *_LAST_TERMS)
