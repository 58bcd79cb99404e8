"""Diffusion models trained here on half of a set of images, or given with the half that they were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from repromia.benchmarks.benchmark import Job
from repromia.benchmarks.image_files import Images, resized
from repromia.errors import ConfigError, RecordsError
from repromia.progress import Silent
from repromia.result import AuditResult

if TYPE_CHECKING:
    from repromia.demo.denoiser import Recipe

NULL = 4  # a null model needs at least this share (one in …) of the members' number for its own images
PASSIVE = "naive,secmi_stat,pia,pian,sima,pfami,reference,secmi_nns"
EVERYTHING = (
    f"{PASSIVE},shift_contrast,shift_contrast:t=30+80,probe_bank,reprogram:steps=10,"
    "reprogram:recipe=paper:where=state:steps=10",
)
SMOKE = ("sima:t=30+80,pia:t=100,probe_bank:t=30+80,reprogram:steps=2:per_class=20",)


class Sides(NamedTuple):
    """Images trained on, kept aside, and of neither side (for the null model)."""

    members: np.ndarray
    nonmembers: np.ndarray
    others: np.ndarray


def run_ddpm(job: Job, *, recipes: Mapping[str, Recipe]) -> AuditResult:
    """Train a target on the members and a null model on images of neither side, unless both are given; audit it."""
    from repromia.config import AuditConfig
    from repromia.run import audit_to_folder

    if job.model and not splits_of(job.files):
        raise ConfigError(
            "A diffusion model was given, but not what it was trained on.",
            expected="member_splits/…_train_ratio0.5.npz with mia_train_idxs and mia_eval_idxs (as SecMI writes it)",
            hint="put the split under --data, or leave --model out to train a target here",
        )
    sides = drawn(job.benchmark.read(job.files), job)
    recipe = recipes[job.preset]
    model = job.model or trained(sides.members, recipe, job.seed, job.folder / "target")
    reference = job.reference
    if not reference and len(sides.others) * NULL >= len(sides.members):
        reference = trained(sides.others, recipe, 1000 + job.seed, job.folder / "null")
    for name, images in (("members", sides.members), ("nonmembers", sides.nonmembers)):
        np.savez(job.folder / f"{name}.npz", images=images)
    config = AuditConfig(
        **job.settings,
        modality="diffusion",
        model=model,
        reference=reference,
        members=job.folder / "members.npz",
        nonmembers=job.folder / "nonmembers.npz",
        batch_images=256,
        out=job.folder / "audit",
    )
    return audit_to_folder(config, Silent())


def drawn(images: Images, job: Job) -> Sides:
    """Sides by lot from all images, or as a split says; at most `scale.records` of each. Raises RecordsError."""
    most, split = job.scale.records, splits_of(job.files)
    generator = np.random.default_rng(job.seed)
    if split is None:
        order = generator.permutation(len(images.pixels))
        each = min(most or len(order) // 2, len(order) // 2)
        parts = [order[:each], order[each : 2 * each], order[2 * each : 3 * each]]
    else:
        with np.load(split) as arrays:
            own, others = arrays["mia_train_idxs"].astype(np.int64), arrays["mia_eval_idxs"].astype(np.int64)
        if max(own.max(), others.max()) >= images.trained:
            raise RecordsError(f"{split}: the split names images that are not there", found=f"{images.trained} images")
        sides = [generator.permutation(one)[: most or None] for one in (own, others)]
        parts = [*sides, np.arange(images.trained, len(images.pixels))[: len(sides[0])]]
    return Sides(*(resized(images.pixels[rows], job.scale.size) for rows in parts))


def splits_of(files: tuple[Path, ...]) -> Path | None:
    """The file that says who is a member, if there is one."""
    return next((one for one in files[1:] if one.suffix == ".npz"), None)


def trained(images: np.ndarray, recipe: Recipe, seed: int, folder: Path) -> str:
    """A pipeline trained on these images, with averaged weights where the recipe keeps some; used again if there."""
    from repromia.demo.denoiser import train_denoiser
    from repromia.shadows import seeded
    from repromia.targets.pipelines import quiet

    if not (folder / "model_index.json").is_file():
        with seeded(seed):
            raw, averaged = train_denoiser(images, recipe, seed=seed)
        with quiet():
            (averaged if recipe.ema else raw).save_pretrained(folder)
    return str(folder)


def ddpm_steps(job: Job, *, recipes: Mapping[str, Recipe]) -> tuple[str, ...]:
    """What a run does."""
    recipe, scale = recipes[job.preset], job.scale
    split = splits_of(job.files)
    each = f"{scale.records:,} + {scale.records:,}" if scale.records else "all images in halves"
    ema = f"weights averaged with decay {recipe.ema}" if recipe.ema else "raw weights"
    return (
        f"read {job.files[0]}; {scale.size} x {scale.size} pixels",
        f"members and non-members: {each}, " + (f"as {split} says" if split else f"by lot, seed {job.seed}"),
        f"target: {job.model}"
        if job.model
        else f"target: DDPM, UNet of widths {recipe.channels}, {recipe.blocks} blocks a level, attention at levels "
        f"{recipe.attention or 'none (middle only)'}, dropout {recipe.dropout}; {recipe.steps:,} steps of "
        f"{recipe.batch}, AdamW {recipe.rate:g} ({recipe.schedule}), augmentation {recipe.augment}; {ema}",
        f"null model: {job.reference or 'the same recipe on images of neither side'}",
        f"{job.roles}; every timestep is chosen on select",
    )
