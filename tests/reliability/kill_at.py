"""A pytest plugin that kills its own process at the n-th change of names while files appear.

`KV_KILL_AT=n`: as files of a run are staged, renamed and moved into place
(`kv_claims.evidence.folder`), every change of a name is counted, and before the n-th (from 0) the
process gets SIGKILL.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    at = os.environ.get("KV_KILL_AT")
    if at is not None and not hasattr(config, "workerinput"):
        _arm(int(at))


def _arm(at: int) -> None:
    from kv_claims.evidence import folder
    from kv_claims.plugin import write

    publish = folder.publish

    @contextmanager
    def counted(where: Path) -> Iterator[Path]:
        done = 0
        for name in ("mkdir", "rename", "replace", "unlink", "write_text"):
            real = getattr(Path, name)

            def before(self: Path, *given: Any, real: Any = real, **named: Any) -> Any:
                nonlocal done
                if done == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                done += 1
                return real(self, *given, **named)

            setattr(Path, name, before)
        with publish(where) as staging:
            yield staging

    write.publish = counted  # type: ignore[attr-defined]
