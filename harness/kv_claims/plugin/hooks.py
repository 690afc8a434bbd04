"""The pytest plugin as every project loads it: options, ini keys, marks, the fixture `study`.

It costs a project without claims next to nothing: no module here, and none that it imports, takes
time to import. Once a test of a claim is collected, or one of our options is given, `of_claims`
loads the hooks that a run of claims needs (`kv_claims.plugin.claims_run`). Hooks only.

PYTEST_DONT_REWRITE: a command of ours may start pytest twice in a process, and that is no news.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from kv_claims.errors import UsageError
from kv_claims.plugin.errors import usage_errors
from kv_claims.plugin.found import (
    COLLECTED,
    EMBEDDED_MARK,
    MODEL_FIXTURE,
    NO_MODEL,
    OWN_TABLE_MARK,
    REPLAY_MARK,
    is_claim,
    may_be_claims,
    model_ids,
    note_file,
    note_test,
)
from kv_claims.plugin.ini import add_keys
from kv_claims.plugin.options import add_long_forms, is_any_given, merge_forms

if TYPE_CHECKING:
    from kv_claims.plugin.claims_run import ClaimsRun

_RUN = pytest.StashKey["ClaimsRun"]()
_WRONG = pytest.StashKey[str]()
"""What is wrong with what claims are to be run by, met while they were collected."""


def pytest_addoption(parser: pytest.Parser) -> None:
    add_long_forms(parser)
    add_keys(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{REPLAY_MARK}: runs under --claims-protocol published, and alone"
    )
    config.addinivalue_line(
        "markers", f"{EMBEDDED_MARK}(*names): of all planted models, those that it runs on"
    )
    config.addinivalue_line(
        "markers", f"{OWN_TABLE_MARK}: makes its own table (study.judge_table); no model is run"
    )
    with usage_errors():
        merge_forms(config.option)
        if config.option.claims_dry_run:
            config.option.collectonly = True
        if is_any_given(config.option):
            of_claims(config).check_options()


def of_claims(config: pytest.Config) -> ClaimsRun:
    """The run of claims that this run of pytest is; its hooks are loaded the first time."""
    found = config.stash.get(_RUN, None)
    if found is None:
        from kv_claims.plugin.claims_run import ClaimsRun

        with usage_errors():
            found = config.stash[_RUN] = ClaimsRun.start(config)
    return found


def pytest_collectstart(collector: pytest.Collector) -> None:
    # Not where modules are made: those beside a file that was named are made, and not collected.
    if isinstance(collector, pytest.Module):
        note_file(collector.config, collector.path)


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(collector: pytest.Collector) -> Generator[None, Any, Any]:
    """Remember every test of a claim that there is: what is then selected changes no family."""
    made = yield
    if isinstance(made, list):
        for item in made:
            if isinstance(item, pytest.Item) and is_claim(item):
                _meet(collector.config)
                note_test(item)
    return made


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # First, so that a test's id begins with its model whatever else has parameters.
    if MODEL_FIXTURE not in metafunc.fixturenames:
        return
    run = _meet(metafunc.config)
    try:
        models = run.models_of(metafunc.definition) if run else (NO_MODEL,)
    except UsageError as error:
        models = (NO_MODEL,)
        metafunc.config.stash[_WRONG] = str(error)
    metafunc.parametrize(
        MODEL_FIXTURE, models, indirect=True, scope="session", ids=model_ids(models)
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config) -> None:
    wrong = config.stash.get(_WRONG, None)
    # With workers it is the controller that says so, once.
    if wrong is not None and not hasattr(config, "workerinput"):
        raise pytest.UsageError(wrong)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """With workers: which cells there are, before any runs."""
    if _RUN in node.config.stash or may_be_claims(node.config, ids):
        with usage_errors():
            of_claims(node.config).begin_with_workers(ids)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """With workers: what each collected (all collect the same) tells what owes evidence."""
    if COLLECTED in (told := getattr(node, "workeroutput", {})):
        of_claims(node.config).hear(told)


@pytest.fixture(scope="session")
def _claims_model(request: pytest.FixtureRequest) -> Any:
    """One loaded model with its task, budget and ledger; the next one replaces it."""
    return of_claims(request.config).open_model(request.param)


@pytest.fixture
def study(request: pytest.FixtureRequest, _claims_model: Any) -> Any:
    """The study of one claim's cell: `study.judge(Patch(...))`, once a test."""
    return of_claims(request.config).study_of(request.node, _claims_model)


def _meet(config: pytest.Config) -> ClaimsRun | None:
    """The run, now that a claim was met; None, and noted, where what it is to be is wrong.

    Raised while a file is collected, an error would be taken for one of that file.
    """
    try:
        return of_claims(config)
    except pytest.UsageError as error:
        config.stash[_WRONG] = str(error)
        return None
