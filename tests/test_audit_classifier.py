"""Classifiers audited end to end: small real models, trained here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

import repromia
from repromia.demo import classifier as demo
from repromia.records import Records
from repromia.result import AuditResult
from test_cli import repromia as command

COUNT = 150  # a side
SEEN: list[Records] = []


def train(records: Records, seed: int) -> Any:
    SEEN.append(records)
    return demo.train(records, seed)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> tuple[AuditResult, Path]:
    from sklearn.datasets import load_digits

    patch = pytest.MonkeyPatch()
    patch.setattr(demo, "EPOCHS", 20)
    images, label = demo.half_hidden_digits(), load_digits().target
    rows = np.random.default_rng(0).permutation(len(images))[: 2 * COUNT]
    inside, outside = rows[:COUNT], rows[COUNT:]
    records = repromia.load_records((images[inside], label[inside]), (images[outside], label[outside]))
    model = demo.train(records.members(), 0)
    target = repromia.classifier(model, records)
    shadows = repromia.shadow_models(train, target, records, count=4, train_key="demo")  # SEEN changes its own
    out = tmp_path_factory.mktemp("audit")
    settings: dict[str, Any] = {"fprs": (0.05,), "bootstrap": 200, "program_permutations": 1}
    SEEN.clear()
    result = repromia.audit(target, records, shadows=shadows, out=out, **settings)
    asked, trained = target.asked, len(SEEN)
    again = repromia.audit(target, records, shadows=shadows, out=out, **settings)
    assert again == result
    assert (target.asked, len(SEEN)) == (asked, trained)
    patch.undo()
    return result, out


def test_every_attack_is_measured_with_shadows_and_a_null_model(audited: tuple[AuditResult, Path]) -> None:
    result, out = audited
    assert {row.name: row.reason for row in result.attacks if row.status != "measured"} == {}
    names = {row.name for row in result.attacks}
    assert {"loss", "lira", "rmia", "bavaria", "same_supervision", "probe_bank", "reprogram"} <= names
    assert "rmia:reference=noise_and_repair" in names
    assert result.null_target.status == "measured"
    assert {row.name for row in result.null_target.rows if row.status == "measured"} == names
    assert result.null_target.joint_p is not None
    assert "captions" in {one.name for one in result.blind}
    assert (out / "report.html").is_file()


def test_shadows_see_records_without_membership_in_balanced_halves(audited: tuple[AuditResult, Path]) -> None:
    """Four shadows and the null model; every record in two of the four."""
    assert len(SEEN) == 5
    assert all(type(one) is Records for one in SEEN)
    counts = {name: 0 for one in SEEN[:4] for name in one.ids}
    for one in SEEN[:4]:
        for name in one.ids:
            counts[name] += 1
    assert set(counts.values()) == {2}


def test_a_forest_is_audited_by_the_same_command(tmp_path: Path) -> None:
    import skops.io
    from sklearn.datasets import load_breast_cancer
    from sklearn.ensemble import RandomForestClassifier

    values, label = load_breast_cancer(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(values))
    for side, part in (("train", rows[:250]), ("heldout", rows[250:500])):
        frame = polars.DataFrame({f"x{at}": values[part, at] for at in range(values.shape[1])})
        frame.with_columns(polars.Series("diagnosis", label[part])).write_csv(tmp_path / f"{side}.csv")
    forest = RandomForestClassifier(20, random_state=0).fit(values[rows[:250]], label[rows[:250]])
    skops.io.dump(forest, tmp_path / "forest.skops")
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "from sklearn.ensemble import RandomForestClassifier\n"
        "def train(records, seed):\n"
        "    rows = [one.values for one in records.contents]\n"
        "    label = [int(one.label) for one in records.contents]\n"
        "    return RandomForestClassifier(20, random_state=seed).fit(rows, label)\n"
    )
    done = command(
        *("audit", "--model", "forest.skops", "--members", "train.csv", "--nonmembers", "heldout.csv"),
        *("--class-field", "diagnosis", "--shadow-training", "mine:train", "--shadow-models", "4"),
        *("--fprs", "0.05", "--bootstrap", "200", "--out", "audit"),
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "audit" / "result.json").read_text())
    areas = {row["name"]: row["auc"]["estimate"] for row in found["attacks"]}
    assert set(areas) >= {"loss", "lira", "rmia", "same_supervision", "probe_bank"}
    assert areas["rmia"] > 0.6  # a forest knows its members by heart; sd without a leak .03: once in 1,000 audits
    assert "reprogram" not in areas
    assert "rmia:reference=noise_and_repair" not in areas
    assert {one["name"] for one in found["blind"]} == {"features", "classes"}


def test_a_model_that_tells_only_labels_gets_what_labels_allow(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    values, label = load_digits(return_X_y=True)
    records = repromia.load_records((values[:300], label[:300]), (values[300:600], label[300:600]))
    fitted = LogisticRegression(max_iter=2000).fit(values[:300], label[:300])
    target = repromia.classifier(fitted.predict, records, answer="label", classes=tuple(map(str, range(10))))
    result = repromia.audit(target, records, fprs=(0.05,), bootstrap=200)
    assert {row.name for row in result.attacks} >= {"correctness", "noise_votes", "same_supervision"}
    assert {row.reason for row in result.attacks} == {""}
    assert "loss" not in {row.name for row in result.attacks}
