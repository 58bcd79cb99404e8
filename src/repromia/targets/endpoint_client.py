"""Requests to an OpenAI-compatible `/v1/completions`: pace, budget, retries, and errors without text or keys."""

from __future__ import annotations

import json
import os
import re
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from repromia.errors import StoreError, TargetError

SERVERS = (
    "use vLLM, or llama-cpp-python's server with --logits_all true; llama.cpp's own llama-server, and hosted "
    "services that have turned echo off, do not give the log-probabilities of a prompt"
)
_NO_LISTS = (400, 405, 413, 415, 422, 500, 501)  # what servers answer that take one prompt a request


class EndpointStoppedError(TargetError, StoreError):
    """The endpoint does not go on (no answer, no entry, budget spent). As a full disk, this is no property of an
    attack and ends the audit; it goes on from the answers kept."""


@dataclass(frozen=True)
class EndpointOptions:
    """Where an endpoint is and how it is asked.

    url: base address up to `/v1`; model: the name the server knows it by. key_variable: environment variable that
    holds the key (unset: none is needed). begin: text of a BOS token to put in front of every text, for servers
    that do not add it; never scored. context: tokens the server reads, prefix included.
    batch: texts a request; servers that refuse lists are asked for one at a time. requests_per_minute,
    budget_requests: our own limits, retries included; 0: none. timeout: seconds. check: ask first (two requests
    or a few more) whether the figures belong to the tokens they stand beside. Raises TargetError.
    """

    url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    begin: str = ""
    context: int = 2048
    batch: int = 8
    requests_per_minute: int = 0
    budget_requests: int = 0
    retries: int = 5
    timeout: float = 60.0
    check: bool = True

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname)
            secret = bool(parts.username or parts.password or parts.query or parts.fragment)
        except ValueError:
            valid, secret = False, False
        if not valid or secret:
            raise TargetError(
                "The endpoint's address cannot be used.",
                expected="http(s)://HOST/v1, without credentials or a query",
                found="credentials, a query or a fragment in it" if secret else "no such address",
                hint=f"put the key into the environment variable {_shown(self.key_variable)}" if secret else "",
            )
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.key_variable):
            raise TargetError(
                "The endpoint's key variable is no name of an environment variable.",
                expected="a name such as OPENAI_API_KEY; never the key itself",
            )
        least = {"context": 2, "batch": 1, "requests_per_minute": 0, "budget_requests": 0, "retries": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise TargetError(f"The endpoint's {name} is too small.", expected=f"at least {value}")
        if not self.timeout > 0:
            raise TargetError("The endpoint's timeout is too small.", expected="above 0 seconds")


def _shown(variable: str) -> str:
    return variable if re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable) else "that key_variable names"


@dataclass(frozen=True)
class Choice:
    """What the server said of one prompt: its text, and its tokens with their log-probabilities (none: not told)."""

    text: str
    tokens: tuple[str, ...]
    logprobs: tuple[float | None, ...]


@dataclass
class _Pace:
    """Counts requests as they start, and spaces the starts evenly."""

    interval: float
    started: int = 0
    free: float = 0.0

    def __call__(self, _request: object) -> None:
        now = time.monotonic()
        if self.free > now:
            time.sleep(self.free - now)
        self.free = max(now, self.free) + self.interval
        self.started += 1


class _ListRefusedError(Exception):
    """A list of prompts got no usable answer; `known`: because the server does not take lists."""

    def __init__(self, known: bool) -> None:
        super().__init__()
        self.known = known


class EndpointClient:
    """Asks for completions, one request after the other.

    tokens: tokens that the server said it read. beside: a client whose pace and budget are shared.
    Raises TargetError, whose message holds no text and no key.
    """

    def __init__(self, options: EndpointOptions, *, beside: EndpointClient | None = None) -> None:
        self.options = options
        self.tokens = 0
        interval = 60 / options.requests_per_minute if options.requests_per_minute else 0.0
        self._pace: _Pace = beside._pace if beside else _Pace(interval)
        self._takes_lists: bool | None = None if options.batch > 1 else False
        self._http: Any = None

    @property
    def requests_made(self) -> int:
        """Requests started so far, retries included."""
        return self._pace.started

    def requests_for(self, texts: int) -> int:
        """Requests that this many texts take when none fails."""
        return texts if self._takes_lists is False else -(-texts // self.options.batch)

    def afford(self, needed: int, *, at_once: bool = True) -> None:
        """Raises EndpointStoppedError where the budget does not cover this many more requests, or not one of them."""
        budget = self.options.budget_requests
        if budget and needed and self.requests_made + (needed if at_once else 1) > budget:
            raise EndpointStoppedError(
                "The budget of requests to the endpoint does not suffice.",
                expected=f"at most {budget} requests",
                found=f"{self.requests_made} used, at least {needed} more needed",
                hint="raise the budget, or audit fewer records or attacks; in the same --out, answers so far are kept",
            )

    def ask(self, prompts: Sequence[str], *, echo: bool, generate: int = 1, places: Sequence[int] = ()) -> list[Choice]:
        """One answer a prompt, in order. generate: tokens; places: of the prompts among the texts, for errors."""
        places = places or range(len(prompts))
        if len(prompts) > 1 and self._takes_lists is not False:
            try:
                choices = self._send(list(prompts), echo, generate, places)
            except _ListRefusedError as refused:
                if refused.known and self._takes_lists is None:
                    self._takes_lists = False
            else:
                self._takes_lists = True
                return choices
        return [self._send([prompt], echo, generate, [place])[0] for prompt, place in zip(prompts, places, strict=True)]

    def _send(self, prompts: list[str], echo: bool, generate: int, places: Sequence[int]) -> list[Choice]:
        openai = _openai()
        self.afford(1)
        retries = self.options.retries
        trying = len(prompts) > 1 and self._takes_lists is None
        if trying:  # what fails now may be the list: the texts are tried again one by one
            retries = min(1, retries)
        if self.options.budget_requests:
            retries = min(retries, self.options.budget_requests - self.requests_made - 1)
        before = self.requests_made
        try:
            answer = (
                self._client()
                .with_options(max_retries=retries)
                .completions.with_raw_response.create(
                    model=self.options.model,
                    prompt=prompts if len(prompts) > 1 else prompts[0],
                    echo=echo,
                    logprobs=1,
                    max_tokens=generate,  # 0 is "without limit" to llama-cpp-python
                    temperature=0,
                )
            )
            body = json.loads(answer.http_response.text)
        except openai.APIStatusError as error:
            status = error.status_code
            if len(prompts) > 1 and (status in _NO_LISTS or (trying and status not in (401, 403, 404))):
                raise _ListRefusedError(status in _NO_LISTS) from None
            # `from None`: servers repeat texts and keys in their messages
            raise self._refusal(status, _codes(error), self.requests_made - before, places) from None
        except openai.APIConnectionError as error:
            if trying:
                raise _ListRefusedError(False) from None
            slow = isinstance(error, openai.APITimeoutError)
            raise EndpointStoppedError(
                "The endpoint does not answer.",
                expected=f"an answer from {self.options.url} within {self.options.timeout:g} s",
                found=f"{'no answer in time' if slow else 'no connection'}, "
                f"{self.requests_made - before} requests, {_where(places)}",
                hint="check the address and that the server runs; raise the timeout for long texts",
            ) from None
        except ValueError:
            raise _malformed("an answer that is no JSON", places) from None
        return self._read(body, places)

    def _client(self) -> Any:
        if self._http is None:
            openai = _openai()
            http = openai.DefaultHttpxClient(event_hooks={"request": [self._pace]})
            self._http = openai.OpenAI(
                base_url=self.options.url,
                api_key=os.environ.get(self.options.key_variable) or "none",
                timeout=self.options.timeout,
                http_client=http,
            )
            weakref.finalize(self, http.close)
        return self._http

    def _refusal(self, status: int, codes: str, tries: int, places: Sequence[int]) -> TargetError:
        found = f"HTTP {status}{codes}, {tries} requests, {_where(places)}"
        if status in (401, 403):
            return EndpointStoppedError(
                "The endpoint refuses the key.",
                expected=f"a key for {self.options.url} in the environment variable {self.options.key_variable}",
                found=found,
            )
        if status == 404:
            return EndpointStoppedError(
                "The endpoint knows no such address or model.",
                expected=f"POST {self.options.url}/completions for the model {self.options.model!r}",
                found=found,
                hint="check the address (it usually ends in /v1) and the model's name",
            )
        if status == 429:
            return EndpointStoppedError(
                "The endpoint turns requests away.",
                expected="an answer",
                found=found,
                hint="set requests per minute below the server's limit, allow more retries, or check the quota",
            )
        if status < 500:
            return TargetError(
                "The endpoint refuses a request.",
                expected="echo=true, logprobs=1, max_tokens=1 on a text that fits the server's context",
                found=found,
                hint=f"cut the records to the server's context; {SERVERS}",
            )
        return EndpointStoppedError(
            "The endpoint fails.",
            expected="an answer",
            found=found,
            hint="look into the server's log (llama-cpp-python needs --logits_all true), or allow more retries",
        )

    def _read(self, body: Any, places: Sequence[int]) -> list[Choice]:
        count = len(places)
        rows = body.get("choices") if isinstance(body, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise _malformed("JSON without choices", places)
        if sorted(str(row.get("index")) for row in rows) != sorted(str(at) for at in range(count)):
            if count > 1:
                raise _ListRefusedError(True)
            raise _malformed(f"{len(rows)} choices for one text", places)
        choices = [_choice(row) for row in sorted(rows, key=lambda row: int(row["index"]))]
        usage = body.get("usage")
        told = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        self.tokens += told if isinstance(told, int) else sum(len(choice.tokens) for choice in choices)
        return choices


def _openai() -> Any:
    try:
        import openai
    except ImportError as error:
        raise TargetError(
            "Endpoints are asked with the package `openai`, which is not installed.",
            hint="pip install 'repromia[endpoint]'",
        ) from error
    return openai


def _choice(row: dict[str, Any]) -> Choice:
    said = row.get("logprobs")
    said = said if isinstance(said, dict) else {}
    tokens, logprobs, text = said.get("tokens"), said.get("token_logprobs"), row.get("text")
    text = text if isinstance(text, str) else ""
    if (
        isinstance(tokens, list)
        and isinstance(logprobs, list)
        and len(tokens) == len(logprobs)
        and all(isinstance(token, str) for token in tokens)
        and all(one is None or type(one) in (int, float) for one in logprobs)
    ):
        return Choice(text, tuple(tokens), tuple(None if one is None else float(one) for one in logprobs))
    return Choice(text, (), ())


def _codes(error: Any) -> str:
    """The server's own short names for an error; its message may repeat what it was sent."""
    known = [one for one in (error.type, error.code) if isinstance(one, str) and re.fullmatch(r"[a-z_]{1,40}", one)]
    return f" ({', '.join(dict.fromkeys(known))})" if known else ""


def _where(places: Sequence[int]) -> str:
    return f"text {places[0]}" if len(places) == 1 else f"texts {places[0]} to {places[-1]}"


def _malformed(found: str, places: Sequence[int]) -> TargetError:
    return TargetError(
        "The endpoint's answer cannot be read.",
        expected="JSON as of OpenAI's completions: one choice a text",
        found=f"{found}, {_where(places)}",
        hint="check that the address is that of a completions server, not of a web page or a proxy",
    )
