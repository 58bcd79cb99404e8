"""A small OpenAI-compatible `/v1/completions` over a real transformers model, with faults to order."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import torch

from repromia.targets.language import LanguageModel


@dataclass(frozen=True)
class Fault:
    """What one request gets instead of an answer, or what is done to its answer.

    status: an HTTP error; drop: the connection is closed; body: sent as it is; figure: replaces the last
    log-probability of the first text; delay: seconds before the answer.
    """

    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    drop: bool = False
    body: str = ""
    figure: float | None = None
    delay: float = 0.0


@dataclass
class LocalServer:
    """kind: `shown` shows the BOS token and takes lists (as vLLM); `hidden` hides it, gives nothing for the first
    token, and takes one prompt (as llama-cpp-python); `shifted` is what the latter does for models without BOS, and
    aligned where the prompt itself begins with the BOS token's text; `mute` ignores echo. key: the only accepted
    key, if any. others: more models, by the name they are asked for. Faults are used up in order, one a request.
    """

    target: LanguageModel
    kind: Literal["shown", "hidden", "shifted", "mute"] = "shown"
    key: str = ""
    others: dict[str, LanguageModel] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    asked: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    url: str = ""
    tokens_read: int = 0

    def choice(self, prompt: str, index: int, body: dict[str, Any]) -> dict[str, Any]:
        """One choice, as the server's kind would give it."""
        target = self.others.get(body["model"], self.target)
        tokenizer, bos = target.tokenizer, target.encoder.bos
        fast = tokenizer.backend_tokenizer.encode(prompt, add_special_tokens=False)
        front = [] if self.kind == "shifted" or bos is None else [bos]
        ids = [*front, *fast.ids]
        self.tokens_read += len(ids)
        every = list(ids)
        with torch.inference_mode():
            for _ in range(body["max_tokens"]):
                logprob = target.model(torch.tensor([every])).logits[0].double().log_softmax(-1)
                every.append(int(logprob[-1].argmax()))
        made = every[len(ids) :]
        figures = [None] + [float(logprob[at - 1, every[at]]) for at in range(1, len(every))]
        if not body["echo"] or self.kind == "mute":
            every, figures = made, figures[len(ids) :]
        elif self.kind == "shifted" and ids[0] != bos:
            every, figures = ids, [None] + [float(logprob[at, ids[at]]) for at in range(1, len(ids))]
        elif self.kind != "shown":
            every, figures = every[1:], [None, *figures[2:]]
        shown = [tokenizer.decode([one]) for one in every]
        generated = tokenizer.decode(made)
        said = prompt + generated if body["echo"] and self.kind != "mute" else generated
        return {
            "text": said,
            "index": index,
            "finish_reason": "length",
            "logprobs": {
                "tokens": shown,
                "token_logprobs": figures,
                "text_offset": [sum(map(len, shown[:at])) for at in range(len(shown))],
                "top_logprobs": [{token: one} if one else None for token, one in zip(shown, figures, strict=False)],
            },
        }

    def answer(self, body: dict[str, Any], fault: Fault) -> tuple[int, str]:
        """Status and body."""
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if isinstance(body["prompt"], list) and self.kind in ("hidden", "shifted"):
            return 500, json.dumps({"error": {"message": "", "type": "internal_server_error"}})
        if any(len(self.target.tokenizer(one)["input_ids"]) >= self.target.context for one in prompts):
            error = {"message": f"too long: {prompts[0]}", "type": "invalid", "code": "context_length_exceeded"}
            return 400, json.dumps({"error": error})
        read = self.tokens_read
        choices = [self.choice(prompt, index, body) for index, prompt in enumerate(prompts)]
        if fault.figure is not None:
            choices[0]["logprobs"]["token_logprobs"][-2] = fault.figure
        usage = {"prompt_tokens": self.tokens_read - read, "completion_tokens": len(prompts)}
        answer = {"object": "text_completion", "model": body["model"], "choices": choices[::-1], "usage": usage}
        return 200, json.dumps(answer)


@contextmanager
def serving(target: LanguageModel, **options: Any) -> Iterator[LocalServer]:
    """The server, answering at `url` while the block runs."""
    server = LocalServer(target, **options)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.times.append(time.monotonic())
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(body)
            fault = server.faults.popleft() if server.faults else Fault()
            time.sleep(fault.delay)
            if fault.drop:
                self.close_connection = True
                return
            if server.key and self.headers["Authorization"] != f"Bearer {server.key}":
                said = f"Incorrect API key provided: {self.headers['Authorization']}"
                status, answer = 401, json.dumps({"error": {"message": said, "code": "invalid_api_key"}})
            elif self.path != "/v1/completions":
                status, answer = 404, "{}"
            elif fault.status:
                status, answer = fault.status, json.dumps({"error": {"message": str(body["prompt"])}})
            elif fault.body:
                status, answer = 200, fault.body
            else:
                status, answer = server.answer(body, fault)
            sent = answer.encode()
            self.send_response(status)
            for name, value in (*fault.headers, ("Content-Type", "application/json")):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
