"""What rows of a table, and classes, show without any model: the blind baselines' inputs and pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from repromia.records import Example, Records, TableRow, class_of

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def rows_in(records: Records) -> list[TableRow]:
    """The rows of a table among the contents, in order."""
    return [content for content in records.contents if isinstance(content, TableRow)]


def examples_in(records: Records) -> list[Example]:
    """The texts with a class among the contents, in order."""
    return [content for content in records.contents if isinstance(content, Example)]


def features(records: Records) -> Float[np.ndarray, "record feature"]:
    """The numbers alone."""
    return np.array([one.values for one in rows_in(records)], dtype=np.float64)


def texts(records: Records) -> list[str]:
    """The texts without their classes."""
    return [one.text for one in examples_in(records)]


def classes(records: Records) -> list[str]:
    """The classes alone."""
    return [class_of(one) for one in records.contents]


def one_hot(names: list[str]) -> list[dict[str, float]]:
    """A category each."""
    return [{name: 1.0} for name in names]


class Both:
    """Mean of the log-odds of a linear model and of boosted trees: differences in level and in shape are both seen."""

    def __init__(self, seed: int) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import QuantileTransformer

        ranks = QuantileTransformer(n_quantiles=200, output_distribution="normal", random_state=seed)
        self._parts: tuple[Any, ...] = (
            make_pipeline(ranks, LogisticRegression(C=0.1, max_iter=2000, random_state=seed)),
            HistGradientBoostingClassifier(
                max_iter=60, learning_rate=0.1, max_leaf_nodes=8, l2_regularization=1.0, random_state=seed
            ),
        )

    def fit(self, values: Any, member: Bool[np.ndarray, " record"]) -> Both:
        """Itself, fitted. Ranks of fewer records than quantiles are ranks of records."""
        ranks = self._parts[0].steps[0][1]
        ranks.set_params(n_quantiles=min(200, len(values)))
        for one in self._parts:
            one.fit(values, member)
        return self

    def decision_function(self, values: Float[np.ndarray, "record feature"]) -> Float[np.ndarray, " record"]:
        """Log-odds of membership."""
        found: Float[np.ndarray, " record"] = np.mean([one.decision_function(values) for one in self._parts], axis=0)
        return found


def of_features(seed: int, least_records: int) -> Both:
    """Numbers as they are, logistic regression on ranks and boosted trees."""
    return Both(seed)


def of_classes(seed: int, least_records: int) -> Pipeline:
    """Classes as categories, logistic regression: how unlike their shares are on the two sides."""
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    return make_pipeline(
        FunctionTransformer(one_hot), DictVectorizer(), LogisticRegression(C=1.0, max_iter=2000, random_state=seed)
    )
