"""Flags of several values, as people type them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from repromia.config import Settings


@pytest.mark.parametrize("given", ["0.05, 0.01", ["0.01", "0.05"], ["0.05,0.01,"], (0.01, 0.05), [0.05, "0.01"]])
def test_rates_with_commas_or_one_by_one(given: Any) -> None:
    assert Settings(fprs=given).fprs == (0.05, 0.01)


@pytest.mark.parametrize("given", ["loss, min_k:k=0.1", ["loss", "min_k:k=0.1"], ["loss,min_k:k=0.1,"]])
def test_attacks_with_commas_or_one_by_one(given: Any) -> None:
    assert Settings(attacks=given).attacks == ("loss", "min_k:k=0.1")


@pytest.mark.parametrize("given", ["", ",", "0.05;0.01", "2", [float("nan")], ["5 %"]])
def test_what_is_no_rate_is_refused(given: Any) -> None:
    with pytest.raises(ValidationError, match="fprs"):
        Settings(fprs=given)
