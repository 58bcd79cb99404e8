"""WikiMIA: Wikipedia events before 2017 and after 2022, cut to 32, 64, 128 or 256 words."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from repromia.benchmarks import texts
from repromia.benchmarks.benchmark import Benchmark, DataFile, Scale
from repromia.benchmarks.figures import WIKIMIA_32, WIKIMIA_BLIND, WIKIMIA_MIMIR, WIKIMIA_REPROMIA

HASHES = {
    32: "fc2e7ac31e961f8e340f965255a3b42a40b5df1384fa4f9e8014390c548f4b4a",
    64: "e74f87319677bd63e26d3035ea419f1f5b1aeea9af705830e46462d4f6e9ebc6",
    128: "15478b2da9706be544433223f1f8ce07bcebf896f5e073b9d6474cca739ad037",
    256: "68ddfbfa7f72437d282bfa72546569399b3678d30ae776a759012fa3b62034bc",
}
COUNTS = {32: (387, 389), 64: (284, 258), 128: (139, 111), 256: (51, 31)}
UNPACKED = "the same file, unpacked: the packed one is compared"
PEERS = {32: WIKIMIA_32, 128: WIKIMIA_MIMIR}
READER = texts.Rows(text="input", label="label")


def _spent(scale: Scale, others: int) -> Scale:
    """A third each to learn, choose and measure, where the usual shares leave no ten non-members to choose by."""
    return scale if others >= 100 else replace(scale, fit=0.33, select=0.33)


def _wikimia(words: int) -> Benchmark:
    members, others = COUNTS[words]
    path = f"wikimia/wikimia_{words}.jsonl.gz"
    form = f"JSON lines with `input` ({words} words) and `label` (1 member): {members} and {others}"
    return Benchmark(
        name=f"wikimia-{words}",
        title=f"WikiMIA, {words} words",
        modality="language",
        iid=False,
        source=f"Hugging Face swj0419/WikiMIA (--data swj0419/WikiMIA:WikiMIA_length{words}); a copy in GitHub "
        "nlp-titech/samia, folder wikimia",
        licence="texts CC BY-SA (Wikipedia)",
        layouts=(
            (DataFile(path, form, HASHES[words]),),
            (DataFile(f"wikimia/wikimia_{words}.jsonl", form, unhashed=UNPACKED),),
        ),
        protocol="The benchmark's own sides. Shi et al. 2024 measure on all records; here 30 % of them (of 256 words "
        "two thirds, for want of records) are spent on learning and choosing, and the rest is measured.",
        target="a model released from 2017 to early 2023 (Pythia, LLaMA-1, OPT, GPT-Neo); by default stories260k, "
        "which never saw Wikipedia: a null run; at `paper` Pythia-6.9B (EleutherAI/pythia-6.9b)",
        model="stories260k",
        against=(
            "Separable without any model: bag of words reaches AUC .99 (Das et al. 2024), TF-IDF .99 / .99 / .96 at "
            "32 / 64 / 128 words (our copy). What learns from its labels learns the dates.",
            "In MIMIR's figures Pythia-160M (.859) is above Pythia-6.9B (.787): a shift of the data, no memory.",
            "The four lengths are cuts of the same articles: not independent.",
            "A soft prompt moved the held-out AUC from .500 to .656 on a model that never saw Wikipedia (64 words).",
        ),
        published=(*PEERS.get(words, ()), *WIKIMIA_REPROMIA, WIKIMIA_BLIND),
        smoke=texts.SMOKE,
        laptop=_spent(Scale(attacks=texts.EVERYTHING, takes="5 to 15 minutes with stories260k"), others),
        paper=_spent(
            Scale(
                attacks=texts.EVERYTHING, takes="about an hour a model of 7B parameters on one GPU", model="pythia-6.9b"
            ),
            others,
        ),
        read=READER,
        run=texts.run_published,
        stand_in=partial(texts.write_rows, path=path, text="input"),
        steps=texts.published_steps,
        stand_in_models=texts.stand_in_model,
    )


BENCHMARKS = tuple(map(_wikimia, HASHES))
