"""Our usage errors as pytest's own. Imports nothing that takes time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kv_claims.errors import UsageError


@contextmanager
def usage_errors() -> Iterator[None]:
    """Show our usage errors as pytest's: one line, exit status 4."""
    try:
        yield
    except UsageError as error:
        raise pytest.UsageError(str(error)) from error
