"""Lots that nodes and edges draw by what they are, never by how they are numbered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from jaxtyping import Float, Int, UInt64
from torch import Tensor

ROUNDS = 3  # hops by which nodes of equal features are told apart


@dataclass(frozen=True, eq=False)
class Same:
    """A tensor as a key of a cache: the object itself, not its values."""

    tensor: Tensor

    def __hash__(self) -> int:
        return id(self.tensor)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.tensor is self.tensor


def codes(features: Float[Tensor, "node feature"]) -> UInt64[np.ndarray, " node"]:
    """A number a node, drawn by its features."""
    return _codes(Same(features))


def told_apart(features: Float[Tensor, "node feature"], edges: Int[Tensor, "2 edge"]) -> UInt64[np.ndarray, " node"]:
    """The same, where others have equal features by the surroundings too, as far as three hops."""
    return _told_apart(Same(features), Same(edges))


@lru_cache(maxsize=8)
def _codes(features: Same) -> UInt64[np.ndarray, " node"]:
    drawn = [int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest()) for row in features.tensor.numpy()]
    return np.array(drawn, dtype=np.uint64)


@lru_cache(maxsize=8)
def _told_apart(features: Same, edges: Same) -> UInt64[np.ndarray, " node"]:
    code = codes(features.tensor)
    source, destination = edges.tensor.numpy()
    for _ in range(ROUNDS):
        _, which, count = np.unique(code, return_inverse=True, return_counts=True)
        alike = count[which] > 1
        if not alike.any():
            break
        around = np.zeros_like(code)
        np.add.at(around, destination, _mixed(code[source], 0))
        np.add.at(around, source, _mixed(code[destination], 1))
        code = np.where(alike, _mixed(code + around, 2), code)
    return code


def uniform(code: UInt64[np.ndarray, " lot"], draw: int) -> Float[np.ndarray, " lot"]:
    """Numbers in [0, 1) by code."""
    found: Float[np.ndarray, " lot"] = (_mixed(code, draw) >> np.uint64(11)) * 2.0**-53
    return found


def _mixed(code: UInt64[np.ndarray, " lot"], draw: int) -> UInt64[np.ndarray, " lot"]:
    """The finaliser of SplitMix64."""
    mixed = code + np.uint64((0x9E3779B97F4A7C15 * (draw + 1)) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    found: UInt64[np.ndarray, " lot"] = mixed ^ (mixed >> np.uint64(31))
    return found
