"""A run of pytest that has claims to run: its hooks, from collecting to each test's report.

Loaded by `kv_claims.plugin.hooks` when the first claim, or an option of ours, is met. What comes in
from tests, and what is made of it at the end, is in `kv_claims.plugin.ending`.

Imports no torch. Evidence travels as one JSON string in `user_properties`, which xdist and JUnit
both carry.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kv_claims.claims.claim import claim_in
from kv_claims.errors import UnwritableError, UsageError
from kv_claims.evidence.cost import COST, cost_by
from kv_claims.judging.family import cells_of
from kv_claims.pins.file import Place
from kv_claims.plain import line_of
from kv_claims.plugin import found, terminal
from kv_claims.plugin.asked import refuse_options, settings_of
from kv_claims.plugin.claim_test import ClaimTest
from kv_claims.plugin.collected import check_collected, check_each_once
from kv_claims.plugin.ending import PIN, REFUSED, TABLE, Ending, Refusals
from kv_claims.plugin.errors import usage_errors
from kv_claims.plugin.replaying import Replayable, own_claims_of, start_replay
from kv_claims.plugin.session import NEEDS_MODEL, ClaimsSession
from kv_claims.plugin.settings import EMBEDDED
from kv_claims.process.interrupts import sigterm_as_ctrl_c

NOT_REPLAYED, UNUSED_PINS = "claims_not_replayed", "claims_unused_pins"
_MADE = {PIN: pytest.StashKey[str](), TABLE: pytest.StashKey[str]()}
"""On a test: what it made, as JSON, by the name under which it stands in its report."""


class ClaimsRun:
    """The hooks of one run of claims, and what they know together.

    refused: in a worker, why the run's only model was refused. wrong: in a worker, what is wrong
    with the claims that were collected.
    """

    def __init__(self, config: pytest.Config, state: ClaimsSession) -> None:
        self.config, self.state = config, state
        self.ending = Ending(config, state)
        self.refused: str | None = None
        self.wrong: str | None = None

    @classmethod
    def start(cls, config: pytest.Config) -> ClaimsRun:
        """Take in what was asked for, and register the hooks.

        Raises UsageError for what can be refused without torch.
        """
        # Threads that wait by spinning make a shared machine many times slower; torch reads it.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        worker = getattr(config, "workerinput", None)
        settings, replayed = settings_of(config), None
        if (path := config.option.claims_replay) is not None:
            asked = config.option.claims_model or ()
            settings, replayed = start_replay(settings, Path(path), asked, vars(config.option))
        state = ClaimsSession(
            settings,
            shard=worker["workerid"] if worker else "main",
            workers=worker["workercount"] if worker else 1,
            replayed=replayed,
        )
        refuse_options(config)
        run = cls(config, state)
        config.add_cleanup(state.release)
        add = config.pluginmanager.register
        add(run, "kv-claims-run")
        add(run.ending, "kv-claims-ending")
        if worker is None:
            add(Refusals(), "kv-claims-refusals")
        if replayed is not None:
            add(Replayable(run), "kv-claims-replayable")
            if (own := own_claims_of(replayed)) is not None:
                add(own, "kv-claims-own-claims")
                # Workers get the controller's arguments.
                if str(own.path) not in config.args:
                    config.args.append(str(own.path))
        return run

    @property
    def models(self) -> tuple[str, ...]:
        """The models, as tests have them for a parameter."""
        return self.state.settings.models or (found.NO_MODEL,)

    @property
    def is_worker(self) -> bool:
        return hasattr(self.config, "workerinput")

    def check_options(self) -> None:
        """Refuse what was asked for before anything is collected.

        With workers, this is the place where an error is shown once and costs nothing.
        """
        if not self.is_worker:
            self.state.check()
            if getattr(self.config.option, "dist", "no") != "no":
                self._begin()

    def models_of(self, item: pytest.Item) -> tuple[str, ...]:
        """The models of a test: those of the run; of all planted ones, those that it names.

        Raises UsageError for a name that is none.
        """
        if item.get_closest_marker(found.OWN_TABLE_MARK) is not None:
            return (found.OWN_TABLE,)
        settings = self.state.settings
        marker = item.get_closest_marker(found.EMBEDDED_MARK)
        if marker is None or not settings.is_by_file:
            return self.models
        try:
            return settings.models_for(marker.args)
        except UsageError as error:
            named = f"{found.EMBEDDED_MARK}({', '.join(marker.args)})"
            raise UsageError(f"{item.nodeid}: {named}: {error}") from None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Choose the tests of the protocol, model by model: what a model's cells share runs once.

        The replay of the published protocol and the claims are kept apart: a run is one or the
        other.
        """
        is_replay = self.state.settings.protocol == "published"
        wanted: list[pytest.Item] = []
        others: list[pytest.Item] = []
        for item in items:
            is_of_it = item.get_closest_marker(found.REPLAY_MARK) is not None
            (wanted if (is_of_it and found.is_claim(item)) == is_replay else others).append(item)
        if others:
            self.config.hook.pytest_deselected(items=others)
            if self.state.replayed is not None:
                self.state.not_replayed[NEEDS_MODEL] = len(others)
        items[:] = sorted(wanted, key=lambda item: found.place(item, self.models))
        if getattr(self.config.option, "dist", "no") == "loadgroup":
            for item in items:
                if (model := found.model_of(item)) is not None:
                    item.add_marker(pytest.mark.xdist_group(model))

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        # First, so that what is wrong is said before what would be run.
        if self.is_worker:
            self._tell(NOT_REPLAYED, self.state.not_replayed)
        claims = [item for item in session.items if found.is_claim(item)]
        self.ending.expect([item.nodeid for item in claims])
        self.ending.claims = [claim for item in claims if (claim := claim_in(item))]
        if not claims or self.config.option.collectonly:
            return
        if self.is_worker:
            self.config.add_cleanup(sigterm_as_ctrl_c())
            self._tell(found.COLLECTED, self.ending.expected)
            try:
                self._check_collected(claims)
            except UsageError as error:
                # A worker that exits is an internal error to xdist: its tests say what is wrong.
                self.wrong = str(error)
            # Exact builtin types only: nothing else crosses.
            unused = self.state.pins.unused.items()
            self._tell(UNUSED_PINS, {model: [list(one) for one in at] for model, at in unused})
            return
        with usage_errors():
            if any(map(found.runs_model, claims)) and self.state.replayed is None:
                self.state.settings.check_model()
            self.state.check()
            self._check_collected(claims)
            self._begin()

    def pytest_report_collectionfinish(self, items: list[pytest.Item]) -> str | list[str] | None:
        cells = [item for item in items if claim_in(item)]
        if not cells:
            return None
        if self.state.replayed is not None:
            lines = terminal.replay_lines(self.state, len(cells))
            if not self.config.option.claims_dry_run:
                return line_of(lines[0])
            return [line_of(line) for line in (*lines, *self.state.replayed.dry_run())]
        claims = {claim.id for item in cells if (claim := claim_in(item))}
        return line_of(terminal.describe(self.state.settings, len(cells), sorted(claims)))

    def begin_with_workers(self, ids: Sequence[str]) -> None:
        """In the controller: what workers collected, before any test is run."""
        models = (*self.models, *EMBEDDED)
        claims = found.claims_among(ids, (*models, found.OWN_TABLE))
        self.ending.expect(claims)
        if claims and not self.config.option.collectonly:
            if found.claims_among(ids, models) and self.state.replayed is None:
                self.state.settings.check_model()
            self.state.check()
            self._begin()

    def hear(self, told: Mapping[str, Any]) -> None:
        """In the controller: what a worker tells at its end."""
        if found.COLLECTED in told:
            self.ending.expected = told[found.COLLECTED]
            self.state.pins.unused |= {
                model: [Place(*place) for place in places]
                for model, places in told.get(UNUSED_PINS, {}).items()
            }
        if left := told.get(NOT_REPLAYED):
            self.state.not_replayed = left

    def open_model(self, model: str) -> Any:
        """What tests of a model are judged on.

        A model that is refused ends a run that has no other, at once; else its tests fail, each
        with the one line that says why, and the other models run. None for a test that makes its
        own table.
        """
        if self.wrong is not None:
            raise pytest.fail.Exception(self.wrong, pytrace=False)
        try:
            self.state.check()
            if model == found.OWN_TABLE:
                return None
            return self.state.open_study(model, self._progress())
        except UsageError as error:
            is_only = len(self.state.settings.models) == 1
            if is_only and not self.is_worker:
                pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
            if is_only:
                # A worker that exits is an internal error to xdist: its report has the run ended.
                self.refused = str(error)
            raise pytest.fail.Exception(str(error), pytrace=False) from None

    def study_of(self, item: Any, judged_on: Any) -> ClaimTest:
        """What a claim's test is given. judged_on: what `open_model` returned."""
        pins = self.state.pins
        # A replay has no runner, and spends nothing.
        runner = getattr(judged_on, "runner", None)
        spent = cost_by(runner) if runner is not None else None

        def record(kind: str, content: str) -> None:
            item.user_properties.append((kind, content))
            if spent is not None:
                item.user_properties.append((COST, json.dumps(spent())))

        def made(name: str, content: str) -> None:
            item.stash[_MADE[name]] = content

        return ClaimTest(
            study=judged_on,
            claim=claim_in(item),
            cell=found.cell_of(item, self.models),
            strict=self.state.settings.strict,
            record=record,
            siblings=cells_of(item),
            test=f"{found.file_of(item)}::{item.nodeid.partition('::')[2].partition('[')[0]}",
            pins=pins.of(found.model_of(item) or ""),
            pin=partial(made, PIN) if pins.updating else None,
            pins_of_tables=pins.of_tables,
            keep_table=partial(made, TABLE),
        )

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Let what a test made go with its report: strings, which cross to the controller as is."""
        report = yield
        if call.when == "setup" and self.refused is not None:
            report.__dict__[REFUSED] = self.refused
        if call.excinfo is not None and isinstance(call.excinfo.value.__context__, UnwritableError):
            # The next test would run its trials, and lose them too.
            item.session.shouldstop = str(call.excinfo.value)
        for name, key in _MADE.items():
            if call.when == "call" and (content := item.stash.get(key, None)) is not None:
                report.__dict__[name] = content
        return report

    def _begin(self) -> None:
        """Before anything is written: be the one writer, and move trials aside if asked to."""
        if not self.state.holds and not self.config.option.collectonly:
            self.state.hold()
            self.config.add_cleanup(sigterm_as_ctrl_c())
            self.state.start_fresh()

    def _check_collected(self, selected: Sequence[pytest.Item]) -> None:
        check_each_once(selected)
        tests, files = found.known_tests(self.config), found.known_files(self.config)
        check_collected(tests, files, self.models, self.state.pins)

    def _tell(self, name: str, what: Any) -> None:
        """In a worker: tell the controller something, at the end."""
        self.config.workeroutput[name] = what  # type: ignore[attr-defined]

    def _progress(
        self,
    ) -> Callable[[str, int], AbstractContextManager[Callable[[int], None]]]:
        """A progress bar on the real terminal: none in workers, under -q, or without a terminal."""
        capture = self.config.pluginmanager.getplugin("capturemanager")
        quiet = self.is_worker or self.config.get_verbosity() < 0

        @contextmanager
        def show(label: str, total: int) -> Iterator[Callable[[int], None]]:
            with ExitStack() as stack:
                if capture is not None:
                    stack.enter_context(capture.global_and_fixture_disabled())
                about = terminal.about_text(self.state.cost)
                yield stack.enter_context(
                    terminal.progress_bar(label, total, quiet=quiet, about=about)
                )

        return show
