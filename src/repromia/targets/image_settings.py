"""What preprocessor_config.json says is done to images, as transformers' own image processors do it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from repromia.errors import TargetError
from repromia.targets.inputs import Images
from repromia.targets.pixels import Resize

FILE = "preprocessor_config.json"

_SUFFIX = re.compile(r"(ImageProcessor(Fast|Pil)?|FeatureExtractor)$")
_KNOWN = (
    *("Beit", "Bit", "Blip", "CLIP", "ConvNext", "DINOv3ViT", "DeiT", "EfficientNet", "Levit", "MobileNetV1"),
    *("MobileNetV2", "MobileViT", "Perceiver", "PoolFormer", "Pvt", "Segformer", "Siglip", "ViT"),
)
_READ = (
    *("size", "crop_size", "crop_pct", "default_to_square", "rescale_factor", "rescale_offset", "include_top"),
    *("image_mean", "image_std", "do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_flip_channel_order"),
)
_HARMLESS = ("do_convert_rgb", "do_reduce_labels")  # channels are fitted to the model's anyway
_OTHER = (  # true or above 0 they change pixels in ways that are not followed here
    *("clusters", "ensure_multiple_of", "keep_aspect_ratio", "max_num_patches", "resize_short", "size_divisor"),
    "use_square_size",
)
# of versions of transformers whose classes do not tell what they do unasked
_UNSAID: Mapping[str, Mapping[str, Any]] = {
    "ConvNext": {"crop_pct": 224 / 256, "default_to_square": False},
    "EfficientNet": {"include_top": True},
    "MobileViT": {"do_flip_channel_order": True},
    "PoolFormer": {"crop_pct": 0.9, "default_to_square": False},
}
_WARPED = 384  # sides from which ConvNext's processor scales both sides and crops nothing
_HINT = "name a function that builds the module and takes pixels in [0, 1] as they are (package.module:build)"


def images_read(stated: Mapping[str, Any], channels: int) -> Images:
    """The reader of a model of so many channels. Raises TargetError for what is done to images but not known here."""
    said = {name: value for name, value in stated.items() if value is not None}
    kind = _SUFFIX.sub("", str(said.get("image_processor_type", said.get("feature_extractor_type", ""))))
    _refuse_unknown(kind, said)
    said = {**_UNSAID.get(kind, {}), **_defaults(kind), **said}
    size, edge, squash = _sides(kind, said)
    mean, std = _scaling(kind, said, channels)
    resize: Resize = "squash" if squash else "crop"
    flip = bool(said.get("do_flip_channel_order")) and channels == 3
    return Images(channels, size, mean, std, resize, edge if size and edge > size else 0, flip)


def _refuse_unknown(kind: str, said: Mapping[str, Any]) -> None:
    if kind and kind not in _KNOWN:
        raise TargetError(
            f"What the image processor of {FILE} does is not known.",
            expected=f"the one of {', '.join(_KNOWN)}",
            found=kind[:60],
            hint=_HINT,
        )
    known = (*_READ, *_HARMLESS)
    wrong = [name for name, value in said.items() if value and name.startswith("do_") and name not in known]
    wrong += [name for name in _OTHER if said.get(name)]
    if "crop_pct" in said and not kind:  # whose it is decides what it means
        wrong.append("crop_pct without an image_processor_type")
    if wrong:
        raise TargetError(
            f"{FILE} says that images are changed in a way that is not known.",
            expected="resizing, cropping, rescaling, normalising, or reversed channels",
            found=", ".join(one[:60] for one in wrong[:5]),
            hint=_HINT,
        )


def _defaults(kind: str) -> dict[str, Any]:
    """What a processor does where its file says nothing."""
    import transformers

    known = getattr(transformers, f"{kind}ImageProcessorPil", None) if kind else None
    return {name: value for name in _READ if (value := getattr(known, name, None)) is not None}


def _sides(kind: str, said: Mapping[str, Any]) -> tuple[int, int, bool]:
    """Side of what the model takes, side that images are scaled to before the rest is cut off, and whether both sides
    are scaled to it. 0: not said."""
    cropped = bool(said.get("do_center_crop"))
    edge, squash = _side(said.get("size"), squash=bool(said.get("default_to_square", not cropped)))
    crop, _ = _side(said.get("crop_size"), squash=False) if cropped else (0, False)
    edge = edge if said.get("do_resize", True) else 0
    match kind:
        case "ConvNext" if edge >= _WARPED:
            squash = True
        case "ConvNext" if edge:
            edge, crop, squash = int(edge / said["crop_pct"]), crop or edge, False
        case "PoolFormer" if edge:
            edge, squash = int(edge / said["crop_pct"]), False
        case "Levit" if edge and not squash:
            edge = int(256 / 224 * edge)
        case "Perceiver" if edge and crop:  # cut first: the middle crop-th is scaled to the size
            edge, crop, squash = crop, edge, False
    if 0 < edge < crop:
        raise TargetError(
            f"{FILE} cuts more out of images than there is: they would have to be framed in black.",
            expected="a crop_size of at most the size",
            found=f"{crop} of {edge} pixels",
            hint=_HINT,
        )
    return crop or edge, edge, squash


def _side(size: Any, *, squash: bool) -> tuple[int, bool]:
    """The side, and whether both are scaled to it (a bare number does not say)."""
    if isinstance(size, Mapping):
        size = {name: value for name, value in size.items() if value is not None}
    match size:
        case None:
            return 0, False
        case int():
            return size, squash
        case {"shortest_edge": int(side)} if len(size) == 1:
            return side, False
        case {"height": int(side), "width": int(wide)} if side == wide:
            return side, True
    raise TargetError(f"The size in {FILE} is not known.", expected="square images", found=str(size))


def _scaling(kind: str, said: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of pixels p in [0, 1]: what is seen is (255 k p - offset - mean) / deviation."""
    k = 255 * float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 255.0
    offset = 1.0 if said.get("rescale_offset") else 0.0
    mean, std = (0.0,) * channels, (1.0,) * channels
    if said.get("do_normalize", True) and kind != "MobileViT":  # which holds a mean, and never takes it off
        mean, std = _each(said, "image_mean", channels), _each(said, "image_std", channels)
    if said.get("include_top") and kind in ("", "EfficientNet"):  # divides once more
        std = tuple(one * again for one, again in zip(std, _each(said, "image_std", channels), strict=True))
    mean, std = tuple((one + offset) / k for one in mean), tuple(one / k for one in std)
    return ((), ()) if not any(mean) and set(std) == {1.0} else (mean, std)


def _each(said: Mapping[str, Any], name: str, channels: int) -> tuple[float, ...]:
    values = said.get(name)
    if values is None:
        raise TargetError(f"{FILE} normalises pixels, and does not say how.", expected=name, found="nothing")
    found = tuple(map(float, values)) if isinstance(values, list | tuple) else (float(values),)
    return found * channels if len(found) == 1 else found
