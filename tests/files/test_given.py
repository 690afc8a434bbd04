"""Files made to harm whoever reads them: each is one error that names the file, and soon."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kv_claims.errors import UsageError
from kv_claims.files.given import DEEPEST, read_yaml
from kv_claims.files.reading import read_text

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{here}: &{here} [{', '.join(['*' + before] * 9)}]\n"
    for before, here in zip("abcdefgh", "bcdefghi", strict=True)
)


def error_of(path: Path, read: Callable[[Path, str], object]) -> str:
    with pytest.raises(UsageError) as caught:
        read(path, "some file")
    message = str(caught.value)
    assert message.startswith(f"some file {path}: ")
    assert "\n" not in message
    assert len(message) < 600 + len(str(path))
    return message.removeprefix(f"some file {path}: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(BOMB, "an alias", id="bomb"),
        pytest.param(f"about: x\nn_kv_heads: {BOMB}", "not YAML", id="bomb-within"),
        pytest.param("a: &a [*a]", "an alias", id="a-list-in-itself"),
        pytest.param("a: &a {b: 1}\nc: {<<: *a}", "an alias", id="merge"),
        pytest.param("[" * 100_000, "more than 50 deep", id="deep-lists"),
        pytest.param("{a: " * 100_000, "more than 50 deep", id="deep-mappings"),
        pytest.param("- " * 100_000, "more than 50 deep", id="deep-in-blocks"),
        pytest.param("? " * 100_000, "more than 50 deep", id="deep-in-keys"),
        pytest.param("1" + ":59" * 300_000, "a number of", id="base-60"),
        pytest.param("a: " + "1" * 100_000, "a number of", id="long-number"),
        pytest.param("a: 1" + ":59" * 30_000 + ".5", "a number of", id="base-60-with-a-point"),
        pytest.param("a: !!int ''", "a tag", id="a-tag-of-a-number"),
        pytest.param("a: !!binary QQ==", "a tag", id="a-tag-of-bytes"),
        pytest.param('a: "\\ud83d"', "half a character", id="half"),
        pytest.param('"\\udc00": a', "half a character", id="half-in-a-key"),
        pytest.param('a: "\\ude00\\ud83d"', "half a character", id="halves-the-wrong-way"),
        pytest.param(
            "".join(f"{k * (2**61 - 1)}: 1\n" for k in range(10_001)), "keys", id="many-keys"
        ),
        pytest.param("'" + "k" * 10_000 + "': 1\n" * 2, "not YAML", id="long-key-twice"),
    ],
)
def test_yaml_that_harms_is_one_error(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(content)
    assert message in error_of(path, read_yaml)


def test_what_is_no_file_of_text(tmp_path: Path) -> None:
    assert "cannot be read (No such file" in error_of(tmp_path / "none", read_yaml)
    assert "cannot be read (it is a folder)" in error_of(tmp_path, read_yaml)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert "not UTF-8" in error_of(tmp_path / "bytes", read_yaml)
    os.mkfifo(tmp_path / "pipe")
    assert "cannot be read (it is a pipe or a device)" in error_of(tmp_path / "pipe", read_yaml)
    assert "cannot be read (it is a pipe or a device)" in error_of(Path("/dev/zero"), read_yaml)


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_text("x" * 100)
    assert read_text(path, "some file", most=100) == "x" * 100
    with pytest.raises(UsageError, match=r"some file: 0 MB, expected at most 0 MB"):
        read_text(path, "some file", most=99)


def test_what_is_within_the_bounds_is_read(tmp_path: Path) -> None:
    path = tmp_path / "some"
    nested: object = "leaf"
    for _ in range(DEEPEST):
        nested = [nested]
    path.write_text(json.dumps(nested))
    assert read_yaml(path, "some file") == nested
    path.write_text('{"a": "\\ud83d\\ude00 x", "b": [1, 2.5, true, null]}')
    assert read_yaml(path, "some file") == {"a": "\U0001f600 x", "b": [1, 2.5, True, None]}


@given(text=st.text(alphabet="ab:-?[]{}&*!|>'\"%@`#,. \n\t\\u0d8e~<=") | st.text())
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with suppress(UsageError):
        read_yaml(path, "some file")
