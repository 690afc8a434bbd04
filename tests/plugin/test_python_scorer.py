"""A scorer in Python from end to end: a run, what a raising one leaves, and judging again."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.plugin.project import Run, make_project, run_pytest, save_as_stranger

pytestmark = pytest.mark.slow
CLAIMS = """
from kv_claims import Patch, Region, claim

@claim("counted", transfer=Region(0.4, 1.2), says="a sentence", cites="a test")
def test_counted(study):
    study.judge(Patch("kv", "12", "last(30)"))
"""
SCORER = """
WORDS = {words!r}

def score(said):
    assert said.prompt in (said.pair.source, said.pair.base) and len(said.tokens) == 8
    {body}
"""
COUNTS = "return sum(word in WORDS for word in said.text.split()) / len(said.tokens)"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("scorer") / "project")
    save_as_stranger(folder)
    (folder / "test_counted.py").write_text(CLAIMS)
    content = yaml.safe_load((folder / "own.yaml").read_text())
    (folder / "words.yaml").write_text(yaml.safe_dump(content["lexicon"]))
    del content["lexicon"]
    content["scorer"] = {"python": "lab.scorers:score"}
    (folder / "scored.yaml").write_text(yaml.safe_dump(content))
    (folder / "lab").mkdir()
    return folder


def write(project: Path, body: str) -> None:
    words = yaml.safe_load((project / "words.yaml").read_text())
    (project / "lab/scorers.py").write_text(SCORER.format(words=words, body=body))


def asked(project: Path, *options: str, out: Path) -> Run:
    return run_pytest(project, "test_counted.py", *options, out=out)


def test_a_run_and_its_replay(project: Path, tmp_path: Path) -> None:
    run = ("--claims-model", "checkpoint", "--claims-task", "scored.yaml")
    small = ("--claims-pairs", "40", "--claims-max-new-tokens", "8")
    write(project, "raise ValueError('not yet')")
    failed = asked(project, *run, *small, out=tmp_path / "run")
    assert failed.code == 1
    assert "scorer lab.scorers:score on pair " in failed.stdout
    assert "raises ValueError: not yet" in failed.stdout.replace("\n", "")
    assert len(failed.ledger_lines()) >= 40  # nothing that was generated is lost

    write(project, COUNTS)
    done = asked(project, *run, *small, out=tmp_path / "run")
    (one,) = done.evidence
    assert (done.code, one["verdict"]) == (0, "supported")
    assert one["scorer"]["name"].startswith("python lab.scorers:score sha256:")
    assert one["scorer"]["repetition_share"]["patched"] is None
    substrings = next(c for c in one["checks"] if c["name"] == "substring-markers")
    assert "says itself where a match begins and ends" in substrings["detail"]

    replay = ("--claims-replay", str(done.out))
    refused = asked(project, *replay, out=tmp_path / "again")
    assert refused.code == 4
    assert "code that a stored run names is not imported" in refused.stderr
    for options in (("--claims-task", "scored.yaml"), ("--claims-allow-code",)):
        again = asked(project, *replay, *options, out=tmp_path / options[-1].strip("-"))
        (two,) = again.evidence
        assert (again.code, two["estimate"]) == (0, one["estimate"])
        assert [c for c in two["checks"] if c["name"] == "scorer-changed"] == []
