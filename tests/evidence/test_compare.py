"""Two runs compared: what is the same, what moved, and every edit that is to be seen."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kv_claims.claims.claim import Claim, Part, Region
from kv_claims.errors import UsageError
from kv_claims.evidence.claim_edits import edited
from kv_claims.evidence.compare import ComparedCell, Comparison, compare, paired_difference
from kv_claims.evidence.evidence import plan_sha
from kv_claims.evidence.stored import StoredRun, load_run
from kv_claims.judging.fieller import Interval
from kv_claims.models.load import LoadedModel
from kv_claims.study.cell import Cell
from kv_claims.study.stated import stated
from tests.judging.frames import Study, table, wave
from tests.runs import HERE, KINDS, PAIRS, THERE, TOKENS, WIDE, claim, edited_copy, key_of, make_run

pytestmark = pytest.mark.filterwarnings("error")
FEW = tuple(cell for cell in KINDS if cell.claim.id in ("transfer", "gap"))


@pytest.fixture(scope="module")
def first(a_run: Path) -> StoredRun:
    return load_run(a_run)


@pytest.fixture(scope="module")
def resumed(
    a_run: Path, stored: LoadedModel, tmp_path_factory: pytest.TempPathFactory
) -> StoredRun:
    """The same run taken up again from a copy of its ledger, in which all trials are."""
    out = tmp_path_factory.mktemp("resumed") / "b"
    shutil.copytree(a_run / "ledger", out / "ledger")
    return load_run(make_run(out, stored))


@pytest.fixture(scope="module")
def warmer(stored: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """More pairs, other luck in every one, and fewer tokens."""
    out = tmp_path_factory.mktemp("warmer") / "b"
    return load_run(
        make_run(out, stored, FEW, pairs=PAIRS + 2, temperature=0.8, max_new_tokens=TOKENS - 6)
    )


@pytest.fixture(scope="module")
def rewritten(stored: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """The same claims with one region wider, a second patch in place of the first, and a premise
    less: what an author may do to a claim between two runs."""
    out = tmp_path_factory.mktemp("rewritten") / "b"
    parts = (
        Part.transfer("behavior", Region(0.1, 0.8)),
        Part.gap("pr@27/32/generated", Region(low=-90.0)),
    )
    cells = (
        Cell.of(
            claim("transfer", transfer=Region(0.1, 0.95), about="layer"), "a", WIDE, siblings=2
        ),
        Cell.of(claim("both", all_of=parts, margin=0.09), "a", HERE),
    )
    return load_run(make_run(out, stored, cells))


def cell_of(found: Comparison, name: str) -> ComparedCell:
    (cell,) = (cell for cell in found.cells if cell.key == key_of(name))
    return cell


def words(cell: ComparedCell) -> list[str | None]:
    return [part.difference.found if part.difference else None for part in cell.parts]


# --- the same run, taken up again -----------------------------------------------------------


def test_a_run_and_its_resumed_copy_are_the_same(first: StoredRun, resumed: StoredRun) -> None:
    found = compare(first, resumed)
    assert found.holds
    assert (found.only, found.facts) == (((), ()), ())
    assert not any(found.provenance.values())
    assert len(found.cells) == len(KINDS)
    for cell in found.cells:
        assert not cell.verdict_changed
        assert (cell.stated, cell.edited) == ((), ((), ()))
        seen = cell.key.claim in ("loglik", "pasted")
        assert words(cell) == [None if seen else "same"] * len(cell.parts)
        for one in cell.tokens.values():
            assert one.trials == one.equal > 0
            assert one.sha[0] == one.sha[1]
        assert bool(cell.tokens) == (cell.key.claim != "pasted")


def test_where_scores_are_not_stored_it_says_that_only_verdicts_are_compared(
    first: StoredRun, resumed: StoredRun
) -> None:
    found = compare(first, resumed)
    (loglik,) = cell_of(found, "loglik").parts
    (pasted,) = cell_of(found, "pasted").parts
    assert loglik.why == "verdicts only: loglik is not among the trials"
    assert pasted.why == "verdicts only: nothing was run"


# --- other luck -----------------------------------------------------------------------------


def test_other_sampling_is_said_and_only_common_pairs_are_compared(
    first: StoredRun, warmer: StoredRun
) -> None:
    found = compare(first, warmer)
    (changes,) = found.provenance.values()
    told = {change.what: (change.first, change.second) for change in changes}
    assert told["sampling.temperature"] == (0.7, 0.8)
    assert told["sampling.max_new_tokens"] == (TOKENS, TOKENS - 6)
    assert told["source texts"][1] == f"{PAIRS + 2}, {PAIRS} of them in both"
    assert {change.what: change.second for change in found.facts} == {"pairs_asked": PAIRS + 2}
    assert {key.claim for key in found.only[0]} == {
        cell.claim.id for cell in KINDS if cell not in FEW
    }
    assert found.only[1] == ()
    for cell in found.cells:
        (part,) = cell.parts
        assert (part.pairs, part.trials, part.only) == (PAIRS, PAIRS, (0, 2))
        assert all(one.trials <= PAIRS and one.equal == 0 for one in cell.tokens.values())
        assert all(one.sha[0] != one.sha[1] for one in cell.tokens.values())


def test_the_difference_is_that_of_the_trials_of_both(first: StoredRun, warmer: StoredRun) -> None:
    (part,) = cell_of(compare(first, warmer), "transfer").parts
    means = []
    for run in (first, warmer):
        table = run.table(key_of("transfer"), 0)
        assert table is not None
        table = table[table["pair"].isin(set(first.trials["pair"]))]
        means.append(table.groupby("arm")["score"].mean())
    a, b = ((m["patched"] - m["base"]) / (m["source"] - m["base"]) for m in means)
    assert part.difference is not None
    assert part.difference.value == pytest.approx(b - a)
    assert (part.difference.first, part.difference.second) == pytest.approx((a, b))


def test_the_other_way_round_the_difference_turns_its_sign(
    first: StoredRun, warmer: StoredRun
) -> None:
    there, back = (
        cell_of(found, "transfer").parts[0].difference
        for found in (compare(first, warmer), compare(warmer, first))
    )
    assert there is not None
    assert back is not None
    assert there.interval is not None
    assert there.value == pytest.approx(-(back.value or 0.0))
    assert back.interval == pytest.approx((-there.interval.high, -there.interval.low))


def test_fewer_than_ten_common_pairs_are_not_tested(first: StoredRun, warmer: StoredRun) -> None:
    kept = set(warmer.trials["pair"].unique()[:9])
    content = warmer.evidence[key_of("gap")]
    rows = warmer.trials[warmer.trials["pair"].isin(kept)]
    trials = {**content["trials"], "run": 9 * 3}
    few = StoredRun(warmer.folder, warmer.run, {key_of("gap"): {**content, "trials": trials}}, rows)
    (part,) = cell_of(compare(first, few), "gap").parts
    assert part.difference is not None
    assert part.difference.found == "undecided"
    assert "no test: 9 clusters by pair in both, at least 10" in part.difference.reason
    assert part.difference.interval is None


# --- a finding that moved, and claims that were edited --------------------------------------


def test_a_wider_patch_moves_the_finding(first: StoredRun, rewritten: StoredRun) -> None:
    found = compare(first, rewritten)
    cell = cell_of(found, "transfer")
    (part,) = cell.parts
    assert not found.holds
    assert part.moved
    assert part.difference is not None
    assert part.difference.interval is not None
    assert part.difference.interval.low > 0.05
    assert [(c.what, c.first, c.second) for c in cell.stated] == [
        ("patch", [str(HERE)], [str(WIDE)])
    ]
    assert cell.tokens["base"].equal == cell.tokens["source"].equal == PAIRS
    assert cell.tokens["patched"].equal < PAIRS


def test_an_edited_region_shows_and_so_does_every_other_edit(
    first: StoredRun, rewritten: StoredRun
) -> None:
    cell = cell_of(compare(first, rewritten), "both")
    told = {change.what: (change.first, change.second) for change in cell.stated}
    assert told == {
        "margin": (0.1, 0.09),
        "region of behavior transfer": ("[0.1, 0.9]", "[0.1, 0.8]"),
        "region of given behavior gap": (">= 0.0", None),
    }
    assert words(cell) == ["same", "same"]


def test_a_changed_verdict_alone_does_not_hold(first: StoredRun, resumed: StoredRun) -> None:
    key = key_of("gap")
    other = replace(
        resumed, evidence={**resumed.evidence, key: {**resumed.evidence[key], "verdict": "refuted"}}
    )
    found = compare(first, other)
    assert not found.holds
    assert [cell.key for cell in found.cells if cell.verdict_changed] == [key]
    assert not any(cell.moved for cell in found.cells)


def test_what_a_broken_instrument_measured_has_not_moved(
    first: StoredRun, rewritten: StoredRun
) -> None:
    key = key_of("transfer")
    one = rewritten.evidence[key]
    checks = [{**check, "passed": check["name"] != "full-swap"} for check in one["checks"]]
    broken = replace(rewritten, evidence={key: {**one, "checks": checks}})
    (part,) = compare(first, broken).cells[0].parts
    assert part.difference is not None
    assert part.difference.found == "undecided"
    assert part.difference.reason == "the instrument failed: full-swap"


def test_no_ratio_is_shown_where_a_run_shows_none(first: StoredRun, warmer: StoredRun) -> None:
    key = key_of("transfer")
    one = warmer.evidence[key]
    parts = [{**one["parts"][0], "estimate": None, "interval": None}]
    other = replace(warmer, evidence={key: {**one, "parts": parts}})
    (part,) = compare(first, other).cells[0].parts
    assert part.difference is not None
    assert (part.difference.first, part.difference.value, part.difference.interval) == (None,) * 3


# --- the plan -------------------------------------------------------------------------------


def widen(content: dict[str, Any]) -> None:
    content["evidence"][0]["parts"][0]["region"]["low"] = 0.05


def widen_the_plan(content: dict[str, Any]) -> None:
    content["evidence"][0]["plan"]["parts"][0]["region"][0] = 0.05


def drop_the_plan(content: dict[str, Any]) -> None:
    del content["evidence"][0]["plan"]


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (widen, "parts: planned .*0.1, 0.95.*, judged .*0.05, 0.95"),
        (widen_the_plan, "the plan is not the one that its hash is of"),
        (drop_the_plan, "no plan"),
    ],
)
def test_evidence_that_was_edited_after_its_run_shows(
    edit: Callable[[dict[str, Any]], None], told: str, first: StoredRun, tmp_path: Path
) -> None:
    other = load_run(edited_copy(first.folder, tmp_path / "b", edit))
    cell = cell_of(compare(first, other), "transfer")
    assert cell.edited[0] == ()
    assert pd.Series(cell.edited[1]).str.contains(told).any()


def test_a_plan_is_found_in_evidence_that_has_none(first: StoredRun, tmp_path: Path) -> None:
    other = load_run(edited_copy(first.folder, tmp_path / "b", drop_the_plan))
    assert cell_of(compare(first, other), "transfer").stated == ()


def test_a_run_is_as_planned(first: StoredRun) -> None:
    for cell in KINDS:
        one = first.evidence[key_of(cell.claim.id)]
        assert one["plan"] == stated(cell)
        assert list(edited(one)) == []


PLAIN = claim("plain", transfer=Region(0.7, 0.9))


def other_claim(**fields: Any) -> Claim:
    return replace(PLAIN, **fields)


@pytest.mark.parametrize(
    "other",
    [
        Cell.of(other_claim(id="another"), "a", HERE),
        Cell.of(other_claim(says="Another."), "a", HERE),
        Cell.of(other_claim(cites="elsewhere"), "a", HERE),
        Cell.of(other_claim(transfer=Region(0.6, 0.9)), "a", HERE),
        Cell.of(other_claim(transfer=Region(low=0.7)), "a", HERE),
        Cell.of(other_claim(outcome="score_published"), "a", HERE),
        Cell.of(other_claim(given=(Part.gap("rv", Region(low=0)),)), "a", HERE),
        Cell.of(other_claim(about="layer"), "a", HERE),
        Cell.of(other_claim(margin=0.2), "a", HERE),
        Cell.of(other_claim(looks=(10, 20)), "a", HERE),
        Cell.of(PLAIN, "a", HERE, siblings=2),
        Cell.of(PLAIN, "a", THERE),
        Cell.of(PLAIN, "a", [HERE, THERE]),
        Cell.of(claim("plain", difference=Region(0.7, 0.9)), "a", HERE, THERE),
    ],
)
def test_whatever_is_planned_is_in_the_hash(other: Cell) -> None:
    assert stated(other)["sha"] != stated(Cell.of(PLAIN, "a", HERE))["sha"]


def test_a_plan_in_another_spelling_of_numbers_is_the_same_plan() -> None:
    one, other = (
        stated(Cell.of(other_claim(transfer=Region(low=low)), "a", HERE)) for low in (1, 1.0)
    )
    assert one == other
    assert plan_sha(one) == one["sha"]


# --- clusters -------------------------------------------------------------------------------

TRANSFER = Part.transfer("behavior", Region(0.1, 0.9))


def frames(**columns: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two runs of 120 pairs, patched at 0.5 and 0.6, their noise in long waves over the pairs."""
    one, other = Study(0.5, n=120), Study(0.6, n=120)
    noisy = replace(other, noise=0.0)
    drift = {**noisy.arms, "patched": noisy.arms["patched"] + wave(4, 120)}
    return one.frame(**columns), table(drift, **columns)


def test_pairs_that_share_a_prompt_are_one_cluster() -> None:
    alone = paired_difference(*frames(), TRANSFER)
    shared = paired_difference(*frames(source=[i // 10 for i in range(120)]), TRANSFER)
    assert (alone.by, alone.clusters) == ("pair", 120)
    assert (shared.by, shared.clusters) == ("source", 12)
    assert alone.value == pytest.approx(shared.value)
    assert width(shared.interval) > 1.5 * width(alone.interval)


def test_crossed_pairs_count_as_both_sources_and_bases() -> None:
    by = {"source": [i // 10 for i in range(120)], "base": [i % 12 for i in range(120)]}
    alone, both = paired_difference(*frames(), TRANSFER), paired_difference(*frames(**by), TRANSFER)
    assert both.value == pytest.approx(alone.value)
    assert width(both.interval) > 1.5 * width(alone.interval)
    assert (both.by, both.clusters) == ("source and base", 12)


def width(interval: Interval | None) -> float:
    assert interval is not None
    return interval.high - interval.low


def test_the_same_texts_by_other_ids_are_the_same_clusters(first: StoredRun) -> None:
    """Twelve sources for fourteen pairs; the other run's task calls them by ids in other order."""
    number = first.trials["pair_index"].clip(upper=11)
    shared = first.trials.assign(source_sha=number.map("sha-{:02}".format))
    one, other = (
        replace(first, folder=Path(name), trials=shared.assign(source=ids.map("id-{:02}".format)))
        for name, ids in (("a", number), ("b", 50 - number))
    )
    found = compare(one, other)
    (part,) = cell_of(found, "transfer").parts
    assert part.difference is not None
    assert (part.difference.by, part.difference.clusters) == ("source", 12)
    assert part.difference.equal
    assert found.holds


def test_seeds_that_only_one_run_has_are_left_out(
    first: StoredRun, stored: LoadedModel, tmp_path: Path
) -> None:
    two = load_run(make_run(tmp_path / "b", stored, FEW, seeds=2))
    found = compare(first, two)
    for cell in found.cells:
        assert words(cell) == ["same"]
        assert (cell.parts[0].trials, cell.parts[0].only) == (PAIRS, (0, 0))
    assert {change.what for change in found.facts} == {"seeds"}


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1, float("nan")])
def test_a_margin_out_of_range_is_refused(margin: float, first: StoredRun) -> None:
    with pytest.raises(UsageError, match=r"margin .*expected above 0 and below 1"):
        compare(first, first, margin)


def test_runs_with_nothing_in_common_are_refused(first: StoredRun, resumed: StoredRun) -> None:
    other = {key._replace(model="another"): one for key, one in resumed.evidence.items()}
    with pytest.raises(UsageError, match=r"no claim, cell .* in both; planted:.*another"):
        compare(first, replace(resumed, evidence=other))


def test_holes_in_geometry_leave_the_verdicts(first: StoredRun) -> None:
    rows = first.trials.copy()
    at = rows.index[rows["arm"] == "source"][0]
    rows.loc[at, "geometry"] = rows.loc[at, "geometry"].replace("uncentred/generated", "gone")
    (_, part) = cell_of(compare(first, replace(first, trials=rows)), "both").parts[:2]
    assert part.difference is None
    assert part.why == "verdicts only: some trials have no pr@27/32/generated"
    assert np.isnan(replace(first, trials=rows).table(key_of("both"), 1)["score"]).sum() == 1
