"""Image sets in the layouts that their authors give them, and small real likenesses in the same layouts."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8

from repromia.errors import RecordsError

SUFFIXES = (".png", ".jpg", ".jpeg")
SPLITS = ("train", "valid", "val", "test")


class Images(NamedTuple):
    """pixels: as on the disk, training images first; classes: 0, 1, …; trained: how many are of the train split."""

    pixels: UInt8[np.ndarray, "record height width channel"]
    classes: Int64[np.ndarray, " record"]
    trained: int


def read_images(files: tuple[Path, ...], size: int = 0) -> Images:
    """The first of the files. size: pixels a side, by area averaging; 0: as they are. Raises RecordsError.

    An .npz with x_train, y_train, x_test, y_test; the binary version of CIFAR-10 or CIFAR-100; STL-10's binary files;
    idx files (Fashion-MNIST); or folders SPLIT/CLASS/… of image files (CINIC-10, TinyImageNet, ImageNet-100).
    """
    place = files[0]
    names = {one.name for one in place.iterdir()} if place.is_dir() else set()
    if place.suffix == ".npz":
        found = _npz(place)
    elif "test_batch.bin" in names or "train.bin" in names:
        found = _cifar(place, "train.bin" in names)
    elif "train_X.bin" in names:
        found = _stl(place)
    elif "train-images-idx3-ubyte.gz" in names:
        found = _idx(place)
    elif "train" in names:
        return _folders(place, size)
    else:
        raise RecordsError(
            f"{place}: not a layout of images that is known",
            expected="an .npz, CIFAR's or STL-10's binary files, idx files, or folders train/CLASS/… of images",
            found=", ".join(sorted(names)[:5]) or "a file" if place.exists() else "nothing",
        )
    return found._replace(pixels=resized(found.pixels, size))


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """Square images of another size, by area averaging: (record, size, size, channel)."""
    from PIL import Image

    if not size or pixels.shape[1:3] == (size, size):
        return pixels
    flat = pixels[..., 0] if pixels.shape[3] == 1 else pixels
    smaller = [np.asarray(Image.fromarray(one).resize((size, size), Image.Resampling.BOX)) for one in flat]
    return np.stack(smaller).reshape(len(pixels), size, size, pixels.shape[3])


def _joined(train: np.ndarray, test: np.ndarray, classes: tuple[np.ndarray, np.ndarray]) -> Images:
    pixels = np.concatenate([train, test])
    pixels = pixels if pixels.ndim == 4 else pixels[..., None]
    return Images(pixels, np.concatenate(classes).astype(np.int64), len(train))


def _npz(path: Path) -> Images:
    with np.load(path) as arrays:
        absent = [name for name in ("x_train", "y_train", "x_test", "y_test") if name not in arrays]
        if absent:
            raise RecordsError(
                f"{path}: arrays are missing", expected="x_train, y_train, x_test, y_test", found=absent[0]
            )
        return _joined(arrays["x_train"], arrays["x_test"], (arrays["y_train"], arrays["y_test"]))


def _cifar(folder: Path, fine: bool) -> Images:
    """One byte of class (CIFAR-100: coarse, then fine) and 3 x 32 x 32 bytes a record."""
    names = ["train.bin"] if fine else [f"data_batch_{number}.bin" for number in range(1, 6)]
    width, labels = 3072 + 1 + fine, int(fine)
    parts = [_bytes(folder / name, width) for name in (*names, "test.bin" if fine else "test_batch.bin")]
    pixels = [one[:, 1 + labels :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1) for one in parts]
    classes = [one[:, labels] for one in parts]
    return _joined(np.concatenate(pixels[:-1]), pixels[-1], (np.concatenate(classes[:-1]), classes[-1]))


def _bytes(path: Path, width: int) -> np.ndarray:
    data = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if not len(data) or len(data) % width:
        raise RecordsError(f"{path}: cut off, or of another layout", expected=f"a multiple of {width} bytes")
    return data.reshape(-1, width)


def _stl(folder: Path) -> Images:
    """3 x 96 x 96 bytes a record, columns first; classes from 1."""
    sides = []
    for split in ("train", "test"):
        pixels = _bytes(folder / f"{split}_X.bin", 3 * 96 * 96).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
        sides.append((pixels, _bytes(folder / f"{split}_y.bin", 1)[:, 0].astype(np.int64) - 1))
    (train, first), (test, second) = sides
    return _joined(train, test, (first, second))


def _idx(folder: Path) -> Images:
    """gzip; 16 bytes of head before images, 8 before labels; 28 x 28 bytes a record."""
    sides = []
    for split in ("train", "t10k"):
        pixels = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())[16:]
        labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())[8:]
        images = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, 28, 28)
        sides.append((images, np.frombuffer(labels, dtype=np.uint8)))
    (train, first), (test, second) = sides
    return _joined(train, test, (first, second))


def _folders(root: Path, size: int) -> Images:
    """SPLIT/CLASS/… ; a split without class folders (TinyImageNet's val and test) is left out."""
    from PIL import Image

    names = sorted(one.name for one in (root / "train").iterdir() if one.is_dir())
    found, classes, trained = [], [], 0
    for split in (one for one in SPLITS if (root / one).is_dir()):
        for number, name in enumerate(names):
            own = sorted(one for one in (root / split / name).rglob("*") if one.suffix.lower() in SUFFIXES)
            for path in own:
                with Image.open(path) as opened:
                    image = _square(opened.convert("RGB"), size)
                found.append(np.asarray(image))
                classes.append(number)
        trained = trained or len(found)
    if len({one.shape for one in found}) != 1:
        shapes = len({one.shape for one in found})
        raise RecordsError(f"{root}: no images, or of several sizes", expected="one size", found=f"{shapes} sizes")
    return Images(np.stack(found), np.array(classes, dtype=np.int64), trained)


def _square(image: object, size: int) -> object:
    """The middle, scaled to size."""
    from PIL import Image

    assert isinstance(image, Image.Image)  # noqa: S101
    if not size or image.size == (size, size):
        return image
    side = min(image.size)
    left, top = ((whole - side) // 2 for whole in image.size)
    return image.resize((size, size), Image.Resampling.BOX, box=(left, top, left + side, top + side))


def digits(size: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """1,797 handwritten digits (UCI, shipped with scikit-learn) as images of this size, and their classes."""
    from repromia.demo.classifier import half_hidden_digits

    small = half_hidden_digits()[..., 0]
    times = -(-size // 8)
    large = np.kron(small, np.ones((1, times, times), dtype=np.uint8))[:, :size, :size]
    from sklearn.datasets import load_digits

    return np.repeat(large[..., None], channels, axis=3), load_digits().target.astype(np.uint8)


PER_BATCH = 300  # digits in each of the files of a likeness


def write_cifar10(folder: Path, *, path: str) -> None:
    """Digits in the binary version of CIFAR-10: five batches and a test batch."""
    images, classes = digits(32, 3)
    for number, name in enumerate((*(f"data_batch_{one}.bin" for one in range(1, 6)), "test_batch.bin")):
        rows = slice(number * PER_BATCH, (number + 1) * PER_BATCH)
        _write(folder / path / name, _records(images[rows], classes[rows, None]))


def write_cifar100(folder: Path, *, path: str) -> None:
    """Digits in the binary version of CIFAR-100: a coarse class (even or odd), then the digit."""
    images, classes = digits(32, 3)
    both = np.stack([classes % 2, classes], axis=1)
    for name, rows in (("train.bin", slice(0, 1500)), ("test.bin", slice(1500, None))):
        _write(folder / path / name, _records(images[rows], both[rows]))


def _records(images: np.ndarray, classes: np.ndarray) -> bytes:
    return np.concatenate([classes, images.transpose(0, 3, 1, 2).reshape(len(images), -1)], axis=1).tobytes()


def write_stl10(folder: Path, *, path: str) -> None:
    """Digits in STL-10's binary files: columns first, classes from 1."""
    images, classes = digits(96, 3)
    for split, rows in (("train", slice(0, 500)), ("test", slice(500, 1200))):
        _write(folder / path / f"{split}_X.bin", images[rows].transpose(0, 3, 2, 1).tobytes())
        _write(folder / path / f"{split}_y.bin", (classes[rows] + 1).tobytes())


def write_idx(folder: Path, *, path: str) -> None:
    """Digits in idx files, as Fashion-MNIST's."""
    images, classes = digits(28, 1)
    for split, rows in (("train", slice(0, 1500)), ("t10k", slice(1500, None))):
        count = len(classes[rows]).to_bytes(4, "big")
        head = b"\0\0\x08\x03" + count + (28).to_bytes(4, "big") * 2
        pixels = gzip.compress(head + images[rows].tobytes(), mtime=0)
        labels = gzip.compress(b"\0\0\x08\x01" + count + classes[rows].tobytes(), mtime=0)
        _write(folder / path / f"{split}-images-idx3-ubyte.gz", pixels)
        _write(folder / path / f"{split}-labels-idx1-ubyte.gz", labels)


def write_folders(folder: Path, *, path: str, size: int, inner: str = "", suffix: str = "png", test: str = "") -> None:
    """Digits as image files: train/CLASS/(inner/), and as many in the split `test` where it is named."""
    from PIL import Image

    images, classes = digits(size, 3)
    for number, (image, digit) in enumerate(zip(images[:1200], classes, strict=False)):
        split = test if test and number % 4 == 0 else "train"
        place = folder / path / split / f"class{digit}" / inner
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number:04d}.{suffix}")


def _write(path: Path, data: bytes) -> None:
    from repromia.store import write_atomic

    write_atomic(path, data)
