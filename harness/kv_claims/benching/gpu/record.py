"""`gpu.json`: what every step found, written whole after each, so that what ends early is there.

Later calls add to it: a step that is run again replaces what stood there, the others stay.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from kv_claims.errors import UsageError
from kv_claims.files.atomic import replace

SCHEMA = 1
NOT_RUN = "not run"
RUNNING = "running"
DONE = "done"
SHORT = "falls short"
FAILED = "failed"
OUT_OF_TIME = "out of time"
SKIPPED = "skipped"
ENDED = (DONE, SHORT, SKIPPED)
"""States in which a step has had its answer; `--rest` runs the others."""
GOOD = (DONE, SKIPPED)


def plain(tree: Any) -> Any:
    """JSON's own kinds; numbers that are not finite, and whatever it does not know, as text."""
    if isinstance(tree, dict):
        return {str(name): plain(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        return str(tree)
    return tree if isinstance(tree, str | int | float | None) else str(tree)


class Record:
    """The steps of one folder by name, as plain JSON.

    A step: `state`, `why` (of its state), `seconds`, `findings`, `log` (a file), `tail` (the end of
    the log, where it did not end well).
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "gpu.json"
        self.content: dict[str, Any] = {"schema": SCHEMA, "calls": [], "steps": {}}
        if self.path.is_file():
            try:
                content = json.loads(self.path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise UsageError(f"{self.path}: no JSON ({error}); move it aside") from error
            if not isinstance(content, dict) or content.get("schema") != SCHEMA:
                raise UsageError(f"{self.path}: expected schema {SCHEMA}; move it aside")
            self.content = content

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.content["steps"]
        return found

    def state(self, name: str) -> str:
        return str(self.steps.get(name, {}).get("state", NOT_RUN))

    def write(self) -> None:
        """Write it, and the page beside it."""
        from kv_claims.benching.gpu.report import page

        text = json.dumps(self.content, indent=1, allow_nan=False) + "\n"
        replace(self.path, lambda beside: beside.write_text(text, encoding="utf-8"))
        shown = page(self.content)
        replace(self.folder / "gpu.md", lambda beside: beside.write_text(shown, encoding="utf-8"))
