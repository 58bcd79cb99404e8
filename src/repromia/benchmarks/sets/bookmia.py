"""BookMIA: 512-word excerpts of books that older models have seen, and of books of 2023."""

from __future__ import annotations

from functools import partial

from repromia.benchmarks import texts
from repromia.benchmarks.benchmark import NOT_HERE, Benchmark, DataFile, Published, Scale
from repromia.benchmarks.figures import BLIND

PATH = "bookmia/book_data.jsonl"

BENCHMARKS = (
    Benchmark(
        name="bookmia",
        title="BookMIA",
        modality="language",
        iid=False,
        source="Hugging Face swj0419/BookMIA (--data swj0419/BookMIA), file book_data.jsonl",
        licence="MIT; excerpts under their authors' copyright",
        layouts=((DataFile(PATH, "JSON lines with `snippet`, `label` (1 member) and `book_id`", unhashed=NOT_HERE),),),
        protocol="The benchmark's own sides; excerpts of one book share a role and are resampled together.",
        target="a model trained on books before 2023, as --model names it",
        against=("Separable without any model: AUC .914 (Das et al. 2024). Excerpts of one book are not independent.",),
        published=(Published("bag of words, no model", "BookMIA", 0.914, None, BLIND),),
        smoke=texts.SMOKE,
        laptop=Scale(attacks=texts.EVERYTHING, takes="hours with a model of 100M parameters", records=1000),
        paper=Scale(attacks=texts.EVERYTHING, takes="hours a model of 7B parameters on one GPU"),
        model="pythia-6.9b",
        read=texts.Rows(text="snippet", label="label", group="book_id"),
        run=texts.run_published,
        stand_in=partial(texts.write_rows, path=PATH, text="snippet", group="book_id"),
        steps=texts.published_steps,
        stand_in_models=texts.stand_in_model,
    ),
)
