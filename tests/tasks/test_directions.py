"""Directions in files: what is read, and what is refused by one error that names the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from kv_claims.errors import UsageError
from kv_claims.tasks.directions import Direction, MeanDifference, read_direction
from kv_claims.tasks.load import load_task
from tests.tasks.test_load import GOOD

D, LAYERS, HEADS = 6, 4, 2


def saved(path: Path, array: Any) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize(
    ("shape", "read"),
    [((D,), (1, 1, D)), ((LAYERS, D), (LAYERS, 1, D)), ((LAYERS, HEADS, D), (LAYERS, HEADS, D))],
)
def test_every_shape_is_read_from_both_kinds_of_file(
    tmp_path: Path, shape: tuple[int, ...], read: tuple[int, ...]
) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    save_file({"anything": array}, tmp_path / "d.safetensors")
    one = read_direction("d", saved(tmp_path / "d.npy", array))
    other = read_direction("d", tmp_path / "d.safetensors")
    assert one == other
    assert one.parts[""].shape == read
    np.testing.assert_array_equal(one.parts[""].reshape(shape), array)


def test_arrays_named_as_tensors_are_for_those(tmp_path: Path) -> None:
    save_file({"k": np.ones(D), "v": np.ones((LAYERS, D))}, tmp_path / "d.safetensors")
    assert sorted(read_direction("d", tmp_path / "d.safetensors").parts) == ["k", "v"]
    save_file({"k": np.ones(D)}, tmp_path / "d.safetensors")
    assert sorted(read_direction("d", tmp_path / "d.safetensors").parts) == ["k"]
    save_file({"k": np.ones(D), "layer_1": np.ones(D)}, tmp_path / "d.safetensors")
    with pytest.raises(UsageError, match=r"d\.safetensors: tensor 'layer_1', expected one array"):
        read_direction("d", tmp_path / "d.safetensors")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(D), "all numbers are 0"),
        (np.array([1.0, np.nan]), "some numbers are not finite"),
        (np.array([1.0, np.inf]), "some numbers are not finite"),
        (np.ones((1, 1, 1, D)), r"shape \[1, 1, 1, 6\], expected \[d\]"),
        (np.float64(1.0), r"shape \[\], expected \[d\]"),
        (np.ones((0, D)), r"shape \[0, 6\], expected"),
        (np.array(["a"]), "expected an array of real numbers"),
        (np.ones(D, dtype=complex), "expected an array of real numbers"),
        (np.array([{}]), r"cannot be read \(Object arrays cannot be loaded"),
    ],
)
def test_what_is_no_direction_is_refused(tmp_path: Path, array: Any, message: str) -> None:
    with pytest.raises(UsageError, match=rf"direction 'd', file .*d\.npy: {message}"):
        read_direction("d", saved(tmp_path / "d.npy", array))


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"d.{suffix}"
    with pytest.raises(UsageError, match="there is no such file"):
        read_direction("d", path)
    for content in (b"", b"\x93NUMPY", b"{}", 64 * b"\xff"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"cannot be read|expected one array"):
            read_direction("d", path)
    with pytest.raises(UsageError, match=r"expected a file of \.npy or \.safetensors"):
        read_direction("d", tmp_path / "d.pt")


def task_with(folder: Path, directions: Any) -> Path:
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump({**GOOD, "directions": directions}), encoding="utf-8")
    return path


def test_a_task_names_its_directions_and_its_hash_does_not_hang_on_them(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    saved(tmp_path / "below" / "d.npy", np.ones(D))
    task = load_task(task_with(tmp_path, {"calm": {"file": "below/d.npy"}}))
    (found,) = task.directions
    assert found == Direction("calm", {"": np.ones(D)})
    assert found != Direction("calm", {"": 2 * np.ones(D)})
    assert task.sha == replace(task, directions=()).sha
    assert hash(task) != hash(replace(task, directions=()))


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        ([], "`directions` is .*, expected a mapping"),
        ({"calm": "d.npy"}, "direction 'calm': 'd.npy', expected a name and a mapping"),
        ({"calm": {}}, "expected a name and a mapping of `file`, or of `toward` and `away`"),
        ({"calm": {"path": "d.npy"}}, "expected a name and a mapping of `file`"),
        ({"calm": {"file": "d.npy", "at": "all"}}, "direction 'calm': unknown key at"),
        ({"calm": {"file": 3}}, "direction 'calm': `file` is 3, expected text"),
        ({"calm": {"file": "../d.npy"}}, "file '../d.npy' is not below"),
        ({"calm": {"file": "/etc/passwd"}}, "file '/etc/passwd' is not below"),
        ({"calm": {"file": "none.npy"}}, "there is no such file"),
        ({"a b": {"file": "d.npy"}}, r"expected one of source.*vector\(NAME\)"),
        ({"calm": {"toward": ["a"]}}, "direction 'calm': missing key away"),
        ({"calm": {"toward": "a", "away": ["b"]}}, "`toward` is 'a', expected a list of texts"),
        ({"calm": {"toward": ["a"], "away": []}}, "`away`, expected texts, none of them empty"),
        ({"calm": {"toward": ["a"], "away": [" "]}}, "`away`, expected texts"),
        ({"calm": {"toward": ["a", 3], "away": ["b"]}}, "`toward`, expected texts"),
        ({"calm": {"toward": ["a"], "away": ["b", "a"]}}, "a text stands twice"),
        ({"calm": {"toward": ["a"], "away": ["b"], "at": "first"}}, "at 'first', expected one of"),
        ({"calm": {"toward": ["Granite is an  igneous rock."], "away": ["b"]}}, "prompt 'b1'"),
    ],
)
def test_a_task_with_a_bad_direction_is_refused(
    tmp_path: Path, directions: Any, message: str
) -> None:
    saved(tmp_path / "d.npy", np.ones(D))
    with pytest.raises(UsageError, match=message):
        load_task(task_with(tmp_path, directions))


def test_a_direction_may_be_a_difference_of_means(tmp_path: Path) -> None:
    sides = {"toward": ["Calm sea.", "Calm sky."], "away": ["A storm."]}
    (last,) = load_task(task_with(tmp_path, {"calm": sides})).directions
    (every,) = load_task(task_with(tmp_path, {"calm": {**sides, "at": "all"}})).directions
    assert last == MeanDifference("calm", ("Calm sea.", "Calm sky."), ("A storm.",), "last")
    assert isinstance(every, MeanDifference)
    assert every.at == "all"
    assert last.sha != every.sha


def test_a_direction_is_named_once(tmp_path: Path) -> None:
    saved(tmp_path / "d.npy", np.ones(D))
    task = load_task(task_with(tmp_path, {"calm": {"file": "d.npy"}}))
    with pytest.raises(UsageError, match="directions named twice: calm"):
        replace(task, directions=2 * task.directions)
