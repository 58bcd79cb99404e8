"""What captions become: embeddings by the pipeline's own encode_prompt, or the number of a class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from repromia.errors import TargetError
from repromia.targets.diffusion import Conditions


def _plain(pipeline: Any, captions: list[str], *positional: None, **options: Any) -> tuple[Any, ...]:
    device = next(pipeline.text_encoder.parameters()).device
    encoded: tuple[Any, ...] = pipeline.encode_prompt(
        captions, *positional, device=device, num_images_per_prompt=1, **options
    )
    return encoded


def one_encoder(pipeline: Any, captions: list[str]) -> Conditions:
    """Stable Diffusion 1 and 2."""
    return {"text": _plain(pipeline, captions, do_classifier_free_guidance=False)[0]}


def pooled(pipeline: Any, captions: list[str]) -> Conditions:
    """Stable Diffusion XL: both encoders side by side, and the second one's summary."""
    text, _, summary, _ = _plain(pipeline, captions, do_classifier_free_guidance=False)
    return {"text": text, "pooled": summary}


def three(pipeline: Any, captions: list[str]) -> Conditions:
    """Stable Diffusion 3; the caption goes to all of its encoders."""
    text, _, summary, _ = _plain(pipeline, captions, None, None, do_classifier_free_guidance=False)
    return {"text": text, "pooled": summary}


def flux(pipeline: Any, captions: list[str]) -> Conditions:
    """Flux, which always asks without an unconditional pass."""
    text, summary, _ = _plain(pipeline, captions)
    return {"text": text, "pooled": summary}


def masked(pipeline: Any, captions: list[str]) -> Conditions:
    """PixArt, whose T5 looks at the caption only, not at the padding."""
    text, mask, _, _ = _plain(pipeline, captions, do_classifier_free_guidance=False)
    return {"text": text, "mask": mask}


def class_ids(pipeline: Any, captions: list[str]) -> Conditions:
    """DiT: the number or the name of a class. The class that stands for none where there is no such class."""
    none = int(pipeline.transformer.config.num_embeds_ada_norm)
    found = [class_id(pipeline, one) for one in captions]
    return {"class": torch.tensor([none if one is None else one for one in found])}


def class_id(pipeline: Any, caption: str) -> int | None:
    """The number of the class that a caption names; an empty one names the class that stands for none."""
    none = int(pipeline.transformer.config.num_embeds_ada_norm)
    names = {name.casefold(): int(number) for name, number in pipeline.labels.items()}
    said = caption.strip().casefold()
    if said.isdecimal():
        return int(said) if int(said) <= none else None
    return names.get(said, names.get(said.split(",")[0].strip())) if said else none


def check_classes(pipeline: Any, captions: Sequence[str]) -> None:
    """Raises TargetError where a caption names no class of the model: the answer would be about none."""
    unknown = [one for one in dict.fromkeys(captions) if class_id(pipeline, one) is None]
    if unknown:
        last = int(pipeline.transformer.config.num_embeds_ada_norm) - 1
        known = [name for name, _ in sorted(pipeline.labels.items(), key=lambda one: int(one[1]))][:5]
        raise TargetError(
            f"{len(unknown)} captions name no class of the model.",
            expected=f"a number from 0 to {last}"
            + (f", or a name such as {', '.join(map(repr, known))}" if known else ""),
            found=", ".join(repr(one) if len(one) <= 30 else f"a text of {len(one)} characters" for one in unknown[:5]),
            hint="name the field that holds the class with --caption",
        )
