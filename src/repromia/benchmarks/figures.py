"""Published figures beside which ours are shown: copied from the sources named, never recomputed here."""

from __future__ import annotations

from typing import NamedTuple

from repromia.benchmarks.benchmark import Published

REPROMIA = "Huang, Wang, Wang 2026, ReproMIA, arXiv 2603.28942 v1 (withdrawn; no code, checkpoints or splits)"
MIN_K_PLUS_PLUS = "Zhang et al. 2024, Min-K%++, project page (best k chosen on the measured records)"
FAST_MIA = "Fast-MIA, README (LLaMA-30B)"
MIMIR = "Duan et al. 2024, MIMIR, local/mia_unified_mia_v5_results.json (13-grams, overlap < 0.8, Pythia-6.9B)"
MIMIR_WIKIMIA = (
    "Duan et al. 2024, MIMIR, local/mia_unified_mia_v5_results.json (WikiMIA, about 111 a class; Ref: GPT-2)"
)
BLIND = "Das et al. 2024, Blind Baselines, README"
EZ_MIA = "Ilić et al. 2026, EZ-MIA, arXiv 2601.12104"
LT_MIA = "Ilić et al. 2026, LT-MIA, arXiv 2604.03199"
RMIA = "Zarifzadeh et al. 2024, RMIA, arXiv 2312.03262 (wide ResNet, 254 reference models; TPR at 0.01 %)"
DIFFAUDIT = "DiffAudit-Research, a third party's replay of SecMI's checkpoint, 25,000 + 25,000"
SIMA = "Rao et al., SimA, leaderboard (their TPR takes non-members for positives and is left out)"
COPYMARK = "Liang and You 2024, CopyMark, arXiv 2410.03640, test JSON"


class Claim(NamedTuple):
    """ReproMIA's average gain over the best passive attack, in points of AUC and of TPR at 1 % FPR."""

    modality: str
    auc: float
    tpr: float
    source: str


CLAIMS = (Claim("language", 5.25, 10.68, REPROMIA), Claim("diffusion", 3.70, 12.40, REPROMIA))


def min_k_page(attack: str, **by_model: float) -> tuple[Published, ...]:
    """A row of the WikiMIA-32 table of Min-K%++'s page."""
    named = (one.replace("_", "-").replace("-6-9", "-6.9").replace("-1-4", "-1.4") for one in by_model)
    rows = zip(named, by_model.values(), strict=True)
    return tuple(Published(attack, on, auc, None, MIN_K_PLUS_PLUS) for on, auc in rows)


WIKIMIA_REPROMIA = tuple(
    Published(attack, "WikiMIA (length and model are not in our notes)", auc, tpr, REPROMIA)
    for attack, auc, tpr in (("ReproMIA", 0.9205, 0.2552), ("ReCaLL", 0.8594, 0.1862))
)
WIKIMIA_BLIND = Published("bag of words, no model", "WikiMIA", 0.99, 0.947, BLIND, fpr=0.05)
WIKIMIA_32 = (
    *min_k_page("Loss", Pythia_6_9B=0.638, LLaMA_13B=0.675),
    *min_k_page("Ref", Pythia_6_9B=0.636, LLaMA_13B=0.579),
    *min_k_page("Zlib", Pythia_6_9B=0.643, LLaMA_13B=0.678),
    *min_k_page("Min-K%", Pythia_6_9B=0.663, LLaMA_13B=0.680),
    *min_k_page("Min-K%++", Pythia_6_9B=0.703, LLaMA_13B=0.848),
    Published("ReCaLL", "LLaMA-30B", 0.907, 0.504, FAST_MIA, fpr=0.05, note="shots were not taken out of the records"),
)
# n of about 111 a class: the only length with as many non-members
WIKIMIA_MIMIR = tuple(
    Published(attack, on, auc, None, MIMIR_WIKIMIA)
    for attack, on, auc in (
        ("Loss", "Pythia-6.9B-deduped", 0.770),
        ("Ref", "Pythia-6.9B-deduped", 0.787),
        ("Min-K%", "Pythia-6.9B-deduped", 0.751),
        ("Zlib", "Pythia-6.9B-deduped", 0.763),
        ("Ref", "Pythia-160M", 0.859),
    )
)
