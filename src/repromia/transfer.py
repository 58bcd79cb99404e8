"""Heads that were learned in one audit (of a shadow model) and are carried over to another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from repromia.attacks import Chosen, Modality, parse
from repromia.errors import ConfigError
from repromia.heads import Head, Shape
from repromia.records import Content, Picture, Records, as_text
from repromia.scoring import Scored
from repromia.store import file_name
from repromia.supervision import HEAD, SAME_SUPERVISION, Supervised, passes_together, passive_scores

FOLDER = "heads"
SUFFIX = ":transferred"


@dataclass(frozen=True)
class SavedHead:
    """A head on disk.

    name: its row; attacks: passive rows whose scores are its first features, in order; bank: the row of the bank
    that gives the rest, or ""; columns: what every feature is; seen: content hashes of the records it was fitted or
    its programs were chosen on.
    """

    name: str
    attacks: tuple[str, ...]
    bank: str
    columns: tuple[str, ...]
    head: Head
    seen: frozenset[str]


def save_heads(heads: Sequence[Supervised], seen: Records, folder: Path) -> None:
    """Write the heads that can be carried over (those without a reference) under `folder`/heads."""
    digests = sorted({_digest(content) for content in seen.contents})
    for one in heads:
        if one.head is None:
            continue
        path = folder / FOLDER / f"{file_name(one.name)}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {
            "format": 1,
            "name": one.name,
            "attacks": list(one.attacks),
            "bank": one.name if one.bank is not None else "",
            "columns": list(one.columns),
            "centre": one.head.centre.tolist(),
            "spread": one.head.spread.tolist(),
            "weights": one.head.weights.tolist(),
            "intercept": one.head.intercept,
            "C": one.head.strength,
            "reach": one.head.shape.reach,
            "anchors": one.head.shape.anchors,
            "seen": digests,
        }
        path.write_text(json.dumps(about, indent=1, allow_nan=False), encoding="utf-8")


def load_heads(run: Path) -> list[SavedHead]:
    """The heads of an audit's folder. Raises ConfigError."""
    files = sorted((run / FOLDER).glob("*.json"))
    if not files:
        raise ConfigError(
            f"There is no head to carry over in {str(run)!r}.",
            expected=f"the --out folder of a finished audit of a shadow model, with {FOLDER}/*.json",
            hint="audit the shadow model first, with probe_bank among the attacks",
        )
    return [_load(path) for path in files]


def _load(path: Path) -> SavedHead:
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        arrays = [np.asarray(about[name], dtype=np.float64) for name in ("centre", "spread", "weights")]
        columns = tuple(map(str, about["columns"]))
        if about["format"] != 1 or any(one.shape != (len(columns),) or not np.isfinite(one).all() for one in arrays):
            raise ValueError("figures that do not fit the columns")
        centre, spread, weights = arrays
        shape = Shape(float(about["reach"]), int(about["anchors"]))
        head = Head(centre, spread, weights, float(about["intercept"]), float(about["C"]), shape)
        attacks = tuple(map(str, about["attacks"]))
        return SavedHead(str(about["name"]), attacks, str(about["bank"]), columns, head, frozenset(about["seen"]))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"The head {str(path)!r} cannot be read.",
            expected="a file as an audit writes it",
            found=f"{type(error).__name__}: {error}",
        ) from error


def needed(heads: Sequence[SavedHead], modality: Modality = "language") -> list[Chosen]:
    """The attacks that the heads' features come from."""
    names = [name for one in heads for name in (*one.attacks, *([one.bank] if one.bank else []))]
    return [parse(name, modality) for name in dict.fromkeys(names)]


def saved_programs(run: Path, modality: Modality = "language") -> list[Chosen]:
    """The learned programs of an audit's folder, as attacks of their own."""
    found = []
    if modality == "diffusion":
        from repromia.programs.perturbation import saved_spec

        return [parse(saved_spec(path), modality) for path in sorted((run / "programs").glob("*.safetensors"))]
    if modality != "language":
        return [parse(_spec(path), modality) for path in sorted((run / "programs").glob("*.json"))]
    for path in sorted((run / "programs").glob("*.json")):
        try:
            recipe = json.loads(path.read_text(encoding="utf-8"))["learned"]["recipe"]["score"]
        except (OSError, KeyError, TypeError, ValueError):
            recipe = "forgetting"  # reading the program itself will say what is wrong with it
        name = "forgetting" if recipe == "forgetting" else "paper"
        found.append(parse(f"reprogram:recipe={name}:program={path.with_suffix('.safetensors')}"))
    return found


def _spec(path: Path) -> str:
    """The attack that asks a classifier or a graph model under a program on disk."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        given = {name: about[name] for name in ("where", "answers") if name in about}
        given["recipe"] = about["learned"]["recipe"]
    except (OSError, KeyError, TypeError, ValueError):
        given = {}  # reading the program itself will say what is wrong with it
    options = [f"{name}={value}" for name, value in given.items()]
    return ":".join(["reprogram", *options, f"program={path.with_suffix('.safetensors')}"])


def transferred_rows(
    heads: Sequence[SavedHead], scored: Sequence[Scored], measured: Records
) -> list[tuple[str, Scored, str]]:
    """(name, scores of all records, rival) of every head carried over.

    No label of this audit is used but those of prefix shots, where a feature has such (`needs` says so).
    """
    digests = {_digest(content) for content in measured.contents}
    rows = []
    for one in heads:
        name = f"{one.name}{SUFFIX}"
        rival = f"{SAME_SUPERVISION}{SUFFIX}" if one.bank else ""
        rows.append((name, _apply(name, one, scored, digests), rival))
    return rows


def _apply(name: str, one: SavedHead, scored: Sequence[Scored], measured: set[str]) -> Scored:
    found = {row.chosen.name: row for row in scored}
    own = found.get(one.bank or SAME_SUPERVISION)
    needs = ("shadow model", *dict.fromkeys(_labels_needed([*one.attacks, *([one.bank] if one.bank else [])], found)))
    attack = HEAD if own is None else own.chosen.attack
    bank_kind = "reprogrammed" if own is None else attack.kind
    attack = replace(attack, name=name, needs=needs, kind=bank_kind if one.bank else "head")
    chosen = Chosen(name, attack, {})
    overlap = len(measured & one.seen)
    if overlap:
        reason = f"{overlap} eval records are among those that the head was learned on"
        return Scored(chosen, None, reason=reason)
    missing = [part for part in (*one.attacks, *([one.bank] if one.bank else [])) if part not in found]
    unscored = [part for part in one.attacks if part in found and found[part].scores is None]
    if missing or unscored or (own is not None and own.reason):
        return Scored(
            chosen, None, reason=f"no features: {', '.join(missing + unscored) or (own.reason if own else '')}"
        )
    parts: list[Float[np.ndarray, "record feature"]] = []
    columns: list[str] = []
    if one.attacks:
        parts.append(passive_scores([found[part] for part in one.attacks]))
        columns += [column for part in one.attacks for column in found[part].columns]
    passes = passes_together([found[part] for part in one.attacks])
    if own is not None and own.bank is not None:
        parts.append(own.bank.table)
        columns += own.bank.names
        passes += own.bank.passes
    if tuple(columns) != one.columns:
        differ = sorted(set(columns) ^ set(one.columns))
        return Scored(
            chosen, None, reason=f"this model gives other features than the shadow model: {', '.join(differ[:5])}"
        )
    return Scored(chosen, one.head(np.concatenate(parts, axis=1)), passes=passes)


def _labels_needed(parts: Sequence[str], found: dict[str, Scored]) -> list[str]:
    """What the features themselves take from this audit's labels: shots for prefixes."""
    attacks = [found[part].chosen.attack for part in parts if part in found]
    needs = [need for one in attacks for need in one.needs if need not in ("labels", "reference")]
    shots = any(found[part].used for part in parts if part in found)
    return needs + (["labelled records (shots)"] if shots and not needs else [])


def _digest(content: Content) -> str:
    """Hash of a text without its case and spacing, or of pixels, as duplicates are found."""
    if isinstance(content, Picture):
        return content.digest
    text = " ".join(as_text(content).casefold().split())
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
