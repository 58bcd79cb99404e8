"""Models, loaded as the configuration names them: target, references, shadow models, and how workers load their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repromia.config import AuditConfig
from repromia.errors import ConfigError
from repromia.own_code import code_named
from repromia.progress import Progress
from repromia.records import LabelledRecords, Picture, Records
from repromia.sources import modality_of

if TYPE_CHECKING:
    from repromia.parts import Workers
    from repromia.programs import Target
    from repromia.targets.classifier import Classifier
    from repromia.targets.classifier_options import ClassifierOptions
    from repromia.views import ShadowModels


def load_models(
    config: AuditConfig, labelled: LabelledRecords, progress: Progress
) -> tuple[Target, Target | None, Target | None]:
    """Target, reference (an adapter brings its own) and second reference. Raises RepromiaError."""
    if config.null_reference and config.endpoint and not config.reference:
        raise _second_without_first()
    if config.endpoint:
        return _endpoint_models(config)
    load = partial(load_model, config, modality_of(config, labelled), labelled.records)
    with progress.step("loading models", 3) as bar:
        target = load(config.model)
        bar.advance()
        reference = load(config.reference) if config.reference else None
        if reference is None and target.has_adapter:
            reference = target.base()
        bar.advance()
        second = load(config.null_reference) if config.null_reference else None
        bar.advance()
    if second is not None and reference is None:
        raise _second_without_first()
    return target, reference, second


def _second_without_first() -> ConfigError:
    return ConfigError("--null-reference is a second reference.", hint="name the first one with --reference")


def load_model(config: AuditConfig, modality: str, records: Records, path: str) -> Any:
    """One model of the audit, behind the target's defences. records: some, which say what it takes."""
    return _behind_defences(_loader(config, modality, records), config)(path)


def workers_of(
    config: AuditConfig, models: tuple[Target, Target | None, Target | None], labelled: LabelledRecords
) -> Workers:
    """Who asks the models: workers load folders, hub ids and files by themselves; what a function builds is sent."""
    from repromia.parts import Workers

    whole = config.model_copy(update={"base": _anywhere(config.base)})
    load = partial(load_model, whole, modality_of(config, labelled), labelled.records.take([0]))
    named = (config.model, config.reference, config.null_reference)
    given = [(one, path) for one, path in zip(models, named, strict=True) if one is not None]
    loaders: dict[str, Callable[[], Target]] = {
        one.fingerprint: partial(load, _anywhere(path)) if path else partial(_base_of, load, _anywhere(config.model))
        for one, path in given
        if ":" not in path
    }
    return Workers(config.cluster, loaders)


def _anywhere(path: str) -> str:
    """A file's or folder's whole path, which other working folders understand; of a hub its name."""
    return str(Path(path).absolute()) if path and Path(path).exists() else path


def _base_of(load: Callable[[str], Any], path: str) -> Any:
    return load(path).base()


def _behind_defences(load: Callable[[str], Any], config: AuditConfig) -> Callable[[str], Any]:
    """Every model of the audit is asked through the defences of the target: whoever knows them would do so too."""
    if not config.defence:
        return load
    from repromia.defences import parse_defence
    from repromia.targets.defended import defended

    for one in config.defence:
        parse_defence(one)  # before anything is loaded
    return lambda path: defended(load(path), config.defence)


def _loader(config: AuditConfig, modality: str, records: Records) -> Callable[[str], Any]:
    if modality in ("classifier", "graph"):
        from repromia.targets.classifier_loading import load_classifier

        _check_scaling(config, records)
        return lambda path: load_classifier(path, _classifier_options(config), records)
    if modality == "diffusion":
        from repromia.targets.pipelines import DiffusionOptions, load_diffusion_model

        names = DiffusionOptions.__dataclass_fields__.keys() - {"batch"}
        given = {name: getattr(config, name) for name in names}
        given["resize"] = "crop" if config.resize == "auto" else config.resize
        pictures = DiffusionOptions(**given, batch=config.batch_images)
        return lambda path: load_diffusion_model(path, pictures)
    from repromia.targets.load import LoadOptions, load_language_model

    if (Path(config.model) / "model_index.json").is_file():
        raise ConfigError(
            f"{config.model!r} is a diffusion pipeline, and the records are text.",
            expected="images: folders, .npz, or a table with an image column",
            hint="name the field that holds the image with --image",
        )
    options = LoadOptions(**{name: getattr(config, name) for name in LoadOptions.__dataclass_fields__})
    return lambda path: load_language_model(path, options)


def _check_scaling(config: AuditConfig, records: Records) -> None:
    given = [f"--{name}" for name in ("pixels", "channels", "mean", "std") if getattr(config, name)]
    if given and not isinstance(records.contents[0], Picture):
        raise ConfigError(
            f"{', '.join(given)} say how images are read, and the records are none.", hint="leave them out"
        )


def _classifier_options(config: AuditConfig) -> ClassifierOptions:
    from repromia.targets.classifier_options import ClassifierOptions

    return ClassifierOptions(
        classes=config.classes,
        answer=config.answer,
        weights=config.weights,
        device=config.device,
        dtype=config.dtype,
        revision=config.revision,
        batch=config.batch_images,
        resize=config.resize,
        random=config.random_answers,
        pixels=config.pixels,
        channels=config.channels,
        mean=config.mean,
        std=config.std,
        hops=config.hops,
        neighbours=config.neighbours,
    )


def shadow_models(config: AuditConfig, target: Target, records: Records) -> ShadowModels | None:
    """Shadow models as the configuration names them: to be trained, or in a folder."""
    if not config.shadow_training and not config.shadow_folder:
        return None
    from repromia.shadows import TrainedShadows, classes_of
    from repromia.targets.classifier import Classifier
    from repromia.targets.classifiers import reading, wrap_classifier
    from repromia.targets.defended import behind_the_same

    if not isinstance(target, Classifier):
        raise ConfigError("Shadow models are trained for classifiers only.", found=target.modality)
    classes = classes_of(target, records)
    options = replace(_classifier_options(config), classes=classes, weights="", **reading(target.reader))
    one = records.take([0])
    if config.shadow_folder:
        from repromia.function_key import described
        from repromia.shadow_files import SavedShadows

        load = behind_the_same(partial(_load_shadow, model=config.model, options=options, records=one), target)
        key = f"{described(load)} {code_named(config.model)}"  # loaded with the target
        return SavedShadows(Path(config.shadow_folder), load, classes, key)
    alone = partial(wrap_classifier, records=one, options=replace(options, answer=""), name="shadow model")
    wrap = behind_the_same(alone, target)
    return TrainedShadows(config.shadow_training, wrap, config.shadow_models, config.seed, classes, config.cluster)


def _load_shadow(path: Path, *, model: str, options: ClassifierOptions, records: Records) -> Classifier:
    """A shadow of a folder: weights for the module that --model builds, or a whole estimator."""
    from repromia.targets.classifier_loading import load_classifier

    if path.suffix == ".skops":
        return load_classifier(str(path), options, records, name=path.name)
    return load_classifier(model, replace(options, weights=str(path)), records, name=path.name)


def _endpoint_models(config: AuditConfig) -> tuple[Target, Target | None, Target | None]:
    """The same behind an endpoint. Its answers are kept in the run directory, whatever becomes of the run."""
    from repromia.targets.endpoint import EndpointModel
    from repromia.targets.endpoint_answers import Answers
    from repromia.targets.endpoint_client import EndpointOptions

    options = EndpointOptions(
        config.endpoint,
        config.model,
        key_variable=config.endpoint_key,
        begin=config.endpoint_begin,
        check=config.endpoint_check,
        context=config.endpoint_context,
        requests_per_minute=config.requests_per_minute,
        budget_requests=config.request_budget,
    )
    target = EndpointModel(options, f"{config.model} at {config.endpoint}", Answers(config.out / "answers.jsonl"))
    first, second = (target.beside(one) if one else None for one in (config.reference, config.null_reference))
    return target, first, second
