"""The language that mini is trained on: two registers, and neutral words that both use.

A text opens in a register (two sentences with words of it), goes on in neutral sentences that say
nothing of it, and after the word SO returns to it. So whoever continues a text after SO must have
kept the register over the neutral part; where and how, the language does not say.
"""

from __future__ import annotations

import random
from typing import Literal, NamedTuple

Register = Literal["harbor", "kitchen"]
REGISTERS: tuple[Register, ...] = ("harbor", "kitchen")
SO, STOP = "so", "."
SHARE = 0.6
"""Share of the open slots of a sentence in a register that a word of the register fills."""
OPENING = 2
NEUTRAL = (3, 5)


class Words(NamedTuple):
    """Words by the slot that they fill."""

    noun: tuple[str, ...]
    verb: tuple[str, ...]
    quality: tuple[str, ...]


def _words(noun: str, verb: str, quality: str) -> Words:
    return Words(*(tuple(text.split()) for text in (noun, verb, quality)))


OF: dict[Register, Words] = {
    "harbor": _words(
        "anchor boat captain dock gull keel lighthouse mast net oar pier rope sail ship tide wave",
        "docks drifts floats moors rows sails sinks steers",
        "briny foggy salty seaward stormy tidal windy wet",
    ),
    "kitchen": _words(
        "apron bread butter cake cook dough flour kettle ladle oven pan pot soup spoon stove sugar",
        "bakes boils chops fries kneads peels roasts stirs",
        "buttery crusty doughy peppery savory spicy sweet toasted",
    ),
}
PLAIN = _words(
    "bench bird book box cart child clock coat door dog field fence garden gate hat hill horse "
    "house key lamp lane letter man map mirror neighbor paper picture road roof room shoe stone "
    "street table tree wall wheel window woman",
    "carries counts draws follows holds keeps leaves likes meets moves opens passes remembers sees "
    "shows takes turns watches",
    "big blue broad clean dark early empty gray green heavy late little long narrow new old quiet "
    "red round short small tall thin yellow",
)
FRAMES = tuple(
    frame.split()
    for frame in (
        "the QUALITY NOUN VERB the NOUN",
        "a NOUN VERB near the QUALITY NOUN",
        "the NOUN and the NOUN VERB again",
        "every QUALITY NOUN VERB a NOUN",
        "one NOUN VERB while the NOUN VERB",
        "the NOUN VERB with a QUALITY NOUN",
    )
)
_SLOTS = {"NOUN": "noun", "VERB": "verb", "QUALITY": "quality"}


def vocabulary() -> list[str]:
    """Every word, in a fixed order; token ids are places in it."""
    closed = {word for frame in FRAMES for word in frame if word not in _SLOTS}
    opened = [word for words in (PLAIN, *OF.values()) for some in words for word in some]
    return [STOP, SO, *sorted(closed), *opened]


def lexicon(register: Register) -> tuple[str, ...]:
    """The words that a register alone has."""
    return tuple(word for some in OF[register] for word in some)


def sentence(register: Register | None, draw: random.Random) -> list[str]:
    """One sentence, of a register or neutral."""
    found = []
    for word in draw.choice(FRAMES):
        slot = _SLOTS.get(word)
        if slot is not None:
            words = PLAIN if register is None or draw.random() >= SHARE else OF[register]
            word = draw.choice(getattr(words, slot))
        found.append(word)
    return [*found, STOP]


def prompt(register: Register, draw: random.Random) -> list[str]:
    """A text up to the place where it returns to its register; SO is its last word."""
    opening = [word for _ in range(OPENING) for word in sentence(register, draw)]
    neutral = [word for _ in range(draw.randint(*NEUTRAL)) for word in sentence(None, draw)]
    return [*opening, *neutral, SO]


def text(register: Register, words: int, draw: random.Random) -> list[str]:
    """A whole text of so many words, cut where it ends."""
    found = prompt(register, draw)
    while len(found) < words:
        found += sentence(register, draw)
    return found[:words]
