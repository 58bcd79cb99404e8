"""ArxivMIA (abstracts before and after RedPajama) and arXivTection (passages of 50 papers)."""

from __future__ import annotations

from functools import partial

from repromia.benchmarks import texts
from repromia.benchmarks.benchmark import Benchmark, DataFile, Scale

ABSTRACTS = "arxivmia/arxivmia_dev.jsonl.gz"
PASSAGES = "arxivtection/arxivtection.jsonl.gz"
LAPTOP = Scale(attacks=texts.EVERYTHING, takes="10 to 30 minutes with stories260k")

ARXIVMIA = Benchmark(
    name="arxivmia",
    title="ArxivMIA, dev split",
    modality="language",
    iid=False,
    source="GitHub zhliu0106/probing-lm-data, data/arxiv_mia_dev.jsonl (Liu et al., ACL 2024)",
    licence="none stated; for evaluation only",
    layouts=(
        (
            DataFile(
                ABSTRACTS,
                "JSON lines with `text` and `label` (1 member): 201 and 199",
                "c9f51cd81dcfb6217e2188c83cb1c3771be18c68da4d7432e3b09a385e6f0e93",
            ),
        ),
    ),
    protocol="The benchmark's own sides: abstracts before and after the snapshot of RedPajama.",
    target="TinyLLaMA-1.1B or OpenLLaMA-13B; by default stories260k, which never saw arXiv: a null run; at `paper` "
    "TinyLLaMA-1.1B",
    model="stories260k",
    against=("TF-IDF without any model: AUC .55, the least confounded of the pre-training benchmarks here.",),
    published=(),
    smoke=texts.SMOKE,
    laptop=LAPTOP,
    paper=Scale(attacks=texts.EVERYTHING, takes="minutes on one GPU", model="tinyllama-1.1b"),
    read=texts.Rows(text="text", label="label"),
    run=texts.run_published,
    stand_in=partial(texts.write_rows, path=ABSTRACTS),
    steps=texts.published_steps,
    stand_in_models=texts.stand_in_model,
)

ARXIVTECTION = Benchmark(
    name="arxivtection",
    title="arXivTection",
    modality="language",
    iid=False,
    source="GitHub avduarte333/DE-COP_Method, data/arXivTection.csv; Hugging Face avduarte333/arXivTection (Duarte et "
    "al. 2024, arXiv 2402.09910)",
    licence="Apache-2.0",
    layouts=(
        (
            DataFile(
                PASSAGES,
                "JSON lines with `input`, `label` (1 member) and `id` (the paper): 762 and 786",
                "7d1cb6f97dd535c3552c044e66d8142588e772d034f2a35770454483e42e3fc1",
            ),
        ),
    ),
    protocol="Papers published before 2022 and in 2023; passages of one paper share a role and are resampled together.",
    target="a model trained before 2023; by default stories260k, which never saw arXiv: a null run; at `paper` "
    "Pythia-6.9B (EleutherAI/pythia-6.9b)",
    model="stories260k",
    against=(
        "TF-IDF without any model: AUC .95, folds grouped by paper.",
        "Passages of 50 papers: intervals that take passages for independent are far too narrow.",
    ),
    published=(),
    smoke=texts.SMOKE,
    laptop=LAPTOP,
    paper=Scale(attacks=texts.EVERYTHING, takes="an hour a model of 7B parameters on one GPU", model="pythia-6.9b"),
    read=texts.Rows(text="input", label="label", group="id"),
    run=texts.run_published,
    stand_in=partial(texts.write_rows, path=PASSAGES, text="input", group="id"),
    steps=texts.published_steps,
    stand_in_models=texts.stand_in_model,
)

BENCHMARKS = (ARXIVMIA, ARXIVTECTION)
