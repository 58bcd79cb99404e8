"""Classifiers from torch modules, Hugging Face models, estimators and functions, live or loaded."""

from __future__ import annotations

import importlib
import os
import re
import sys
import uuid
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor

from repromia.class_records import class_name
from repromia.errors import TargetError
from repromia.records import Content, Example, Node, Picture, Records, TableRow
from repromia.targets.classifier import Answer, Classifier, ModuleForward
from repromia.targets.classifier_files import fill, load_estimator, load_huggingface, refuse_pickle
from repromia.targets.fingerprint import tokenizer_state
from repromia.targets.inputs import Images, Inputs, Reader, Rows, Texts
from repromia.targets.nodes import WHOLE, NodeForward, NodeReader, Nodes
from repromia.targets.pixels import Resize

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BUILD = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_HUB = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class ClassifierOptions:
    """How a classifier is loaded and asked.

    classes: names in the model's order; empty: the model's own, else 0, 1, … answer: empty: modules answer with
    logits, estimators with probabilities; functions must say. weights: a safetensors file for a module that was built.
    resize: auto is the model's own, else crop. random: answers may differ from call to call. pixels, channels: side
    and channels of images; 0: the model's own, else those of the first record. mean, std: a channel each, of pixels in
    [0, 1]; empty: the model's own, else none. edge: images of another size are first fitted to this larger side, of
    which the middle is kept; 0: none. hops, neighbours: of nodes, see `repromia.targets.nodes.NodeReader`.
    """

    classes: tuple[str, ...] = ()
    answer: str = ""
    weights: str = ""
    device: str = ""
    dtype: str = "auto"
    revision: str = ""
    batch: int = 256
    resize: Resize | Literal["auto"] = "auto"
    random: bool = False
    pixels: int = 0
    channels: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    edge: int = 0
    hops: int = WHOLE
    neighbours: int = 0

    def __post_init__(self) -> None:
        if self.answer not in ("", *get_args(Answer)):
            raise TargetError(
                "There is no such answer of a classifier.", expected=", ".join(get_args(Answer)), found=self.answer
            )
        if self.dtype not in ("auto", *DTYPES):
            raise TargetError(f"There is no dtype {self.dtype!r}.", expected="auto, " + ", ".join(DTYPES))
        if self.batch < 1 or self.pixels < 0 or self.channels not in (0, 1, 3):
            raise TargetError(
                "The options of the classifier are out of range.",
                expected="batch at least 1, pixels at least 0, channels 1 or 3 (0: found by itself)",
                found=f"batch {self.batch}, pixels {self.pixels}, channels {self.channels}",
            )


@dataclass(frozen=True)
class TextForward:
    """Asks a module of token ids. limit: longest text, in tokens; padded: whether it knows what padding is."""

    module: torch.nn.Module
    tokenizer: Any
    limit: int
    padded: bool

    def __call__(self, texts: Sequence[str]) -> Any:
        """Its answers; without known padding, texts are asked one by one."""
        if not self.padded and len(texts) > 1:
            return torch.cat([self([one]) for one in texts])
        device = next(self.module.parameters()).device
        given = self.tokenizer(
            list(texts),
            truncation=True,
            max_length=self.limit,
            padding=self.padded,
            padding_side="right",  # positions are counted from the left
            return_tensors="pt",
        )
        answer = self.module(**{name: one.to(device) for name, one in given.items()})
        return getattr(answer, "logits", answer)


@dataclass(frozen=True)
class EstimatorForward:
    """Asks an estimator. places: of its classes among those named; empty: its own order. label: names alone."""

    estimator: Any
    places: tuple[int, ...] = ()
    classes: int = 0
    label: bool = False

    @property
    def architecture(self) -> str:
        """Its class."""
        return type(self.estimator).__name__

    def __call__(self, inputs: Inputs) -> Any:
        """Probabilities in double precision, or predicted names."""
        given = as_given(inputs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X does not have valid feature names")  # records have none
            answer = np.asarray((self.estimator.predict if self.label else self.estimator.predict_proba)(given))
        if self.label:
            return np.array([class_name(one) for one in answer.tolist()], dtype=str)
        found = answer.astype(np.float64)
        if not self.places or found.ndim != 2 or found.shape[1] != len(self.places):
            return found
        rows = np.zeros((len(found), self.classes))  # a class that it was never shown has probability 0
        rows[:, list(self.places)] = found
        return rows


@dataclass(frozen=True)
class FunctionForward:
    """Asks a function of numpy arrays, (record, channel, height, width) in [0, 1] or (record, feature), or of texts."""

    function: Callable[[Any], Any]

    def __call__(self, inputs: Inputs) -> Any:
        """What it returns."""
        return self.function(as_given(inputs))


def as_given(inputs: Inputs) -> Any:
    """Inputs as code of others takes them: an array, or a list of texts."""
    assert not isinstance(inputs, Nodes)  # noqa: S101 — modules alone are asked about nodes
    return inputs.cpu().numpy() if isinstance(inputs, Tensor) else list(inputs)


def load_classifier(
    path: str, options: ClassifierOptions | None = None, records: Records | None = None, *, name: str = ""
) -> Classifier:
    """A classifier from `package.module:build`, a Hugging Face folder or hub id, or a .skops file.

    build takes no argument and returns a module, an estimator, a function or a Classifier. records: some of those that
    it will be asked about, which say what it takes. Nothing pickled is ever read. Raises TargetError.
    """
    options = options or ClassifierOptions()
    name = name or path
    place = Path(path)
    refuse_pickle(path)
    if place.is_dir():
        return _huggingface(path, options, records, name)
    if place.suffix.lower() == ".skops":
        _no_weights(options)
        estimator = load_estimator(place)
        found = wrap_classifier(estimator, records=records, options=options, name=name)
        found.identity = "skops " + blake2b(place.read_bytes(), digest_size=16).hexdigest()
        return found
    if not place.exists() and _BUILD.fullmatch(path):
        return _built(path, options, records, name)
    if not place.exists() and _HUB.fullmatch(path) and not path.startswith("."):
        return _huggingface(path, options, records, name)
    raise TargetError(
        f"There is no classifier at {path!r}." if not place.exists() else f"{path!r} is no classifier by itself.",
        expected="package.module:function, a Hugging Face folder or hub id (owner/name), or a .skops file",
        hint="weights alone are no model: name the function that builds it, and them with --weights"
        if place.suffix == ".safetensors"
        else "check the path",
    )


def wrap_classifier(
    model: Any,
    *,
    records: Records | None = None,
    options: ClassifierOptions | None = None,
    tokenizer: Any = None,
    name: str = "target",
) -> Classifier:
    """A live module, Hugging Face model, estimator (predict_proba) or function as a target. It is not changed.

    records: some of those that it will be asked about: images, texts with a class, or rows decide what it is given.
    Modules get tensors and answer with logits; functions get numpy arrays or lists of strings, and options.answer says
    what they answer with. Raises TargetError.
    """
    options = options or ClassifierOptions()
    first = records.contents[0] if records is not None and len(records) else None
    if isinstance(model, Classifier):
        return model
    if isinstance(first, Node) and not isinstance(model, torch.nn.Module):
        raise TargetError(
            "Nodes of a graph are asked of torch modules only.",
            expected="a module called as (x, edge_index) or (x, edge_index, edge_weight)",
            found=type(model).__name__,
        )
    if isinstance(model, torch.nn.Module):
        found = _of_module(model, first, options, tokenizer, name)
    elif not isinstance(model, type) and (hasattr(model, "predict_proba") or _could_predict(model)):
        found = _of_estimator(model, first, options, name)
    elif callable(model) and not isinstance(model, type):
        if not options.answer:
            raise TargetError(
                "What the function answers with was not said.",
                expected=", ".join(get_args(Answer)),
                hint="say it with answer=… (--answer)",
            )
        reader = _reader(first, options)
        found = Classifier(FunctionForward(model), reader, answer=cast(Answer, options.answer), name=name)
        found.identity = uuid.uuid4().hex  # two functions cannot be told apart by looking at them
    else:
        raise TargetError(
            "This is no classifier.",
            expected="a torch module, an estimator with predict_proba, or a function",
            found=model.__name__ + " (a class: make one of it)" if isinstance(model, type) else type(model).__name__,
        )
    found.classes = found.classes or options.classes
    found.batch = found.batch if found.reader.kind == "node" else options.batch  # a whole graph answers at once
    found.random = options.random
    return replace(found)  # checks the classes


def _could_predict(model: Any) -> bool:
    return hasattr(model, "predict") and hasattr(model, "fit")


def _of_module(
    module: torch.nn.Module, first: Content | None, options: ClassifierOptions, tokenizer: Any, name: str
) -> Classifier:
    answer = cast(Answer, options.answer or "logits")
    config = getattr(module, "config", None)
    stated = str(config.to_json_string()) if config is not None and hasattr(config, "to_json_string") else ""
    kind = f"{type(module).__module__}.{type(module).__qualname__} {stated}"
    classes = options.classes or _named_by(config)
    if isinstance(first, Example) or (first is None and tokenizer is not None):
        if tokenizer is None:
            raise TargetError(
                "The module came without a tokenizer.",
                expected="the tokenizer it was trained with",
                hint="a module that takes texts themselves: wrap it in a function, and say what it answers with",
            )
        forward = TextForward(module, tokenizer, _limit(module, tokenizer), _knows_padding(config, tokenizer))
        state = blake2b(tokenizer_state(tokenizer).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        reader = Texts(f"{state} {forward.limit}")
        return Classifier(forward, reader, classes, answer, module, kind, name)
    if isinstance(first, Node):
        nodes = NodeReader(first.graph.features.shape[1], options.hops, options.neighbours)
        return Classifier(NodeForward(module), nodes, classes, answer, module, kind, name, batch=2**20)
    size, channels = getattr(config, "image_size", 0), getattr(config, "num_channels", 0)
    given = replace(
        options,
        pixels=options.pixels or (size if isinstance(size, int) else 0),
        channels=options.channels or (channels if channels in (1, 3) else 0),
    )
    numbers = _reader(first, given)
    return Classifier(ModuleForward(module, numbers), numbers, classes, answer, module, kind, name)


def _of_estimator(model: Any, first: Content | None, options: ClassifierOptions, name: str) -> Classifier:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    answer = cast(Answer, options.answer or "probabilities")
    if answer == "logits" or (answer != "label" and not hasattr(model, "predict_proba")):
        raise TargetError(
            f"{type(model).__name__} does not tell probabilities.",
            expected="an estimator with predict_proba",
            hint="fit one that does, or ask for labels alone (--answer label)",
        )
    if isinstance(first, Picture):
        raise TargetError(
            "An estimator takes rows of numbers, and the records are images.",
            hint="wrap it in a function that turns (record, channel, height, width) in [0, 1] into its rows",
        )
    own = getattr(model, "classes_", None)
    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise TargetError(
            f"{type(model).__name__} is not fitted.", expected="a fitted estimator", hint="call its fit first"
        ) from error
    except TypeError:
        pass  # of another library than scikit-learn
    if isinstance(own, list) and any(np.ndim(one) for one in own):
        raise TargetError(f"{type(model).__name__} predicts several things at once.", expected="one class a record")
    names = tuple(class_name(one) for one in np.asarray(own).tolist()) if own is not None else ()
    unknown = [one for one in names if options.classes and one not in options.classes]
    if unknown:
        raise TargetError(
            "The estimator has classes that were not named.",
            expected=", ".join(options.classes[:8]),
            found=", ".join(one[:30] for one in unknown[:5]),
        )
    classes = options.classes or names
    places = tuple(classes.index(one) for one in names) if names != classes else ()
    features = getattr(model, "n_features_in_", None)
    reader = _reader(first, options) if first is not None or not features else Rows(int(features))
    if isinstance(reader, Rows) and features and int(features) != reader.features:
        raise TargetError(
            "The records have another number of features than the estimator.",
            expected=str(features),
            found=str(reader.features),
            hint="leave out columns that it does not take",
        )
    forward = EstimatorForward(model, places, len(classes), label=answer == "label")
    return Classifier(forward, reader, classes, answer, identity=_hash_of(model), name=name)


def _hash_of(model: Any) -> str:
    import joblib  # type: ignore[import-untyped]

    try:
        return f"{type(model).__module__}.{type(model).__qualname__} {joblib.hash(model)}"
    except Exception:  # noqa: BLE001 — what cannot be hashed is never taken for the same
        return uuid.uuid4().hex


def _reader(first: Content | None, options: ClassifierOptions) -> Reader:
    match first:
        case TableRow(values, _):
            return Rows(len(values))
        case Example():
            return Texts()
        case Picture():
            facts = first.facts
            if not options.pixels and facts.width != facts.height:
                raise TargetError(
                    "The size of the model's images is not known: the first record is not square.",
                    expected="square images, or the side that the model takes",
                    found=f"{facts.width} x {facts.height}",
                    hint="say it with pixels=… (--pixels)",
                )
            size, channels = options.pixels or facts.width, options.channels or (1 if facts.channels == 1 else 3)
        case None if options.pixels and options.channels:
            size, channels = options.pixels, options.channels
        case None:
            raise TargetError(
                "What the classifier takes is not known.",
                expected="some of the records, or the side and channels of images",
                hint="give records=…",
            )
        case _:
            raise TargetError(
                "The records name no classes.",
                expected="images, texts or rows with a class",
                found=type(first).__name__,
                hint="name the field of the class with --class-field",
            )
    resize: Resize = "crop" if options.resize == "auto" else options.resize
    return Images(channels, size, options.mean, options.std, resize, options.edge)


def reading(reader: Reader) -> dict[str, Any]:
    """Options with which another model reads the same records as this one does."""
    if isinstance(reader, Images):
        names = {"pixels": "size", **{one: one for one in ("channels", "mean", "std", "resize", "edge")}}
        return {name: getattr(reader, field) for name, field in names.items()}
    return {name: getattr(reader, name) for name in ("hops", "neighbours")} if isinstance(reader, NodeReader) else {}


def _named_by(config: Any) -> tuple[str, ...]:
    """Classes of a Hugging Face config; none where they are the numbers that it makes up itself."""
    named = getattr(config, "id2label", None)
    if not isinstance(named, dict) or sorted(map(int, named)) != list(range(len(named))):
        return ()
    names = tuple(str(one) for _, one in sorted((int(at), one) for at, one in named.items()))
    return tuple(map(str, range(len(names)))) if names == tuple(f"LABEL_{at}" for at in range(len(names))) else names


def _limit(module: torch.nn.Module, tokenizer: Any) -> int:
    stated = int(min(getattr(tokenizer, "model_max_length", 0) or 10**6, 10**6))
    most = getattr(getattr(module, "config", None), "max_position_embeddings", None)
    limits = [stated, most if isinstance(most, int) and most > 0 else 10**6]
    for name, one in module.named_modules():  # RoBERTa counts positions from its padding token's number
        if name.endswith("position_embeddings") and isinstance(one, torch.nn.Embedding) and one.padding_idx is not None:
            limits.append(one.num_embeddings - one.padding_idx - 1)
    found = min(limits)
    return found if found < 10**6 else 512


def _knows_padding(config: Any, tokenizer: Any) -> bool:
    pad = getattr(tokenizer, "pad_token_id", None)
    return pad is not None and getattr(config, "pad_token_id", None) == pad


def _huggingface(path: str, options: ClassifierOptions, records: Records | None, name: str) -> Classifier:
    _no_weights(options)
    loaded = load_huggingface(path, DTYPES.get(options.dtype, torch.float32), options.revision)
    loaded.module.to(_device(options))
    own = loaded.pixels
    if own is not None and loaded.tokenizer is None:
        options = replace(
            options,
            pixels=options.pixels or own.size,
            channels=options.channels or own.channels,
            mean=options.mean or own.mean,
            std=options.std or own.std,
            resize=own.resize if options.resize == "auto" else options.resize,
            edge=options.edge or (own.edge if options.pixels in (0, own.size) else 0),
        )
    found = wrap_classifier(loaded.module, records=records, options=options, tokenizer=loaded.tokenizer, name=name)
    wanted = "text" if loaded.tokenizer is not None else "image"
    if found.reader.kind != wanted:
        raise TargetError(
            "The classifier takes records of another kind.", expected=f"{wanted}s with a class", found=found.reader.kind
        )
    return found


def _built(path: str, options: ClassifierOptions, records: Records | None, name: str) -> Classifier:
    module, _, function = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        build = getattr(importlib.import_module(module), function)
    except Exception as error:
        raise TargetError(
            f"The function {path!r} cannot be imported.",
            expected="package.module:function, installed or in the working directory",
            found=f"{type(error).__name__}: {error}"[:300],
        ) from error
    try:
        model = build()
    except TargetError:
        raise
    except Exception as error:
        raise TargetError(
            f"{path!r} raised an error.",
            expected="a function without arguments that returns a classifier",
            found=f"{type(error).__name__}: {error}"[:300],
        ) from error
    if model is None:
        raise TargetError(
            f"{path!r} returned nothing.",
            expected="a torch module, an estimator, a function or a Classifier",
            hint="return the model at the end",
        )
    if isinstance(model, torch.nn.Module):
        if options.weights:
            fill(model, Path(options.weights))
        model.eval().requires_grad_(False).to(_device(options))
        if options.dtype != "auto":
            model.to(DTYPES[options.dtype])
    else:
        _no_weights(options)
    return wrap_classifier(model, records=records, options=options, name=name)


def _no_weights(options: ClassifierOptions) -> None:
    if options.weights:
        raise TargetError(
            "Weights were given for what is no module built by a function.",
            expected="package.module:function that returns a torch module",
            hint="leave --weights out",
        )


def _device(options: ClassifierOptions) -> str:
    return options.device or ("cuda" if torch.cuda.is_available() else "cpu")
