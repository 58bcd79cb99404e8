"""What a benchmark states about itself, in full: `repromia bench NAME --list`."""

from __future__ import annotations

from repromia.benchmarks.benchmark import PRESETS, Benchmark, Published


def card(benchmark: Benchmark) -> list[str]:
    """Source, layouts with hashes, licence, protocol, target, what is known against it, and published figures."""
    published = [_figure(one) for one in benchmark.published] or ["none that we know of"]
    takes = [f"{preset}: {benchmark.scale(preset).takes} a seed" for preset in PRESETS]
    return [
        f"{benchmark.name}: {benchmark.title} ({benchmark.modality})",
        f"  members: {'drawn by lot' if benchmark.iid else 'as published, not drawn by lot'}",
        f"  source: {benchmark.source}",
        *(f"  {line}" for line in _layouts(benchmark)),
        f"  licence: {benchmark.licence}",
        f"  protocol: {benchmark.protocol}",
        f"  target: {benchmark.target}",
        *(f"  known against it: {one}" for one in benchmark.against),
        *(f"  published: {one}" for one in published),
        f"  takes: {'; '.join(takes)}",
    ]


def _layouts(benchmark: Benchmark) -> list[str]:
    """One line a file; of several layouts the first complete one is read."""
    lines = []
    for number, layout in enumerate(benchmark.layouts):
        way = "or " * (number > 0)
        lines += [f"{way}file: {one.path} ({one.form}); {one.hashed}" for one in layout]
    return lines or ["files: none, a package ships the data"]


def _figure(one: Published) -> str:
    auc = [] if one.auc is None else [f"AUC {one.auc:.3f}"]
    tpr = [] if one.tpr is None else [f"TPR {one.tpr:.3f} at {one.fpr * 100:g} % FPR"]
    note = f"; {one.note}" if one.note else ""
    return f"{one.attack} on {one.on}: {', '.join(auc + tpr)} ({one.source}{note})"
