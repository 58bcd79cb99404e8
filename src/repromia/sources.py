"""Records, read as the configuration names them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from repromia.config import AuditConfig
from repromia.records import LabelledRecords, Picture


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
                config.data, label=config.label, class_field=named, text=text, group=group, aside=config.slice
            )
        return read_class_records(*sources, class_field=named, text=text, group=group, aside=config.slice)
    if config.data:
        return read_labelled(config.data, label=config.label, text=text, group=group)
    return read_members(config.members or "", config.nonmembers or "", text=text, group=group)


def _read_nodes(config: AuditConfig) -> LabelledRecords:
    from repromia.graph_records import read_labelled_node_records, read_node_records

    if config.label:
        return read_labelled_node_records(config.graph, label=config.label, asymmetric=config.asymmetric)
    sides = str(config.members), str(config.nonmembers)
    return read_node_records(config.graph, *sides, asymmetric=config.asymmetric)


def modality_of(config: AuditConfig, labelled: LabelledRecords) -> str:
    """What kind of model is audited: as configured, else as the records tell."""
    if config.modality != "auto":
        return config.modality
    if config.graph:
        return "graph"
    if config.class_field:
        return "classifier"
    return "diffusion" if isinstance(labelled.records.contents[0], Picture) else "language"
