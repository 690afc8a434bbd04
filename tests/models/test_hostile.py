"""Folders of other people: what cannot be read in full is refused in one line, and harmless."""

from __future__ import annotations

import builtins
import resource
import shutil
import time
from pathlib import Path

import pytest

from kv_claims.errors import UsageError
from kv_claims.models.load import load_model
from tests.models.hostile import CASES, Case, good_folder

_SECONDS, _MEGABYTES = 20, 700
"""Far above what any takes here, and far below what any would without the checks."""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "good"
    good_folder(folder)
    return folder


@pytest.fixture
def copied(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def test_the_good_folder_loads(good: Path) -> None:
    assert load_model(str(good), device="cpu").n_layers == 4


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_folder_is_refused_in_one_line(
    case: Case, copied: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def answer(question: str = "") -> str:
        asked.append(question)
        return "yes"

    monkeypatch.setattr(builtins, "input", answer)
    case.harm(copied)
    # What the case itself may have written does not count.
    capfd.readouterr()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(UsageError, match=case.says) as caught:
        load_model(str(copied), device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 700
    assert message.startswith(f"model '{copied}': ")
    assert time.process_time() - started < _SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < _MEGABYTES
    assert not asked
    assert not (copied / "was-run").exists()
    assert "".join(capfd.readouterr()) == ""
