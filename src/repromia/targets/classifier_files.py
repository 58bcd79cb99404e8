"""Classifiers' files: what is whole is loaded, what is damaged or a pickle is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file

from repromia.errors import TargetError
from repromia.targets.image_settings import FILE, images_read
from repromia.targets.inputs import Images
from repromia.targets.pickles import checkpoint_hint

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib")
# Types of scikit-learn that skops leaves to the caller: trees are checked after loading, the others are plain Python.
_TREE = "sklearn.tree._tree.Tree"
_PLAIN = tuple(f"sklearn.neural_network._stochastic_optimizers.{one}Optimizer" for one in ("Adam", "SGD"))
_VOCABULARY = ("tokenizer.json", "vocab*", "*.model", "*.tiktoken", "merges*")
_IMAGE, _TEXT = "ForImageClassification", "ForSequenceClassification"


class Loaded(NamedTuple):
    """A Hugging Face classifier; of texts with a tokenizer. pixels: how its processor reads images, if it says."""

    module: torch.nn.Module
    tokenizer: Any
    pixels: Images | None


def refuse_pickle(path: str) -> None:
    """Raises TargetError for the name of a pickle."""
    if Path(path).suffix.lower() in PICKLES:
        raise TargetError(
            f"{path!r} is a pickle, which can run anything when it is read, and is never loaded.",
            expected="safetensors (torch) or skops (scikit-learn)",
            hint="safetensors.torch.save_file(model.state_dict(), path), or skops.io.dump(estimator, path)",
        )


def fill(module: torch.nn.Module, path: Path) -> None:
    """Loads all weights of a module, and no others. Raises TargetError.

    The count of batches that batch normalisation keeps may be missing, as in files of old versions: no answer depends
    on it.
    """
    refuse_pickle(str(path))
    try:
        stored = load_file(path)
    except Exception as error:
        raise TargetError(
            f"The weights {str(path)!r} cannot be read.",
            expected="an undamaged safetensors file",
            found=_first_line(error),
        ) from error
    state = module.state_dict()
    same = {(one.data_ptr(), one.shape, one.stride()) for name, one in state.items() if name in stored}
    missing = [
        name
        for name, one in state.items()
        if name not in stored and ((one.data_ptr(), one.shape, one.stride()) not in same or not one.numel())
    ]  # tied weights are stored once
    missing = [name for name in missing if name.rpartition(".")[2] != "num_batches_tracked"]
    unexpected = sorted(set(stored) - set(state))
    shapes = [
        f"{name} {tuple(stored[name].shape)} for {tuple(one.shape)}"
        for name, one in state.items()
        if name in stored and stored[name].shape != one.shape
    ]
    if missing or unexpected or shapes:
        parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        raise TargetError(
            f"The weights {str(path)!r} do not belong to {type(module).__name__}.",
            expected="a weight for every parameter and buffer",
            found="; ".join(f"{len(one)} {what}: {', '.join(one[:3])}" for what, one in parts if one),
            hint="build the module that they were trained in",
        )
    module.load_state_dict(stored, strict=False)  # compared above, tied weights allowed for


def load_estimator(path: Path) -> Any:
    """The estimator in a .skops file, if it holds nothing but types that are known to be safe. Raises TargetError."""
    try:
        import skops.io as skops
    except ImportError as error:
        raise TargetError(
            f"Reading {str(path)!r} needs the package skops.", hint="pip install repromia[classifier]"
        ) from error
    try:
        untrusted = sorted(set(skops.get_untrusted_types(file=path)) - {_TREE, *_PLAIN})
        if not untrusted:
            found = skops.load(path, trusted=[_TREE, *_PLAIN])
            _check_trees(found, 0, set())
            return found
    except Exception as error:
        raise TargetError(
            f"{str(path)!r} cannot be read.",
            expected="an undamaged file written by skops.io.dump",
            found=_first_line(error),
        ) from error
    raise TargetError(
        f"{str(path)!r} holds types that may run anything when they are read.",
        expected="types of scikit-learn, numpy and scipy",
        found=", ".join(untrusted[:5]) + (", …" if len(untrusted) > 5 else ""),
        hint="load it yourself and give it to wrap_classifier, or name a function that returns it",
    )


def _check_trees(held: Any, features: int, seen: set[int]) -> None:
    """Raises ValueError for a tree whose links leave it or lead back: scikit-learn follows them unchecked.

    features: of the estimator that holds it.
    """
    if id(held) in seen or isinstance(held, str | bytes | int | float | None):
        return
    seen.add(id(held))
    if f"{type(held).__module__}.{type(held).__qualname__}" == _TREE:
        count = held.node_count
        if not 0 < count <= held.capacity:
            raise ValueError("a damaged decision tree")
        left, right, feature = (getattr(held, one)[:count] for one in ("children_left", "children_right", "feature"))
        inner, here = left != -1, np.arange(count)
        whole = all(((one > here) & (one < count))[inner].all() for one in (left, right))
        if not whole or not ((feature >= 0) & (feature < features))[inner].all():
            raise ValueError("a damaged decision tree")
    elif isinstance(held, np.ndarray):
        for one in held.ravel() if held.dtype == object else ():
            _check_trees(one, features, seen)
    else:
        parts = held.values() if isinstance(held, dict) else held if isinstance(held, list | tuple | set) else ()
        for one in (*parts, *getattr(held, "__dict__", {}).values()):
            _check_trees(one, int(getattr(held, "n_features_in_", features)), seen)


def load_huggingface(path: str, dtype: torch.dtype, revision: str = "") -> Loaded:
    """A model for image or text classification; only safetensors, and no code of others. Raises TargetError."""
    from transformers import (
        AutoConfig,
        AutoModelForImageClassification,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    from repromia.targets.load import quiet

    given: dict[str, Any] = {"local_files_only": Path(path).exists(), "trust_remote_code": False}
    given |= {"revision": revision} if revision else {}
    with quiet():
        try:
            config = AutoConfig.from_pretrained(path, **given)
            stated = " ".join(getattr(config, "architectures", None) or ())
            if _IMAGE not in stated and _TEXT not in stated:
                raise TargetError(
                    f"{path!r} is no classifier.",
                    expected=f"architectures of config.json: *{_IMAGE} or *{_TEXT}",
                    found=stated or "nothing",
                )
            kind = AutoModelForImageClassification if _IMAGE in stated else AutoModelForSequenceClassification
            model, info = kind.from_pretrained(
                path, dtype=dtype, use_safetensors=True, output_loading_info=True, **given
            )
            tokenizer = AutoTokenizer.from_pretrained(path, **given) if _IMAGE not in stated else None
            _check_vocabulary(path, tokenizer)
            pixels = _pixels(path, config, revision) if _IMAGE in stated else None
        except TargetError:
            raise
        except Exception as error:  # damaged files make libraries raise anything
            raise TargetError(
                f"The classifier {path!r} cannot be loaded.",
                expected="config.json, undamaged *.safetensors and, for texts, a tokenizer",
                found=_first_line(error),
                hint=checkpoint_hint(path, "copy the files again, or name the folder that save_pretrained wrote"),
            ) from error
    missing = sorted({*info.get("missing_keys", ()), *map(str, info.get("mismatched_keys", ()))})
    if missing:
        raise TargetError(
            f"The checkpoint {path!r} does not fill the model: the rest would be random numbers.",
            expected="a weight for every parameter",
            found=f"{len(missing)} missing or of another shape: {missing[:3]}",
            hint="save the checkpoint again, or name the right folder",
        )
    return Loaded(model.eval().requires_grad_(False), tokenizer, pixels)


def _check_vocabulary(path: str, tokenizer: Any) -> None:
    # transformers makes an empty tokenizer where the files are missing: every word would be unknown
    if not Path(path).is_dir() or not getattr(tokenizer, "vocab_files_names", None):
        return
    if not any(True for one in _VOCABULARY for _ in Path(path).glob(one)):
        raise TargetError(
            f"The tokenizer of {path!r} is missing.",
            expected="tokenizer.json beside the weights",
            hint="save it with tokenizer.save_pretrained(folder)",
        )


def _pixels(path: str, config: Any, revision: str) -> Images | None:
    """What preprocessor_config.json does to images: its library is not needed for that."""
    from transformers.utils import cached_file

    found = cached_file(
        path,
        FILE,
        local_files_only=Path(path).exists(),
        revision=revision or None,
        _raise_exceptions_for_missing_entries=False,
    )
    if found is None:
        return None
    return images_read(json.loads(Path(found).read_text(encoding="utf-8")), getattr(config, "num_channels", 3))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"
