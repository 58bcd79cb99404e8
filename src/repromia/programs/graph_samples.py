"""What it changes that a node is there: the question of G-BASE (Lassila et al. 2025, arXiv 2505.24089).

Who else was in the training graph is not known. So graphs are drawn, every node into each with the probability that
it was a member; in each, the log-likelihood of the known classes with the node is compared with that without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.special import expit, logsumexp
from torch import Tensor

from repromia.errors import AttackError
from repromia.programs import Binding, Fixed, Program, Target, at_least
from repromia.programs.queries import classifier_behind
from repromia.records import Content, Node, Records
from repromia.signals import GainSignals
from repromia.targets.classifier import PROBED, Classifier
from repromia.targets.drawn import told_apart, uniform
from repromia.targets.nodes import VALUES, WHOLE, Nodes, Seen, neighbourhoods

SIDE = 64  # nodes whose surroundings are asked about at a time
ALONE = 1  # which variant of `augmented` shows a node without neighbours


@dataclass(frozen=True)
class SampledGraphs:
    """Graphs to draw. draws: how many; share: chance of a node to be in one where nothing is known of it; far: steps
    along edges, in either direction, as far as which answers are compared.

    sampled: by share alone (lot), or by each record's chance to be a member as BASE sees it without neighbours (base).
    models: of those that BASE compares with, see there.
    """

    draws: int = 4
    share: float = 0.5
    far: int = 4
    sampled: str = "base"
    models: str = "all"

    def applies(self, target: Target) -> bool:
        """Whether the target classifies nodes."""
        return isinstance(target, Classifier) and target.reader.kind == "node"

    def bind(self, binding: Binding) -> Program:
        """With what is known of the records. Raises AttackError."""
        at_least(1, draws=self.draws, far=self.far)
        if not 0 <= self.share <= 1:
            raise AttackError("The option share is from 0 to 1.", found=f"{self.share:g}")
        if self.sampled not in ("base", "lot"):
            raise AttackError(f"The option sampled cannot be {self.sampled!r}.", expected="base or lot")
        return WithAndWithout(self.draws, self.share, self.far, {} if self.sampled == "lot" else self._chances(binding))

    def _chances(self, binding: Binding) -> dict[str, dict[int, float]]:
        """Of every record to be a member: the logistic function of BASE on the node alone."""
        if binding.about is None:
            raise AttackError("Nothing is known of the records.", hint="ask for sampled=lot")
        records, variants, references = binding.about()
        saw = ~references.inside if self.models == "outside" else np.ones_like(references.inside)
        if not saw.any(axis=0).all():
            raise AttackError(
                "Some records have no reference model that did not see them.", hint="train more, or ask for models=all"
            )
        theirs = np.where(saw, references.logprob[:, :, ALONE].astype(np.float64), -np.inf)
        mean = logsumexp(theirs, axis=0) - np.log(saw.sum(axis=0))
        chances: dict[str, dict[int, float]] = {}
        for one, chance in zip(records.contents, expit(variants[ALONE].logprob - mean).tolist(), strict=True):
            if isinstance(one, Node):
                chances.setdefault(one.source, {})[one.number] = chance
        return chances


@dataclass(frozen=True)
class WithAndWithout(Fixed):
    """Asks about the surroundings of every node in drawn graphs, with the node and without it.

    chances: by digest of the graph and number of the node; share: of all others.
    """

    draws: int = 4
    share: float = 0.5
    far: int = 4
    chances: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Options, and a hash of the chances."""
        held = sorted((source, sorted(known.items())) for source, known in self.chances.items())
        return f"{self.draws} {self.share} {self.far} {blake2b(repr(held).encode(), digest_size=16).hexdigest()}"

    @property
    def evaluations(self) -> int:
        """Answers a record, those about its neighbours not counted."""
        return 2 * self.draws

    def ask(self, target: Target, records: Records) -> tuple[GainSignals, ...]:
        """One. Raises AttackError where neighbours' classes are not known, or probabilities are not told."""
        model = classifier_behind(target)
        if model.reader.kind != "node":
            raise AttackError("This program asks about nodes of a graph.", found=model.reader.kind)
        batch = model.encode(records.contents, records.ids)
        nodes = batch.inputs
        assert isinstance(nodes, Nodes)  # noqa: S101 — of this kind
        apart = model.signals(replace(nodes[:PROBED], hops=self.far), batch.label[:PROBED])  # steady side by side?
        if not apart.told:
            raise AttackError("G-BASE needs probabilities.", found="the predicted class only")
        gain = np.zeros((len(nodes), self.draws))
        for place, (source, labels) in enumerate(_labels(records.contents)):
            rows = np.flatnonzero(nodes.place.numpy() == place)
            asked = _Asked(model, nodes.graphs[place], model.class_numbers(labels), self.far)
            lots = told_apart(asked.graph.features, asked.graph.edges)
            chance = np.full(len(lots), self.share)
            for number, probability in self.chances.get(source, {}).items():
                chance[number] = probability
            for draw in range(self.draws):
                kept = uniform(lots, draw) < chance
                for at in range(0, len(rows), SIDE):
                    some = rows[at : at + SIDE]
                    gain[some, draw] = asked.gains(nodes.number[some], kept)
        return (GainSignals(gain),)


def _labels(contents: Sequence[Content]) -> list[tuple[str, tuple[str, ...]]]:
    """Digest and classes of each graph, in the order in which nodes are read. Raises AttackError."""
    graphs = {one.source: one.graph for one in contents if isinstance(one, Node)}
    without = sum(not any(graph.labels) for graph in graphs.values())
    if without:
        raise AttackError(
            "The classes of the nodes around are not known.",
            expected="records of repromia.load_nodes, from a graph with its y",
            found=f"{without} of {len(graphs)} graphs without classes",
        )
    return [(source, graph.labels) for source, graph in graphs.items()]


class _Asked:
    """A graph, the number of every node's class (-1: not known), and who is asked about it."""

    def __init__(self, model: Classifier, graph: Seen, label: Int[np.ndarray, " node"], far: int) -> None:
        self.model, self.graph, self.label, self.far = model, graph, label, far
        self.both = torch.cat([graph.edges, graph.edges.flip(0)], dim=1)  # what a node changes lies along its edges

    def gains(self, number: Int[Tensor, " some"], kept: Bool[np.ndarray, " node"]) -> Float[np.ndarray, " some"]:
        """Of some nodes, in the graph of the nodes that are kept."""
        count, width = self.graph.features.shape
        near = neighbourhoods(self.both, count, number, self.far, kept)
        if len(number) > 1 and len(near.nodes) * width > VALUES:
            half = len(number) // 2
            return np.concatenate([self.gains(one, kept) for one in (number[:half], number[half:])])
        forward = near.used < self.graph.edges.shape[1]
        edges, used = near.edges[:, forward], near.used[forward]
        weights = None if self.graph.weights is None else self.graph.weights[used]
        asked = torch.zeros(len(near.nodes), dtype=torch.bool)
        asked[near.asked] = True
        left = ~asked[edges].any(dim=0)
        features = self.graph.features[near.nodes]
        there = Seen(features, edges, weights)
        gone = Seen(features, edges[:, left], None if weights is None else weights[left])
        label, place = self.label[near.nodes.numpy()], near.place.numpy()
        known = label >= 0
        found = self._likelihood(there, label, place, known, len(number))
        return found - self._likelihood(gone, label, place, known & ~asked.numpy(), len(number))

    def _likelihood(
        self,
        graph: Seen,
        label: Int[np.ndarray, " here"],
        place: Int[np.ndarray, " here"],
        counted: Bool[np.ndarray, " here"],
        count: int,
    ) -> Float[np.ndarray, " some"]:
        """Of the classes of the counted nodes, summed for every place."""
        rows = torch.from_numpy(np.flatnonzero(counted))
        inputs = Nodes((graph,), torch.zeros_like(rows), rows, WHOLE)
        found = np.zeros(count)
        if len(rows):
            np.add.at(found, place[counted], self.model.signals(inputs, label[counted]).logprob)
        return found
