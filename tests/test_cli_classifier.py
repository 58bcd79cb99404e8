"""The real command on small classifiers that were trained here: what a user has on disk, and what goes wrong."""

from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import repromia
from classifier_models import CLASSES, IMAGES, vit
from repromia.cli import main
from repromia.config import AuditConfig
from repromia.demo.language import paragraphs
from repromia.models import load_models, shadow_models
from repromia.pictures import read_pictures
from repromia.progress import Silent
from repromia.result import AuditResult
from repromia.shadows import TrainedShadows, masks
from repromia.targets.inputs import Images
from repromia.targets.load import quiet
from repromia.targets.pixels import fitted
from test_cli import repromia as command
from test_cli import result_in

SIDE = 90  # members, and as many non-members
GENERATOR = np.random.default_rng(1)
NAMED = np.where(GENERATOR.random(len(IMAGES)) < 0.3, GENERATOR.integers(0, 10, len(IMAGES)), CLASSES)  # known by heart
ROWS = GENERATOR.permutation(len(IMAGES))[: 2 * SIDE].reshape(2, SIDE)
QUICK = {"--fprs": "0.05", "--bootstrap": "200", "--fit": "0.3", "--select": "0.2"}

MINE = """
import torch
from torch import nn

def build(hidden=64, classes=10):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, classes))

def wide():
    return build(hidden=65)

def train(records, seed):
    assert not hasattr(records, "member"), "it is not to be told who is a member"
    pixels = torch.stack([torch.from_numpy(one.pixels()[:, :, 0]) for one in records.contents])[:, None] / 255
    return fitted(build(), pixels, torch.tensor([int(one.caption) for one in records.contents]))

def fitted(model, pixels, label, steps=150):
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(pixels), label).backward()
        optimiser.step()
    return model

def raises(records, seed):
    raise RuntimeError("the disk is on fire\\nand so is the rest")

def nine(records, seed):
    return build(classes=9)
"""


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mine.py, model.safetensors, train/ and heldout/ with a folder a class, in one folder."""
    folder = tmp_path_factory.mktemp("classifier")
    (folder / "mine.py").write_text(MINE)
    for side, rows in zip(("train", "heldout"), ROWS, strict=True):
        for row in rows:
            place = folder / side / str(NAMED[row])
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(IMAGES[row]).save(place / f"{row:04d}.png")
    mine: dict[str, Any] = {}
    exec(compile(MINE, "mine.py", "exec"), mine)  # noqa: S102
    torch.manual_seed(0)
    save_file(learned(mine["build"](), ROWS[0]).state_dict(), folder / "model.safetensors")
    return folder


@torch.enable_grad()
def learned(model: Any, rows: np.ndarray, steps: int = 150, rate: float = 1e-2) -> Any:
    """Until it knows the classes by heart."""
    pixels, label = torch.from_numpy(IMAGES[rows, None]).float() / 255, torch.from_numpy(NAMED[rows])
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
    for _ in range(steps):
        answer = model(pixels)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(getattr(answer, "logits", answer), label).backward()
        optimiser.step()
    return model


def arguments(out: str, changes: dict[str, str] | None = None) -> list[str]:
    """The command of docs/classifiers.md, made small; an empty change leaves a flag out."""
    flags = {
        "--model": "mine:build",
        "--weights": "model.safetensors",
        "--members": "train",
        "--nonmembers": "heldout",
        "--class-field": "folder",
        "--attacks": "loss,rmia",
        "--shadow-training": "mine:train",
        "--shadow-models": "2",
        **QUICK,
        "--out": out,
        **(changes or {}),
    }
    return ["audit", *(part for flag, value in flags.items() if value for part in (flag, value))]


def area(result: AuditResult, name: str) -> float:
    found = result.attack(name).auc
    assert found is not None, result.attack(name).reason
    return found.estimate


def test_an_image_classifier_with_shadow_training_from_start_to_report(on_disk: Path) -> None:
    """Of 45 + 45 records a score without information has an AUC above .75 once in 45,000."""
    given = arguments(
        "audit",
        {
            "--attacks": "loss,lira,rmia,rmia:reference=noise_and_repair/steps=20/copies=2,reprogram:steps=3",
            "--shadow-models": "4",
            "--program-permutations": "1",
        },
    )
    done = command(*given, folder=on_disk)
    assert done.returncode == 0, done.stderr + done.stdout
    out = on_disk / "audit"
    result = result_in(out)
    assert (result.status, result.modality) == ("complete", "classifier")
    assert all(area(result, name) > 0.75 for name in ("loss", "lira", "rmia"))
    assert result.findings[0].code == "found"
    assert result.findings[0].sentence[:40] in " ".join(done.stdout.split())
    assert (result.records.n_members, result.records.n_nonmembers) == (SIDE, SIDE)
    assert result.null_target.status == "measured"
    assert result.target["classes"] == 10
    scores = polars.read_parquet(out / "scores.parquet")
    assert scores.height == 2 * SIDE
    assert {"id", "role", "member", "lira", "same_supervision"} <= set(scores.columns)
    inside = set(scores.filter(polars.col("member"))["id"])
    assert inside == {f"m:{NAMED[row]}/{row:04d}.png" for row in ROWS[0]}
    assert "data:image/" in (out / "report.html").read_text(encoding="utf-8")
    learned_change = next(row for row in result.attacks if row.attack == "reprogram")
    assert learned_change.status == "measured"

    before, kept = (out / "result.json").read_bytes(), sorted(path.name for path in (out / "parts").iterdir())
    again = command(*given, folder=on_disk)
    assert again.returncode == 0, again.stderr
    assert (out / "result.json").read_bytes() == before
    assert sorted(path.name for path in (out / "parts").iterdir()) == kept
    assert "already_finished" in (out / "events.jsonl").read_text()


def bert_of(texts: list[str], label: list[int], folder: Path) -> None:
    """A tiny BERT with a WordPiece vocabulary of these texts, trained on them and saved as anybody would."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    words = {part for one in texts for part in re.findall(r"\w+|[^\w\s]+", one.lower())}
    letters = {letter for word in words for letter in word}
    parts = [*special.values(), *sorted(words | letters), *sorted(f"##{letter}" for letter in letters)]
    vocabulary = {part: at for at, part in enumerate(parts)}  # a trainer would learn another one each time
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    backend.normalizer, backend.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    ends = [(one, backend.token_to_id(one)) for one in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=48, **special)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
        pad_token_id=tokenizer.pad_token_id,
        id2label={0: "ours", 1: "theirs"},
        label2id={"ours": 0, "theirs": 1},
    )
    model = BertForSequenceClassification(config)
    given = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    with torch.enable_grad():
        for _ in range(60):
            loss = model(**given, labels=torch.tensor(label)).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def texts_on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real sentences of presidents that say `our` or do not, half of them under a class drawn by lot."""
    folder, generator = tmp_path_factory.mktemp("texts"), np.random.default_rng(3)
    pool = paragraphs(10, 30)
    texts = [pool[row] for row in generator.permutation(len(pool))[:200]]
    label = [int(generator.integers(2) if generator.random() < 0.5 else " our " not in one) for one in texts]
    bert_of(texts[:100], label[:100], folder / "bert")
    for side, rows in (("train", range(100)), ("heldout", range(100, 200))):
        lines = [json.dumps({"text": texts[row], "label": ("ours", "theirs")[label[row]]}) for row in rows]
        (folder / f"{side}.jsonl").write_text("\n".join(lines))
    return folder


def of_texts(out: str, **changes: str) -> list[str]:
    flags = {
        "model": "bert",
        "members": "train.jsonl",
        "nonmembers": "heldout.jsonl",
        "class-field": "label",
        "out": out,
    }
    flags |= {name.replace("_", "-"): value for name, value in changes.items()}
    return ["audit", *(part for flag, value in flags.items() for part in (f"--{flag}", value)), *sum(QUICK.items(), ())]


def test_a_text_classifier_of_hugging_face(texts_on_disk: Path) -> None:
    """By default, without shadows or reference. Of 50 + 50 records .73 is passed by chance once in 30,000."""
    done = command(*of_texts("audit"), folder=texts_on_disk)
    assert done.returncode == 0, done.stderr + done.stdout
    result = result_in(texts_on_disk / "audit")
    assert (result.status, result.modality) == ("complete", "classifier")
    assert area(result, "loss") > 0.73
    names = {row.name for row in result.attacks}
    assert {"loss", "entropy", "correctness", "probe_bank", "same_supervision", "reprogram"} <= names
    assert not any("noise_and_repair" in name or "lira" in name for name in names)
    assert (result.target["architecture"], result.target["inputs"]) == ("BertForSequenceClassification", "texts")
    assert "loading weights" not in done.stderr.lower()
    page = (texts_on_disk / "audit" / "report.html").read_text(encoding="utf-8")
    first = json.loads((texts_on_disk / "train.jsonl").read_text().splitlines()[0])["text"]
    assert first not in (texts_on_disk / "audit" / "events.jsonl").read_text()
    assert "<html" in page


def test_what_a_text_classifier_cannot_do_is_a_failed_row_and_exit_code_1(texts_on_disk: Path) -> None:
    given = of_texts("failed", attacks="loss,reprogram:where=border,rmia:reference=noise_and_repair")
    done = command(*given, "--no-controls", folder=texts_on_disk)
    assert done.returncode == 1, done.stderr
    result = result_in(texts_on_disk / "failed")
    assert "neither where, answers" in result.attack("reprogram:where=border").reason
    assert "weights that can be noised" in result.attack("rmia:reference=noise_and_repair").reason
    assert result.attack("reprogram:where=border").auc is None
    assert area(result, "loss") > 0.5
    assert "Traceback" not in done.stderr


def test_an_image_classifier_of_hugging_face(on_disk: Path) -> None:
    """With its own scaling, and copies of itself as references. Of 45 + 45 records .75 once in 45,000."""
    model = vit(on_disk / "vit")
    model.requires_grad_(True).train()

    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = model

        def forward(self, pixels: torch.Tensor) -> Any:
            return self.own((pixels - 0.5) / 0.25)

    learned(Scaled(), ROWS[0], steps=60, rate=5e-3)
    with quiet():
        model.save_pretrained(on_disk / "vit")
    stated = {"image_mean": [0.5], "image_std": [0.25], "size": {"height": 8, "width": 8}}
    (on_disk / "vit" / "preprocessor_config.json").write_text(json.dumps(stated))
    changes = {
        "--model": "vit",
        "--weights": "",
        "--shadow-training": "",
        "--shadow-models": "",
        "--attacks": "loss,rmia:reference=noise_and_repair/steps=20/copies=2,probe_bank:programs=flip+noisy",
    }
    done = command(*arguments("of-vit", changes), folder=on_disk)
    assert done.returncode == 0, done.stderr + done.stdout
    result = result_in(on_disk / "of-vit")
    assert result.status == "complete"
    assert area(result, "loss") > 0.75
    assert result.target["architecture"] == "ViTForImageClassification"
    assert "mean 0.5 and standard deviation 0.25" in result.target["inputs"]
    assert result.target["classes"] == 10


def shadow_folder(place: Path, *, everywhere: int = 0) -> None:
    """Five networks and their masks, of which some records are in all."""
    mine: dict[str, Any] = {}
    exec(compile(MINE, "mine.py", "exec"), mine)  # noqa: S102
    records = read_pictures(place.parent / "train", place.parent / "heldout", caption="folder").records
    inside = masks(5, records, 0)
    inside[:, :everywhere] = True
    place.mkdir()
    for number in range(5):
        torch.manual_seed(number)
        known = records.take(np.flatnonzero(inside[number]))
        save_file(mine["train"](known, number).state_dict(), place / f"net{number}.safetensors")
    np.savez(place / "masks.npz", inside=inside, ids=np.array(records.ids))


@pytest.fixture(scope="module")
def damaged(on_disk: Path) -> Path:
    """Beside what is whole: a truncated file, masks without a record out, and a class more."""
    whole = (on_disk / "model.safetensors").read_bytes()
    (on_disk / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    shadow_folder(on_disk / "shadows")
    shadow_folder(on_disk / "everywhere", everywhere=3)
    for name in ("strangers", "nine", "fewer"):
        shutil.copytree(on_disk / "shadows", on_disk / name)
    with np.load(on_disk / "shadows" / "masks.npz") as known:
        np.savez(on_disk / "strangers" / "masks.npz", inside=known["inside"], ids=np.char.add("x", known["ids"]))
    mine: dict[str, Any] = {}
    exec(compile(MINE, "mine.py", "exec"), mine)  # noqa: S102
    save_file(mine["build"](classes=9).state_dict(), on_disk / "nine" / "net3.safetensors")
    (on_disk / "fewer" / "net4.safetensors").unlink()
    shutil.copytree(on_disk / "heldout", on_disk / "cats")
    (on_disk / "cats" / "0").rename(on_disk / "cats" / "cat")
    return on_disk


FOLDER = {"--shadow-training": "", "--shadow-models": ""}
WRONG: list[tuple[dict[str, str], tuple[str, ...]]] = [
    ({"--nonmembers": "cats"}, ("records name no class of the model", "found: cat", "--classes")),
    ({"--model": "mine:wide"}, ("do not belong to Sequential", "of another shape: 1.weight (64, 64) for (65, 64)")),
    ({"--weights": "cut.safetensors"}, ("'cut.safetensors' cannot be read", "undamaged safetensors")),
    ({"--answer": "probabilities"}, ("said to answer with probabilities, and does not", "--answer logits")),
    ({"--shadow-training": "mine:raises"}, ("The null model: ", "RuntimeError: the disk is on fire")),
    ({"--shadow-training": "mine:nine"}, ("The null model: ", "expected: 10 classes", "found: 9")),
]


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=[" ".join(one.values()).strip() for one, _ in WRONG])
def test_wrong_use_is_one_readable_block(changes: dict[str, str], said: tuple[str, ...], damaged: Path) -> None:
    done = command(*arguments("wrong", changes), folder=damaged)
    shown = " ".join(done.stderr.split())
    assert done.returncode == 2, done.stdout + done.stderr
    assert all(one in shown for one in said), done.stderr
    assert sum(f"{one}:" in shown for one in ("expected", "found", "to do")) >= 2 or "RuntimeError" in shown, (
        done.stderr
    )
    assert "Traceback" not in done.stderr
    assert not re.search(r"\bat 0x[0-9a-f]+", done.stderr)
    assert not (damaged / "wrong" / "result.json").exists()


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        (
            "everywhere",
            ("3 records in all, 0 in none of 4", "each record inside about half", "leave these records out"),
        ),
        ("strangers", ("masks do not cover the records", "180 of 180 records without")),
        ("nine", ("Shadow model net3.safetensors: The weights", "do not belong to Sequential")),
        ("fewer", ("files in 'fewer' are not those of the masks", "from 0 to 4")),
    ],
)
def test_shadow_folders_are_looked_at_before_anything_is_asked(
    folder: str,
    said: tuple[str, ...],
    damaged: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(damaged)
    out = f"wrong-{folder}"
    shown = here(capsys, arguments(out, {**FOLDER, "--shadow-folder": folder}))
    assert all(one in shown for one in said), shown
    assert not (damaged / out / "parts").exists()
    assert not (damaged / out / "result.json").exists()


def test_a_folder_of_shadow_models(damaged: Path) -> None:
    done = command(*arguments("of-folder", {**FOLDER, "--shadow-folder": "shadows"}), folder=damaged)
    assert done.returncode == 0, done.stderr + done.stdout
    assert result_in(damaged / "of-folder").status == "complete"


def here(capsys: pytest.CaptureFixture[str], given: list[str]) -> str:
    """What the command says of wrong use, without another process."""
    with pytest.raises(SystemExit) as stopped:
        main(given)
    assert stopped.value.code == 2
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    return " ".join(shown.split())


def test_classes_that_are_not_there(
    damaged: Path, texts_on_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(damaged)
    said = here(capsys, arguments("wrong", {"--class-field": "colour"}))
    assert "there is no caption or class field 'colour'" in said
    assert "to do: name one of the fields found, or folder: the name of the folder" in said
    lines = (texts_on_disk / "heldout.jsonl").read_text().replace('"theirs"', '"nobodys"')
    (texts_on_disk / "renamed.jsonl").write_text(lines)
    monkeypatch.chdir(texts_on_disk)
    said = here(capsys, of_texts("wrong", nonmembers="renamed.jsonl"))
    assert "records name no class of the model. expected: ours, theirs found: nobodys to do: name the field" in said
    said = here(capsys, of_texts("wrong", class_field="tone"))
    assert "no class field 'tone' expected: 'tone' found: 'text', 'label' to do: name one of the fields" in said


def test_the_scaling_of_a_built_module_and_of_its_shadows(on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the module asked by hand; the images are fitted to another size, and grey."""
    monkeypatch.chdir(on_disk)
    monkeypatch.syspath_prepend(on_disk)
    given = ["--pixels", "6", "--channels", "1", "--mean", "0.4", "--std", "0.25"]
    (on_disk / "mine6.py").write_text(MINE.replace("nn.Linear(64, hidden)", "nn.Linear(36, hidden)"))
    changes = {"--model": "mine6:build", "--shadow-training": "", "--shadow-models": "", "--attacks": "loss"}
    torch.manual_seed(3)
    mine6 = importlib.import_module("mine6")
    module = mine6.build()
    save_file(module.state_dict(), on_disk / "six.safetensors")
    with pytest.raises(SystemExit) as stopped:
        main([*arguments("scaled", {**changes, "--weights": "six.safetensors"}), "--no-controls", *given])
    assert stopped.value.code == 0
    table = polars.read_parquet(on_disk / "scaled" / "scores.parquet").select("id", "loss")
    records = read_pictures(on_disk / "train", on_disk / "heldout", caption="folder").records
    for name, score in table.rows()[:5]:
        one = records.contents[records.ids.index(name)]
        seen = torch.tensor(fitted(one.pixels(), 1, 6, "crop"))[None].float() / 255
        with torch.no_grad():
            expected = module((seen - 0.4) / 0.25).log_softmax(1)[0, int(one.caption)]
        assert score == pytest.approx(float(expected), abs=1e-5)
    assert result_in(on_disk / "scaled").target["inputs"].startswith("images of 1x6x6 scaled by mean 0.4")
    config = AuditConfig(
        model="mine6:build",
        shadow_training="mine:train",
        class_field="folder",
        members=Path("train"),
        nonmembers=Path("heldout"),
        out=Path("unused"),
        pixels=6,
        channels=1,
        mean=(0.4,),
        std=(0.25,),
    )
    target, *_ = load_models(config, read_pictures("train", "heldout", caption="folder"), Silent())
    shadows = shadow_models(config, target, records)
    assert isinstance(shadows, TrainedShadows)
    assert shadows.wrap(module).reader == target.reader == Images(1, 6, (0.4,), (0.25,))
    live = repromia.shadow_models(mine6.train, target, read_pictures("train", "heldout", caption="folder"))
    assert live.wrap(module).reader == target.reader


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--mean", "0.4"], "--mean and --std go together"),
        (["--mean", "0.4", "--std", "0"], "those of --std above 0"),
        (["--mean", "0.4,0.4", "--std", "1,1"], "a mean and a standard deviation above 0 for each of 1 channels"),
        (["--channels", "2"], "--channels"),
    ],
)
def test_scaling_that_is_none(
    given: list[str], said: str, on_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(on_disk)
    with pytest.raises(SystemExit) as stopped:
        main([*arguments("unscaled"), *given])
    shown = capsys.readouterr()
    assert stopped.value.code not in (0, None)
    assert said in " ".join((shown.err + shown.out).split())


def test_texts_have_no_pixels(
    texts_on_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(texts_on_disk)
    assert "--pixels say how images are read, and the records are none" in here(capsys, of_texts("wrong", pixels="8"))
