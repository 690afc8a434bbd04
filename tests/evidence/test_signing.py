"""Keys, signatures, and what is none."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from kv_claims.errors import UsageError
from kv_claims.evidence.signing import fingerprint_in, new_key, private_key, sign, signed_by

SAID = b'{"evidence": []}'


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path, str]:
    """A private key, its public one, and their fingerprint."""
    private, public = tmp_path / "lab.pem", tmp_path / "lab.pub.pem"
    return private, public, new_key(private, public)


@pytest.fixture
def signature(keys: tuple[Path, Path, str], tmp_path: Path) -> Path:
    path = tmp_path / "sig"
    path.write_text(sign(SAID, private_key(keys[0])))
    return path


def test_what_is_signed_is_signed_by_its_key(keys: tuple[Path, Path, str], signature: Path) -> None:
    assert signed_by(SAID, signature) == (keys[2], True)
    assert fingerprint_in(keys[1]) == keys[2]


def test_a_byte_more_is_not_signed(signature: Path) -> None:
    for said in (SAID + b" ", SAID[1:], b""):
        assert not signed_by(said, signature).fits


def test_a_key_put_in_place_of_another_fits_nothing(signature: Path, tmp_path: Path) -> None:
    private = tmp_path / "other.pem"
    fingerprint = new_key(private, tmp_path / "other.pub.pem")
    found = json.loads(signature.read_text())
    found["key"] = json.loads(sign(SAID, private_key(private)))["key"]
    signature.write_text(json.dumps(found))
    assert signed_by(SAID, signature) == (fingerprint, False)


def test_a_private_key_is_its_owners_to_read(keys: tuple[Path, Path, str]) -> None:
    assert keys[0].stat().st_mode & 0o077 == 0


def test_no_key_is_overwritten(keys: tuple[Path, Path, str], tmp_path: Path) -> None:
    before = keys[0].read_bytes()
    with pytest.raises(UsageError, match=r"lab\.pem: cannot be made"):
        new_key(keys[0], tmp_path / "new.pub.pem")
    assert keys[0].read_bytes() == before


def test_a_fingerprint_is_that_of_the_key_in_der(keys: tuple[Path, Path, str]) -> None:
    """By another route than the module's: as `openssl pkey -pubin -outform DER | sha256sum`."""
    key = load_pem_public_key(keys[1].read_bytes())
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert hashlib.sha256(der).hexdigest() == keys[2]


def pem(key: Ed25519PrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> bytes:
    hidden = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, hidden)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "cannot be used"),
        (b"not a key", "cannot be used"),
        (pem(Ed25519PrivateKey.generate(), b"secret"), "cannot be used"),
        (pem(rsa.generate_private_key(65537, 2048)), "of another kind"),
    ],
    ids=["empty", "text", "password", "rsa"],
)
def test_a_key_that_signs_nothing_is_one_line(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"key.pem: {why}, expected an Ed25519 private key"):
        private_key(path)
    with pytest.raises(UsageError, match="expected an Ed25519 public key"):
        fingerprint_in(path)


def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.pem: cannot be read"):
        private_key(tmp_path / "none.pem")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "{}",
        "[" * 100_000,
        '{"schema": 2, "algorithm": "ed25519", "key": "", "signature": ""}',
        '{"schema": 1, "algorithm": "ed25519", "key": "????", "signature": ""}',
        '{"schema": 1, "algorithm": "ed25519", "key": 3, "signature": ""}',
        '{"schema": 1, "algorithm": "ed25519", "key": "AAAA", "signature": ""}',
    ],
)
def test_what_is_no_signature_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sig"
    path.write_text(text)
    with pytest.raises(UsageError, match="no signature"):
        signed_by(SAID, path)


def test_without_the_package_it_is_named() -> None:
    """In a process of its own, which has no such package; nothing else needs it."""
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from kv_claims.errors import UsageError\n"
        "import kv_claims.plugin.session, kv_claims.plugin.write\n"
        "try:\n    import kv_claims.evidence.signing\nexcept UsageError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'kv-claims[sign]'" in done.stdout
