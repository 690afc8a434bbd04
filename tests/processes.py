"""The environment that a child of a test gets: ours, without what makes pytest behave otherwise.

pytest prints its summary in full where `CI` or `BUILD_NUMBER` is set, and takes options from
`PYTEST_*`: a test of what is printed must read the same on every machine. The package that a child
imports is that of this checkout, whichever is installed.
"""

from __future__ import annotations

import os
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "harness"
CHANGES_PYTEST = {"CI", "BUILD_NUMBER", "COLUMNS"}


def inherited() -> dict[str, str]:
    """The variables of this process that a child may see."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in CHANGES_PYTEST and not name.startswith("PYTEST_")
    }
    before = filter(None, [kept.get("PYTHONPATH")])
    return {**kept, "PYTHONPATH": os.pathsep.join([str(SOURCE), *before])}
