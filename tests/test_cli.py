"""The real command, in real processes, on a real small model."""

from __future__ import annotations

import html
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars
import pytest

from repromia._version import __version__
from repromia.cli import main
from repromia.result import AuditResult
from repromia.targets.load import quiet
from small import SmallModels

REPROMIA = [sys.executable, "-m", "repromia"]
FEW = "loss,min_k,reference"
QUICK = ["--attacks", FEW, "--fprs", "0.05", "--bootstrap", "200"]


@pytest.fixture(scope="session")
def on_disk(models: SmallModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has: ./finetuned, ./base, train.jsonl and heldout.jsonl in one folder."""
    folder = tmp_path_factory.mktemp("user")
    for name, one in (("finetuned", models.leaky), ("base", models.base)):
        with quiet():
            one.model.save_pretrained(folder / name)
            one.tokenizer.save_pretrained(folder / name)
    for name, texts in (("train", models.members), ("heldout", models.nonmembers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


def repromia(*arguments: str, folder: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder."""
    return subprocess.run(
        [*REPROMIA, *arguments], cwd=folder, capture_output=True, text=True, timeout=timeout, check=False
    )


def audit_arguments(out: str, *more: str) -> list[str]:
    """The README's command; a flag in `more` replaces the one here."""
    flags = {
        "--model": "finetuned",
        "--reference": "base",
        "--members": "train.jsonl",
        "--nonmembers": "heldout.jsonl",
        "--out": out,
    }
    flags |= dict(zip(more[::2], more[1::2], strict=True))
    return ["audit", *(part for flag in flags.items() for part in flag)]


def result_in(folder: Path) -> AuditResult:
    return AuditResult.model_validate_json((folder / "result.json").read_bytes())


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom repromia.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'sklearn', 'scipy', 'polars', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "audit" in done.stdout


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "repromia", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, __version__), done.stderr


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_waiting_threads_give_up_their_core_unless_told_otherwise(given: dict[str, str], spins: str | None) -> None:
    code = (
        "import os\nfrom repromia.cli import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit:\n    pass\n"
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    plain = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=plain | given)
    assert done.stdout.split()[-1] == str(spins), done.stderr


def test_attacks_are_listed_without_torch() -> None:
    code = (
        "import sys\nfrom repromia.run import attacks_command\nattacks_command(as_json=True)\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {one["model"] for one in json.loads(done.stdout)} == {"language", "diffusion", "classifier", "graph"}


def test_audit_writes_everything_and_returns_at_once_the_second_time(on_disk: Path) -> None:
    done = repromia(*audit_arguments("audit", *QUICK), folder=on_disk)
    assert done.returncode == 0, done.stderr + done.stdout
    out = on_disk / "audit"
    result = result_in(out)
    assert result.status == "complete"
    assert result.findings[0].code == "found"
    assert result.findings[0].sentence[:40] in " ".join(done.stdout.split())
    assert "report.html" in done.stdout
    scores = polars.read_parquet(out / "scores.parquet")
    assert scores.columns[:3] == ["id", "role", "member"]
    assert {"loss", "min_k", "reference", "same_supervision"} <= set(scores.columns)
    assert scores.filter(polars.col("role") == "eval").height == sum(result.records.roles.eval)
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")
    texts = [json.loads(line)["text"] for line in (on_disk / "train.jsonl").read_text().splitlines()]
    events = (out / "events.jsonl").read_text(encoding="utf-8")
    assert not any(text[:30] in events for text in texts)

    before = (out / "result.json").read_bytes()
    again = repromia(*audit_arguments("audit", *QUICK), folder=on_disk)
    assert again.returncode == 0
    assert (out / "result.json").read_bytes() == before
    assert "already_finished" in (out / "events.jsonl").read_text()


def test_texts_leave_the_report_of_a_finished_audit_when_that_is_asked_for(on_disk: Path) -> None:
    texts = [html.escape(json.loads(line)["text"][:40]) for line in (on_disk / "train.jsonl").read_text().splitlines()]
    out, pages = on_disk / "kept", []
    for more in ([], ["--redact"], []):
        done = repromia(*audit_arguments("kept", *QUICK), *more, folder=on_disk)
        assert done.returncode == 0, done.stderr
        pages.append((out / "report.html").read_text(encoding="utf-8"))
        assert result_in(out).config["redact"] is bool(more)
        assert any(text in pages[-1] for text in texts) is not bool(more)
        assert "--redact" in pages[-1] or not more
    assert pages[2] == pages[0]
    assert (out / "events.jsonl").read_text().count("already_finished") == 2


def test_yaml_and_flags_are_the_same_configuration(on_disk: Path) -> None:
    (on_disk / "audit.yaml").write_text(
        "model: finetuned\nreference: base\nmembers: train.jsonl\nnonmembers: heldout.jsonl\nout: from-yaml\n"
        "attacks: [loss, min_k, reference]\nfprs: [0.05]\nbootstrap: 200\nseed: 5\n"
    )
    done = repromia("audit", "audit.yaml", "--seed", "0", folder=on_disk)
    assert done.returncode == 0, done.stderr
    flags = repromia(*audit_arguments("from-flags", *QUICK), folder=on_disk)
    assert flags.returncode == 0, flags.stderr
    one, other = result_in(on_disk / "from-yaml"), result_in(on_disk / "from-flags")
    assert one.key == other.key
    assert [row.auc for row in one.attacks] == [row.auc for row in other.attacks]


def test_killed_midway_goes_on_to_the_same_result(on_disk: Path) -> None:
    undisturbed = repromia(*audit_arguments("calm", *QUICK), folder=on_disk)
    assert undisturbed.returncode == 0, undisturbed.stderr
    process = subprocess.Popen(
        [*REPROMIA, *audit_arguments("killed", *QUICK)],
        cwd=on_disk,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    parts, deadline = on_disk / "killed" / "parts", time.monotonic() + 120
    while time.monotonic() < deadline and not list(parts.glob("*.safetensors")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (on_disk / "killed" / "result.json").exists()
    kept = {path.name for path in parts.glob("*.safetensors")}
    assert kept
    again = repromia(*audit_arguments("killed", *QUICK), folder=on_disk)
    assert again.returncode == 0, again.stderr
    calm, resumed = result_in(on_disk / "calm"), result_in(on_disk / "killed")
    volatile = {"created", "seconds", "views", "config", "attacks"}
    assert calm.model_dump(exclude=volatile) == resumed.model_dump(exclude=volatile)
    assert [row.model_dump(exclude={"seconds"}) for row in calm.attacks] == [
        row.model_dump(exclude={"seconds"}) for row in resumed.attacks
    ]
    assert kept <= {path.name for path in parts.glob("*.safetensors")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--members", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--model", "./nowhere"], "There is no model"),
        (["--attacks", "los"], "did you mean 'loss'"),
        (["--attacks", "loss:k=3"], "no option 'k'"),
        (["--text", "txet"], "text"),
        (["--headline", "min_k_plus_plus"], "not among the attacks"),
        (["--reference", "finetuned"], "The same model was given twice"),
        (["--attacks", ""], "names no attack"),
        (["--transfer-from", "wrong"], "cannot be carried over from the folder"),
        (["--device", "nowhere"], "There is no such device"),
        (["--seed", "4294967296"], "--seed"),
    ],
)
def test_wrong_use_is_one_readable_block(
    on_disk: Path,
    change: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(on_disk)
    with pytest.raises(SystemExit) as stopped:
        main(audit_arguments("wrong", *QUICK, *change))
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert message in " ".join(said.split())
    assert "Traceback" not in said


def test_unknown_flag_suggests_the_right_one(on_disk: Path) -> None:
    done = repromia("audit", "--modle", "finetuned", folder=on_disk)
    assert done.returncode != 0
    assert "Did you mean --model" in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("model: [", "cannot be read"),
        ("", "holds no settings"),
        ("modle: finetuned", "did you mean 'model'"),
        ("model: finetuned\nout: x\nmembers: train.jsonl", "--members and --nonmembers go together"),
        ("model: a\nout: x\nmembers: a\nnonmembers: b\nfit: 2", "--fit"),
        ("model: a\nout: x\nmembers: a\nnonmembers: b\nfprs: [7]", "between 0 and 1"),
        ("model: a\nattacks: [{min_k: {k: 0.1}}]", "min_k:k=0.1"),
        ("dry_run: true", "are flags, not settings"),
    ],
)
def test_a_bad_configuration_file_is_one_readable_block(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "bad.yaml").write_text(content)
    done = repromia("audit", "bad.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert "pydantic.dev" not in done.stderr


def test_an_attack_that_cannot_run_is_a_failed_row_and_exit_code_1(on_disk: Path) -> None:
    done = repromia(*audit_arguments("failed", *QUICK, "--attacks", "loss,neighbour"), folder=on_disk)
    assert done.returncode == 1, done.stderr
    row = result_in(on_disk / "failed").attack("neighbour")
    assert row.status == "failed"
    assert row.auc is None
    assert "masked language model" in row.reason
    assert "neighbour" in done.stdout


def test_a_second_audit_in_the_same_directory_is_refused(on_disk: Path) -> None:
    from filelock import FileLock

    (on_disk / "busy").mkdir()
    with FileLock(str(on_disk / "busy" / ".lock")):
        done = repromia(*audit_arguments("busy", *QUICK), folder=on_disk)
    assert done.returncode == 2
    assert "Another audit is running" in done.stderr


def test_a_full_disk_says_so_and_loses_nothing(on_disk: Path) -> None:
    """/dev/full stands for a full disk where a file of the run directory is written."""
    out = on_disk / "full"
    out.mkdir()
    (out / "events.jsonl").symlink_to("/dev/full")
    done = repromia(*audit_arguments("full", *QUICK), folder=on_disk)
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_needs_no_model_and_says_when_the_data_gives_it_away(on_disk: Path) -> None:
    done = repromia("check", "--members", "train.jsonl", "--nonmembers", "heldout.jsonl", folder=on_disk)
    assert done.returncode == 0, done.stdout + done.stderr
    shifted = [json.loads(line)["text"] + " in 2024" for line in (on_disk / "heldout.jsonl").read_text().splitlines()]
    (on_disk / "shifted.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in shifted))
    done = repromia("check", "--members", "train.jsonl", "--nonmembers", "shifted.jsonl", folder=on_disk)
    assert done.returncode == 1
    assert "The data gives it away" in done.stdout


def test_attacks_lists_the_registry(on_disk: Path) -> None:
    done = repromia("attacks", "--json", folder=on_disk)
    names = {row["name"] for row in json.loads(done.stdout)}
    assert {"loss", "reprogram", "recall", "ez_mia"} <= names
    assert all(row["citation"] for row in json.loads(done.stdout))


def test_other_commands_say_what_was_wrong_too(tmp_path: Path) -> None:
    for arguments, message in (
        (("check",), "give either --members and --nonmembers"),
        (("check", "--members", "a", "--nonmembers", "b", "--seed", "-1"), "--seed"),
        (("audit", "--dry-run", "audit.yaml"), "The configuration must come first"),
    ):
        done = repromia(*arguments, folder=tmp_path)
        assert done.returncode != 0
        assert message in " ".join((done.stderr + done.stdout).split())
        assert "Traceback" not in done.stderr


def test_heads_of_another_audit_in_the_folder_are_not_left_to_be_carried_over(on_disk: Path) -> None:
    for name, keys in (("heads", '"weights": [], "columns": []'), ("programs", '"kind": "soft_prompt"')):
        (on_disk / "again" / name).mkdir(parents=True)
        (on_disk / "again" / name / "of_another_audit.json").write_text(f'{{"format": 1, {keys}}}')
    first = repromia(*audit_arguments("again", *QUICK), folder=on_disk)
    assert first.returncode == 0, first.stderr
    assert not [*(on_disk / "again").rglob("of_another_audit.json")]
    second = repromia(*audit_arguments("again", *QUICK, "--seed", "1"), folder=on_disk)
    assert "this one has taken its place" in " ".join(second.stdout.split())
    assert "this one has taken its place" not in " ".join(first.stdout.split())


def test_python_says_what_it_wants(models: SmallModels) -> None:
    import repromia as package
    from repromia.errors import ConfigError

    target = package.language_model(models.leaky.model, models.leaky.tokenizer, max_tokens=128)
    records = package.load_records(models.members, models.nonmembers)
    with pytest.raises(ConfigError, match="language_model"):
        package.audit("finetuned", records)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="language_model"):
        package.audit(target, records, reference="base")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="load_records"):
        package.audit(target, (models.members, models.nonmembers))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="atacks"):
        package.audit(target, records, atacks="loss")


def test_five_lines_of_python(models: SmallModels) -> None:
    import repromia as package

    target = package.language_model(models.leaky.model, models.leaky.tokenizer, max_tokens=128)
    records = package.load_records(models.members, models.nonmembers)
    result = package.audit(target, records, attacks=("loss", "min_k"), fprs=(0.05,), bootstrap=200)
    assert result.findings[0].code == "found"
    assert result.null_target.status == "not_available"
