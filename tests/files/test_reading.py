"""What is read from files of others: plain files, strict JSON, types, paths that stay inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict

import pytest

from kv_claims.errors import UsageError
from kv_claims.files.reading import (
    MOST_NESTED,
    Count,
    Number,
    checked,
    inside,
    json_of,
    read_bytes,
    read_json,
    shown,
    typed,
)


class Leaf(TypedDict):
    low: Number | None
    n: Count


class Tree(TypedDict):
    leaves: list[Leaf]
    by_name: dict[str, Leaf]


WHOLE = {"leaves": [{"low": 0.5, "n": 1}], "by_name": {"a": {"low": None, "n": 2}}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "truncated"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b'{"a": NaN}', "malformed"),
        (b'{"a": -Infinity}', "malformed"),
        (b'{"a": 1e400}', "out of range"),
        (b'{"a": ' + b"1" * 10_000 + b"}", "out of range"),
        (b'{"a": "\\ud800"}', "truncated|surrogate"),
        (b'{"a": "\xff"}', "utf-8|malformed"),
        (b'{"a": 1, "a": 2}', "key 'a' is given twice"),
        (b"[" * 10_000, "nested deeper than 40"),
        (b"[" * 41 + b"]" * 41, "nested deeper than 40"),
        (b"[1,]", "trailing comma"),
    ],
    ids=map(str, range(12)),
)
def test_json_that_the_standard_does_not_have_is_refused(
    tmp_path: Path, text: bytes, told: str
) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(UsageError, match=rf"a\.json: no JSON \(.*({told})"):
        read_json(tmp_path / "a.json", "a test")


def test_json_as_it_may_be_is_read() -> None:
    nested = b"[" * (MOST_NESTED - 1) + b"]" * (MOST_NESTED - 1)
    assert json_of(nested)
    assert json_of(b'{"a": 9007199254740993, "b": "\\ud83d\\ude00"}') == {
        "a": 9007199254740993,
        "b": "\N{GRINNING FACE}",
    }


def test_only_plain_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 2_000_000)
    for name, told in (
        ("pipe", "a pipe or a device"),
        (".", "a folder"),
        ("gone", "No such file"),
        ("a\0b", "null"),
        ("large", "2 MB, expected a test of at most 1 MB"),
    ):
        with pytest.raises(UsageError, match=told):
            read_bytes(tmp_path / name, "a test", most=2**20)
    with pytest.raises(UsageError, match="a device"):
        read_bytes(Path("/dev/zero"), "a test")


def test_what_is_larger_than_its_size_says_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As files of the system are, and one that grows meanwhile."""
    path = tmp_path / "grows"
    path.write_bytes(b"x" * 3 * 2**20)
    monkeypatch.setattr("kv_claims.files.reading.check_file", lambda *_, **__: None)
    with pytest.raises(UsageError, match="grows: 1 MB, expected a test of at most 1 MB"):
        read_bytes(path, "a test", most=2**20)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"leaves": [{"low": 1, "n": 1}, {"low": "x", "n": 1}]}, r"\$\.leaves\[1\]\.low: expected"),
        ({"by_name": {"a": {"low": 1, "n": 1}, "b": {"n": 1}}}, r"\$\.by_name\['b'\]: object miss"),
        ({"by_name": {"\x1b[2J": {"low": 0, "n": -1}}}, r"\$\.by_name\['\\x1b\[2J'\]\.n: expected"),
        ({"leaves": [{"low": True, "n": 1}]}, r"\.low: expected float \| null, got bool"),
        ({"leaves": [{"low": 1e200, "n": 1}]}, r"\.low: expected float <= 1e"),
        ({"leaves": [{"low": 1, "n": 2**60}]}, r"\.n: expected int <= 9007199254740992"),
        ({"leaves": [{"low": 10**200, "n": 2}]}, r"\.low: expected float <= 1e"),
    ],
    ids=map(str, range(7)),
)
def test_a_wrong_type_is_told_with_its_place(change: dict[str, object], told: str) -> None:
    content = {**WHOLE, **change}
    before = repr(content)
    with pytest.raises(UsageError, match=rf"^a file: .*{told}") as raised:
        checked(content, Tree, "a file")
    assert str(raised.value).isprintable()
    assert repr(content) == before


def test_what_is_right_stays_as_it_was_with_what_is_not_known() -> None:
    content = {**WHOLE, "later": [1]}
    assert checked(content, Tree, "a file") is content
    assert "later" not in typed(content, Tree, "a file")


def test_a_path_stays_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "in").symlink_to(folder / "sub")
    assert inside(folder, "sub/x.csv", "w") == folder / "sub/x.csv"
    assert inside(folder, "in/x.csv", "w") == folder / "in/x.csv"
    assert inside(folder, "sub/../x.csv", "w") == folder / "sub/../x.csv"
    for name in ("../secret", "/etc/passwd", "out", "sub/../../secret", "a\0b", "loop"):
        with pytest.raises(UsageError, match=r"^w: '.*is not in .*, expected a file in it"):
            inside(folder, name, "w")


def test_what_is_shown_of_others_is_short_and_obeyed_by_no_terminal() -> None:
    assert shown("\x1b[2J\u202e") == r"'\x1b[2J\u202e'"
    assert len(shown("x" * 10_000)) < 70
