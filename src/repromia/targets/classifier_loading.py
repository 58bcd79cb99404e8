"""Classifiers from files, hubs and functions that build them."""

from __future__ import annotations

import importlib
import os
import re
import sys
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import torch

from repromia.errors import TargetError
from repromia.own_code import code_named
from repromia.records import Records
from repromia.targets.classifier import Classifier
from repromia.targets.classifier_files import fill, load_estimator, load_huggingface, refuse_pickle
from repromia.targets.classifier_options import DTYPES, ClassifierOptions
from repromia.targets.classifiers import wrap_classifier
from repromia.targets.devices import device_named

_BUILD = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_HUB = re.compile(r"[\w.-]+/[\w.-]+")


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
        order = getattr(found.forward, "order", ())
        found.identity = f"skops {blake2b(place.read_bytes(), digest_size=16).hexdigest()} {order}"
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


def _huggingface(path: str, options: ClassifierOptions, records: Records | None, name: str) -> Classifier:
    _no_weights(options)
    loaded = load_huggingface(path, DTYPES.get(options.dtype, torch.float32), options.revision)
    loaded.module.to(device_named(options.device))
    own = loaded.pixels
    if own is not None and loaded.tokenizer is None:
        options = replace(
            options,
            pixels=options.pixels or own.size,
            channels=options.channels or own.channels,
            mean=options.mean or own.mean,
            std=options.std or own.std,
            resize=own.resize if options.resize == "auto" else options.resize,
            flip=options.flip or own.flip,
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
        model.eval().requires_grad_(False).to(device_named(options.device))
        if options.dtype != "auto":
            model.to(DTYPES[options.dtype])
    else:
        _no_weights(options)
    found = wrap_classifier(model, records=records, options=options, name=name)
    # what a function builds with, such as a constant handed to the module, shows in its code alone
    return replace(found, identity=f"{found.identity} {code_named(path)}", _fingerprint="")


def _no_weights(options: ClassifierOptions) -> None:
    if options.weights:
        raise TargetError(
            "Weights were given for what is no module built by a function.",
            expected="package.module:function that returns a torch module",
            hint="leave --weights out",
        )
