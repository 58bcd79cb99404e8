"""Language suites of our own: a base fine-tuned on a random half of news, of Wikipedia, or of a domain of The Pile."""

from __future__ import annotations

from repromia.benchmarks.benchmark import Benchmark, DataFile, Published
from repromia.benchmarks.figures import EZ_MIA, LT_MIA
from repromia.benchmarks.texts import Rows, fine_tuned

SHORT = ("A model of 260,032 parameters fine-tuned for four epochs leaks more than a large one trained once would.",)
PILE = {
    "hackernews": "568323ebe47e6039be296795d432b0bafb22140ff891d72a474303d7ce48d101",
    "pile_cc": "e67e8e884d2ab9b884d130335b00e0689cbd4b24e1556bc6d4a6ae8c978db2ff",
    "pubmed_abstracts": "cb5bf69d7ffeb783c09a6c0cc7c258f1f249d8816678b9c8cbc32d46f7851d3d",
    "stackexchange": "72a8b0656fb4e5e761f5a8470b440fb9ae36ada685a2901483f20281f57e0157",
    "wikipedia_en": "e5a5aac1df6f0bf95a235dffbd94624cfb9c6e4bccf3106b45ea88b4c66b204e",
}

AG_NEWS = fine_tuned(
    "ag_news-iid",
    "AG News, a random half",
    source="GitHub mhjabreel/CharCnn_Keras, data/ag_news_csv/test.csv (Zhang et al. 2015)",
    licence="research and other non-commercial use",
    layouts=(
        (
            DataFile(
                "ag_news/ag_news.jsonl.gz",
                "JSON lines with `text`: 5,000 distinct items",
                "69ba5db054aa0a74cbabd8245c0b9a79f46f2a1dc7527c6820accf9d0d5bfc4f",
            ),
        ),
    ),
    reader=Rows(),
    against=SHORT,
    pool=5000,
    published=(
        Published("EZ-MIA", "Llama-2-7B fine-tuned on AG News", None, 0.467, EZ_MIA, note="best rival .158"),
        Published("LT-MIA", "GPT-2 fine-tuned on AG News", 0.944, None, LT_MIA, note="learned on other targets"),
        Published("LT-MIA", "Llama-2-7B fine-tuned on AG News", 0.960, None, LT_MIA, note="learned on other targets"),
    ),
)

WIKITEXT = fine_tuned(
    "wikitext-iid",
    "WikiText-2 validation, a random half",
    source="GitHub pytorch/examples, word_language_model/data/wikitext-2/valid.txt (Merity et al. 2017)",
    licence="CC BY-SA 3.0",
    layouts=(
        (
            DataFile(
                "wikitext2/wikitext2_valid_paragraphs.jsonl.gz",
                "JSON lines with `text` and `article`: 1,647 paragraphs",
                "9d2c078ad5afe2b4f02b3aedc5f69e79a1e27c4066390e3c3676482822f06264",
            ),
        ),
    ),
    reader=Rows(group="article"),
    against=(*SHORT, "Paragraphs of one article lie on both sides: what is remembered of an article helps for both."),
    pool=1647,
    published=(Published("EZ-MIA", "GPT-2 fine-tuned on WikiText", 0.98, 0.663, EZ_MIA, note="best rival's TPR .175"),),
)


def _pile(domain: str) -> Benchmark:
    path = f"pile_mimir/{domain}.jsonl.gz"
    return fine_tuned(
        f"pile-{domain}-iid",
        f"The Pile, {domain}, a random half",
        source=f"GitHub iamgroot42/mimir, local/deduped/existing_nonmembers/ngram_7/{domain}/0/test_raw.jsonl.gz",
        licence="MIT; documents under the terms of their sources",
        layouts=((DataFile(path, "JSON lines with `text`: 1,000 documents", PILE[domain]),),),
        reader=Rows(),
        against=(*SHORT, "1,000 documents: 350 a side are measured, and TPR at 1 % FPR rests on 3 false positives."),
        pool=1000,
    )


BENCHMARKS = (AG_NEWS, WIKITEXT, *map(_pile, PILE))
