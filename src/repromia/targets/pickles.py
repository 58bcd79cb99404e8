"""What to do about a checkpoint that cannot be loaded."""

from __future__ import annotations

from pathlib import Path


def checkpoint_hint(path: str | Path, otherwise: str) -> str:
    """Pickled weights are refused; where a folder has none, nothing is to be converted: the hint of the caller."""
    folder = Path(path)
    pickled = folder.is_dir() and any(folder.rglob("*.bin")) and not any(folder.rglob("*.safetensors"))
    return "pickled weights (.bin) are refused: write them with save_pretrained" if pickled else otherwise
