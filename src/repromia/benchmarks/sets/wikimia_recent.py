"""Recent WikiMIA-style sets: leads of Wikipedia pages created in 2024 or in 2025 against older ones."""

from __future__ import annotations

from functools import partial

from repromia.benchmarks import texts
from repromia.benchmarks.benchmark import Benchmark, DataFile, Scale

HASHES = {
    2024: "aa11661f326c27bb74182ccad1351e8fbbabb49d35093c7fd7a7d0761e851889",
    2025: "bf8b3ed2bcce10bd1e6d5dd4dd3816f9628c2e3d63f927a7ee0a1ddaddc40052",
}


def _recent(year: int) -> Benchmark:
    path = f"wikimia_recent/recent_wikimia_{year}.jsonl.gz"
    form = "JSON lines with `input` (32 words), `label` (1 member), `title`: 250 and 250"
    return Benchmark(
        name=f"wikimia_recent-{year}",
        title=f"Recent WikiMIA, non-members of {year}",
        modality="language",
        iid=False,
        source=f"GitHub andaero/detect-pretrain-code, data/recent_wikimia_{year}",
        licence="Apache-2.0; texts CC BY-SA (Wikipedia)",
        layouts=((DataFile(path, form, HASHES[year]),),),
        protocol="The benchmark's own sides; chunks of one page share a role and are resampled together.",
        target=f"a model released before {year}; by default stories260k, which never saw Wikipedia: a null run; at "
        "`paper` Pythia-6.9B (EleutherAI/pythia-6.9b)",
        model="stories260k",
        against=(
            "Separable without any model: TF-IDF reaches AUC .80 (2024) and .87 (2025), above the .70 of the loss of "
            "SmolLM2-135M-Instruct on 120 items of 2025.",
        ),
        published=(),
        smoke=texts.SMOKE,
        laptop=Scale(attacks=texts.EVERYTHING, takes="5 to 15 minutes with stories260k"),
        paper=Scale(
            attacks=texts.EVERYTHING, takes="about an hour a model of 7B parameters on one GPU", model="pythia-6.9b"
        ),
        read=texts.Rows(text="input", label="label", group="title"),
        run=texts.run_published,
        stand_in=partial(texts.write_rows, path=path, text="input", group="title"),
        steps=texts.published_steps,
        stand_in_models=texts.stand_in_model,
    )


BENCHMARKS = tuple(map(_recent, HASHES))
