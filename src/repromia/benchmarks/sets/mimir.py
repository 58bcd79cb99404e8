"""MIMIR: train and test documents of The Pile by domain, filtered by 13-gram overlap."""

from __future__ import annotations

from functools import partial

from repromia.benchmarks import texts
from repromia.benchmarks.benchmark import NOT_HERE, Benchmark, DataFile, Published, Scale
from repromia.benchmarks.figures import MIMIR

# Loss, Ref (gpt2), Min-K%, Zlib: AUC, and TPR at 1 % FPR where our notes have it
FIGURES: dict[str, tuple[tuple[str, float, float | None], ...]] = {
    "arxiv": (("Loss", 0.529, 0.005), ("Ref", 0.545, 0.018), ("Min-K%", 0.535, 0.013), ("Zlib", 0.523, None)),
    "dm_mathematics": (("Loss", 0.485, 0.015), ("Ref", 0.486, None), ("Min-K%", 0.496, None), ("Zlib", 0.481, None)),
    "github": (("Loss", 0.730, 0.023), ("Ref", 0.572, None), ("Min-K%", 0.733, 0.032), ("Zlib", 0.739, 0.031)),
    "hackernews": (("Loss", 0.521, 0.015), ("Ref", 0.531, None), ("Min-K%", 0.536, 0.008), ("Zlib", 0.513, None)),
    "pile_cc": (("Loss", 0.507, 0.015), ("Ref", 0.532, 0.013), ("Min-K%", 0.515, None), ("Zlib", 0.509, None)),
    "pubmed_central": (("Loss", 0.506, None), ("Ref", 0.501, None), ("Min-K%", 0.511, None), ("Zlib", 0.506, None)),
    "wikipedia_(en)": (("Loss", 0.528, 0.015), ("Ref", 0.523, None), ("Min-K%", 0.536, 0.026), ("Zlib", 0.536, None)),
}


def _mimir(domain: str) -> Benchmark:
    paths = [f"mimir/cache_100_200_1000_512/{side}/{domain}_ngram_13_0.8.jsonl" for side in ("train", "test")]
    against = ["The bootstrap standard error is .013 with 1,000 a side: differences below .03 are noise."]
    if domain == "github":
        against.append("GitHub's AUC of .73 goes with a shift between the sides (duplicates were taken out of one).")
    return Benchmark(
        name=f"mimir-{domain.replace('(', '').replace(')', '')}",
        title=f"MIMIR, {domain}",
        modality="language",
        iid=False,
        source="Hugging Face iamgroot42/mimir (gated: accept its terms), folder cache_100_200_1000_512",
        licence="MIT; documents under the terms of their sources",
        layouts=(
            tuple(DataFile(one, "a JSON string a line, up to 1,000", unhashed=f"gated; {NOT_HERE}") for one in paths),
        ),
        protocol="Members are of the Pile's train split, non-members of its test split with less than 80 % of 13-grams "
        "in the train split.",
        target="Pythia (deduplicated or not), 160M to 12B; the default is 6.9B (EleutherAI/pythia-6.9b), or --model",
        against=tuple(against),
        published=tuple(Published(attack, "Pythia-6.9B", auc, tpr, MIMIR) for attack, auc, tpr in FIGURES[domain]),
        smoke=texts.SMOKE,
        laptop=Scale(attacks=texts.EVERYTHING, takes="hours with Pythia-160M", records=500),
        paper=Scale(attacks=texts.EVERYTHING, takes="two hours a model of 7B parameters on one GPU"),
        model="pythia-6.9b",
        read=texts.two_files_of_strings,
        run=texts.run_published,
        stand_in=partial(texts.write_strings, paths=(paths[0], paths[1])),
        steps=texts.published_steps,
        stand_in_models=texts.stand_in_model,
    )


BENCHMARKS = tuple(map(_mimir, FIGURES))
