"""Image classifiers: CIFAR-10, CIFAR-100, CINIC-10, STL-10, ImageNet-100 and Fashion-MNIST, random halves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from repromia.benchmarks import image_classifiers, image_files
from repromia.benchmarks.benchmark import NOT_HERE, Benchmark, DataFile, Published, Scale
from repromia.benchmarks.figures import RMIA
from repromia.benchmarks.sets import ddpm

LIRA = "Carlini et al. 2022, code of TensorFlow Privacy, README (wide ResNet, 16 shadow models; TPR at 0.1 %)"
CIFAR10_FIGURES = tuple(
    Published(attack, "CIFAR-10", auc, tpr, LIRA, fpr=0.001)
    for attack, auc, tpr in (
        ("LiRA, online", 0.6676, 0.0169),
        ("LiRA, online, fixed variance", 0.6856, 0.0593),
        ("LiRA, offline", 0.5488, 0.0130),
        ("global threshold", 0.5921, 0.0009),
    )
) + tuple(
    Published(attack, "CIFAR-10", auc, tpr, RMIA, fpr=0.0001)
    for attack, auc, tpr in (("RMIA", 0.7225, 0.0431), ("LiRA", 0.7204, 0.0339))
)


def _classifier(
    name: str,
    title: str,
    source: str,
    layouts: tuple[tuple[DataFile, ...], ...],
    stand_in: Callable[[Path], None],
    *,
    licence: str,
    size: int = 32,
    augment: bool = False,
    published: tuple[Published, ...] = (),
) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        modality="classifier",
        iid=True,
        source=source,
        licence=licence,
        layouts=layouts,
        protocol="A random half of all images is trained on; shadow models on halves of their own. ReproMIA names the "
        "data sets, but our notes hold none of its figures for classifiers, nor its networks.",
        target="trained here: a CNN of three layers, at `paper` a ResNet-18",
        against=(
            "How much leaks is up to how long one trains: compare attacks on a target, not targets.",
            "Shadow models drawn from the same pool are better references than most auditors have.",
        ),
        published=published,
        smoke=image_classifiers.SMOKE,
        laptop=Scale(attacks=image_classifiers.EVERYTHING, takes="half an hour", records=4500, training=30, shadows=15),
        paper=Scale(
            attacks=image_classifiers.EVERYTHING,
            takes="half a day on a GPU",
            training=100,
            shadows=64,
            size=size,
        ),
        read=partial(image_files.read_images, size=size),
        run=partial(image_classifiers.run_classifier, augment=augment),
        stand_in=stand_in,
        steps=partial(image_classifiers.classifier_steps, augment=augment),
    )


CINIC = DataFile("CINIC-10", "train, valid, test/CLASS/*.png, 32 x 32", archive_md5="6ee4d0c996905fe93221de577967a372")
STL = DataFile(
    "stl10_binary",
    "train_X.bin, train_y.bin, test_X.bin, test_y.bin",
    archive_md5="91f7769df0f17e558f3565bffb0c7dfb",
)
IMAGENET = DataFile(
    "imagenet100", "train/CLASS/*.JPEG and val/CLASS/*.JPEG, of any size", unhashed=f"a folder; {NOT_HERE}"
)
CIFAR_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html (the binary version)"

BENCHMARKS = (
    _classifier(
        "cifar10-classifier",
        "Classifiers of CIFAR-10",
        CIFAR_PAGE,
        ((ddpm.BINARY,), (ddpm.SUBSET,)),
        partial(image_files.write_cifar10, path=ddpm.BINARY.path),
        licence="none stated; research use",
        published=CIFAR10_FIGURES,
    ),
    _classifier(
        "cifar100-classifier",
        "Classifiers of CIFAR-100",
        CIFAR_PAGE,
        ((ddpm.BINARY_100,),),
        partial(image_files.write_cifar100, path=ddpm.BINARY_100.path),
        licence="none stated; research use",
    ),
    _classifier(
        "cinic10-classifier",
        "Classifiers of CINIC-10",
        "https://datashare.ed.ac.uk/handle/10283/3192 (Darlow et al. 2018)",
        ((CINIC,),),
        partial(image_files.write_folders, path=CINIC.path, size=32, test="test"),
        licence="MIT; images of CIFAR-10 and ImageNet",
    ),
    _classifier(
        "stl10-classifier",
        "Classifiers of STL-10",
        "https://cs.stanford.edu/~acoates/stl10 (Coates et al. 2011)",
        ((STL,),),
        partial(image_files.write_stl10, path=STL.path),
        licence="ImageNet's terms: research use",
        size=64,
    ),
    _classifier(
        "imagenet100-classifier",
        "Classifiers of ImageNet-100",
        "https://image-net.org, the 100 classes of Tian et al. 2020",
        ((IMAGENET,),),
        partial(image_files.write_folders, path=IMAGENET.path, size=80, suffix="JPEG", test="val"),
        licence="ImageNet's terms: research use",
        size=64,
        augment=True,
    ),
    _classifier(
        "fashion_mnist-classifier",
        "Classifiers of Fashion-MNIST",
        "https://github.com/zalandoresearch/fashion-mnist, or the Debian package dataset-fashion-mnist",
        ((ddpm.FASHION,), (ddpm.FASHION_SUBSET,)),
        partial(image_files.write_idx, path=ddpm.FASHION.path),
        licence="MIT",
        size=28,
    ),
)
