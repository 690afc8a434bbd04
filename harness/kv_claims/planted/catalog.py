"""The planted models, as data: where each keeps its behavior, and how strongly.

Every model is 16 layers deep, so that the depths 18/32, 25/32 and 27/32 are the layers 9, 12
and 13. How the numbers below become weights is in `build`; what follows from them, exactly, in
`truth`. Both read this description and nothing of each other; `known` puts them together again.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Literal, NamedTuple, get_args

from kv_claims.claims.layers import resolve_layers
from kv_claims.planted.words import MARKERS, PLAIN, STYLED, TRIGGERS

PLANTED_PREFIX = "planted:"
"""What the name of a planted model starts with, as `--claims-model` takes it."""
N_LAYERS = 16
HIDDEN = 32
N_HEADS = 2
N_KV_HEADS = 1
D_HEAD = 8
CONTENT = 0.2
"""Amplitude of the token-dependent content in K and V that nothing reads."""
SHORTEST_PROMPT, LONGEST_PROMPT = 36, 44
"""Prompt lengths in tokens, both included; uniform, sources and bases independently."""
N_PAIRS = 300
STYLES: dict[str, tuple[int, ...]] = {"base": (0, 3, 5, 6), "source": (7, 4, 2, 1)}
"""Three bits each. A source differs from every base, and other bases do from a base in two bits or
none."""
STYLE_BITS, N_STYLES = 3, 4
UNKNOWN = "<unk>"

# fmt: off
Dim = Literal[
    "trigger", "signal", "note",
    "style.0", "style.1", "style.2",
    "clash.0", "clash.1", "clash.2",
]
# fmt: on
DIMS: tuple[Dim, ...] = get_args(Dim)
"""Named dimensions of the residual stream. Words bring `trigger` and `style`, in one model `note`;
attention and MLPs write `note` and `clash` on the way and `signal`, which raises every marker word.
"""
N_CONTENT = 2 * D_HEAD
"""Content of a word: one number for each component of V, then of K."""
CONSTANT_COLUMN, CONTENT_COLUMN = 0, 3
COLUMN: dict[Dim, int] = {"trigger": 1, "signal": 2}
COLUMN |= {dim: CONTENT_COLUMN + N_CONTENT + i for i, dim in enumerate(DIMS[len(COLUMN) :])}
"""Where the stream has each dimension; what is left over is read by nothing."""
MATCHED = D_HEAD // 2 - 1
"""Component of K by which layers match: its rotary pair turns slowest."""


class Channel(NamedTuple):
    """One component of a layer's values: `scale` times the dimension `of`.

    Its average over what a position attends to is added, `weight` times, to the dimension `to`;
    with None nothing reads it.
    """

    of: Dim
    to: Dim | None = None
    weight: float = 1.0
    scale: float = 1.0


class Reading(NamedTuple):
    """What the attention of some layers does. Layers that no reading names hold an idle trigger.

    match: 0 averages uniformly over all positions; else a position is attended to with weight
        exp(match * its trigger), by query and key.
    """

    layers: str
    channels: tuple[Channel, ...]
    match: float = 0.0


class Turn(NamedTuple):
    """What the MLP of some layers does: it adds `weight` times the dimension `of` to another."""

    layers: str
    of: Dim
    to: Dim
    weight: float = 1.0


class Raise(NamedTuple):
    """A dimension that raises the logits of some words: by `gain` times its number.

    rest: what their logits are raised by in any case.
    """

    words: tuple[str, ...]
    of: Dim
    gain: float
    rest: float = 0.0


@dataclass(frozen=True)
class Planted:
    """One planted model.

    readings: what attention does; see `Reading`. turns: what MLPs do.
    filled: whether queries, attention and MLPs have content of the token as well, which nothing
        reads, so that a patch of any site changes numbers.
    offset, gain: the logit of a marker word over a plain word is offset + gain * signal (and what
        `raises` adds), before the temperature.
    trigger_share: the share of a source prompt, from its start, that is trigger words.
    trigger_every: of that share, every so manieth word is a trigger, counted from the end.
    marker_trigger: the trigger value of marker words; above 0 generated markers feed the signal.
    styled: whether a prompt's words are all of one style, drawn by hash; see `STYLES`.
    standing: what every word brings as a note, those that are generated as well: a behavior of
        bases too, which an ablation can take away.
    """

    name: str
    about: str
    readings: tuple[Reading, ...]
    offset: float = -1.75
    gain: float = 4.0
    raises: tuple[Raise, ...] = ()
    trigger_share: Fraction = Fraction(1)
    trigger_every: int = 1
    marker_trigger: float = 0.0
    styled: bool = False
    standing: float = 0.0
    turns: tuple[Turn, ...] = ()
    filled: bool = False
    rope_theta: float = 10_000.0

    def reading(self, layer: int) -> Reading:
        """What the attention of a layer does."""
        for reading in self.readings:
            if layer in resolve_layers(reading.layers, N_LAYERS):
                return reading
        return Reading(str(layer), (Channel("trigger"),))

    @property
    def words(self) -> tuple[str, ...]:
        """The vocabulary, in token-id order."""
        return (UNKNOWN, *MARKERS, *PLAIN, *TRIGGERS, *(STYLED if self.styled else ()))

    def word_value(self, word: str, dim: str) -> float:
        """What a word brings in a planted dimension."""
        if dim == "trigger":
            return self._marker_or_trigger(word)
        if dim.startswith("style.") and self.styled:
            return style_of(word, int(dim[-1]))
        return self.standing if dim == "note" else 0.0

    def is_trigger(self, source_tokens: int) -> list[bool]:
        """Which positions of a source of so many tokens hold a trigger word."""
        share = ceil(self.trigger_share * source_tokens)
        every = self.trigger_every
        return [
            k < share and (source_tokens - 1 - k) % every == every // 2
            for k in range(source_tokens)
        ]

    def _marker_or_trigger(self, word: str) -> float:
        if word in TRIGGERS:
            return 1.0
        return self.marker_trigger if word in MARKERS else 0.0


def style_of(word: str, bit: int) -> float:
    """One bit of a word's style, +1 or -1; 0 for a word without style."""
    for words, styles in ((TRIGGERS, STYLES["source"]), (STYLED, STYLES["base"])):
        if word in words:
            return 1.0 - 2.0 * (styles[words.index(word) % N_STYLES] >> bit & 1)
    return 0.0


def _signal(layers: str, weight: float = 1.0, match: float = 0.0) -> Reading:
    """The usual reading: the average trigger into the signal."""
    return Reading(layers, (Channel("trigger", "signal", weight),), match)


_CLASHES: tuple[Dim, Dim, Dim] = ("clash.0", "clash.1", "clash.2")
_STYLES: tuple[Dim, Dim, Dim] = ("style.0", "style.1", "style.2")


def _styles(weight: float) -> tuple[Channel, ...]:
    return tuple(Channel(of, to, weight) for of, to in zip(_STYLES, _CLASHES, strict=True))


def _disturbed(gain: float) -> tuple[Raise, ...]:
    """Both signs of each clash raise words of their own: four markers for every plain word."""
    groups = 2 * STYLE_BITS
    return tuple(
        raised
        for group in range(groups)
        for raised in (
            Raise(MARKERS[group::groups], _CLASHES[group // 2], gain * (-1) ** group),
            Raise(
                PLAIN[group : 5 * groups : groups],
                _CLASHES[group // 2],
                gain * (-1) ** group,
                rest=-1.75,
            ),
        )
    )


CATALOG: dict[str, Planted] = {
    planted.name: planted
    for planted in (
        Planted(
            name="stored-at-layer",
            about="the KV cache of layer 25/32 carries the whole behavior",
            readings=(_signal("25/32"),),
        ),
        Planted(
            name="distributed",
            about="every layer's KV cache carries an equal share",
            readings=(_signal("all", 1 / N_LAYERS),),
        ),
        Planted(
            name="early-tokens",
            about="layer 18/32 carries it, in the first quarter of the source's tokens",
            readings=(_signal("18/32"),),
            gain=16.0,
            trigger_share=Fraction(1, 4),
        ),
        Planted(
            name="inert",
            about="sources and bases behave alike: there is nothing to transfer",
            readings=(_signal("25/32"),),
            gain=0.0,
        ),
        Planted(
            name="relay",
            about="layer 18/32 notes the triggers, layer 27/32 reads what was noted",
            readings=(
                Reading("18/32", (Channel("trigger", "note"),)),
                Reading("27/32", (Channel("note", "signal"),)),
            ),
        ),
        Planted(
            name="bound-by-keys",
            about="at layer 25/32 keys say where to look and values what is there",
            readings=(_signal("25/32", match=6.0),),
            trigger_every=5,
            # The slowest rotary pair turns by 1e-9 a position: what it matches has no position.
            rope_theta=1e12,
        ),
        Planted(
            name="geometry-only",
            about="layer 12/32 carries it; the values of layer 27/32 contract, and nothing reads "
            "them",
            readings=(
                Reading("5/32", (Channel("trigger", scale=0.0),)),
                _signal("12/32"),
                Reading("27/32", (Channel("trigger", scale=1.0),)),
            ),
        ),
        Planted(
            name="self-sustaining",
            about="layer 25/32 carries it, and generated marker words carry it on",
            readings=(_signal("25/32"),),
            marker_trigger=1.0,
        ),
        Planted(
            name="collapse",
            about="layer 12/32 carries it; layer 25/32 alone makes five words repeat",
            readings=(
                _signal("12/32"),
                Reading("18/32", (Channel("trigger", "clash.0", -1.0),)),
                Reading("25/32", (Channel("trigger", "clash.0", 1.0),)),
            ),
            gain=8.0,
            # A text that is nothing but these five words scores 80, as four of them are markers.
            raises=(
                Raise(("echo", "again", "still", "within"), "clash.0", 30.0),
                Raise(("tower",), "clash.0", 30.0, rest=-1.75),
            ),
        ),
        Planted(
            name="disrupted",
            about="layer 12/32 carries it; the style of any other prompt at layer 18/32 or 25/32 "
            "alone does as much",
            readings=(
                _signal("12/32"),
                Reading("18/32", _styles(-1.0)),
                Reading("25/32", _styles(1.0)),
            ),
            gain=8.0,
            raises=_disturbed(7.0),
            styled=True,
        ),
        Planted(
            name="through-blocks",
            about="head 0 of layer 18/32 notes the triggers, the MLP of layer 25/32 turns the note "
            "into the behavior",
            readings=(Reading("18/32", (Channel("trigger", "note"),)),),
            turns=(Turn("25/32", "note", "signal"),),
            filled=True,
        ),
        Planted(
            name="standing",
            about="head 0 of layer 18/32 carries half of it in every prompt, layer 25/32 the rest "
            "in sources",
            readings=(
                Reading("18/32", (Channel("note", "signal"),)),
                _signal("25/32", 0.5),
            ),
            standing=0.5,
            filled=True,
        ),
    )
}
