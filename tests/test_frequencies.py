"""Token frequencies of a corpus, for DC-PDD."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tokenizers import processors

from repromia.errors import AttackError
from repromia.frequencies import token_frequencies
from repromia.programs import Binding
from repromia.progress import Silent
from repromia.records import LabelledRecords, Records
from small import SmallModels


@pytest.fixture
def binding(models: SmallModels) -> Binding:
    """A target whose tokenizer adds no BOS."""
    tokenizer = copy.deepcopy(models.base.tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    target = replace(models.base, encoder=replace(models.base.encoder, tokenizer=tokenizer))
    nobody = LabelledRecords(Records((), (), ()), np.zeros(0, dtype=bool))
    return Binding(target, nobody, nobody, 0, Silent(), 128)


def test_lines_of_one_token_are_passed_over(binding: Binding, tmp_path: Path) -> None:
    whole, bare = tmp_path / "whole.txt", tmp_path / "bare.txt"
    whole.write_text("My fellow citizens\nwho spoke\n")
    bare.write_text("My fellow citizens\n.\n\nwho spoke\na\n")
    expected = token_frequencies(binding, corpus=str(whole))
    assert np.array_equal(token_frequencies(binding, corpus=str(bare)).share, expected.share)
    assert expected.share.max() > expected.share.min()


@pytest.mark.parametrize("text", ["", ".\na\n"])
def test_a_corpus_in_which_no_token_counts_is_an_error(text: str, binding: Binding, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(text)
    with pytest.raises(AttackError, match="no token to count"):
        token_frequencies(binding, corpus=str(tmp_path / "corpus.txt"))


def test_a_corpus_that_is_no_text_is_an_error(binding: Binding, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AttackError, match="cannot be read"):
        token_frequencies(binding, corpus=str(tmp_path / "corpus.txt"))
