"""Baselines that never see a model: how far the records alone tell members from non-members.

An attack that does no better than these may be reading dates, topics or lengths instead of memory.
C and min_df of "tfidf" were chosen on WikiMIA (32, 64 and 128 words); "char_ngrams" takes them over; the
others keep scikit-learn's C = 1. Pictures, rows of a table, nodes of a graph and classes have baselines of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from repromia import blind_graphs
from repromia.blind_pictures import captions, file_properties, image_statistics, pictures_in, thumbnails
from repromia.blind_tables import Both, classes, examples_in, features, of_classes, of_features, rows_in
from repromia.blind_tables import texts as example_texts
from repromia.errors import ConfigError, RecordsError
from repromia.records import LabelledRecords, Records
from repromia.result import Estimate

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline

BlindScorer = Callable[[Records], Float[np.ndarray, " record"]]
Inputs = list[str] | blind_graphs.Rows
Build = Callable[[int, int], "Pipeline | Both | blind_graphs.Wide"]
# what a baseline reads of the records, and how it is built
Baseline = tuple[Callable[[Records], Inputs], Build]

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_MONTH = re.compile(rf"\b(?:{'|'.join(_MONTHS)})\b")  # a capital tells May from may
_YEAR = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_TERM = r"\w+|[^\w\s]+"  # one-letter words and runs of signs too, so that no text is without a term
_YEARS = range(1900, 2100)
_DECADES = range(1900, 2100, 10)
FITTED_CHARACTERS = 10_000_000  # of texts that a baseline is fitted on; of more, records are drawn by lot
FITTED_LEAST = 500  # records of each side, however long
_AT_ONCE = 2_000  # texts that are scored together: bounds memory, changes no score


def baselines_for(records: Records) -> tuple[str, ...]:
    """Names of the baselines that these records can be asked: those of texts, rows of a table, nodes, or pictures."""
    if not pictures_in(records):
        return tuple(_known(records))
    captioned = any(text.strip() for text in records.texts())
    return tuple(name for name in PICTURE_BASELINES if name != "captions" or captioned)


class FoldScores(NamedTuple):
    """One held-out fold: row numbers and log-odds of membership by a baseline fitted on the other folds.

    Log-odds of different folds come from different fits and are not comparable: never pool them.
    """

    rows: Int[np.ndarray, " row"]
    scores: Float[np.ndarray, " row"]


def cross_validate(labelled: LabelledRecords, name: str, *, folds: int = 5, seed: int = 0) -> tuple[FoldScores, ...]:
    """Out-of-fold scores of the baseline `name`, fold by fold; groups are never divided.

    The one use of all labels, eval's included, that the rules of evidence allow: no target is involved. Every record is
    scored; of texts of more than `FITTED_CHARACTERS` together, some drawn by lot are fitted on.
    Raises ConfigError for an unknown name; RecordsError with fewer than `folds` groups of a class, or when a
    fold comes out with one class because of large groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    read, build = _baseline(labelled.records, name)
    groups = np.array(labelled.records.groups)
    fewest = min(len(set(groups[labelled.member])), len(set(groups[~labelled.member])))
    if folds < 2 or fewest < folds:
        raise _too_few(folds, f"{fewest} groups of the smaller class")
    inputs = read(labelled.records)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    results = []
    for train, held_out in splitter.split(groups, labelled.member, groups):
        if any(len(set(labelled.member[rows].tolist())) < 2 for rows in (train, held_out)):
            raise _too_few(folds, "a fold with one class only: groups are large")
        train = _fitted_on(inputs, train, labelled.member, seed)
        model = _fit(build, _at(inputs, train), labelled.member[train], seed)
        results.append(FoldScores(held_out, _scores(model, _at(inputs, held_out))))
    return tuple(results)


def cross_validated_auc(labelled: LabelledRecords, name: str, *, folds: int = 5, seed: int = 0) -> Estimate:
    """Mean over folds of the AUC within the fold, with a 95 % interval by influence curves.

    LeDell, Petersen and van der Laan 2015 (Electronic Journal of Statistics 9), theorem 4.1, folds weighted
    alike, curves summed by group. Fits of overlapping folds agree in their mistakes: alone, the curves cover
    only 84 to 85 % on null data of 200 records. The variance is therefore multiplied by 1 + K / (K - 1) for K
    folds (Nadeau and Bengio 2003, Machine Learning 52, equation 9), after which null AG News
    halves of 200 records are covered at .96 (length), .91 (tfidf) and .99 (dates). Where every
    fold is separated without error the variance is 0; the interval is then that of as many successes in a row
    as the smaller class has groups. Raises as `cross_validate` does.
    """
    parts = cross_validate(labelled, name, folds=folds, seed=seed)
    aucs, influence = [], np.zeros(len(labelled))
    for rows, scores in parts:
        auc, influence[rows] = _auc_influence(scores, labelled.member[rows])
        aucs.append(auc)
    mean = float(np.mean(aucs))
    _, group = np.unique(np.array(labelled.records.groups), return_inverse=True)
    by_group = np.bincount(group, weights=influence / len(parts))
    overlap = 1 + len(parts) / (len(parts) - 1)
    half = 1.96 * float(np.sqrt(overlap * (by_group**2).sum()))
    low, high = max(mean - half, 0.0), min(mean + half, 1.0)
    if half == 0 and mean in (0, 1):
        smaller = min(len(set(group[labelled.member])), len(set(group[~labelled.member])))
        least = 0.025 ** (1 / smaller)
        low, high = (least, 1.0) if mean == 1 else (0.0, 1 - least)
    method = f"mean of {len(parts)} grouped folds, influence curves widened for overlapping folds"
    return Estimate(estimate=mean, low=low, high=high, method=method)


def fit_blind(fit: LabelledRecords, name: str, *, seed: int = 0) -> BlindScorer:
    """A scorer fitted on the fit role (of long texts on some of it, see `cross_validate`): log-odds of membership,
    higher = member.

    Raises ConfigError for an unknown name, RecordsError when `fit` holds one class only.
    """
    read, build = _baseline(fit.records, name)
    if fit.member.all() or not fit.member.any():
        raise RecordsError(
            f"the blind baseline {name!r} cannot be fitted",
            expected="members and non-members",
            found=f"{int(fit.member.sum())} members of {len(fit)} records",
        )
    inputs = read(fit.records)
    rows = _fitted_on(inputs, np.arange(len(fit)), fit.member, seed)
    model = _fit(build, _at(inputs, rows), fit.member[rows], seed)
    return lambda records: _scores(model, read(records))


def _too_few(folds: int, found: str) -> RecordsError:
    return RecordsError(
        "too few records for a cross-validated blind baseline",
        expected=f"folds of 2 or more, and {folds} groups of members and of non-members at least",
        found=found,
        hint="add records or lower the number of folds",
    )


def _auc_influence(
    scores: Float[np.ndarray, " row"], member: Bool[np.ndarray, " row"]
) -> tuple[float, Float[np.ndarray, " row"]]:
    """AUC of one fold (ties count half) and each record's influence on it."""
    inside, outside = np.sort(scores[member]), np.sort(scores[~member])
    influence = np.empty(len(scores))
    for own, other, sign in ((member, outside, 1), (~member, inside, -1)):
        left, right = (np.searchsorted(other, scores[own], side=side) for side in ("left", "right"))
        below = (left + right) / (2 * len(other))
        influence[own] = below if sign == 1 else 1 - below
    auc = float(influence[member].mean())
    influence[member] = (influence[member] - auc) / len(inside)
    influence[~member] = (influence[~member] - auc) / len(outside)
    return auc, influence


def _known(records: Records) -> Mapping[str, Baseline]:
    if pictures_in(records):
        return PICTURE_BASELINES
    if blind_graphs.nodes_in(records):
        return NODE_BASELINES
    if rows_in(records):
        return TABLE_BASELINES
    if examples_in(records):
        return EXAMPLE_BASELINES
    return {name: (Records.texts, one) for name, one in BASELINES.items()}


def _baseline(records: Records, name: str) -> Baseline:
    """What the baseline reads of the records, and how its pipeline is built."""
    known = _known(records)
    if name not in known:
        raise ConfigError(
            f"there is no blind baseline {name!r}",
            expected=f"one of {', '.join(known)}",
            found=repr(name),
        )
    return known[name]


def _at(inputs: Inputs, rows: Int[np.ndarray, " row"]) -> Inputs:
    return [inputs[row] for row in rows] if isinstance(inputs, list) else inputs[rows]


def _fitted_on(
    inputs: Inputs, rows: Int[np.ndarray, " row"], member: Bool[np.ndarray, " record"], seed: int
) -> Int[np.ndarray, " row"]:
    """All rows, in order; of texts as many of each side, drawn by lot, as have half of `FITTED_CHARACTERS`."""
    if not isinstance(inputs, list):
        return rows
    generator, kept = np.random.default_rng(seed), []
    for side in (True, False):
        own = generator.permutation(rows[member[rows] == side])
        read = np.cumsum([len(inputs[row]) for row in own])
        kept.append(own[: max(FITTED_LEAST, int(np.searchsorted(read, FITTED_CHARACTERS / 2)))])
    return np.sort(np.concatenate(kept))


def _scores(model: Any, inputs: Inputs) -> Float[np.ndarray, " record"]:
    if not isinstance(inputs, list):
        scores: Float[np.ndarray, " record"] = model.decision_function(inputs)
        return scores
    parts = [inputs[at : at + _AT_ONCE] for at in range(0, len(inputs), _AT_ONCE)]
    return np.concatenate([model.decision_function(part) for part in parts])


def _fit(build: Build, inputs: Inputs, member: Bool[np.ndarray, " record"], seed: int) -> Any:
    from threadpoolctl import threadpool_limits

    # One thread: the problems are small, and waiting for a busy second core costs more than it gives.
    with threadpool_limits(1):
        try:
            return build(seed, 2).fit(inputs, member)
        except ValueError:  # no term in two records: then terms of one record are all there is
            return build(seed, 1).fit(inputs, member)


def _logistic(strength: float, seed: int) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000, random_state=seed)


def _tfidf(seed: int, least_records: int) -> Pipeline:
    """TF-IDF of words and pairs of words, logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), min_df=least_records, sublinear_tf=True, token_pattern=_TERM)
    return make_pipeline(words, _logistic(10.0, seed))


def _char_ngrams(seed: int, least_records: int) -> Pipeline:
    """TF-IDF of 3 to 5 characters within words, logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline

    characters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), min_df=least_records, sublinear_tf=True, dtype=np.float32
    )
    return make_pipeline(characters, _logistic(10.0, seed))


def _length(seed: int, least_records: int) -> Pipeline:
    """Lengths and shares of kinds of characters, logistic regression."""
    return _from_features(length_features, seed)


def _dates(seed: int, least_records: int) -> Pipeline:
    """Years and months, logistic regression."""
    return _from_features(date_features, seed)


def _of_numbers(seed: int, least_records: int) -> Pipeline:
    """Numbers as they are, logistic regression."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), _logistic(1.0, seed))


def _from_features(features: Callable[[Sequence[str]], np.ndarray], seed: int) -> Pipeline:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    return make_pipeline(FunctionTransformer(features), StandardScaler(), _logistic(1.0, seed))


def length_features(texts: Sequence[str]) -> Float[np.ndarray, "record 9"]:
    """Characters and words (plain, log), mean word length, shares of signs, digits, upper case and space."""
    rows = []
    for text in texts:
        characters, words = max(len(text), 1), text.split()
        kinds = (
            sum(not (sign.isalnum() or sign.isspace()) for sign in text),
            sum(map(str.isdigit, text)),
            sum(map(str.isupper, text)),
            sum(map(str.isspace, text)),
        )
        counts = (len(text), len(words), np.log1p(len(text)), np.log1p(len(words)))
        mean = sum(map(len, words)) / max(len(words), 1)
        rows.append([*counts, mean, *(kind / characters for kind in kinds)])
    return np.array(rows, dtype=np.float64).reshape(len(texts), 9)


def date_features(texts: Sequence[str]) -> Float[np.ndarray, "record feature"]:
    """Log counts of each year 1900 to 2099, each decade, each month name; latest year; any year at all."""
    rows = np.zeros((len(texts), len(_YEARS) + len(_DECADES) + len(_MONTHS) + 2), dtype=np.float32)
    decades, months = len(_YEARS), len(_YEARS) + len(_DECADES)
    for row, text in zip(rows, texts, strict=True):
        years = [int(year) for year in _YEAR.findall(text)]
        for year in years:
            row[year - _YEARS[0]] += 1
            row[decades + (year - _YEARS[0]) // 10] += 1
        for month in _MONTH.findall(text):
            row[months + _MONTHS.index(month)] += 1
        row[-2] = (max(years) - 2000) / 10 if years else 0
        row[-1] = bool(years)
    rows[:, :-2] = np.log1p(rows[:, :-2])
    return rows


BASELINES: dict[str, Callable[[int, int], Pipeline]] = {
    "tfidf": _tfidf,
    "char_ngrams": _char_ngrams,
    "length": _length,
    "dates": _dates,
}

PICTURE_BASELINES: dict[str, Baseline] = {
    "image_statistics": (image_statistics, _of_numbers),
    "file_properties": (file_properties, _of_numbers),
    "pixels": (thumbnails, _of_numbers),
    "captions": (captions, _tfidf),
}

TABLE_BASELINES: dict[str, Baseline] = {"features": (features, of_features), "classes": (classes, of_classes)}

NODE_BASELINES: dict[str, Baseline] = {
    "degree": (blind_graphs.degrees, of_features),
    "structure": (blind_graphs.structure, of_features),
    "features": (blind_graphs.node_features, blind_graphs.of_columns),
    "neighbour_features": (blind_graphs.neighbour_features, blind_graphs.of_columns),
    "classes": (classes, of_classes),
}

EXAMPLE_BASELINES: dict[str, Baseline] = {
    **{name: (example_texts, one) for name, one in BASELINES.items()},
    "classes": (classes, of_classes),
}
