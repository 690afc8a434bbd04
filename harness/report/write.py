"""Writing a run's files: evidence.json, trials.parquet, trials.csv, report.md, report.html.

Each file is written beside its place and then moved there, so that a failure half-way leaves the
earlier one whole.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import pandas as pd

from harness import __version__
from harness.evidence import SCHEMA, plain, to_json
from harness.family import add_holm
from harness.files import replace
from harness.report.render import render_reports
from harness.report.shards import invalidate
from harness.report.spreadsheet import write_csv
from harness.run.ledger import Ledger
from harness.run.table import trials_frame
from harness.schema import EvidenceFile
from harness.session import LEDGER_FOLDER, ClaimsSession
from harness.stored import EVIDENCE_FILE, TRIALS_FILE, Key, StoredRun, read_trials
from harness.tasks.scorers import counted_by


def write_reports(state: ClaimsSession) -> None:
    """Write every file of a run into its folder."""
    out = state.settings.out
    if state.replayed is None:
        ledger = Ledger(out / LEDGER_FOLDER, shard="unused")
        state.evidence = invalidate(state.evidence, ledger)
        state.instrument = invalidate(state.instrument, ledger)
        trials = trials_of(state, ledger)
        run = run_facts(state, ledger)
    else:
        trials = state.replayed.trials(state.evidence)
        run = replay_facts(state)
    state.families = add_holm(state.evidence)
    # As it is read from the file, so that the reports are the same when they are made again.
    content = plain(
        {
            "schema": SCHEMA,
            "run": run,
            "evidence": state.evidence,
            "families": state.families,
            "instrument": state.instrument,
            "protocol": state.protocol,
        }
    )
    replace(out / EVIDENCE_FILE, lambda path: write_text(path, to_json(content, indent=1)))
    replace(out / "trials.csv", lambda path: write_csv(trials, path))
    replace(out / TRIALS_FILE, lambda path: trials.to_parquet(path, index=False))
    write_again(_stored(out, content))


def write_again(stored: StoredRun) -> None:
    """Write the reports of a stored run beside its evidence."""
    for name, text in render_reports(stored).items():
        replace(stored.folder / name, partial(write_text, content=text))


def _stored(out: Path, content: dict[str, Any]) -> StoredRun:
    """A run that was just written; of evidence that stands twice (a test run twice) the last."""
    found = cast("EvidenceFile", content)
    evidence = {Key(one["claim"], one["cell"], one["model"]): one for one in found["evidence"]}
    return StoredRun(
        out,
        found["run"],
        evidence,
        read_trials(out / TRIALS_FILE, evidence),
        tuple(found["instrument"]),
        tuple(found["families"]),
        tuple(found["protocol"]),
    )


def run_facts(state: ClaimsSession, ledger: Ledger) -> dict[str, Any]:
    """What holds for the run as a whole."""
    return {**_settings(state, ledger), "scorers": _scorers(state)}


def _settings(state: ClaimsSession, ledger: Ledger) -> dict[str, Any]:
    settings = state.settings
    return {
        "kv_claims": __version__,
        "command": settings.command,
        "protocol": settings.protocol,
        "profile": settings.profile,
        "models": list(settings.models),
        "task_file": str(settings.task) if settings.task else None,
        "pairs_asked": settings.pairs,
        "seeds": settings.n_seeds,
        "max_new_tokens": settings.sampling.max_new_tokens,
        "temperature": settings.sampling.temperature,
        "strict": settings.strict,
        "ledger_lines_set_aside": [str(bad) for bad in ledger.bad_lines],
        "spent": state.spent.to_dict(),
    }


def _scorers(state: ClaimsSession) -> dict[str, Any]:
    """What each model's texts were scored by: enough to show what was counted in them."""
    models = dict.fromkeys(one["model"] for one in [*state.evidence, *state.instrument])
    return {model: counted_by(state.settings.task_of(model).scorer) for model in models}


def replay_facts(state: ClaimsSession) -> dict[str, Any]:
    """What holds for a replay as a whole: the stored run's settings, and where its trials are."""
    assert state.replayed is not None
    return {
        **_settings(state, Ledger()),
        **state.replayed.facts(),
        "models": list(state.replayed.models),
        "not_replayed": state.not_replayed,
    }


def trials_of(state: ClaimsSession, ledger: Ledger) -> pd.DataFrame:
    """The trials that this run's evidence rests on, scored; one row each."""
    used: dict[tuple[str, str], tuple[int, int]] = {}
    # Two names may stand for the same weights, and then share a study: each has its own rows.
    models: dict[str, str] = {}
    for one in [*state.evidence, *state.instrument]:
        models[one["model"]] = one["study"]
        for arm in one["arms"].values():
            # Cells that were decided early have fewer pairs than others that share an arm.
            pairs, _ = used.get((one["study"], arm), (0, 0))
            used[one["study"], arm] = (max(pairs, one["pairs"]), one["seeds"])
    frames = []
    for model, study in models.items():
        trials = sorted(
            (
                trial
                for trial in ledger.trials()
                if trial.study == study
                and trial.pair_index < used.get((study, trial.arm), (0, 0))[0]
                and trial.seed < used.get((study, trial.arm), (0, 0))[1]
            ),
            key=lambda trial: (trial.pair_index, trial.seed, trial.arm),
        )
        frames.append(trials_frame(trials, state.settings.task_of(model)).assign(model=model))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def write_text(path: Path, content: str) -> None:
    """Write a text file, line ends as they are."""
    path.write_text(content, encoding="utf-8", newline="")
