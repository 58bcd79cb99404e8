"""The run directory: whole parts or none, one audit at a time, no record text."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from repromia.errors import StoreError
from repromia.signals import TOKEN_FIELDS, TokenSignals, from_token_arrays
from repromia.store import Store, code_digest, digest, write_atomic


def some_signals() -> TokenSignals:
    whole = ("token", "top_token", "rank")
    arrays = {name: np.arange(6, dtype=np.int32 if name in whole else np.float32) for name in TOKEN_FIELDS}
    return from_token_arrays([2, 4], arrays)


def stored(tmp_path: Path) -> tuple[Store, Path]:
    store = Store(tmp_path)
    store.put("key", some_signals())
    return store, tmp_path / "parts" / "key.safetensors"


def test_part_comes_back_bit_for_bit(tmp_path: Path) -> None:
    store, _ = stored(tmp_path)
    back, given = store.get("key"), some_signals()
    assert back is not None
    for name in ("offsets", *TOKEN_FIELDS):
        assert getattr(back, name).dtype == getattr(given, name).dtype
        np.testing.assert_array_equal(getattr(back, name), getattr(given, name))
    assert store.get("other") is None


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_part_is_missing(tmp_path: Path, kept: int) -> None:
    store, path = stored(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    assert store.get("key") is None
    store.put("key", some_signals())
    assert store.get("key") is not None


def test_every_flipped_byte_of_a_part_is_noticed(tmp_path: Path) -> None:
    store, path = stored(tmp_path)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        found = store.get("key")
        assert found is None or all(
            np.array_equal(getattr(found, name), getattr(some_signals(), name)) for name in ("offsets", *TOKEN_FIELDS)
        )


def test_part_whose_figures_do_not_match_its_checksum_is_missing(tmp_path: Path) -> None:
    store, path = stored(tmp_path)
    arrays = load_file(path)
    arrays["logprob"][0] += 1
    save_file(arrays, path, metadata={"checksum": "0" * 32})
    assert store.get("key") is None
    save_file(arrays, path)
    assert store.get("key") is None


def test_damaged_json_is_missing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_json("key", {"a": 1})
    assert store.get_json("key") == {"a": 1}
    (tmp_path / "parts" / "key.json").write_bytes(b'{"a": \xff')
    assert store.get_json("key") is None


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk_leaves_the_old_file_and_no_partial_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "result.json"
    write_atomic(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), full)
    with pytest.raises(StoreError, match="No space left") as refused:
        write_atomic(path, b"new and longer")
    assert "free disk space or choose another --out" in str(refused.value)
    assert [one.name for one in tmp_path.iterdir()] == ["result.json"]
    assert path.read_bytes() == b"old"


def test_a_folder_that_is_a_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "parts").write_text("in the way")
    with pytest.raises(StoreError, match="to do"):
        Store(tmp_path).put_json("key", 1)


def test_second_holder_is_refused_and_the_lock_is_given_back(tmp_path: Path) -> None:
    with (
        Store(tmp_path).locked(),
        pytest.raises(StoreError, match="Another audit is running"),
        Store(tmp_path).locked(),
    ):
        pass
    with Store(tmp_path).locked() as again:
        assert again.folder == tmp_path


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for left in (tmp_path / ".result.json.17.tmp", tmp_path / "parts" / ".key.json.17.tmp"):
        left.write_text("{")
    with Store(tmp_path).locked():
        assert sorted(one.name for one in tmp_path.rglob("*")) == [".lock", "parts"]


def test_files_of_the_user_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    mine = (tmp_path / ".draft.tmp", tmp_path / "src" / ".main.py.17.tmp")
    for one in mine:
        one.write_text("mine")
    with Store(tmp_path).locked():
        assert all(one.read_text() == "mine" for one in mine)


def test_run_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Cannot use"), Store(tmp_path / "file").locked():
        pass


def test_events_are_one_json_object_a_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.event("view", of="target", records=3)
    store.event("done")
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["view", "done"]
    assert lines[0]["records"] == 3


def test_event_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(StoreError, match=r"events\.jsonl"):
        Store(tmp_path).event("done")


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store(None).locked() as store:
        store.put("key", some_signals())
        store.put_json("key", 1)
        store.event("done")
        assert store.get("key") is None
        assert store.get_json("key") is None
    assert list(tmp_path.iterdir()) == []


def test_digests_tell_parts_apart() -> None:
    assert digest("a", 1) == digest("a", 1)
    assert len({digest("a", 1), digest("a", 2), digest("a1"), digest(["a", 1]), digest("a", "1")}) == 5
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len(code_digest()) == 32
