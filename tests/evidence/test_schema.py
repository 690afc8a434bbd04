"""What is written and what is read of a run are two lists of fields, which must not part."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from kv_claims.evidence.evidence import Evidence, InstrumentEvidence, ProtocolEvidence
from kv_claims.evidence.schema import EvidenceSaid, InstrumentSaid, ProtocolSaid


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (Evidence, EvidenceSaid),
        (InstrumentEvidence, InstrumentSaid),
        (ProtocolEvidence, ProtocolSaid),
    ],
)
def test_every_field_that_is_written_is_one_that_is_read(written: Any, read: Any) -> None:
    """`test`, the test's own name, is put in by the session."""
    names = {field.name for field in fields(written)}
    assert names == set(read.__annotations__) - {"test"}
