"""The pytest plugin: the `study` fixture, verdict words, files at the end. Hooks only.

What options become is in `kv_claims.plugin.options`, what was collected in
`kv_claims.plugin.collected`.

Imports no torch, and does nothing unless tests that use the fixture `study` are collected.
Evidence travels as one JSON string in `user_properties`, which xdist and JUnit both carry.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kv_claims.claims.claim import Claim, claim_in
from kv_claims.errors import UnwritableError, UsageError
from kv_claims.evidence.cost import COST, cost_by
from kv_claims.evidence.evidence import EVIDENCE, INSTRUMENT, PROTOCOL
from kv_claims.judging.family import cells_of
from kv_claims.pins.file import Place
from kv_claims.plain import line_of
from kv_claims.planted.catalog import PLANTED_PREFIX
from kv_claims.plugin import terminal
from kv_claims.plugin.collected import (
    MODEL_FIXTURE,
    cell_of,
    check_collected,
    claims_among,
    file_of,
    is_claim,
    model_ids,
    model_of,
    place,
)
from kv_claims.plugin.options import add_options, is_any_given, refuse_options, settings_of
from kv_claims.plugin.session import (
    EMBEDDED,
    NEEDS_MODEL,
    ClaimsSession,
    describe,
    replay_lines,
    start_replay,
)
from kv_claims.process.interrupts import sigterm_as_ctrl_c
from kv_claims.report.shards import in_dispute

COLLECTED, NOT_REPLAYED = "claims_collected", "claims_not_replayed"
UNUSED_PINS, PIN = "claims_unused_pins", "claims_pin"
REFUSED = "claims_refused"
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
_REFUSED = pytest.StashKey[str]()
"""In a worker: why the run's only model was refused; in a report, under `REFUSED`."""
_WRONG = pytest.StashKey[str]()
"""In a worker: what is wrong with the claims that were collected."""


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{REPLAY_MARK}: runs under --protocol published, and alone")
    config.addinivalue_line(
        "markers", f"{EMBEDDED_MARK}(*names): the planted models that it runs on without --model"
    )
    # Threads that wait by spinning make a shared machine many times slower; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    worker = getattr(config, "workerinput", None)
    with _usage_errors():
        settings, replayed = settings_of(config), None
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
        config.add_cleanup(session.release)
        if worker is None:
            config.pluginmanager.register(_Collector(session, config), "kv-claims-collector")
            config.pluginmanager.register(_Refusals(), "kv-claims-refusals")
        if replayed is not None:
            config.pluginmanager.register(_Replayable(), "kv-claims-replayable")
        refuse_options(config)
        # With workers, this is the place where an error is shown once and costs nothing.
        if is_any_given(config) and worker is None:
            session.check()
            if getattr(config.option, "dist", "no") != "no" and not config.option.collectonly:
                _begin(config)


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
                    line_of(
                        f"{metafunc.definition.nodeid}: embedded({', '.join(marker.args)}): "
                        f"{', '.join(unknown)} is not among {', '.join(EMBEDDED)}"
                    )
                )
        metafunc.parametrize(
            MODEL_FIXTURE, models, indirect=True, scope="session", ids=model_ids(models)
        )


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Remember every test of a claim that there is: what is then selected changes no family."""
    made = yield
    collector.config.stash.setdefault(_FILES, set()).add(file_of(collector))
    if isinstance(made, list):
        known = collector.config.stash.setdefault(_DEFINED, [])
        known += [item for item in made if isinstance(item, pytest.Item) and is_claim(item)]
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
    items[:] = sorted(wanted, key=lambda item: place(item, models))
    if getattr(config.option, "dist", "no") == "loadgroup":
        for item in items:
            if (model := model_of(item)) is not None:
                item.add_marker(pytest.mark.xdist_group(model))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    # First, so that what is wrong is said before what would be run.
    config = session.config
    if hasattr(config, "workerinput"):
        left = config.stash[_SESSION].not_replayed
        config.workeroutput[NOT_REPLAYED] = left  # type: ignore[attr-defined]
    claims = [item for item in session.items if is_claim(item)]
    config.stash[_COLLECTED] = [item.nodeid for item in claims]
    config.stash[_CELLS] = claims
    config.stash[_SESSION].cost.cells = len(claims)
    if not claims or config.option.collectonly:
        return
    if hasattr(config, "workerinput"):
        config.add_cleanup(sigterm_as_ctrl_c())
        config.workeroutput[COLLECTED] = config.stash[_COLLECTED]  # type: ignore[attr-defined]
        try:
            _check_collected(config)
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
        _check_collected(config)
        _begin(config)


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> str | None:
    cells = [item for item in items if claim_in(item)]
    if not cells:
        return None
    state = config.stash[_SESSION]
    if state.replayed is not None:
        return line_of(replay_lines(state, len(cells))[0])
    claims = {found.id for item in cells if (found := claim_in(item))}
    return line_of(describe(config.stash[_SESSION].settings, len(cells), sorted(claims)))


@pytest.fixture(scope="session")
def _claims_model(request: pytest.FixtureRequest) -> Any:
    """One loaded model with its task, budget and ledger; the next one replaces it.

    A model that is refused ends a run that has no other, at once; else its tests fail, each with
    the one line that says why, and the other models run.
    """
    config = request.config
    state = config.stash[_SESSION]
    if (wrong := config.stash.get(_WRONG, None)) is not None:
        raise pytest.fail.Exception(wrong, pytrace=False)
    try:
        state.check()
        return state.open_study(request.param, _progress_of(config))
    except UsageError as error:
        is_only = len(state.settings.models) == 1
        if is_only and not hasattr(config, "workerinput"):
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
        if is_only:
            # A worker that exits is an internal error to xdist: its report has the run ended.
            config.stash[_REFUSED] = str(error)
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture
def study(request: pytest.FixtureRequest, _claims_model: Any) -> Any:
    """The study of one claim's cell: `study.judge(Patch(...))`, once a test."""
    from kv_claims.plugin.claim_test import ClaimTest

    item = request.node
    settings = request.config.stash[_SESSION].settings

    pins = request.config.stash[_SESSION].pins
    # A replay has no runner, and spends nothing.
    runner = getattr(_claims_model, "runner", None)
    spent = cost_by(runner) if runner is not None else None

    def record(kind: str, content: str) -> None:
        item.user_properties.append((kind, content))
        if spent is not None:
            item.user_properties.append((COST, json.dumps(spent())))

    def pin(content: str) -> None:
        item.stash[_PIN] = content

    return ClaimTest(
        study=_claims_model,
        claim=claim_in(item),
        cell=cell_of(item, settings.models),
        strict=settings.strict,
        record=record,
        siblings=cells_of(item),
        test=f"{file_of(item)}::{item.nodeid.partition('::')[2].partition('[')[0]}",
        pins=pins.of(model_of(item) or ""),
        pin=pin if pins.updating else None,
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test's pin go with its report: a string, which crosses to the controller as it is."""
    report = yield
    if call.when == "setup" and (refused := item.config.stash.get(_REFUSED, None)) is not None:
        report.__dict__[REFUSED] = refused
    if call.excinfo is not None and isinstance(call.excinfo.value.__context__, UnwritableError):
        # The next test would run its trials, and lose them too.
        item.session.shouldstop = str(call.excinfo.value)
    if call.when == "call" and (content := item.stash.get(_PIN, None)) is not None:
        report.__dict__[PIN] = content
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """With workers: which cells there are, before any runs."""
    state = node.config.stash[_SESSION]
    claims = claims_among(ids, (*state.settings.models, *EMBEDDED))
    node.config.stash[_COLLECTED] = claims
    state.cost.cells = len(claims)
    if claims and not node.config.option.collectonly:
        with _usage_errors():
            state.check()
            _begin(node.config)


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
            if claim := claim_in(item):
                cells.setdefault(claim.id, (claim, set()))[1].add(cell_of(item, models))
        if cells and (wrong := state.check_replay(cells)):
            if not hasattr(config, "workerinput"):
                raise pytest.UsageError(wrong)
            # A worker that exits is an internal error to xdist: its tests say what is wrong.
            config.stash[_WRONG] = wrong
            return
        left = []
        for item in filter(is_claim, items):
            claim = claim_in(item)
            if state.leaves_out(claim, cell_of(item, models), model_of(item)):
                left.append(item)
        if left:
            config.hook.pytest_deselected(items=left)
            items[:] = [item for item in items if item not in left]


class _Refusals:
    """With workers: ends a run whose only model is refused, before the terminal hears of it."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if (refused := report.__dict__.get(REFUSED)) is not None:
            pytest.exit(refused, returncode=pytest.ExitCode.USAGE_ERROR)


class _Collector:
    """Takes evidence out of reports, wherever the tests ran: the hook itself gets no config."""

    def __init__(self, state: ClaimsSession, config: pytest.Config) -> None:
        self.state, self._config = state, config
        self._lines = terminal.Lines(state.cost)

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
        if (spent := _property(report, COST)) is not None:
            self.state.cost.add(**spent, seconds=report.duration)
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
    state = config.stash[_SESSION]
    if hasattr(config, "workerinput"):
        state.release()  # a worker is ended before it comes to its cleanups
        return
    if state.reported:
        from kv_claims.plugin.write import write_reports

        try:
            write_reports(state)
        except (OSError, UsageError) as error:  # a full disk needs no traceback
            state.unwritten = str(error)
            session.exitstatus = exitstatus = pytest.ExitCode.INTERNAL_ERROR
        except Exception:  # whatever it is, the verdicts are still to be shown
            state.unwritten = traceback.format_exc()
            session.exitstatus = exitstatus = pytest.ExitCode.INTERNAL_ERROR
    disputed = [one for one in [*state.evidence, *state.instrument] if in_dispute(one)]
    for one in disputed:
        if "claim" in one:
            pinned = Place(one["claim"], one["cell"])
            state.pins.drop(one["model"], pinned, "two workers recorded other tokens")
    broken_off = session.shouldstop or session.shouldfail
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not broken_off:
        state.pins.write()
    else:
        state.pins.break_off()
    if exitstatus == pytest.ExitCode.OK and (disputed or _without_evidence(config)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    state = config.stash[_SESSION]
    if exitstatus == pytest.ExitCode.USAGE_ERROR and not state.reported:
        return  # the error says it all
    if config.option.collectonly and config.get_verbosity() >= -1:
        found = [claim_in(item) for item in config.stash.get(_CELLS, [])]
        terminal.collected(terminalreporter, [claim for claim in found if claim is not None])
    if state.replayed is not None and not config.option.collectonly:
        for line in replay_lines(state, len(state.evidence))[1:]:
            terminal.Screen(terminalreporter).line(line)
    if state.reported:
        terminal.summary(terminalreporter, state)
    elif config.stash.get(_COLLECTED, []) and not config.option.collectonly:
        terminal.Screen(terminalreporter).line(
            f"nothing was measured: what is in {state.settings.out} is of an earlier run, if any"
        )
    if missing := _without_evidence(config):
        terminal.Screen(terminalreporter).line(
            f"no evidence: {len(missing)} of {len(config.stash[_COLLECTED])} selected tests ended "
            f"without a verdict, such as {missing[0]}",
            red=True,
        )


def _begin(config: pytest.Config) -> None:
    """Before anything is written: be the one writer, and move earlier trials aside if asked to."""
    state = config.stash[_SESSION]
    if not state.holds:
        state.hold()
        config.add_cleanup(sigterm_as_ctrl_c())
        state.start_fresh()


def _check_collected(config: pytest.Config) -> None:
    state = config.stash[_SESSION]
    items, files = config.stash.get(_DEFINED, []), config.stash.setdefault(_FILES, set())
    check_collected(items, files, state.settings.models, state.pins)


def _without_evidence(config: pytest.Config) -> list[str]:
    """Selected claims that ended without evidence (known where this process collected)."""
    state = config.stash[_SESSION]
    found = {one["test"] for one in state.reported}
    if config.option.collectonly:
        return []
    return [test for test in config.stash.get(_COLLECTED, []) if test not in found]


def _is_of_a_test(report: pytest.TestReport) -> bool:
    """Whether a report is of a test itself: those of its subtests carry its evidence again."""
    return type(report) is pytest.TestReport and report.when == "call"


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
            about = terminal.about_text(config.stash[_SESSION].cost)
            yield stack.enter_context(terminal.progress_bar(label, total, quiet=quiet, about=about))

    return show
