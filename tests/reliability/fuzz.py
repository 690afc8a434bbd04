"""Damaged inputs: each is one clear error or a right result, never a traceback, never a hang.

    .venv/bin/python -m tests.reliability.fuzz --mutants 2000 --seed 15 --out reports/fuzz

Bounded and seeded: the same numbers give the same mutants. A mutant is damaged in one file
(`mutators`), and used in this process as the commands use it; a sample runs as a command. Right is:
a UsageError of one printable line, or an answer; what a ledger holds after damage to its bytes is
among what it held before. What it cannot see is an answer that is wrong and looks right.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from kv_claims.errors import UsageError
from kv_claims.evidence.compare import compare
from kv_claims.evidence.evidence import to_json
from kv_claims.evidence.stored import load_run
from kv_claims.models.load import LoadedModel, check_request, load_model
from kv_claims.pins.file import load_pins
from kv_claims.planted.catalog import CATALOG, PLANTED_PREFIX
from kv_claims.planted.prompts import planted_task
from kv_claims.replay.foreign import ForeignTable
from kv_claims.replay.run import ReplayedRun
from kv_claims.report.comparison import comparison_json, render_comparison
from kv_claims.report.figures.all import ModelFigures
from kv_claims.report.markdown import render
from kv_claims.report.page import render_page
from kv_claims.report.render import render_reports
from kv_claims.report.view.report import report_view
from kv_claims.run.ledger import LIKELIHOODS, SELF_PATCHES, Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.table import trials_frame
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.load import load_task
from kv_claims.tasks.task import Task
from tests.reliability.mutators import BYTES, Places, json_bytes
from tests.runs import KINDS, PAIRS, TOKENS, make_run

ROOT = Path(__file__).parents[2]
MODEL = "planted:stored-at-layer"
SECONDS = 20.0
"""Of computing that a mutant may take; most take a tenth of one."""
WAITING = 120.0
"""Seconds until a mutant that computes nothing is waiting for something."""
LONGEST = 2_000
"""Characters of an error."""
SHARES: Mapping[str, int] = {
    **{"evidence": 25, "trials": 10, "pins": 15, "replay": 15, "task": 10, "ledger": 15},
    "model": 10,
}
"""Of a hundred mutants, how many are of which kind."""
RIGHT = ("refused", "answered")


class Damage(NamedTuple):
    """One damaged file. file: its path in the folder."""

    how: str
    file: str
    data: bytes


class Kind(NamedTuple):
    """Something that is stored. whole: its folder. use: what commands do with such a folder.

    command: what is run in the sample, given the folder; empty where a model would be run.
    """

    whole: Path
    damage: Callable[[Random], Damage]
    use: Callable[[Path, Random], None]
    command: Callable[[Path], list[str]] | None = None


class Tried(NamedTuple):
    """What came of a mutant. word: refused, answered, traceback, hang, or loose (no clear line).

    seconds: of computing; of a command, until it ended.
    """

    kind: str
    number: int
    how: str
    word: str
    told: str
    seconds: float


class HangError(BaseException):
    """The time limit of a mutant is over. Not an Exception, so that nothing takes it for one."""


def kinds(folder: Path, run: Path | None = None) -> dict[str, Kind]:
    """Everything that is damaged. folder: where what is whole is made. run: one that is there."""
    run = run or make_run(folder / "run", load_model(MODEL, device="cpu"))
    pins, table = folder / "pins", folder / "table"
    _copy(ROOT / "claims/pins/mini.json", pins / "mini.json")
    _published(run, table)
    task, model = folder / "task", folder / "model"
    task.mkdir()
    shutil.copy(ROOT / "claims/models/mini/task.yaml", task / "task.yaml")
    shutil.copytree(ROOT / "claims/models/mini", model)
    evidence = Places(json.loads((run / "evidence.json").read_text(encoding="utf-8")))
    said = yaml.safe_load((table / "replay.yaml").read_text(encoding="utf-8"))
    stated = yaml.safe_load((task / "task.yaml").read_text(encoding="utf-8"))
    return {
        "evidence": Kind(
            run, partial(_json, run, "evidence.json", evidence), partial(_use_run, run), _report
        ),
        "trials": Kind(run, partial(_table, run, "trials.parquet"), partial(_use_run, run)),
        "pins": Kind(
            pins,
            partial(_json, pins, "mini.json", Places(json.loads(_text(pins / "mini.json")))),
            _use_pins,
        ),
        "replay": Kind(table, partial(_replay, table, Places(said)), _use_table),
        "task": Kind(task, partial(_yaml, task, "task.yaml", Places(stated)), _use_task),
        "ledger": Kind(run, partial(_ledger, run), partial(_use_ledger, run)),
        "model": Kind(model, partial(_model_file, model), _use_model),
    }


def fuzz(
    made: Mapping[str, Kind], mutants: int, seed: int, folder: Path, *, sample: int = 0
) -> Iterator[Tried]:
    """Try so many mutants, each in a folder of its own, which is taken away again.

    sample: so many of those of each kind that has a command are run as one as well.
    """
    for name, kind in made.items():
        for number in range(max(1, mutants * SHARES[name] // 100)):
            luck = Random(f"{seed} {name} {number}")
            damage = kind.damage(luck)
            place = folder / f"{name}-{number}"
            with _damaged(kind.whole, damage, place):
                yield _tried(name, number, damage.how, partial(kind.use, place, luck))
                if kind.command is not None and number < sample:
                    yield _as_command(name, number, damage.how, kind.command(place))


def _tried(kind: str, number: int, how: str, use: Callable[[], None]) -> Tried:
    start = time.process_time()
    word, told = "answered", ""
    limits = ((signal.ITIMER_PROF, signal.SIGPROF, SECONDS),)
    limits += ((signal.ITIMER_REAL, signal.SIGALRM, WAITING),)
    before = [signal.signal(which, _stop) for _, which, _ in limits]
    for timer, _, seconds in limits:
        signal.setitimer(timer, seconds)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            use()
    except UsageError as error:
        told = str(error)
        clear = told.isprintable() and len(told) <= LONGEST
        word = "refused" if clear else "loose"
    except HangError:
        word, told = "hang", f"more than {SECONDS:g} s of computing, or {WAITING:g} s of waiting"
    except BaseException as error:  # whatever it is, it is what is looked for
        word = "traceback"
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if "harness/kv_claims/" in frame.filename]
        at = (own or frames)[-1]
        file = at.filename.rpartition("harness/kv_claims/")[2]
        told = f"{file}:{at.lineno}: {type(error).__name__}: {str(error)[:150]!r}"
        if isinstance(error, KeyboardInterrupt):
            raise
    finally:
        for timer, _, _ in limits:
            signal.setitimer(timer, 0)
        for (_, which, _), handler in zip(limits, before, strict=True):
            signal.signal(which, handler)
    return Tried(kind, number, how, word, told, time.process_time() - start)


def _stop(_number: int, _frame: object) -> None:
    raise HangError


def _as_command(kind: str, number: int, how: str, command: Sequence[str]) -> Tried:
    """A mutant by the command line: exit status and one line, as a user meets it."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=3 * WAITING,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Tried(kind, number, f"{how} (command)", "hang", "", time.monotonic() - start)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    word = {0: "answered", 2: "refused"}.get(done.returncode, "traceback")
    if "Traceback" in done.stderr:
        word = "traceback"
    return Tried(kind, number, f"{how} (command)", word, last[:300], time.monotonic() - start)


@contextlib.contextmanager
def _damaged(whole: Path, damage: Damage, place: Path) -> Iterator[None]:
    """A copy of a folder, by links, in which one file is damaged."""
    for path in whole.rglob("*"):
        there = place / path.relative_to(whole)
        if path.is_dir():
            there.mkdir(parents=True, exist_ok=True)
        elif path.relative_to(whole).as_posix() != damage.file:
            there.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, there)
    (place / damage.file).parent.mkdir(parents=True, exist_ok=True)
    (place / damage.file).write_bytes(damage.data)
    try:
        yield
    finally:
        shutil.rmtree(place)


# --- damage ---------------------------------------------------------------------------------


def _json(folder: Path, file: str, places: Places, luck: Random) -> Damage:
    """Mostly to what stands in it, else to its bytes."""
    if luck.random() < 0.3:
        return _bytes(folder, file, luck)
    how, content = places.mutated(luck)
    return Damage(how, file, json_bytes(content))


def _yaml(folder: Path, file: str, places: Places, luck: Random) -> Damage:
    if luck.random() < 0.3:
        return _bytes(folder, file, luck)
    how, content = places.mutated(luck)
    try:
        text = yaml.safe_dump(content, allow_unicode=True)
    except RecursionError:
        text = "a: " + "[" * 3_000
    return Damage(how, file, text.encode("utf-8", "replace"))


def _bytes(folder: Path, file: str, luck: Random) -> Damage:
    name = luck.choice(list(BYTES))
    return Damage(f"{name} in {file}", file, BYTES[name](luck, _data(folder / file)))


def _replay(folder: Path, places: Places, luck: Random) -> Damage:
    """Of the description, or of one of the two tables: `csv.yaml` names the other."""
    if luck.random() < 0.6:
        return _yaml(folder, "replay.yaml", places, luck)
    if luck.random() < 0.5:
        return _table(folder, "table.parquet", luck)
    return _bytes(folder, "table.csv", luck)


def _table(folder: Path, file: str, luck: Random) -> Damage:
    """A column of another kind, or rows that are not those of a run; or the bytes."""
    if luck.random() < 0.3:
        return _bytes(folder, file, luck)
    frame = _frame(folder / file).copy()
    column = luck.choice(list(frame.columns))
    how = luck.choice(list(_COLUMNS))
    changed = _COLUMNS[how](frame, column)
    data = io.BytesIO()
    try:
        changed.to_parquet(data, index=False)
    except (ValueError, TypeError, OverflowError):  # a table that cannot be written is none
        return _bytes(folder, file, luck)
    return Damage(f"{how}: {column}", file, data.getvalue())


_COLUMNS: Mapping[str, Callable[[pd.DataFrame, str], pd.DataFrame]] = {
    "as text": lambda t, c: t.assign(**{c: t[c].astype(str) + " x"}),
    "as fractions": lambda t, c: t.assign(**{c: np.linspace(-1, 1, len(t))}),
    "huge numbers": lambda t, c: t.assign(**{c: 1e300}),
    "infinite": lambda t, c: t.assign(**{c: [float("inf"), *[0.5] * (len(t) - 1)]}),
    "negative": lambda t, c: t.assign(**{c: -7}),
    "nothing": lambda t, c: t.assign(**{c: None}),
    "some of nothing": lambda t, c: t.assign(**{c: t[c].where(np.arange(len(t)) % 3 > 0)}),
    "lists": lambda t, c: t.assign(**{c: [[1, 2]] * len(t)}),
    "objects": lambda t, c: t.assign(**{c: [{"a": 1}] * len(t)}),
    "bytes": lambda t, c: t.assign(**{c: [b"\xff"] * len(t)}),
    "yes and no": lambda t, c: t.assign(**{c: True}),
    "times": lambda t, c: t.assign(**{c: pd.Timestamp("2020-01-01")}),
    "one value": lambda t, c: t.assign(**{c: t[c].iloc[0]}),
    "JSON": lambda t, c: t.assign(**{c: '{"uncentred/prompt": [1.0, "x"]}'}),
    "other JSON": lambda t, c: t.assign(**{c: "[1, 2]"}),
    "mixed up": lambda t, c: t.assign(**{c: t[c].to_numpy()[::-1]}),
    "gone": lambda t, c: t.drop(columns=c),
    "renamed": lambda t, c: t.rename(columns={c: f"{c}\x1b[2J"}),
    "no rows": lambda t, _c: t.iloc[:0],
    "fewer rows": lambda t, _c: t.iloc[::2],
    "rows twice": lambda t, _c: pd.concat([t, t]),
}


def _ledger(folder: Path, luck: Random) -> Damage:
    """A line with the right checksum and other content; or the bytes of a shard."""
    if luck.random() < 0.3:
        return _bytes(folder, "ledger/main.jsonl", luck)
    beside = [f"ledger/{name}/main.jsonl" for name in (LIKELIHOODS, SELF_PATCHES)]
    file = luck.choice(("ledger/main.jsonl", "ledger/main.jsonl", *beside))
    lines = _text(folder / file).splitlines()
    at = luck.randrange(len(lines))
    how, content = Places(json.loads(lines[at].partition(" ")[2])).mutated(luck)
    body = json.dumps(content, ensure_ascii=False)
    checksum = hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    lines[at] = f"{checksum} {body}"
    data = "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"
    return Damage(f"forged line {at + 1}: {how}", file, data)


def _model_file(folder: Path, luck: Random) -> Damage:
    names = ("config.json", "config.json", "tokenizer.json", "tokenizer_config.json")
    file = luck.choice((*names, "generation_config.json", "model.safetensors"))
    if not file.endswith(".json"):
        return _bytes(folder, file, luck)
    return _json(folder, file, Places(json.loads(_text(folder / file))), luck)


# --- use ------------------------------------------------------------------------------------


def _use_run(whole: Path, folder: Path, luck: Random) -> None:
    """Report, comparison and replay, each of which may refuse; the first refusal is what counts."""
    run = load_run(folder)
    refused: list[UsageError] = []
    for use in (_reported, partial(_compared, _whole_run(whole)), _judged_again):
        try:
            use(run, luck)
        except UsageError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def _reported(run: Any, luck: Random) -> None:
    if luck.random() < 0.05:  # figures take most of the time, and read what the view has
        render_reports(run)
        return
    view = report_view(run)
    view = view._replace(models=[model._replace(geometry=[]) for model in view.models])
    none = {model.anchor: ModelFigures(None, None, []) for model in view.models}
    texts = (render(run.run, run.reported, view), render_page(view, none))
    for text in texts:
        text.encode("utf-8")


def _compared(whole: Any, run: Any, _luck: Random) -> None:
    found = compare(whole, run)
    render_comparison(found, whole, run)
    to_json(comparison_json(found, whole, run))


def _judged_again(run: Any, luck: Random) -> None:
    source = ReplayedRun.open(run.folder, (), _task_of, None)
    cell = luck.choice(KINDS)
    if not source.lacks(cell.claim, cell.id, MODEL):
        found, _ = source.study(MODEL).judge(cell)
        source.trials([found.__dict__])
    source.facts()


def _use_pins(folder: Path, _luck: Random) -> None:
    for task in (None, "another"):
        load_pins(folder, "mini", None, task).text()


def _use_table(folder: Path, _luck: Random) -> None:
    for name in ("csv.yaml", "replay.yaml"):
        _use_description(folder / name)


def _use_description(path: Path) -> None:
    source = ForeignTable.open(path, (), None)
    (cell,) = (cell for cell in KINDS if cell.claim.id == "transfer")
    source.check_tests({"transfer": (cell.claim, {"a"})})
    found, _ = source.study(source.models[0]).judge(cell)
    to_json(found.__dict__)
    source.trials([found.__dict__])
    source.facts()


def _use_task(folder: Path, _luck: Random) -> None:
    task = load_task(folder / "task.yaml")
    _ = task.sha, task.pairs[:3]
    task.scorer("a text with the words of some task")


def _use_ledger(whole: Path, folder: Path, luck: Random) -> None:
    ledger = Ledger(folder / "ledger", "other")
    held = {trial.key: trial for trial in Ledger(whole / "ledger", "other").trials()}
    found = list(ledger.trials())
    forged = [t for t in found if held.get(t.key) != t]
    assert len(forged) <= 1, "damage to one line changed several trials"
    trials_frame(found[:5] + forged, _task())
    if luck.random() < 0.15:
        runner = Runner(_model(), _task(), Sampling(TOKENS), ledger)
        study = ModelStudy(runner, n_pairs=PAIRS, n_seeds=1)
        study.judge(luck.choice(KINDS))


def _use_model(folder: Path, _luck: Random) -> None:
    check_request(str(folder), device="cpu")
    load_model(str(folder), device="cpu")


def _report(folder: Path) -> list[str]:
    return ["kv_claims", "report", str(folder)]


# --- what is whole --------------------------------------------------------------------------


def _published(run: Path, folder: Path) -> None:
    """The table of a stored cell and its description, as somebody might publish them."""
    stored = load_run(run)
    (key,) = (key for key in stored.evidence if key.claim == "transfer")
    table = stored.table(key, 0)
    assert table is not None
    folder.mkdir()
    frame = table[["pair", "arm", "seed", "score", "text", "source", "base"]]
    frame.to_parquet(folder / "table.parquet", index=False)
    frame.to_csv(folder / "table.csv", index=False)
    shutil.copy(ROOT / "claims/tasks/self_observation.yaml", folder / "task.yaml")
    arms = [arm for arm in dict.fromkeys(frame["arm"]) if arm in _NAMED]
    said = {
        "schema": 1,
        "about": "A table.",
        "task": "task.yaml",
        "model": "a-model",
        "n_layers": 16,
        "n_kv_heads": 1,
        "columns": {name: name for name in frame.columns},
        "tokens": {"source": 40, "base": 40},
        "claims": {"transfer": {"a": {arm: arm for arm in arms}}},
    }
    for file, named in (("replay.yaml", "table.parquet"), ("csv.yaml", "table.csv")):
        text = yaml.safe_dump({**said, "table": named})
        (folder / file).write_text(text, encoding="utf-8")


_NAMED = ("base", "source", "patched", "unrelated-base", "noise", "wrong-layer")


def _task_of(model: str, file: Path | None) -> Task:
    if model.startswith(PLANTED_PREFIX):
        return planted_task(CATALOG[model.removeprefix(PLANTED_PREFIX)])
    return load_task(file or ROOT / "claims/tasks/self_observation.yaml")


@cache
def _model() -> LoadedModel:
    return load_model(MODEL, device="cpu")


@cache
def _task() -> Task:
    return _task_of(MODEL, None)


@cache
def _whole_run(folder: Path) -> Any:
    return load_run(folder)


@cache
def _data(path: Path) -> bytes:
    return path.read_bytes()


@cache
def _frame(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path)


def _text(path: Path) -> str:
    return _data(path).decode("utf-8")


def _copy(path: Path, there: Path) -> None:
    there.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, there)


# --- the table ------------------------------------------------------------------------------


def failed(tried: Sequence[Tried]) -> list[Tried]:
    """Mutants that are neither refused nor answered."""
    return [one for one in tried if one.word not in RIGHT]


def table(tried: Sequence[Tried], seed: int) -> str:
    """Counts by kind, the slowest, and each failure with what was done to the file."""
    words = ("refused", "answered", "loose", "traceback", "hang")
    lines = [
        f"# {len(tried)} damaged inputs, seed {seed}",
        "",
        f"| kind | mutants | {' | '.join(words)} | slowest |",
        f"|---|---|{'---|' * len(words)}---|",
    ]
    for kind in dict.fromkeys(one.kind for one in tried):
        some = [one for one in tried if one.kind == kind]
        found = Counter(one.word for one in some)
        counts = " | ".join(str(found[word]) for word in words)
        slowest = max(one.seconds for one in some)
        lines.append(f"| {kind} | {len(some)} | {counts} | {slowest:.1f} s |")
    wrong = [one for one in tried if one.word not in RIGHT]
    if wrong:
        lines += ["", "| kind | mutant | what was done | what came of it |", "|---|---|---|---|"]
        lines += [
            f"| {one.kind} | {one.number} | {_cell(one.how)} | {one.word}: {_cell(one.told)} |"
            for one in wrong
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return repr(text[:200])[1:-1].replace("|", "\\|").replace("`", "'")


def main(arguments: Sequence[str] | None = None) -> int:
    """Try mutants, write `fuzz.json` and `fuzz.md`; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=15)
    parser.add_argument("--sample", type=int, default=10, help="run as commands, of each kind")
    parser.add_argument("--kind", action="append", choices=list(SHARES), help="only these")
    parser.add_argument("--out", type=Path, default=Path("reports/fuzz"))
    given = parser.parse_args(arguments)
    tried: list[Tried] = []
    with tempfile.TemporaryDirectory() as folder:
        made = kinds(Path(folder))
        made = {name: kind for name, kind in made.items() if name in (given.kind or SHARES)}
        mutants = fuzz(made, given.mutants, given.seed, Path(folder) / "m", sample=given.sample)
        for one in mutants:
            tried.append(one)
            if len(tried) % 100 == 0:
                print(f"{len(tried)} mutants, {len(failed(tried))} failed", file=sys.stderr)
    given.out.mkdir(parents=True, exist_ok=True)
    text = table(tried, given.seed)
    (given.out / "fuzz.md").write_text(text, encoding="utf-8")
    content = {"seed": given.seed, "mutants": [one._asdict() for one in tried]}
    (given.out / "fuzz.json").write_text(to_json(content, indent=1), encoding="utf-8")
    print(text, end="")
    return int(bool(failed(tried)))


if __name__ == "__main__":
    sys.exit(main())
