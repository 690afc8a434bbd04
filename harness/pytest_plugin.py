"""The pytest plugin: options, the `study` fixture, verdict words, files at the end. Hooks only.

Imports no torch, and does nothing unless tests that use the fixture `study` are collected.
Evidence travels as one JSON string in `user_properties`, which xdist and JUnit both carry.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.claim import Claim, claim_of
from harness.errors import UsageError
from harness.evidence import EVIDENCE, INSTRUMENT, PROTOCOL
from harness.family import cells_of, check_families
from harness.models.planted.catalog import PLANTED_PREFIX
from harness.pins.file import Place
from harness.report import terminal
from harness.report.shards import in_dispute
from harness.session import (
    EMBEDDED,
    NEEDS_MODEL,
    PROFILES,
    PROTOCOLS,
    REPLAY_OUT,
    ClaimsSession,
    Settings,
    describe,
    replay_lines,
    start_replay,
)
from harness.spent import SPENT, spent_by

COLLECTED, NOT_REPLAYED = "claims_collected", "claims_not_replayed"
UNUSED_PINS, PIN = "claims_unused_pins", "claims_pin"
MODEL_FIXTURE = "_claims_model"
EMBEDDED_MARK = "embedded"
REPLAY_MARK = "published_protocol"
_SESSION = pytest.StashKey[ClaimsSession]()
_DEFINED = pytest.StashKey[list[pytest.Item]]()
"""Tests of claims in the modules that were collected, selected or not."""
_FILES = pytest.StashKey[set[str]]()
"""Files that were collected, with claims in them or not."""
_PIN = pytest.StashKey[str]()
"""On a test: what it made for `--claims-update`, as JSON; in its report, under `PIN`."""
_COLLECTED = pytest.StashKey[list[str]]()
_CELLS = pytest.StashKey[list[pytest.Item]]()
"""Tests of claims that were selected."""
_WRONG = pytest.StashKey[str]()
"""In a worker: what is wrong with the claims that were collected."""


_NO_RERUNS = (
    "a verdict is not run again until it pleases; expected a run of more pairs, or `looks` that "
    "the claim declares"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("claims", "claims about patching the KV cache")
    add = group.addoption
    add(
        "--model",
        action="append",
        dest="claims_models",
        metavar="NAME",
        help="planted:NAME, a folder, or a hub id; repeatable (default: all planted models)",
    )
    add("--revision", dest="claims_revision", help="revision of a hub id")
    add("--device", dest="claims_device", help="cpu, cuda, cuda:N (default: a GPU if there is one)")
    add("--dtype", dest="claims_dtype", help="float64, float32, bfloat16 or float16")
    add("--task", dest="claims_task", metavar="FILE", help="task file for models not planted")
    add("--pairs", dest="claims_pairs", type=int, metavar="N", help="pairs to run, from the first")
    add("--seeds", dest="claims_seeds", type=int, metavar="N", help="generations of a pair and arm")
    add("--max-new-tokens", dest="claims_max_new_tokens", type=int, metavar="N")
    add("--temperature", dest="claims_temperature", type=float, metavar="X", help="0.7; 0: greedy")
    add("--batch-size", dest="claims_batch_size", metavar="N|auto", help="rows decoded together")
    add("--claims-profile", dest="claims_profile", choices=sorted(PROFILES))
    add(
        "--protocol",
        dest="claims_protocol",
        choices=PROTOCOLS,
        help="published: no claims, but the seed's procedure with its defects, one less at a time",
    )
    add("--claims-out", dest="claims_out", metavar="DIR", help="default reports/latest")
    add(
        "--claims-replay",
        dest="claims_replay",
        metavar="DIR|YAML",
        help="judge stored trials again, or a published table (docs/replay.md); no model is run",
    )
    add(
        "--claims-strict",
        dest="claims_strict",
        action="store_true",
        help="inconclusive and invalid verdicts fail",
    )
    add(
        "--claims-update",
        dest="claims_update",
        action="store_true",
        help="write what was found to claims/pins, and show what that changes",
    )
    add("--resume", dest="claims_resume", action="store_true", default=None)
    add(
        "--no-resume",
        dest="claims_resume",
        action="store_false",
        help="move earlier trials aside and run all again",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{REPLAY_MARK}: runs under --protocol published, and alone")
    config.addinivalue_line(
        "markers", f"{EMBEDDED_MARK}(*names): the planted models that it runs on without --model"
    )
    # Threads that wait by spinning make a shared machine many times slower; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    worker = getattr(config, "workerinput", None)
    with _usage_errors():
        settings, replayed = _settings(config), None
        if (path := config.option.claims_replay) is not None:
            asked = config.option.claims_models or ()
            settings, replayed = start_replay(settings, Path(path), asked, vars(config.option))
        session = ClaimsSession(
            settings,
            shard=worker["workerid"] if worker else "main",
            workers=worker["workercount"] if worker else 1,
            replayed=replayed,
        )
        config.stash[_SESSION] = session
        if worker is None:
            config.pluginmanager.register(_Collector(session, config), "kv-claims-collector")
        if replayed is not None:
            config.pluginmanager.register(_Replayable(), "kv-claims-replayable")
        _refuse_reruns(config)
        if getattr(config.option, "dist", "no") == "each":
            raise UsageError(
                "--dist each: every claim would be judged by each worker; expected "
                "load, loadgroup or another that shares them out"
            )
        given = (
            any(
                value is not None and value is not False
                for name, value in vars(config.option).items()
                if name.startswith("claims_")
            )
            or config.option.claims_resume is False
        )
        # With workers, this is the place where an error is shown once and costs nothing.
        if given and worker is None:
            session.check()
        distributed = getattr(config.option, "dist", "no") != "no"
        if worker is None and distributed and not config.option.collectonly:
            # Workers read the ledger as soon as they start: it is moved aside before that.
            session.start_fresh()


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # First, so that a test's id begins with its model whatever else has parameters.
    if MODEL_FIXTURE in metafunc.fixturenames:
        state = metafunc.config.stash[_SESSION]
        models, is_run = state.settings.models, state.replayed is None
        marker = metafunc.definition.get_closest_marker(EMBEDDED_MARK)
        if marker is not None and is_run and not metafunc.config.option.claims_models:
            models = tuple(PLANTED_PREFIX + name for name in marker.args)
            if unknown := sorted(set(models) - set(EMBEDDED)):
                raise pytest.UsageError(
                    f"{metafunc.definition.nodeid}: embedded({', '.join(marker.args)}): "
                    f"{', '.join(unknown)} is not among {', '.join(EMBEDDED)}"
                )
        metafunc.parametrize(
            MODEL_FIXTURE, models, indirect=True, scope="session", ids=_model_ids(models)
        )


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Remember every test of a claim that there is: what is then selected changes no family."""
    made = yield
    collector.config.stash.setdefault(_FILES, set()).add(_file_of(collector))
    if isinstance(made, list):
        known = collector.config.stash.setdefault(_DEFINED, [])
        known += [item for item in made if isinstance(item, pytest.Item) and _is_claim(item)]
    return made


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose the tests of the protocol, model by model: what a model's cells share runs once.

    The replay of the published protocol and the claims are kept apart: a run is one or the other.
    """
    replay = config.stash[_SESSION].settings.protocol == "published"
    wanted: list[pytest.Item] = []
    others: list[pytest.Item] = []
    for item in items:
        is_replay = item.get_closest_marker(REPLAY_MARK) is not None
        (wanted if is_replay == replay else others).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        if config.stash[_SESSION].replayed is not None:
            config.stash[_SESSION].not_replayed[NEEDS_MODEL] = len(others)
    models = config.stash[_SESSION].settings.models
    items[:] = sorted(wanted, key=lambda item: _place(item, models))
    if getattr(config.option, "dist", "no") == "loadgroup":
        for item in items:
            if (model := _model_of(item)) is not None:
                item.add_marker(pytest.mark.xdist_group(model))


def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workerinput"):
        left = config.stash[_SESSION].not_replayed
        config.workeroutput[NOT_REPLAYED] = left  # type: ignore[attr-defined]
    claims = [item for item in session.items if _is_claim(item)]
    config.stash[_COLLECTED] = [item.nodeid for item in claims]
    config.stash[_CELLS] = claims
    config.stash[_SESSION].spent.cells = len(claims)
    if not claims or config.option.collectonly:
        return
    if hasattr(config, "workerinput"):
        config.workeroutput[COLLECTED] = config.stash[_COLLECTED]  # type: ignore[attr-defined]
        try:
            _check_claims(config)
        except UsageError as error:
            # A worker that exits is an internal error to xdist: its tests say what is wrong.
            config.stash[_WRONG] = str(error)
        unused = config.stash[_SESSION].pins.unused
        # Exact builtin types only: nothing else crosses.
        config.workeroutput[UNUSED_PINS] = {  # type: ignore[attr-defined]
            model: [list(place) for place in places] for model, places in unused.items()
        }
        return
    with _usage_errors():
        config.stash[_SESSION].check()
        _check_claims(config)
        config.stash[_SESSION].start_fresh()


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> str | None:
    cells = [item for item in items if claim_of(getattr(item, "function", None))]
    if not cells:
        return None
    state = config.stash[_SESSION]
    if state.replayed is not None:
        return replay_lines(state, len(cells))[0]
    claims = {found.id for item in cells if (found := claim_of(getattr(item, "function", None)))}
    return describe(config.stash[_SESSION].settings, len(cells), sorted(claims))


@pytest.fixture(scope="session")
def _claims_model(request: pytest.FixtureRequest) -> Any:
    """One loaded model with its task, budget and ledger; the next one replaces it."""
    config = request.config
    state = config.stash[_SESSION]
    if (wrong := config.stash.get(_WRONG, None)) is not None:
        raise pytest.fail.Exception(wrong, pytrace=False)
    try:
        state.check()
        return state.open_study(request.param, _progress_of(config))
    except UsageError as error:
        if hasattr(config, "workerinput"):
            # A worker that exits is an internal error to xdist: its tests say what is wrong.
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


@pytest.fixture
def study(request: pytest.FixtureRequest, _claims_model: Any) -> Any:
    """The study of one claim's cell: `study.judge(Patch(...))`, once a test."""
    from harness.claim_test import ClaimTest

    item = request.node
    settings = request.config.stash[_SESSION].settings

    pins = request.config.stash[_SESSION].pins
    # A replay has no runner, and spends nothing.
    runner = getattr(_claims_model, "runner", None)
    spent = spent_by(runner) if runner is not None else None

    def record(kind: str, content: str) -> None:
        item.user_properties.append((kind, content))
        if spent is not None:
            item.user_properties.append((SPENT, json.dumps(spent())))

    def pin(content: str) -> None:
        item.stash[_PIN] = content

    return ClaimTest(
        study=_claims_model,
        claim=claim_of(item.function),
        cell=_cell_of(item, settings.models),
        strict=settings.strict,
        record=record,
        siblings=cells_of(item),
        test=f"{_file_of(item)}::{item.nodeid.partition('::')[2].partition('[')[0]}",
        pins=pins.of(_model_of(item) or ""),
        pin=pin if pins.updating else None,
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test's pin go with its report: a string, which crosses to the controller as it is."""
    report = yield
    if call.when == "call" and (content := item.stash.get(_PIN, None)) is not None:
        report.__dict__[PIN] = content
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """With workers: how many cells there are, for the time that is left."""
    node.config.stash[_SESSION].spent.cells = len(ids)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """With workers: what each collected (all collect the same) tells what owes evidence."""
    collected = getattr(node, "workeroutput", {}).get(COLLECTED)
    if collected is not None:
        node.config.stash[_COLLECTED] = collected
        node.config.stash[_SESSION].pins.unused |= {
            model: [Place(*place) for place in places]
            for model, places in node.workeroutput.get(UNUSED_PINS, {}).items()
        }
    left = getattr(node, "workeroutput", {}).get(NOT_REPLAYED)
    if left:
        node.config.stash[_SESSION].not_replayed = left


class _Replayable:
    """With --claims-replay: keeps the tests that stored trials can answer, and counts the others.

    Last, so that tests are not counted which the user did not select.
    """

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        state = config.stash[_SESSION]
        models, cells = state.settings.models, dict[str, tuple[Claim, set[str]]]()
        for item in config.stash.get(_DEFINED, []):
            if claim := claim_of(getattr(item, "function", None)):
                cells.setdefault(claim.id, (claim, set()))[1].add(_cell_of(item, models))
        if cells and (wrong := state.check_replay(cells)):
            if not hasattr(config, "workerinput"):
                raise pytest.UsageError(wrong)
            # A worker that exits is an internal error to xdist: its tests say what is wrong.
            config.stash[_WRONG] = wrong
            return
        left = []
        for item in filter(_is_claim, items):
            claim = claim_of(getattr(item, "function", None))
            if state.leaves_out(claim, _cell_of(item, models), _model_of(item)):
                left.append(item)
        if left:
            config.hook.pytest_deselected(items=left)
            items[:] = [item for item in items if item not in left]


class _Collector:
    """Takes evidence out of reports, wherever the tests ran: the hook itself gets no config."""

    def __init__(self, state: ClaimsSession, config: pytest.Config) -> None:
        self.state, self._config = state, config
        self._lines = terminal.Lines(state.spent)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not _is_of_a_test(report):
            return
        for kind, into in (
            (EVIDENCE, self.state.evidence),
            (INSTRUMENT, self.state.instrument),
            (PROTOCOL, self.state.protocol),
        ):
            if (content := _property(report, kind)) is not None:
                into.append({**content, "test": report.nodeid})
        if (pin := report.__dict__.get(PIN)) is not None:
            self.state.pins.add(json.loads(pin), failed=report.failed)
        if (spent := _property(report, SPENT)) is not None:
            self.state.spent.add(**spent, seconds=report.duration)
            terminal.progress_line(self._config, self._lines)


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, Any] | None:
    """Show a verdict in its own word; what counts as failed or skipped stays pytest's."""
    if not _is_of_a_test(report) or hasattr(report, "wasxfail"):
        return None
    # pytest's way to say that what was to fail passed: in our word it would read as good news.
    if report.failed and str(report.longrepr).startswith("[XPASS(strict)]"):
        return None
    evidence = _property(report, EVIDENCE)
    if evidence is None:
        return None
    return terminal.status(report.outcome, evidence["verdict"], verified=evidence["verified"])


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    if hasattr(config, "workerinput"):
        return
    state = config.stash[_SESSION]
    if state.reported:
        from harness.report.write import write_reports

        write_reports(state)
    disputed = [one for one in [*state.evidence, *state.instrument] if in_dispute(one)]
    for one in disputed:
        if "claim" in one:
            place = Place(one["claim"], one["cell"])
            state.pins.drop(one["model"], place, "two workers recorded other tokens")
    broken_off = session.shouldstop or session.shouldfail
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not broken_off:
        state.pins.write()
    else:
        state.pins.break_off()
    if exitstatus == pytest.ExitCode.OK and (disputed or _without_evidence(config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    state = config.stash[_SESSION]
    if config.option.collectonly and config.get_verbosity() >= -1:
        found = [claim_of(getattr(item, "function", None)) for item in config.stash.get(_CELLS, [])]
        terminal.collected(terminalreporter, [claim for claim in found if claim is not None])
    if state.replayed is not None and not config.option.collectonly:
        for line in replay_lines(state, len(state.evidence))[1:]:
            terminalreporter.write_line(line)
    if state.reported:
        terminal.summary(terminalreporter, state)
    elif config.stash.get(_COLLECTED, []) and not config.option.collectonly:
        terminalreporter.write_line(
            f"nothing was measured: what is in {state.settings.out} is of an earlier run, if any"
        )
    if missing := _without_evidence(config):
        terminalreporter.write_line(
            f"no evidence: {len(missing)} of {len(config.stash[_COLLECTED])} selected tests ended "
            f"without a verdict, such as {missing[0]}",
            red=True,
        )


def _without_evidence(config: pytest.Config) -> list[str]:
    """Selected claims that ended without evidence (known where this process collected)."""
    state = config.stash[_SESSION]
    found = {one["test"] for one in state.reported}
    if config.option.collectonly:
        return []
    return [test for test in config.stash.get(_COLLECTED, []) if test not in found]


def _refuse_reruns(config: pytest.Config) -> None:
    """Raise UsageError for what runs a failed test again (pytest-rerunfailures, flaky)."""
    for option, name in (("reruns", "--reruns"), ("force_flaky", "--force-flaky")):
        if getattr(config.option, option, None):
            raise UsageError(f"{name}: {_NO_RERUNS}")


def _settings(config: pytest.Config) -> Settings:
    option = config.option
    given = {
        "models": tuple(option.claims_models or EMBEDDED),
        "revision": option.claims_revision,
        "device": option.claims_device,
        "dtype": option.claims_dtype,
        "task": Path(option.claims_task) if option.claims_task else None,
        "pairs": option.claims_pairs,
        "seeds": option.claims_seeds,
        "max_new_tokens": option.claims_max_new_tokens,
        "temperature": option.claims_temperature,
        "batch_size": _batch_size(option.claims_batch_size),
        "profile": option.claims_profile,
        "protocol": option.claims_protocol,
        "out": Path(option.claims_out)
        if option.claims_out
        else config.rootpath / (Settings.out if option.claims_replay is None else REPLAY_OUT),
        "strict": option.claims_strict,
        "update": option.claims_update,
        "resume": option.claims_resume,
    }
    return Settings(
        root=config.rootpath,
        command=shlex.join(["pytest", *map(str, config.invocation_params.args)]),
        **{name: value for name, value in given.items() if value is not None},
    )


def _batch_size(text: str | None) -> int | None:
    if text is None or text == "auto":
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--batch-size {text!r}: expected a whole number or auto") from None


def _model_ids(models: tuple[str, ...]) -> list[str]:
    """Short names for test ids: a folder by its last part; numbered where two are alike."""
    short = [Path(name).name if Path(name).is_dir() else name for name in models]
    # Plain ASCII, as pytest would escape anything else and the cell's id be lost in it.
    short = [re.sub(r"[^\x21-\x7e]", "_", name) for name in short]
    return [
        name if short.count(name) == 1 else f"{name}.{position}"
        for position, name in enumerate(short)
    ]


def _cell_of(item: pytest.Item, models: tuple[str, ...]) -> str:
    """The cell's id: the test's id without the model, which comes first in it."""
    call_id = getattr(item, "callspec", None)
    found = dict(zip(models, _model_ids(models), strict=True)).get(_model_of(item) or "", "")
    return (call_id.id if call_id else "").removeprefix(found).removeprefix("-") or "only"


def _check_claims(config: pytest.Config) -> None:
    """Raise UsageError for claims that do not go together, whatever part of them was selected."""
    items = config.stash.get(_DEFINED, [])
    _check_claim_ids(items)
    if again := [item for item in items if item.get_closest_marker("flaky")]:
        raise UsageError(f"{again[0].nodeid}: marked flaky: {_NO_RERUNS}")
    models, cells = config.stash[_SESSION].settings.models, defaultdict[str, set[str]](set)
    for item in items:
        if found := claim_of(getattr(item, "function", None)):
            cells[found.id].add(_cell_of(item, models))
    check_families(items, cells)
    _look_for_unused_pins(config, items)


def _look_for_unused_pins(config: pytest.Config, items: list[pytest.Item]) -> None:
    session = config.stash[_SESSION]
    for model in session.pins.models:
        cells = defaultdict[str, set[str]](set)
        for item in items:
            found = claim_of(getattr(item, "function", None))
            if found and _model_of(item) == model:
                cells[found.id].add(_cell_of(item, session.settings.models))
        files = config.stash.setdefault(_FILES, set())
        session.pins.look_for_unused(model, cells, files)


def _check_claim_ids(items: list[pytest.Item]) -> None:
    """Raise UsageError where two tests carry one claim id: evidence is kept under it."""
    owner: dict[str, str] = {}
    for item in items:
        if found := claim_of(getattr(item, "function", None)):
            test = item.nodeid.partition("[")[0]
            if owner.setdefault(found.id, test) != test:
                raise UsageError(
                    f"claim {found.id!r}: the id of both {owner[found.id]} and {test}, "
                    "expected an id of its own for each"
                )


def _model_of(item: pytest.Item) -> str | None:
    """The model that a test runs on; None for tests of anything else."""
    params = getattr(getattr(item, "callspec", None), "params", {})
    return params.get(MODEL_FIXTURE)


def _place(item: pytest.Item, models: tuple[str, ...]) -> int:
    """Where a test stands among models; what is no claim stays in front."""
    model = _model_of(item)
    return models.index(model) if model in models else -1


def _is_claim(item: pytest.Item) -> bool:
    """Whether a test owes evidence: it asks for a study, or is marked as a claim."""
    asks = MODEL_FIXTURE in getattr(item, "fixturenames", [])
    return asks or claim_of(getattr(item, "function", None)) is not None


def _is_of_a_test(report: pytest.TestReport) -> bool:
    """Whether a report is of a test itself: those of its subtests carry its evidence again."""
    return type(report) is pytest.TestReport and report.when == "call"


def _file_of(node: pytest.Item | pytest.Collector) -> str:
    """A test file by its path in the project; outside of it, by its whole path."""
    root = node.config.rootpath
    return (node.path.relative_to(root) if node.path.is_relative_to(root) else node.path).as_posix()


def _property(report: Any, kind: str) -> Any:
    for name, content in getattr(report, "user_properties", []):
        if name == kind:
            return json.loads(content)
    return None


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Show our usage errors as pytest's: one line, exit status 4."""
    try:
        yield
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error


def _progress_of(
    config: pytest.Config,
) -> Callable[[str, int], AbstractContextManager[Callable[[int], None]]]:
    """A progress bar on the real terminal: none in workers, under -q, or without a terminal."""
    capture = config.pluginmanager.getplugin("capturemanager")
    quiet = hasattr(config, "workerinput") or config.get_verbosity() < 0

    @contextmanager
    def show(label: str, total: int) -> Iterator[Callable[[int], None]]:
        with ExitStack() as stack:
            if capture is not None:
                stack.enter_context(capture.global_and_fixture_disabled())
            about = terminal.about_text(config.stash[_SESSION].spent)
            yield stack.enter_context(terminal.progress_bar(label, total, quiet=quiet, about=about))

    return show
