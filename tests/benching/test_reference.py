"""The reference work: its ways agree where they should; ratios, limits, what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kv_claims.__main__ import main
from kv_claims.benching import report
from kv_claims.benching.growth import Grown, study
from kv_claims.benching.limit import Machine, limit_of
from kv_claims.benching.reference import Reference
from kv_claims.benching.timing import Timed, in_turn
from kv_claims.claims.sites import Site
from kv_claims.errors import UsageError
from kv_claims.models.load import load_model
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task

GROWN = Grown(pairs=1, arms=8, trials=8, seconds=2.0, start=100.0, peak=300.0)


@pytest.fixture(scope="module")
def small() -> Reference:
    return Reference(24, pairs=2, new_tokens=6)


def test_all_routes_and_batches_give_the_same_tokens(small: Reference) -> None:
    found = small.engine()
    assert len(found) == small.trials == 16
    assert found == small.engine("plain") == small.engine(rows=5)
    assert small.route.kind == "shared"


@pytest.mark.parametrize("site", ["v_proj", "residual"])
def test_other_sites_are_other_work_by_both_routes(small: Reference, site: Site) -> None:
    found = small.engine(site=site)
    assert len(found) == small.trials
    assert found == small.engine("plain", site=site)
    assert found != small.engine()


def test_the_bare_loop_is_the_unpatched_arm(small: Reference) -> None:
    """And patches change something, so the comparison could fail."""
    bare = small.bare_loop()
    assert bare[:8] == [bare[0]] * 8
    assert bare != small.engine()


def test_on_another_model_prompts_are_its_texts_and_arms_the_seeds_cells() -> None:
    model = load_model("planted:relay")
    texts = [base.text for base in planted_task(CATALOG["relay"]).bases[:6]]
    work = Reference(40, pairs=1, new_tokens=3, model=model, texts=texts)
    assert [len(one) for one in (*work.bases, *work.sources)] == [40, 40]
    assert [(arm.layers, arm.width) for arm in work.arms][:2] == [((9,), 16), ((9,), 32)]
    assert work.engine() == work.engine("plain") != work.bare_loop()
    with pytest.raises(UsageError, match=r"make \d prompts of 40 tokens on .*; expected 20"):
        Reference(40, pairs=10, model=model, texts=texts)


def test_one_at_a_time_is_other_work_of_the_same_size(small: Reference) -> None:
    found = small.one_at_a_time(3)
    assert [len(tokens) for tokens in found] == [6, 6, 6]


def test_a_ratio_is_taken_within_a_round() -> None:
    timed = Timed({"slow": [4.0, 9.0, 40.0], "fast": [2.0, 3.0, 10.0]})
    assert timed.ratio("slow", "fast") == (3.0, 2.0, 4.0)


def test_ways_run_in_turn_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    timed = in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, 2)
    assert calls == list("ababab")
    assert [len(seconds) for seconds in timed.seconds.values()] == [2, 2]


def test_the_limit_counts_the_work(small: Reference) -> None:
    once = limit_of(small, Machine(1e9, 1e9))
    assert limit_of(small, Machine(2e9, 1e9)).prefill == pytest.approx(once.prefill / 2)
    double = limit_of(Reference(24, pairs=4, new_tokens=6), Machine(1e9, 1e9))
    assert double.decode_macs == pytest.approx(2 * once.decode_macs)
    # Weights are read once a step, whatever the rows.
    assert once.decode_bytes < double.decode_bytes < 2 * once.decode_bytes


@pytest.mark.parametrize(("ratio", "status"), [(3.0, 0), (1.0, 1)], ids=["fast", "too-slow"])
def test_a_ratio_is_held_against_a_stored_one(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    ratio: float,
    status: int,
) -> None:
    stored = tmp_path / "ratio.json"
    stored.write_text(json.dumps({"ratio": 2.0, "tolerance": 0.3}))
    result = {
        "lines": ["measured"],
        "ratio": {"median": ratio},
        "growth": {"pairs": [GROWN._asdict()]},
    }
    monkeypatch.setattr(report, "reference", lambda *_, **__: dict(result))
    options = ["bench", "--reference", "--held-against", str(stored), "--out", str(tmp_path)]
    assert main(options) == status
    assert json.loads((tmp_path / "bench.json").read_text())["ratio"] == {"median": ratio}
    assert (tmp_path / "growth.svg").is_file()
    assert "at least 1.40 is asked for" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [[], ["--gpu", "--model", "x"], ["--model", "planted:relay", "--pairs", "0"]],
    ids=["nothing", "both", "no-pairs"],
)
def test_bad_usage_is_said_in_a_line(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *options]) == 2
    assert "expected" in capsys.readouterr().err


def test_a_model_is_measured_and_a_study_estimated(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["bench", "--model", "planted:relay", "--pairs", "2", "--out", str(tmp_path)]
    assert main(options) == 0
    said = capsys.readouterr().out
    assert "decoded by the shared route" in said
    found = json.loads((tmp_path / "bench.json").read_text())
    assert str(found["best_batch_size"]) in found["tokens_per_second"]
    costs = found["estimated_seconds"]
    assert 0 < costs["smoke"] < costs["default"] < costs["full"]


def test_a_growing_study_runs_all_of_its_trials_and_tells_its_peak() -> None:
    found = study(24, 2, 16, new_tokens=2)
    assert (found.pairs, found.arms, found.trials) == (2, 16, 32)
    assert found.seconds > 0
    assert 0 < found.start <= found.peak


def test_growth_is_printed_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "growth", lambda _tokens: {"pairs": [GROWN], "arms": [GROWN]})
    monkeypatch.setattr(
        report, "Reference", lambda tokens: Reference(tokens, pairs=1, new_tokens=2)
    )
    result = report.reference(20, 1, with_growth=True)
    assert result["growth"]["arms"] == [GROWN._asdict()]
    assert "     1     8       8      2.0    100    300" in result["lines"]
