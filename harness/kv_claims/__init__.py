"""kv-claims: research claims about patching the KV cache, as tests with evidence.

The names below are the stable interface for scripts. They are loaded on first use, so that
`import kv_claims` stays light.

PYTEST_DONT_REWRITE: `kv-claims run` has this package loaded before pytest comes to its plugins.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kv_claims.claims.claim import Region, claim
    from kv_claims.claims.patch import Patch
    from kv_claims.errors import UsageError
    from kv_claims.judging.verdict import Verdict, judge
    from kv_claims.measure.geometry import participation_ratio
    from kv_claims.models.load import load_model
    from kv_claims.report.show import show
    from kv_claims.study.scripting import run_study
    from kv_claims.tasks.generation import Generation
    from kv_claims.tasks.load import load_task

__version__ = "0.1.0"

_WHERE = {
    "Generation": "kv_claims.tasks.generation",
    "Patch": "kv_claims.claims.patch",
    "Region": "kv_claims.claims.claim",
    "UsageError": "kv_claims.errors",
    "Verdict": "kv_claims.judging.verdict",
    "claim": "kv_claims.claims.claim",
    "judge": "kv_claims.judging.verdict",
    "load_model": "kv_claims.models.load",
    "load_task": "kv_claims.tasks.load",
    "participation_ratio": "kv_claims.measure.geometry",
    "run_study": "kv_claims.study.scripting",
    "show": "kv_claims.report.show",
}
__all__ = [
    "Generation",
    "Patch",
    "Region",
    "UsageError",
    "Verdict",
    "claim",
    "judge",
    "load_model",
    "load_task",
    "participation_ratio",
    "run_study",
    "show",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'kv_claims' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
