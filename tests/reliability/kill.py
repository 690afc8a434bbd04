"""Runs that are killed with -9 and started again, held against one that was never disturbed.

    python -m tests.reliability.kill --kills 20 --out reports/kill

Each kill goes into a folder that holds a whole earlier run. What must hold, right after the kill:
the folder is read as the earlier run or as the new one, whole, never as a mixture. After the same
command has run again: its trials and verdicts are those of the run that was never disturbed.

Kills fall at a random time between the moment in which a run takes its folder and its end, or, each
third, at a random change of names while its files appear. With two workers it is the controller
alone that dies (its workers end by themselves, and are waited for) or the whole process group.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kv_claims.errors import UsageError
from kv_claims.evidence.stored import StoredRun, load_run
from kv_claims.files.atomic import replace
from kv_claims.run.ledger import Ledger
from tests.processes import inherited

ROOT = Path(__file__).parents[2]
MODEL = "planted:stored-at-layer"
CELLS = ("-k", "transfers_80 and (L18-w16 or L25-w16)")
SIZE = ("--pairs", "12", "--max-new-tokens", "8", "--batch-size", "6")
EARLIER = ("--pairs", "10", "--max-new-tokens", "4")
NAMES_CHANGED = 11
"""Changes of names while files appear: a folder, three texts, a rename, six moves at most."""
NEVER = 1200.0
"""Seconds after which a run is taken to hang; one takes half a minute on an idle machine."""
HANGS = -1000
"""Stands for the status of a run that had to be killed since it did not end."""
SAME = (
    *("claim", "cell", "model", "verdict", "reason", "estimate", "interval", "interval_other"),
    *("level", "p_supported", "p_refuted", "means", "pairs", "clusters", "seeds", "trials"),
)


@dataclass(frozen=True)
class Kill:
    """One kill, and what came of it.

    at: seconds after the run took its folder, or the change of names before which it died. who:
    `run`, or with workers `controller` or `group`. left: the run that was read right after the
    kill. trials: whole records in the ledger then. torn: lines that were not. wrong: what should
    not be; empty where all is as it should be.
    """

    workers: int
    number: int
    at: str
    who: str
    left: str
    trials: int
    torn: int
    seconds: float
    wrong: str

    @property
    def good(self) -> bool:
        return not self.wrong


@dataclass(frozen=True)
class Undisturbed:
    """What kills are held against. earlier: a folder with the run that stands before each."""

    earlier: Path
    run: StoredRun
    span: float
    """Seconds from the moment in which it took its folder to its end."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, compare, write `kill.json` and `kill.md`; 1 where something was not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.kill")
    parser.add_argument("--kills", type=int, default=20, help="of each kind (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of times and kinds (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "kill")
    given = parser.parse_args(arguments)
    if given.kills < 1:
        parser.error(f"--kills {given.kills}: expected at least 1")
    given.out.mkdir(parents=True, exist_ok=True)
    work = given.out / "work"
    shutil.rmtree(work, ignore_errors=True)
    started = time.monotonic()
    kills = kill_all(work, given.kills, given.seed, say=print)
    shutil.rmtree(work)
    taken = time.monotonic() - started
    content = {"seed": given.seed, "seconds": round(taken, 1), "kills": [asdict(k) for k in kills]}
    text = json.dumps(content, indent=1) + "\n"
    replace(given.out / "kill.json", lambda path: path.write_text(text, encoding="utf-8"))
    shown = table(kills, taken)
    replace(given.out / "kill.md", lambda path: path.write_text(shown, encoding="utf-8"))
    print(shown)
    return int(not all(kill.good for kill in kills))


def kill_all(work: Path, kills: int, seed: int, say: Any = lambda _: None) -> list[Kill]:
    """So many kills of a run in one process, and of one with two workers, in a folder of work."""
    work.mkdir(parents=True)
    found: list[Kill] = []
    for workers in (0, 2):
        known = undisturbed(work, workers)

        def one(number: int, workers: int = workers, known: Undisturbed = known) -> Kill:
            rng = random.Random(f"{seed}/{workers}/{number}")
            kill = kill_once(work, workers, number, known, rng)
            say(
                f"workers {workers}, kill {number}: at {kill.at}, {kill.wrong or 'as it should be'}"
            )
            return kill

        # Two of one process at a time; of those with workers one, as they are two processes.
        with ThreadPoolExecutor(1 if workers else 2) as pool:
            found += pool.map(one, range(kills))
    return found


def undisturbed(work: Path, workers: int) -> Undisturbed:
    """The earlier run, and the one that is never killed."""
    earlier, out = work / f"earlier-{workers}", work / f"undisturbed-{workers}"
    _ended(start(earlier, 0, EARLIER))
    process = start(out, workers)
    took = _wait_for_folder(process, out)
    _ended(process)
    return Undisturbed(earlier, load_run(out), time.monotonic() - took)


def kill_once(
    work: Path, workers: int, number: int, known: Undisturbed, rng: random.Random
) -> Kill:
    """Kill a run, look at what it left, run it again, and compare."""
    out = work / f"killed-{workers}-{number}"
    shutil.copytree(known.earlier, out)
    began = time.monotonic()
    who = rng.choice(("controller", "group")) if workers else "run"
    if number % 3 == 2:
        change = rng.randrange(NAMES_CHANGED)
        at = f"change of names {change}"
        process = start(out, workers, KV_KILL_AT=str(change))
        _wait(process)
    else:
        process = start(out, workers)
        after = rng.uniform(0.0, known.span)
        at = f"{after:.2f} s"
        taken = _wait_for_folder(process, out)
        time.sleep(max(0.0, taken + after - time.monotonic()))
        if who == "group":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        _wait(process)
    if process.returncode not in (-signal.SIGKILL, 0):
        return _kill(workers, number, at, who, began, wrong=f"ended with {process.returncode}")
    if process.returncode == 0:
        at += " (it had ended)"
    left, wrong = _left(out, known.earlier)
    ledger = Ledger(Path(shutil.copytree(out / "ledger", out.with_name(f"{out.name}-ledger"))))
    again = start(out, workers)
    _wait(again)
    if again.returncode != 0:
        wrong = wrong or f"run again it ended with {again.returncode}: {_log(out)[-300:]}"
    else:
        wrong = wrong or differs(load_run(out), known.run)
    return _kill(
        workers, number, at, who, began, left, len(ledger), len(ledger.bad_lines), wrong=wrong
    )


def _kill(
    workers: int,
    number: int,
    at: str,
    who: str,
    began: float,
    left: str = "",
    trials: int = 0,
    torn: int = 0,
    *,
    wrong: str,
) -> Kill:
    seconds = round(time.monotonic() - began, 1)
    return Kill(workers, number, at, who, left, trials, torn, seconds, wrong)


def start(
    out: Path, workers: int, size: Sequence[str] = SIZE, **environment: str
) -> subprocess.Popen[bytes]:
    """`pytest claims` on two cells of a planted model, in a process group of its own."""
    command = [sys.executable, "-m", "pytest", "claims", "-p", "no:cacheprovider", "-q"]
    command += ["-p", "tests.reliability.kill_at", "--model", MODEL, *size, *CELLS]
    command += ["--claims-out", str(out), *(["-n", str(workers)] if workers else [])]
    paths = os.pathsep.join((str(ROOT), inherited()["PYTHONPATH"]))
    with out.with_name(f"{out.name}.log").open("wb") as log:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env={**inherited(), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait_for_folder(process: subprocess.Popen[bytes], out: Path) -> float:
    """Wait until a run holds its folder, whoever held it before; the time of it."""
    until = time.monotonic() + NEVER
    while time.monotonic() < until and process.poll() is None:
        try:
            if json.loads((out / ".writer").read_text(encoding="utf-8"))["pid"] == process.pid:
                return time.monotonic()
        except (OSError, ValueError):
            pass
        time.sleep(0.01)
    raise RuntimeError(f"{out}: no run held it: {_log(out)}")


def _wait(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a run; one that hangs is killed with its workers, and so found."""
    try:
        process.wait(timeout=NEVER)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.returncode = HANGS


def _ended(process: subprocess.Popen[bytes]) -> None:
    _wait(process)
    if process.returncode != 0:
        raise RuntimeError(f"an undisturbed run ended with {process.returncode}")


def _log(out: Path) -> str:
    return out.with_name(f"{out.name}.log").read_text(encoding="utf-8", errors="replace")


def _left(out: Path, earlier: Path) -> tuple[str, str]:
    """Which run is read after a kill, and what is wrong with it.

    Read from a copy, that the next run finds what the kill left.
    """
    copy = Path(shutil.copytree(out, out.with_name(f"{out.name}-left")))
    try:
        found = load_run(copy)
    except UsageError as error:
        return "", f"after the kill: {error}"
    if not found.integrity.is_whole or found.integrity.pages:
        return "", f"after the kill: {found.integrity}, {found.integrity.pages}"
    return ("earlier" if found.run["id"] == load_run(earlier).run["id"] else "new"), ""


def differs(found: StoredRun, wanted: StoredRun) -> str:
    """How a run that was killed differs from one that was not; '' where it does not."""
    if not found.integrity.is_whole or found.integrity.pages:
        return f"{found.integrity} {found.integrity.pages}"
    if not found.run["complete"]:
        return f"incomplete: {found.run['cells']}"
    for key, one in wanted.evidence.items():
        other = found.evidence.get(key)
        if other is None:
            return f"no evidence on {key}"
        for name in SAME:
            if other[name] != one[name]:
                return f"{key}: {name} {other[name]!r}, expected {one[name]!r}"
        checks = [[(c["name"], c["passed"]) for c in some["checks"]] for some in (other, one)]
        if checks[0] != checks[1]:
            return f"{key}: other checks"
    if len(found.evidence) != len(wanted.evidence):
        return f"{len(found.evidence)} cells, expected {len(wanted.evidence)}"
    columns = ["key", "arm", "pair", "seed", "tokens", "text", "score"]
    tables = [
        run.trials.sort_values("key")[columns].reset_index(drop=True) for run in (found, wanted)
    ]
    return "" if tables[0].equals(tables[1]) else "other trials"


def table(kills: Sequence[Kill], seconds: float) -> str:
    """What came of them, as Markdown."""
    good = sum(kill.good for kill in kills)
    head = ("workers", "kill", "at", "who", "read after it", "trials kept", "torn lines", "seconds")
    lines = [
        "# Runs that were killed",
        "",
        f"{len(kills)} kills in {seconds:.0f} s, {good} as they should be: after the kill one "
        "whole run was read, and the same command then had the verdicts of an undisturbed run.",
        "",
        f"| {' | '.join(head)} | wrong |",
        f"|{'---|' * (len(head) + 1)}",
    ]
    for kill in kills:
        *row, wrong = asdict(kill).values()
        told = " ".join(wrong.replace("|", "/").split()) or "-"
        lines.append(f"| {' | '.join(map(str, row))} | {told} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
