"""Measure how much a machine-learning model gives away about its training data.

    import repromia

    target = repromia.language_model(model, tokenizer)            # or a folder: language_model("./finetuned")
    records = repromia.load_records(members=train, nonmembers=heldout)  # lists of texts, or file names
    result = repromia.audit(target, records, out="audit/")
    result.findings[0].sentence

Everything is imported when it is used: `import repromia` loads neither torch nor scikit-learn.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from repromia._version import __version__

if TYPE_CHECKING:
    from repromia.programs import Target
    from repromia.records import LabelledRecords
    from repromia.result import AuditResult
    from repromia.targets.classifier import Classifier
    from repromia.targets.diffusion import DiffusionModel
    from repromia.targets.endpoint import EndpointModel
    from repromia.targets.language import LanguageModel
    from repromia.views import ShadowModels

__all__ = [
    "__version__",
    "audit",
    "classifier",
    "defended",
    "diffusion_model",
    "endpoint_model",
    "language_model",
    "load_nodes",
    "load_records",
    "read_audit",
    "save_graph",
    "shadow_models",
]


def language_model(model: Any, tokenizer: Any = None, **options: Any) -> LanguageModel:
    """A causal language model as a target.

    model: a folder, a hub id, or a live transformers (or PEFT) model with its tokenizer. options: fields of
    `repromia.targets.load.LoadOptions`. Raises TargetError.
    """
    from repromia.targets.load import LoadOptions, load_language_model, wrap_language_model

    if isinstance(model, str | Path):
        return load_language_model(str(model), LoadOptions(**options))
    return wrap_language_model(model, tokenizer, options=LoadOptions(**options))


def diffusion_model(pipeline: Any, **options: Any) -> DiffusionModel:
    """A diffusion model as a target.

    pipeline: a folder, a hub id, or a live diffusers pipeline. options: fields of
    `repromia.targets.pipelines.DiffusionOptions`. For a network of your own see
    `repromia.targets.pipelines.wrap_callable`. Raises TargetError.
    """
    from repromia.targets.pipelines import DiffusionOptions, load_diffusion_model, wrap_pipeline

    if isinstance(pipeline, str | Path):
        return load_diffusion_model(str(pipeline), DiffusionOptions(**options))
    return wrap_pipeline(pipeline, options=DiffusionOptions(**options))


def classifier(
    model: Any, records: LabelledRecords | None = None, *, tokenizer: Any = None, **options: Any
) -> Classifier:
    """A classifier as a target.

    model: `package.module:build`, a Hugging Face folder or hub id, a .skops file; or a live torch module (of nodes
    of a graph too: called as (x, edge_index)), Hugging Face
    model (texts: with its tokenizer), estimator with predict_proba, or function. records: some of those that it will
    be asked about. options: fields of `repromia.targets.classifier_options.ClassifierOptions`. Raises TargetError.
    """
    from repromia.targets.classifier_loading import load_classifier
    from repromia.targets.classifier_options import ClassifierOptions
    from repromia.targets.classifiers import wrap_classifier

    some = None if records is None else records.records.take([0])
    if isinstance(model, str | Path):
        return load_classifier(str(model), ClassifierOptions(**options), some)
    return wrap_classifier(model, records=some, options=ClassifierOptions(**options), tokenizer=tokenizer)


def defended(target: Any, *defences: str) -> Any:
    """The target behind defences such as "temperature:t=5" or "rounding:digits=2", the first nearest to the model.

    A target of the same kind; give an audit's references the same defences (shadow models get the target's by
    themselves). What exists: `repromia.defences`. Raises ConfigError.
    """
    from repromia.targets.defended import defended as behind

    return behind(target, defences)


def shadow_models(
    train: Any, target: Classifier, records: LabelledRecords, *, count: int = 16, **options: Any
) -> ShadowModels:
    """Shadow models that an audit of `target` trains: train(records, seed) -> model, or its `package.module:name`.

    Of images they are given the same size, channels and scaling as the target.

    options: fields of `repromia.shadows.TrainedShadows`, as seed and cluster ("local", "ray", "ray://host:port").
    """
    from functools import partial

    from repromia.shadows import TrainedShadows, classes_of
    from repromia.targets.classifier_options import ClassifierOptions
    from repromia.targets.classifiers import reading, wrap_classifier
    from repromia.targets.defended import behind_the_same

    classes = classes_of(target, records.records)
    like = ClassifierOptions(classes=classes, **reading(target.reader))
    wrap = partial(wrap_classifier, records=records.records.take([0]), options=like, name="shadow model")
    return TrainedShadows(train, behind_the_same(wrap, target), count, classes=classes, **options)


def endpoint_model(url: str, model: str, **options: Any) -> EndpointModel:
    """A model behind an OpenAI-compatible completions endpoint that returns log-probabilities of given text.

    options: other fields of `repromia.targets.endpoint.EndpointOptions`. Raises TargetError.
    """
    from repromia.targets.endpoint import EndpointModel
    from repromia.targets.endpoint_client import EndpointOptions

    return EndpointModel(EndpointOptions(url=url, model=model, **options), name=model)


def load_records(
    members: object,
    nonmembers: object,
    *,
    text: str | None = None,
    group: str | None = None,
    image: str | None = None,
    caption: str | None = None,
    class_field: str | None = None,
) -> LabelledRecords:
    """Records of known membership: texts, chats, prompt-completion pairs, images or rows, from files or lists.

    text, image, caption, group, class_field (of classifiers; pairs (X, y) of arrays need none): names of fields, where
    they are not found by themselves. Raises RecordsError.
    """
    from repromia.pictures import holds_pictures, pictures_from_objects, read_pictures
    from repromia.readers import from_objects, read_members

    if class_field is not None or isinstance(members, tuple):
        from repromia.class_records import class_records_from_objects, read_class_records

        named = class_field or "class"
        if isinstance(members, str | Path) and isinstance(nonmembers, str | Path):
            return read_class_records(members, nonmembers, class_field=named, text=text, group=group)
        return class_records_from_objects(members, nonmembers, class_field=named, text=text, group=group)
    pictures = bool(image) or (text is None and holds_pictures(members))
    if isinstance(members, str | Path) and isinstance(nonmembers, str | Path):
        if pictures:
            return read_pictures(members, nonmembers, image=image, caption=caption, group=group)
        return read_members(members, nonmembers, text=text, group=group)
    if pictures:
        return pictures_from_objects(members, nonmembers, image=image, caption=caption, group=group)
    return from_objects(members, nonmembers, text=text, group=group)


def load_nodes(graph: Any, members: Any, nonmembers: Any) -> LabelledRecords:
    """Nodes of known membership, of a model that classifies the nodes of one graph.

    graph: a file (.npz, .safetensors, a folder of Planetoid files), `pyg:Amazon:root=data:name=Photo` for a dataset
    of torch_geometric, or its Data. members, nonmembers: the name of a mask of the graph, node numbers, a boolean array
    (node,); of a graph in a file also a file of these. Raises RecordsError.
    """
    from repromia.graph_records import node_records, read_node_records

    if isinstance(graph, str | Path) and isinstance(members, str | Path) and isinstance(nonmembers, str | Path):
        return read_node_records(graph, members, nonmembers)
    if isinstance(graph, str | Path):
        from repromia.graph_datasets import read_named

        graph = read_named(graph)
    return node_records(graph, members, nonmembers)


def save_graph(data: Any, path: str | Path) -> None:
    """Write torch_geometric's Data to .npz or .safetensors, which `--graph` reads. Raises RecordsError."""
    from repromia.graph_files import save_graph as save

    save(data, path)


def audit(
    target: Target,
    records: LabelledRecords,
    *,
    reference: Target | None = None,
    null_reference: Target | None = None,
    shadows: ShadowModels | None = None,
    out: str | Path | None = None,
    cluster: str = "local",
    **settings: Any,
) -> AuditResult:
    """Audit a target against records of known membership.

    reference: a model that did not see the records; an adapter's base is used by itself. shadows: of a classifier
    (see `shadow_models`). cluster: who asks the models: local, ray or ray://host:port. settings: fields of
    `repromia.config.Settings` (attacks, seed, fprs, …). With `out`, files are written as by the command line and
    an interrupted audit goes on where it stopped. Raises RepromiaError.
    """
    from pydantic import ValidationError

    from repromia.config import Settings, flags_said
    from repromia.errors import ConfigError
    from repromia.run import audit_objects

    _check_objects(records, target=target, reference=reference, null_reference=null_reference)
    try:
        checked = Settings(**settings)
    except ValidationError as error:
        raise ConfigError(
            "The settings of the audit do not fit.",
            expected=f"some of {', '.join(Settings.model_fields)}",
            found=flags_said(error).replace("--", ""),
            hint="help(repromia.config.Settings) says what each takes",
        ) from error
    return audit_objects(
        target,
        records,
        reference=reference,
        null_reference=null_reference,
        settings=checked,
        out=out,
        shadows=shadows,
        cluster=cluster,
    )


def _check_objects(records: object, **models: object) -> None:
    from repromia.errors import ConfigError
    from repromia.records import LabelledRecords

    for name, one in models.items():
        if not (hasattr(one, "modality") and hasattr(one, "fingerprint")) and (one is not None or name == "target"):
            raise ConfigError(
                f"The {name} is no model that can be asked.",
                expected="what repromia.language_model, diffusion_model, classifier or endpoint_model returns",
                found=type(one).__name__,
                hint=f'repromia.language_model("path") loads one: {name}=language_model(…)',
            )
    if not isinstance(records, LabelledRecords):
        raise ConfigError(
            "The records do not say who is a member.",
            expected="what load_records or load_nodes returns",
            found=type(records).__name__,
            hint="repromia.load_records(members, nonmembers) takes paths or lists",
        )


def read_audit(folder: str | Path) -> AuditResult:
    """A finished audit as `audit` returned it: `.table()`, `.roc()`, `.plot()`, `.findings`. Raises StoreError."""
    from repromia.folders import read_audit as read

    return read(folder)
