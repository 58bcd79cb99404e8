"""A model behind an OpenAI-compatible completions endpoint as a target: log-probabilities of given text, no weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from repromia.errors import RecordsError, TargetError
from repromia.records import Chat, Completion, Content, as_text
from repromia.signals import TokenSignals, from_token_arrays
from repromia.targets.endpoint_answers import Answer, Answers
from repromia.targets.endpoint_client import SERVERS, Choice, EndpointClient, EndpointOptions

_PROBES = (
    "The capital of France is",
    "One, two, three, four,",
    "Once upon a time, there was a",
    "The President of the United States of",
)
_LOWEST = -9999.0  # what vLLM says for minus infinity


@dataclass(frozen=True)
class EndpointText:
    """text: what the server is sent; prompt_characters: how many of its leading characters do not count."""

    text: str
    prompt_characters: int = 0


_CHECK = EndpointText("", -1)  # no text: the key under which a passed check is kept


@dataclass
class EndpointModel:
    """A model that is only asked over HTTP.

    Of `TokenSignals` it fills `logprob` and `token` (a hash of the token's text). The rest is not told: NaN, or -1
    for integers. The first choice is left out although servers name one: they key it by its text, so that tokens
    which show the same (parts of a character, special tokens) hide one another.
    Texts are asked in order, one request after the other; what a record gets does not depend on its batch, as far
    as the server's arithmetic does not. Every answer is kept in `answers` and never asked for again.
    """

    options: EndpointOptions
    name: str = "endpoint"
    answers: Answers = field(default_factory=Answers, repr=False, compare=False)
    has_adapter: bool = field(default=False, init=False)
    _client: EndpointClient = field(init=False, repr=False, compare=False)

    modality = "language"

    def __post_init__(self) -> None:
        self._client = EndpointClient(self.options)

    @property
    def context(self) -> int:
        """Tokens the server reads, as the user said."""
        return self.options.context

    @property
    def asked(self) -> int:
        """Tokens that the server said it read."""
        return self._client.tokens

    @property
    def requests_made(self) -> int:
        """Requests so far, retries included."""
        return self._client.requests_made

    @property
    def fingerprint(self) -> str:
        """Hash of address, model name and the text put in front. An endpoint's weights cannot be hashed: a server
        that changes its model under the same name keeps its fingerprint, and what is cached then is out of date."""
        said = repr((self.options.url.rstrip("/"), self.options.model, self.options.begin))
        return blake2b(f"endpoint {said}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def describe(self) -> dict[str, Any]:
        """What a reader of the report needs to know about this model."""
        return {
            "name": self.name,
            "kind": "endpoint",
            "url": self.options.url,
            "model": self.options.model,
            "begins_with": self.options.begin or None,
            "context": self.context,
            "access": "log-probabilities of the given tokens only",
            "alignment_checked": self.options.check,
            "fingerprint": self.fingerprint,
        }

    def encode(self, contents: Sequence[Content], ids: Sequence[str] | None = None) -> list[EndpointText]:
        """Texts as the server is sent them. Raises TargetError for chats, RecordsError where nothing can be scored."""
        if any(isinstance(content, Chat) for content in contents):
            raise TargetError(
                "The records are chats, and the endpoint's chat template is not known.",
                expected="plain text, or a prompt and its completion",
                hint="apply the training template to the records, and give them as plain text",
            )
        texts = [
            EndpointText(as_text(content), len(content.prompt) if isinstance(content, Completion) else 0)
            for content in contents
        ]
        bare = [row for row, one in enumerate(texts) if len(one.text) <= one.prompt_characters or not _sendable(one)]
        if bare:
            named = [ids[row] if ids else str(row) for row in bare[:5]]
            raise RecordsError(
                "Some records leave nothing to score.",
                expected="text after the prompt, without halves of characters (lone surrogates)",
                found=f"{len(bare)} of {len(texts)} records, first: {', '.join(named)}",
                hint="remove these records",
            )
        return texts

    def beside(self, model: str) -> EndpointModel:
        """Another model on the same server: pace, budget and kept answers are shared."""
        other = EndpointModel(replace(self.options, model=model), f"{model} at {self.options.url}", self.answers)
        other._client = EndpointClient(other.options, beside=self._client)
        return other

    def signals(self, sequences: Sequence[EndpointText], prefix: str | None = None) -> TokenSignals:
        """Log-probabilities of the texts, behind an optional shared prefix.

        Scored are tokens that begin in what counts of a text and have a log-probability (a server that shows no BOS
        gives none to a text's first token); one that straddles the border does not count. Raises TargetError.
        """
        found = self._answered(sequences, prefix or "")
        count = sum(len(one.token) for one in found)
        untold, no_id = np.full(count, np.nan, dtype=np.float32), np.full(count, -1, dtype=np.int32)
        return from_token_arrays(
            [len(one.token) for one in found],
            {
                "token": np.concatenate([no_id[:0], *(one.token for one in found)]),
                "logprob": np.concatenate([untold[:0], *(one.logprob for one in found)]),
                "mean": untold,
                "std": untold,
                "top_token": no_id,
                "top_logprob": untold,
                "rank": no_id,
            },
        )

    def lengths(self, sequences: Sequence[EndpointText]) -> list[int]:
        """Tokens that each text takes of the context, as the server cuts it: asked where no answer tells it yet."""
        return [one.read for one in self._answered(sequences, "")]

    def _answered(self, sequences: Sequence[EndpointText], front: str) -> list[Answer]:
        """An answer a text. Those that are not known yet are asked, and kept as they arrive."""
        keys = [self._key(one, front) for one in sequences]
        rows = {key: row for row, key in reversed(list(enumerate(keys))) if key not in self.answers}
        missing = sorted(rows.values())
        keeps = self.answers.path is not None  # without a file, nothing is spent on what cannot be finished
        if missing:
            self._afford(len(missing), at_once=not keeps)
            self._check()
        for at in range(0, len(missing), self.options.batch):
            self._afford(len(missing) - at, at_once=not keeps)
            part = missing[at : at + self.options.batch]
            prompts = [self.options.begin + front + sequences[row].text for row in part]
            choices = self._client.ask(prompts, echo=True, places=part)
            for row, choice in zip(part, choices, strict=True):
                self.answers.put({keys[row]: _answer(choice, front, sequences[row], row)})
        return [self.answers[key] for key in keys]

    def _afford(self, texts: int, *, at_once: bool) -> None:
        self._client.afford(self._client.requests_for(texts) + (0 if self._checked else 2), at_once=at_once)

    def _key(self, one: EndpointText, front: str) -> str:
        said = repr((self.fingerprint, len(front) + one.prompt_characters, front + one.text))
        return blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    @property
    def _checked(self) -> bool:
        return not self.options.check or self._key(_CHECK, "") in self.answers

    def _check(self) -> None:
        """Unless done before, compares tokens' log-probabilities when generated with those when sent as text.

        llama-cpp-python shifts the latter by one token for models without BOS. Raises TargetError.
        """
        if self._checked:
            return
        for probe in _PROBES:
            begun = self.options.begin + probe
            [made] = self._client.ask([begun], echo=False, generate=4)
            if not _tells(made, probe):
                continue
            [echoed] = self._client.ask([begun + made.text], echo=True)
            again = [one for one in read_choice(echoed, probe + made.text, None) if one[1] >= len(probe)]
            if tuple(token for token, _, _ in again) != made.tokens:  # read as text, it is cut otherwise
                continue
            for said, (_, _, found) in zip(made.logprobs, again, strict=True):
                if said is None or abs(found - said) > 0.1 + 0.05 * abs(said):
                    raise TargetError(
                        "The endpoint's log-probabilities do not belong to the tokens they stand beside.",
                        expected=f"{'none' if said is None else f'{said:.2f}'}, as when the server generated the token",
                        found=f"{found:.2f} when the same token was sent",
                        hint="llama-cpp-python is off by one token for models that add no BOS: set `begin` "
                        "(--endpoint-begin) to the text of the model's BOS token, or use vLLM",
                    )
            nothing = np.zeros(0, dtype=np.int32)
            self.answers.put({self._key(_CHECK, ""): Answer(nothing, nothing.astype(np.float32), 0)})
            return
        raise TargetError(
            "It cannot be checked whether the endpoint's log-probabilities belong to the tokens they stand beside.",
            expected="generated tokens with log-probabilities, which are the same tokens when sent",
            found=f"none after {len(_PROBES)} texts",
            hint=f"{SERVERS}; if you are sure of the server, turn `check` off (--no-endpoint-check)",
        )


def _answer(choice: Choice, front: str, one: EndpointText, position: int) -> Answer:
    """The figures of the tokens that count. Raises TargetError where there are none."""
    border = len(front) + one.prompt_characters
    said = read_choice(choice, front + one.text, position)
    scored = [(_token_id(token), lp) for token, at, lp in said if at >= border]
    if not scored:
        raise TargetError(
            "The endpoint scores no token of a text.",
            expected="a log-probability for at least one token after the prompt",
            found=f"none, text {position}",
            hint="remove records of a single token, or set `begin` (--endpoint-begin) to the model's BOS token",
        )
    tokens, logprobs = zip(*scored, strict=True)
    return Answer(np.asarray(tokens, np.int32), np.asarray(logprobs, np.float32), len(choice.tokens))


def _tells(made: Choice, probe: str) -> bool:
    """Whether what was generated tells a shift by one token: tokens that spell it, not one word over and over."""
    words = {token.strip() for token in made.tokens} - {probe.split()[-1].strip(",")}
    return token_starts(made.tokens, made.text) is not None and "�" not in made.text and len(words) > 1


def read_choice(choice: Choice, text: str, position: int | None) -> list[tuple[str, int, float]]:
    """(token, first character, log-probability) of the text's tokens that have one. Raises TargetError.

    position: of the text, for errors; None: one of our own. The servers' `text_offset` is not used: it counts a
    BOS token, or a broken character, differently from server to server.
    """
    where = "in a text of the check" if position is None else f"text {position}"
    made = not choice.text.endswith(text)
    for front in (0, 1):  # the server may show a BOS token
        for back in (1, 0) if made else (0, 1):  # and the token that it was asked to generate
            shown = choice.tokens[front : len(choice.tokens) - back]
            starts = token_starts(shown, text) if shown else None
            if starts is not None:
                said = list(zip(shown, starts, choice.logprobs[front:], strict=False))
                if front == 0 and said[0][2] is None:  # nothing predicts the first token
                    said = said[1:]
                return [(token, at, _figure(lp, where)) for token, at, lp in said if at < len(text)]
    raise TargetError(
        "The endpoint does not give the log-probabilities of the text that it is sent.",
        expected="echo: tokens with log-probabilities that spell the text",
        found=f"{len(choice.tokens)} tokens that do not, {where}" if choice.tokens else f"none, {where}",
        hint=SERVERS,
    )


def _figure(logprob: float | None, where: str) -> float:
    if logprob is None or not _LOWEST < logprob <= 1e-3:  # false for NaN; rounding may leave a little above 0
        said = "none" if logprob is None else "above 0" if logprob > 0 else "NaN" if math.isnan(logprob) else "-inf"
        raise TargetError(
            "The endpoint answered with numbers that are no log-probabilities.",
            expected="a finite log-probability of at most 0 for every token",
            found=f"{said}, {where}",
            hint="check the model on the server (its precision, its quantisation)",
        )
    return min(logprob, 0.0)


def token_starts(tokens: Sequence[str], text: str) -> list[int] | None:
    """The character at which each token begins, or None where the tokens do not spell the text.

    Where a character is split over tokens, servers show each part as U+FFFD or as nothing, and some leave out a
    token's leading space: such characters may be missing. A run of tokens that show no whole character begins where
    its first does. Among several readings, the one that misses fewest characters.
    """
    shown = list(tokens)
    if shown and shown[0].startswith(" ") and not text.startswith(" "):  # SentencePiece puts one in front
        shown[0] = shown[0][1:]
    reach = {0: 0}  # position -> characters missed on the way there
    steps: list[dict[int, int]] = []  # per token: position behind it -> position before it
    for token in shown:
        behind: dict[int, int] = {}
        came: dict[int, int] = {}
        for at in sorted(reach, reverse=True):  # on a tie, the missing character belongs to an earlier token
            hidden = at < len(text) and (text[at].isspace() or not text[at].isascii())
            for missed in (0, 1) if hidden else (0,):
                for end in _ends(token, text, at + missed):
                    if end not in behind or reach[at] + missed < behind[end]:
                        behind[end], came[end] = reach[at] + missed, at
        if not behind:
            return None
        reach = behind
        steps.append(came)
    if len(text) not in reach:
        return None
    starts = []
    at = len(text)
    for came in reversed(steps):
        at = came[at]
        starts.append(at)
    starts.reverse()
    for row in range(1, len(starts)):
        if _broken(shown[row]) and _broken(shown[row - 1]):
            starts[row] = starts[row - 1]
    return starts


def _broken(token: str) -> bool:
    return not token or "�" in token


def _ends(token: str, text: str, at: int) -> list[int]:
    """Where the token may end if it begins at `at`: a U+FFFD stands for a character beyond ASCII, or part of one."""
    ends = [at]
    for place, part in enumerate(token.split("�")):
        if place:
            ends = sorted({*ends, *(end + 1 for end in ends if end < len(text) and not text[end].isascii())})
        ends = [end + len(part) for end in ends if text.startswith(part, end)]
    return ends


def _token_id(token: str) -> int:
    """A stable id of at most 31 bits for a token's text."""
    return int.from_bytes(blake2b(token.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "little") >> 1


def _sendable(one: EndpointText) -> bool:
    try:
        one.text.encode()
    except UnicodeEncodeError:
        return False
    return True
