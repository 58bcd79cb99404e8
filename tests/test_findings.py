"""docs/findings.md lists what the code can say: no sentence without its condition, none that is never said."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import repromia
from repromia import comparison, dataset_inference, unlearning
from repromia.result import TprAtFpr
from repromia.verdict import DOUBTFUL

SOURCE = sorted(Path(repromia.__file__).parent.glob("*.py"))
TEXT = (Path(__file__).resolve().parents[1] / "docs" / "findings.md").read_text(encoding="utf-8")
MAKERS = {"Finding", "_say", "_warning"}


def rows(heading: str) -> list[tuple[str, str]]:
    """Code and opening words of every row below a heading."""
    part = TEXT.split(f"## {heading}")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \| (.*?) \|", part, flags=re.MULTILINE)


def flat(node: ast.expr) -> str:
    """A string or f-string, with … for what is filled in; empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(one.value if isinstance(one, ast.Constant) else "…" for one in node.values)
    return ""


def codes_in(tree: ast.AST) -> set[str]:
    """Codes of findings, as constructors are given them; a name stands for the strings it is assigned."""
    found = set()
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in ast.walk(function):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in MAKERS):
                continue
            keywords = {one.arg: one.value for one in call.keywords}
            code = keywords.get("code", call.args[0] if call.args else None)
            if code is None or (isinstance(code, ast.Name) and function.name in MAKERS):
                continue
            found |= assigned(function, code.id) if isinstance(code, ast.Name) else {flat(code)}
    return found


def assigned(function: ast.FunctionDef, name: str) -> set[str]:
    """What the name is assigned as the first of a tuple."""
    found = set()
    for node in ast.walk(function):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)):
            continue
        first = node.targets[0].elts[0]
        if isinstance(first, ast.Name) and first.id == name:
            found |= {flat(one.elts[0]) for one in ast.walk(node.value) if isinstance(one, ast.Tuple)}
    assert found, f"{function.name}: what is {name!r}?"
    return found


TREES = [ast.parse(path.read_text(encoding="utf-8")) for path in SOURCE]


def test_every_code_of_an_audit_is_listed_and_none_besides() -> None:
    said = set().union(*map(codes_in, TREES))
    assert "fpr_…" in said  # of the status of a TPR
    statuses = set(get_args(TprAtFpr.model_fields["status"].annotation)) - {"measured"}
    said = said - {"fpr_…"} | {f"fpr_{one}" for one in statuses}
    first, other = rows("First sentence of an audit"), rows("Warnings and notes")
    listed = [code for code, _ in first + other]
    assert len(listed) == len(set(listed))
    assert set(listed) == said
    assert set(DOUBTFUL) < {code for code, _ in first}


def test_every_outcome_of_a_set_or_comparison_is_listed() -> None:
    for heading, outcome in (
        ("A set", dataset_inference.Outcome),
        ("A forgotten set", unlearning.Outcome),
        ("A comparison", comparison.Outcome),
    ):
        assert {code for code, _ in rows(heading)} == set(get_args(outcome)), heading


def test_the_words_are_those_of_the_code() -> None:
    strings = [flat(node) for tree in TREES for node in ast.walk(tree) if isinstance(node, ast.expr)]
    listed = re.findall(r"^\| `(\w+)` \| (.*?) \|", TEXT, flags=re.MULTILINE)
    assert len(listed) > 35
    for code, words in listed:
        assert any(words in one for one in strings), (code, words)


def test_an_unlisted_sentence_would_be_noticed() -> None:
    """The planted failure."""
    planted = "def f():\n    code, x = ('new', 1) if a else ('other', 2)\n    code, x = 'third', 3\n"
    tree = ast.parse(planted + "    yield Finding(code=code)\n    return _say('fourth', f'{x} is new')\n")
    assert codes_in(tree) == {"new", "other", "third", "fourth"}
