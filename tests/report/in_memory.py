"""A session as a stored run, without files and without trials."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from kv_claims.evidence.stored import Key, StoredRun
from kv_claims.plugin.session import ClaimsSession
from kv_claims.plugin.write import run_facts
from kv_claims.run.ledger import Ledger


def stored_of(state: ClaimsSession) -> StoredRun:
    evidence = {Key(one["claim"], one["cell"], one["model"]): one for one in state.evidence}
    lists = (state.instrument, state.families, state.protocol)
    run = run_facts(state, Ledger())
    return StoredRun(Path("a-run"), run, evidence, pd.DataFrame(), *map(tuple, lists))
