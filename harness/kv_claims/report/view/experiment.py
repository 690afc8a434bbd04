"""What a report says of the published experiment whose claims ran, and nothing of it elsewhere.

An experiment is known by how claims cite it. What a report calls its sections follows from what
ran: titles from the sites that were patched, words of an experiment from its own claims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kv_claims.claims.patch import Patch
from kv_claims.claims.reach import seed_methods
from kv_claims.evidence.schema import EvidenceSaid


class Experiment(NamedTuple):
    """A published experiment. cites: how citations of its claims begin. name: in a sentence.

    where: its words for where a behavior is carried. methods: those of its patches that a model of
    so many layers has, by its own names.
    """

    cites: str
    name: str
    where: str
    methods: Callable[[int], list[tuple[str, Patch]]]


SEED = Experiment(
    cites="True KV Cache Patching Results",
    name="the seed experiment",
    where="Where the mode lives",
    methods=seed_methods,
)
EXPERIMENTS = (SEED,)
WHERE = "Where the behavior is carried"
_SITES = {
    "kv": "the KV cache",
    "k": "the KV cache",
    "v": "the KV cache",
    "kv_proj": "projections",
    "k_proj": "projections",
    "v_proj": "projections",
    "q_proj": "projections",
    "z": "attention heads",
    "attn_out": "attention's output",
    "mlp_out": "the MLPs' output",
    "embed": "the embedding",
    "resid_pre": "the residual stream",
    "resid_mid": "the residual stream",
    "residual": "the residual stream",
}


def experiment_of(evidence: Sequence[EvidenceSaid]) -> Experiment | None:
    """The experiment that some claim of a run cites."""
    cited = [one["cites"] for one in evidence]
    found = (one for one in EXPERIMENTS if any(text.startswith(one.cites) for text in cited))
    return next(found, None)


def title_of(evidence: Sequence[EvidenceSaid]) -> str:
    """What the claims of a run are about: the sites that they patch."""
    sides = [side for one in evidence for side in (one["patch"], one["versus"]) if side is not None]
    ran = {_SITES.get(patch["site"]) for side in sides for patch in side["all"]}
    about = [what for what in dict.fromkeys(_SITES.values()) if what in ran]
    if not about:
        return "Claims and verdicts"
    listed = about[0] if len(about) == 1 else f"{', '.join(about[:-1])} and {about[-1]}"
    return f"Claims about patching {listed}"
