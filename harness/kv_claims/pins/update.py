"""What `--claims-update` makes of a pin file: fresh pins in, unused out, the difference in words.

Writes nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from kv_claims.pins.file import PinFile, Place
from kv_claims.pins.pin import Pin


class Update(NamedTuple):
    """A pin file as it is to be written, and what that changes, a sentence each."""

    file: PinFile
    lines: tuple[str, ...]


def updated(
    kept: PinFile, fresh: Iterable[Pin], unused: Iterable[Place], differs: Mapping[Place, str]
) -> Update:
    """A pin file with fresh pins and without unused ones; pins of cells that were not run stay.

    differs: what moved in cells that had a pin, in words.
    """
    pins, lines = dict(kept.pins), []
    for pin in fresh:
        place = Place(pin.claim, pin.cell)
        before = pins.get(place)
        pins[place] = pin
        # The claim may have moved to another file; its other cells have moved with it.
        pins |= {
            other: replace(one, test=pin.test)
            for other, one in pins.items()
            if other.claim == pin.claim and one.test != pin.test
        }
        if before is None:
            lines.append(f"{place}: new, {_found(pin)}")
        elif before.to_dict() != pin.to_dict():
            told = differs.get(place) or "recorded anew, nothing moved"
            lines.append(f"{place}: {_found(before)} -> {_found(pin)}: {told}")
    for place in unused:
        if place in pins:
            lines.append(f"{place}: removed, no claim uses it ({_found(pins.pop(place))})")
    return Update(replace(kept, pins=pins), tuple(lines))


def _found(pin: Pin) -> str:
    return pin.verdict if pin.estimate is None else f"{pin.verdict} {pin.estimate:.3f}"
