"""`repromia bench`: find data and models, run cells, write tables."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from repromia.attacks import choose
from repromia.benchmarks import find, registry
from repromia.benchmarks.benchmark import Benchmark, DataFile, Job, PresetName
from repromia.benchmarks.card import card
from repromia.benchmarks.cells import run_cells
from repromia.benchmarks.files import FoundFile, described, is_hub_name, located, missing
from repromia.benchmarks.page import html, markdown
from repromia.benchmarks.tables import Bench, BenchTable, cell_of, central_rows, failures, measured_with, table_of
from repromia.errors import ConfigError
from repromia.progress import watched
from repromia.store import write_atomic


@dataclass(frozen=True)
class Options:
    """What `repromia bench` was asked for. data: a folder, or a dataset of a hub; empty: likenesses (smoke only)."""

    names: tuple[str, ...]
    preset: PresetName = "laptop"
    model: str = ""
    reference: str = ""
    data: str = ""
    seeds: int = 3
    attacks: tuple[str, ...] = ()
    cluster: str = "local"
    dry_run: bool = False
    out: Path | None = None


@dataclass(frozen=True)
class _Ready:
    """A benchmark with its data and models found."""

    benchmark: Benchmark
    files: tuple[tuple[DataFile, Path], ...]
    found: tuple[FoundFile, ...]
    jobs: tuple[Job, ...]
    stand_in: bool


def bench_command(options: Options, console: Console | None = None) -> int:
    """Run or resume. 0: all was measured; 1: a cell or an attack failed. Raises ConfigError for wrong use."""
    console = console or Console()
    if options.seeds < 1:
        raise ConfigError("Nothing would be measured.", expected="--seeds 1 or more", found=str(options.seeds))
    chosen = find(options.names)
    if options.dry_run:
        for one in chosen:
            _show_steps(one, options, console)
        return 0
    if options.out is None:
        raise ConfigError("No folder for the results was named.", hint="add --out DIR")
    for modality in dict.fromkeys(one.modality for one in chosen if options.attacks):
        choose(options.attacks, reference=True, captions=True, shadows=True, modality=modality)
    ready = [_made_ready(one, options, options.out) for one in chosen]
    progress = watched()
    cells = [(job, one.found) for one in ready for job in one.jobs]
    finished = iter(run_cells(cells, out=options.out, cluster=options.cluster, progress=progress))
    tables = [
        table_of(
            one.benchmark,
            [cell_of(job.seed, job.model, next(finished), _relative(job.folder, options.out)) for job in one.jobs],
            stand_in=one.stand_in,
            files=one.found,
            steps=one.benchmark.steps(one.jobs[0]),
        )
        for one in ready
    ]
    _write(tables, options, options.out)
    return _shown(tables, options.out, console)


def _write(tables: Sequence[BenchTable], options: Options, out: Path) -> None:
    bench = Bench(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command_line(options),
        preset=options.preset,
        status="complete_with_failures" if failures(tables) else "complete",
        tables=tuple(tables),
        central=central_rows(tables),
        versions=measured_with(tables),
    )
    write_atomic(out / "bench.md", markdown(bench).encode())
    write_atomic(out / "bench.html", html(bench).encode())
    write_atomic(out / "bench.json", bench.model_dump_json(indent=2).encode())


def command_line(options: Options) -> str:
    """The command that repeats the tables. Where it ran (--out, --cluster) does not change them."""
    flags = [
        *(("--model", options.model) if options.model else ()),
        *(("--reference", options.reference) if options.reference else ()),
        *(("--data", options.data) if options.data else ()),
        *(("--attacks", ",".join(options.attacks)) if options.attacks else ()),
    ]
    parts = ["repromia", "bench", *options.names, "--preset", options.preset, "--seeds", str(options.seeds), *flags]
    return shlex.join(parts)


def _made_ready(benchmark: Benchmark, options: Options, out: Path) -> _Ready:
    likeness = options.preset == "smoke" and not options.data
    root, model, reference = options.data, options.model, options.reference
    if likeness:
        place = out / "stand-in" / benchmark.name
        benchmark.stand_in(place)
        root = str(place)
        made = benchmark.stand_in_models(out / "stand-in" / "models") if not model else ("", "")
        model, reference = model or made[0], reference or made[1]
    files = located(benchmark, root)
    model, reference = (_whole(one) for one in (model or _default_model(benchmark, options), reference))
    jobs = tuple(
        Job(
            benchmark,
            options.preset,
            seed,
            tuple(path.absolute() if path.exists() else path for _, path in files),
            (out / benchmark.name / f"seed{seed}").absolute(),
            model,
            reference,
            options.attacks,
        )
        for seed in range(options.seeds)
    )
    return _Ready(benchmark, files, described(files, compare=not likeness), jobs, likeness)


def _whole(model: str) -> str:
    """A folder's whole path, which other machines and working folders understand; of a hub its name."""
    return str(Path(model).absolute()) if model and Path(model).exists() else model


def _default_model(benchmark: Benchmark, options: Options) -> str:
    """The folder under --data that the benchmark names at this size, if it needs a model. Raises ConfigError."""
    name = benchmark.model_at(options.preset)
    if not name:
        return ""
    place = Path(options.data) / name
    if place.is_dir():
        return str(place)
    folder = "" if is_hub_name(options.data) else f", or the folder {str(place)!r}"
    raise ConfigError(
        f"The model of {benchmark.name!r} is not there.",
        expected=f"--model with a folder or a hub id{folder}",
        hint=benchmark.target,
    )


def _layout(benchmark: Benchmark, data: str) -> tuple[tuple[DataFile, ...], list[str]]:
    """The layout that a run would read, and which of its files are not there. Raises ConfigError."""
    first = next(iter(benchmark.layouts), ())
    if is_hub_name(data):
        return tuple(one for one, _ in located(benchmark, data)), []
    if not data or not Path(data).is_dir():
        return first, []
    complete = next((one for one in benchmark.layouts if not missing(one, Path(data))), None)
    return (first, missing(first, Path(data))) if complete is None else (complete, [])


def _show_steps(benchmark: Benchmark, options: Options, console: Console) -> None:
    """What a run would do, whether or not the data is there."""
    scale = benchmark.scale(options.preset)
    layout, absent = _layout(benchmark, options.data)
    hub = is_hub_name(options.data)
    root = Path("" if hub else options.data)
    files = tuple(root / one.path for one in layout)
    named = benchmark.model_at(options.preset)
    model = options.model or (str(root / named) if named and options.data and not hub else "")
    job = Job(benchmark, options.preset, 0, files, Path("."), model, options.reference, options.attacks)
    forms = " and ".join(one.described for one in layout)
    lines = [
        f"{benchmark.name}: {benchmark.title}, preset {options.preset}, seeds 0 to {options.seeds - 1}",
        *(f"  {number}. {step}" for number, step in enumerate(benchmark.steps(job), 1)),
        f"  attacks: {', '.join(job.settings['attacks'])}",
        f"  intervals: {scale.bootstrap} resamples; controls: null target, heads on permuted labels "
        f"{scale.head_permutations} times, programs {scale.program_permutations} times",
        f"  protocol: {benchmark.protocol}",
        f"  data: {forms}; from {benchmark.source}; licence: {benchmark.licence}",
        f"  takes: {scale.takes} a seed",
        f"  run: {command_line(options)} --out DIR",
        *([f"  missing under {options.data}: {', '.join(absent)}"] if absent else []),
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _shown(tables: Sequence[BenchTable], out: Path, console: Console) -> int:
    """Failures and where the tables are; exit code."""
    from rich.table import Table

    shown = Table()
    for heading in ("benchmark", "seed", "best blind", "headline", "AUC", "seconds"):
        shown.add_column(heading)
    for table in tables:
        for cell in table.cells:
            rows = {row.name: row for row in cell.rows}
            head = rows.get(cell.headline)
            figures = [
                f"{row.auc.estimate:.3f} [{row.auc.low:.3f}, {row.auc.high:.3f}]" if row and row.auc else cell.status
                for row in (next(iter(cell.rows), None), head)
            ]
            shown.add_row(table.name, str(cell.seed), figures[0], cell.headline, figures[1], f"{cell.seconds:.0f}")
    console.print(shown)
    failed = failures(tables)
    for line in failed:
        console.print(line, style="red", highlight=False, markup=False, soft_wrap=True)
    console.print(f"Tables: {out / 'bench.md'}, bench.html, bench.json", highlight=False, soft_wrap=True)
    return 1 if failed else 0


def _relative(folder: Path, out: Path) -> str:
    return folder.relative_to(out.absolute()).as_posix()


def list_command(options: Options, console: Console | None = None) -> int:
    """All benchmarks: what is on disk under --data, what is missing, and how long a seed takes; of those named, all
    that they state."""
    from rich.table import Table

    console = console or Console()
    for one in find(options.names):
        for line in [*card(one), f"  runnable here at {options.preset}: {runnable(one, options)}"]:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if options.names:
        return 0
    table = Table(title=f"Benchmarks (preset {options.preset})")
    for heading in ("name", "model of", "by lot", "runnable here", "a seed takes"):
        # a name is to be copied, a path to be read: nothing is cut off
        table.add_column(heading, no_wrap=heading == "name", overflow="fold")
    for one in registry().values():
        table.add_row(
            one.name, one.modality, "yes" if one.iid else "no", runnable(one, options), one.scale(options.preset).takes
        )
    console.print(table)
    more = "repromia bench NAME --list: source, layout, hashes, licence, published figures, what is known against it"
    console.print(more, highlight=False, soft_wrap=True)
    return 0


def runnable(benchmark: Benchmark, options: Options) -> str:
    """Whether data and model are there, or what is missing."""
    if options.preset == "smoke" and not options.data:
        return "yes, on a likeness of the data"
    if is_hub_name(options.data):
        return "up to the hub"
    root = Path(options.data) if options.data else None
    absent = [] if root and any(not missing(one, root) for one in benchmark.layouts) else list(benchmark.layouts[:1])
    wanting = [one.path for layout in absent for one in layout]
    model = benchmark.model_at(options.preset)
    if model and not options.model and not (root and (root / model).is_dir()):
        wanting.append(f"{model} (or --model)")
    return f"missing: {', '.join(wanting)}" if wanting else "yes"
