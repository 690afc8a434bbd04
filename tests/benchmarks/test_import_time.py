"""What `import kv_claims` and the plugin cost whoever runs no claim: a fresh process each time.

Beside them what is paid anyway: the interpreter alone, and pytest alone. Under 0.1 s more is meant.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

LINES = {
    "python": "pass",
    "kv_claims": "import kv_claims",
    "a-claim": "from kv_claims import Patch, Region, claim",
    "pytest": "import pytest",
    "pytest-and-plugin": "import pytest, kv_claims.plugin.hooks",
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_import(benchmark: BenchmarkFixture, line: str) -> None:
    benchmark.pedantic(
        subprocess.run, ([sys.executable, "-c", line],), {"check": True}, rounds=10, warmup_rounds=1
    )
