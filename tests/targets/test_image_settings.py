"""Images reach a model as the image processors of transformers themselves make them, or are refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from repromia.errors import TargetError
from repromia.targets.image_settings import images_read
from repromia.targets.inputs import Images

PLAIN = ("Beit", "Bit", "CLIP", "DeiT", "MobileNetV1", "MobileNetV2", "Pvt", "Segformer", "Siglip", "ViT")
OWN: list[tuple[str, dict[str, Any]]] = [
    ("MobileViT", {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}),
    ("MobileViT", {"size": {"shortest_edge": 72}, "crop_size": 64, "do_flip_channel_order": False}),
    ("ConvNext", {"size": {"shortest_edge": 64}}),
    ("ConvNext", {"size": 60, "crop_pct": 0.95}),
    ("ConvNext", {"size": {"shortest_edge": 384}}),
    ("PoolFormer", {}),
    ("PoolFormer", {"crop_pct": 0.95}),
    ("Levit", {}),
    ("Perceiver", {}),
    ("EfficientNet", {}),
    ("EfficientNet", {"include_top": False, "rescale_offset": True, "rescale_factor": 2 / 255}),
    ("EfficientNet", {"do_normalize": False}),
    ("DeiT", {"size": 256}),
    ("CLIP", {"size": 64, "crop_size": 60}),
]


def wide() -> np.ndarray:
    """A smooth picture: filters that differ a little scale it alike. Every channel and corner is another."""
    y, x = np.mgrid[:150, :180]
    channels = [127 + 100 * np.sin(x / 60 + y / 150), 127 + 100 * np.cos(y / 40), 60 + 100 * x / 180]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def seen(reader: Images, pixels: np.ndarray) -> np.ndarray:
    fitted = torch.from_numpy(reader._fitted(pixels)[None]).float() / 255
    return reader.scaled(fitted)[0].numpy()


@pytest.mark.parametrize(("kind", "options"), [*((one, {}) for one in PLAIN), *OWN], ids=str)
def test_the_processor_itself_is_the_oracle(kind: str, options: dict[str, Any]) -> None:
    processor: Any = getattr(transformers, f"{kind}ImageProcessorPil", None)
    if processor is None:
        pytest.skip("this version of transformers has no processor without torchvision")
    processor = processor(**options)
    expected = np.asarray(processor(Image.fromarray(wide()), return_tensors="np")["pixel_values"][0])
    saved = json.loads(processor.to_json_string())
    terse = {"feature_extractor_type": f"{kind}FeatureExtractor", **options}  # as old checkpoints have it
    for stated in (saved, terse):
        found = seen(images_read(stated, 3), wide())
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() < 0.03 * np.ptp(expected)  # the middle may be a pixel beside theirs


def test_what_a_processor_does_unasked_is_known_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of versions of transformers whose processors need torchvision."""
    monkeypatch.setattr("repromia.targets.image_settings._defaults", lambda kind: {})
    plain = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 64}
    found = images_read({"image_processor_type": "ConvNextImageProcessorFast", **plain}, 3)
    assert (found.size, found.edge, found.resize) == (64, 73, "crop")
    assert images_read({"image_processor_type": "MobileViTImageProcessor", **plain}, 3).flip
    assert images_read({"image_processor_type": "EfficientNetImageProcessor", **plain}, 3).std == (0.25,) * 3


def test_reversed_channels_are_the_models_and_pass_gradients() -> None:
    reader = images_read({"image_processor_type": "MobileViTImageProcessor", "size": 8, "crop_size": 8}, 3)
    pixels = torch.rand(2, 3, 8, 8, requires_grad=True)
    assert torch.equal(reader.scaled(pixels), pixels[:, [2, 1, 0]])
    reader.scaled(pixels)[:, 0].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.sum(dim=(0, 2, 3)).tolist() == [0, 0, 128]
    assert reader.describe().endswith("channels reversed")
    assert reader.key != images_read({"do_normalize": False, "size": 8}, 3).key
    assert not images_read({"do_flip_channel_order": True, "do_normalize": False, "size": 8}, 1).flip


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"image_processor_type": "ImageGPTImageProcessor"}, "ImageGPT"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, "Siglip2"),
        ({"do_pad": True}, "do_pad"),
        ({"image_processor_type": "ViTImageProcessor", "do_sharpen": True}, "do_sharpen"),
        ({"size_divisor": 32}, "size_divisor"),
        ({"crop_pct": 0.9, "size": 224}, "crop_pct"),
        ({"do_normalize": True, "size": 8}, "image_mean"),
        ({"size": {"shortest_edge": 8, "longest_edge": 16}}, "longest_edge"),
        ({"size": {"shortest_edge": 8}, "do_center_crop": True, "crop_size": 10}, "10 of 8 pixels"),
    ],
)
def test_what_is_not_known_is_refused(stated: dict[str, Any], said: str) -> None:
    with pytest.raises(TargetError, match=said) as caught:
        images_read({"do_normalize": False, **stated}, 3)
    assert "preprocessor_config.json" in str(caught.value)


def test_what_changes_no_pixel_is_no_matter() -> None:
    harmless = {"do_pad": False, "do_convert_rgb": True, "do_reduce_labels": True, "size_divisor": None}
    harmless |= {"resample": 3, "processor_class": "CLIPProcessor", "size": {"shortest_edge": 8, "height": None}}
    assert images_read({"do_normalize": False, **harmless}, 3) == Images(3, 8)
