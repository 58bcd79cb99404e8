"""Models whose rotary factors change with the length of what they read."""

from __future__ import annotations

from typing import Any


def factor_switches(config: Any) -> tuple[int, ...]:
    """Lengths in tokens beyond which a model reads by other rotary factors, ascending; none for most models.

    "longrope" (Ding et al. 2024; Phi-3 with 128k) has short and long factors, and transformers takes one of the two
    for a whole batch, by its last position.
    """
    config = config.get_text_config()
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = [scaling, *(one for one in scaling.values() if isinstance(one, dict))]  # one for all layers, or one a kind
    stated = getattr(config, "original_max_position_embeddings", None)
    lengths = {
        one.get("original_max_position_embeddings") or stated
        for one in kinds
        if one.get("rope_type", one.get("type")) in ("longrope", "su")
    }
    return tuple(sorted(int(length) for length in lengths if length))
