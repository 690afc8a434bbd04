"""The files of a run: whole, in step with each other, and nothing beside them."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from kv_claims.evidence.stored import load_run
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from tests.plugin.project import PAIRS, Run, trials_of

REPORTS = ("report.html", "report.md")
# The keys that DESIGN.md (Contracts) promises to other tools.
PROMISED = {
    *("claim", "cell", "says", "cites", "model", "task", "patch", "outcome", "region"),
    *("verdict", "verified", "expected", "pinned", "estimate", "interval", "level"),
    *("interval_other", "means", "pairs", "clusters", "seeds", "trials", "checks", "texts"),
    "provenance",
}


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def test_the_folder_holds_the_files_and_the_ledger_only(serial: Run) -> None:
    found = sorted(path.name for path in serial.out.iterdir())
    assert found == [".lock", "evidence.json", "ledger", *REPORTS, "trials.csv", "trials.parquet"]
    inside = sorted(path.name for path in (serial.out / "ledger").iterdir())
    assert inside == [".lock", "answers", "likelihoods", "main.jsonl", "self-patches"]


def test_evidence_is_strict_json_and_survives_reading_and_writing(serial: Run) -> None:
    text = (serial.out / "evidence.json").read_text(encoding="utf-8")
    content = json.loads(text, parse_constant=no_constant)
    assert json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) == text
    found = {"evidence", "families", "instrument", "protocol"}
    assert set(content) == {"schema", "run", *found, "files", "sha"}
    assert content["schema"] == 1


def test_evidence_has_every_promised_key(serial: Run) -> None:
    assert len(serial.evidence) == 8
    for one in serial.evidence:
        assert set(one) >= PROMISED
        assert set(one["trials"]) == {"planned", "run", "failed"}
        assert all(set(check) == {"name", "passed", "detail"} for check in one["checks"])
        assert all(check["detail"] for check in one["checks"])


def test_asked_is_planned_is_run_is_judged(serial: Run) -> None:
    trials = serial.trials
    for one in [*serial.evidence, *serial.content["instrument"]]:
        planned = trials_of(one["arms"].values())
        assert one["trials"] == {"planned": planned, "run": planned, "failed": 0}
        assert (one["pairs"], one["seeds"]) == (PAIRS, 1)
        behind = trials[(trials.study == one["study"]) & trials.arm.isin(one["arms"].values())]
        assert len(behind) == trials_of(set(one["arms"].values()))
    assert all(one["clusters"] == PAIRS for one in serial.evidence)


def test_a_row_is_a_trial_and_a_trial_is_a_row(serial: Run) -> None:
    trials = serial.trials
    assert trials.key.is_unique
    assert not trials.duplicated(["study", "pair", "arm", "seed"]).any()
    asked = {
        (one["study"], arm)
        for one in [*serial.evidence, *serial.content["instrument"]]
        for arm in one["arms"].values()
    }
    assert len(trials) == trials_of(arm for _, arm in asked)
    assert set(zip(trials.study, trials.arm, strict=True)) == asked


def test_the_two_tables_agree_row_by_row(serial: Run) -> None:
    as_text = pd.read_csv(serial.out / "trials.csv", dtype=str, keep_default_na=False)
    table = serial.trials
    assert list(as_text.columns) == list(table.columns)
    assert len(as_text) == len(table)
    for name in table.columns:
        wanted = ["" if pd.isna(value) else str(value) for value in table[name]]
        assert as_text[name].tolist() == wanted, name


def test_evidence_can_be_computed_again_from_the_table(serial: Run) -> None:
    trials = serial.trials
    for one in serial.evidence:
        lexicon = planted_task(CATALOG[one["model"].removeprefix("planted:")]).lexicon
        means = {}
        for role in ("base", "source", "patched"):
            rows = trials[(trials.study == one["study"]) & (trials.arm == one["arms"][role])]
            scores = [share_of(text, lexicon) for text in rows.text]
            assert rows.score.tolist() == pytest.approx(scores)
            means[role] = sum(scores) / len(scores)
        assert {role: one["means"][role] for role in means} == pytest.approx(means)
        if one["estimate"] is not None:
            gap = means["source"] - means["base"]
            assert one["estimate"] == pytest.approx((means["patched"] - means["base"]) / gap)


def share_of(text: str, lexicon: frozenset[str]) -> float:
    words = text.split()
    return 100 * sum(word in lexicon for word in words) / len(words)


def test_the_texts_shown_are_texts_of_trials(serial: Run) -> None:
    trials = serial.trials
    shown = [one for one in serial.evidence if one["texts"]]
    assert shown
    for one in shown:
        rows = trials[(trials.study == one["study"]) & (trials.pair == one["texts"]["pair"])]
        for role in ("base", "source", "patched"):
            (text,) = rows[rows.arm == one["arms"][role]].text
            assert one["texts"][role] == text


def test_the_report_has_the_tables_and_texts_of_the_seed(serial: Run) -> None:
    report = (serial.out / "report.md").read_text(encoding="utf-8")
    assert "| Window | Layer | Behavior score | Baseline | Delta |" in report
    assert "| Patch | pr@27/32: base, patched, source | rv: base, patched, source |" in report
    assert "| Method | Patch | Behavior | PR at 27/32 | R_V |" in report
    for one in serial.evidence:
        patch, means = one["patch"], one["means"]
        row = (
            f"| {patch['positions']} | {'+'.join(map(str, patch['resolved_layers']))} of "
            f"{patch['n_layers']} | "
            f"{means['patched']:.2f} | {means['base']:.2f} | "
            f"{means['patched'] - means['base']:.2f} | "
        )
        assert any(
            line.startswith(row) and f"**{one['verdict']}**" in line for line in report.splitlines()
        )
    for model in ("planted:stored-at-layer", "planted:inert"):
        samples = report.split(f"## Generated text samples: {model}")[1]
        best = max(
            (one for one in serial.evidence if one["model"] == model),
            key=lambda one: one["means"]["patched"],
        )
        for role, title in (
            ("base", "### Baseline (no patch)"),
            ("source", "### Source"),
            ("patched", "### Patched: kv@"),
        ):
            after = samples.split(title)[1]
            assert after.split("```text\n")[1].split("\n```")[0] == best["texts"][role].strip()


def test_junit_carries_the_evidence_as_json(serial: Run) -> None:
    found: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("claim_evidence", "instrument_evidence", "claim_spent")
    }
    junit = ElementTree.parse(serial.out.parent / "junit.xml")
    for entry in junit.iter("property"):
        found[entry.attrib["name"]].append(
            json.loads(entry.attrib["value"], parse_constant=no_constant)
        )
    # Holm's procedure takes the whole family, and JUnit has each test as it ended.
    as_it_ended = [{k: v for k, v in one.items() if k != "test"} for one in serial.evidence]
    for one in as_it_ended:
        one["multiplicity"] = {**one["multiplicity"], "holm": None}
    assert found["claim_evidence"] == as_it_ended
    assert len(found["instrument_evidence"]) == 2
    # Beside each stands what it cost; the run's facts have their sum.
    assert len(found["claim_spent"]) == len(as_it_ended) + 2
    run = sum(one["run"] for one in found["claim_spent"])
    assert serial.content["run"]["spent"]["trials"] == run == len(serial.trials)
    assert junit.getroot().find("testsuite") is not None


def test_run_facts_say_what_was_asked(serial: Run) -> None:
    run = serial.content["run"]
    assert run["models"] == ["planted:stored-at-layer", "planted:inert"]
    assert (run["pairs_asked"], run["max_new_tokens"], run["seeds"]) == (PAIRS, 8, 1)
    assert (run["profile"], run["temperature"], run["strict"]) == ("default", 0.7, False)
    assert run["ledger_lines_set_aside"] == []
    # Eight cells of claims, and the instrument's full swap on each model.
    assert run["complete"] is True
    assert run["cells"] == {"planned": 10, "judged": 10}
    assert load_run(serial.out).integrity.is_whole


def test_the_ledger_holds_what_the_table_holds(serial: Run) -> None:
    lines = [json.loads(line.partition(" ")[2]) for line in serial.ledger_lines()]
    trials = serial.trials.set_index("key")
    assert len(lines) == len(trials)
    for line in lines:
        assert trials.loc[line["key"], "tokens"] == " ".join(map(str, line["tokens"]))
