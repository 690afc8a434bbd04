"""An arm as a report sees it, made up."""

from __future__ import annotations

from kv_claims.claims.patch import Patch
from kv_claims.judging.fieller import Interval
from kv_claims.report.view.arms import ArmView


def view(layers: tuple[int, ...], positions: str, share: float, transfer: float = 0.5) -> ArmView:
    patch = Patch("kv", "+".join(map(str, layers)), positions)
    interval = Interval(transfer - 0.1, transfer + 0.1)
    return ArmView(f"source>{patch}", patch, layers, share, 9, transfer, interval, 0.1, 0.1, None)
