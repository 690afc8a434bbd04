"""Runs the steps, each in a process of its own with a time limit, and keeps what they leave.

A step that fails, hangs or takes the device down with it stops no other. While a step runs, what
it has found so far is in `gpu.json` already, so that nothing is lost where the whole is stopped
from outside. Steps that no longer fit into the time are listed as not run; a later call with
`--rest` takes them up.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from kv_claims.benching.gpu import record
from kv_claims.benching.gpu.record import Record
from kv_claims.benching.gpu.steps import ROOT, Step
from kv_claims.plain import say

TAIL_BYTES = 60_000
"""Of the output of a step that did not end well, so much from its end is kept in `gpu.json`."""
SMALL_SLACK = 4
"""Where a step is only tried it may take so many times as long: on two cores that others use."""
_POLL_SECONDS = 0.5
_GRACE_SECONDS = 5.0


class Asked(NamedTuple):
    """What was asked for. minutes: for all steps together. paths: put before the module path."""

    out: Path
    device: str
    small: bool
    model: str | None
    minutes: float
    paths: tuple[Path, ...] = ()


def run(steps: Sequence[Step], asked: Asked, *, said: str) -> int:
    """Run steps one after another; 0 where each was answered as wanted, or skipped by name.

    said: what stands in the page of this call.
    """
    kept = Record(asked.out)
    with _ended_orderly():
        return _run(steps, asked, kept, said)


@contextmanager
def _ended_orderly() -> Iterator[None]:
    """While this is open SIGTERM ends this process as Ctrl-C does: with its steps, written down."""

    def end(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(steps: Sequence[Step], asked: Asked, kept: Record, said: str) -> int:
    started = time.monotonic()
    kept.content["calls"].append(
        {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "said": said,
            "device": asked.device,
            "small": asked.small,
            "steps": [step.name for step in steps],
        }
    )
    for name, found in kept.steps.items():
        if found["state"] == record.RUNNING:
            # Ours is the only process of this folder, so that one was stopped from outside.
            kept.steps[name] = {**found, "state": record.FAILED, "why": "stopped from outside"}
    kept.write()
    for step in steps:
        left = 60 * asked.minutes - (time.monotonic() - started)
        _run_step(step, asked, kept, left)
        found = kept.steps[step.name]
        say(f"{step.name}: {found['state']} {found.get('why', '')}".rstrip())
        for finding in found.get("findings", ()):
            say("\n".join(f"    {line}" for line in finding["lines"]))
    say(f"written: {kept.path}, {kept.folder / 'gpu.md'}")
    return int(any(kept.state(step.name) not in record.GOOD for step in steps))


def _run_step(step: Step, asked: Asked, kept: Record, left: float) -> None:
    missing = [name for name in step.needs if not _is_there(name, asked.paths)]
    if missing:
        _end(kept, step, record.SKIPPED, f"not here: {', '.join(missing)}")
        return
    if left < (1 if asked.small else step.takes):
        # An answer of an earlier call is worth more than this.
        if kept.state(step.name) == record.NOT_RUN:
            _end(kept, step, record.NOT_RUN, f"{max(left, 0):.0f} s were left")
        return
    folder = asked.out / "steps" / step.name
    folder.mkdir(parents=True, exist_ok=True)
    result, log = folder / "result.json", folder / "output.log"
    result.unlink(missing_ok=True)
    seconds = min(step.most * (SMALL_SLACK if asked.small else 1), left)
    command = [sys.executable, "-m", "kv_claims.benching.gpu.step", step.does]
    command += ["--device", asked.device, "--folder", str(folder), "--seconds", f"{seconds:.0f}"]
    command += ["--small"] * asked.small
    command += ["--model", asked.model] if asked.model else []
    kept.steps[step.name] = {"state": record.RUNNING}
    kept.write()
    started = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(asked.paths),
            start_new_session=True,
        )
        try:
            ended = _wait(process, started + seconds, result, kept, step)
        except BaseException:
            stop(process)
            _take(result, kept, step)
            _end(kept, step, record.FAILED, "stopped from outside", log, started)
            raise
    if not ended:
        _take(result, kept, step)
        _end(kept, step, record.OUT_OF_TIME, f"after {seconds:.0f} s", log, started)
        return
    _take(result, kept, step)
    findings = kept.steps[step.name].get("findings", [])
    if process.returncode != 0 or not findings:
        why = f"exit status {process.returncode}"
        if process.returncode < 0:
            why = f"ended by {signal.Signals(-process.returncode).name}"
        _end(kept, step, record.FAILED, why, log, started)
    elif short := [one["name"] for one in findings if one["good"] is False]:
        _end(kept, step, record.SHORT, ", ".join(short), log, started)
    elif skipped := [one for one in findings if one["name"] == "skipped"]:
        _end(kept, step, record.SKIPPED, "; ".join(skipped[0]["lines"]), started=started)
    else:
        _end(kept, step, record.DONE, "", started=started)


def _wait(
    process: subprocess.Popen[bytes], until: float, result: Path, kept: Record, step: Step
) -> bool:
    """Whether it ended by itself. Meanwhile what it has found is written down."""
    seen = 0
    while process.poll() is None:
        if time.monotonic() > until:
            stop(process)
            return False
        time.sleep(_POLL_SECONDS)
        changed = result.stat().st_mtime_ns if result.exists() else 0
        if changed != seen:
            seen = changed
            _take(result, kept, step)
            kept.write()
    return True


def stop(process: subprocess.Popen[Any]) -> None:
    """End a process and all that it started: it was made the first of its own session."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _take(result: Path, kept: Record, step: Step) -> None:
    """Take over what the step has found so far."""
    if result.is_file():
        kept.steps[step.name]["findings"] = json.loads(result.read_text(encoding="utf-8"))


def _end(
    kept: Record,
    step: Step,
    state: str,
    why: str,
    log: Path | None = None,
    started: float | None = None,
) -> None:
    found = kept.steps.setdefault(step.name, {})
    found["state"] = state
    found.pop("why", None)
    if why:
        found["why"] = why
    if started is not None:
        found["seconds"] = round(time.monotonic() - started, 1)
    if log is not None:
        found["log"] = str(log.relative_to(kept.folder))
        whole = log.read_bytes()
        found["tail"] = whole[-TAIL_BYTES:].decode("utf-8", "replace")
    kept.write()


def environment(paths: Sequence[Path]) -> Mapping[str, str]:
    """This process's, with folders before the module path, and without network."""
    before = os.environ.get("PYTHONPATH")
    joined = os.pathsep.join([*map(str, paths), *([before] if before else [])])
    return {
        **os.environ,
        "PYTHONPATH": joined,
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def _is_there(name: str, paths: Sequence[Path]) -> bool:
    return find_spec(name) is not None or any((path / name).is_dir() for path in paths)
