"""Running the calibration: rows follow from names and the seed, and parts add up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kv_claims.calibration import run
from kv_claims.calibration.cells import PARTS, Job, jobs
from kv_claims.calibration.rows import Row, Wanted
from kv_claims.calibration.run import calibrate, merged
from kv_claims.errors import UsageError

GROUPS = ("gates", "given pairs")


@pytest.fixture(scope="module")
def alone() -> list[Row]:
    """Two groups, in this process."""
    return calibrate(30, 0, groups=GROUPS)


def test_rows_come_in_the_order_of_the_report(alone: list[Row]) -> None:
    order = list(dict.fromkeys(job.group for job in jobs() if job.group in GROUPS))
    assert list(dict.fromkeys(row.group for row in alone)) == order
    assert {row.studies for row in alone} == {30}


def test_rows_do_not_depend_on_the_number_of_workers(alone: list[Row]) -> None:
    assert calibrate(30, 0, groups=GROUPS, workers=2) == alone


def test_rows_do_not_depend_on_what_else_is_run(alone: list[Row]) -> None:
    """Of the two groups this one comes second."""
    found = calibrate(30, 0, groups=["gates"])
    assert found == [row for row in alone if row.group == "gates"]
    assert found != alone


def test_another_seed_is_other_luck(alone: list[Row]) -> None:
    found = calibrate(30, 0, groups=["given pairs"], seed=1)
    assert found != [row for row in alone if row.group == "given pairs"]


def test_jobs_are_told_of_one_by_one() -> None:
    told: list[Job] = []
    calibrate(5, 0, groups=["gates"], done=told.append)
    assert [job.name for job in told] == [job.name for job in jobs() if job.group == "gates"]


def test_names_of_jobs_are_their_own() -> None:
    """Luck follows from them: two jobs of one name would have the same."""
    names = [(job.group, job.name) for job in jobs()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("groups", [["nonsense"], ["gates", "nonsense"], ["Gates"]])
def test_an_unknown_group_is_an_error(groups: list[str]) -> None:
    with pytest.raises(UsageError, match=r"expected some of planted, .*network"):
        calibrate(5, 0, groups=groups)


@pytest.mark.parametrize("numbers", [(0, 0, 1), (5, -1, 1), (5, 0, 0)])
def test_numbers_that_cannot_be_run_are_an_error(numbers: tuple[int, int, int]) -> None:
    studies, network_studies, workers = numbers
    with pytest.raises(UsageError, match="expected at least 1, 0 and 1"):
        calibrate(studies, network_studies, workers=workers)


# --- parts of a cell -----------------------------------------------------------------------


def part(count: int, studies: int = 100, **facts: int) -> Row:
    wanted = (Wanted("covered", "within"),)
    return Row("network", "one", studies, {"pairs": 16, **facts}, {"covered": count}, wanted)


def test_parts_of_a_cell_add_up() -> None:
    other = replace(part(3), cell="another")
    found = merged([part(95), other, part(40, studies=50)])
    assert found == [part(135, studies=150), other]
    assert found[0].rate("covered") == pytest.approx(0.9)


def test_cells_of_other_facts_or_groups_stay_apart() -> None:
    rows = [part(95), part(95, seeds=2), replace(part(95), group="planted")]
    assert merged(rows) == rows


def test_the_networks_studies_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the parts takes its share, and they come back as one row of all of them."""
    asked: list[int] = []

    def counted(_rng: np.random.Generator, studies: int) -> list[Row]:
        asked.append(studies)
        return [part(studies, studies)]

    few = [replace_run(job, counted) for job in jobs() if job.runs_network]
    monkeypatch.setattr(run, "jobs", lambda: few)
    (row,) = calibrate(1, 1001)
    assert len(asked) == PARTS == 8
    assert sum(asked) == row.studies == row.counts["covered"] >= 1001
    assert max(asked) - min(asked) <= 1
    assert calibrate(1, 0) == []


def replace_run(job: Job, how: object) -> Job:
    return job._replace(run=how)  # type: ignore[arg-type]
