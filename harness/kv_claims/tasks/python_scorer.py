"""A scorer that a task names as a function in Python, `{python: "mylab.scorers:refuses"}`.

Promises: its source file is hashed into its name, and so into the task's hash; what it gives is
one finite number, the same in two calls on one generation, or one error names it, pair and text.
Does not: say what it counted in a text, so that checks and figures of hits do not apply to it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from numbers import Real
from typing import Any

import numpy as np

from kv_claims.errors import UsageError
from kv_claims.tasks.code import CodeFrom, Source, find_source, imported
from kv_claims.tasks.generation import Generation
from kv_claims.tasks.scorers import Hit, Scorer


@dataclass(frozen=True)
class PythonScorer:
    """A function's number for a generation. target: `module:function`; sha: of its source file."""

    target: str
    sha: str
    function: Callable[[Any], Any] = field(compare=False, repr=False)
    reads_text: bool = False
    _known: dict[Generation, float] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"python {self.target} sha256:{self.sha[:16]}"

    @property
    def unit(self) -> str:
        return f"the number that {self.target} gives"

    def __call__(self, text: str) -> float:
        return self.of(Generation(text))

    def of(self, said: Generation) -> float:
        """Its score, of two calls. Raises UsageError where it has none."""
        if said not in self._known:
            first, second = self._once(said), self._once(said)
            if first != second:
                raise UsageError(
                    f"scorer {self.target} on {said.said}: gives {first:g}, then {second:g}; "
                    "expected one number for one generation"
                )
            self._known[said] = first
        return self._known[said]

    def hits(self, text: str) -> tuple[Hit, ...]:
        """None: what it counted is its own business."""
        del text
        return ()

    def _once(self, said: Generation) -> float:
        where = f"scorer {self.target} on {said.said}"
        try:
            found = self.function(said.text if self.reads_text else said)
        except (Exception, SystemExit) as error:
            raise UsageError(f"{where}: raises {type(error).__name__}: {error}") from error
        if not isinstance(found, Real | np.bool_) or not math.isfinite(float(found)):
            raise UsageError(f"{where}: gives {found!r:.60}, expected a finite number")
        return float(found)


def python_scorer(target: str, code: CodeFrom) -> PythonScorer:
    """The scorer of a function `module:function`, which may be imported from some places.

    Raises UsageError for what is no such name, lies elsewhere, or takes not one argument.
    """
    module, colon, name = target.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), name)):
        raise UsageError(f"scorer python {target!r}, expected 'module:function'")
    try:
        return _made(find_source(module, code), name)
    except UsageError as error:
        raise UsageError(f"scorer python {target!r}: {error}") from None


def score_of(said: Generation, scorer: Scorer) -> float:
    """A generation's score: one in Python reads all of it, any other its text alone."""
    return scorer.of(said) if isinstance(scorer, PythonScorer) else scorer(said.text)


@cache
def _made(source: Source, name: str) -> PythonScorer:
    """One scorer for a process: what it gave once need not be asked again."""
    found = getattr(imported(source), name, None)
    if found is None:
        raise UsageError(f"{source.file} has no {name!r}")
    if not callable(found):
        raise UsageError(f"{name!r} of {source.file} is {found!r:.60}, expected a function")
    if (home := getattr(found, "__module__", None)) != source.module:
        raise UsageError(
            f"{name!r} of {source.file} is defined in {home}, expected in the file that is named: "
            "its source is hashed"
        )
    try:
        given = list(inspect.signature(found).parameters.values())
    except (TypeError, ValueError):
        given = []
    positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    needed = [one for one in given if one.default is one.empty and one.kind in positional]
    if len(needed) != 1 or any(
        one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in given
    ):
        raise UsageError(
            f"{name!r} of {source.file} takes {', '.join(map(str, given)) or 'nothing'}, expected "
            "one argument: `text`, or a Generation under any other name"
        )
    target = f"{source.module}:{name}"
    return PythonScorer(target, source.sha, found, reads_text=needed[0].name == "text")
