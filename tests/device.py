"""On which device the tests' models lie: `KV_CLAIMS_DEVICE=cpu|cuda|cuda:N|pretend`.

`pretend` is `tests.pretend_gpu`, which needs no GPU. Tests that are of one device say so with
`on_the_cpu` (a fact of the CPU's route, threads or memory) or `on_a_gpu`.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

ASKED = os.environ.get("KV_CLAIMS_DEVICE", "cpu")
PRETENDED = ASKED == "pretend"
DEVICE = "cuda" if PRETENDED else ASKED
PLACE = torch.device(DEVICE)

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def on_the_cpu(why: str) -> pytest.MarkDecorator:
    """Marks a test that asserts what holds on a CPU only. why: what is another there."""
    return pytest.mark.skipif(PLACE.type != "cpu", reason=f"of a CPU: {why}")


def placed(values: Any, **kind: Any) -> torch.Tensor:
    """A tensor where the tests' models lie."""
    return torch.tensor(values, device=PLACE, **kind)
