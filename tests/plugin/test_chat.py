"""`--claims-chat` on a model with a chat template: what it reads, shows, and what a replay needs.

The model is a planted one in a folder, whose template puts plain words around what a user says, so
that it behaves as it was planted.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kv_claims.planted.words import PLAIN
from tests.plugin.project import ROOT, SMALL, Run, make_project, run_pytest, save_as_stranger

pytestmark = pytest.mark.slow

BEGIN, END = " ".join(PLAIN[:3]), " ".join(PLAIN[3:5])
TEMPLATE = (
    f"{BEGIN} {{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}"
    f"{{% if add_generation_prompt %}} {END}{{% endif %}}"
)
CELL = (*SMALL, "-k", "L25-w16 and kv_cache_transfers_80")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("chat") / "project")
    save_as_stranger(folder)
    return folder


def asked(project: Path) -> tuple[str, ...]:
    return ("--model", str(project / "checkpoint"), "--task", str(project / "own.yaml"), "--chat")


def test_a_model_without_a_template_is_refused_in_a_line_before_anything_runs(
    project: Path,
) -> None:
    run = run_pytest(ROOT, "claims", *asked(project), *CELL, out=project / "refused")
    assert run.code == 4, run.stdout + run.stderr
    told = run.stdout + run.stderr
    assert told.count("its tokenizer has no chat template, and messages take one") == 1
    assert "Traceback" not in told
    assert not list((project / "refused").rglob("*.jsonl"))


@pytest.fixture(scope="module")
def chat(project: Path) -> Run:
    config = project / "checkpoint/tokenizer_config.json"
    said = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**said, "chat_template": TEMPLATE}), encoding="utf-8")
    return run_pytest(ROOT, "claims", *asked(project), *CELL, out=project / "out")


def test_what_was_read_is_in_the_evidence_and_in_both_reports(chat: Run) -> None:
    (one,) = chat.evidence
    assert "prompts as chats" in chat.stdout
    assert one["task"] == "own+chat"
    told = one["provenance"]["tokens"]["chat"]
    assert told["forms"] == [{"roles": ["user"], "pieces": [f"{BEGIN} ", 0, f" {END}"]}]
    (read,) = chat.content["run"]["prompts"].values()
    assert [len(read[side]) for side in ("sources", "bases")] == [one["pairs"]] * 2
    trials = chat.trials
    for row in trials[trials["arm"] == "base"].itertuples():
        text = read["bases"][row.base]
        assert text.startswith(f"{BEGIN} ")
        assert text.endswith(f" {END}")
        assert len(text.split()) == row.prompt_tokens
    for page in ("report.html", "report.md"):
        shown = (chat.out / page).read_text(encoding="utf-8")
        assert "as the model read" in shown
        assert f"{read['bases'][trials.iloc[0].base][:40]}" in shown
        assert told["template_sha"][:16] in shown


def test_a_replay_takes_the_run_as_chats_without_torch(chat: Run, project: Path) -> None:
    run = run_pytest(project, "claims", "--claims-replay", str(chat.out), out=project / "again")
    assert "torch is loaded: False" in run.stdout, run.stdout + run.stderr
    (one,), (again,) = chat.evidence, run.evidence
    assert [again[name] for name in ("verdict", "estimate", "interval", "task")] == [
        one[name] for name in ("verdict", "estimate", "interval", "task")
    ]
    facts, then = run.content["run"], chat.content["run"]
    assert facts["chat"] is True
    assert facts["prompts"] == then["prompts"]
