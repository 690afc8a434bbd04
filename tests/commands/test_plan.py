"""`kv-claims plan`: from stated spreads, from a pilot, and what cannot be planned."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kv_claims.__main__ import main
from tests.plugin.project import CONFIG, FILES, INERT, ROOT, STORED, everything_in, run_pytest

PILOT = ("--pairs", "12", "--max-new-tokens", "8")
CLAIMS = "test_planned.py"
HEAD = re.compile(r"^   pairs   supp\. refut\. incon\. inval\.  width$", re.MULTILINE)
ROW = re.compile(r"^ +(\d+) +(\d+)% +(\d+)% +(\d+)% +(\d+)%  (\d\.\d+|inf)$", re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of claims, and the evidence of a pilot of them in `pilot`, on two models."""
    folder = tmp_path_factory.mktemp("planning") / "a project"
    folder.mkdir()
    (folder / "pytest.toml").write_text(CONFIG)
    shutil.copy(FILES / "project_conftest.py", folder / "conftest.py")
    shutil.copy(Path(__file__).parent / "planned_claims.py", folder / CLAIMS)
    options = [*("--model", STORED, "--model", INERT), *PILOT, "-q"]
    run = run_pytest(folder, CLAIMS, *options, out=folder / "pilot")
    assert len(run.evidence) == 10, run.stdout + run.stderr
    return folder


class Plan:
    """Runs the command on the project's claims, in this process."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capfd = folder, capfd

    def __call__(self, claim: str, *options: str, pilot: str | Path = "pilot") -> str:
        """What is printed."""
        assert self.run(claim, *options, pilot=pilot) == 0
        return self.capfd.readouterr().out

    def refused(self, claim: str, *options: str, pilot: str | Path = "pilot") -> str:
        """The one line that says why not; and nothing of the project is changed."""
        before = everything_in(self.folder)
        self.capfd.readouterr()
        assert self.run(claim, *options, pilot=pilot) == 2
        assert everything_in(self.folder) == before
        said = self.capfd.readouterr()
        assert said.out == ""
        (line,) = said.err.splitlines()
        return line.removeprefix("kv-claims: ")

    def run(self, claim: str, *options: str, pilot: str | Path) -> int:
        where = ["--claims", str(self.folder / CLAIMS), "--pilot", str(self.folder / pilot)]
        return main(["plan", "--claim", claim, *where, *options])


@pytest.fixture
def plan(folder: Path, capfd: pytest.CaptureFixture[str]) -> Plan:
    return Plan(folder, capfd)


def evidence(folder: Path, claim: str, cell: str = "only") -> dict[str, Any]:
    """What the pilot on the model with a behavior found."""
    content = json.loads((folder / "pilot/evidence.json").read_text())["evidence"]
    wanted = (claim, cell, STORED)
    return next(one for one in content if (one["claim"], one["cell"], one["model"]) == wanted)


# --- from a pilot ----------------------------------------------------------------------------


def test_a_simple_claim_is_planned_cell_by_cell_at_its_share(plan: Plan, folder: Path) -> None:
    said = plan("simple", "--model", STORED)
    assert re.findall(r"^simple, cell (\S+) on planted:stored-at-layer: behavior ", said, re.M) == [
        "L9",
        "L12",
    ]
    assert said.count("judged at 0.025, as one of 2 in 'simple'") == 2
    assert "80% power for *refuted* at about" in said
    assert "80% power for *supported* at about" in said
    estimate = evidence(folder, "simple", "L12")["estimate"]
    assert f"  transfer assumed {estimate:.3f}, region [0.1, 0.9], judged at " in said
    assert "(pilot of 12 pairs x 1 seeds: " in said
    assert said.rstrip().endswith("Spend on pairs.")


def test_one_cell_may_be_asked_for_with_pairs_and_power(plan: Plan) -> None:
    options = ["--model", STORED, "--cell", "L12", "--pairs", "200", "--pairs", "10"]
    said = plan("simple", *options, "--power", "0.5")
    assert len(HEAD.findall(said)) == 1
    rows = ROW.findall(said)
    pairs = [int(row[0]) for row in rows]
    assert {10, 200} <= set(pairs)
    assert pairs == sorted(pairs)
    for row in rows:
        assert sum(map(int, row[1:5])) == pytest.approx(100, abs=2)
    shares = [int(row[1]) for row in rows]
    assert shares == sorted(shares)
    assert "50% power for *supported* at about" in said


def test_more_pairs_narrow_the_interval_and_another_truth_may_be_assumed(plan: Plan) -> None:
    options = ["--model", STORED, "--cell", "L12", "--pairs", "40", "--pairs", "160"]
    few, many = (float(row[5]) for row in ROW.findall(plan("simple", *options))[-2:])
    assert many < few
    said = plan("simple", *options[:4], "--transfer", "0.01")
    assert "transfer assumed 0.010" in said
    assert "*refuted*" in said


def test_a_claim_of_two_parts_is_planned_part_by_part(plan: Plan) -> None:
    said = plan("two-parts", "--model", STORED, "--pairs", "40")
    titles = [line for line in said.splitlines() if line.startswith("two-parts, cell only on ")]
    assert len(titles) == 2
    assert "  transfer assumed " in said
    assert "  gap assumed " in said
    assert "region >= 1," in said
    assert said.count("judged at 0.05, as one of 1 in 'two-parts'") == 2


def test_a_claim_with_looks_is_planned_at_the_rate_of_one_look(plan: Plan, folder: Path) -> None:
    found = evidence(folder, "looks")["multiplicity"]
    assert found["alpha"] == 0.025
    said = plan("looks", "--model", STORED)
    assert "judged at 0.025, as one of 1 in 'looks'" in said
    pairs = sum(look["pairs"] for look in found["looks"]["taken"][-1:])
    assert f"(pilot of {pairs} pairs x 1 seeds: " in said


@pytest.mark.parametrize("more", [[], ["--transfer", "0.5"]], ids=["pilots", "assumed"])
def test_where_source_and_base_do_not_differ_there_is_nothing_to_plan(
    plan: Plan, more: list[str]
) -> None:
    said = plan.refused("simple", "--model", INERT, "--cell", "L12", "--pairs", "20", *more)
    assert said.startswith("simple, cell L12 on planted:inert: behavior (pilot of 12 pairs x 1 ")
    assert said.endswith("invalid): source and base do not differ, so there is no transfer to plan")


@pytest.mark.slow
def test_a_pilot_may_be_run_first_in_a_process_of_its_own(folder: Path, tmp_path: Path) -> None:
    where = ["--claims", str(folder / CLAIMS), "--pilot", str(tmp_path / "out")]
    options = ["--model", STORED, "--pilot-pairs", "12", "--pairs", "20"]
    done = subprocess.run(
        [*(sys.executable, "-m", "kv_claims", "plan", "--claim", "simple"), *where, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "out/evidence.json").read_text())
    assert [(one["claim"], one["pairs"]) for one in content["evidence"]] == [("simple", 12)] * 2
    assert done.stdout.count("(pilot of 12 pairs x 1 seeds: ") == 2
    assert done.stdout.rstrip().endswith("Spend on pairs.")


# --- from stated spreads ---------------------------------------------------------------------

STATED = ("--spread", "0.5", "--transfer", "0.5")


def test_stated_spreads_need_no_pilot(plan: Plan) -> None:
    said = plan("simple", *STATED, "--pairs", "20", pilot="nowhere")
    assert said.startswith("simple: behavior transfer [0.1, 0.9] (no pilot: spreads as stated, no")
    # The family's size is that of the claim, though nothing was run.
    assert "transfer assumed 0.500, region [0.1, 0.9], judged at 0.025, as one of 2" in said
    assert [int(row[0]) for row in ROW.findall(said)][-1] > 10


def test_a_larger_spread_takes_more_pairs(plan: Plan) -> None:
    found = [
        int(re.findall(r"at about (\d+) pairs", plan("simple", "--spread", s, *STATED[2:]))[0])
        for s in ("0.3", "0.9")
    ]
    assert found[1] > 3 * found[0]


@pytest.mark.parametrize(
    ("claim", "options", "reason"),
    [
        (
            "simple",
            ["--spread", "-0.5", "--transfer", "0.5"],
            "transfer 0.5, spread -0.5, gap spread 0.5: exp",
        ),
        (
            "simple",
            ["--spread", "0", "--transfer", "0.5"],
            "transfer 0.5, spread 0.0, gap spread 0.5: ",
        ),
        ("simple", [*STATED, "--gap-spread", "-1"], "transfer 0.5, spread 0.5, gap spread -1.0: "),
        ("simple", ["--spread", "0.5"], "--spread: needs --transfer, the true value to assume"),
        ("two-parts", STATED, "claim 'two-parts': behavior gap >= 1 needs a pilot, --spread is"),
        ("simpel", STATED, "claim 'simpel': not in "),
    ],
    ids=["negative", "zero", "gap-spread", "no-transfer", "gap", "unknown"],
)
def test_spreads_that_no_plan_can_use_are_2(
    plan: Plan, claim: str, options: list[str], reason: str
) -> None:
    assert plan.refused(claim, *options).startswith(reason)


def test_an_unknown_claim_is_told_which_there_are(plan: Plan) -> None:
    known = "which has by-construction, looks, simple, two-parts"
    assert plan.refused("simpel", *STATED).endswith(known)


# --- what cannot be planned ------------------------------------------------------------------


def test_what_was_not_measured_cannot_be_planned(plan: Plan) -> None:
    said = plan.refused("by-construction", "--model", STORED)
    assert said.startswith("by-construction, cell only on planted:stored-at-layer: behavior ")
    assert "nothing was measured (full-swap-is-the-donor: " in said
    assert said.endswith("so nothing to plan")


@pytest.mark.parametrize(
    ("claim", "options", "reason"),
    [
        ("simple", [], "plan: no --model, and claims_models in "),
        ("simpel", ["--model", STORED], "no evidence of claim 'simpel' on planted:stored-at-layer"),
        ("simple", ["--model", "gpt2"], "no evidence of claim 'simple' on gpt2; expected a run"),
        (
            "simple",
            ["--model", STORED, "--cell", "L99"],
            "no evidence of claim 'simple', cell 'L99' on planted:stored-at-layer",
        ),
    ],
    ids=["no-model", "claim", "model", "cell"],
)
def test_what_the_pilot_is_not_about_is_2(
    plan: Plan, claim: str, options: list[str], reason: str
) -> None:
    assert reason in plan.refused(claim, *options)


SHAPES = {
    "none": (None, "cannot be read (No such file or directory)"),
    "text": ("no JSON at all", "no JSON (JSON is malformed"),
    "cut": ('{"evidence": [', "no JSON (Input data was truncated"),
    "list": ("[1, 2]", "schema 'list', expected 1"),
    "no-list": ('{"schema": 1, "run": {}, "evidence": {}}', "$.run: object missing"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_folder_without_evidence_as_it_should_be_is_2(
    plan: Plan, tmp_path: Path, shape: str
) -> None:
    content, reason = SHAPES[shape]
    if content is not None:
        (tmp_path / "evidence.json").write_text(content)
    said = plan.refused("simple", "--model", STORED, pilot=tmp_path)
    assert reason in said
    assert said.startswith(f"{tmp_path / 'evidence.json'}: ")


EDITS: dict[str, tuple[str, object, str]] = {
    "no-spreads": ("spreads", None, "parts[0].spreads: expected array, got null"),
    "other-spreads": ("spreads", [{"by": "pair", "n": 3}], "spreads[0]: object missing"),
    "half-a-spread": (
        "spreads",
        [{"by": "pair", "clusters": 9, "pairs": 9, "arms": ["a"], "means": [], "covariance": []}],
        "spreads of 1 arms without means and covariances of each",
    ),
    "nothing-measured": ("spreads", [], "so nothing to plan"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_pilot_whose_parts_are_not_as_a_run_writes_them_is_2(
    plan: Plan, folder: Path, tmp_path: Path, edit: str
) -> None:
    name, value, reason = EDITS[edit]
    content = json.loads((folder / "pilot/evidence.json").read_text())
    for one in content["evidence"]:
        one["parts"][0][name] = value
    (tmp_path / "evidence.json").write_text(json.dumps(content))
    assert reason in plan.refused("simple", "--model", STORED, pilot=tmp_path)


def test_a_pilot_that_cannot_be_run_leaves_earlier_evidence_alone(
    plan: Plan, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = everything_in(folder)
    for claim, options, reason in (
        ("simpel", ["--model", STORED, "--pilot-pairs", "12"], "claim 'simpel': not in "),
        ("simple", ["--model", "planted:nothing", "--pilot-pairs", "12"], "exit status 4"),
        ("simple", ["--model", STORED, "--pilot-pairs", "0"], "exit status 4"),
        ("simple", ["--model", STORED, "--pilot-pairs", "12", "--pairs", "5"], "pairs 5: "),
    ):
        assert plan.run(claim, *options, pilot="pilot") == 2
        *_, last = capfd.readouterr().err.splitlines()
        assert last.startswith("kv-claims: ")
        assert reason in last
    assert everything_in(folder) == before


def test_claims_that_cannot_be_collected_are_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "test_wrong.py"
    wrong.write_text("import nothing_of_that_name\n")
    assert main(["plan", "--claim", "simple", "--claims", str(wrong), *STATED]) == 2
    said = capfd.readouterr().err
    assert "No module named 'nothing_of_that_name'" in said
    assert "exit status 2, said above" in said.splitlines()[-1]
