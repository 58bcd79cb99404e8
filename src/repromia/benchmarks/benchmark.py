"""What a benchmark states about itself, and what a run of one is given. Inert values, sent to workers as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from repromia.attacks import Modality
    from repromia.result import AuditResult

PresetName = Literal["smoke", "laptop", "paper"]
PRESETS: tuple[PresetName, ...] = ("smoke", "laptop", "paper")
NOT_HERE = "none of our figures is measured on it"


@dataclass(frozen=True)
class Published:
    """A figure of a paper or of its repository. auc, tpr: shares, as printed there; on: the target or the set."""

    attack: str
    on: str
    auc: float | None
    tpr: float | None
    source: str
    fpr: float = 0.01  # at which tpr was given
    note: str = ""


@dataclass(frozen=True)
class DataFile:
    """A file or folder under --data. form: how it must look; sha256: of the copy that ours were measured on;
    archive_md5: of the archive in which its authors give it out, as they publish it; unhashed: why there is neither."""

    path: str
    form: str
    sha256: str = ""
    archive_md5: str = ""
    unhashed: str = ""

    @property
    def described(self) -> str:
        """Where it lies and how it must look."""
        archive = f"; MD5 of its archive {self.archive_md5}" if self.archive_md5 else ""
        return f"{self.path} ({self.form}{archive})"

    @property
    def hashed(self) -> str:
        """The hash that a copy is compared by, or why there is none."""
        known = {"sha256": self.sha256, "MD5 of its archive": self.archive_md5}
        said = "; ".join(f"{kind} {value}" for kind, value in known.items() if value)
        return said or f"no hash: {self.unhashed or 'none is stated'}"


@dataclass(frozen=True)
class Scale:
    """The size of a run.

    records: most of a side; 0: all there are. training: epochs, or steps of a diffusion model. size: of images, in
    pixels a side; 0: as they are. fit, select: shares of these roles, the rest is measured. model: where the target's
    weights lie under --data at this size, if not where the benchmark says. takes: of one seed, as measured or (paper)
    as to be expected.
    """

    attacks: tuple[str, ...]
    takes: str
    records: int = 0
    training: int = 0
    shadows: int = 0
    size: int = 0
    fit: float = 0.2
    select: float = 0.1
    model: str = ""
    head_permutations: int = 50
    program_permutations: int = 1
    bootstrap: int = 2000


def _none(_: Path) -> tuple[str, str]:
    return "", ""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of the field, or a suite of our own.

    iid: members and non-members are drawn by lot from one pool, so that the central table may count it. layouts: ways
    in which the data may lie on the disk, the first complete one is taken. model: where the target's weights, or the
    base to be trained further, lie under --data unless --model names others; empty: trained from nothing. read: the
    files of a layout to what `run` takes. run: one cell. stand_in: writes a small real likeness of the data in the
    layout that the field uses. stand_in_models: makes a small target and a reference for likenesses, and says where
    they lie; empty where `run` trains its own. steps: what a run does, line by line.
    """

    name: str
    title: str
    modality: Modality
    iid: bool
    source: str
    licence: str
    layouts: tuple[tuple[DataFile, ...], ...]
    protocol: str
    target: str
    against: tuple[str, ...]
    published: tuple[Published, ...]
    smoke: Scale
    laptop: Scale
    paper: Scale
    read: Callable[[tuple[Path, ...]], Any]
    run: Callable[[Job], AuditResult]
    stand_in: Callable[[Path], None]
    steps: Callable[[Job], tuple[str, ...]]
    model: str = ""
    stand_in_models: Callable[[Path], tuple[str, str]] = _none

    def scale(self, preset: PresetName) -> Scale:
        """Sizes of a preset."""
        scales: dict[str, Scale] = {"smoke": self.smoke, "laptop": self.laptop, "paper": self.paper}
        return scales[preset]

    def model_at(self, preset: PresetName) -> str:
        """Where the target's weights, or its base, lie under --data; empty: trained from nothing."""
        return self.scale(preset).model or self.model


@dataclass(frozen=True)
class Job:
    """One cell: a benchmark, a target and a seed. files: of the layout that was found; folder: where it may write."""

    benchmark: Benchmark
    preset: PresetName
    seed: int
    files: tuple[Path, ...]
    folder: Path
    model: str = ""
    reference: str = ""
    attacks: tuple[str, ...] = ()

    @property
    def scale(self) -> Scale:
        """Sizes of the cell's preset."""
        return self.benchmark.scale(self.preset)

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of `repromia.config.Settings` that every family sets alike."""
        scale = self.scale
        return {
            "attacks": self.attacks or scale.attacks,
            "seed": self.seed,
            "fit": scale.fit,
            "select": scale.select,
            "fprs": (0.05, 0.01),
            "head_permutations": scale.head_permutations,
            "program_permutations": scale.program_permutations,
            "bootstrap": scale.bootstrap,
        }

    @property
    def roles(self) -> str:
        """How the records are spent."""
        fit, select = (round(100 * one) for one in (self.scale.fit, self.scale.select))
        return f"roles by lot: {fit} % fit, {select} % select, {100 - fit - select} % eval"
