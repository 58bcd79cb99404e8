"""The recipes of the preset `paper`, run on likenesses of the same layout: the same steps, far smaller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from diffusers import UNet2DModel

from repromia.benchmarks import registry
from repromia.benchmarks.benchmark import Benchmark, Job
from repromia.benchmarks.denoisers import run_ddpm
from repromia.benchmarks.files import located
from repromia.benchmarks.sets.ddpm import PAPER
from repromia.result import AuditResult

EACH = 110  # the least of which every role gets ten of each side
RECIPE = replace(PAPER, steps=12, batch=8, channels=(32, 64, 64, 64), warmup=4)
ATTACKS = {
    "language": ("loss", "reprogram:recipe=paper:length=8:steps=2"),
    "classifier": ("loss", "lira_offline"),
    "graph": ("loss", "lira_offline"),
    "diffusion": ("sima:t=100",),
}


def job_of(name: str, folder: Path, **scale: object) -> Job:
    """A cell of the preset `paper`, its sizes cut."""
    one = registry()[name]
    one.stand_in(folder / "data")
    target, reference = one.stand_in_models(folder / "models")
    paper = replace(one.paper, records=EACH, bootstrap=200, **scale)  # type: ignore[arg-type]
    files = tuple(path for _, path in located(one, str(folder / "data")))
    place = folder / "seed0"
    place.mkdir()
    return Job(replace(one, paper=paper), "paper", 0, files, place, target, reference, ATTACKS[one.modality])


def measured(job: Job, run: Callable[[Job], AuditResult] | None = None) -> AuditResult:
    found = (run or job.benchmark.run)(job)
    assert found.status == "complete"
    assert all(one.auc for one in found.attacks)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wikimia-64", "mimir-arxiv", "ag_news-iid"])
def test_texts(name: str, tmp_path: Path) -> None:
    measured(job_of(name, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cinic10-classifier", "cora-gcn"])
def test_classifiers_with_shadow_models(name: str, tmp_path: Path) -> None:
    scale = {"training": 1, "shadows": 2} if "gcn" not in name else {"shadows": 2}
    found = measured(job_of(name, tmp_path, **scale))
    assert found.null_target.status == "measured"


@pytest.mark.slow
def test_text_to_image(tmp_path: Path) -> None:
    measured(job_of("laion_mi-sd", tmp_path))


def with_split(name: str, folder: Path) -> tuple[Job, Benchmark]:
    """A cell whose halves SecMI's file names: as many members as others of the train images."""
    one = registry()[name]
    one.stand_in(folder / "data")
    split = folder / "data" / one.layouts[0][1].path
    split.parent.mkdir()
    order = np.random.default_rng(0).permutation(1500)[: 2 * EACH]
    np.savez(split, mia_train_idxs=order[:EACH], mia_eval_idxs=order[EACH:])
    return job_of(name, folder), one


@pytest.mark.slow
def test_a_denoiser_is_trained_on_the_split_and_its_averaged_weights_are_audited(tmp_path: Path) -> None:
    job, one = with_split("cifar10-ddpm", tmp_path)
    assert len(job.files) == 2
    run = partial(run_ddpm, recipes={"paper": RECIPE})
    trained = measured(job, run)
    unet = UNet2DModel.from_pretrained(job.folder / "target", subfolder="unet")
    assert unet.config["block_out_channels"] == list(RECIPE.channels)
    assert unet.config["sample_size"] == 32
    # the same checkpoint, given with the split it was trained on, is the same audit
    again = replace(
        job, model=str(job.folder / "target"), reference=str(job.folder / "null"), folder=tmp_path / "again"
    )
    again.folder.mkdir()
    given = measured(again, run)
    assert [row.auc for row in given.attacks] == [row.auc for row in trained.attacks]
    assert one.paper.records == 25_000
