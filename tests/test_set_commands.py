"""Was this set used, was it forgotten: the commands, on real small models trained here.

Rates of false answers are those of the statistics (docs/results/evidence.md); seeds are fixed, so a run that passes
passes again on the same machine.
"""

from __future__ import annotations

import copy
import json
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars
import pytest
from rich.console import Console

from benchmarks.unlearning import unlearn
from repromia.dataset_command import dataset_command
from repromia.dataset_inference import blind_check
from repromia.demo.language import paragraphs, small_llama, train_tokenizer
from repromia.errors import ConfigError, RecordsError
from repromia.records import LabelledRecords, Records
from repromia.result import Estimate
from repromia.set_config import ForgetConfig, SuspectConfig
from repromia.targets.load import LoadOptions, quiet, wrap_language_model
from repromia.training import train
from repromia.unlearning_command import (
    ForgetRow,
    ForgetSet,
    _forget_and_never_seen,
    other_attacks,
    unlearning_command,
)
from test_cli import QUICK, repromia

SIZE = 150
OWN = [*QUICK, "--attacks", "loss,min_k,reference", "--text", "text", "--no-controls"]
SETS = ("forget", "retained", "never")


def write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """untouched: trained on forget and retained; retrained: on retained alone; pushed: untouched, unlearned too far.

    A few steps of unlearning leave the set remembered, and on the way it looks forgotten; 60 go past that.
    """
    folder = tmp_path_factory.mktemp("sets")
    pool = paragraphs(10, 30)
    texts = [pool[row] for row in np.random.default_rng(3).permutation(len(pool))]
    parts = {name: texts[at * SIZE : (at + 1) * SIZE] for at, name in enumerate(SETS)}
    public = texts[3 * SIZE : 3 * SIZE + 900]
    for name, part in parts.items():
        write(folder / f"{name}.jsonl", part)
    write(folder / "dated.jsonl", [f"{text} Published in 2024." for text in parts["never"]])
    tokenizer = train_tokenizer(public, 512)
    base = small_llama(512, width=64, layers=2, context=256, seed=1)
    encoder = wrap_language_model(base, tokenizer, options=LoadOptions(max_tokens=128), name="base").encoder
    train(base, encoder, public, epochs=1.5, learning_rate=3e-3, batch=32)
    models = {"base": base}
    for name, kept in (("untouched", [*parts["forget"], *parts["retained"]]), ("retrained", parts["retained"])):
        models[name] = copy.deepcopy(base)
        train(models[name], encoder, kept, epochs=8, learning_rate=2e-3, batch=16)
    models["pushed"] = copy.deepcopy(models["untouched"])
    away = (parts["forget"], parts["retained"])
    unlearn(models["pushed"], encoder, *away, way="negative_preference", steps=60, rate=1e-3)
    for name, model in models.items():
        with quiet():
            model.save_pretrained(folder / name)
            tokenizer.save_pretrained(folder / name)
    return folder


COMMON = {
    "attacks": ("loss", "min_k", "reference"),
    "fprs": (0.05,),
    "bootstrap": 200,
    "text": "text",
    "controls": False,
    "margin": 0.15,
}


def unlearning(user: Path, model: str, **changes: Any) -> tuple[int, dict[str, Any], str]:
    sets = {"forget": "forget.jsonl", "never_seen": "never.jsonl", "retained": "retained.jsonl"}
    files = {name: user / changes.pop(name, file) for name, file in sets.items()}
    models = {"model": str(user / model), "reference": str(user / "base")}
    out = user / changes.pop("out", f"{model}-unlearning")
    console = Console(file=StringIO(), width=1000)
    code = unlearning_command(ForgetConfig(**{**COMMON, **models, **files, "out": out, **changes}), console)
    return code, json.loads((out / "unlearning.json").read_text()), console.file.getvalue()  # type: ignore[attr-defined]


def test_untouched_retrained_and_pushed_models_are_told_apart(user: Path) -> None:
    """A model that never saw the set is called remembered or over-unlearned in at most 5.25 % of runs."""
    expected = {"untouched": "still_remembered", "retrained": "forgotten", "pushed": "over_unlearned"}
    found = {model: unlearning(user, model) for model in expected}
    outcomes = {model: answer["outcome"] for model, (_, answer, _) in found.items()}
    assert outcomes == expected, {model: answer["sentence"] for model, (_, answer, _) in found.items()}
    for code, answer, said in found.values():
        assert code == 0
        assert answer["sentence"][:60] in said
        assert answer["retained"]["low"] > 0.65
        assert {row["attack"] for row in answer["attacks"]} >= {"loss", "min_k", "reference", "same_supervision"}
    _, pushed, said = found["pushed"]
    plain = {row["attack"]: row["auc"]["high"] for row in pushed["attacks"]}
    assert max(plain["loss"], plain["reference"]) < 0.5  # whose sign nobody chose
    assert "look stranger to the model than never-seen ones" in said
    scores = polars.read_parquet(user / "untouched-unlearning" / "audit" / "unlabelled.parquet")
    assert scores.height == found["untouched"][1]["n_forget"]
    roles = polars.read_parquet(user / "untouched-unlearning" / "audit" / "scores.parquet")
    assert not any(name.startswith("forget:") for name in roles["id"])  # in no role: nothing was learned from them


def test_forget_records_change_nothing_that_is_learned(user: Path) -> None:
    """Whatever the forget set, attacks and heads score the others alike: nothing was fitted or chosen on it."""
    (user / "few.jsonl").write_text("".join((user / "forget.jsonl").read_text().splitlines(keepends=True)[:40]))
    unlearning(user, "untouched")
    _, few, _ = unlearning(user, "untouched", forget="few.jsonl", out="few")
    assert few["n_forget"] < 45
    one, other = (
        polars.read_parquet(user / name / "audit" / "scores.parquet") for name in ("untouched-unlearning", "few")
    )
    assert one["id"].to_list() == other["id"].to_list()
    for name in ("loss", "reference", "same_supervision", "same_supervision:references=true"):
        np.testing.assert_allclose(one[name].to_numpy(), other[name].to_numpy(), rtol=1e-4, atol=1e-4)


def test_what_is_in_two_sets_is_left_out(user: Path) -> None:
    """The planted failure: 30 forget records are among the retained and 30 among the never-seen ones."""
    rows = {name: (user / f"{name}.jsonl").read_text().splitlines(keepends=True) for name in SETS}
    (user / "mixed.jsonl").write_text("".join([*rows["forget"], *rows["retained"][:30], *rows["never"][:30]]))
    _, answer, said = unlearning(user, "retrained", forget="mixed.jsonl", out="mixed")
    _, clean, _ = unlearning(user, "retrained")  # read back where it was asked before
    assert answer["left_out"] == clean["left_out"] + 60
    assert answer["n_forget"] == clean["n_forget"]
    assert answer["n_never_seen"] < clean["n_never_seen"]  # those that were to be forgotten had been seen
    assert answer["outcome"] == "forgotten"
    assert f"{answer['left_out']} forget records repeat others" in said


def test_a_headline_without_power_measures_nothing_and_others_are_told(user: Path) -> None:
    """A margin that no attack of these exceeds; and an untouched model seen by another attack than the headline."""
    _, answer, _ = unlearning(user, "untouched", margin=0.49, out="wide")
    assert answer["outcome"] == "still_remembered"  # before any question of power
    code, answer, said = unlearning(user, "retrained", margin=0.49, out="wide-retrained")
    assert (code, answer["outcome"]) == (1, "could_not_be_measured")
    assert "Use a stronger attack" in said


def test_near_copies_among_never_seen_records_tell_no_baseline_the_sets_apart(tmp_path: Path) -> None:
    """40 originals a side, three near copies each, of one random source: one copy tells the side of the rest."""
    generator = np.random.default_rng(0)
    texts = [" ".join(map(str, generator.integers(0, 300, 30))) for _ in range(80)]
    copies = [f"{text} {word}" for text in texts for word in ("once", "twice", "again")]
    sides = {}
    for name, part in (("forget", copies[:120]), ("never", copies[120:])):
        write(tmp_path / f"{name}.jsonl", part)
        ids = tuple(f"{name} {row}" for row in range(120))
        sides[name] = LabelledRecords(Records(ids, tuple(part), ids), np.full(120, name == "forget"))
    never = tmp_path / "never.jsonl"
    files = {"forget": tmp_path / "forget.jsonl", "retained": never, "never_seen": never}
    config = ForgetConfig(model="m", out=tmp_path / "out", **files)
    audit: Any = SimpleNamespace(labelled=sides["never"])
    pool = _forget_and_never_seen(audit, ForgetSet(sides["forget"].records, frozenset()), config)
    assert len(set(pool.records.groups)) == 80
    assert blind_check(pool, seed=0).low <= 0.5


def test_other_attacks_that_see_more_are_told() -> None:
    def row(name: str, value: float, *, differs: bool) -> ForgetRow:
        area = Estimate(estimate=value, low=value - 0.05, high=value + 0.05, method="")
        return ForgetRow(attack=name, auc=area, differs=differs)

    rows = (row("loss", 0.5, differs=False), row("min_k", 0.6, differs=True), row("zlib", 0.3, differs=True))
    said = other_attacks("forgotten", "loss", rows)
    assert "2 of 3 attacks do tell forget records" in said
    assert "'zlib' with AUC 0.300" in said
    assert other_attacks("still_remembered", "loss", rows) == ""  # zlib and min_k may have either sign
    assert other_attacks("forgotten", "loss", rows[:1]) == ""
    said = other_attacks("still_remembered", "same_supervision", (row("loss", 0.3, differs=True), *rows[1:]))
    assert "'loss' points the other way, with AUC 0.300" in said
    said = other_attacks("over_unlearned", "same_supervision", (row("reference", 0.7, differs=True),))
    assert "'reference' points the other way, with AUC 0.700" in said
    assert other_attacks("over_unlearned", "same_supervision", (row("reference", 0.3, differs=True),)) == ""


def used(user: Path, model: str, suspect: str, **changes: Any) -> tuple[int, dict[str, Any], str]:
    out = user / "-".join(["used", model, suspect, *map(str, changes.values())])
    models = {"model": str(user / model), "reference": str(user / "base")}
    files = {"suspect": user / f"{suspect}.jsonl", "heldout": user / changes.pop("heldout", "never.jsonl")}
    console = Console(file=StringIO(), width=1000)
    common = {name: value for name, value in COMMON.items() if name != "margin"}
    code = dataset_command(SuspectConfig(**{**common, **models, **files, "out": out, **changes}), console)
    return code, json.loads((out / "dataset_inference.json").read_text()), console.file.getvalue()  # type: ignore[attr-defined]


def test_a_used_set_is_found_and_an_unused_one_is_not(user: Path) -> None:
    """An unused set is called used in at most 1 of 1,000 runs; the used one is missed in fewer than 1 of 1,000."""
    code, answer, said = used(user, "untouched", "retained", controls=True, alpha=0.001)
    assert (code, answer["outcome"], answer["tested"]) == (0, "used", "eval")
    assert "The model was trained on this set" in said
    assert answer["blind"]["low"] <= 0.5
    assert answer["false_positive_rate"]["low"] <= 0.05
    code, answer, said = used(user, "retrained", "forget", alpha=0.001)
    assert (code, answer["outcome"], answer["sequence"]) == (0, "not_shown", None)
    assert "no proof that it was not" in said


def test_shifted_data_is_refused(user: Path) -> None:
    """Held-out records that say when they were published: no p-value, whatever the model knows."""
    code, answer, said = used(user, "untouched", "retained", heldout="dated.jsonl")
    assert (code, answer["outcome"], answer["p_value"]) == (1, "shifted", None)
    assert "Cannot be told from data shift" in said


def test_an_attack_without_labels_named_beforehand_tests_all_records(user: Path) -> None:
    _, answer, _ = used(user, "untouched", "retained", headline="reference")
    assert (answer["tested"], answer["attack_rule"]) == ("all", "named beforehand")
    assert answer["n_suspect"] > 0.9 * SIZE
    _, learned, _ = used(user, "untouched", "retained", headline="same_supervision")
    assert learned["tested"] == "eval"


def test_passages_of_one_document_are_one_observation(user: Path) -> None:
    """Groups of five a side are counted, tested and permuted whole; a document that lies in both sets is refused."""
    for name in SETS:
        rows = (user / f"{name}.jsonl").read_text().splitlines()
        tied = [json.loads(row) | {"document": f"{name}{at // 5}"} for at, row in enumerate(rows)]
        (user / f"tied_{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tied))
    _, answer, _ = used(user, "untouched", "tied_retained", heldout="tied_never.jsonl", group="document")
    assert answer["outcome"] == "used"
    assert answer["n_suspect"] <= SIZE // 5
    shared = (user / "tied_never.jsonl").read_text().replace('"never', '"retained')
    (user / "shared.jsonl").write_text(shared)
    with pytest.raises(RecordsError, match="group"):
        used(user, "untouched", "tied_retained", heldout="shared.jsonl", group="document")


def test_records_that_come_in_may_be_looked_at_again_and_again(user: Path) -> None:
    """An unused set ever reaches 20 in at most 5 % of runs."""
    _, answer, said = used(user, "untouched", "retained", headline="reference", sequential=True)
    assert answer["outcome"] == "used"
    assert answer["sequence"]["crossed_at"] <= SIZE
    assert "e-value reached" in said
    _, answer, _ = used(user, "retrained", "forget", headline="reference", sequential=True)
    assert (answer["outcome"], answer["sequence"]["crossed_at"]) == ("not_shown", None)
    with pytest.raises(ConfigError, match="uses labels"):
        used(user, "untouched", "retained", headline="same_supervision", sequential=True)


@pytest.mark.parametrize(
    ("command", "more", "message"),
    [
        ("dataset-inference", ["--sequential"], "needs an attack that does not change"),
        ("dataset-inference", ["--members", "never.jsonl"], "Unknown option"),
        ("unlearning", ["--margin", "0.7"], "--margin"),
        ("unlearning", ["--forget", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_wrong_use_is_one_readable_block(user: Path, command: str, more: list[str], message: str) -> None:
    sets = {
        "dataset-inference": {"--suspect": "retained.jsonl", "--heldout": "never.jsonl"},
        "unlearning": {"--forget": "forget.jsonl", "--never-seen": "never.jsonl", "--retained": "retained.jsonl"},
    }[command]
    sets |= {"--forget": "nowhere.jsonl"} if "--forget" in more else {}
    rest = [] if "--forget" in more else more
    files = [part for flag in sets.items() for part in flag]
    done = repromia(command, "--model", "untouched", "--out", "wrong", *files, *OWN, *rest, folder=user)
    assert done.returncode != 0
    said = " ".join((done.stderr + done.stdout).replace("│", " ").split())
    assert message in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_file_may_configure_these_commands(user: Path) -> None:
    lines = "model: untouched\nsuspect: retained.jsonl\nheldout: never.jsonl\nout: from-file\nattacks: [loss, min_k]\n"
    (user / "used.yaml").write_text(lines + "fprs: [0.05]\nbootstrap: 200\ncontrols: false\ntext: text\n")
    done = repromia("dataset-inference", "used.yaml", "--headline", "loss", folder=user)
    assert done.returncode == 0, done.stderr
    assert json.loads((user / "from-file" / "dataset_inference.json").read_text())["attack"] == "loss"
    (user / "bad.yaml").write_text("model: untouched\nmembers: retained.jsonl\n")
    done = repromia("dataset-inference", "bad.yaml", folder=user)
    assert done.returncode == 2
    assert "does not exist: 'members'" in " ".join(done.stderr.split())
