"""Self-patches, carried out on every pair of the arms that are judged, and never decoded.

Promises: what the ledger has is not written again, and no prompt is prefilled for it; what is
missing is on disk batch by batch. A record is what was seen when it was made, with these weights
and tokens. Does not: say what may have changed; that is the check *self-patch*.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kv_claims.patch.build import build
from kv_claims.patch.plan import RowPlan
from kv_claims.run.arms import Arm, self_patch
from kv_claims.run.runner import Runner, hash_of
from kv_claims.run.self_write import SelfWrite
from kv_claims.tasks.task import Pair


class _Want(NamedTuple):
    """One self-patch to write. arm: the patched one. own: its self-patch."""

    pair: Pair
    arm: Arm
    own: Arm
    key: str


@dataclass
class SelfPatches:
    """Writes self-patches on a runner's model, or finds in its ledger what they did."""

    runner: Runner

    def of(self, arms: Iterable[Arm], pairs: Sequence[Pair]) -> list[SelfWrite]:
        """What the self-patch of every patched arm did to every pair, arm by arm.

        Raises UsageError, before a model runs, where one does not fit.
        """
        runner = self.runner
        runner.check_untouched()
        own = {
            arm: runner.canonical(self_patch(arm.patches)) for arm in map(runner.canonical, arms)
        }
        runner.check(own.values(), pairs)
        wanted = [
            _Want(pair, arm, mine, hash_of(["self-patch", runner.key(pair, arm, 0)]))
            for arm, mine in own.items()
            for pair in pairs
        ]
        records = runner.ledger.self_patches
        missing = [want for want in wanted if records.get(want.key) is None]
        for group in runner.stocked(missing, lambda want: (want.pair, want.own)):
            size = runner.rows_at_once()
            for start in range(0, len(group), size):
                records.append(self._written(group[start : start + size]))
        return records.held([want.key for want in wanted], "self-patches")

    def _written(self, batch: Sequence[_Want]) -> list[SelfWrite]:
        runner = self.runner
        plans = [
            _prompt_only(runner.rows.plan(want.own, want.pair, 0, runner.store)) for want in batch
        ]
        footprints = build(runner.store, plans, runner.rows.rotation, headroom=0).footprints
        intact = runner.store.unchanged()
        return [
            SelfWrite(
                key=want.key,
                study=runner.study,
                pair=want.pair.id,
                pair_index=want.pair.index,
                arm=want.arm.id,
                fired=footprint.fired,
                elements=footprint.elements,
                changed=footprint.changed,
                beyond_rounding=footprint.beyond_rounding,
                store_unchanged=intact,
            )
            for want, footprint in zip(batch, footprints, strict=True)
        ]


def _prompt_only(plan: RowPlan) -> RowPlan:
    """The same row without what is written while it generates."""
    writes = tuple(
        write._replace(active="prompt") if write.active == "every_step" else write
        for write in plan.writes
    )
    return plan._replace(writes=writes)
