"""--claims-resume and --claims-no-resume: go on from the ledger, or run all again."""

from __future__ import annotations

from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.settings import LEDGER_FOLDER
from tests.plugin.options.conftest import Given


def test_a_run_goes_on_from_its_ledger_unless_told_otherwise(given: Given) -> None:
    assert given().resume
    assert given("--claims-resume").resume
    assert not given("--claims-no-resume").resume
    assert given("--claims-no-resume", "--claims-resume").resume


def test_earlier_trials_are_moved_aside_and_never_deleted(given: Given) -> None:
    settings = given("--claims-no-resume")
    ledger = settings.out / LEDGER_FOLDER
    ledger.mkdir(parents=True, exist_ok=True)
    (ledger / "main.jsonl").write_text("earlier\n")
    aside = ClaimsSession(settings).start_fresh()
    assert aside is not None
    assert (aside / "main.jsonl").read_text() == "earlier\n"
    assert not (ledger / "main.jsonl").exists()
