"""An endpoint's figures against the same model asked directly, over a real HTTP server and its faults."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from local_server import Fault, LocalServer, serving

from repromia.demo.language import paragraphs, small_llama, train_tokenizer
from repromia.errors import RecordsError, TargetError
from repromia.records import Chat, Completion
from repromia.signals import TokenSignals
from repromia.targets.endpoint import EndpointModel, EndpointText, read_choice, token_starts
from repromia.targets.endpoint_answers import Answers
from repromia.targets.endpoint_client import Choice, EndpointOptions, EndpointStoppedError
from repromia.targets.language import LanguageModel
from repromia.targets.load import LoadOptions, wrap_language_model

KEY = "sk-very-secret-0451"
ODD = ["Café “naïve” — 東京 🙂 done.", "  Two  spaces\n\nand\ttabs ", "é", "ends in a broken character 🙂", "�?"]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own wait before a second try; Retry-After is not touched by it."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.02)


@pytest.fixture(scope="module")
def pool() -> list[str]:
    texts = paragraphs(10, 30)
    return [texts[row] for row in np.random.default_rng(5).permutation(len(texts))[:1500]]


@pytest.fixture(scope="module")
def direct(pool: list[str]) -> LanguageModel:
    """An untrained Llama with an output head of its own (a tied one repeats its last token), and sharp opinions."""
    model = small_llama(512, width=64, layers=2, context=256, seed=3)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn(512, 64) * 0.3)
    return wrap_language_model(model, train_tokenizer(pool, 512), options=LoadOptions(max_tokens=200))


@pytest.fixture
def server(direct: LanguageModel) -> Iterator[LocalServer]:
    with serving(direct) as one:
        yield one


def endpoint(server: LocalServer, **options: Any) -> EndpointModel:
    return EndpointModel(EndpointOptions(server.url, "tiny", **{"check": False, "retries": 1, **options}))


def ask(model: EndpointModel, contents: list[Any], prefix: str | None = None) -> TokenSignals:
    return model.signals(model.encode(contents), prefix)


def refused(model: EndpointModel, contents: list[Any]) -> str:
    with pytest.raises(TargetError) as caught:
        ask(model, contents)
    assert caught.value.__cause__ is None
    return str(caught.value)


def oracle(direct: LanguageModel, text: str, border: int) -> list[float]:
    """Log-probabilities of the tokens that begin at the border or behind it, by one forward pass."""
    fast = direct.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False)
    with torch.inference_mode():
        logprob = direct.model(torch.tensor([[0, *fast.ids]])).logits[0].double().log_softmax(-1)
    return [
        float(logprob[at, token])
        for at, (token, (start, _)) in enumerate(zip(fast.ids, fast.offsets, strict=True))
        if start >= border
    ]


def test_figures_are_those_of_the_model_itself(server: LocalServer, direct: LanguageModel, pool: list[str]) -> None:
    texts = [*pool[:9], *ODD]
    model = endpoint(server, batch=4)
    got, expected = ask(model, texts), direct.signals(direct.encode(texts))
    assert np.array_equal(got.offsets, expected.offsets)
    np.testing.assert_allclose(got.logprob, expected.logprob, atol=1e-4)
    assert model.asked == sum(len(one.ids) for one in direct.encode(texts)) == server.tokens_read
    assert [len(one["prompt"]) for one in server.asked[:3]] == [4, 4, 4]
    for name in ("mean", "std", "top_logprob"):
        assert np.isnan(getattr(got, name)).all()
    assert (got.rank == -1).all()
    assert (got.top_token == -1).all()
    assert (got.token >= 0).all()
    shown = [direct.tokenizer.decode([one]) for one in expected.token]
    ids = dict(zip(shown, got.token.tolist(), strict=True))
    assert [ids[one] for one in shown] == got.token.tolist()
    assert len(set(ids.values())) == len(ids)


def test_a_server_that_hides_bos_gives_all_but_the_first_token(direct: LanguageModel, pool: list[str]) -> None:
    with serving(direct, kind="hidden") as server:
        model = endpoint(server)
        got, expected = ask(model, pool[:3]), direct.signals(direct.encode(pool[:3]))
        kept = np.ones(len(expected.logprob), dtype=bool)
        kept[expected.offsets[:-1]] = False
        np.testing.assert_allclose(got.logprob, expected.logprob[kept], atol=1e-4)
        # a list is refused (tried twice), then one text a request, and lists are not tried again
        assert [type(one["prompt"]) for one in server.asked] == [list, list, str, str, str]
        ask(model, pool[3:5])
        assert [type(one["prompt"]) for one in server.asked[5:]] == [str, str]
        assert "text 1" in refused(model, [pool[0], "a"])  # its only token is the first


@pytest.mark.parametrize("fault", [Fault(body='{"choices": []}'), Fault(status=429), Fault(drop=True)])
def test_a_list_without_answers_is_asked_text_by_text(
    server: LocalServer, direct: LanguageModel, pool: list[str], fault: Fault
) -> None:
    server.faults.extend([fault] * 2 if not fault.body else [fault])
    got = ask(endpoint(server, retries=2), pool[:2])
    np.testing.assert_allclose(got.logprob, direct.signals(direct.encode(pool[:2])).logprob, atol=1e-4)
    assert [type(one["prompt"]) for one in server.asked[-2:]] == [str, str]


@pytest.mark.parametrize("prefix", ["Fellow citizens,\n\n", "東京 🙂", "Fell"])
def test_prefix_is_read_and_not_scored(
    server: LocalServer, direct: LanguageModel, pool: list[str], prefix: str
) -> None:
    texts = [*pool[:4], "ow citizens of the Senate", ODD[0]]  # the fifth joins with the third prefix
    got = ask(endpoint(server), texts, prefix)
    expected = [oracle(direct, prefix + text, len(prefix)) for text in texts]
    assert got.lengths.tolist() == [len(one) for one in expected]
    np.testing.assert_allclose(got.logprob, np.concatenate(expected), atol=1e-4)


def test_a_token_over_the_border_is_not_scored(server: LocalServer, direct: LanguageModel) -> None:
    whole = "The Government of the United States"
    lengths = []
    for border in range(8, len(whole), 3):
        record = Completion(whole[:border], whole[border:])
        expected = oracle(direct, whole, border)
        if not expected:  # the last token straddles
            assert "scores no token" in refused(endpoint(server), [record])
            break
        got = ask(endpoint(server), [record])
        np.testing.assert_allclose(got.logprob, expected, atol=1e-4)
        lengths.append(len(expected))
    assert len(set(lengths)) < len(lengths)  # some borders lie within a token


def test_answers_do_not_depend_on_batch_or_order(server: LocalServer, pool: list[str]) -> None:
    texts = [*pool[:6], *ODD]
    one, many = ask(endpoint(server, batch=1), texts), ask(endpoint(server, batch=5), texts)
    assert isinstance(server.asked[0]["prompt"], str)
    back = ask(endpoint(server, batch=3), texts[::-1])
    for row in range(len(texts)):
        figures = one.logprob[one.offsets[row] : one.offsets[row + 1]]
        mirrored = len(texts) - 1 - row
        assert np.array_equal(figures, many.logprob[many.offsets[row] : many.offsets[row + 1]])
        assert np.array_equal(figures, back.logprob[back.offsets[mirrored] : back.offsets[mirrored + 1]])


def test_chats_and_empty_texts_are_refused() -> None:
    model = EndpointModel(EndpointOptions("http://localhost:1/v1", "tiny"))
    with pytest.raises(TargetError, match="chat template"):
        model.encode([Chat((("user", "hello"),))])
    for content in ("", Completion("prompt", ""), "half \ud800"):
        with pytest.raises(RecordsError, match="first: b"):
            model.encode(["fine", content], ["a", "b"])
    assert model.encode([Completion("ab", "c"), "d"]) == [EndpointText("abc", 2), EndpointText("d", 0)]
    assert len(model.signals([])) == 0
    assert model.requests_made == 0


def test_check_passes_an_honest_server(direct: LanguageModel, pool: list[str]) -> None:
    for kind in ("shown", "hidden"):
        with serving(direct, kind=kind) as server:
            model = endpoint(server, check=True)
            ask(model, pool[:1])
            used = model.requests_made
            assert used >= 3
            ask(model, pool[1:2])
            assert model.requests_made == used + 1  # checked once


def test_figures_shifted_by_a_token_are_noticed(direct: LanguageModel, pool: list[str]) -> None:
    with serving(direct, kind="shifted") as server:
        message = refused(endpoint(server, check=True), pool[:1])
        assert "do not belong to the tokens" in message
        assert "`begin`" in message
        assert len(ask(endpoint(server), pool[:1])) == 1  # what the check is for: nothing else tells


def test_begin_puts_a_bos_in_front(direct: LanguageModel, pool: list[str]) -> None:
    with serving(direct, kind="shifted") as server:
        begun = endpoint(server, begin="<s>", check=True)
        got = ask(begun, [*pool[:2], Completion(pool[2][:40], pool[2][40:])], "Fellow ")
        expected = [
            oracle(direct, "Fellow " + text, border) for text, border in ((pool[0], 7), (pool[1], 7), (pool[2], 47))
        ]
        np.testing.assert_allclose(got.logprob, np.concatenate(expected), atol=1e-4)
        assert all(one["prompt"][:3] == "<s>" for one in server.asked if isinstance(one["prompt"], str))
    assert begun.fingerprint != endpoint(server).fingerprint


@pytest.mark.parametrize(
    ("faults", "tries"),
    [
        ([Fault(status=500)], 2),
        ([Fault(status=503), Fault(drop=True)], 3),
        ([Fault(drop=True)], 2),
        ([Fault(delay=0.6)], 2),
        ([Fault(status=429, headers=(("Retry-After", "0.2"),))] * 2, 3),
    ],
)
def test_passing_faults_are_tried_again(server: LocalServer, pool: list[str], faults: list[Fault], tries: int) -> None:
    expected = ask(endpoint(server), pool[:1])
    server.faults.extend(faults)
    model = endpoint(server, retries=4, timeout=0.5 if faults[0].delay else 60.0)
    assert np.array_equal(ask(model, pool[:1]).logprob, expected.logprob)
    assert model.requests_made == tries == len(server.asked) - 1


def test_retry_after_is_obeyed(server: LocalServer, pool: list[str]) -> None:
    server.faults.append(Fault(status=429, headers=(("Retry-After", "1"),)))
    ask(endpoint(server), pool[:1])
    assert server.times[1] - server.times[0] >= 0.99  # left alone, the client would not wait as long


@pytest.mark.parametrize(
    ("fault", "tries", "says"),
    [
        (Fault(status=500), 2, "HTTP 500"),
        (Fault(status=429, headers=(("Retry-After", "0.01"),)), 2, "turns requests away"),
        (Fault(status=401), 1, "refuses the key"),
        (Fault(status=403), 1, "refuses the key"),
        (Fault(status=404), 1, "no such address or model"),
        (Fault(status=400), 1, "refuses a request"),
        (Fault(drop=True), 2, "no connection"),
        (Fault(delay=0.6), 2, "no answer in time"),
        (Fault(body="<html>"), 1, "no JSON"),
        (Fault(body='{"choices": '), 1, "no JSON"),
        (Fault(body='{"error": "busy"}'), 1, "JSON without choices"),
        (Fault(body='{"choices": []}'), 1, "0 choices for one text"),
        (Fault(body='{"choices": [{"index": 0, "text": ""}]}'), 1, "found:    none, text 0"),
        (Fault(figure=float("nan")), 1, "NaN, text 0"),
        (Fault(figure=float("-inf")), 1, "-inf, text 0"),
        (Fault(figure=-9999.0), 1, "-inf, text 0"),
        (Fault(figure=0.5), 1, "above 0, text 0"),
        (Fault(figure=float("inf")), 1, "above 0, text 0"),
    ],
)
def test_lasting_faults_are_errors_without_text(
    server: LocalServer, pool: list[str], fault: Fault, tries: int, says: str
) -> None:
    server.faults.extend([fault] * 8)
    model = endpoint(server, timeout=0.5 if fault.delay else 60.0)
    message = refused(model, pool[:1])
    assert says in message
    assert model.requests_made == tries == len(server.asked)
    assert pool[0][:20] not in message


def test_a_server_that_ignores_echo_is_named(direct: LanguageModel, pool: list[str]) -> None:
    with serving(direct, kind="mute") as server:
        message = refused(endpoint(server), pool[:1])
    assert "1 tokens that do not" in message
    assert "vLLM" in message


def test_a_text_beyond_the_context_is_named_by_position(server: LocalServer, pool: list[str]) -> None:
    message = refused(endpoint(server, batch=3), [*pool[:4], "word " * 300, pool[5]])
    assert "text 4" in message
    assert "context_length_exceeded" in message
    assert "word word" not in message


def test_no_server(pool: list[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    model = EndpointModel(EndpointOptions(url, "tiny", retries=0))
    assert "no connection" in refused(model, pool[:1])


def test_requests_start_evenly_spaced(server: LocalServer, pool: list[str]) -> None:
    server.faults.append(Fault(status=429, headers=(("Retry-After", "0.01"),)))
    ask(endpoint(server, batch=1, requests_per_minute=600), pool[:4])
    gaps = np.diff(server.times)
    assert len(gaps) == 4  # the retry is spaced like the others
    assert gaps.min() > 0.08


def test_budget(server: LocalServer, pool: list[str]) -> None:
    model = endpoint(server, batch=2, budget_requests=4, retries=5)
    ask(model, pool[:4])
    message = refused(model, pool[3:10])
    assert "2 used, at least 3 more needed" in message
    assert model.requests_made == 2  # nothing is spent on what cannot be finished
    server.faults.extend([Fault(status=500)] * 9)
    refused(model, pool[4:5])
    assert model.requests_made == 4 == len(server.asked)  # retries stop at the budget
    assert "4 used" in refused(model, pool[4:5])
    assert len(ask(model, pool[:4])) == 4  # what is known costs nothing


def test_answers_are_kept_as_they_arrive(server: LocalServer, pool: list[str], tmp_path: Path) -> None:
    """With a file the budget is spent to the end, and another process goes on where it stopped."""

    def resumed(**options: Any) -> EndpointModel:
        made = EndpointOptions(server.url, "tiny", batch=2, retries=0, **options)
        return EndpointModel(made, answers=Answers(tmp_path / "answers.jsonl"))

    model = resumed(budget_requests=6)
    with pytest.raises(EndpointStoppedError, match=r"6 used, at least \d more needed"):
        ask(model, pool[:20])
    asked = len(server.asked)
    assert asked == 6
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('["cut off by a kill", "AAA')
    known = [text for one in server.asked for text in one["prompt"] if isinstance(one["prompt"], list)]
    got = ask(resumed(), pool[:20])
    later = [text for one in server.asked[asked:] for text in one["prompt"]]
    assert len(known) > 0  # neither they nor the check are asked again
    assert sorted(known + later) == sorted(pool[:20])
    asked = len(server.asked)
    again = resumed()
    assert again.lengths(again.encode(pool[:20])) == [n + 2 for n in got.lengths]  # BOS and the token generated
    assert np.array_equal(ask(again, pool[:20]).logprob, got.logprob)
    assert len(server.asked) == asked
    np.testing.assert_array_equal(got.logprob, ask(endpoint(server), pool[:20]).logprob)
    kept = (tmp_path / "answers.jsonl").read_text()
    assert not any(word in kept for text in pool[:20] for word in text.split() if len(word) > 9)


def test_equal_texts_are_asked_once_but_not_with_another_border(server: LocalServer, pool: list[str]) -> None:
    model = endpoint(server, batch=1)
    whole, half = pool[0], Completion(pool[0][:20], pool[0][20:])
    got = ask(model, [whole, half, whole])
    assert len(server.asked) == 2
    assert got.lengths[0] == got.lengths[2] > got.lengths[1]
    ask(model, [half.completion], half.prompt)
    assert len(server.asked) == 2  # the same text with the same border
    ask(model.beside("other"), [whole])
    assert server.asked[-1]["model"] == "other"
    assert model.requests_made == 3  # pace and budget are shared


def test_budget_holds_where_lists_are_refused(direct: LanguageModel, pool: list[str]) -> None:
    with serving(direct, kind="hidden") as server:
        model = endpoint(server, budget_requests=3)
        assert "3 used, at least 1 more needed" in refused(model, pool[:2])
        assert len(server.asked) == 3


def test_the_key_is_sent_and_never_shown(
    direct: LanguageModel, pool: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with serving(direct, key=KEY) as server:
        model = endpoint(server, key_variable="AUDIT_KEY")
        said = [refused(model, pool[:1])]  # the server's own message repeats what it was sent
        assert "AUDIT_KEY" in said[0]
        monkeypatch.setenv("AUDIT_KEY", KEY)
        model = endpoint(server, key_variable="AUDIT_KEY")
        assert len(ask(model, pool[:1])) == 1
        monkeypatch.setenv("AUDIT_KEY", f"{KEY}-wrong")
        said += [refused(endpoint(server, key_variable="AUDIT_KEY"), pool[:1])]
        said += [repr(model), str(model.describe()), model.fingerprint, repr(model.options), caplog.text]
    assert not any(KEY in one or pool[0][:20] in one for one in said)


@pytest.mark.parametrize(
    "options",
    [
        {"url": f"https://user:{KEY}@host/v1"},
        {"url": f"https://host/v1?key={KEY}"},
        {"url": "host/v1"},
        {"url": "http://[broken/v1"},
        {"key_variable": KEY},
        {"batch": 0},
        {"retries": -1},
        {"timeout": 0.0},
        {"requests_per_minute": -1},
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TargetError) as caught:
        EndpointOptions(**{"url": "http://host/v1", "model": "tiny", **options})
    assert KEY not in str(caught.value)


def test_fingerprint_is_of_what_changes_answers() -> None:
    def mark(**options: Any) -> str:
        return EndpointModel(EndpointOptions(**{"url": "http://host/v1", "model": "tiny", **options})).fingerprint

    assert mark() == mark(batch=1, timeout=3.0, retries=0, key_variable="OTHER", url="http://host/v1/")
    assert len({mark(), mark(url="http://other/v1"), mark(model="large"), mark(begin="<s>")}) == 4


@pytest.mark.parametrize(
    ("tokens", "text", "starts"),
    [
        (["The", " cat"], "The cat", [0, 3]),
        (["The", "cat"], "The cat", [0, 3]),  # a server that leaves out leading spaces
        ([" The", " cat"], "The cat", [0, 3]),
        (["a", "�", "�", "b"], "a🙂b", [0, 1, 1, 2]),
        (["a", "", "", "b"], "a🙂b", [0, 1, 1, 2]),
        (["a", "", "🙂", "b"], "a🙂b", [0, 1, 1, 2]),
        ([" �", "�", "�", "�"], " 東京", [0, 0, 0, 0]),
        (["�", "?"], "�?", [0, 1]),
        (["The", " dog"], "The cat", None),
        (["The"], "The cat", None),
        (["The", " cat", "s"], "The cat", None),
        (["T", "e"], "The", None),
    ],
)
def test_token_starts(tokens: list[str], text: str, starts: list[int] | None) -> None:
    assert token_starts(tokens, text) == starts


def test_only_a_generated_token_is_left_out() -> None:
    tokens, logprobs = ("a", "�", "�"), (None, -1.0, -2.0)
    assert [lp for _, _, lp in read_choice(Choice("a🙂", tokens, logprobs), "a🙂", 0)] == [-1.0, -2.0]
    made = Choice("a🙂 b", (*tokens, " b"), (*logprobs, -3.0))
    assert [lp for _, _, lp in read_choice(made, "a🙂", 0)] == [-1.0, -2.0]
    with_bos = Choice("a🙂", ("<s>", *tokens), (None, -0.5, *logprobs[1:]))
    assert [at for _, at, _ in read_choice(with_bos, "a🙂", 0)] == [0, 1, 1]
    with pytest.raises(TargetError, match="none, text 0"):
        read_choice(Choice("a🙂", tokens, (None, -1.0, None)), "a🙂", 0)


@given(st.data())
def test_token_starts_of_any_text_in_any_cut(data: st.DataObject) -> None:
    """Bytes cut anywhere and shown as U+FFFD or as nothing: whole tokens keep their place."""
    text = data.draw(st.text(st.sampled_from("ab é🙂東\n"), min_size=1, max_size=12))
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw)), max_size=8)) | {0, len(raw)})
    errors = data.draw(st.sampled_from(["replace", "ignore"]))
    parts = [raw[left:right] for left, right in pairwise(cuts)]
    starts = token_starts([part.decode(errors=errors) for part in parts], text)
    assert starts is not None
    assert starts == sorted(starts)
    if all(_whole(part) for part in parts):
        assert starts == [len(raw[:at].decode()) for at in cuts[:-1]]


def _whole(part: bytes) -> bool:
    try:
        part.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.fixture(scope="module")
def llama_server() -> Iterator[str]:
    """llama-cpp-python's own server over a GGUF file; REPROMIA_LLAMA_PYTHON may name another interpreter for it."""
    model = os.environ.get("REPROMIA_LLAMA_SERVER_MODEL", "")
    python = os.environ.get("REPROMIA_LLAMA_PYTHON", "")
    if not model:
        pytest.skip("needs a GGUF file in REPROMIA_LLAMA_SERVER_MODEL")
    if not python and importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("needs llama-cpp-python[server], or an interpreter that has it in REPROMIA_LLAMA_PYTHON")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--logits_all", "true", "--n_ctx", "512", "--n_threads", "1", "--port", str(port), "--verbose", "false"]
    process = subprocess.Popen(
        [python or sys.executable, "-m", "llama_cpp.server", "--model", model, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "the server ended"
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def test_llama_cpp_python(llama_server: str) -> None:
    """A real server: checked, finite, the same when asked again, and English is likelier than its words shuffled."""
    begin = os.environ.get("REPROMIA_LLAMA_BEGIN", "")  # for models that add no BOS, as "<|im_start|>"
    model = EndpointModel(EndpointOptions(llama_server, "gguf", begin=begin, context=512))
    texts = paragraphs(15, 30)[:2]
    shuffled = [" ".join(np.random.default_rng(1).permutation(text.split())) for text in texts]
    plain, mixed = ask(model, texts), ask(model, shuffled)
    assert (plain.average(plain.logprob) > mixed.average(mixed.logprob)).all()
    assert np.array_equal(ask(model, texts).logprob, plain.logprob)
    behind = ask(model, texts, texts[0] + "\n\n")
    assert behind.average(behind.logprob)[0] > plain.average(plain.logprob)[0] + 1  # it has just read the first
