"""What an audit found, as data: the versioned schema of `result.json`.

Intervals are 95 % unless said. Every figure is of the eval role; `select` figures are named so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, PrivateAttr

from repromia.errors import StoreError
from repromia.metrics import RocCurve

if TYPE_CHECKING:
    import polars

    from repromia.notebook import Drawing

SCHEMA_VERSION = 1

Kind = Literal["passive", "reference", "reprogrammed", "head", "blind"]
Status = Literal["measured", "failed", "not_available"]


class Figures(BaseModel):
    """Base of every part of a result: unknown fields and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Estimate(Figures):
    """A point estimate with its 95 % interval and how the interval was made."""

    estimate: float
    low: float
    high: float
    method: str


class Transfer(Figures):
    """A threshold fixed on the select role and applied to eval (Clopper-Pearson intervals)."""

    fpr: Estimate
    tpr: Estimate


class TprAtFpr(Figures):
    """The best TPR with FPR at most `fpr`, or why it cannot be given.

    `coarse` means that fewer than 3 false positives were allowed: read it with the interval only.
    `smallest_visible` is the least TPR that this many records could have told from chance (97.5 % null quantile).
    `chance_p`, of grouped records that would be beyond chance as independent ones: how often as much is reached with
    the labels of whole groups dealt out anew.
    """

    fpr: float
    status: Literal["measured", "coarse", "refused"]
    reason: str = ""
    tpr: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""
    smallest_visible: float | None = None
    chance_p: float | None = None
    from_select: Transfer | None = None


class AttackResult(Figures):
    """One row of the attack table."""

    name: str  # as asked for, options included: "min_k:k=0.1"
    attack: str  # as registered: "min_k"
    kind: Kind
    access: str  # what must be seen of the target: "log-probabilities", "weights", "nothing"
    needs: tuple[str, ...] = ()  # "reference", "labels", "masked-lm", …
    citation: str = ""
    status: Status = "measured"
    reason: str = ""
    auc: Estimate | None = None
    auc_bootstrap: Estimate | None = None
    tpr_at_fpr: tuple[TprAtFpr, ...] = ()
    balanced_accuracy: Estimate | None = None  # threshold chosen on select
    select_auc: float | None = None
    n_members: int = 0
    n_nonmembers: int = 0
    seconds: float = 0.0
    forward_passes: float = 0.0  # per record, on the target
    details: dict[str, Any] = {}


class Gain(Figures):
    """Paired difference of two rows on the same eval records: `attack` minus `over`.

    over_at_fpr: (fpr, row) where the TPR is compared with another row than the AUC, the best at that FPR on select.
    """

    attack: str
    over: str
    role: Literal["best_passive", "same_supervision", "blind", "identity", "null_target"]
    auc: Estimate
    tpr_at_fpr: tuple[tuple[float, Estimate], ...] = ()  # (fpr, gain)
    over_at_fpr: tuple[tuple[float, str], ...] = ()


class NullRow(Figures):
    """One attack asked of a model that cannot have seen the records."""

    name: str
    status: Status
    reason: str = ""
    auc: Estimate | None = None


class NullTarget(Figures):
    """The whole audit repeated on a target that cannot have seen the records."""

    status: Status
    reason: str = ""
    target: str = ""
    reference: str = ""
    rows: tuple[NullRow, ...] = ()
    repaired: bool = False  # the reference is a noised and repaired copy of the null target itself
    joint_p: float | None = None  # all null AUCs are .5 (max-|t| bootstrap test)


class Permuted(Figures):
    """Labels of fit and select permuted, those of eval kept.

    Heads: `figure` is the mean eval AUC, to be compared with .5. Learned programs: the mean gain over identity,
    to be compared with 0.
    """

    name: str
    compared_with: float
    repeats: int
    mean: float
    low: float
    high: float
    passed: bool


class ProbeFamily(Figures):
    """Programs of one kind in a bank: what they add by themselves, and what they cost.

    gain: of a head on the passive scores and this family over `same_supervision`. passes: forward passes a record.
    tokens, seconds: for all records, as multiples of the plain view's where that was asked in the same run.
    """

    attack: str
    family: str
    programs: tuple[str, ...]
    gain: Gain | None = None
    passes: float = 0.0
    seconds: float = 0.0
    relative_tokens: float | None = None
    relative_seconds: float | None = None
    could_not: dict[str, str] = {}  # programs that the model cannot do, with the reason


class BlindResult(Figures):
    """A baseline that never sees the target."""

    name: str
    cross_validated_auc: Estimate
    fitted: AttackResult  # fitted on fit, measured on eval


class Duplicates(Figures):
    """What was left out or tied together because it occurs more than once."""

    exact_across: int = 0
    near_across: int = 0
    exact_within: int = 0
    near_within: int = 0
    unchecked: int = 0  # records that could resemble others only through word sequences common to > 1,000 records
    excluded: tuple[str, ...] = ()  # ids left out of the audit
    repeated: tuple[str, ...] = ()  # ids that stay though other records, exactly or nearly, are like them


class RoleSizes(Figures):
    """Members and non-members of each role."""

    fit: tuple[int, int]
    select: tuple[int, int]
    eval: tuple[int, int]


class RecordsSummary(Figures):
    """What was audited."""

    n_members: int
    n_nonmembers: int
    grouped: bool
    roles: RoleSizes
    duplicates: Duplicates
    digest: str


class Finding(Figures):
    """One sentence that the figures support. `code` is stable, for machines."""

    code: str
    level: Literal["headline", "warning", "note"]
    sentence: str


class Exposed(Figures):
    """A member and how far it stands out: the share of eval non-members that score at least as high."""

    id: str
    score: float
    nonmember_share: float


class SliceFigures(Figures):
    """The headline attack on one kind of eval records, and how its AUC differs from that of all others.

    more_exposed, less_exposed: the difference is above (below) 0 also when corrected for all slices tested. Where there
    are too few records: no figures, and `reason`.
    """

    attack: str
    name: str  # the field: "characters", "class", or as asked for
    value: str
    n_members: int
    n_nonmembers: int
    reason: str = ""
    auc: Estimate | None = None
    tpr: TprAtFpr | None = None
    difference: Estimate | None = None
    more_exposed: bool = False
    less_exposed: bool = False


class EpsilonFigure(Figures):
    """At `confidence`, the training is not (e, delta)-differentially private for any e below `epsilon` (nats)."""

    name: str
    epsilon: float
    confidence: float
    assumes: str
    source: str


class EpsilonFigures(Figures):
    """Lower bounds on epsilon from one attack's scores, or why there are none. complete: all that was drawn was
    audited."""

    status: Literal["measured", "not_available"]
    reason: str
    attack: str = ""
    delta: float = 0.0
    complete: bool = False
    bounds: tuple[EpsilonFigure, ...] = ()


class _Beside:
    """Curves that a result carries with it: they are neither compared nor written."""

    def __init__(self, curves: Mapping[str, RocCurve] | None = None) -> None:
        self.curves = dict(curves or {})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Beside)

    __hash__ = None  # type: ignore[assignment]


class AuditResult(Figures):
    """Everything an audit found. Written as `result.json`.

    `repromia.audit` and `repromia.read_audit` return it with the curves of its attacks; read from JSON it has none.
    """

    schema_version: int = SCHEMA_VERSION
    status: Literal["complete", "complete_with_failures"]
    created: str
    modality: str
    target: dict[str, Any]
    reference: dict[str, Any] | None
    records: RecordsSummary
    headline: str
    headline_rule: str
    attacks: tuple[AttackResult, ...]
    gains: tuple[Gain, ...]
    families: tuple[ProbeFamily, ...] = ()
    blind: tuple[BlindResult, ...]
    null_target: NullTarget
    permuted: tuple[Permuted, ...]
    epsilon: EpsilonFigures = EpsilonFigures(status="not_available", reason="written before epsilon was measured")
    findings: tuple[Finding, ...]
    exposed: tuple[Exposed, ...]
    exposed_by: str
    slices: tuple[SliceFigures, ...] = ()
    views: tuple[dict[str, Any], ...]  # what was asked of the models and what it cost
    seconds: float
    config: dict[str, Any]
    versions: dict[str, str]
    key: str  # hash of everything that decides the result
    _beside: _Beside = PrivateAttr(default_factory=_Beside)

    def attack(self, name: str) -> AttackResult:
        """The row of this name. Raises KeyError naming the rows there are."""
        for row in self.attacks:
            if row.name == name:
                return row
        raise KeyError(f"no attack {name!r}; there are {', '.join(row.name for row in self.attacks)}")

    def with_curves(self, curves: Mapping[str, RocCurve]) -> AuditResult:
        """The same result, from which curves can be drawn."""
        copy = self.model_copy()
        copy._beside = _Beside(curves)
        return copy

    def roc(self, name: str = "") -> RocCurve:
        """The exact curve of an attack over the eval role; empty: of the headline attack.

        Raises StoreError where the result came without scores, KeyError for an attack that was not measured.
        """
        curves = self._curves()
        wanted = name or self.headline
        if wanted not in curves:
            raise KeyError(f"no curve of {wanted!r}; there are {', '.join(curves)}")
        return curves[wanted]

    def table(self) -> polars.DataFrame:
        """One line an attack; see `repromia.notebook.table_of`."""
        from repromia.notebook import table_of

        return table_of(self)

    def plot(self) -> Drawing:
        """The report's ROC curves for a notebook or a file. Raises StoreError where the result came without scores."""
        from repromia.notebook import plot_of

        return plot_of(self, self._curves())

    def _repr_html_(self) -> str:
        from repromia.notebook import page_of

        return page_of(self)

    def _curves(self) -> dict[str, RocCurve]:
        if not self._beside.curves:
            raise StoreError(
                "This result came without scores, and has no curves.",
                expected="what repromia.audit or repromia.read_audit returns",
                hint='repromia.read_audit("audit/") reads result.json and scores.parquet together',
            )
        return self._beside.curves
