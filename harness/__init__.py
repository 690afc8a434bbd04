"""kv-claims: research claims about patching the KV cache, as tests with evidence.

The names below are the stable interface for scripts. They are loaded on first use, so that
`import harness` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.claim import Region
    from harness.errors import UsageError
    from harness.judging.verdict import Verdict, judge
    from harness.measure.geometry import participation_ratio
    from harness.models.load import load_model
    from harness.scripting import run_study
    from harness.spec import Patch
    from harness.tasks.load import load_task

__version__ = "0.1.0"

_WHERE = {
    "Patch": "harness.spec",
    "Region": "harness.claim",
    "UsageError": "harness.errors",
    "Verdict": "harness.judging.verdict",
    "judge": "harness.judging.verdict",
    "load_model": "harness.models.load",
    "load_task": "harness.tasks.load",
    "participation_ratio": "harness.measure.geometry",
    "run_study": "harness.scripting",
}
__all__ = [
    "Patch",
    "Region",
    "UsageError",
    "Verdict",
    "judge",
    "load_model",
    "load_task",
    "participation_ratio",
    "run_study",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
