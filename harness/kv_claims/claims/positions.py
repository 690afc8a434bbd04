"""Which positions of a prompt a text names, and how those of a source and a base go together.

Promises: a window that does not fit is an error, never shortened (docs/failures.md names it
*short-window*); spans of unlike length are refused, never cut; a position is named by the token
that stands there, at whatever site: `at(-1)` is the last token of the prompt. No torch here.
Does not: know models, sites or texts. Where a named span lies in a prompt is told to it.

    all                        every position, of the shorter of both, aligned at the ends
    last(W), first(W)          the last or first W; first(P%): so much of the shorter
    at(I), at(A:B)             the token I, or A to before B, from 0; negative ones from the end
    all(NAME)                  the tokens of a span that the task marks
    last(NAME), first(NAME)    its last or first token; last(W, NAME), first(W, NAME): so many

A prompt of T tokens caches T-1 of them before a splice, so that `last(W)` of the cache ends at the
token before the last one, and `at(-1)` is not in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil
from typing import Literal, NamedTuple

from kv_claims.errors import UsageError

Span = Literal["cache", "prompt"]
"""What positions count: the T-1 cached tokens, or all T tokens of the prompt."""
NAME = r"[A-Za-z_][\w-]*"
"""A span's name."""

HELP = (
    "expected 'last(W)', 'first(W)', 'first(P%)', 'all', 'at(I)' or 'at(A:B)' (from 0, or from the "
    "end: -1 is the last token), or a span that the task marks: 'all(NAME)', 'last(NAME)', "
    "'first(NAME)', 'last(W, NAME)', 'first(W, NAME)'"
)
_GRAMMAR = re.compile(
    rf"all"
    rf"|(?P<side>last|first)\((?P<width>\d+)(?P<percent>%?)\)"
    rf"|at\((?P<start>-?\d+)(?::(?P<stop>-?\d+))?\)"
    rf"|(?P<part>all|last|first)\((?:(?P<most>\d+),)?(?P<name>{NAME})\)"
)


class Extent(NamedTuple):
    """A prompt as positions see it: its number of tokens T, and its spans by name, as ranges."""

    tokens: int
    spans: tuple[tuple[str, range], ...] = ()

    def span(self, name: str) -> range | None:
        """The tokens of a span; None where none has the name."""
        return dict(self.spans).get(name)


Prompted = int | Extent
"""A prompt, or its number of tokens where no span of it is known."""


class Window(NamedTuple):
    """Which positions of the source go into which positions of the base, in order."""

    source_slots: range
    base_slots: range

    @property
    def shift(self) -> int:
        """How far each key moves, in positions (base position - source position)."""
        return self.base_slots.start - self.source_slots.start


@dataclass(frozen=True)
class Positions:
    """A text of positions, read.

    side: which end a number of positions is taken from. size: how many; a Fraction is a share, None
        all there are. place: of `at`, its first and the one behind its last. name: of a span.
    """

    text: str
    side: Literal["last", "first", "all", "at"]
    size: int | Fraction | None = None
    place: tuple[int, int] = (0, 0)
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> Positions:
        """Raises UsageError for a text that cannot be read."""
        return _parsed("".join(text.split()))

    @property
    def needs_spans(self) -> bool:
        """Whether it cannot be resolved without knowing where a prompt's spans lie."""
        return self.name is not None

    def width(self, source: Extent, base: Extent, span: Span, where: str) -> int:
        """How many positions are meant in a pair of prompts.

        Raises UsageError for a span that one of them has not, or that is longer in one.
        """
        if self.side == "at":
            return self.place[1] - self.place[0]
        if self.name is not None and self.size is None:
            lengths = [len(self._named(one, whose, where)) for one, whose in _both(source, base)]
            if lengths[0] != lengths[1]:
                raise UsageError(
                    f"positions {self.text!r}: in {where} the span has {lengths[0]} tokens in the "
                    f"source and {lengths[1]} in the base; expected as many in both, or "
                    f"'last(W, {self.name})', which pairs the last W"
                )
            return lengths[0]
        shorter = min(_held(source, span), _held(base, span))
        if self.size is None:
            return shorter
        return ceil(self.size * shorter) if isinstance(self.size, Fraction) else self.size

    def slots(self, prompt: Extent, span: Span, width: int, whose: str, where: str) -> range:
        """The positions in one prompt, so many. whose, where: for errors.

        Raises UsageError where they are not there.
        """
        held = _held(prompt, span)
        if self.name is not None:
            inside = self._named(prompt, whose, where)
            if len(inside) < width or (self.size is None and len(inside) != width):
                raise UsageError(
                    f"positions {self.text!r} need {width} tokens of the span, but in {where} the "
                    f"{whose} has {len(inside)} of it; expected a span that is long enough"
                )
            start = inside.start if self.side == "first" else inside.stop - width
        elif self.side == "at":
            start = self.place[0] + (prompt.tokens if self.place[0] < 0 else 0)
        else:
            start = 0 if self.side == "first" else held - width
        found = range(start, start + width)
        if not 0 <= found.start < found.stop <= held:
            kept = "" if span == "prompt" else ", of which all but the last are cached by then"
            raise UsageError(
                f"positions {self.text!r} are {_told(found)} in {where}, but the {whose} has "
                f"{prompt.tokens} tokens{kept}; expected positions that are there"
            )
        return found

    def _named(self, prompt: Extent, whose: str, where: str) -> range:
        assert self.name is not None
        found = prompt.span(self.name)
        if found is None:
            marked = ", ".join(repr(name) for name, _ in prompt.spans) or "none"
            raise UsageError(
                f"positions {self.text!r}: the {whose} of {where} marks no span {self.name!r} "
                f"(it marks {marked}); expected `spans:` with that name in the task"
            )
        return found


def resolve_window(
    text: str,
    source: Prompted,
    base: Prompted,
    *,
    span: Span = "cache",
    where: str = "this pair",
) -> Window:
    """The positions that a text names for a source and a base.

    `last(W)` aligns the ends of both, `first(W)` their starts, `first(p%)` takes ceil(p% of the
    shorter), `all` the whole of the shorter, aligned at the ends; the others say where they are in
    each.
    source, base: number of prompt tokens, or their extent. span: whether the T-1 cached tokens are
    meant or all T.
    Raises UsageError when a window does not fit both.
    """
    positions = Positions.parse(text)
    source, base = extent(source), extent(base)
    width = positions.width(source, base, span, where)
    if positions.name is None and positions.side != "at":
        _check_fits(text, width, source, base, span, where)
    of_source, of_base = (
        positions.slots(one, span, width, whose, where) for one, whose in _both(source, base)
    )
    return Window(of_source, of_base)


def extent(prompt: Prompted) -> Extent:
    """A prompt's extent."""
    return prompt if isinstance(prompt, Extent) else Extent(prompt)


def n_tokens(prompt: Prompted) -> int:
    """A prompt's number of tokens T."""
    return prompt.tokens if isinstance(prompt, Extent) else prompt


def _check_fits(
    text: str, width: int, source: Extent, base: Extent, span: Span, where: str
) -> None:
    of_source, of_base = _held(source, span), _held(base, span)
    if not 1 <= width <= min(of_source, of_base):
        cached, caches = ("cached ", "caches") if span == "cache" else ("", "has")
        raise UsageError(
            f"positions {text!r} need {width} {cached}positions, but in {where} the source "
            f"{caches} {of_source} (of {source.tokens} tokens) and the base {of_base} "
            f"(of {base.tokens}); expected a window that fits both"
        )


def _both(source: Extent, base: Extent) -> Iterator[tuple[Extent, str]]:
    yield source, "source"
    yield base, "base"


def _held(prompt: Extent, span: Span) -> int:
    return prompt.tokens - (1 if span == "cache" else 0)


def _told(found: range) -> str:
    return str(found.start) if len(found) == 1 else f"{found.start} to {found.stop - 1}"


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Positions:
    match = _GRAMMAR.fullmatch(text)
    if match is None or (match["side"] == "last" and match["percent"]):
        raise UsageError(f"positions {text!r}: cannot be read; {HELP}")
    if match["name"]:
        return _of_span(text, match)
    if match["start"]:
        return _at(text, match)
    if not match["side"]:
        return Positions(text, "all")
    number = int(match["width"])
    if number < 1 or (match["percent"] and number > 100):
        raise UsageError(
            f"positions {text!r}: expected at least 1 position and at most 100%; {HELP}"
        )
    size = Fraction(number, 100) if match["percent"] else number
    return Positions(text, "last" if match["side"] == "last" else "first", size)


def _at(text: str, match: re.Match[str]) -> Positions:
    start = int(match["start"])
    stop = start + 1 if match["stop"] is None else int(match["stop"])
    if match["stop"] is not None and (start < 0) != (stop < 0):
        raise UsageError(
            f"positions {text!r}: one end counts from the start and one from the end, so that "
            f"prompts of unlike length have unlike numbers of them; {HELP}"
        )
    if stop <= start:
        raise UsageError(f"positions {text!r}: no position is from {start} to before {stop}")
    return Positions(text, "at", place=(start, stop))


def _of_span(text: str, match: re.Match[str]) -> Positions:
    most = match["most"]
    if match["part"] == "all":
        if most is not None:
            raise UsageError(
                f"positions {text!r}: all of a span has its own number of tokens; expected "
                f"'all({match['name']})' or 'last({most}, {match['name']})'"
            )
        return Positions(text, "all", name=match["name"])
    if most is not None and int(most) < 1:
        raise UsageError(f"positions {text!r}: expected at least 1 position")
    side: Literal["last", "first"] = "last" if match["part"] == "last" else "first"
    return Positions(text, side, int(most or 1), name=match["name"])
