"""`repromia demo`: prepare, then run the same audit that a user would."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from repromia.config import AuditConfig
from repromia.progress import watched
from repromia.report.sections import command
from repromia.run import audit_command
from repromia.store import saving

SHADOWS = 8


def run_demo(out: Path, *, modality: str = "language", model: str = "small", seed: int = 0) -> int:
    """Prepare data and models under `out`, audit them, say what command that was."""
    with saving(out):
        out.mkdir(parents=True, exist_ok=True)
    if modality == "classifier":
        return _classifier_demo(out, seed)
    if modality == "graph":
        return _graph_demo(out, seed)
    from repromia.demo.language import ATTACKS, prepare

    console = Console()
    progress = watched()
    if modality == "diffusion":
        from repromia.demo import diffusion

        console.print("Training two small diffusion models on handwritten digits (a minute or two, once) …")
        files, attacks = diffusion.prepare(out, seed=seed, progress=progress), diffusion.ATTACKS
    elif model == "smollm2":
        from repromia.demo.smollm2 import prepare_smollm2

        files, attacks = prepare_smollm2(out, seed=seed, progress=progress)
    else:
        console.print("Training a small language model on presidential addresses (a minute or two, once) …")
        files, attacks = prepare(out, seed=seed, progress=progress), ATTACKS
    config = AuditConfig(
        model=str(files.finetuned),
        reference=str(files.base) if model == "small" else "",
        members=files.members,
        nonmembers=files.nonmembers,
        out=out / "audit",
        attacks=(attacks,),
        fprs=(0.05, 0.01),
        program_permutations=1,
        max_tokens=160,
        seed=seed,
    )
    return _audit(config, console)


def _classifier_demo(out: Path, seed: int) -> int:
    from repromia.demo.classifier import prepare

    console = Console()
    console.print("Training a small classifier on handwritten digits, and then shadow models like it …")
    files = prepare(out, seed=seed)
    sides: dict[str, str | Path] = {
        "members": files.members,
        "nonmembers": files.nonmembers,
        "class_field": "folder",
    }
    return _with_shadows("repromia.demo.classifier", files.weights, sides, out, seed, console)


def _graph_demo(out: Path, seed: int) -> int:
    from repromia.demo.graph import prepare

    console = Console()
    console.print("Training a small graph network on a graph of handwritten digits, and then shadow models like it …")
    files = prepare(out, seed=seed)
    sides: dict[str, str | Path] = {
        "graph": str(files.graph),
        "members": Path("members"),
        "nonmembers": Path("nonmembers"),
    }
    return _with_shadows("repromia.demo.graph", files.weights, sides, out, seed, console)


def _with_shadows(
    module: str, weights: Path, sides: Mapping[str, str | Path], out: Path, seed: int, console: Console
) -> int:
    """Audit what `module` builds and trains. sides: how the records are named on the command line."""
    named: dict[str, Any] = {
        "model": f"{module}:build",
        "weights": str(weights),
        **sides,
        "shadow_training": f"{module}:train",
        "shadow_models": SHADOWS,
        "out": out / "audit",
    }
    return _audit(AuditConfig(**named, fprs=(0.05, 0.01), program_permutations=1, seed=seed), console)


def _audit(config: AuditConfig, console: Console) -> int:
    """The audit, behind the command that makes the same one."""
    console.print("Auditing it, as you would audit your own model:")
    console.print(f"  {command(config.model_dump(mode='json'))}", soft_wrap=True, highlight=False)
    return audit_command(config, console)
