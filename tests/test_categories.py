"""Which kinds of records an audit measures apart, and what it says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from repromia.categories import NONE, own_categories, read_categories
from repromia.config import AuditConfig
from repromia.demo.language import paragraphs
from repromia.errors import ConfigError, RecordsError
from repromia.findings import slice_findings
from repromia.readers import read_members
from repromia.records import Example, Picture, Records
from repromia.result import Estimate, SliceFigures
from small import SmallModels
from test_cli import QUICK, audit_arguments, on_disk, repromia, result_in  # noqa: F401 — on_disk is a fixture


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config_of(tmp_path: Path, *fields: str, rows: list[dict[str, object]]) -> AuditConfig:
    half = len(rows) // 2
    members, nonmembers = write(tmp_path / "m.jsonl", rows[:half]), write(tmp_path / "n.jsonl", rows[half:])
    return AuditConfig(model="x", out=tmp_path, members=members, nonmembers=nonmembers, slice=fields, text="text")


def read(config: AuditConfig) -> dict[str, dict[str, str]]:
    labelled = read_members(config.members or "", config.nonmembers or "", text="text")
    return {name: dict(values) for name, values in read_categories(config, labelled.records).items()}


def test_values_are_those_of_the_records(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"text {row}", "language": "en" if row % 2 else "de"} for row in range(6)]
    rows[0]["language"] = None
    found = read(config_of(tmp_path, "language", rows=rows))["language"]
    assert found == {"m0": NONE, "m1": "en", "m2": "de", "n0": "en", "n1": "de", "n2": "en"}
    named = read(config_of(tmp_path, "language", rows=[row | {"id": f"id{at}"} for at, row in enumerate(rows)]))
    assert list(named["language"]) == [f"id{at}" for at in range(6)]


def test_numbers_become_bands(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"text {row}", "year": 1900 + row} for row in range(80)]
    found = read(config_of(tmp_path, "year", rows=rows))["year"]
    assert set(found.values()) == {"1900 to 1920", "1921 to 1940", "1941 to 1960", "1961 to 1979"}
    assert (found["m0"], found["n39"]) == ("1900 to 1920", "1961 to 1979")


def test_what_cannot_be_sliced_is_an_error(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"text {row}", "language": "en"} for row in range(300)]
    with pytest.raises(RecordsError, match="did you mean 'language'"):
        read(config_of(tmp_path, "langauge", rows=rows))
    with pytest.raises(ConfigError, match="300 values") as caught:
        read(config_of(tmp_path, "text", rows=rows))
    assert "text 1" not in str(caught.value)
    with pytest.raises(ConfigError, match="every audit makes"):
        read(config_of(tmp_path, "characters", rows=rows))
    for row in rows[:150]:
        del row["language"]
    with pytest.raises(RecordsError, match="no slice field"):  # one side only: the slice would be the side
        read(config_of(tmp_path, "language", rows=rows))
    graph = AuditConfig(model="x", out=tmp_path, graph="g", label="y", slice=("language",))
    with pytest.raises(ConfigError, match="Nodes cannot"):
        read_categories(graph, Records((), (), ()))


def test_records_say_their_length_and_class() -> None:
    ids = tuple(map(str, range(200)))
    texts = Records(ids, tuple("x" * (row + 1) for row in range(200)), ids)
    assert list(own_categories(texts)) == ["characters"]
    examples = Records(ids, tuple(Example("x" * (row + 1), str(row % 3)) for row in range(200)), ids)
    assert own_categories(examples)["class"][:4] == ["0", "1", "2", "0"]
    assert own_categories(examples)["characters"] == own_categories(texts)["characters"]
    facts: dict[str, object] = {"digest": "", "facts": None}
    captioned = Records(ids, tuple(Picture(caption=f"caption {row}", **facts) for row in range(200)), ids)  # type: ignore[arg-type]
    assert own_categories(captioned) == {}  # a caption each is no class
    few = Records(ids, tuple(Picture(caption=f"Jane {row % 3}", **facts) for row in range(200)), ids)  # type: ignore[arg-type]
    assert own_categories(few)["class"][:2] == ["Jane 0", "Jane 1"]
    assert own_categories(few, classes=False) == {}  # nor captions that few pictures share


def test_captions_stay_out_of_results(tmp_path: Path) -> None:
    """A generative model's captions are personal, also where many pictures share a few of them."""
    import repromia
    from repromia.targets.pipelines import wrap_callable

    pixels = np.random.default_rng(0).integers(0, 255, (100, 8, 8, 3), dtype=np.uint8)
    sides = [[{"image": one, "text": f"x-ray of Jane Doe {at % 2}"} for at, one in enumerate(part)]
             for part in (pixels[:50], pixels[50:])]  # fmt: skip
    target = wrap_callable(lambda x, t: x * 0.5, shape=(3, 8, 8))
    result = repromia.audit(
        target,
        repromia.load_records(*sides),
        out=tmp_path,
        attacks="sima:t=100",
        controls=False,
        bootstrap=200,
        fit=0.3,
        select=0.3,
    )
    assert result.slices == ()
    assert "Jane Doe" not in (tmp_path / "result.json").read_text()


@pytest.mark.slow
def test_a_source_that_was_trained_on_stands_out(on_disk: Path, models: SmallModels) -> None:  # noqa: F811
    """Of members, source a was fine-tuned on and source b was not. b and the lengths are not called more exposed.

    Each of 5 like slices would be flagged in at most .5 % of runs; a is missed once in thousands (4 standard errors).
    """
    pool = paragraphs(10, 30)
    unseen = [pool[row] for row in np.random.default_rng(1).permutation(len(pool))][1200:1500]
    sides = {
        "sliced-members": [(text, "a") for text in models.members] + [(text, "b") for text in unseen[:120]],
        "sliced-nonmembers": [(text, "a") for text in models.nonmembers] + [(text, "b") for text in unseen[120:240]],
    }
    for name, rows in sides.items():
        write(on_disk / f"{name}.jsonl", [{"text": text, "source": source} for text, source in rows])
    own = ("--members", "sliced-members.jsonl", "--nonmembers", "sliced-nonmembers.jsonl", "--text", "text")
    arguments = audit_arguments("sliced", *QUICK, *own, "--slice", "source")
    done = repromia(*arguments, "--no-controls", folder=on_disk)
    assert done.returncode == 0, done.stderr
    result = result_in(on_disk / "sliced")
    assert {one.name for one in result.slices} == {"source", "characters"}
    flagged = [(one.name, one.value) for one in result.slices if one.more_exposed]
    assert flagged == [("source", "a")]
    assert [one.value for one in result.slices if one.less_exposed] == ["b"]
    (finding,) = [one for one in result.findings if one.code == "slice_more_exposed"]
    assert "corrected for the 6 slices tested: source = a (AUC" in finding.sentence
    assert "source = a" in " ".join(done.stdout.split())
    wrong = repromia(*audit_arguments("sliced", *QUICK, "--slice", "sauce"), folder=on_disk)
    assert wrong.returncode == 2
    assert "there is no slice field 'sauce'" in " ".join(wrong.stderr.split())


def figures(value: str, low: float, *, more: bool) -> SliceFigures:
    area = Estimate(estimate=low + 0.05, low=low, high=low + 0.1, method="")
    difference = Estimate(estimate=0.1, low=0.05, high=0.15, method="")
    return SliceFigures(
        attack="loss",
        name="class",
        value=value,
        n_members=50,
        n_nonmembers=50,
        auc=area,
        difference=difference,
        more_exposed=more,
    )


def test_the_sentence_has_its_conditions() -> None:
    rows = [figures(str(at), 0.6, more=True) for at in range(7)] + [figures("below", 0.4, more=True)]
    (found,) = slice_findings(rows, "found")
    assert "8 slices tested" in found.sentence
    assert found.sentence.endswith(
        "class = 4 (AUC 0.650 [0.600, 0.700], +0.100 [+0.050, +0.150] against the rest); and 2 more."
    )
    (doubtful,) = slice_findings(rows, "not_attributable")
    assert "it may not be the model" in doubtful.sentence
    assert not list(slice_findings([figures("a", 0.6, more=False), figures("below", 0.4, more=True)], "found"))
