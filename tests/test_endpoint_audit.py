"""A whole audit of a model that is only asked over HTTP, against the same model loaded; and what must not happen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from repromia.attacks import parse, registry
from repromia.config import AuditConfig, Settings
from repromia.errors import AttackError, StoreError, TargetError
from repromia.pipeline import Audit, run_audit
from repromia.programs import Binding, Identity, Program
from repromia.programs.prefixes import BORDER, TextInFront, own_tokens
from repromia.programs.registry import PLANS, plan_for
from repromia.programs.soft_prompt import SoftPrompt
from repromia.progress import Silent
from repromia.records import Completion, LabelledRecords, Records
from repromia.result import AuditResult
from repromia.scoring import run_attack
from repromia.signals import TokenSignals, from_token_arrays
from repromia.store import Store
from repromia.targets.endpoint import EndpointModel
from repromia.targets.endpoint_client import EndpointOptions
from repromia.targets.language import LanguageModel
from repromia.targets.load import LoadOptions, wrap_language_model
from repromia.targets.tokens import TokenSequence
from repromia.views import Of, Views
from small import SmallModels
from targets.local_server import Fault, LocalServer, serving

KEY = "sk-very-secret-0452"
REPROMIA = [sys.executable, "-c", "from repromia.cli import main; main()"]
TEXT_ONLY = "probe_bank:preset=text_only"
PLAIN_STATISTICS = f"{TEXT_ONLY}:statistics=windows+mean+lowest+highest+q25+q50+q75"
SAME = ("loss", "min_k", "min_k:k=0.1", "zlib", "lowercase", "pac:copies=2", "recall:shots=1", "con_recall:shots=1")
WITH_REFERENCE = ("reference", "reference:form=ratio", "wbc")


@pytest.fixture(scope="module")
def direct(models: SmallModels) -> LanguageModel:
    """The leaky model, cutting no record."""
    return wrap_language_model(models.leaky.model, models.leaky.tokenizer, options=LoadOptions(max_tokens=250))


@pytest.fixture(scope="module")
def base(models: SmallModels) -> LanguageModel:
    return wrap_language_model(models.base.model, models.base.tokenizer, options=LoadOptions(max_tokens=250))


@pytest.fixture(scope="module")
def labelled(models: SmallModels, direct: LanguageModel) -> LabelledRecords:
    """60 members and 60 non-members of at most 90 tokens, so that shots fit."""

    def short(texts: list[str]) -> list[str]:
        return [text for text in texts if len(direct.encode([text])[0].ids) <= 90][:60]

    texts = (*short(models.members), *short(models.nonmembers))
    assert len(texts) == 120
    ids = tuple(f"r{row}" for row in range(120))
    return LabelledRecords(Records(ids, texts, ids), np.arange(120) < 60)


@pytest.fixture
def server(direct: LanguageModel, base: LanguageModel) -> Iterator[LocalServer]:
    with serving(direct, others={"base": base}, key=KEY) as one:
        yield one


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_KEY", KEY)
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)


def endpoint(server: LocalServer, **options: Any) -> EndpointModel:
    made = {"key_variable": "AUDIT_KEY", "context": 256, "check": False, "retries": 0, **options}
    return EndpointModel(EndpointOptions(server.url, "leaky", **made))


class WithoutFirst(LanguageModel):
    """The model as a server that hides BOS shows it: a text's first token is not scored."""

    def encode(self, contents: Any, ids: Any = None) -> list[TokenSequence]:
        found = super().encode(contents, ids)
        for one in found:
            one.scored[1] = False
        return found


def make_views(labelled: LabelledRecords, target: Any, reference: Any = None) -> Views:
    """Views of 20 records, with 20 fit and 12 select records that are others."""
    parts = [np.arange(120)[at::6][:n] for at, n in ((0, 20), (1, 20), (2, 12))]
    measured, fit, select = (labelled.take(rows) for rows in parts)
    views = Views({"target": target}, measured.records, Binding(target, fit, select, 0, Silent(), 0), Store(None))
    views.measure_longest()
    if reference is not None:
        views.add_reference(reference)
    return views


def figures(spec: str, views: Views) -> np.ndarray:
    scored = run_attack(parse(spec), views)
    if scored.bank is not None:
        assert not [probe.reason for probe in scored.bank.probes if probe.reason]
        return scored.bank.features
    assert scored.scores is not None, scored.reason
    return scored.scores


def refused(spec: str, views: Views) -> str:
    scored = run_attack(parse(spec), views)
    assert scored.scores is None
    assert scored.bank is None
    return scored.reason


@pytest.mark.parametrize("kind", ["shown", "hidden"])
def test_scores_are_those_of_the_model_itself(
    kind: str, direct: LanguageModel, base: LanguageModel, labelled: LabelledRecords
) -> None:
    with serving(direct, kind=kind, others={"base": base}) as server:
        target = endpoint(server)
        asked = make_views(labelled, target, target.beside("base"))
        one, other = (
            (direct, base)
            if kind == "shown"
            else tuple(WithoutFirst(model.model, model.encoder, context=256) for model in (direct, base))
        )
        loaded = make_views(labelled, one, other)
        for spec in (*SAME, *WITH_REFERENCE, PLAIN_STATISTICS):
            np.testing.assert_allclose(figures(spec, asked), figures(spec, loaded), atol=1e-3, err_msg=spec)
        used = [views.program("nonmember_shots", {"shots": 1}).used for views in (asked, loaded)]
        assert used[0] == used[1]
        before = target.requests_made
        errors = figures(f"{TEXT_ONLY}:statistics=errors", asked)  # EZ-MIA on all tokens, as ranks are not told
        plain, behind = (
            asked.ask("target", asked.program(name, {}))[0] for name in ("identity", "nonmember_shots/shots=1")
        )
        change = plain.logprob.astype(np.float64) - behind.logprob
        gains, losses = (plain.total(np.maximum(sign * change, 0)) for sign in (1, -1))
        np.testing.assert_allclose(errors[:, 0], np.log((gains + 0.1) / (losses + 0.1)))
        assert target.requests_made == before


def test_completions_are_scored_behind_their_prompt_alone(direct: LanguageModel, labelled: LabelledRecords) -> None:
    texts = labelled.records.texts()
    contents = tuple(Completion(text[:30], text[30:]) for text in texts)
    cut = LabelledRecords(replace(labelled.records, contents=contents), labelled.member)
    with serving(direct) as server:
        asked, loaded = make_views(cut, endpoint(server)), make_views(cut, direct)
        plain, own = (views.ask("target", Identity())[0] for views in (asked, loaded))
        assert (plain.lengths <= own.lengths).all()  # a token over the border counts for the model, not here
        same = plain.lengths == own.lengths
        assert same.sum() >= 3
        for spec in ("loss", "recall:shots=1"):
            np.testing.assert_allclose(figures(spec, asked)[same], figures(spec, loaded)[same], atol=1e-3)


WEIGHTS = [name for name in PLANS if name not in ("identity", "nonmember_shots", "member_shots", "masked_neighbours")]
WEIGHTS = [name for name in WEIGHTS if name not in ("lower_case", "word_swaps")]


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_needs_weights_says_so_and_asks_nothing(name: str, server: LocalServer, labelled: LabelledRecords) -> None:
    views = make_views(labelled, endpoint(server))
    asked = len(server.asked)
    with pytest.raises(AttackError, match="needs the weights of the model; the endpoint only returns"):
        views.ask("target", plan_for(name, {}).bind(views.binding))
    assert len(server.asked) == asked
    features = run_attack(parse(f"probe_bank:programs={name}+lower_case"), views)
    assert features.bank is not None
    first, second = features.bank.probes
    assert "needs the weights" in first.reason
    assert second.columns == (0, 1)


def test_a_loaded_prompt_needs_weights_too(server: LocalServer, labelled: LabelledRecords) -> None:
    views = make_views(labelled, endpoint(server))
    with pytest.raises(AttackError, match="needs the weights"):
        views.ask("target", SoftPrompt(np.zeros((2, 4), np.float32), {}))


def test_attacks_that_need_more_are_a_reason(server: LocalServer, labelled: LabelledRecords) -> None:
    target = endpoint(server)
    views = make_views(labelled, target, target.beside("base"))
    for spec in ("gap_k", "min_k_plus_plus", "surp", "ez_mia"):
        reason = refused(spec, views)
        assert "full next-token distribution" in reason
        assert "log-probabilities of the given tokens only" in reason
    assert "tokenizer" in refused("dc_pdd", views)
    for spec in ("reprogram", "ez_mia:reference=noise_and_repair", "wbc:reference=weight_noise", "probe_bank"):
        reason = refused(spec, views) if spec != "probe_bank" else refused("probe_bank:programs=band/width=1", views)
        assert "needs the weights" in reason or "expected: weights" in reason


class Untold(Views):
    """Views of a model that tells log-probabilities only."""

    def ask(self, of: Of, program: Program, rows: Any = None) -> tuple[TokenSignals, ...]:
        return tuple(untold(one) for one in super().ask(of, program, rows))


def untold(one: TokenSignals) -> TokenSignals:
    nothing, no_id = np.full_like(one.mean, np.nan), np.full_like(one.rank, -1)
    return replace(one, mean=nothing, std=nothing, top_logprob=nothing, top_token=no_id, rank=no_id)


@pytest.mark.parametrize("name", list(registry()))
def test_access_says_what_an_attack_looks_at(
    name: str, direct: LanguageModel, base: LanguageModel, labelled: LabelledRecords
) -> None:
    """Registered attacks, other packages' included: without "distribution" or "weights", nothing else is read."""
    access = registry()[name].access
    told = make_views(labelled, direct, base)
    blind = Untold(told.targets, told.records, told.binding, told.store, memory=told.memory)
    if name == "neighbour":
        pytest.skip("needs a masked model; its views are plain ones")
    if access.startswith("log-probabilities"):
        np.testing.assert_array_equal(figures(name, blind), figures(name, told))
    elif "weights" not in access:
        assert access in refused(name, blind)
        assert np.isfinite(figures(name, told)).all()
    if name == "probe_bank":
        np.testing.assert_array_equal(figures(PLAIN_STATISTICS, blind), figures(PLAIN_STATISTICS, told))


def signals(*records: list[tuple[int, float]]) -> TokenSignals:
    tokens, logprobs = zip(*(pair for record in records for pair in record), strict=True)
    return untold(
        from_token_arrays(
            [len(record) for record in records],
            {
                "token": np.asarray(tokens, np.int32),
                "logprob": np.asarray(logprobs, np.float32),
                **{name: np.zeros(len(tokens), np.float32) for name in ("mean", "std", "top_logprob")},
                **{name: np.zeros(len(tokens), np.int32) for name in ("rank", "top_token")},
            },
        )
    )


def test_tokens_behind_a_text_are_matched_from_the_end() -> None:
    plain = signals([(1, -1.0), (2, -2.0), (3, -3.0)], [(4, -4.0), (5, -5.0)], [(2, -1.0), (2, -2.0)])
    behind = signals(
        [(9, -0.9), (2, -0.2), (3, -0.3)],  # the first token is cut otherwise
        [(7, -0.7), (4, -0.4), (5, -0.5)],  # one more is scored
        [(2, -0.1)],  # one less
    )
    got = own_tokens(plain, behind)
    assert np.array_equal(got.offsets, plain.offsets)
    assert np.array_equal(got.token, plain.token)
    np.testing.assert_allclose(got.logprob, [-1.0, -0.2, -0.3, -0.4, -0.5, -1.0, -0.1])
    long = [(token, -1.0) for token in range(BORDER + 2)]
    own_tokens(signals(long), signals([(99, -1.0)] * BORDER + long[BORDER:]))
    for broken in ([(99, -1.0)] * (BORDER + 1) + long[BORDER + 1 :], [*long[:-1], (99, -1.0)]):
        with pytest.raises(AttackError, match="1 of 1 records cut otherwise"):
            own_tokens(signals(long), signals(broken))


def test_shots_are_cut_to_the_context_and_the_key_holds_no_text(server: LocalServer, labelled: LabelledRecords) -> None:
    prefixes: dict[int, TextInFront] = {}
    for context in (100, 130, 256):
        views = make_views(labelled, endpoint(server, context=context))
        found = views.program("nonmember_shots", {"shots": 4})
        assert isinstance(found, TextInFront)
        views.ask("target", found)
        prefixes[context] = found
        assert found.text[:20] not in found.key
        longest = max(len(one.ids) for one in server.target.encode(views.records.contents))
        assert len(server.target.encoder.plain_ids(found.text)) + longest <= context
    assert len(prefixes[100].text) < len(prefixes[130].text) < len(prefixes[256].text)
    assert prefixes[256].details["shots"] > 1
    views = make_views(labelled, endpoint(server, context=50))
    with pytest.raises(AttackError, match=r"no room(.|\n)*--endpoint-context"):
        views.program("nonmember_shots", {})


def test_a_reference_with_other_tokens_is_refused(
    server: LocalServer, labelled: LabelledRecords, models: SmallModels
) -> None:
    from repromia.demo.language import small_llama, train_tokenizer

    other = small_llama(300, width=32, layers=1, context=256, seed=0)
    tokenizer = train_tokenizer(models.nonmembers, 300)
    server.others["other"] = wrap_language_model(other, tokenizer, options=LoadOptions())
    target = endpoint(server)
    with pytest.raises(TargetError, match="another tokenizer"):
        make_views(labelled, target, target.beside("other"))


@pytest.fixture
def on_disk(labelled: LabelledRecords, tmp_path: Path) -> Path:
    """members.jsonl and nonmembers.jsonl in one folder."""
    for name, part in (("members", labelled.members()), ("nonmembers", labelled.nonmembers())):
        lines = [json.dumps({"id": one, "text": text}) + "\n" for one, text in zip(part.ids, part.texts(), strict=True)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    return tmp_path


def arguments(server: LocalServer, attacks: str, *more: str) -> list[str]:
    flags = {
        "--endpoint": server.url,
        "--endpoint-key": "AUDIT_KEY",
        "--endpoint-context": "256",
        "--model": "leaky",
        "--members": "members.jsonl",
        "--nonmembers": "nonmembers.jsonl",
        "--out": "out",
        "--attacks": attacks,
        "--bootstrap": "200",
        "--select": "0.2",
    }
    flags |= dict(zip(more[::2], more[1::2], strict=True))
    # the tiny model repeats one word for ever, from which no shift can be told
    return ["audit", "--no-endpoint-check", *(part for flag in flags.items() for part in flag)]


def repromia(*given: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*REPROMIA, *given], cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def result_in(folder: Path) -> AuditResult:
    return AuditResult.model_validate_json((folder / "out" / "result.json").read_bytes())


def texts_asked(server: LocalServer) -> list[tuple[str, str]]:
    prompts = [(one["model"], one["prompt"]) for one in server.asked if one["echo"]]
    return [(model, text) for model, one in prompts for text in (one if isinstance(one, list) else [one])]


QUICK = "loss,min_k,zlib,lowercase,recall:shots=1,reference"


def loaded_audit(direct: LanguageModel, base: LanguageModel, folder: Path, attacks: str) -> Audit:
    from repromia.readers import read_members

    records = read_members(folder / "members.jsonl", folder / "nonmembers.jsonl")
    settings = Settings(attacks=(attacks,), bootstrap=200, select=0.2, controls=False)
    return run_audit((direct, base, None), records, settings, store=Store(None), progress=Silent())


def test_audit_by_the_command(
    server: LocalServer, direct: LanguageModel, base: LanguageModel, on_disk: Path, labelled: LabelledRecords
) -> None:
    given = arguments(server, QUICK, "--reference", "base")
    done = repromia(*given, folder=on_disk)
    assert done.returncode == 0, done.stderr + done.stdout
    result = result_in(on_disk)
    assert result.status == "complete"
    assert result.findings[0].code == "found"
    assert result.target["kind"] == "endpoint"
    assert result.target["access"] == "log-probabilities of the given tokens only"
    assert (result.target["url"], result.target["model"]) == (server.url, "leaky")
    assert result.reference is not None
    assert result.reference["model"] == "base"
    assert result.null_target.status == "measured"
    assert "needs the weights" in result.null_target.reference or result.null_target.reference == ""

    loaded = loaded_audit(direct, base, on_disk, QUICK)
    scores = polars.read_parquet(on_disk / "out" / "scores.parquet")
    assert scores["id"].to_list() == list(loaded.records.ids)
    for name in QUICK.split(","):
        np.testing.assert_allclose(scores[name].to_numpy(), loaded.scores[name], atol=1e-3, err_msg=name)
        own, other = result.attack(name).auc, loaded.result.attack(name).auc
        assert own is not None
        assert other is not None
        assert own.estimate == pytest.approx(other.estimate, abs=2e-3)

    asked = texts_asked(server)
    assert len(asked) == len(set(asked))  # nothing is asked twice
    before, content = len(server.asked), (on_disk / "out" / "result.json").read_bytes()
    again = repromia(*given, folder=on_disk)
    assert again.returncode == 0
    assert (on_disk / "out" / "result.json").read_bytes() == content
    assert len(server.asked) == before
    (on_disk / "out" / "result.json").unlink()
    assert repromia(*given, folder=on_disk).returncode == 0
    assert len(server.asked) == before

    files = [path for path in (on_disk / "out").rglob("*") if path.is_file()]
    assert {"answers.jsonl", "events.jsonl", "result.json", "report.html"} <= {path.name for path in files}
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert KEY not in done.stdout + done.stderr
    kept = b"".join(path.read_bytes() for path in files if path.name in ("answers.jsonl", "events.jsonl"))
    assert not any(text[:30].encode() in kept for text in labelled.records.texts())


@pytest.mark.slow
def test_bank_by_the_command(server: LocalServer, on_disk: Path) -> None:
    done = repromia(*arguments(server, f"loss,min_k,{TEXT_ONLY}", "--no-controls", "--redact"), folder=on_disk)
    assert done.returncode in (0, 1), done.stderr
    result = result_in(on_disk)
    bank = result.attack(TEXT_ONLY)
    assert bank.status == "measured", bank.reason
    assert bank.auc is not None
    assert bank.auc.low > 0.5
    assert "could_not" not in bank.details or not bank.details["bank"]["could_not"]
    assert result.attack("same_supervision").status == "measured"
    assert {family.family for family in result.families} == {"prefixes", "edits"}
    failed = {row.name: row.reason for row in result.attacks if row.status != "measured"}
    assert set(failed) <= {"gap_k", "min_k_plus_plus", "surp"}
    assert all("needs more than the model tells" in reason for reason in failed.values())


def test_killed_midway_asks_nothing_again(server: LocalServer, on_disk: Path) -> None:
    given = arguments(server, "loss,pac:copies=2", "--no-controls", "--fprs=0.05")
    process = subprocess.Popen(
        [*REPROMIA, *given], cwd=on_disk, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    )
    answers, deadline = on_disk / "out" / "answers.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and not (answers.is_file() and answers.read_bytes().count(b"[") > 150):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (on_disk / "out" / "result.json").exists()
    time.sleep(0.5)  # a request that was under way ends
    before = texts_asked(server)
    assert 150 < len(before) < 360
    done = repromia(*given, folder=on_disk)
    assert done.returncode == 0, done.stderr
    asked = texts_asked(server)
    assert len(asked) - len(set(asked)) <= 8  # at most the request that was under way


@pytest.mark.slow
def test_budget_ends_the_audit_and_a_larger_one_goes_on(server: LocalServer, on_disk: Path) -> None:
    bank = f"{TEXT_ONLY},loss"
    flags = ("--no-controls", "--fprs=0.05")
    done = repromia(*arguments(server, bank, *flags, "--request-budget", "40"), folder=on_disk)
    assert done.returncode == 2  # in the middle of the bank, whose probes otherwise fail one by one
    said = " ".join(done.stderr.split())
    assert "budget of requests to the endpoint does not suffice" in said
    assert "40 used, at least" in said
    assert "raise the budget" in said
    assert "Traceback" not in said
    assert not (on_disk / "out" / "result.json").exists()
    assert len(server.asked) == 40
    done = repromia(*arguments(server, bank, *flags, "--request-budget", "2000"), folder=on_disk)
    assert done.returncode in (0, 1), done.stderr
    asked = texts_asked(server)
    assert len(asked) == len(set(asked))
    assert not result_in(on_disk).attack(TEXT_ONLY).details["bank"]["could_not"]


def test_the_budget_is_shared_with_references(server: LocalServer, on_disk: Path) -> None:
    given = arguments(server, "loss,reference", "--reference", "base", "--request-budget", "25")
    assert repromia(*given, folder=on_disk).returncode == 2
    assert len(server.asked) == 25
    assert {one["model"] for one in server.asked} == {"leaky", "base"}


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(status=401), Fault(drop=True)])
def test_a_server_that_goes_away_ends_the_audit(fault: Fault, server: LocalServer, labelled: LabelledRecords) -> None:
    """It is no property of an attack: neither a failed row nor a bank with fewer programs."""
    views = make_views(labelled, endpoint(server))
    server.faults.extend([fault] * 50)
    for spec in ("lowercase", TEXT_ONLY):
        with pytest.raises(StoreError) as caught:
            run_attack(parse(spec), views)
        assert isinstance(caught.value, TargetError)
    server.faults.clear()
    assert np.isfinite(figures("lowercase", views)).all()


def test_a_text_that_the_server_refuses_is_a_reason(server: LocalServer, labelled: LabelledRecords) -> None:
    views = make_views(labelled, endpoint(server))
    server.faults.append(Fault(status=400))
    server.faults.append(Fault(status=400))
    assert "refuses a request" in refused("lowercase", views)
    assert np.isfinite(figures("loss", views)).all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--max-tokens", "64"), "--max-tokens cannot go with --endpoint"),
        (("--null-reference", "base"), "--null-reference is a second reference"),
        (("--endpoint", "http://user:pass@host/v1"), "without credentials"),
        (("--endpoint-key", KEY), "name of an environment variable"),
        (("--reference", "leaky"), "The same model was given twice"),
    ],
)
def test_wrong_use_is_one_readable_block(
    server: LocalServer, on_disk: Path, more: tuple[str, ...], message: str
) -> None:
    done = repromia(*arguments(server, "loss", *more), folder=on_disk)
    assert done.returncode != 0
    said = " ".join(done.stderr.replace("│", " ").split())
    assert message in said
    assert "Traceback" not in said
    assert KEY not in said
    assert not server.asked


def test_flags_are_off_by_default_and_key_is_only_a_name(on_disk: Path) -> None:
    make: Callable[..., AuditConfig] = lambda **more: AuditConfig(  # noqa: E731
        model="m", out=on_disk, members=on_disk / "a", nonmembers=on_disk / "b", **more
    )
    assert make().endpoint == ""
    assert make(max_tokens=64).max_tokens == 64
    assert make(endpoint="http://host/v1").endpoint_key == "OPENAI_API_KEY"
