"""Membership by lot: the coins, the files, the manifest that knows them again, and what is refused.

A statistical check says its false-alarm rate; coins depend on nothing but the seeds written here.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from scipy.stats import binom, chi2

from repromia.class_records import read_class_records
from repromia.duplicates import remove_duplicates
from repromia.epsilon import Labelled, by_group
from repromia.errors import ConfigError, RecordsError, StoreError
from repromia.manifest import NAME, check_manifest, coin, draw, read_manifest
from repromia.pictures import read_pictures
from repromia.readers import read_members
from repromia.records import LabelledRecords, Records, content_digest
from repromia.split import SplitOptions, sides_of, split, split_command
from repromia.split_files import write_rows
from repromia.store import write_atomic

TEXTS = [f"the secret of record {number}, kept well" for number in range(60)]
AWKWARD = [
    'a "quoted", separated;\tand\nbroken text',
    "two\r\nlines",
    "  blanks around  ",
    "ünïcödé \u2028 … 漢字",
    "\ufeffmark",
]


def written(folder, ending, texts=TEXTS, **fields):
    """A data file of these texts; `fields`: further columns."""
    path = folder / f"data{ending}"
    rows = [{"text": text, **{name: values[at] for name, values in fields.items()}} for at, text in enumerate(texts)]
    match ending:
        case ".txt":
            path.write_text("\n".join(texts), encoding="utf-8")
        case ".json":
            path.write_text(json.dumps(rows))
        case ".csv" | ".tsv":
            polars.DataFrame(rows).write_csv(path, separator="," if ending == ".csv" else "\t")
        case ".parquet":
            polars.DataFrame(rows).write_parquet(path)
        case ".jsonl.gz":
            path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
        case _:
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def audited(data, out, **reading):
    """The two sides as an audit reads them."""
    members, nonmembers = sides_of(str(data), out)
    return read_members(out / members, out / nonmembers, **reading)


def side_texts(labelled):
    return set(labelled.members().texts()), set(labelled.nonmembers().texts())


names = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=40)


@given(names, st.integers(-5, 2**40), st.floats(0.05, 0.95), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_order_of_records_does_not_matter(digests, seed, holdout, random):
    first = draw(digests, None, seed, holdout)
    order = list(range(len(digests)))
    random.shuffle(order)
    second = draw([digests[row] for row in order], None, seed, holdout)
    assert second.member.tolist() == first.member[order].tolist()
    assert first.member.tolist() == [coin(seed, digest) >= holdout for digest in digests]
    half = draw(digests[: len(digests) // 2 + 1], None, seed, holdout)  # other records do not matter either
    assert half.member.tolist() == first.member[: len(half.member)].tolist()


@given(names, st.data(), st.integers(0, 99))
@settings(max_examples=60)
def test_groups_and_equal_contents_share_a_coin(digests, data, seed):
    groups = data.draw(st.lists(st.sampled_from("abcdef"), min_size=len(digests), max_size=len(digests)))
    drawn = draw(digests, groups, seed, 0.5)
    for keys in (digests, groups):
        sides = {(key, bool(side)) for key, side in zip(keys, drawn.member, strict=True)}
        assert len(sides) == len(set(keys))
    # Units are the components: naively, merge until nothing changes.
    unit = list(range(len(digests)))
    for _ in digests:
        for a in range(len(digests)):
            for b in range(len(digests)):
                if digests[a] == digests[b] or groups[a] == groups[b]:
                    unit[a] = unit[b] = min(unit[a], unit[b])
    assert len(set(unit)) == len(set(drawn.units))
    assert len(set(zip(unit, drawn.units, strict=True))) == len(set(unit))
    order = np.random.default_rng(seed).permutation(len(digests))
    again = draw([digests[row] for row in order], [groups[row] for row in order], seed, 0.5)
    assert again.member.tolist() == drawn.member[order].tolist()


@pytest.mark.parametrize("holdout", [0.1, 0.5, 0.8])
def test_coins_are_fair_and_independent(holdout):
    """False alarms: 1e-6 for the share, 1e-6 for pairs of seeds, 1e-6 for neighbours; three times."""
    count = 20000
    out = np.array([[coin(seed, f"record {number}") < holdout for number in range(count)] for seed in (0, 1)])
    for pattern, chance in (
        (out[0], holdout),
        (out[0] & out[1], holdout**2),  # two seeds
        (out[0, ::2] & out[0, 1::2], holdout**2),  # two records
    ):
        low, high = binom.ppf(5e-7, pattern.size, chance), binom.isf(5e-7, pattern.size, chance)
        assert low <= pattern.sum() <= high


def test_coins_are_uniform():
    """Chi-squared over 64 cells; false alarms: 1e-6."""
    counts = np.histogram([coin(3, str(number)) for number in range(20000)], bins=64, range=(0, 1))[0]
    assert np.sum((counts - 312.5) ** 2 / 312.5) < chi2.isf(1e-6, 63)


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt", ".parquet", ".jsonl.gz"])
def test_what_is_written_is_what_was_drawn(tmp_path, ending):
    texts = TEXTS if ending == ".txt" else TEXTS + AWKWARD
    data, out = written(tmp_path, ending, texts), tmp_path / "out"
    manifest = split(data, out, SplitOptions(seed=4))
    labelled = audited(data, out)
    members, nonmembers = side_texts(labelled)
    assert members | nonmembers == set(texts)
    assert not members & nonmembers
    assert all((coin(4, content_digest(text)) >= 0.5) == (text in members) for text in texts)
    verdict = check_manifest(out, labelled)
    assert verdict.randomised
    assert verdict.complete
    assert verdict.kind == "record"
    assert len(verdict.units) == len(texts)
    assert manifest == read_manifest(out / NAME)
    assert set(manifest.files) == set(sides_of(str(data), out))
    assert manifest.records == {"members": len(members), "nonmembers": len(nonmembers)}


def test_the_same_seed_draws_the_same_and_another_does_not(tmp_path):
    data = written(tmp_path, ".jsonl")
    shuffled = written(tmp_path, ".txt", TEXTS[::-1])  # another order and another format: the same coins
    found = []
    for number, (source, seed) in enumerate([(data, 1), (data, 1), (shuffled, 1), (data, 2)]):
        split(source, tmp_path / str(number), SplitOptions(seed=seed))
        found.append(side_texts(audited(source, tmp_path / str(number))))
    assert found[0] == found[1] == found[2]
    assert found[0] != found[3]
    one, two = ((tmp_path / name / NAME).read_bytes() for name in "01")
    assert one == two


def test_other_fields_stay(tmp_path):
    data = written(tmp_path, ".parquet", id=[f"n{at}" for at in range(60)], size=list(range(60)), score=[0.5] * 60)
    split(data, tmp_path / "out", SplitOptions())
    sides = [polars.read_parquet(tmp_path / "out" / f"{name}.parquet") for name in ("members", "nonmembers")]
    assert polars.concat(sides).sort("size").equals(polars.read_parquet(data))
    assert audited(data, tmp_path / "out").records.ids[0].startswith("n")


def test_repeats_share_a_coin(tmp_path):
    data = written(tmp_path, ".jsonl", TEXTS + TEXTS[:20], id=list(range(80)))
    manifest = split(data, tmp_path / "out", SplitOptions())
    members, nonmembers = side_texts(audited(data, tmp_path / "out"))
    assert not members & nonmembers
    assert sum(manifest.records.values()) == 80
    assert len(manifest.members) + len(manifest.nonmembers) == 60
    verdict = check_manifest(tmp_path / "out", audited(data, tmp_path / "out"))
    assert Counter(Counter(verdict.units).values()) == {1: 40, 2: 20}


def test_by_group(tmp_path):
    documents = [f"document {at // 4}" for at in range(60)]
    data = written(tmp_path, ".csv", document=documents)
    split(data, tmp_path / "out", SplitOptions(group="document"))
    labelled = audited(data, tmp_path / "out", group="document")
    sides = {(group, bool(side)) for group, side in zip(labelled.records.groups, labelled.member, strict=True)}
    assert len(sides) == 15
    verdict = check_manifest(tmp_path / "out", labelled)
    assert verdict.randomised
    assert verdict.kind == "group"
    assert len(set(verdict.units)) == 15
    units = by_group(Labelled(np.arange(60.0), labelled.member), verdict.units)
    assert units.scores.size == 15
    # No name of a group is written down: it may say who a record is about.
    assert "document 1" not in (tmp_path / "out" / NAME).read_text()


def with_member(labelled, row, side):
    member = labelled.member.copy()
    member[row] = side
    return LabelledRecords(labelled.records, member)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_the_manifest_detects_what_is_not_as_drawn(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    source = written(folder, ".jsonl")
    seed = data.draw(st.integers(0, 2**31))
    split(source, folder / "out", SplitOptions(seed=seed, holdout=data.draw(st.floats(0.3, 0.7))))
    labelled = audited(source, folder / "out")
    assert check_manifest(folder / "out", labelled).randomised
    row = data.draw(st.integers(0, 59))

    moved = check_manifest(folder / "out", with_member(labelled, row, not labelled.member[row]))
    assert not moved.randomised
    assert "1 of 60 records are on the other side" in moved.reason
    assert moved.units == ()

    contents = list(labelled.records.contents)
    contents[row] += data.draw(st.text(min_size=1, max_size=3))
    changed = LabelledRecords(replace(labelled.records, contents=tuple(contents)), labelled.member)
    assert "1 of 60 records are not in the manifest" in check_manifest(folder / "out", changed).reason

    renamed = Records(tuple(f"x{at}" for at in range(60)), labelled.records.contents, labelled.records.groups)
    assert check_manifest(folder / "out", LabelledRecords(renamed, labelled.member)).randomised

    fewer = check_manifest(folder / "out", labelled.take([one for one in range(60) if one != row]))
    assert fewer.randomised
    assert not fewer.complete
    assert "1 drawn ones are not audited" in fewer.reason


def test_the_manifest_of_another_seed_is_detected(tmp_path):
    data = written(tmp_path, ".jsonl")
    for seed in (1, 2):
        split(data, tmp_path / str(seed), SplitOptions(seed=seed))
    crossed = check_manifest(tmp_path / "1", audited(data, tmp_path / "2"))
    assert "on the other side than was drawn" in crossed.reason
    facts = json.loads((tmp_path / "1" / NAME).read_text())
    for change in ({"seed": 2}, {"holdout": 0.9}):
        (tmp_path / "edited.json").write_text(json.dumps(facts | change))
        edited = check_manifest(tmp_path / "edited.json", audited(data, tmp_path / "1"))
        assert not edited.randomised
        assert "changed after the draw" in edited.reason
    swapped = facts | {"members": facts["nonmembers"], "nonmembers": facts["members"]}
    (tmp_path / "edited.json").write_text(json.dumps(swapped))
    labelled = audited(data, tmp_path / "1")
    turned = LabelledRecords(labelled.records, ~labelled.member)
    assert "changed after the draw" in check_manifest(tmp_path / "edited.json", turned).reason


def test_other_reading_is_named(tmp_path):
    data = written(tmp_path, ".jsonl", topic=[("a", "b")[at % 2] for at in range(60)])
    split(data, tmp_path / "out", SplitOptions(text="text"))
    labelled = read_class_records(
        tmp_path / "out" / "members.jsonl", tmp_path / "out" / "nonmembers.jsonl", class_field="topic", text="text"
    )
    reason = check_manifest(tmp_path / "out", labelled).reason
    assert "60 of 60 records are not in the manifest" in reason
    assert "text 'text'" in reason


@pytest.mark.parametrize(
    "spoil",
    [
        lambda facts: facts | {"format": 2},
        lambda facts: facts | {"holdout": 0},
        lambda facts: facts | {"seed": "one"},
        lambda facts: facts | {"members": []},
        lambda facts: facts | {"members": facts["members"] + facts["nonmembers"][:1]},
        lambda facts: facts | {"kind": "group"},
        lambda facts: facts | {"more": 1},
        lambda facts: {key: value for key, value in facts.items() if key != "seed"},
        lambda facts: [],
    ],
)
def test_damaged_manifests(tmp_path, spoil):
    data = written(tmp_path, ".jsonl")
    split(data, tmp_path / "out", SplitOptions())
    labelled = audited(data, tmp_path / "out")
    path = tmp_path / "out" / NAME
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    with pytest.raises(RecordsError, match="not a manifest"):
        check_manifest(path, labelled)
    path.write_bytes(b'{"format": 1, "see')
    with pytest.raises(RecordsError, match="not a manifest"):
        check_manifest(path, labelled)
    path.unlink()
    with pytest.raises(RecordsError, match="cannot be read"):
        check_manifest(tmp_path / "out", labelled)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".txt", ".parquet"])
def test_canaries(tmp_path, ending):
    fields = {} if ending == ".txt" else {"id": [f"n{at}" for at in range(60)], "paper": ["a", "b", "c"] * 20}
    data = written(tmp_path, ending, **fields)
    options = SplitOptions(canaries=40, canary_template="the code is {canary}, remember", seed=3)
    manifest = split(data, tmp_path / "out", options)
    labelled = audited(data, tmp_path / "out")
    members, nonmembers = side_texts(labelled)
    planted = {text for text in members | nonmembers if text.startswith("the code is ")}
    assert len(planted) == 40
    assert len({text.removeprefix("the code is ") for text in planted}) == 40
    by_digest = {content_digest(text): text in members for text in planted}
    assert {one.digest: one.inserted for one in manifest.canaries} == by_digest
    inserted = sum(by_digest.values())
    assert binom.ppf(1e-6, 40, 0.5) <= inserted <= binom.isf(1e-6, 40, 0.5)  # false alarms: 2e-6 over seeds
    verdict = check_manifest(tmp_path / "out", labelled)
    assert verdict.randomised
    assert verdict.canaries == 40
    plain = split(data, tmp_path / "plain", replace(options, canaries=0))  # others keep their coins
    assert set(plain.members) <= set(manifest.members)
    again = split(data, tmp_path / "again", options)
    assert again.canaries == manifest.canaries
    other = split(data, tmp_path / "other", replace(options, seed=5))
    assert {one.digest for one in other.canaries}.isdisjoint(one.digest for one in manifest.canaries)
    more = tmp_path / f"more{ending}"  # other data by the same seed: a model may have been trained on the first draw
    shutil.copy(data, more)
    if ending in (".jsonl", ".csv", ".txt"):
        more.write_text("\n".join(data.read_text().splitlines()[:-1]) + "\n")
        assert {one.digest for one in split(more, tmp_path / "fewer", options).canaries}.isdisjoint(
            one.digest for one in manifest.canaries
        )
    assert not any("remember" in part.read_text() for part in (tmp_path / "out").glob("*.json"))


def test_canaries_that_an_audit_would_leave_out_as_duplicates_are_refused(tmp_path):
    data = written(tmp_path, ".jsonl")
    words = " ".join(f"word{at}" for at in range(27))
    with pytest.raises(RecordsError, match="near-duplicates of each other"):
        split(data, tmp_path / "long", SplitOptions(canaries=4, canary_template=f"{words} twice {{canary}}"))
    assert not (tmp_path / "long").exists()
    split(
        data, tmp_path / "short", SplitOptions(canaries=4, canary_template=" ".join(words.split()[:15]) + " {canary}")
    )
    kept, _ = remove_duplicates(audited(data, tmp_path / "short"))
    assert sum("word3" in text for text in kept.records.texts()) == 4


def test_canaries_among_groups_are_groups_of_their_own(tmp_path):
    data = written(tmp_path, ".jsonl", document=[f"d{at // 6}" for at in range(60)])
    split(data, tmp_path / "out", SplitOptions(canaries=12, group="document"))
    verdict = check_manifest(tmp_path / "out", audited(data, tmp_path / "out", group="document"))
    assert verdict.randomised
    assert len(set(verdict.units)) == 22


def picture_folder(folder, captions=True):
    generator = np.random.default_rng(0)
    for number in range(24):
        place = folder / ("cats" if number % 2 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(place / f"{number}.png")
        if captions:
            (place / f"{number}.txt").write_text(f"animal {number}")
    return folder


@pytest.mark.parametrize("described", ["beside", "metadata", "no"])
def test_folders_of_images(tmp_path, described):
    folder = picture_folder(tmp_path / "images", captions=described == "beside")
    if described == "metadata":
        rows = [{"file_name": f"{number}.png", "text": f"animal {number}"} for number in range(1, 24, 2)]
        (folder / "cats" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rows = [{"file_name": f"dogs/{number}.png", "text": f"animal {number}"} for number in range(0, 24, 2)]
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    manifest = split(folder, out, SplitOptions())
    labelled = read_pictures(out / "members", out / "nonmembers")
    verdict = check_manifest(out, labelled)
    assert verdict.randomised
    assert verdict.complete
    assert len(labelled) == 24
    if described != "no":
        assert {one.caption for one in labelled.records.contents} == {f"animal {number}" for number in range(24)}
    pictures = [name for name in manifest.files if name.endswith(".png")]
    assert {name.split("/", 1)[1] for name in pictures} == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*.png")
    }
    for name in pictures:
        assert (out / name).read_bytes() == (folder / name.split("/", 1)[1]).read_bytes()


def test_images_in_a_parquet_file(tmp_path):
    folder = picture_folder(tmp_path / "images", captions=False)
    rows = [{"image": {"bytes": path.read_bytes(), "path": path.name}} for path in sorted(folder.rglob("*.png"))]
    polars.DataFrame(rows).write_parquet(tmp_path / "data.parquet")
    split(tmp_path / "data.parquet", tmp_path / "out", SplitOptions())
    labelled = read_pictures(tmp_path / "out" / "members.parquet", tmp_path / "out" / "nonmembers.parquet")
    assert check_manifest(tmp_path / "out", labelled).randomised


def test_records_with_a_class(tmp_path):
    generator = np.random.default_rng(1)
    frame = polars.DataFrame({"a": generator.normal(size=60), "b": range(60), "class": ["x", "y", "z"] * 20})
    for ending in (".csv", ".parquet"):
        data = tmp_path / f"data{ending}"
        frame.write_csv(data) if ending == ".csv" else frame.write_parquet(data)
        out = tmp_path / ending
        split(data, out, SplitOptions(class_field="class"))
        sides = (out / name for name in sides_of(str(data), out))
        assert check_manifest(out, read_class_records(*sides, class_field="class")).randomised


def test_a_folder_that_holds_anything_is_left_alone(tmp_path):
    data, out = written(tmp_path, ".jsonl"), tmp_path / "out"
    out.mkdir()
    split(data, out, SplitOptions())  # empty: taken
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(StoreError, match="not an empty folder"):
        split(data, out, SplitOptions(seed=1))
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(StoreError, match="not an empty folder"):
        split(data, data, SplitOptions())
    assert data.stat().st_size > 0


@pytest.mark.parametrize("made", [False, True])
def test_a_failure_leaves_nothing(tmp_path, monkeypatch, made):
    data, out = written(tmp_path, ".jsonl"), tmp_path / "out"
    if made:
        out.mkdir()

    def other_rows(path, table, rows, source):
        write_rows(path, table, rows[1:], source)

    monkeypatch.setattr("repromia.split.write_rows", other_rows)  # a side that loses a record on its way
    with pytest.raises(RecordsError, match="differently from what was drawn"):
        split(data, out, SplitOptions())
    assert out.exists() == made
    assert not made or not list(out.iterdir())


def test_the_manifest_is_written_last(tmp_path, monkeypatch):
    data, out = written(tmp_path, ".jsonl"), tmp_path / "out"
    seen = []

    def watched(path, content):
        seen.append((path.name, sorted(one.name for one in out.iterdir())))
        write_atomic(path, content)

    monkeypatch.setattr("repromia.split.write_atomic", watched)
    split(data, out, SplitOptions())
    assert seen == [(NAME, ["members.jsonl", "nonmembers.jsonl"])]


@pytest.mark.parametrize(
    ("options", "content", "kind"),
    [
        ({}, '{"text": "the secret"}\n{"text": ""}\n', RecordsError),
        ({}, '{"text": "the secret"}\n{"text": 3}\n', RecordsError),
        ({}, '{"text": "the secret"}\n', RecordsError),  # one side stays empty
        ({}, '{"text": "the secret"}\n{"tex', RecordsError),
        ({"text": "body"}, '{"text": "the secret"}\n', RecordsError),
        ({"group": "document"}, '{"text": "the secret"}\n', RecordsError),
        ({"class_field": "topic"}, '{"text": "the secret"}\n', RecordsError),
        ({"canaries": 3}, '{"prompt": "the secret", "completion": "told"}\n', RecordsError),
    ],
)
def test_bad_data_is_refused_without_repeating_it(tmp_path, options, content, kind):
    (tmp_path / "data.jsonl").write_text(content)
    with pytest.raises(kind) as refused:
        split(tmp_path / "data.jsonl", tmp_path / "out", SplitOptions(**options))
    assert "the secret" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_other_refusals(tmp_path):
    for options in (
        {"holdout": 0.0},
        {"holdout": 1.0},
        {"holdout": float("nan")},
        {"canaries": -1},
        {"canaries": 1, "canary_template": "none"},
        {"canaries": 1, "canary_template": "{canary}{canary}"},
        {"canaries": 1, "class_field": "topic"},
    ):
        with pytest.raises(ConfigError):
            SplitOptions(**options)
    with pytest.raises(RecordsError, match="no such file"):
        split(tmp_path / "nothing.jsonl", tmp_path / "out", SplitOptions())
    folder = picture_folder(tmp_path / "images")
    rows = [{"file": f"images/cats/{number}.png"} for number in range(1, 24, 2)]
    (tmp_path / "named.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RecordsError, match="cannot be written to two sides"):
        split(tmp_path / "named.jsonl", tmp_path / "out", SplitOptions())
    (folder / "cats" / "1.png").write_bytes(b"broken")
    with pytest.raises(RecordsError, match="cannot be read"):
        split(folder, tmp_path / "out", SplitOptions())
    lines = SplitOptions(canaries=2, canary_template="two\nlines {canary}")
    plain, numbered = written(tmp_path, ".txt"), written(tmp_path, ".parquet", id=list(range(60)))
    with pytest.raises(RecordsError, match="one line"):
        split(plain, tmp_path / "out", lines)
    with pytest.raises(RecordsError, match="do not fit"):
        split(numbered, tmp_path / "out", SplitOptions(canaries=2))
    assert not (tmp_path / "out").exists()


def test_the_command_shows_numbers_and_no_records(tmp_path):
    console = Console(record=True, width=100)
    data = written(tmp_path, ".jsonl")
    assert split_command(str(data), out=tmp_path / "out", canaries=4, seed=1, console=console) == 0
    shown = console.export_text()
    manifest = read_manifest(tmp_path / "out")
    assert str(manifest.records["members"]) in shown
    assert "members.jsonl" in shown
    assert NAME in shown
    assert "secret" not in shown
