"""Where what is shipped beside the code lies: the seed's claims, their tasks, the small model.

In a checkout that is its folder `claims/`; the wheel carries the same files in
`kv_claims/seed_claims`.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: str = "") -> Path:
    """The folder of what is shipped, or a file in it (`shipped("models/mini")`), there or not."""
    carried = PACKAGE / "seed_claims"
    return (carried if carried.is_dir() else PACKAGE.parents[1] / "claims") / name
