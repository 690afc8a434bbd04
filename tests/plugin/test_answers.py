"""Claims on answers from end to end: a task file in, a run's files out, judged again, verified.

The model is a planted one in a folder, which nobody knows the truth of; the example is run on one
that knows nothing but its words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kv_claims.__main__ import main
from kv_claims.planted.words import MARKERS, PLAIN
from kv_claims.tasks.load import load_task
from tests.plugin.project import ROOT, Run, make_project, run_pytest, save_as_stranger

pytestmark = pytest.mark.slow
CLAIMS = """
from kv_claims import Patch, Region, claim

said = {"says": "a sentence", "cites": "a test"}

@claim("logit-diff", transfer=Region(0.3, 1.0), outcome="logit_diff", **said)
def test_logit_diff(study):
    study.judge(Patch("kv", "12", "last(30)"))

@claim("accuracy", rate=Region(0.4, 1.0), margin=0.3, outcome="accuracy", **said)
def test_accuracy(study):
    study.judge(Patch("kv", "12", "last(30)"))

@claim("loss", shift=Region(high=-0.2), margin=0.2, outcome="loss", **said)
def test_loss(study):
    study.judge(Patch("kv", "12", "last(30)"))
"""
SHARED = ("--pairs", "40")


def answered(project: Path, name: str, turn: int = 0) -> Path:
    """The model's own prompts with answers, one in eight the other way, and nothing to score by."""
    content = yaml.safe_load((project / "own.yaml").read_text())
    for k, (source, base) in enumerate(zip(content["sources"], content["bases"], strict=True)):
        words = [MARKERS[k + turn], PLAIN[k]][:: -1 if k % 8 == 0 else 1]
        source |= {"answer": f" {words[0]}", "continuation": f" {words[0]} {MARKERS[-1]}"}
        base |= {"answer": f" {words[1]}"}
    del content["scorer"], content["lexicon"]
    path = project / name
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_project(tmp_path_factory.mktemp("answers") / "project")
    save_as_stranger(folder)
    (folder / "test_answers.py").write_text(CLAIMS)
    answered(folder, "answers.yaml")
    return folder


@pytest.fixture(scope="module")
def run(project: Path) -> Run:
    asked = ("--model", str(project / "checkpoint"), "--task", str(project / "answers.yaml"))
    return run_pytest(project, "test_answers.py", *asked, *SHARED, out=project / "out")


def test_claims_on_answers_are_judged(run: Run) -> None:
    assert run.code == 0, run.stdout + run.stderr
    assert {one["claim"]: one["verdict"] for one in run.evidence} == dict.fromkeys(
        ("logit-diff", "accuracy", "loss"), "supported"
    )
    assert all(one["verified"] for one in run.evidence)
    for one in run.evidence:
        assert one["answers"] == 40 * (len(one["arms"]) - 2)
        assert one["scorer"] == one["texts"] == one["repetition"] == {}


def test_nothing_was_generated_but_for_the_instrument(run: Run) -> None:
    assert {len(tokens.split()) for tokens in run.trials["tokens"]} == {2}
    assert run.content["files"]["ledger/answers"]


def test_both_reports_show_the_outcome_and_what_it_is(run: Run) -> None:
    for name in ("report.md", "report.html"):
        text = (run.out / name).read_text(encoding="utf-8")
        assert "logit_diff" in text.replace("\\", "")
        assert "accuracy" in text
        # Of what nothing was read of nothing is shown.
        assert "## Texts" not in text
        assert 'id="texts"' not in text


def test_stored_answers_are_judged_again_and_verified(
    run: Run, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = run_pytest(
        project, "test_answers.py", "--claims-replay", str(run.out), out=project / "again"
    )
    assert again.code == 0, again.stdout + again.stderr
    for one, other in zip(run.evidence, again.evidence, strict=True):
        for key in ("claim", "verdict", "estimate", "interval", "answers", "means"):
            assert one[key] == other[key]
    assert main(["verify", str(run.out)]) == 0
    assert "whole" in capsys.readouterr().out


def test_answers_of_other_texts_are_not_judged(run: Run, project: Path) -> None:
    """The same prompts: what was fed behind them is what counts."""
    other = answered(project, "other.yaml", turn=1)
    asked = ("--claims-replay", str(run.out), "--task", str(other))
    found = run_pytest(project, "test_answers.py", *asked, out=project / "other")
    told = found.stdout + found.stderr
    assert "answers of these texts not in ledger/answers of the stored run" in told
    assert found.code == 5


def test_edited_answers_are_found(run: Run, project: Path, tmp_path: Path) -> None:
    import hashlib
    import shutil

    copy = Path(shutil.copytree(run.out, tmp_path / "copy"))
    (shard,) = (copy / "ledger/answers").glob("*.jsonl")
    lines = []
    for line in shard.read_text().splitlines():
        body: dict[str, Any] = json.loads(line.partition(" ")[2])
        if body["arm"].startswith("source>"):
            body["logp"] = [0.0, *body["logp"][1:]]
        text = json.dumps(body)
        lines.append(f"{hashlib.sha256(text.encode()).hexdigest()[:16]} {text}\n")
    shard.write_text("".join(lines))
    found = run_pytest(
        project, "test_answers.py", "--claims-replay", str(copy), out=tmp_path / "found"
    )
    assert not any(one["verified"] for one in found.evidence)
    assert "ledger/answers" in found.content["run"]["replay"]["edited"]
    assert main(["verify", str(copy)]) == 1


def save_names(folder: Path) -> None:
    """A tiny random model that knows the words of the example's task."""
    task = load_task(ROOT / "claims/tasks/who_is_given.yaml")
    texts = [one.text for one in (*task.sources, *task.bases)]
    texts += [one.answers.answer for one in task.sources if one.answers]
    words = dict.fromkeys(["<unk>", *(word for text in texts for word in text.split())])
    backend = Tokenizer(WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>").save_pretrained(folder)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(words),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=8,
            num_attention_heads=2,
            max_position_embeddings=128,
            bos_token_id=None,
            eos_token_id=None,
        )
    ).save_pretrained(folder)


def test_the_example_runs(tmp_path: Path) -> None:
    save_names(tmp_path / "names")
    asked = ("--model", str(tmp_path / "names"), "--task", "claims/tasks/who_is_given.yaml")
    run = run_pytest(ROOT, "docs/examples/answers", *asked, "--pairs", "30", out=tmp_path / "out")
    assert run.code == 1, run.stdout + run.stderr  # a random model knows nobody
    words = {one["claim"]: one["verdict"] for one in run.evidence}
    assert set(words) == {"the-model-knows-who", "the-name-that-acts-is-read-late"}
    assert "supported" not in words.values()
