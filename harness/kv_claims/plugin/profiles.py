"""What a run spends where nothing else is said, and what it may run. Data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

Protocol = Literal["claims", "published"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
"""What `pytest claims` runs: the claims, or the seed's procedure with its defects."""


class Profile(NamedTuple):
    """What a run spends. Pairs are at most so many: fewer where the task has fewer."""

    pairs: int
    planted_pairs: int
    seeds: int
    max_new_tokens: int


PROFILES: Mapping[str, Profile] = {
    "smoke": Profile(pairs=20, planted_pairs=60, seeds=1, max_new_tokens=30),
    "default": Profile(pairs=200, planted_pairs=200, seeds=1, max_new_tokens=50),
    "full": Profile(pairs=300, planted_pairs=300, seeds=2, max_new_tokens=100),
}
