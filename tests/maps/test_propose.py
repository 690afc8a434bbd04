"""From a map to claims: judged on the pairs that it did not look at, and refused on any other."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kv_claims.__main__ import main
from kv_claims.planted.catalog import CATALOG
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.words import MARKERS, PLAIN
from kv_claims.tasks.load import load_task
from kv_claims.tasks.split import split
from tests.plugin.project import Run, make_project, run_pytest, save_as_stranger

pytestmark = pytest.mark.slow
CELLS = ("--site", "kv", "--layers", "11,12", "--positions", "last(30),last(20)")
FILE = "test_found.py"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("maps") / "project")
    save_as_stranger(folder)
    bank(folder)
    assert mapped(folder, folder / FILE) == 0
    return folder


def bank(project: Path) -> None:
    """Prompts of the model, with answers of one word or two, as all would else be alike."""
    task = planted_task(CATALOG["stored-at-layer"], n_pairs=80)
    sides = {
        name: [
            {
                "id": one.id,
                "family": one.family,
                "text": one.text,
                "answer": "".join(f" {words[k % 30 + n]}" for n in range(1 + k % 2)),
            }
            for k, one in enumerate(side)
        ]
        for name, side, words in (
            ("sources", task.sources, MARKERS),
            ("bases", task.bases, PLAIN),
        )
    }
    head = {"schema": 1, "name": "bank", "about": "a test", "pairing": "one-to-one"}
    (project / "bank.yaml").write_text(yaml.safe_dump({**head, **sides}, sort_keys=False))


def mapped(project: Path, file: Path, *options: str) -> int:
    where = ("--model", str(project / "checkpoint"), "--task", str(project / "bank.yaml"))
    out = ("--out", str(project / "map"), "--propose", str(file))
    return main(["map", *where, *CELLS, *out, *options])


def judged(project: Path, task: str, out: str, *options: str) -> Run:
    where = ("--model", str(project / "checkpoint"), "--task", str(project / task))
    return run_pytest(project, FILE, *where, *options, out=project / out)


def test_the_proposed_claim_is_of_the_planted_cell_and_holds_on_the_other_pairs(
    project: Path,
) -> None:
    text = (project / FILE).read_text()
    assert 'Patch("kv", layers="12", positions="last(30)")' in text
    assert 'layers="11"' not in text
    whole, left = load_task(project / "bank.yaml"), load_task(project / "test_found.yaml")
    assert [one.id for one in left.pairs] == [one.id for one in split(whole, "confirmation").pairs]
    run = judged(project, "test_found.yaml", "out")
    assert run.code == 0, run.stdout + run.stderr
    assert [one["verdict"] for one in run.evidence] == ["supported"] * 2
    assert {one["pairs"] for one in run.evidence} == {len(left.pairs)}
    again = run_pytest(project, FILE, "--claims-replay", str(run.out), out=project / "again")
    assert again.code == 0, again.stdout + again.stderr


@pytest.mark.parametrize("edit", ["none", "answer", "discovery"])
def test_any_other_pairs_are_best_of_k(project: Path, edit: str) -> None:
    content = yaml.safe_load((project / "test_found.yaml").read_text())
    if edit == "none":
        content = yaml.safe_load((project / "bank.yaml").read_text())
    elif edit == "answer":
        content["sources"][0]["answer"] += "s"
    else:
        whole = yaml.safe_load((project / "bank.yaml").read_text())
        for side in ("sources", "bases"):
            kept = {one["id"] for one in content[side]}
            content[side] = [one for one in whole[side] if one["id"] not in kept]
    (project / f"{edit}.yaml").write_text(yaml.safe_dump(content))
    run = judged(project, f"{edit}.yaml", f"out-{edit}")
    assert run.code == 1
    assert "best-of-k: claim 'map-" in run.stdout
    assert not (run.out / "evidence.json").exists()


def test_nothing_is_written_over_and_nothing_is_proposed_of_nothing(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (project / FILE).read_bytes()
    for file, said in (
        (project / FILE, "is there already"),
        (tmp_path / "found.py", "expected test_NAME.py"),
        (tmp_path / "no" / FILE, "there is no folder"),
    ):
        assert mapped(project, file) == 2
        assert said in capsys.readouterr().err
    assert (project / FILE).read_bytes() == before
    planted = ["map", "--model", "planted:stored-at-layer", "--out", str(tmp_path / "map")]
    assert main([*planted, "--propose", str(tmp_path / FILE)]) == 2
    assert "has no task file to split" in capsys.readouterr().err
    nothing = ("--layers", "11", "--out", str(tmp_path / "map"))
    assert mapped(project, tmp_path / FILE, *nothing) == 1
    assert "nothing proposed" in capsys.readouterr().out
    assert not (tmp_path / FILE).exists()
