"""Answers of an endpoint, kept from the moment they arrive: what was paid for is never asked twice."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from repromia.errors import StoreError


@dataclass(frozen=True)
class Answer:
    """token: numbers of the tokens that count, logprob: theirs; read: all tokens of the text, BOS and one generated
    included."""

    token: Int[np.ndarray, " token"]
    logprob: Float[np.ndarray, " token"]
    read: int


class Answers:
    """Answers by a hash of what was asked: in memory, and in an append-only file of hashes and figures (no text).

    A line that a killed run left incomplete is asked again. The file does not depend on the version of the package.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._known: dict[str, tuple[bytes, int]] = {}
        if path is not None and path.is_file():
            for line in path.read_bytes().splitlines():
                try:
                    key, figures, read = json.loads(line)
                    self._known[str(key)] = base64.b64decode(figures, validate=True), int(read)
                except (ValueError, TypeError):
                    continue

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> Answer:
        figures, read = self._known[key]
        half = len(figures) // 2
        return Answer(np.frombuffer(figures[:half], np.int32), np.frombuffer(figures[half:], np.float32), read)

    def put(self, added: dict[str, Answer]) -> None:
        """Keep these. Raises StoreError where they cannot be written."""
        lines = []
        for key, one in added.items():
            figures = one.token.astype(np.int32).tobytes() + one.logprob.astype(np.float32).tobytes()
            self._known[key] = figures, one.read
            lines.append(json.dumps([key, base64.b64encode(figures).decode(), one.read]))
        if self.path is None or not lines:
            return
        try:
            with self.path.open("a", encoding="ascii") as file:
                file.write("\n" + "\n".join(lines) + "\n")  # the first break ends a line that was cut off
        except OSError as error:
            raise StoreError(
                f"Cannot write {self.path.name!r} under {str(self.path.parent)!r}.",
                found=error.strerror or str(error),
                hint="free disk space or choose another --out; what was stored so far is kept and will be used again",
            ) from error
