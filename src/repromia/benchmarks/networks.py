"""Image classifiers of the benchmarks and how they are trained."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from repromia.records import Picture, Records


class SmallCnn(nn.Module):
    """Three convolutions and two linear layers: small enough for a laptop, and it over-fits."""

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        widths = (channels, 16, 32, 64)
        steps: list[nn.Module] = []
        for one, next_ in pairwise(widths):
            steps += [nn.Conv2d(one, next_, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*steps, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, classes))

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of pixels in [0, 1]."""
        found: Tensor = self.head(self.body(2 * pixels - 1))
        return found


class _Block(nn.Module):
    def __init__(self, width: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        same = stride == 1 and width == out
        projection = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.past = nn.Identity() if same else projection

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = (self.body(x) + self.past(x)).relu()
        return found


class ResNet18(nn.Module):
    """He et al. 2016, with the stem for small images (3 x 3, no pooling)."""

    def __init__(self, channels: int = 3, classes: int = 10) -> None:
        super().__init__()
        steps: list[nn.Module] = [nn.Conv2d(channels, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
        for width, out, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
            steps += [_Block(width, out, stride), _Block(out, out, 1)]
        self.body = nn.Sequential(*steps, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(512, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits of pixels in [0, 1]."""
        found: Tensor = self.head(self.body(2 * pixels - 1))
        return found


def train(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
    augment: bool,
    epochs: int = 30,
    classes: int = 10,
    large: bool = False,
    label_smoothing: float = 0.0,
) -> nn.Module:
    """AdamW with a linear decay, on a GPU where there is one. augment: flips and shifts by up to two pixels; large:
    ResNet18, else SmallCnn."""
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    wanted = torch.from_numpy(labels).long()
    model = (ResNet18 if large else SmallCnn)(pixels.shape[1], classes).to(device)
    batch = min(64, len(pixels))
    steps = epochs * (len(pixels) // batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in range(epochs):
        order = torch.randperm(len(pixels))
        for at in range(0, len(order) - batch + 1, batch):
            rows = order[at : at + batch]
            shown = _moved(pixels[rows]) if augment else pixels[rows]
            logits = model(shown.to(device))
            loss = nn.functional.cross_entropy(logits, wanted[rows].to(device), label_smoothing=label_smoothing)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return model.cpu().eval()


def train_on(records: Records, seed: int, *, augment: bool, epochs: int, classes: int, large: bool) -> nn.Module:
    """`train` on records whose caption is their class: for shadow models."""
    pictures = [one for one in records.contents if isinstance(one, Picture)]
    images, labels = np.stack([one.pixels() for one in pictures]), np.array([int(one.caption) for one in pictures])
    return train(images, labels, seed=seed, augment=augment, epochs=epochs, classes=classes, large=large)


def _moved(pixels: Tensor) -> Tensor:
    flipped = torch.where(torch.rand(len(pixels), 1, 1, 1) < 0.5, pixels.flip(-1), pixels)
    down, right = (int(one) for one in torch.randint(-2, 3, (2,)))
    return torch.roll(nn.functional.pad(flipped, (2,) * 4, mode="replicate"), (down, right), (2, 3))[..., 2:-2, 2:-2]
