"""What holds for every benchmark of the registry, new ones included."""

from __future__ import annotations

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from repromia.benchmarks import find, registry
from repromia.benchmarks.benchmark import PRESETS, DataFile, Job
from repromia.benchmarks.command import Options, bench_command, list_command
from repromia.benchmarks.denoisers import drawn
from repromia.benchmarks.files import described, is_hub_name, located, missing
from repromia.errors import ConfigError

NAMES = tuple(registry())
HUB = Path("owner/name:split")
WANTED = (
    *(f"wikimia-{words}" for words in (32, 64, 128, 256)),
    *("wikimia_recent-2024", "wikimia_recent-2025", "mimir-arxiv", "mimir-github", "bookmia", "arxivmia"),
    *("arxivtection", "cifar10-ddpm", "cifar100-ddpm", "tinyimagenet-ddpm", "laion_mi-sd", "coco-sd"),
    *("cinic10-classifier", "stl10-classifier", "imagenet100-classifier", "cifar10-classifier", "cifar100-classifier"),
    *("cora-gcn", "pubmed-gcn", "citeseer-gcn", "ag_news-iid", "wikitext-iid", "pile-pubmed_abstracts-iid"),
    *("fashion_mnist-ddpm", "fashion_mnist-classifier"),
)


def said(*names: str, **options: object) -> str:
    """What --dry-run prints."""
    out = StringIO()
    asked = replace(Options(names, dry_run=True), **options)  # type: ignore[arg-type]
    assert bench_command(asked, Console(file=out)) == 0
    return out.getvalue()


def test_the_benchmarks_of_the_field_are_there() -> None:
    assert set(WANTED) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_says_where_from_what_and_what_is_against_it(name: str) -> None:
    one = registry()[name]
    assert one.name == name
    assert all((one.title, one.source, one.licence, one.protocol, one.target, one.against))
    assert one.layouts
    assert all(file.path and file.form for layout in one.layouts for file in layout)
    assert re.search(r"https?://|(GitHub|Hugging Face) [\w-]+/[\w-]+", one.source)
    assert all(len(file.sha256) in (0, 64) for layout in one.layouts for file in layout)
    assert all(len(file.archive_md5) in (0, 32) for layout in one.layouts for file in layout)
    assert all(bool(file.unhashed) != bool(file.sha256 or file.archive_md5) for way in one.layouts for file in way)
    assert all(one.scale(preset).takes and one.scale(preset).attacks for preset in PRESETS)


@pytest.mark.parametrize("name", NAMES)
def test_published_figures_carry_a_citation_and_are_shares(name: str) -> None:
    for figure in registry()[name].published:
        assert figure.source
        assert figure.attack
        assert figure.on
        assert figure.auc is not None or figure.tpr is not None
        assert all(0 < value < 1 for value in (figure.auc, figure.tpr, figure.fpr) if value is not None)


@pytest.mark.parametrize("name", NAMES)
def test_a_likeness_lies_in_a_layout_of_the_field_and_is_read(name: str, tmp_path: Path) -> None:
    one = registry()[name]
    one.stand_in(tmp_path)
    assert any(not missing(layout, tmp_path) for layout in one.layouts)
    files = located(one, str(tmp_path))
    content = one.read(tuple(path for _, path in files))
    if one.modality == "language":
        sides = [text.member for text in content]
        assert set(sides) == ({None} if one.iid else {True, False})
        assert all(text.text for text in content)
    first = described(files, compare=False)
    one.stand_in(tmp_path)
    assert described(files, compare=False) == first  # the same data each time, or nothing would be resumed


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_at_paper_scale_is_printed_without_data(name: str) -> None:
    text = said(name, preset="paper")
    one = registry()[name]
    assert f"{name}: {one.title}, preset paper" in text
    assert f"repromia bench {name} --preset paper --seeds 3" in text.replace("'", "")
    assert one.paper.takes in text


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_is_told_with_its_source_and_form(name: str, tmp_path: Path) -> None:
    one = registry()[name]
    with pytest.raises(ConfigError) as raised:
        bench_command(Options((name,), data=str(tmp_path), out=tmp_path / "out"), Console(file=StringIO()))
    told = str(raised.value)
    assert one.layouts[0][0].path in told
    assert one.layouts[0][0].form in told
    assert one.source in told


def test_a_big_recipe_names_a_big_model_and_does_not_fall_back_on_the_small_one(tmp_path: Path) -> None:
    registry()["wikimia-64"].stand_in(tmp_path)
    (tmp_path / "stories260k").mkdir()
    assert f"target: {tmp_path / 'stories260k'}" in said("wikimia-64", preset="laptop", data=str(tmp_path))
    assert f"target: {tmp_path / 'pythia-6.9b'}" in said("wikimia-64", preset="paper", data=str(tmp_path))
    with pytest.raises(ConfigError, match=r"pythia-6.9b") as raised:
        bench_command(Options(("wikimia-64",), preset="paper", data=str(tmp_path), out=tmp_path / "out"))
    assert "EleutherAI/pythia-6.9b" in str(raised.value)
    assert "AdamW 1e-05" in said("ag_news-iid", preset="paper")


def test_the_paper_recipe_of_a_denoiser_is_the_papers(tmp_path: Path) -> None:
    text = said("cifar10-ddpm", preset="paper")
    assert "members and non-members: 25,000 + 25,000" in text
    assert "800,000 steps of 128" in text
    assert "averaged with decay 0.9999" in text
    assert "missing under" in said("cifar10-ddpm", preset="paper", data=str(tmp_path))


def test_a_split_of_secmi_decides_who_is_a_member(tmp_path: Path) -> None:
    one = registry()["cifar10-ddpm"]
    one.stand_in(tmp_path)
    order = np.random.default_rng(0).permutation(1500)
    (tmp_path / "member_splits").mkdir()
    split = {"mia_train_idxs": order[:750], "mia_eval_idxs": order[750:]}
    np.savez(tmp_path / "member_splits" / "CIFAR10_train_ratio0.5.npz", **split)
    files = tuple(path for _, path in located(one, str(tmp_path)))
    assert len(files) == 2
    images = one.read(files)
    sides = drawn(images, Job(one, "paper", 0, files, tmp_path))
    members = {image.tobytes() for image in images.pixels[order[:750]]}
    assert {image.tobytes() for image in sides.members} == members
    assert sides.members.shape == (750, 32, 32, 3)
    assert len(sides.nonmembers) == 750
    assert len(sides.others) == len(images.pixels) - images.trained


TABLES = {one.name for one in registry().values() if one.modality == "language" and not one.name.startswith("mimir")}


@pytest.mark.parametrize("name", NAMES)
def test_a_hub_is_asked_by_name_only_for_data_that_is_one_table(name: str, tmp_path: Path) -> None:
    one = registry()[name]
    if name in TABLES:
        assert located(one, "owner/name:split") == ((DataFile("owner/name:split", "a dataset of a hub"), HUB),)
        assert f"read {HUB}; " in said(name, data="owner/name:split")
        with pytest.raises(ConfigError, match="The model of") as raised:
            bench_command(Options((name,), preset="paper", data="owner/name", out=tmp_path / "out"))
        assert "expected: --model with a folder or a hub id\n" in str(raised.value)
        return
    for options in (
        Options((name,), data="owner/name", out=tmp_path),
        Options((name,), data="owner/name", dry_run=True),
    ):
        with pytest.raises(ConfigError) as raised:
            bench_command(options, Console(file=StringIO()))
        told = str(raised.value)
        assert "'owner/name', which is no folder here" in told
        assert all(file.described in told for layout in one.layouts for file in layout)
        assert one.source in told
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_no_name_of_a_hub() -> None:
    assert is_hub_name("owner/name")
    assert is_hub_name("swj0419/WikiMIA:WikiMIA_length64")
    assert not any(
        map(is_hub_name, ("", "data", "./data", "../data", "/data/sets", "data/sets/text", "tests/benchmarks"))
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_all_that_an_entry_states(name: str) -> None:
    out, one = StringIO(), registry()[name]
    assert list_command(Options((name,)), Console(file=out, width=60)) == 0
    told = out.getvalue()
    for part in (one.title, one.source, one.licence, one.protocol, one.target, *one.against, one.laptop.takes):
        assert part in told
    for file in (file for layout in one.layouts for file in layout):
        assert f"{file.path} ({file.form}); " in told
        assert (file.sha256 or file.archive_md5 or f"no hash: {file.unhashed}") in told
    for figure in one.published:
        assert f"{figure.attack} on {figure.on}: " in told
        assert figure.source in told
    assert ("none that we know of" in told) == (not one.published)
    assert "runnable here at laptop: missing: " in told


def test_the_page_names_the_sources_of_all() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    for name, one in registry().items():
        places = re.findall(r"https?://[^\s,;]+|(?:GitHub|Hugging Face) [\w.-]+/[\w.-]+", one.source)
        assert places
        for place in places:
            assert place.rstrip(".") in page, f"{name}: {place}"


def test_a_family_is_found_by_the_first_part_of_its_name() -> None:
    assert [one.name for one in find(("wikimia",))] == [f"wikimia-{words}" for words in (32, 64, 128, 256)]
    with pytest.raises(ConfigError, match="did you mean 'wikimia-64'"):
        find(("wikimia-65",))


def test_the_list_says_what_is_missing_here(tmp_path: Path) -> None:
    registry()["cora-gcn"].stand_in(tmp_path)
    out = StringIO()
    assert list_command(Options((), data=str(tmp_path)), Console(file=out, width=200)) == 0
    rows = {line.split("│")[1].strip(): line for line in out.getvalue().splitlines() if line.startswith("│")}
    assert set(NAMES) <= set(rows)
    narrow = StringIO()
    list_command(Options((), data=str(tmp_path)), Console(file=narrow, width=80))
    assert all(f"│ {name} " in narrow.getvalue() for name in NAMES)  # to be copied: none is cut off
    assert "│ yes " in rows["cora-gcn"].split("graph")[1][6:]
    assert "missing: planetoid/pubmed.npz" in rows["pubmed-gcn"]
