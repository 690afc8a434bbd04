"""Writing a run's files: evidence.json, trials.parquet, trials.csv, report.md, report.html.

They appear together (`kv_claims.evidence.folder`), each with its hash in the evidence
(`kv_claims.evidence.hashes`), and the evidence signed where a key was given: a failure half-way
leaves those of the former run whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow
import pyarrow.parquet

from kv_claims import __version__
from kv_claims.evidence.evidence import SCHEMA, plain, to_json
from kv_claims.evidence.folder import CSV_FILE, EVIDENCE_FILE, SIGNATURE_FILE, TRIALS_FILE, publish
from kv_claims.evidence.hashes import (
    ANSWERS,
    LIKELIHOODS,
    RUN_KEY,
    content_sha,
    fed_sha,
    sha_of_file,
)
from kv_claims.evidence.schema import EvidenceFile, is_own_table
from kv_claims.evidence.stored import Key, StoredRun, read_trials
from kv_claims.files.lock import hold
from kv_claims.judging.family import add_holm
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.settings import LEDGER_FOLDER
from kv_claims.report.render import render_reports
from kv_claims.report.shards import invalidate
from kv_claims.report.spreadsheet import write_csv
from kv_claims.run.ledger import Ledger
from kv_claims.run.table import trials_frame
from kv_claims.tasks.chat import read_prompts
from kv_claims.tasks.scorers import counted_by


def write_reports(state: ClaimsSession) -> None:
    """Write every file of a run into its folder, all at once."""
    out = state.settings.out
    with ExitStack() as until_written:
        if not state.holds:
            until_written.enter_context(hold(out, command=state.settings.command))
        fed: dict[str, str | None] = {}
        if state.replayed is None:
            ledger = Ledger(out / LEDGER_FOLDER, shard="unused")
            state.evidence = invalidate(state.evidence, ledger)
            state.instrument = invalidate(state.instrument, ledger)
            trials = trials_of(state, ledger)
            run = run_facts(state, ledger)
            fed = {
                LIKELIHOODS: fed_sha(state.evidence, "likelihoods", ledger.likelihoods.all()),
                ANSWERS: fed_sha(state.evidence, "answers", ledger.answers.all()),
            }
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
        staging = until_written.enter_context(publish(out))
        write_csv(trials, staging / CSV_FILE)
        write_trials(staging / TRIALS_FILE, trials, run["id"])
        names = [CSV_FILE, TRIALS_FILE, *_write_pages(staging, _stored(out, staging, content))]
        files = {name: sha_of_file(staging / name) for name in names}
        content["files"] = {**files, **{name: sha for name, sha in fed.items() if sha is not None}}
        content["sha"] = content_sha(content)
        text = to_json(content, indent=1)
        write_text(staging / EVIDENCE_FILE, text)
        if state.signer is not None:
            write_text(staging / SIGNATURE_FILE, state.signer(text.encode()))


def write_again(stored: StoredRun) -> None:
    """Write the reports of a stored run beside its evidence, both at once.

    Raises UsageError where another writes the folder.
    """
    command = f"kv-claims report {stored.folder}"
    with hold(stored.folder, command=command), publish(stored.folder) as staging:
        _write_pages(staging, stored)


def write_trials(path: Path, trials: pd.DataFrame, run_id: str) -> None:
    """Write a table of trials as Parquet, with the id of its run in its metadata."""
    table = pyarrow.Table.from_pandas(trials, preserve_index=False)
    named = {**(table.schema.metadata or {}), RUN_KEY: run_id.encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(named), path)


def _write_pages(folder: Path, stored: StoredRun) -> Sequence[str]:
    pages = render_reports(stored)
    for name, text in pages.items():
        write_text(folder / name, text)
    return list(pages)


def _stored(out: Path, staging: Path, content: dict[str, Any]) -> StoredRun:
    """A run that is being written; of evidence that stands twice (a test run twice) the last."""
    found = cast("EvidenceFile", content)
    evidence = {Key(one["claim"], one["cell"], one["model"]): one for one in found["evidence"]}
    return StoredRun(
        folder=out,
        run=found["run"],
        evidence=evidence,
        trials=read_trials(staging / TRIALS_FILE, evidence),
        instrument=tuple(found["instrument"]),
        families=tuple(found["families"]),
        protocol=tuple(found["protocol"]),
    )


def run_facts(state: ClaimsSession, ledger: Ledger) -> dict[str, Any]:
    """What holds for the run as a whole."""
    return {**_settings(state, ledger), "scorers": _scorers(state), **_prompts(state)}


def _settings(state: ClaimsSession, ledger: Ledger) -> dict[str, Any]:
    settings, cells = state.settings, state.cells
    return {
        "id": state.id,
        "complete": state.is_complete,
        "cells": cells,
        "kv_claims": __version__,
        "command": settings.command,
        "protocol": settings.protocol,
        "profile": settings.profile,
        "models": list(settings.models),
        "task_file": str(settings.task) if settings.task else None,
        **({"chat": True} if settings.chat else {}),
        "pairs_asked": settings.pairs,
        "seeds": settings.n_seeds,
        "max_new_tokens": settings.sampling.max_new_tokens,
        "temperature": settings.sampling.temperature,
        "strict": settings.strict,
        "ledger_lines_set_aside": [str(bad) for bad in ledger.bad_lines],
        "spent": state.cost.to_dict(),
    }


def _scorers(state: ClaimsSession) -> dict[str, Any]:
    """What each model's texts were scored by: enough to show what was counted in them."""
    models = dict.fromkeys(one["model"] for one in _of_ours(state))
    return {model: counted_by(state.settings.task_of(model).scorer) for model in models}


def _prompts(state: ClaimsSession) -> dict[str, Any]:
    """What each model read of a task with messages; nothing where no task has any."""
    pairs: dict[str, int] = {}
    forms: dict[str, list[dict[str, Any]]] = {}
    for one in [*_of_ours(state), *state.protocol]:
        if chat := one["provenance"].get("tokens", {}).get("chat"):
            model = one["model"]
            pairs[model] = max(pairs.get(model, 0), one["pairs"])
            forms.setdefault(model, []).extend(chat["forms"])
    read = {
        model: read_prompts(state.settings.task_of(model), n, forms[model])
        for model, n in pairs.items()
        if n
    }
    return {"prompts": read} if read else {}


def replay_facts(state: ClaimsSession) -> dict[str, Any]:
    """What holds for a replay as a whole: the stored run's settings, and where its trials are."""
    assert state.replayed is not None
    return {
        **_settings(state, Ledger()),
        **state.replayed.facts(),
        "models": list(state.replayed.models),
        "not_replayed": state.not_replayed,
    }


def _of_ours(state: ClaimsSession) -> list[dict[str, Any]]:
    """What was found on trials of ours: no table that a test made is behind it."""
    found = [*state.evidence, *state.instrument]
    return [one for one in found if not is_own_table(one["provenance"])]


def trials_of(state: ClaimsSession, ledger: Ledger) -> pd.DataFrame:
    """The trials that this run's evidence rests on, scored; one row each."""
    used: dict[tuple[str, str], tuple[int, int]] = {}
    # Two names may stand for the same weights, and then share a study: each has its own rows.
    models: dict[tuple[str, str], None] = {}
    for one in _of_ours(state):
        models[one["model"], one["study"]] = None
        for arm in one["arms"].values():
            # Cells that were decided early have fewer pairs than others that share an arm.
            pairs, _ = used.get((one["study"], arm), (0, 0))
            used[one["study"], arm] = (max(pairs, one["pairs"]), one["seeds"])
    frames = []
    for model, study in models:
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
    if state.tables:
        # One table may be that of several cells.
        own = pd.concat(map(pd.DataFrame, state.tables), ignore_index=True)
        frames.append(own.drop_duplicates(["model", "study", "arm", "pair", "seed"]))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def write_text(path: Path, content: str) -> None:
    """Write a text file, line ends as they are."""
    path.write_text(content, encoding="utf-8", newline="")
