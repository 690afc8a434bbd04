"""--claims-sign: the evidence is signed by a key of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from kv_claims.errors import UsageError
from kv_claims.evidence.signing import new_key
from kv_claims.plugin.session import ClaimsSession
from kv_claims.replay.option import check_options
from tests.plugin.options.conftest import Given


def test_nothing_is_signed_unless_asked_for(given: Given) -> None:
    assert given().sign is None
    session = ClaimsSession(given())
    session.check()
    assert session.signer is None


def test_a_key_signs(given: Given, tmp_path: Path) -> None:
    new_key(tmp_path / "lab.pem", tmp_path / "lab.pub.pem")
    session = ClaimsSession(given("--claims-sign", str(tmp_path / "lab.pem")))
    session.check()
    assert session.signer is not None
    assert '"signature"' in session.signer(b"evidence")


@pytest.mark.parametrize("name", ["none.pem", "lab.pub.pem"])
def test_what_is_no_private_key_is_refused_before_anything_runs(
    given: Given, tmp_path: Path, name: str
) -> None:
    new_key(tmp_path / "lab.pem", tmp_path / "lab.pub.pem")
    with pytest.raises(pytest.UsageError, match=name):
        given("--claims-sign", str(tmp_path / name))


def test_a_replay_is_not_signed() -> None:
    with pytest.raises(UsageError, match=r"^--claims-sign: of no use with --claims-replay"):
        check_options({"claims_sign": "lab.pem"})
