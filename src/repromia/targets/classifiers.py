"""Live torch modules, Hugging Face models, estimators and functions as classifiers."""

from __future__ import annotations

import re
import uuid
from dataclasses import replace
from hashlib import blake2b
from typing import Any, cast, get_args

import numpy as np
import torch

from repromia.class_records import class_name
from repromia.errors import TargetError
from repromia.own_code import code_behind
from repromia.readers import shown_names
from repromia.records import Content, Example, Node, Picture, Records, TableRow
from repromia.targets.class_answers import Answer
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_forwards import EstimatorForward, FunctionForward, ModuleForward, TextForward
from repromia.targets.classifier_options import ClassifierOptions
from repromia.targets.fingerprint import tokenizer_state
from repromia.targets.inputs import Images, Reader, Rows, Texts
from repromia.targets.nodes import NodeForward, NodeReader
from repromia.targets.pixels import Resize

_NUMBERED = re.compile(r"(Column_|f)?\d+")  # what LightGBM and its like call the columns of arrays


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
    order, framed = _columns_of(model, first)
    features = getattr(model, "n_features_in_", None)
    reader = _reader(first, options) if first is not None or not features else Rows(int(features))
    if isinstance(reader, Rows) and features and int(features) != reader.features:
        raise TargetError(
            "The records have another number of features than the estimator.",
            expected=str(features),
            found=str(reader.features),
            hint="leave out columns that it does not take",
        )
    forward = EstimatorForward(model, places, len(classes), answer == "label", order, framed)
    return Classifier(forward, reader, classes, answer, identity=f"{_hash_of(model)} {order}", name=name)


def _columns_of(model: Any, first: Content | None) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Where the features that an estimator was fitted on stand in a record, if elsewhere, and their names, if it takes
    them from a data frame. Raises TargetError for records of other features."""
    from sklearn.compose import ColumnTransformer

    fitted = tuple(map(str, getattr(model, "feature_names_in_", ())))
    if not fitted or not isinstance(first, TableRow | None):
        return (), ()
    given = first.names if first is not None and first.names else fitted  # nameless numbers: in its order
    missing, other = (sorted(set(one) - set(two)) for one, two in ((fitted, given), (given, fitted)))
    if (missing or other) and all(map(_NUMBERED.fullmatch, fitted)):  # fitted on an array by another library
        return (), ()
    if missing or other:
        raise TargetError(
            "The records have other features than the estimator was fitted on.",
            expected=shown_names(fitted),
            found="; ".join(f"{what} {shown_names(one)}" for what, one in (("not", missing), ("also", other)) if one),
            hint="rename the fields, and leave out those that it does not take",
        )
    order = tuple(map(given.index, fitted)) if given != fitted else ()
    steps: list[Any] = list(getattr(model, "get_params", dict)().values())
    return order, fitted if any(isinstance(one, ColumnTransformer) for one in steps) else ()


def _hash_of(model: Any) -> str:
    import joblib  # type: ignore[import-untyped]

    try:
        steps = map(type, (model, *getattr(model, "get_params", dict)().values()))
        return f"{type(model).__module__}.{type(model).__qualname__} {joblib.hash(model)} {code_behind(steps)}"
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
    return Images(channels, size, options.mean, options.std, resize, options.edge, options.flip)


def reading(reader: Reader) -> dict[str, Any]:
    """Options with which another model reads the same records as this one does."""
    if isinstance(reader, Images):
        names = {"pixels": "size", **{one: one for one in ("channels", "mean", "std", "resize", "edge", "flip")}}
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
