"""Where classifiers come from: each answers as an independent forward pass; what is damaged or unsafe is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import skops.io
import torch
from safetensors.torch import load_file, save_file
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier
from torch import nn

from classifier_models import (
    CLASSES,
    DIGITS,
    IMAGES,
    SENTENCES,
    SmallCnn,
    bert,
    cnn,
    forest,
    image_records,
    pixels,
    row_records,
    text_records,
    vit,
)
from repromia.class_records import class_records_from_objects
from repromia.errors import TargetError
from repromia.records import Records
from repromia.signals import ClassSignals
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_loading import load_classifier
from repromia.targets.classifier_options import ClassifierOptions
from repromia.targets.classifiers import reading, wrap_classifier

CPU = ClassifierOptions(device="cpu")


def ask(model: Classifier, records: Records) -> ClassSignals:
    batch = model.encode(records.contents, records.ids)
    return model.signals(batch.inputs, batch.label)


def refused(path: object, options: ClassifierOptions = CPU, records: Records | None = None) -> str:
    with pytest.raises(TargetError) as caught:
        load_classifier(str(path), options, records or image_records().records)
    return str(caught.value)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file(cnn().state_dict(), tmp_path / "cnn.safetensors")
    return tmp_path / "cnn.safetensors"


@pytest.fixture
def builders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the working directory, named anew for each test."""
    name = f"builders_{abs(hash(tmp_path)) % 10**9}"
    (tmp_path / f"{name}.py").write_text(
        "from classifier_models import SmallCnn, forest as trained\n"
        "def build(): return SmallCnn()\n"
        "def nothing(): pass\n"
        "def broken(): raise KeyError('weights')\n"
        "def estimator(): return trained()\n"
        "def needs(one): return SmallCnn()\n"
        "def number(): return 3\n"
        "def function(): return lambda rows: trained().predict_proba(rows)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


# modules built by a function


def test_a_built_module_with_weights_from_safetensors(builders: str, weights: Path) -> None:
    options = ClassifierOptions(device="cpu", weights=str(weights))
    records = image_records().records
    model = load_classifier(f"{builders}:build", options, records)
    again = load_classifier(f"{builders}:build", options, records)
    trained = cnn().eval()
    with torch.no_grad():
        expected = trained(pixels(40)).double().log_softmax(1).numpy()
    trained.train()
    np.testing.assert_allclose(ask(model, records).logprobs, expected, rtol=1e-5, atol=1e-6)
    assert model.fingerprint == again.fingerprint
    assert model.describe()["architecture"] == "SmallCnn"
    assert not any(one.requires_grad for one in model.module.parameters())  # type: ignore[union-attr]
    assert model.differentiable


def test_weights_that_do_not_belong(builders: str, weights: Path) -> None:
    path, options = f"{builders}:build", ClassifierOptions(device="cpu", weights=str(weights))
    whole = load_file(weights)
    less = {name: one for name, one in whole.items() if name != "head.bias"}
    for state, said in (
        (less, "1 missing: head.bias"),
        (whole | {"extra": torch.zeros(1)}, "1 unexpected: extra"),
        (whole | {"head.bias": torch.zeros(3)}, "head.bias (3,) for (10,)"),
    ):
        save_file(state, weights)
        assert said in refused(path, options)
    save_file(whole, weights)
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be read" in refused(path, options)
    weights.write_bytes(b"")
    assert "cannot be read" in refused(path, options)
    weights.unlink()
    assert "cannot be read" in refused(path, options)


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    from repromia.targets.classifier_files import fill

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            self.two.weight = self.one.weight

    torch.manual_seed(0)
    source, other = Tied(), Tied()
    state = {name: one for name, one in source.state_dict().items() if name != "two.weight"}
    save_file(state, tmp_path / "tied.safetensors")
    fill(other, tmp_path / "tied.safetensors")
    assert torch.equal(other.two.weight, source.one.weight)


def test_files_without_the_count_of_batches_are_whole(tmp_path: Path) -> None:
    from repromia.targets.classifier_files import fill

    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    state = {name: value for name, value in module.state_dict().items() if "num_batches_tracked" not in name}
    save_file(state, tmp_path / "old.safetensors")
    other = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    fill(other, tmp_path / "old.safetensors")
    rows = torch.randn(5, 4)
    assert torch.equal(module.eval()(rows), other.eval()(rows))
    del state["1.running_var"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(TargetError, match=r"1 missing: 1\.running_var"):
        fill(other, tmp_path / "less.safetensors")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".joblib"])
def test_pickles_are_refused_unread(builders: str, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"not read")
    assert "is a pickle" in refused(path)
    assert "is a pickle" in refused(f"{builders}:build", ClassifierOptions(device="cpu", weights=str(path)))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("{}:absent", "cannot be imported"),
        ("no_such_module_here:build", "cannot be imported"),
        ("{}:broken", "raised an error"),
        ("{}:needs", "raised an error"),
        ("{}:nothing", "returned nothing"),
        ("{}:number", "This is no classifier"),
        ("{}:function", "answers with was not said"),
        ("./absent/folder", "There is no classifier"),
        ("absent.skops", "cannot be read"),
        ("cnn.safetensors", "--weights"),
    ],
)
def test_what_is_no_classifier(builders: str, weights: Path, path: str, said: str) -> None:
    assert said in refused(path.format(builders))


def test_weights_are_for_modules_alone(builders: str, weights: Path) -> None:
    options = ClassifierOptions(weights=str(weights))
    assert "no module" in refused(f"{builders}:estimator", options, row_records().records)


def test_built_estimators_and_functions(builders: str) -> None:
    records = row_records().records
    expected = forest().predict_proba(DIGITS.data[:40])
    for path, options in (("estimator", CPU), ("function", ClassifierOptions(answer="probabilities"))):
        found = ask(load_classifier(f"{builders}:{path}", options, records), records)
        np.testing.assert_allclose(np.exp(found.logprobs.astype(np.float64)), expected, atol=1e-6)


def test_what_the_options_allow() -> None:
    for wrong in ({"answer": "logit"}, {"dtype": "int8"}, {"batch": 0}, {"channels": 2}, {"pixels": -1}):
        with pytest.raises(TargetError):
            ClassifierOptions(**wrong)  # type: ignore[arg-type]
    for scale in ({"mean": (0.5,)}, {"mean": (0.5,), "std": (0.0,)}, {"mean": (0.5, 0.5), "std": (1.0, 1.0)}):
        with pytest.raises(TargetError, match="scaling"):
            wrap_classifier(cnn(), records=image_records().records, options=ClassifierOptions(**scale))


# Hugging Face


def processor(folder: Path, **stated: Any) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps(stated))


def test_an_image_folder_with_its_processor(tmp_path: Path) -> None:
    model = vit(tmp_path)
    processor(tmp_path, do_normalize=True, image_mean=[0.4], image_std=[0.2], size={"height": 8, "width": 8})
    records = image_records().records
    found = load_classifier(str(tmp_path), CPU, records)
    with torch.no_grad():
        expected = model((pixels(40) - 0.4) / 0.2).logits.double().log_softmax(1).numpy()
    np.testing.assert_allclose(ask(found, records).logprobs, expected, atol=2e-6, rtol=1e-5)
    assert found.classes == tuple(map(str, range(10)))
    assert found.differentiable
    assert found.describe()["inputs"] == "images of 1x8x8 scaled by mean 0.4 and standard deviation 0.2"
    live = wrap_classifier(model, records=records, options=ClassifierOptions(mean=(0.4,), std=(0.2,)))
    np.testing.assert_allclose(ask(live, records).logprobs, expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("stated", "mean", "std"),
    [
        ({"do_normalize": False}, (), ()),
        ({"do_normalize": False, "do_rescale": False}, (0.0,), (1 / 255,)),
        ({"image_mean": 0.5, "image_std": 0.25, "rescale_factor": 2 / 255, "rescale_offset": True}, (0.75,), (0.125,)),
        ({"image_mean": [0.5], "image_std": [0.5], "rescale_factor": 1 / 255}, (0.5,), (0.5,)),
    ],
)
def test_what_a_processor_does_to_pixels(tmp_path: Path, stated: dict[str, Any], mean: Any, std: Any) -> None:
    vit(tmp_path)
    processor(tmp_path, size=8, **stated)
    reader: Any = load_classifier(str(tmp_path), CPU, image_records().records).reader
    assert (reader.mean, reader.std) == (pytest.approx(mean), pytest.approx(std))


def test_images_are_resized_as_the_processor_does(tmp_path: Path) -> None:
    vit(tmp_path)
    cases: tuple[tuple[dict[str, Any], tuple[Any, ...]], ...] = (
        ({"size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": {"height": 8, "width": 8}}, ("crop", 10)),
        ({"size": {"shortest_edge": 10}, "do_center_crop": True, "crop_size": 8}, ("crop", 10)),
        ({"size": {"shortest_edge": 8}}, ("crop", 0)),
        ({"size": {"height": 8, "width": 8}}, ("squash", 0)),
        ({"size": 8}, ("squash", 0)),
        ({}, ("crop", 0)),
    )
    for stated, (resize, edge) in cases:
        processor(tmp_path, do_normalize=False, **stated)
        reader: Any = load_classifier(str(tmp_path), CPU, image_records().records).reader
        assert (reader.size, reader.resize, reader.edge) == (8, resize, edge), stated
    processor(tmp_path, do_normalize=False, size={"height": 8, "width": 9})
    assert "size in preprocessor_config.json" in refused(tmp_path)


def test_a_model_of_reversed_channels_is_given_them(tmp_path: Path) -> None:
    model = vit(tmp_path, channels=3)
    processor(tmp_path, image_processor_type="MobileViTImageProcessor", size={"shortest_edge": 8}, crop_size=8)
    coloured = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    records = class_records_from_objects((coloured[:20], CLASSES[:20]), (coloured[20:], CLASSES[20:40])).records
    found = load_classifier(str(tmp_path), CPU, records)
    bgr = torch.from_numpy(coloured[..., ::-1].copy()).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = model(bgr).logits.double().log_softmax(1).numpy()
    np.testing.assert_allclose(ask(found, records).logprobs, expected, atol=2e-6, rtol=1e-5)
    shadow = wrap_classifier(model, records=records, options=ClassifierOptions(**reading(found.reader)))
    assert shadow.reader == found.reader


def test_the_middle_of_a_larger_image_is_kept(tmp_path: Path) -> None:
    vit(tmp_path)
    processor(tmp_path, do_normalize=False, size={"shortest_edge": 12}, do_center_crop=True, crop_size=8)
    framed = np.pad(IMAGES[:40], ((0, 0), (2, 2), (2, 2)))
    records = class_records_from_objects((framed[:20], CLASSES[:20]), (framed[20:], CLASSES[20:40])).records
    found = load_classifier(str(tmp_path), CPU, records).encode(records.contents).inputs
    assert torch.equal(found, pixels(40))  # type: ignore[arg-type]


def test_a_residual_network_with_batch_statistics(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    config = ResNetConfig(num_channels=3, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=10,
                          layer_type="basic")  # fmt: skip
    model = ResNetForImageClassification(config)
    with torch.no_grad():
        model(pixels(100).expand(-1, 3, -1, -1))  # statistics of its own
    model.eval().save_pretrained(tmp_path)
    records = image_records().records
    grey = np.repeat(IMAGES[:40, :, :, None], 3, 3)
    coloured = class_records_from_objects((grey[:20], CLASSES[:20]), (grey[20:], CLASSES[20:40])).records
    with torch.no_grad():
        expected = model(pixels(40).expand(-1, 3, -1, -1)).logits.double().log_softmax(1).numpy()
    for one in (coloured, records):
        found = ask(load_classifier(str(tmp_path), CPU, one), one)
        np.testing.assert_allclose(found.logprobs, expected, atol=2e-6, rtol=1e-5)


def test_a_text_folder(tmp_path: Path) -> None:
    model, records = bert(tmp_path), text_records().records
    found = load_classifier(str(tmp_path), CPU, records)
    assert found.classes == ("dull", "good", "bad")
    assert not found.differentiable
    signals = ask(found, records)
    from classifier_models import word_tokenizer

    tokenizer = word_tokenizer()
    with torch.no_grad():  # one by one, without padding
        rows = [model(torch.tensor([tokenizer(one)["input_ids"]])).logits[0] for one in SENTENCES]
    expected = torch.stack(rows).double().log_softmax(1).numpy()
    np.testing.assert_allclose(signals.logprobs, expected, atol=2e-6, rtol=1e-5)
    assert signals.label.tolist() == [("dull", "good", "bad").index(one.split()[0]) for one in SENTENCES]


def test_padding_and_length_of_texts(tmp_path: Path) -> None:
    model = bert(tmp_path)
    texts = ["good", "bad film number 3", "good film " * 4, "dull film number 1 " * 30]
    records = class_records_from_objects((texts[:2], ["good", "bad"]), (texts[2:], ["good", "dull"])).records
    found = load_classifier(str(tmp_path), CPU, records)
    whole = ask(found, records).logprobs
    single = ClassifierOptions(device="cpu", batch=1)
    alone = ask(load_classifier(str(tmp_path), single, records), records).logprobs
    np.testing.assert_allclose(whole, alone, rtol=1e-5, atol=2e-6)
    order = [3, 1, 0, 2]
    np.testing.assert_allclose(ask(found, records.take(order)).logprobs, whole[order], rtol=1e-5, atol=2e-6)
    from classifier_models import word_tokenizer

    tokenizer = word_tokenizer()
    live = wrap_classifier(model, records=records, tokenizer=tokenizer)
    np.testing.assert_allclose(ask(live, records).logprobs, whole, rtol=1e-5, atol=2e-6)
    tokenizer.pad_token = None  # then texts are asked one by one
    bare = ask(wrap_classifier(model, records=records, tokenizer=tokenizer), records).logprobs
    np.testing.assert_allclose(bare, whole, rtol=1e-5, atol=2e-6)
    tokenizer = word_tokenizer(10**30)  # it does not say: the model's positions decide
    longest = wrap_classifier(model, records=records, tokenizer=tokenizer)
    assert longest.forward.limit == 24  # type: ignore[attr-defined]
    assert longest.fingerprint != live.fingerprint
    with pytest.raises(TargetError, match="without a tokenizer"):
        wrap_classifier(model, records=records)


def test_a_decoder_reads_the_last_token_that_is_no_padding(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    from classifier_models import word_tokenizer

    tokenizer = word_tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=24, num_labels=3,
                        pad_token_id=tokenizer.pad_token_id, initializer_range=0.3)  # fmt: skip
    model = GPT2ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(tmp_path)
    texts = ["good", "bad film number 3", "good film " * 4, "dull film"]
    records = class_records_from_objects((texts[:2], [0, 1]), (texts[2:], [0, 2])).records
    with torch.no_grad():
        rows = [model(torch.tensor([tokenizer(one)["input_ids"]])).logits[0] for one in texts]
    expected = torch.stack(rows).double().log_softmax(1).numpy()
    found = ask(load_classifier(str(tmp_path), CPU, records), records)
    np.testing.assert_allclose(found.logprobs, expected, atol=2e-6, rtol=1e-5)


def test_damaged_folders(tmp_path: Path) -> None:
    vit(tmp_path)
    kept = load_file(tmp_path / "model.safetensors")

    def without(name: str) -> None:
        save_file(
            {key: one for key, one in kept.items() if key != name}, tmp_path / "model.safetensors", {"format": "pt"}
        )

    without("classifier.bias")
    assert "random numbers" in refused(tmp_path)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-50])
    assert "cannot be loaded" in refused(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(kept, tmp_path / "pytorch_model.bin")
    assert "refused" in refused(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    (tmp_path / "model.safetensors").write_bytes(whole)
    (tmp_path / "preprocessor_config.json").write_text("{")
    assert "cannot be loaded" in refused(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    stated = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stated | {"architectures": ["ViTModel"]}))
    assert "ForImageClassification" in refused(tmp_path)
    (tmp_path / "config.json").unlink()
    assert "cannot be loaded" in refused(tmp_path)


def test_a_text_folder_without_tokenizer_or_for_images(tmp_path: Path) -> None:
    bert(tmp_path / "text")
    assert "another kind" in refused(tmp_path / "text")
    vit(tmp_path / "image")
    assert "tokenizer" in refused(tmp_path / "image", records=text_records().records)
    shutil.copytree(tmp_path / "text", tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*", "special*"))
    assert "tokenizer" in refused(tmp_path / "bare", records=text_records().records)


def test_code_of_others_is_not_run(tmp_path: Path) -> None:
    vit(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())
    stated |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    (tmp_path / "mine.py").write_text("raise SystemExit('it ran')\n")
    assert "cannot be loaded" in refused(tmp_path)


# estimators


def test_a_forest_from_skops(tmp_path: Path) -> None:
    skops.io.dump(forest(), tmp_path / "forest.skops")
    records = row_records().records
    found = load_classifier(str(tmp_path / "forest.skops"), CPU, records)
    expected = forest().predict_proba(DIGITS.data[:40])
    signals = ask(found, records)
    np.testing.assert_allclose(np.exp(signals.logprobs.astype(np.float64)), expected, atol=1e-6)
    assert found.classes == tuple(map(str, range(10)))
    assert found.describe()["architecture"] == "RandomForestClassifier"
    assert found.fingerprint == load_classifier(str(tmp_path / "forest.skops"), CPU, records).fingerprint
    assert load_classifier(str(tmp_path / "forest.skops")).reader.shape == ("table", 64)
    live = wrap_classifier(forest(), records=records)
    assert live.fingerprint == wrap_classifier(forest(), records=records).fingerprint
    other = RandomForestClassifier(20, random_state=1).fit(DIGITS.data[:400], DIGITS.target[:400])
    assert live.fingerprint != wrap_classifier(other, records=records).fingerprint


def broken_tree(path: Path, change: Any) -> None:
    """A forest whose first tree was changed in memory, as a forged file would hold it."""
    found = RandomForestClassifier(3, random_state=0).fit(DIGITS.data[:60], DIGITS.target[:60])
    tree = found.estimators_[1].tree_
    state = tree.__getstate__()
    change(state)
    tree.__setstate__(state)
    skops.io.dump(make_pipeline(FunctionTransformer(), found), path)


@pytest.mark.parametrize(("field", "value"), [("left_child", 10**6), ("right_child", 0), ("feature", 64)])
def test_trees_that_lead_out_of_themselves(tmp_path: Path, field: str, value: int) -> None:
    def change(state: Any) -> None:
        state["nodes"] = state["nodes"].copy()
        state["nodes"][field][0] = value

    broken_tree(tmp_path / "bad.skops", change)
    assert "damaged decision tree" in refused(tmp_path / "bad.skops", records=row_records().records)
    broken_tree(tmp_path / "good.skops", lambda state: None)
    assert load_classifier(str(tmp_path / "good.skops"), CPU, row_records().records).classes


def shouted(texts: object) -> object:
    return texts


def test_skops_files_that_are_refused(tmp_path: Path) -> None:
    rows = row_records().records
    mine = make_pipeline(FunctionTransformer(shouted), LogisticRegression(max_iter=5000, tol=0.1))
    skops.io.dump(mine.fit(DIGITS.data[:50], DIGITS.target[:50]), tmp_path / "mine.skops")
    message = refused(tmp_path / "mine.skops", records=rows)
    assert "run anything" in message
    assert "shouted" in message
    skops.io.dump(forest(), tmp_path / "cut.skops")
    (tmp_path / "cut.skops").write_bytes((tmp_path / "cut.skops").read_bytes()[:-200])
    assert "cannot be read" in refused(tmp_path / "cut.skops", records=rows)
    (tmp_path / "text.skops").write_text("forest")
    assert "cannot be read" in refused(tmp_path / "text.skops", records=rows)
    skops.io.dump(RandomForestClassifier(), tmp_path / "raw.skops")
    assert "not fitted" in refused(tmp_path / "raw.skops", records=rows)
    skops.io.dump({"a": 1}, tmp_path / "dict.skops")
    assert "no classifier" in refused(tmp_path / "dict.skops", records=rows)


def test_estimators_that_cannot_be_asked() -> None:
    records = row_records().records
    unfitted = make_pipeline(FunctionTransformer(), LogisticRegression())
    for model, said in (
        (RandomForestClassifier(), "not fitted"),
        (unfitted, "not fitted"),
        (LinearSVC(), "does not tell probabilities"),
        (DecisionTreeClassifier().fit(DIGITS.data[:50], np.c_[CLASSES[:50], CLASSES[:50]]), "several things"),
        (DecisionTreeClassifier().fit(DIGITS.data[:50, :9], CLASSES[:50]), "number of features"),
        (RandomForestClassifier, "make one of it"),
    ):
        with pytest.raises(TargetError, match=said):
            wrap_classifier(model, records=records)
    with pytest.raises(TargetError, match="wrap it in a function"):
        wrap_classifier(forest(), records=image_records().records)


def test_an_estimator_of_some_of_the_classes() -> None:
    few = np.isin(DIGITS.target, (3, 5, 8))
    tree = RandomForestClassifier(10, random_state=0).fit(DIGITS.data[few][:200], DIGITS.target[few][:200])
    values, names = DIGITS.data[few][200:240], DIGITS.target[few][200:240]
    records = class_records_from_objects((values[:20], names[:20]), (values[20:], names[20:])).records
    own = wrap_classifier(tree, records=records)
    assert own.classes == ("3", "5", "8")
    assert ask(own, records).label.tolist() == [(3, 5, 8).index(one) for one in names]
    every = tuple(map(str, range(10)))
    wide = wrap_classifier(tree, records=records, options=ClassifierOptions(classes=every))
    signals = ask(wide, records)
    expected = np.zeros((40, 10))
    expected[:, [3, 5, 8]] = tree.predict_proba(values)
    np.testing.assert_allclose(np.exp(signals.logprobs.astype(np.float64)), expected, atol=1e-6)
    with pytest.raises(TargetError, match="name no class"):
        ask(own, row_records().records)
    with pytest.raises(TargetError, match="not named"):
        wrap_classifier(tree, records=records, options=ClassifierOptions(classes=("3", "5", "x")))
    labels = wrap_classifier(tree, records=records, options=ClassifierOptions(answer="label"))
    assert [("3", "5", "8")[one] for one in ask(labels, records).predicted] == list(map(str, tree.predict(values)))


def test_an_estimator_that_was_fitted_on_a_data_frame() -> None:
    frame = polars.DataFrame(DIGITS.data[:100], schema=[f"x{at}" for at in range(64)])
    model = LogisticRegression(max_iter=5000, tol=0.1).fit(frame, CLASSES[:100])
    assert len(model.feature_names_in_) == 64
    records = row_records().records
    signals = ask(wrap_classifier(model, records=records), records)
    np.testing.assert_allclose(np.exp(signals.logprobs), model.predict_proba(frame[:40]), atol=1e-6)


def people(count: int, seed: int) -> polars.DataFrame:
    """Three features of different size, of which two decide the class."""
    rows = np.random.default_rng(seed).normal(size=(count, 3)) * [1, 1, 100]
    return polars.DataFrame(rows, schema=["age", "height", "income"])


def judged(frame: polars.DataFrame) -> list[int]:
    return (frame["age"] + 0.05 * frame["income"] > 0).cast(int).to_list()


@pytest.mark.parametrize("named", ["itself", "step"])
def test_columns_in_another_order_are_put_in_the_estimators_own(named: str, tmp_path: Path) -> None:
    model: Any = LogisticRegression()
    if named == "step":
        columns = [("one", StandardScaler(), ["income"]), ("other", "passthrough", ["age", "height"])]
        model = make_pipeline(ColumnTransformer(columns), model)
    fitted, one, two = people(300, 0), people(40, 1), people(40, 2)
    model.fit(fitted, judged(fitted))
    turned = [frame.select("income", "age", "height") for frame in (one, two)]
    records = class_records_from_objects(*((part, judged(part)) for part in turned)).records
    found = wrap_classifier(model, records=records)
    expected = model.predict_proba(polars.concat([one, two]))
    np.testing.assert_allclose(np.exp(ask(found, records).logprobs), expected, atol=1e-5)
    straight = class_records_from_objects(*((part, judged(part)) for part in (one, two))).records
    same = wrap_classifier(model, records=straight)
    np.testing.assert_allclose(np.exp(ask(same, straight).logprobs), expected, atol=1e-5)
    assert same.fingerprint != found.fingerprint  # the same numbers would be other features
    nameless = class_records_from_objects(*((part.to_numpy(), judged(part)) for part in (one, two))).records
    np.testing.assert_allclose(
        np.exp(ask(wrap_classifier(model, records=nameless), nameless).logprobs), expected, atol=1e-5
    )
    if named == "itself":
        skops.io.dump(model, tmp_path / "model.skops")
        read = [load_classifier(str(tmp_path / "model.skops"), CPU, some) for some in (records, straight)]
        np.testing.assert_allclose(np.exp(ask(read[0], records).logprobs), expected, atol=1e-5)
        assert read[0].fingerprint != read[1].fingerprint


def test_columns_of_other_names_are_refused() -> None:
    frame = people(40, 0)
    model = LogisticRegression().fit(frame, judged(frame))
    other = frame.rename({"height": "size"})
    records = class_records_from_objects((other[:20], judged(frame[:20])), (other[20:], judged(frame[20:]))).records
    with pytest.raises(TargetError, match=r"(?s)'age', 'height', 'income'.*not 'height'; also 'size'.*rename"):
        wrap_classifier(model, records=records)
    model.feature_names_in_ = np.array(["Column_0", "Column_1", "Column_2"])  # as LightGBM calls those of an array
    assert wrap_classifier(model, records=records).reader.shape == ("table", 3)


def test_an_estimator_of_texts() -> None:
    records, tones = text_records().records, [one.split()[0] for one in SENTENCES]
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(SENTENCES, tones)
    found = wrap_classifier(model, records=records)
    signals = ask(found, records)
    np.testing.assert_allclose(np.exp(signals.logprobs.astype(np.float64)), model.predict_proba(SENTENCES), atol=1e-6)
    assert found.classes == ("bad", "dull", "good")


# functions


def test_what_functions_are_given() -> None:
    seen: list[Any] = []

    def told(inputs: Any) -> np.ndarray:
        seen.append(inputs)
        return np.full((len(inputs), 3), 1 / 3)

    options = ClassifierOptions(answer="probabilities", classes=("good", "bad", "dull"))
    ask(wrap_classifier(told, records=text_records().records, options=options), text_records().records)
    assert seen[-1] == SENTENCES
    options = ClassifierOptions(answer="probabilities")
    small = class_records_from_objects((IMAGES[:9], [0, 1, 2] * 3), (IMAGES[9:18], [0, 1, 2] * 3)).records
    ask(wrap_classifier(told, records=small, options=options), small)
    assert isinstance(seen[-1], np.ndarray)
    np.testing.assert_array_equal(seen[-1], pixels(18).numpy())
    rows = class_records_from_objects((DIGITS.data[:9], [0, 1, 2] * 3), (DIGITS.data[9:18], [0, 1, 2] * 3)).records
    ask(wrap_classifier(told, records=rows, options=options), rows)
    np.testing.assert_array_equal(seen[-1], DIGITS.data[:18])


def test_what_is_not_known_is_asked_for() -> None:
    with pytest.raises(TargetError, match="takes is not known"):
        wrap_classifier(cnn())
    assert wrap_classifier(cnn(), options=ClassifierOptions(pixels=8, channels=1)).reader.shape == ("image", 1, 8)
    texts = Records(("a",), ("a text",), ("a",))
    with pytest.raises(TargetError, match="name no classes"):
        wrap_classifier(cnn(), records=texts)
    wide = np.repeat(IMAGES, 2, 2)
    records = class_records_from_objects((wide[:20], CLASSES[:20]), (wide[20:40], CLASSES[20:40])).records
    with pytest.raises(TargetError, match="not square"):
        wrap_classifier(SmallCnn(), records=records)
    model = wrap_classifier(cnn(), records=image_records().records)
    assert wrap_classifier(model) is model
