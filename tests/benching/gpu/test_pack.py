"""What travels: cut and joined with hashes, resolved without what is there, installed apart."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from kv_claims.benching.gpu import pack, parts
from kv_claims.benching.gpu.brought import unpack
from kv_claims.benching.gpu.pack import Index, Wanted, travelling
from kv_claims.benching.gpu.run import environment
from kv_claims.errors import UsageError

CONTENT = bytes(range(256)) * 10


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A large file in three parts, a small one as it is."""
    large, small = tmp_path / "weights.gguf", tmp_path / "notes.txt"
    large.write_bytes(CONTENT)
    small.write_text("small", encoding="utf-8")
    parts.cut([large, small], tmp_path / "pack", 1000)
    assert not large.exists()
    return tmp_path / "pack"


def test_parts_make_the_file_again(packed: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in packed.iterdir()) == [
        *("notes.txt", "parts.json"),
        *(f"weights.gguf.00{n}" for n in range(3)),
    ]
    assert [(packed / f"weights.gguf.00{n}").stat().st_size for n in range(3)] == [1000, 1000, 560]
    whole, small = parts.joined(packed, tmp_path / "joined")
    assert whole.read_bytes() == CONTENT
    assert small == packed / "notes.txt"
    # Once joined it is not joined again.
    before = whole.stat().st_mtime_ns
    parts.joined(packed, tmp_path / "joined")
    assert whole.stat().st_mtime_ns == before


def test_parts_can_be_joined_by_hand_as_it_says(packed: Path) -> None:
    listed = json.loads((packed / "parts.json").read_text(encoding="utf-8"))
    by_hand = b"".join((packed / f"weights.gguf.00{n}").read_bytes() for n in range(3))
    assert hashlib.sha256(by_hand).hexdigest() == listed["weights.gguf"]["sha"]


def test_an_empty_file_and_one_that_just_fits_travel_too(tmp_path: Path) -> None:
    files = {"empty": b"", "fits": b"x" * 1000, "one-more": b"x" * 1001}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    parts.cut([tmp_path / name for name in files], tmp_path / "pack", 1000)
    found = parts.joined(tmp_path / "pack", tmp_path / "joined")
    assert {path.name: path.read_bytes() for path in found} == files
    assert (tmp_path / "pack/one-more.001").read_bytes() == b"x"


@pytest.mark.parametrize("harm", ["missing", "damaged", "shorter"])
def test_a_part_that_is_not_as_it_was_is_named(packed: Path, tmp_path: Path, harm: str) -> None:
    part = packed / "weights.gguf.001"
    if harm == "missing":
        part.unlink()
    else:
        part.write_bytes(part.read_bytes()[:-1] + (b"?" if harm == "damaged" else b""))
    with pytest.raises(UsageError, match=r"weights\.gguf\.001: (not there|damaged)"):
        parts.joined(packed, tmp_path / "joined")
    assert not (tmp_path / "joined/weights.gguf").exists()


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"a": 1}', '{"../a": {"parts": [], "sha": "", "bytes": 0}}'],
    ids=["no-json", "list", "number", "leaves"],
)
def test_a_list_of_parts_that_is_none_is_refused(
    packed: Path, tmp_path: Path, content: str
) -> None:
    (packed / "parts.json").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"parts\.json"):
        parts.joined(packed, tmp_path / "joined")


def wheel(name: str, into: Path, version: str = "1.0", *, large: int = 0) -> Path:
    """A wheel with one module that says its version."""
    stem = f"{name}-{version}"
    about, path = f"{stem}.dist-info", into / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}/__init__.py", f"version = {version!r}\n" + "#" * large)
        file.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        file.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{about}/RECORD", "")
    return path


def test_wheels_stand_before_what_is_installed_and_change_nothing_of_it(tmp_path: Path) -> None:
    """No index is asked: pip is told so, and a wheel that needs something gets nothing."""
    wheels = [wheel("brought_along", tmp_path, large=3000), wheel("jinja2", tmp_path, "99.0")]
    parts.cut(wheels, tmp_path / "pack", 1000)
    brought = unpack(tmp_path / "pack", tmp_path / "out")
    assert brought.site == tmp_path / "out/site"
    ask = "import brought_along, jinja2; print(brought_along.version, jinja2.version)"
    found = subprocess.run(
        [sys.executable, "-c", ask],
        env=dict(environment([brought.site])),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["1.0", "99.0"]
    import jinja2

    assert jinja2.__version__ != "99.0"
    # Installed once; anew when the wheels are others.
    kept = brought.site / "kept"
    kept.touch()
    assert unpack(tmp_path / "pack", tmp_path / "out").site == brought.site
    assert kept.exists()
    parts.cut([wheel("brought_along", tmp_path, "2.0")], tmp_path / "pack", 10**6)
    unpack(tmp_path / "pack", tmp_path / "out")
    assert not kept.exists()
    assert not (brought.site / "jinja2").exists()


def test_nothing_brought_is_said(tmp_path: Path) -> None:
    brought = unpack(tmp_path, tmp_path / "out")
    assert (brought.site, brought.files) == (None, [])
    assert "nothing was brought along" in brought.said


def test_a_wheel_that_is_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a-1.0-py3-none-any.whl").write_text("no zip", encoding="utf-8")
    parts.cut([tmp_path / "a-1.0-py3-none-any.whl"], tmp_path / "pack", 10**6)
    with pytest.raises(UsageError, match="cannot be installed"):
        unpack(tmp_path / "pack", tmp_path / "out")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """A folder of wheels in place of an index: `top` needs `middle` and `there`, `there` `deep`."""
    folder = tmp_path / "index"
    folder.mkdir()
    needs = {"top": ["middle>=1", "there>=2"], "middle": [], "there": ["deep"], "deep": []}
    for name, some in needs.items():
        for version in ("1.0", "2.0"):
            path = wheel(name, folder, version)
            with zipfile.ZipFile(path) as file:
                content = {one: file.read(one) for one in file.namelist()}
            about = f"{name}-{version}.dist-info/METADATA"
            content[about] += "".join(f"Requires-Dist: {need}\n" for need in some).encode()
            with zipfile.ZipFile(path, "w") as file:
                for one, data in content.items():
                    file.writestr(one, data)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return Index("3.12", ("any",))


def test_what_is_there_does_not_travel_nor_what_it_needs(index: Index) -> None:
    assert travelling(index, ["top"], ["there==2.0"]) == [
        Wanted("middle", "2.0"),
        Wanted("top", "2.0"),
    ]
    names = [one.name for one in travelling(index, ["top"], [])]
    assert names == ["deep", "middle", "there", "top"]
    # What is asked for by name may be there and too old.
    assert Wanted("middle", "2.0") in travelling(index, ["top", "middle>=2"], ["middle==1.0"])
    with pytest.raises(UsageError, match="pip install"):
        travelling(index, ["top"], ["there==1.0"])


def test_a_pack_is_made_and_its_size_said(
    index: Index,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pack, "PROJECT", ("top",))
    frozen, weights = tmp_path / "freeze.txt", tmp_path / "weights.gguf"
    frozen.write_text("there==2.0+cu130\n-e somewhere\nother @ file:///x\n", encoding="utf-8")
    weights.write_bytes(CONTENT)
    options = ["--out", str(tmp_path / "pack"), "--has", str(frozen), "--file", str(weights)]
    assert pack.main([*options, "--platform", "any", "--part-mb", "0.001"]) == 0
    said = capsys.readouterr().out
    assert "weights.gguf in 3 parts" in said
    assert "MB  in all" in said
    assert weights.read_bytes() == CONTENT, "it was copied"
    files = parts.joined(tmp_path / "pack", tmp_path / "joined")
    assert sorted(path.name.split("-")[0] for path in files) == ["middle", "top", "weights.gguf"]
    assert index.python == pack.PYTHON


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--with", "nothing"], "--with nothing"),
        (["--file", "nowhere"], "--file nowhere"),
        (["--part-mb", "0"], "--part-mb 0"),
    ],
    ids=["with", "file", "part"],
)
def test_bad_usage_is_said_before_pip_is_asked(
    options: Sequence[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pack.main([*options, "--out", str(tmp_path / "pack")]) == 2
    assert told in capsys.readouterr().err
    other = tmp_path / "mine"
    other.mkdir()
    (other / "file").touch()
    assert pack.main(["--out", str(other)]) == 2
    assert "holds other things" in capsys.readouterr().err
    assert (other / "file").exists()
