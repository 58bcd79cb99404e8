"""Speed as ratios, both sides measured in turn in one run (median of the rounds; CPU seconds, of a GPU wall seconds).

python -m benchmarks.speed [cuda]
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from repromia.attacks import choose
from repromia.demo.language import paragraphs, train_tokenizer
from repromia.programs import Binding
from repromia.programs.prefixes import NonmemberShots
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records
from repromia.scoring import run_attack
from repromia.store import Store
from repromia.targets.language import LanguageModel
from repromia.targets.load import LoadOptions, wrap_language_model
from repromia.views import Views

ROUNDS = 3


@dataclass(frozen=True)
class Setting:
    """A target and records to time on."""

    target: LanguageModel
    records: Records
    fit: LabelledRecords

    def views(self) -> Views:
        """Nothing asked so far."""
        return Views(
            {"target": self.target},
            self.records,
            Binding(self.target, self.fit, self.fit, 0, Silent(), 256),
            Store(None),
        )


def setting(
    records: int,
    *,
    width: int,
    layers: int,
    vocabulary: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Setting:
    """A GPT-NeoX with random weights: time does not depend on the weights."""
    pool = paragraphs(40, 120)
    texts = (pool * (2 * records // len(pool) + 1))[: 2 * records]
    tokenizer = train_tokenizer(texts, 2048)
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=8,
        intermediate_size=4 * width,
    )
    with torch.device(device):
        model = GPTNeoXForCausalLM(config).to(dtype).eval().requires_grad_(False)
    target = wrap_language_model(model, tokenizer, options=LoadOptions(max_tokens=256))
    ids = tuple(f"r{row}" for row in range(records))
    one = Records(ids, tuple(texts[:records]), ids)
    fit_ids = tuple(f"f{row}" for row in range(records))
    fit = LabelledRecords(Records(fit_ids, tuple(texts[records:]), fit_ids), np.arange(records) % 2 == 0)
    return Setting(target, one, fit)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call; where a GPU is asked, what a clock shows until it is done."""
    clock = time.perf_counter if torch.cuda.is_initialized() else time.process_time
    began = clock()
    work()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return clock() - began


def ratio(name: str, ours: Callable[[], object], other: Callable[[], object], goal: str) -> float:
    """Print and return median(ours) / median(other), measured in turn."""
    ours(), other()  # warm up
    pairs = [(seconds(ours), seconds(other)) for _ in range(ROUNDS)]
    mine, theirs = (statistics.median(one) for one in zip(*pairs, strict=True))
    spread = sorted(a / b for a, b in pairs)
    print(
        f"{name}: {mine:.2f} s against {theirs:.2f} s, ratio {mine / theirs:.2f} "
        f"(rounds {spread[0]:.2f} to {spread[-1]:.2f}; goal {goal})",
        flush=True,
    )
    return mine / theirs


@torch.inference_mode()
def plain_forward(one: Setting, batch: int = 16, *, by_length: bool = True) -> None:
    """What anyone would write: padded batches, the model's own loss."""
    views = one.views()
    sequences = one.target.encode(views.records.contents)
    if by_length:
        sequences = sorted(sequences, key=lambda sequence: len(sequence.ids))
    for at in range(0, len(sequences), batch):
        part = [torch.from_numpy(sequence.ids).to(one.target.device) for sequence in sequences[at : at + batch]]
        ids = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence(part, batch_first=True, padding_value=-100)
        one.target.model(input_ids=ids, attention_mask=(labels >= 0).long(), labels=labels)


def passive_suite(one: Setting, names: tuple[str, ...]) -> None:
    """One view and every score that is a function of it."""
    views = one.views()
    for chosen in choose(names, reference=False):
        run_attack(chosen, views)


def recall_cached(one: Setting) -> None:
    """ReCaLL's prefixed view with the prefix read once."""
    views = one.views()
    program = NonmemberShots(shots=12).bind(views.binding)
    program.ask(one.target, views.records)


@torch.inference_mode()
def recall_recomputed(one: Setting) -> None:
    """The same numbers with the prefix in front of every record, as the reference code does it."""
    views = one.views()
    program = NonmemberShots(shots=12).bind(views.binding)
    front = one.target.embed(torch.tensor(program.ids[:-1]))
    one.target.signals(one.target.encode(views.records.contents), front)


PASSIVE = ("loss", "zlib", "min_k", "min_k_plus_plus", "surp", "gap_k", "dc_pdd")


def on_a_gpu() -> None:
    """Ratios on models of real shapes."""
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, median of {ROUNDS} rounds, 1,024 records")
    shapes = {"SmolLM2-135M": (576, 30, 49152), "Pythia-1.4B": (2048, 24, 50304)}
    for (name, (width, layers, vocabulary)), dtype in itertools.product(
        shapes.items(), (torch.float32, torch.bfloat16)
    ):
        print(f"{name}'s shape, {dtype}")
        one = setting(1024, width=width, layers=layers, vocabulary=vocabulary, device="cuda", dtype=dtype)
        for tokens in (one.target.batch_tokens, 16384, 65536):
            ours = dataclasses.replace(one, target=dataclasses.replace(one.target, batch_tokens=tokens))
            suite = functools.partial(passive_suite, ours, PASSIVE)
            ratio(
                f"all passive scores, {tokens:,} tokens a batch",
                suite,
                functools.partial(plain_forward, one),
                "<= 1.10",
            )
        if dtype == torch.bfloat16:
            singly = functools.partial(plain_forward, one, 1, by_length=False)
            ratio(
                "one record at a time against all passive scores",
                singly,
                functools.partial(passive_suite, one, PASSIVE),
                "",
            )
        cached, recomputed = functools.partial(recall_cached, one), functools.partial(recall_recomputed, one)
        ratio("ReCaLL, 12 shots: prefix recomputed for each record against read once", recomputed, cached, ">= 4")


def main() -> None:
    """Print every ratio."""
    if "cuda" in sys.argv[1:]:
        on_a_gpu()
        return
    print(f"threads {torch.get_num_threads()}, torch {torch.__version__}, median of {ROUNDS} rounds")
    print("Pythia-70M's shape (width 512, 6 layers, vocabulary 50,304), 24 records")
    one = setting(24, width=512, layers=6, vocabulary=50304)
    suite, plain = (lambda: passive_suite(one, PASSIVE)), (lambda: plain_forward(one))
    ratio("all passive scores of one view against a plain forward with loss", suite, plain, "<= 1.10")
    unsorted = lambda: plain_forward(one, by_length=False)  # noqa: E731
    ratio("the same, plain forward in file order", suite, unsorted, "<= 1.10")
    views = one.views()
    run_attack(choose(("loss",), reference=False)[0], views)
    score = choose(("min_k_plus_plus:k=0.3",), reference=False)[0]
    extra = statistics.median(seconds(lambda: run_attack(score, views)) for _ in range(20))
    whole = seconds(suite)
    print(f"one more score of the same view: {1000 * extra:.1f} ms, {extra / whole:.2%} of the suite (goal < 2 %)")
    print("width 256, 4 layers, vocabulary 8,192, 48 records")
    small = setting(48, width=256, layers=4, vocabulary=8192)
    cached, recomputed = (lambda: recall_cached(small)), (lambda: recall_recomputed(small))
    ratio("ReCaLL, 12 shots: prefix recomputed for each record against read once", recomputed, cached, ">= 4")


if __name__ == "__main__":
    main()
