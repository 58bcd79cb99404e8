"""DDPM on CIFAR-10, CIFAR-100, TinyImageNet (SecMI's protocol: half of the images, 32 x 32) and Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from repromia.benchmarks import denoisers, image_files
from repromia.benchmarks.benchmark import NOT_HERE, Benchmark, DataFile, Published, Scale
from repromia.benchmarks.figures import DIFFAUDIT, REPROMIA, SIMA
from repromia.demo.denoiser import Recipe

# SecMI's and PIA's training: UNet of Ho et al. 2020, 800,000 steps of 128, EMA .9999, horizontal flips.
PAPER = Recipe(
    steps=800_000,
    batch=128,
    rate=2e-4,
    channels=(128, 256, 256, 256),
    augment="flip",
    ema=0.9999,
    blocks=2,
    attention=(1,),
    dropout=0.1,
    schedule="constant",
    warmup=5000,
)
SMALL = Recipe(steps=200, batch=32, rate=2e-3, channels=(16, 32), ema=0.99)
AGAINST = (
    "One recipe gives AUC .65 to .87 from seed to seed of the training (DiffAudit): a single target says little.",
    "Papers choose the timestep on the measured records; here it is chosen on select.",
)
SPLIT = "mia_train_idxs and mia_eval_idxs of the train images"


def _ddpm(
    name: str,
    title: str,
    source: str,
    layouts: tuple[tuple[DataFile, ...], ...],
    published: tuple[Published, ...],
    stand_in: Callable[[Path], None],
    *,
    steps: int,
    licence: str,
    members: int,
    size: int = 32,
    flips: bool = True,
) -> Benchmark:
    # steps of the laptop's size: those that gave a moderate leak on development images (docs/results/diffusion.md)
    laptop = Recipe(steps=steps, ema=0.0)
    recipes = {"smoke": SMALL, "laptop": laptop, "paper": PAPER if flips else replace(PAPER, augment="none")}
    return Benchmark(
        name=name,
        title=title,
        modality="diffusion",
        iid=True,
        source=source,
        licence=licence,
        layouts=layouts,
        protocol="Members and non-members drawn by lot (or as SecMI's split says) from one set; a model trained on "
        "members alone. At `laptop` 16 x 16 pixels and 1,000 of each.",
        target="DDPM, trained here; or --model, a diffusers pipeline, with the split it was trained on",
        against=AGAINST,
        published=published,
        smoke=Scale(
            attacks=denoisers.SMOKE, takes="half a minute", records=120, training=SMALL.steps, size=8, bootstrap=500
        ),
        laptop=Scale(attacks=denoisers.EVERYTHING, takes="1 to 2 hours", records=1000, training=steps, size=16),
        paper=Scale(
            attacks=denoisers.EVERYTHING,
            takes="days on a GPU to train, hours to audit",
            records=members,
            training=PAPER.steps,
            size=size,
        ),
        read=image_files.read_images,
        run=partial(denoisers.run_ddpm, recipes=recipes),
        stand_in=stand_in,
        steps=partial(denoisers.ddpm_steps, recipes=recipes),
    )


def _with_split(data: DataFile, split: str) -> tuple[tuple[DataFile, ...], ...]:
    return ((data, DataFile(f"member_splits/{split}", SPLIT, unhashed=NOT_HERE)), (data,))


BINARY = DataFile(
    "cifar-10-batches-bin",
    "data_batch_1.bin to 5 and test_batch.bin, the binary version",
    archive_md5="c32a1d4ab5d03f1284b67883e8d87530",
)
SUBSET = DataFile(
    "cifar10/cifar10_12k_4k.npz",
    "x_train, y_train, x_test, y_test: 12,000 and 4,000 images stored as JPEG",
    "8b0d1bced11b90d7ca327ce967366ebccb76704a2d041f8d625d6bd3144cefa9",
)
BINARY_100 = DataFile(
    "cifar-100-binary", "train.bin and test.bin, the binary version", archive_md5="03b5dce01913d631647c71ecec9e9cb8"
)
TINY = DataFile(
    "tiny-imagenet-200", "train/CLASS/images/*.JPEG, 64 x 64", archive_md5="90528d7ca1a48142e341f4ef8d21d0de"
)
FASHION = DataFile(
    "fashion-mnist",
    "train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz and both of t10k",
    unhashed="four files, whose MD5s the source's README has",
)
FASHION_SUBSET = DataFile(
    "fashion_mnist/fashion_mnist_12k_4k.npz",
    "x_train, y_train, x_test, y_test: 12,000 and 4,000 images",
    "390a7c99e757b6d647d938132aa352d7907cb9e5ab73b603faa92f4a8a17a19a",
)
CIFAR10_FIGURES = (
    Published("ReproMIA", "DDPM, CIFAR-10", 0.9283, 0.3414, REPROMIA),
    Published("SecMI_stat", "DDPM, CIFAR-10", 0.8858, 0.0940, DIFFAUDIT),
    Published("SecMI_NNs", "DDPM, CIFAR-10", 0.9463, 0.4005, DIFFAUDIT, note="needs labelled members, as ReproMIA"),
    Published("PIA", "DDPM, CIFAR-10", 0.833, 0.050, DIFFAUDIT, note="2,048 images, t = 10 to 300"),
    Published("SimA", "DDPM, CIFAR-10", 0.9216, None, SIMA, note="learns nothing"),
)

BENCHMARKS = (
    _ddpm(
        "cifar10-ddpm",
        "DDPM on CIFAR-10",
        "https://www.cs.toronto.edu/~kriz/cifar.html; splits: GitHub jinhaoduan/SecMI, member_splits",
        (*_with_split(BINARY, "CIFAR10_train_ratio0.5.npz"), (SUBSET,)),
        CIFAR10_FIGURES,
        partial(image_files.write_cifar10, path=BINARY.path),
        steps=4000,
        licence="none stated; research use",
        members=25_000,
    ),
    _ddpm(
        "cifar100-ddpm",
        "DDPM on CIFAR-100",
        "https://www.cs.toronto.edu/~kriz/cifar.html; splits: GitHub jinhaoduan/SecMI, member_splits",
        _with_split(BINARY_100, "CIFAR100_train_ratio0.5.npz"),
        (Published("ReproMIA", "DDPM, CIFAR-100", 0.9100, 0.2610, REPROMIA),),
        partial(image_files.write_cifar100, path=BINARY_100.path),
        steps=4000,
        licence="none stated; research use",
        members=25_000,
    ),
    _ddpm(
        "tinyimagenet-ddpm",
        "DDPM on TinyImageNet at 32 x 32",
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip; splits: GitHub jinhaoduan/SecMI, member_splits",
        _with_split(TINY, "TINY-IN_train_ratio0.5.npz"),
        (Published("ReproMIA", "DDPM, TinyImageNet", 0.9405, 0.3771, REPROMIA),),
        partial(image_files.write_folders, path=TINY.path, size=64, inner="images", suffix="JPEG"),
        steps=4000,
        licence="ImageNet's terms: research use",
        members=50_000,
    ),
    _ddpm(
        "fashion_mnist-ddpm",
        "DDPM on Fashion-MNIST",
        "https://github.com/zalandoresearch/fashion-mnist, or the Debian package dataset-fashion-mnist",
        ((FASHION,), (FASHION_SUBSET,)),
        (),
        partial(image_files.write_idx, path=FASHION.path),
        steps=6000,
        licence="MIT",
        members=30_000,
        flips=False,
    ),
)
