"""Records that occur more than once: across the sides they are no evidence, within a side they count once.

Exact: the same text after case folding and collapsing white space. Near: the Jaccard similarity of the sets
of word 5-grams (words: runs of letters, digits and underscores) reaches a threshold. Texts of fewer than
five words count as one shingle, all their words. Scripts written without spaces form few words, so that
only exact repeats are found.

Pictures: exact are those with the same pixels, whatever their files and captions; near those of
`repromia.near_pictures`.

Rows of a table: exact are those of the same numbers and the same class; near ones are not looked for. Texts with a
class: the text decides, whatever the class.

Nodes of a graph: exact are those of the same features (at least one of them not 0), the same class, and edges to and
from the same other nodes, each in the graph that it is asked about; near ones are not looked for.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from repromia.errors import RecordsError
from repromia.near_pictures import near_pairs
from repromia.records import Content, Example, LabelledRecords, Node, Picture, Records, TableRow, as_text
from repromia.result import Duplicates

SHINGLE_WORDS = 5
# Mean word length above which a text is taken to have no spaces (Chinese, Japanese, Thai): characters count as words.
LONGEST_MEAN_WORD = 12
# A shingle of more distinct texts than this proposes no pair; in the similarity it counts all the same.
COMMON = 1000
_BLOCK_PRODUCTS = 5_000_000  # bounds the memory of one block of the product: about 16 bytes each
_MIXERS = np.random.default_rng(0x5EED).integers(1, 2**63, SHINGLE_WORDS, dtype=np.uint64) | np.uint64(1)


@dataclass(frozen=True)
class DuplicateReport:
    """Which records repeat which.

    text: index of each record's distinct text or picture (equal numbers: exact duplicates), counted in order of
    appearance.
    near: pairs of distinct texts, first < second, and their similarity in [threshold, 1]; of pictures 1 minus the
    root-mean-square difference of their thumbnails.
    unchecked: records that share nothing but shingles of more than `COMMON` texts and could still be similar
    through those: near-duplicates of them were not looked for.
    """

    text: Int[np.ndarray, " record"]
    near: Int[np.ndarray, " pair 2"]
    similarity: Float[np.ndarray, " pair"]
    unchecked: int


def find_duplicates(labelled: LabelledRecords, *, threshold: float = 0.5) -> DuplicateReport:
    """Exact and near duplicates.

    Similarities are exact but for 64-bit hash collisions (chance below 1e-4 in 20M shingles).
    threshold: least Jaccard similarity, in (0, 1]. Two texts that share nothing but shingles of more than
    `COMMON` texts are not compared. It does not apply to pictures. Raises RecordsError for a threshold out of range
    and as `repromia.near_pictures.near_pairs` does.
    """
    if not 0 < threshold <= 1:
        raise RecordsError(
            "the duplicate threshold is out of range", expected="0 < threshold <= 1", found=str(threshold)
        )
    pictures = [content for content in labelled.records.contents if isinstance(content, Picture)]
    if pictures:
        return _alike(pictures)
    contents = labelled.records.contents
    if any(isinstance(one, TableRow) for one in contents):
        return _equal(contents)
    if any(isinstance(one, Node) for one in contents):
        return _equal(_seen_nodes(contents))
    distinct: dict[str, int] = {}
    texts = [one.text if isinstance(one, Example) else as_text(one) for one in contents]
    text = np.array(
        [distinct.setdefault(" ".join(text.casefold().split()), len(distinct)) for text in texts],
        dtype=np.int64,
    )
    shingles, sizes = _shingles(list(distinct))
    counts = np.asarray(shingles.sum(axis=0)).ravel()
    rare, common = shingles[:, counts <= COMMON], shingles[:, counts > COMMON]
    parts = list(_near_pairs(rare.tocsr(), common.tocsr(), sizes, threshold))
    first, second, similarity = (np.concatenate(column) for column in zip(*parts, strict=True))
    blocked = (_row_sizes(rare) == 0) & (_row_sizes(common) >= threshold * sizes) & (sizes > 0)
    return DuplicateReport(text, np.stack([first, second], axis=1), similarity, int(blocked[text].sum()))


def _equal(rows: Sequence[Hashable]) -> DuplicateReport:
    distinct: dict[Hashable, int] = {}
    number = np.array([distinct.setdefault(one, len(distinct)) for one in rows], dtype=np.int64)
    return DuplicateReport(number, np.zeros((0, 2), dtype=np.int64), np.zeros(0), 0)


def _seen_nodes(contents: Sequence[Content]) -> list[Hashable]:
    """What a model can see of each node, equal for nodes that it cannot tell apart."""
    graphs = {one.source: one.graph for one in contents if isinstance(one, Node)}
    edges = {name: (one.adjacency, one.adjacency.T.tocsr()) for name, one in graphs.items()}
    found: list[Hashable] = []
    for one in contents:
        if not isinstance(one, Node) or not one.graph.features[one.number].any():
            found.append(one)  # nodes without features are alike in nothing but what they lack
            continue
        near = [np.sort(way.indices[slice(*way.indptr[one.number : one.number + 2])]) for way in edges[one.source]]
        others = tuple(side[side != one.number].tobytes() for side in near)
        loop = bool((near[0] == one.number).any())
        features = one.graph.features[one.number] + np.float32(0)  # -0 is 0
        found.append((one.label, loop, others, blake2b(features.tobytes(), digest_size=16).digest()))
    return found


def _alike(pictures: Sequence[Picture]) -> DuplicateReport:
    distinct: dict[str, int] = {}
    number = np.array([distinct.setdefault(one.digest, len(distinct)) for one in pictures], dtype=np.int64)
    _, appearance = np.unique(number, return_index=True)
    first, second, similarity = near_pairs([pictures[row] for row in appearance])
    return DuplicateReport(number, np.stack([first, second], axis=1), similarity, 0)


def remove_duplicates(labelled: LabelledRecords, *, threshold: float = 0.5) -> tuple[LabelledRecords, Duplicates]:
    """The records an audit may use, in their order, and what was left out.

    Across the sides: every record with an exact or near duplicate on the other side leaves. Within a side:
    the first of exact repeats stays; near-duplicates stay but their groups become one, named by the
    smallest name. Counts are of records: `near_across` those that left for near-duplicates only,
    `exact_within` further repeats that left, `near_within` kept records that have a near-duplicate on their
    side.

    Raises RecordsError when a side has no record left.
    """
    report = find_duplicates(labelled, threshold=threshold)
    opposite = ~labelled.member
    exact = _touched(report, labelled.member, opposite, near=False)
    near = _touched(report, labelled.member, opposite, near=True) & ~exact
    _, first = np.unique(np.stack([report.text, labelled.member], axis=1), axis=0, return_index=True)
    repeat = np.ones(len(labelled), dtype=bool)
    repeat[first] = False
    repeat &= ~(exact | near)
    gone = exact | near | repeat
    kept = labelled.take(np.flatnonzero(~gone))
    if not kept.member.any() or kept.member.all():
        side = "members" if not kept.member.any() else "non-members"
        raise RecordsError(
            f"no {side} are left after removing duplicates",
            expected="records that do not occur on the other side",
            found=f"{exact.sum()} exact and {near.sum()} near duplicates across the sides",
            hint="check that members and non-members are not the same data",
        )
    groups, tied = _merge(kept, report.text[~gone], report.near)
    records = Records(kept.records.ids, kept.records.contents, groups)
    return LabelledRecords(records, kept.member), Duplicates(
        exact_across=int(exact.sum()),
        unchecked=report.unchecked,
        near_across=int(near.sum()),
        exact_within=int(repeat.sum()),
        near_within=tied,
        excluded=tuple(labelled.records.ids[row] for row in np.flatnonzero(gone)),
        repeated=tuple(labelled.records.ids[row] for row in np.flatnonzero(_alike_to_others(report) & ~gone)),
    )


def _shingles(texts: list[str]) -> tuple[sparse.csr_array, Int[np.ndarray, " text"]]:
    """Binary matrix (text, shingle) of shingles that several texts have; size of each text's full set."""
    vocabulary: dict[str, int] = {}
    pieces, sizes = [], np.zeros(len(texts), dtype=np.int64)
    for row, text in enumerate(texts):
        words = re.findall(r"\w+", text)
        if words and len("".join(words)) > LONGEST_MEAN_WORD * len(words):  # a script without spaces
            words = list("".join(words))
        numbers = [vocabulary.setdefault(word, len(vocabulary) + 1) for word in words]
        pieces.append(np.unique(_hashes(np.array(numbers, dtype=np.uint64))))
        sizes[row] = len(pieces[-1])
    hashes = np.concatenate(pieces)
    rows = np.repeat(np.arange(len(texts)), sizes)
    _, columns, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    # A shingle of one text is in no intersection: dropping it here saves nearly all of the memory.
    shared = counts[columns] > 1
    _, columns = np.unique(columns[shared], return_inverse=True)
    ones = np.ones(len(columns), dtype=np.int32)
    shape = (len(texts), int(columns.max()) + 1 if len(columns) else 1)
    return sparse.csr_array((ones, (rows[shared], columns)), shape=shape), sizes


def _hashes(words: np.ndarray) -> np.ndarray:
    """One 64-bit hash per window of five words; one for all words of a shorter text; none for no word."""
    width = min(len(words), SHINGLE_WORDS)
    if not width:
        return words
    hashed = np.full(len(words) - width + 1, width, dtype=np.uint64)
    for offset in range(width):
        window = words[offset : len(words) - width + 1 + offset]
        hashed = (hashed ^ window) * _MIXERS[offset]
        hashed ^= hashed >> np.uint64(29)
    return hashed


def _row_sizes(matrix: sparse.csr_array) -> Int[np.ndarray, " text"]:
    return np.diff(matrix.tocsr().indptr)


def _blocks(work: Int[np.ndarray, " text"]) -> Iterator[slice]:
    """Runs of rows whose work adds up to at most `_BLOCK_PRODUCTS` (or single rows)."""
    start, total = 0, 0
    for row, amount in enumerate(work.tolist()):
        if total + amount > _BLOCK_PRODUCTS and row > start:
            yield slice(start, row)
            start, total = row, 0
        total += amount
    yield slice(start, len(work))


def _near_pairs(
    rare: sparse.csr_array, common: sparse.csr_array, sizes: Int[np.ndarray, " text"], threshold: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(first, second, similarity) of pairs at or above the threshold, block by block."""
    column_sizes = np.asarray(rare.sum(axis=0)).ravel()
    work = (rare @ column_sizes).astype(np.int64)
    common_sizes = _row_sizes(common)
    transposed = rare.T.tocsr()
    for block in _blocks(work):
        product = (rare[block] @ transposed).tocoo()
        first, second, shared = product.row + block.start, product.col, product.data.astype(np.int64)
        most = shared + np.minimum(common_sizes[first], common_sizes[second])
        keep = (first < second) & (most >= threshold * (sizes[first] + sizes[second] - most))
        first, second, shared = first[keep], second[keep], shared[keep]
        both = np.flatnonzero((common_sizes[first] > 0) & (common_sizes[second] > 0))
        if len(both):
            overlap = common[first[both]].multiply(common[second[both]]).sum(axis=1)
            shared[both] += np.asarray(overlap).ravel()
        union = sizes[first] + sizes[second] - shared
        keep = shared >= threshold * union
        yield first[keep].astype(np.int64), second[keep].astype(np.int64), shared[keep] / union[keep]


def _alike_to_others(report: DuplicateReport) -> Bool[np.ndarray, " record"]:
    """Records that have an exact or near duplicate among all records, on whichever side."""
    return (np.bincount(report.text)[report.text] > 1) | np.isin(report.text, report.near)


def _touched(
    report: DuplicateReport,
    member: Bool[np.ndarray, " record"],
    opposite: Bool[np.ndarray, " record"],
    *,
    near: bool,
) -> Bool[np.ndarray, " record"]:
    """Records whose text (or, with `near`, a similar text) occurs on the other side."""
    touched = np.zeros(len(member), dtype=bool)
    for side, other in ((member, opposite), (opposite, member)):
        has = np.zeros(report.text.max() + 1, dtype=bool)
        has[report.text[other]] = True
        reached = np.zeros_like(has) if near else has
        if near:
            for here, there in (report.near.T, report.near.T[::-1]):
                reached[here[has[there]]] = True
        touched |= side & reached[report.text]
    return touched


def _merge(
    kept: LabelledRecords, text: Int[np.ndarray, " record"], near: Int[np.ndarray, " pair 2"]
) -> tuple[tuple[str, ...], int]:
    """Groups after tying near-duplicates of one side together, and how many records have one."""
    # What stays has no near-duplicate across the sides, and every text once: texts stand for records.
    row_of = np.full(max(text.max(), near.max(initial=0)) + 1, -1)
    row_of[text] = np.arange(len(text))
    pairs = row_of[near][(row_of[near] >= 0).all(axis=1)] if len(near) else near
    names, group = np.unique(np.array(kept.records.groups), return_inverse=True)
    links = (np.ones(len(pairs)), (group[pairs[:, 0]], group[pairs[:, 1]]))
    graph = sparse.coo_array(links, shape=(len(names), len(names)))
    _, component = connected_components(graph, directed=False)
    smallest: dict[int, str] = {}
    for name, part in zip(names.tolist(), component.tolist(), strict=True):
        smallest.setdefault(part, name)
    groups = tuple(smallest[component[number]] for number in group)
    return groups, len(np.unique(pairs))
