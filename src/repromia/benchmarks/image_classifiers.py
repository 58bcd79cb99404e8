"""Classifiers trained here on a random half of a set of images, with shadow models on halves of their own."""

from __future__ import annotations

from functools import partial

import numpy as np

from repromia.benchmarks.benchmark import Job, Scale
from repromia.errors import ConfigError
from repromia.result import AuditResult

EVERYTHING = ("default",)
SMOKE = Scale(
    attacks=("loss,confidence,rmia,lira_offline,reprogram:steps=2:per_class=20,probe_bank",),
    takes="half a minute",
    records=150,
    training=15,
    shadows=2,
    bootstrap=500,
)


def run_classifier(job: Job, *, augment: bool) -> AuditResult:
    """Halves by lot from all images; the target and the shadow models are trained alike."""
    import repromia
    from repromia.benchmarks.networks import train_on
    from repromia.shadows import seeded

    if job.model:
        raise ConfigError(
            "This suite trains its own classifiers.",
            hint="audit a classifier of your own with `repromia audit --class-field …`; leave --model out",
        )
    scale, images = job.scale, job.benchmark.read(job.files)
    order = np.random.default_rng(job.seed).permutation(len(images.pixels))
    each = min(scale.records or len(order) // 2, len(order) // 2)
    members, nonmembers = order[:each], order[each : 2 * each]
    sides = [(images.pixels[rows], images.classes[rows]) for rows in (members, nonmembers)]
    labelled = repromia.load_records(*sides)
    classes = int(images.classes.max()) + 1
    taught = partial(train_on, augment=augment, epochs=scale.training, classes=classes, large=job.preset == "paper")
    with seeded(job.seed):
        target = repromia.classifier(taught(labelled.members(), job.seed), labelled)
    references = repromia.shadow_models(taught, target, labelled, count=scale.shadows, seed=1000 + job.seed)
    return repromia.audit(target, labelled, shadows=references, out=job.folder / "audit", **job.settings)


def classifier_steps(job: Job, *, augment: bool) -> tuple[str, ...]:
    """What a run does."""
    scale, net = job.scale, "ResNet-18 (stem for small images)" if job.preset == "paper" else "a CNN of three layers"
    each = f"{scale.records:,} + {scale.records:,}" if scale.records else "all images in halves"
    return (
        f"read {job.files[0]}" + (f"; {scale.size} x {scale.size} pixels" if scale.size else ""),
        f"members and non-members: {each}, by lot, seed {job.seed}",
        f"target: {net}, {scale.training} epochs, AdamW 2e-3 falling linearly to 0, batches of 64, "
        + ("flips and shifts by two pixels" if augment else "no augmentation"),
        f"references: {scale.shadows} shadow models on halves by lot, trained alike; one more is the null target",
        job.roles,
    )
