"""The real command on a small denoiser and .npz images: what a user has on disk."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars
import pytest
import torch
from PIL import Image

from attacks.diffusion.trained import trained
from repromia.cli import main
from repromia.result import AuditResult
from repromia.targets.pipelines import quiet

FLAGS = {
    "--model": "denoiser",
    "--members": "members.npz",
    "--nonmembers": "nonmembers.npz",
    "--attacks": "sima:t=30+80,shift_contrast:t=30+80,probe_bank:t=30+80",
    "--fit": "0.3",
    "--select": "0.2",
    "--fprs": "0.05",
    "--bootstrap": "200",
}


@pytest.fixture(scope="session")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """./denoiser, ./private, ./broken and two files of images in one folder."""
    folder, small = tmp_path_factory.mktemp("pictures"), trained()
    broken = copy.deepcopy(small.leaky)
    with torch.no_grad():
        next(broken.unet.parameters())[0] = float("nan")
    with quiet():
        for name, one in (("denoiser", small.leaky), ("private", small.private), ("broken", broken)):
            one.save_pretrained(folder / name)
    np.savez(folder / "members.npz", images=small.members)
    np.savez(folder / "nonmembers.npz", images=small.nonmembers)
    np.savez(folder / "few.npz", images=small.members[:15])
    for name in ("train", "heldout"):
        words = np.random.default_rng(len(name)).integers(1000, 9999, (60, 20)).tolist()
        lines = [json.dumps({"text": " ".join(map(str, row))}) for row in words]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def arguments(out: str, **changes: str) -> list[str]:
    flags = {**FLAGS, "--out": out, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    return ["audit", *(part for pair in flags.items() for part in pair)]


def here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, folder: Path, given: list[str]
) -> tuple[int, str]:
    """Exit code and what was printed, without another process."""
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stopped:
        main(given)
    shown = capsys.readouterr()
    return int(stopped.value.code or 0), " ".join((shown.out + shown.err).split())


def result_in(folder: Path) -> AuditResult:
    return AuditResult.model_validate_json((folder / "result.json").read_bytes())


def test_audit_of_images_writes_everything_and_returns_at_once_the_second_time(
    on_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score without information has an AUC above .7 on 30 + 30 records once in 250."""
    command = [sys.executable, "-c", "from repromia.cli import main; main()", *arguments("out", reference="private")]
    done = subprocess.run(command, cwd=on_disk, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    out = on_disk / "out"
    result = result_in(out)
    assert (result.status, result.modality, result.findings[0].code) == ("complete", "diffusion", "found")
    for name in ("shift_contrast:t=30+80", "probe_bank:t=30+80"):
        area = result.attack(name).auc
        assert area is not None
        assert area.estimate > 0.7
    assert result.null_target.status == "measured"
    assert result.null_target.joint_p is not None
    assert result.null_target.joint_p > 0.01  # false alarm: once in 100
    assert result.findings[0].sentence[:40] in " ".join(done.stdout.split())
    scores = polars.read_parquet(out / "scores.parquet")
    assert scores.height == result.records.n_members + result.records.n_nonmembers
    assert {"id", "role", "member", "same_supervision", *FLAGS["--attacks"].split(",")} <= set(scores.columns)
    assert scores.filter(polars.col("role") == "eval").height == sum(result.records.roles.eval)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert "data:image/" in page

    before = (out / "result.json").read_bytes()
    code, _ = here(capsys, monkeypatch, on_disk, arguments("out", reference="private"))
    assert code == 0
    assert (out / "result.json").read_bytes() == before
    assert "already_finished" in (out / "events.jsonl").read_text()


def test_a_timestep_outside_the_schedule_is_a_failed_row_and_exit_code_1(
    on_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments("late", attacks="sima:t=30,naive:t=1000")
    code, shown = here(capsys, monkeypatch, on_disk, [*given, "--no-controls"])
    assert code == 1, shown
    row = result_in(on_disk / "late").attack("naive:t=1000")
    assert (row.status, row.auc) == ("failed", None)
    assert "0 to 999" in row.reason
    assert "naive:t=1000" in shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "./nowhere"}, "nowhere"),
        ({"members": "nowhere.npz"}, "nowhere.npz"),
        ({"members": "train.jsonl", "nonmembers": "heldout.jsonl", "modality": "diffusion"}, "records are not images"),
        ({"members": "train.jsonl", "nonmembers": "heldout.jsonl"}, "denoiser"),
        ({"modality": "language"}, "denoiser"),
        ({"model": "broken"}, "not finite"),
        ({"members": "few.npz"}, "at least 10 of each"),
        ({"attacks": "loss"}, "There is no attack 'loss'"),
        ({"attacks": "simaa"}, "did you mean 'sima'"),
        ({"headline": "reprogram"}, "not among the attacks"),
        ({"reference": "denoiser"}, "The same model was given twice"),
        ({"batch_images": "0"}, "--batch-images"),
        ({"image": "pixels"}, "pixels"),
    ],
)
def test_wrong_use_is_one_readable_block(
    changes: dict[str, str],
    message: str,
    on_disk: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, shown = here(capsys, monkeypatch, on_disk, arguments("wrong", **changes))
    assert code == 2, shown
    assert message in shown
    assert "Traceback" not in shown


def test_images_and_a_language_model_do_not_go_together(
    on_disk: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The folder holds a language model: it is no pipeline, and that is said."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    code, shown = here(capsys, monkeypatch, on_disk, arguments("wrong", model=str(tmp_path)))
    assert code == 2
    assert "Traceback" not in shown
    assert "pipeline" in shown


def test_images_left_out_are_said_in_the_report(
    on_disk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (on_disk / "files").mkdir()
    for row, pixels in enumerate(trained().members):
        Image.fromarray(pixels[..., 0]).save(on_disk / "files" / f"{row:02d}.png")
    (on_disk / "files" / "damaged.png").write_bytes(b"no image")
    given = [*arguments("partly", members="files", attacks="sima:t=30"), "--no-controls"]
    code, shown = here(capsys, monkeypatch, on_disk, given)
    assert (code, "damaged.png" in shown) == (2, True)
    code, shown = here(capsys, monkeypatch, on_disk, [*given, "--skip-unreadable"])
    assert code == 0, shown
    said = "1 images could not be read and were left out: damaged.png."
    assert said in [one.sentence for one in result_in(on_disk / "partly").findings if one.code == "unreadable"]
    assert said in shown
    assert said in (on_disk / "partly" / "report.html").read_text(encoding="utf-8")
