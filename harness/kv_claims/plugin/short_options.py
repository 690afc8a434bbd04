"""The options of pytest on claims in their short forms: `--model` for `--claims-model`.

A second plugin, for `kv-claims run` and for projects whose conftest names it beside
`kv_claims.plugin.hooks`: a project may have a `--model` of its own, so nobody gets these unasked.

PYTEST_DONT_REWRITE: see `kv_claims.plugin.hooks`.
"""

from __future__ import annotations

import pytest

from kv_claims.plugin.options import add_short_forms


def pytest_addoption(parser: pytest.Parser) -> None:
    add_short_forms(parser)
