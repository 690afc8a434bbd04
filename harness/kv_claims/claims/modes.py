"""What becomes of what stands where a patch writes: how it is put together with the donor's.

    replace       the donor's
    mix(a)        (1 - a) of its own + a of the donor's, 0 < a <= 1
    append        the source's last positions behind the base's ('kv' in every layer and head)
    add(a)        its own + a times a direction, a any number but 0 (steering)
    project_out   its own less its share along a direction (directional ablation)

Promises: what cannot go together is one UsageError that says what would. No torch here.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

from kv_claims.claims.donors import FROM_SOURCE, is_constant, vector_of
from kv_claims.errors import UsageError

if TYPE_CHECKING:
    from kv_claims.claims.patch import Patch

Kind = Literal["replace", "mix", "append", "add", "project_out"]
_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_MIX, _ADD = re.compile(rf"mix\(({_NUMBER})\)"), re.compile(rf"add\(([+-]?{_NUMBER})\)")


class Mode(NamedTuple):
    """A mode that was read. alpha: the donor's weight, or what a direction is multiplied by."""

    kind: Kind
    alpha: float = 1.0

    def __str__(self) -> str:
        """One spelling of it; 'mix(1)' is 'replace'."""
        if self.kind == "mix":
            return "replace" if self.alpha == 1 else f"mix({self.alpha:.12g})"
        return f"add({self.alpha:.12g})" if self.kind == "add" else self.kind


def mode_of(text: str) -> Mode | None:
    """The mode that a text without blanks names; None for any other text."""
    if text in ("replace", "append", "project_out"):
        kinds: dict[str, Kind] = {
            "replace": "replace",
            "append": "append",
            "project_out": "project_out",
        }
        return Mode(kinds[text])
    if (mixed := _MIX.fullmatch(text)) and 0 < float(mixed[1]) <= 1:
        return Mode("mix", float(mixed[1]))
    if (added := _ADD.fullmatch(text)) and float(added[1]) and math.isfinite(float(added[1])):
        return Mode("add", float(added[1]))
    return None


def check_mode(patch: Patch) -> None:
    """Raise UsageError for a mode that cannot be read, or that does not go with site and donor."""
    given = f"Patch(site={patch.site!r}, mode={patch.mode!r})"
    mode = mode_of(patch.mode)
    if mode is None:
        raise UsageError(
            f"{given}: expected 'replace', 'append', 'mix(alpha)' with 0 < alpha <= 1, "
            "'add(alpha)' with an alpha other than 0, or 'project_out'"
        )
    if mode.kind == "mix" and "k" in patch.tensors and not patch.is_splice:
        raise UsageError(
            f"{given}: some models norm keys behind their projection, so what is mixed there is "
            "not what is read; expected site 'k' or 'kv', or mode 'replace'"
        )
    _check_donor(patch, mode, given)
    _check_active(patch, mode, given)
    if mode.kind != "append":
        return
    if (patch.site, patch.layers, patch.heads) != ("kv", "all", "all"):
        raise UsageError(
            f"{given}: appending makes the cache longer, which it must be in every layer and head "
            "alike; expected site 'kv', layers 'all', heads 'all'"
        )
    if not patch.positions.startswith("last("):
        raise UsageError(f"{given}: the source's tail is appended; expected positions 'last(W)'")


def _check_donor(patch: Patch, mode: Mode, given: str) -> None:
    """Raise UsageError for a mode and a donor that do not go together."""
    is_vector = vector_of(patch.donor) is not None
    if mode.kind in ("add", "project_out") and not is_vector:
        raise UsageError(
            f"{given}: it takes a direction, but donor={patch.donor!r}; expected 'vector(NAME)'"
        )
    if mode.kind == "append" and patch.donor != FROM_SOURCE:
        raise UsageError(
            f"{given}: a tail of the source is appended, but donor={patch.donor!r}; expected "
            "donor 'source'"
        )
    if mode.kind == "mix" and is_vector:
        raise UsageError(
            f"{given}: donor={patch.donor!r} goes with 'add(alpha)', 'project_out' and 'replace'"
        )


def _check_active(patch: Patch, mode: Mode, given: str) -> None:
    """Raise UsageError for what cannot be written while a row generates."""
    if patch.active != "prompt" and mode.kind in ("mix", "append"):
        raise UsageError(
            f"{given}: active={patch.active!r} goes with mode 'replace' only, or, of a direction, "
            "with 'add(alpha)' and 'project_out'"
        )
    if patch.active == "every_step(held)" and is_constant(patch.donor):
        raise UsageError(
            f"Patch(donor={patch.donor!r}, active={patch.active!r}): it is the same at every step "
            "anyway; expected active 'prompt' or 'every_step'"
        )
