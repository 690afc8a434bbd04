"""`pytest claims --claims-replay`: stored trials judged again, in a process that loads no model."""

from __future__ import annotations

import json
import random
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kv_claims.errors import UsageError
from kv_claims.evidence.compare import compare
from kv_claims.evidence.stored import load_run
from kv_claims.replay.option import check_options
from tests.plugin.project import INERT, ROOT, STORED, Run, everything_in, run_pytest

TABLE = ROOT / "docs/examples/seed-table"
SAME = ("verdict", "reason", "expected", "estimate", "interval", "interval_other", "p_supported")


ARMS = {"none": 0, "swap": 9, "kv": 8, "less": 2, "weak": 0, "weaker": 0, "elsewhere": 3}


def cells(run: Run) -> dict[tuple[str, str, str], dict[str, object]]:
    return {
        (one["claim"], one["cell"], one["model"]): {name: one[name] for name in SAME}
        for one in run.evidence
    }


@pytest.fixture(scope="module")
def again(serial: Run, shared_project: Path) -> Run:
    """The stored run, judged again by the same claims."""
    return run_pytest(
        shared_project,
        "claims",
        *("--claims-replay", str(serial.out), "-v"),
        out=shared_project / "again",
    )


def test_verdicts_stand_and_torch_is_not_loaded(again: Run, serial: Run) -> None:
    assert again.code == 0, again.stdout + again.stderr
    assert "torch is loaded: False" in again.stdout
    assert cells(again) == cells(serial)
    assert all(one["verified"] for one in again.evidence)
    assert compare(load_run(serial.out), load_run(again.out)).holds


def test_what_is_not_stored_is_deselected_and_said(again: Run) -> None:
    # Six of the eight cells of two claims on two models, and the full swap on each.
    assert "kv-claims: 24 tests deselected: not in the stored run" in again.stdout
    assert "kv-claims: 2 tests deselected: it needs a model" in again.stdout
    assert re.search(r"8 passed, 26 deselected|26 deselected", again.stdout)
    assert again.content["run"]["not_replayed"] == {
        "not in the stored run": 24,
        "it needs a model": 2,
    }


def test_a_replay_leaves_the_files_of_a_run_and_no_ledger(again: Run, serial: Run) -> None:
    names = sorted(path.name for path in again.out.iterdir() if path.name != ".lock")
    assert names == ["evidence.json", "report.html", "report.md", "trials.csv", "trials.parquet"]
    told = again.content["run"]["replay"]
    assert (told["folder"], told["kind"], told["scored_by"]) == (str(serial.out), "run", None)
    assert again.content["run"]["max_new_tokens"] == serial.content["run"]["max_new_tokens"]
    assert "--claims-replay" in again.content["run"]["command"]
    assert "No model was run" in (again.out / "report.md").read_text(encoding="utf-8")
    for one in again.evidence:
        assert one["provenance"]["replayed"] == told
        assert one["provenance"]["weights_sha"]


@pytest.mark.slow
def test_workers_a_selection_and_junit(serial: Run, shared_project: Path) -> None:
    before = everything_in(serial.out)
    junit = shared_project / "replay.xml"
    run = run_pytest(
        shared_project,
        "claims",
        *("--claims-replay", str(serial.out), "-n", "2", "-k", "L25-w16", "--model", STORED),
        f"--junitxml={junit}",
        out=shared_project / "workers",
    )
    assert run.code == 0, run.stdout + run.stderr
    wanted = {key: one for key, one in cells(serial).items() if key[1:] == ("L25-w16", STORED)}
    assert cells(run) == wanted
    assert len(wanted) == 2
    assert len(list(ElementTree.parse(junit).iter("testcase"))) == 2
    assert everything_in(serial.out) == before


def test_nothing_selected_is_exit_5(serial: Run, shared_project: Path) -> None:
    run = run_pytest(
        shared_project,
        "test_small.py",
        *("--claims-replay", str(serial.out)),
        out=shared_project / "nothing",
    )
    assert run.code == 5
    assert "deselected: not in the stored run" in run.stdout
    assert not (run.out / "evidence.json").exists()


def test_a_claim_that_was_edited_is_not_verified(serial: Run, project: pytest.Pytester) -> None:
    path = project.path / "claims/test_kv_cache.py"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("Region(0.70, 0.90)", "Region(0.10, 0.90)"), encoding="utf-8")
    run = run_pytest(
        project.path,
        "claims",
        *(
            "--claims-replay",
            str(serial.out),
            "--model",
            STORED,
            "-k",
            "transfers_80 and L25",
            "-v",
        ),
        out=project.path / "out",
    )
    (one,) = run.evidence
    assert one["verified"] is False
    (check,) = (each for each in one["checks"] if each["name"] == "claim-edited")
    assert "region of behavior transfer: [0.7, 0.9] -> [0.1, 0.9]" in check["detail"]
    assert "* not verified: 1" in run.stdout
    assert "(not verified" in run.stdout
    assert f"{one['verdict'].upper()}*" in run.stdout


def test_a_published_table_is_judged_and_fails_as_invalid(project: pytest.Pytester) -> None:
    run = run_pytest(
        project.path, "claims", "--claims-replay", str(TABLE), "-v", out=project.path / "out"
    )
    assert run.code == 1
    assert "torch is loaded: False" in run.stdout
    assert len(run.evidence) == 16
    for one in run.evidence:
        assert (one["verdict"], one["verified"]) == ("invalid", False)
        assert one["reason"].startswith("no-ceiling")
    assert len(load_run(run.out).roles(next(iter(load_run(run.out).evidence)))) == 2
    assert "(unverified)" in (run.out / "report.md").read_text(encoding="utf-8")
    page = (run.out / "report.html").read_text(encoding="utf-8")
    assert "16 verdicts are unverified" in page


def test_claims_of_a_tables_own_need_no_test_file(tmp_path: Path) -> None:
    """In a folder without a test, in one process and in two; a cell a parameter."""
    (tmp_path / "project").mkdir()
    table = tmp_path / "table"
    table.mkdir()
    luck = random.Random(0)
    rows = [
        f"p{n},{arm},{score + luck.gauss(0, 0.5):.4f}"
        for n in range(24)
        for arm, score in ARMS.items()
    ]
    (table / "rows.csv").write_text("\n".join(["pair,arm,score", *rows]))
    ends = {"base": "none", "source": "swap"}
    described = {
        "schema": 1,
        "table": "rows.csv",
        "model": "their/model",
        "n_layers": 32,
        "columns": {"pair": "pair", "arm": "arm", "score": "score"},
        "others": {"elsewhere": "another layer"},
        "own": {
            "it-moves": {
                "says": "It moves.",
                "cites": "nobody",
                "transfer": {"low": 0.5},
                "patch": {"site": "kv", "layers": "all", "positions": "last(1)"},
            }
        },
        "claims": {
            "it-moves": {
                cell: {**ends, "patched": arm, "unrelated-base": other}
                for cell, arm, other in (("much", "kv", "weak"), ("little", "less", "weaker"))
            }
        },
    }
    (table / "replay.yaml").write_text(json.dumps(described))
    said = []
    for workers in ([], ["-n", "2"]):
        run = run_pytest(
            *(tmp_path / "project", ".", "--claims-replay", str(table), *workers),
            out=tmp_path / f"out{len(workers)}",
        )
        found = run.content["evidence"]
        said.append({one["cell"]: (one["verdict"], one["reason"]) for one in found})
        assert {one["claim"] for one in found} == {"it-moves"}
    assert said[0] == said[1]
    words = {cell: word for cell, (word, _) in said[0].items()}
    assert words == {"much": "supported", "little": "refuted"}


def test_names_of_a_table_steer_no_terminal(project: pytest.Pytester) -> None:
    """The arm is in no role, so nothing but its name is ever shown."""
    shutil.copytree(TABLE, project.path / "table")
    table = project.path / "table/published.csv"
    with table.open("a", encoding="utf-8") as file:
        file.write('Roman Empire,"\x1b[2J\x1b[H\u202everdicts: 9 supported\x07",0\n')
    run = run_pytest(project.path, "claims", "--claims-replay", "table", out=project.path / "out")
    (line,) = (line for line in run.stdout.splitlines() if "in no role" in line)
    assert "[U+001B][2J[U+001B][H[U+202E]verdicts: 9 supported[U+0007]" in line
    assert not set("\x1b\x07\u202e") & set(run.stdout + run.stderr)


# --- bad usage --------------------------------------------------------------------------------


def test_bad_usage_is_one_line_and_4_and_nothing_is_overwritten(
    serial: Run, project: pytest.Pytester
) -> None:
    stored = Path(shutil.copytree(serial.out, project.path / "stored"))
    shutil.copytree(TABLE, project.path / "table")
    wrong = project.path / "table/replay.yaml"
    text = wrong.read_text(encoding="utf-8").replace("transfers-80:", "transfer-80:")
    wrong.write_text(text, encoding="utf-8")
    before = everything_in(project.path)
    for options, told in (
        (["--claims-replay", "stored", "--claims-out", "stored"], "holds what is replayed"),
        (["--claims-replay", "table"], "no claim 'kv-cache-transfer-80' was collected"),
    ):
        result = project.runpytest_subprocess("claims", *options)
        assert result.ret == 4, result.outlines
        (line,) = (line for line in result.errlines if line.strip())
        assert line.startswith("ERROR: ")
        assert told in line
    after = everything_in(project.path)
    assert {name: after[name] for name in before} == before
    assert not (project.path / "reports/replay/evidence.json").exists()
    assert stored.is_dir()


@pytest.mark.parametrize(
    ("name", "value", "spelled"),
    [
        ("claims_revision", "main", "--claims-revision"),
        ("claims_device", "cpu", "--claims-device"),
        ("claims_dtype", "float32", "--claims-dtype"),
        ("claims_pairs", 0, "--claims-pairs"),
        ("claims_seeds", 2, "--claims-seeds"),
        ("claims_max_new_tokens", 9, "--claims-max-new-tokens"),
        ("claims_temperature", 0.0, "--claims-temperature"),
        ("claims_batch_size", "auto", "--claims-batch-size"),
        ("claims_profile", "smoke", "--claims-profile"),
        ("claims_protocol", "published", "--claims-protocol"),
        ("claims_resume", True, "--claims-resume"),
        ("claims_resume", False, "--claims-no-resume"),
        ("claims_update", True, "--claims-update"),
        ("claims_chat", True, "--claims-chat"),
        ("claims_sign", "lab.pem", "--claims-sign"),
    ],
)
def test_options_on_how_to_run_a_model_are_refused(name: str, value: object, spelled: str) -> None:
    with pytest.raises(UsageError, match=f"^{spelled}: of no use with --claims-replay"):
        check_options({name: value, "claims_model": [INERT], "claims_strict": False})


def test_options_that_go_with_it_are_not(tmp_path: Path) -> None:
    check_options(
        {
            "claims_replay": str(tmp_path),
            "claims_model": [STORED],
            "claims_task": "task.yaml",
            "claims_out": str(tmp_path),
            "claims_strict": True,
            "claims_resume": None,
            "claims_pairs": None,
            "verbose": 2,
        }
    )
