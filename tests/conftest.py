"""Shapes are checked in the test run; real data and small real models come from fixtures."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by itself: on a busy machine workers would hardly run
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small models gain nothing, and two test runs would fight over cores

# How fast an example runs is no property of the code; a busy machine must not fail a test.
settings.register_profile("steady", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")

install_import_hook(
    [
        f"repromia.{name}"
        for name in (
            "signals",
            "metrics",
            "heads",
            "targets",
            "attacks",
            "graph_files",
            "graph_records",
            "blind_graphs",
        )
    ],
    "beartype.beartype",
)

from small import SmallModels, small_models  # noqa: E402 — after the hook, so that shapes are checked

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the real data of {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def ag_news(shared_data: Path) -> list[str]:
    """5,000 news items in random order."""
    with gzip.open(shared_data / "ag_news" / "ag_news.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line)["text"] for line in file]


@pytest.fixture(scope="session")
def stories_folder(shared_data: Path) -> Path:
    """A real 260,032-parameter Llama in the Hugging Face layout."""
    return shared_data / "stories260k"


@pytest.fixture(scope="session")
def models() -> SmallModels:
    """A small base and its leaky twin, trained here (about ten seconds, once a session)."""
    return small_models()
