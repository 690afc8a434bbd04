"""The plugin in projects that know nothing of it: nothing collides, and it costs next to nothing.

What is loaded is told by a process of its own; the time is in `tests/benchmarks`.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    *("torch", "transformers", "numpy", "scipy", "pandas", "pyarrow", "matplotlib"),
    *("yaml", "msgspec", "tqdm", "icu", "icu4py", "regex", "filelock", "jinja2"),
)
OWN = """
import pytest

def pytest_addoption(parser):
    for name in ("--model", "--task", "--pairs", "--device", "--seeds", "--resume"):
        parser.addoption(name)
    parser.addini("models", "of its own")

@pytest.fixture
def study():
    return "its own"
"""
TESTS = """
import pytest
import harness

@pytest.mark.embedded("a name of its own")
def test_own(study, pytestconfig):
    assert (study, harness.VALUE, pytestconfig.getoption("--model")) == ("its own", 3, "gpt")

@pytest.mark.published_protocol
@pytest.mark.flaky
def test_marked():
    pass
"""
PLUGIN = ("-p", "kv_claims.plugin.hooks")
CLAIM = """
from kv_claims import Patch, Region, claim

@claim("a", says="It transfers.", cites="a test", transfer=Region(high=0.12))
def test_a(study):
    study.judge(Patch("kv", layers="9", positions="all"))
"""


@pytest.fixture
def stranger(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with options, a fixture, marks and a folder `harness` of its own."""
    pytester.makeconftest(OWN)
    pytester.makeini("[pytest]\npythonpath = .\nmarkers =\n    flaky: of its own\nmodels = x\n")
    (pytester.path / "harness").mkdir()
    (pytester.path / "harness/__init__.py").write_text("VALUE = 3\n")
    pytester.makepyfile(test_own=TESTS)
    return pytester


def test_nothing_of_its_own_collides(stranger: pytest.Pytester) -> None:
    # In a process of its own: this one has a `harness` of another project on its path.
    options = ("--model=gpt", "-W", "error", "--strict-markers")
    result = stranger.runpytest_subprocess(*PLUGIN, *options)
    result.assert_outcomes(passed=2)
    result.stdout.no_fnmatch_line("*= claims =*")


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, kv_claims, kv_claims.plugin.hooks, kv_claims.plugin.short_options\n"
        "from kv_claims import Patch, Region, UsageError, claim\n"
        f"found = set({HEAVY!r}) & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_hook_of_a_run_is_loaded_without_a_claim(stranger: pytest.Pytester) -> None:
    config = stranger.parseconfigure(*PLUGIN)
    assert not config.pluginmanager.has_plugin("kv-claims-run")


def test_claims_without_a_model_are_one_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(CLAIM)
    result = pytester.runpytest_inprocess(*PLUGIN, "-p", "no:cacheprovider")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line.strip()]
    assert line.startswith("ERROR: no model to run claims on: expected claims_models in ")
    assert not (pytester.path / "reports").exists()


@pytest.mark.parametrize("other", ["--collect-only", "--deselect=test_it.py"])
def test_claims_that_are_not_run_need_no_model(pytester: pytest.Pytester, other: str) -> None:
    pytester.makepyfile(test_it=CLAIM, test_other="def test_other(): pass")
    result = pytester.runpytest_inprocess(*PLUGIN, other)
    assert result.ret == pytest.ExitCode.OK


def test_a_claim_collected_twice_is_one_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=CLAIM)
    (pytester.path / "again").mkdir()
    (pytester.path / "again/test_it.py").symlink_to(pytester.path / "test_it.py")
    options = (*PLUGIN, "--claims-model=planted:inert", "--import-mode=importlib")
    result = pytester.runpytest_inprocess(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        "ERROR: claim 'a': its file was collected twice, as again/test_it.py::test_a and as "
        "test_it.py::test_a; expected once"
    )
    result = pytester.runpytest_inprocess(*options, "--keep-duplicates", "test_it.py", "test_it.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("ERROR: test_it.py::test_a[[]planted:inert]: collected twice*")


def test_an_installed_plugin_beside_the_one_that_a_conftest_names(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a clone, in an environment that kv-claims is installed in."""
    info = pytester.path / "site/kv_claims-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kv-claims\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "[pytest11]\nkv_claims.plugin.hooks = kv_claims.plugin.hooks\n"
    )
    monkeypatch.syspath_prepend(str(info.parent))
    names = '["kv_claims.plugin.hooks", "kv_claims.plugin.short_options"]'
    pytester.makeconftest(f"pytest_plugins = {names}\n")
    pytester.makepyfile(CLAIM)
    result = pytester.runpytest_inprocess("--model=planted:inert", "--collect-only", "-q")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines("*::test_a[[]planted:inert]")
    assert pytester.parseconfig().pluginmanager.has_plugin("kv_claims.plugin.hooks")
    (pytester.path / "conftest.py").unlink()
    assert pytester.parseconfig().pluginmanager.has_plugin("kv_claims.plugin.hooks")


def test_the_entry_point_is_named_as_the_module_that_a_conftest_names() -> None:
    import tomllib
    from pathlib import Path

    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    ((name, module),) = project["entry-points"]["pytest11"].items()
    assert name == module
    assert f'"{name}"' in (root / "conftest.py").read_text()
