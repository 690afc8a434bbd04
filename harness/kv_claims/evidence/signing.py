"""Signing a run's evidence by a key of one's own: Ed25519, by the package `cryptography`.

Hashes in `evidence.json` show an edit by whoever does not make them again; a signature shows any,
to whoever knows the key. It says that the holder of the key let a run sign this evidence: not that
the run was honest, and nothing to whoever got key and evidence from the same hands.

Import it where it is needed: where `cryptography` is not installed, that raises UsageError.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from kv_claims.errors import UsageError

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_pem_private_key,
        load_pem_public_key,
    )
except ImportError as missing:
    raise UsageError(
        "signatures need the package cryptography, which is not installed: "
        "pip install 'kv-claims[sign]'"
    ) from missing

_SCHEMA = 1


class Signed(NamedTuple):
    """By which key something is signed. fits: whether the signature is of this very content."""

    fingerprint: str
    fits: bool


def new_key(private: Path, public: Path) -> str:
    """Make a pair of keys, as PEM files; the private one is its owner's to read. Its fingerprint.

    Raises UsageError where either file stands already, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    others = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for path, content, mode in ((private, own, 0o600), (public, others, 0o644)):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except OSError as error:
            raise UsageError(
                f"key {path}: cannot be made ({error.strerror}), expected a name of no file"
            ) from error
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    return _fingerprint(key.public_key())


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read the key to sign with. Raises UsageError for anything but an Ed25519 key in PEM."""
    wanted = "expected an Ed25519 private key in PEM, without a password"
    content = _read(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:  # the latter where it has a password
        raise UsageError(f"key {path}: cannot be used, {wanted}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"key {path}: of another kind, {wanted}")
    return key


def fingerprint_in(path: Path) -> str:
    """The fingerprint of a public key in a PEM file. Raises UsageError for anything else."""
    wanted = "expected an Ed25519 public key in PEM"
    content = _read(path)
    try:
        key = load_pem_public_key(content)
    except ValueError as error:
        raise UsageError(f"key {path}: cannot be used, {wanted}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"key {path}: of another kind, {wanted}")
    return _fingerprint(key)


def sign(content: bytes, key: Ed25519PrivateKey) -> str:
    """A signature of some bytes, as JSON: the public key and 64 bytes, both in base 64."""
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    found = {"key": _text(public), "signature": _text(key.sign(content))}
    return json.dumps({"schema": _SCHEMA, "algorithm": "ed25519", **found}, indent=1) + "\n"


def signed_by(content: bytes, path: Path) -> Signed:
    """By whom some bytes are signed, by a signature in a file.

    Raises UsageError for a file that holds no signature.
    """
    text = _read(path)
    try:
        found = json.loads(text)
        if (found["schema"], found["algorithm"]) != (_SCHEMA, "ed25519"):
            raise ValueError("of another kind")
        raw, signature = (
            base64.b64decode(found[name], validate=True) for name in ("key", "signature")
        )
        key = Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path}: no signature, expected one that a run wrote") from error
    try:
        key.verify(signature, content)
    except InvalidSignature:
        return Signed(_fingerprint(key), fits=False)
    return Signed(_fingerprint(key), fits=True)


def _fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key in DER, hex: as `openssl pkey -pubin -outform DER | sha256sum`."""
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
