"""The wheel, in an environment that knows no checkout: what the README promises works from it.

Dependencies are those of this environment; what is installed of kv-claims is the wheel alone.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.processes import inherited

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]
OWN_OPTION = 'def pytest_addoption(parser):\n    parser.addoption("--model", help="their own")\n'
OWN_CLAIM = """
import pytest
from harness import LAYERS
from kv_claims import Patch, Region, claim


@pytest.mark.parametrize("layers", LAYERS)
@claim("own", says="Ours.", cites="this test", transfer=Region(-5, 5))
def test_own(study, layers):
    study.judge(Patch("kv", layers=layers, positions="last(8)"))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment into which the wheel was installed."""
    folder = tmp_path_factory.mktemp("bare")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, cwd=folder, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env/bin/python"
    installing = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*installing, str(wheel)], check=True, capture_output=True)
    site = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    # A path file in a folder that is itself named by one is not read: no checkout comes in.
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env/bin"


def run(bare: Path, cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the environment in a folder. `python` has no checkout on its path."""
    environment = {k: v for k, v in inherited().items() if k != "PYTHONPATH"}
    return subprocess.run(
        [str(bare / command[0]), *command[1:]],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_it_is_the_wheel_that_is_imported(bare: Path, tmp_path: Path) -> None:
    code = "import kv_claims; print(kv_claims.__file__)"
    done = run(bare, tmp_path, "python", "-c", code)
    assert Path(done.stdout.strip()).is_relative_to(bare.parent), done.stdout + done.stderr
    assert Path(done.stdout.strip()).with_name("py.typed").is_file()
    assert run(bare, tmp_path, "python", "-c", "import harness").returncode


def test_a_starter_is_written_and_green(bare: Path, tmp_path: Path) -> None:
    done = run(bare, tmp_path, "kv-claims", "init", "lab")
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(bare, tmp_path / "lab", "python", "-m", "pytest", "claims")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "verdicts: 1 supported" in done.stdout
    assert (tmp_path / "lab/reports/latest/report.html").is_file()


def test_the_seed_s_claims_run_from_anywhere(bare: Path, tmp_path: Path) -> None:
    options = ("--model", "mini", "--pairs", "12", "--max-new-tokens", "8")
    cells = ("-k", "transfers_80 and L25-w16")
    done = run(bare, tmp_path, "kv-claims", "run", "--seed-claims", *options, *cells)
    assert "verdicts: 1 " in done.stdout, done.stdout + done.stderr
    assert "kv-cache-transfers-80" in (tmp_path / "reports/latest/evidence.json").read_text()


def test_nothing_of_a_project_s_own_collides(bare: Path, tmp_path: Path) -> None:
    (tmp_path / "harness").mkdir()
    (tmp_path / "harness/__init__.py").write_text('LAYERS = ["12"]\n')
    (tmp_path / "conftest.py").write_text(OWN_OPTION)
    (tmp_path / "test_own.py").write_text(OWN_CLAIM)
    options = ("--claims-model", "mini", "--claims-pairs", "12", "--claims-max-new-tokens", "8")
    done = run(bare, tmp_path, "python", "-m", "pytest", "--model", "theirs", *options)
    assert "verdicts: 1 " in done.stdout, done.stdout + done.stderr
