"""What the commands do: read, audit, write, show."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from rich.console import Console

from repromia.config import AuditConfig, Settings
from repromia.errors import ConfigError, RepromiaError
from repromia.progress import EVERYTHING, Progress, Shown, Silent, each, watched
from repromia.records import LabelledRecords, Picture, Records, as_text, without_records
from repromia.result import AuditResult, Estimate, Finding
from repromia.store import Store, saving, write_atomic

if TYPE_CHECKING:
    from rich.table import Table

    from repromia.attacks import Modality
    from repromia.parts import Workers
    from repromia.pipeline import Audit
    from repromia.programs import Target
    from repromia.report import Excerpt
    from repromia.targets.classifier import Classifier
    from repromia.targets.classifiers import ClassifierOptions
    from repromia.views import ShadowModels

EXCERPT = 300


def audit_command(config: AuditConfig, console: Console | None = None, shown: Shown = EVERYTHING) -> int:
    """Run or resume the audit in config.out. 0: all measured; 1: some attack failed."""
    from repromia.terminal import show_result
    from repromia.tracking import check_tracker, track

    check_tracker(shown.tracker)
    result = audit_to_folder(config, watched(quiet=shown.quiet))
    show_result(result, console or Console(), shown, report_path=config.out / "report.html")
    if shown.tracker:
        track(result, config.out)
    return 0 if result.status == "complete" else 1


def audit_to_folder(config: AuditConfig, progress: Progress, unlabelled: Records | None = None) -> AuditResult:
    """The result in config.out: read back when nothing has changed since, made (or finished) otherwise.

    unlabelled: further records, scored in the same way, whose scores are written to unlabelled.parquet.
    """
    skipped: list[str] = []
    with progress.step("reading records", None):
        from repromia.categories import read_categories
        from repromia.cluster import connected
        from repromia.pipeline import run_audit
        from repromia.provenance import audit_key

        labelled = read_records(config, skipped.extend)
        categories = read_categories(config, labelled.records)
    with _unquoted(labelled.records), Store(config.out).locked() as store:
        store.event("start", records=len(labelled), unreadable=len(skipped))
        models = load_models(config, labelled, progress)
        shadows = shadow_models(config, models[0], labelled.records)
        hashed = shadows.key if shadows else ""
        key = audit_key(models[0], models[1:], labelled, config.settings(), hashed, categories, unlabelled)
        finished = _finished(config.out, key)
        if finished is not None:
            store.event("already_finished")
            return finished
        with connected(config.cluster):
            done = run_audit(
                models,
                labelled,
                config.settings(),
                store=store,
                progress=progress,
                key=key,
                shadows=shadows,
                categories=categories,
                unlabelled=unlabelled,
                workers=workers_of(config, models, labelled),
            )
        if skipped:
            shown = ", ".join(skipped[:5]) + (", …" if len(skipped) > 5 else "")
            sentence = f"{len(skipped)} images could not be read and were left out: {shown}."
            missing = Finding(level="warning", code="unreadable", sentence=sentence)
            done.result = done.result.model_copy(update={"findings": (*done.result.findings, missing)})
        source = config.model_dump(mode="json", exclude=set(Settings.model_fields))
        done.result = done.result.model_copy(update={"config": {**source, **done.result.config}})
        with progress.step("writing the report", None):
            write_audit(done, config.out, redact=config.redact)
        store.event("finished", status=done.result.status)
    return done.result


@contextmanager
def _unquoted(records: Records) -> Iterator[None]:
    """Errors without what somebody else's error, told in them, repeats of a record."""
    try:
        yield
    except RepromiaError as error:
        said = without_records(str(error), records)
        if said == str(error):
            raise
        raise type(error)(said) from None
    except Exception as error:
        if without_records(str(error), records) == str(error):
            raise
        at = traceback.extract_tb(error.__traceback__)[-1]
        raise RepromiaError(
            "The audit ended in an error whose message repeats a record.",
            found=f"{type(error).__name__} in {Path(at.filename).name}, line {at.lineno}",
            hint="ask the model about the records by itself to see the whole message",
        ) from None


def read_records(config: AuditConfig, on_skipped: Callable[[Sequence[str]], None] | None = None) -> LabelledRecords:
    """Members and non-members as the configuration names them: pictures where a source holds some, else texts.

    on_skipped: told the names of images that could not be read and were left out (`skip_unreadable`).
    """
    from repromia.pictures import holds_pictures, read_labelled_pictures, read_pictures
    from repromia.readers import read_labelled, read_members

    if config.graph:
        return _read_nodes(config)
    text, group = config.text or None, config.group or None
    named = config.class_field or None
    sources = (config.data,) if config.data else (config.members or "", config.nonmembers or "")
    if config.image or (text is None and any(map(holds_pictures, sources))):
        read = partial(
            read_labelled_pictures if config.data else read_pictures,
            image=config.image or None,
            caption=config.caption or named,
            group=group,
            skip_unreadable=config.skip_unreadable,
            on_skipped=on_skipped,
        )
        return read(config.data, label=config.label) if config.data else read(*sources)
    if named:
        from repromia.class_records import read_class_records, read_labelled_class_records

        if config.data:
            return read_labelled_class_records(
                config.data, label=config.label, class_field=named, text=text, group=group
            )
        return read_class_records(*sources, class_field=named, text=text, group=group)
    if config.data:
        return read_labelled(config.data, label=config.label, text=text, group=group)
    return read_members(config.members or "", config.nonmembers or "", text=text, group=group)


def _read_nodes(config: AuditConfig) -> LabelledRecords:
    from repromia.graph_records import read_labelled_node_records, read_node_records

    if config.label:
        return read_labelled_node_records(config.graph, label=config.label, asymmetric=config.asymmetric)
    sides = str(config.members), str(config.nonmembers)
    return read_node_records(config.graph, *sides, asymmetric=config.asymmetric)


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


def modality_of(config: AuditConfig, labelled: LabelledRecords) -> str:
    """What kind of model is audited: as configured, else as the records tell."""
    if config.modality != "auto":
        return config.modality
    if config.graph:
        return "graph"
    if config.class_field:
        return "classifier"
    return "diffusion" if isinstance(labelled.records.contents[0], Picture) else "language"


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
        from repromia.targets.classifiers import load_classifier

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
    from repromia.targets.classifiers import ClassifierOptions

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
        from repromia.shadow_files import SavedShadows

        load = partial(_load_shadow, model=config.model, options=options, records=one)
        return SavedShadows(Path(config.shadow_folder), behind_the_same(load, target), classes)
    alone = partial(wrap_classifier, records=one, options=replace(options, answer=""), name="shadow model")
    wrap = behind_the_same(alone, target)
    return TrainedShadows(config.shadow_training, wrap, config.shadow_models, config.seed, classes, config.cluster)


def _load_shadow(path: Path, *, model: str, options: ClassifierOptions, records: Records) -> Classifier:
    """A shadow of a folder: weights for the module that --model builds, or a whole estimator."""
    from repromia.targets.classifiers import load_classifier

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


def _second_without_first() -> ConfigError:
    return ConfigError("--null-reference is a second reference.", hint="name the first one with --reference")


def _finished(folder: Path, key: str) -> AuditResult | None:
    try:
        result = AuditResult.model_validate_json((folder / "result.json").read_bytes())
    except (OSError, ValueError):
        return None
    complete = (folder / "report.html").is_file() and (folder / "scores.parquet").is_file()
    return result if result.key == key and complete and result.status == "complete" else None


def write_audit(done: Audit, folder: Path, *, redact: bool) -> None:
    """scores.parquet, programs/, report.html, and result.json last: where it is, the rest is."""
    import numpy as np

    from repromia.programs.saved import save_program
    from repromia.report import RocPoints, Spread, render_html
    from repromia.transfer import save_heads

    learned_on = [at for at, role in enumerate(done.roles) if role != "eval"]
    with saving(folder / "programs"):
        for name, program in done.programs.items():
            save_program(program, folder / "programs" / f"{_file_name(name)}.safetensors")
    with saving(folder / "heads"):
        save_heads(done.heads, done.records.take(learned_on), folder)
    write_atomic(folder / "scores.parquet", _scores_parquet(done))
    if done.unlabelled is not None:
        own = {"id": done.unlabelled.records.ids, "group": done.unlabelled.records.groups}
        write_atomic(folder / "unlabelled.parquet", _parquet({**own, **done.unlabelled.scores}))
    excerpts = {} if redact else _excerpts(done.records, {one.id for one in done.result.exposed})
    curves = {name: RocPoints(curve.fpr, curve.tpr) for name, curve in done.curves.items()}
    known, at_eval = done.scores.get(done.result.headline), np.array([role == "eval" for role in done.roles])
    spread = None if known is None else Spread(known[at_eval & done.member], known[at_eval & ~done.member])
    page = render_html(done.result, curves=curves, excerpts=excerpts, spread=spread)
    write_atomic(folder / "report.html", page.encode())
    write_atomic(folder / "result.json", done.result.model_dump_json(indent=2).encode())


def _scores_parquet(done: Audit) -> bytes:
    known = {"id": done.records.ids, "role": done.roles, "member": done.member, "group": done.records.groups}
    return _parquet({**known, **done.scores})


def _parquet(columns: dict[str, Any]) -> bytes:
    import io

    import polars

    buffer = io.BytesIO()
    polars.DataFrame(columns).write_parquet(buffer)
    return buffer.getvalue()


def _excerpts(records: Records, wanted: set[str]) -> dict[str, Excerpt]:
    from repromia.report import Excerpt
    from repromia.report.thumbnails import data_uri

    named = zip(records.ids, records.contents, strict=True)
    return {
        name: Excerpt(as_text(content)[:EXCERPT], data_uri(content) if isinstance(content, Picture) else "")
        for name, content in named
        if name in wanted
    }


def _file_name(plan: str) -> str:
    """A readable, safe file name for a plan's options."""
    kept = [one if one.isalnum() or one in "._-" else "_" for one in plan.replace("'", "")]
    return "".join(kept)[:80].strip("_")


def check_command(
    members: Path | None,
    nonmembers: Path | None,
    *,
    data: str,
    label: str,
    text: str,
    group: str,
    seed: int,
    image: str = "",
    caption: str = "",
    skip_unreadable: bool = False,
    as_json: bool = False,
    console: Console | None = None,
) -> int:
    """The blind baselines alone. 0: they find nothing; 1: the data gives it away."""
    from repromia.blind import baselines_for, cross_validated_auc
    from repromia.duplicates import remove_duplicates

    config = AuditConfig(
        model="",
        out=Path("."),
        members=members,
        nonmembers=nonmembers,
        data=data,
        label=label,
        text=text,
        group=group,
        image=image,
        caption=caption,
        skip_unreadable=skip_unreadable,
    )
    console = console or Console()
    skipped: list[str] = []
    progress = watched()
    with progress.step("reading records, looking for duplicates", None):
        kept, duplicates = remove_duplicates(read_records(config, skipped.extend))
    names = baselines_for(kept.records)
    found = {name: cross_validated_auc(kept, name, seed=seed) for name in each(progress, "blind baselines", names)}
    separable = [name for name, area in found.items() if area.low > 0.5]
    across = duplicates.exact_across + duplicates.near_across
    if as_json:
        areas = {name: area.model_dump() for name, area in found.items()}
        told = {"records": len(kept), "unreadable": len(skipped), "on_both_sides": across, "separable": separable}
        sys.stdout.write(json.dumps({"blind": areas, **told}, indent=2) + "\n")
        return 1 if separable else 0
    console.print(_blind_table(found))
    if skipped:
        console.print(f"{len(skipped)} images could not be read and were left out.")
    if across:
        console.print(f"{across} records occur on both sides (exactly or nearly) and were left out.")
    if separable:
        console.print(
            f"The data gives it away: {', '.join(separable)} above chance without any model. An attack on these "
            "records cannot tell memory from data shift; draw members and non-members from one pool by lot."
        )
        return 1
    console.print(f"No blind baseline is above chance on {len(kept)} records.")
    return 0


def _blind_table(found: dict[str, Estimate]) -> Table:
    from rich.table import Table

    table = Table(title="Do the records alone tell members from non-members?")
    for heading in ("blind baseline", "AUC", "95 % interval"):
        table.add_column(heading)
    for name, area in found.items():
        table.add_row(name, f"{area.estimate:.3f}", f"{area.low:.3f} to {area.high:.3f}")
    return table


def attacks_command(modality: Modality | None = None, *, as_json: bool, console: Console | None = None) -> int:
    """The registry, or its attacks on one kind of model, as a list or as JSON."""
    from repromia.attacks import Modality, registry

    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "model": one.modality,
            "kind": one.kind,
            "access": one.access,
            "needs": list(one.needs),
            "options": one.options,
            "default": one.default,
            "citation": one.citation,
            "about": (one.function.__doc__ or "").strip().splitlines()[0],
        }
        for kind in ((modality,) if modality else get_args(Modality))
        for one in registry(kind).values()
    ]
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return 0
    from repromia.terminal import print_attacks

    print_attacks(rows, console or Console())
    return 0


def audit_objects(
    target: Target,
    labelled: LabelledRecords,
    *,
    reference: Target | None,
    null_reference: Target | None,
    settings: Settings,
    out: str | Path | None,
    shadows: ShadowModels | None = None,
    cluster: str = "local",
) -> AuditResult:
    """`repromia.audit`: the audit on objects already in memory, which workers of a cluster are sent."""
    from repromia.cluster import connected
    from repromia.parts import Workers
    from repromia.pipeline import run_audit
    from repromia.provenance import audit_key

    if reference is None and getattr(target, "has_adapter", False):
        reference = target.base()  # type: ignore[attr-defined]
    models = (target, reference, null_reference)
    for one in models:
        refresh = getattr(one, "refresh", None)
        if refresh is not None:
            refresh()
    folder = Path(out) if out is not None else None
    with _unquoted(labelled.records), Store(folder).locked() as store:
        key = audit_key(target, (reference, null_reference), labelled, settings, shadows.key if shadows else "")
        finished = _finished(folder, key) if folder else None
        if finished is not None and folder is not None:
            return read_audit(folder)
        with connected(cluster):
            done = run_audit(
                models,
                labelled,
                settings,
                store=store,
                progress=Silent(),
                key=key,
                shadows=shadows,
                workers=Workers(cluster),
            )
        if folder is not None:
            write_audit(done, folder, redact=False)
    return done.result.with_curves(done.curves)


def read_audit(folder: str | Path) -> AuditResult:
    """A finished audit of a folder, with its curves. Raises StoreError."""
    from repromia.compare_folders import curves_of, read_run

    run = read_run(Path(folder), Path(folder).name)
    return run.result.with_curves(curves_of(run))
