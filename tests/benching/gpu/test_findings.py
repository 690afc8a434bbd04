"""What steps say of what they saw: that each can say no."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from kv_claims.benching.gpu import crowded, sameness, speed, suites
from kv_claims.benching.gpu.command import Ran
from kv_claims.benching.gpu.crowded import too_large
from kv_claims.benching.gpu.evidence import differing, words_of
from kv_claims.benching.gpu.real_model import real_model
from kv_claims.benching.gpu.sameness import Said, against
from kv_claims.benching.gpu.steps import Given
from kv_claims.errors import UsageError
from kv_claims.run.batch_size import BatchSize
from kv_claims.run.ledger import Ledger

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.a" name="fine"/>
<testcase classname="tests.a" name="off"><skipped message="no CUDA device"/></testcase>
<testcase classname="tests.a" name="wrong"><failure message="assert 1 == 2">long
trace</failure></testcase>
<testcase classname="tests.a" name="broken"><error message="at setup">other</error></testcase>
</testsuite></testsuites>"""


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given("cpu", True, None, tmp_path, 60.0)


def test_a_suite_is_read_with_its_traces(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(JUNIT, encoding="utf-8")
    found = suites.read(tmp_path / "junit.xml")
    assert [found[name] for name in ("passed", "failed", "skipped")] == [1, 2, 1]
    assert found["reasons"] == {"no CUDA device": 1}
    assert found["failures"][0] == {
        "test": "tests.a::wrong",
        "message": "assert 1 == 2",
        "trace": "long\ntrace",
    }
    assert suites.read(tmp_path / "absent.xml")["passed"] == 0


def said(*rows: list[int], nudge: float = 0.0, certain: bool = False) -> Said:
    """Logits of 4 words; the third of each row's steps leans by `nudge`."""
    logits = torch.zeros(len(rows), 3, 4, dtype=torch.float64)
    logits[:, 2, 0] += nudge
    if certain:
        logits[:, 2, 3] += 50
    return Said(list(rows), list(logits))


def test_rows_that_part_are_near_ties_or_not() -> None:
    luck = torch.full((2, 3), 0.5, dtype=torch.float64)
    luck[1] = 0.6
    wanted = said([1, 2, 1], [1, 2, 2])
    same = against(wanted, wanted, luck)
    assert (same.rows, same.equal, same.largest, same.near, same.margins) == (2, 2, 0.0, 0, [])
    # Row 0 stands on the edge of two words (0.5 of four equal ones), row 1 does not.
    tie = against(wanted, said([1, 2, 2], [1, 2, 2], nudge=1e-6), luck)
    assert (tie.equal, tie.near) == (1, 1)
    apart = against(wanted, said([1, 2, 1], [1, 2, 3]), luck)
    assert (apart.equal, apart.near) == (1, 0)
    assert apart.margins == pytest.approx([0.1])
    assert against(wanted, said([1, 2, 1], [1, 2, 2], certain=True), luck).largest > 1


def test_a_half_that_differs_makes_sameness_fall_short(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sameness._Rows.said

    def other_in_small_batches(self: Any, size: int, route: str) -> Said:
        found = real(self, size, route)
        if size == 1:
            found.tokens[0][0] += 1
        return found

    monkeypatch.setattr(sameness, "DTYPES", ("float64",))
    assert [one.good for one in sameness.run(given)] == [True]
    monkeypatch.setattr(sameness._Rows, "said", other_in_small_batches)
    (found,) = sameness.run(given)
    assert found.good is False
    assert any("8 of 9 rows equal" in line for line in found.lines)


def test_a_batch_that_does_not_fit_halves(given: Given) -> None:
    (found,) = too_large(given)
    assert found.good
    assert found.data["tried"][:4] == [48, 24, 12, 6]
    assert found.data["simulated"]


def test_what_is_lost_when_memory_runs_out_is_seen(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(BatchSize, "halve", lambda self: setattr(self, "rows", 1))
        patch.setattr(crowded, "SMALL_ROWS", 10**6)
        (found,) = too_large(given)
        assert found.good is False, "nothing ran out, so nothing was tried"
    real = Ledger.append
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", lambda self, trials: real(self, list(trials)[:6]))
        with pytest.raises(RuntimeError, match="did not come back"):
            list(too_large(given))


def evidence(run: Path, *verdicts: str) -> Path:
    run.mkdir()
    listed = [
        {
            "claim": "c",
            "cell": f"L{n}",
            "model": "m",
            "verdict": verdict,
            "checks": [{"name": "a-check", "passed": False, "detail": "7 of 9"}],
            "interval": [0.1, 0.2],
            "expected": "supported",
        }
        for n, verdict in enumerate(verdicts)
    ]
    content = {"evidence": listed, "run": {}}
    (run / "evidence.json").write_text(json.dumps(content), encoding="utf-8")
    return run


def test_words_that_differ_are_named_with_what_they_rest_on(tmp_path: Path) -> None:
    one = words_of(evidence(tmp_path / "one", "supported", "refuted", "invalid"))
    other = words_of(evidence(tmp_path / "other", "supported", "invalid"))
    found = list(differing(one, other))
    assert [(d.cell, d.verdicts) for d in found] == [
        ("c / L1 / m", ("refuted", "invalid")),
        ("c / L2 / m", ("invalid", None)),
    ]
    assert "a-check: 7 of 9" in found[0].lines[1]
    assert found[1].why[1] == "no evidence"
    assert words_of(tmp_path / "nowhere") == {}


def test_a_step_of_decoding_above_what_is_wanted_falls_short(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bench(route: str, *ratios: float | None) -> bool | None:
        content = {"route": {"kind": route}, "steps": [{"ratio": r} for r in ratios], "lines": []}
        (given.folder / "bench.json").write_text(json.dumps(content), encoding="utf-8")
        monkeypatch.setattr(speed, "python", lambda *_, **__: Ran(0, 1.0))
        return speed._bench(given, "a", [], timed=True).good

    assert bench("static", 1.2, 1.5)
    assert not bench("static", 1.2, 1.6)
    assert not bench("static", 1.2, None)
    assert not bench("plain", None)


def test_the_real_model_is_what_is_asked_for_or_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="expected a folder"):
        real_model(str(tmp_path))
    (tmp_path / "config.json").touch()
    assert real_model(str(tmp_path)).name == str(tmp_path)
    monkeypatch.setattr("kv_claims.benching.gpu.real_model.ROOT", tmp_path / "checkout")
    assert real_model(None).name == "mini"
    shared = tmp_path / "shared/models/stories260K"
    shared.mkdir(parents=True)
    (shared / "config.json").touch()
    assert real_model(None).name == str(shared)
    assert "stories260K" in real_model(None).said
