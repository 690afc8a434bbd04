"""A task: sources, bases, how they are paired, and the scorer. Plain data, no files, no torch.

Every text has a hash, and a pair's id is the SHA-256 of its two texts, so that one id can never
stand for two texts (the failure *prompt-drift*) and is the same under any `--pairs N`. Of chat
messages it is that of the messages, whatever a model's template makes of them.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from math import lcm
from typing import Any, Literal

import regex

from kv_claims.errors import UsageError
from kv_claims.tasks import words
from kv_claims.tasks.answers import Answers, check_answers, check_apart, check_follows, options_of
from kv_claims.tasks.directions import AnyDirection, MeanDifference
from kv_claims.tasks.messages import Message, check_messages, identity_of, plain_form
from kv_claims.tasks.scorers import Lexicon, Scorer
from kv_claims.tasks.spans import check_spans

Pairing = Literal["one-to-one", "crossed"]
DONORS_AT_ONCE = 512
"""Bases among which a pair's best unrelated one is looked for: of all, it takes their square."""
_UNSEEN = regex.compile(r"[\p{Cf}\p{Default_Ignorable_Code_Point}]")
"""Characters without a shape of their own: zero-width ones, directions, selectors, soft hyphens."""


@dataclass(frozen=True)
class Prompt:
    """One text, with the family (voice, subject, template) it comes from.

    messages: where the prompt is a chat, which a model's own template makes a text of; `text` is
        then their plain form, for a reader. See `Prompt.of`.
    spans: parts of the text by name, each standing in it once; a patch may name them.
    answers: what it is to be answered with. continuation: a text that may follow it. Both are
        outcomes' business: they are no part of what identifies the prompt.
    """

    id: str
    family: str
    text: str
    messages: tuple[Message, ...] | None = None
    answers: Answers | None = None
    continuation: str | None = None
    spans: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        id: str,
        family: str,
        messages: Sequence[Message],
        *,
        answers: Answers | None = None,
        continuation: str | None = None,
        spans: tuple[tuple[str, str], ...] = (),
    ) -> Prompt:
        """A prompt of chat messages."""
        text = plain_form(messages)
        return cls(id, family, text, tuple(messages), answers, continuation, spans)

    @cached_property
    def sha(self) -> str:
        """SHA-256 of the text, hex; of messages, of these."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def content(self) -> bytes:
        """What identifies the prompt where no model is known. No text has that of messages."""
        return self.text.encode() if self.messages is None else identity_of(self.messages)

    @property
    def looks(self) -> Hashable:
        """What a reader sees of it: of messages, of each. Prompts that look alike are one."""
        if self.messages is None:
            return seen(self.text)
        return tuple((one.role, seen(one.content)) for one in self.messages)


@dataclass(frozen=True)
class Pair:
    """A source and a base: the unit of inference."""

    index: int
    source: Prompt
    base: Prompt

    @cached_property
    def id(self) -> str:
        """SHA-256 of the two texts, or messages, hex."""
        return hashlib.sha256(self.source.content + b"\0" + self.base.content).hexdigest()


@dataclass(frozen=True)
class Task:
    """Prompts, pairing rule and scorer; `where` says where it came from, for errors.

    max_degenerate_share: the share of degenerate texts (see `measure.behavior`) that an arm may
        have before its scores are not believed.
    falls: whether the scorer's score is to be lower in sources than in bases (refusals, errors):
        shares of source - base are then read downwards.
    directions: vectors that patches may name. They decide nothing of trials that do not name them,
        so `sha` does not hang on them.
    """

    name: str
    about: str
    sources: tuple[Prompt, ...]
    bases: tuple[Prompt, ...]
    pairing: Pairing
    scorer: Scorer
    lexicon: frozenset[str]
    max_degenerate_share: float = 0.10
    falls: bool = False
    where: str = "<memory>"
    directions: tuple[AnyDirection, ...] = ()

    def __post_init__(self) -> None:
        check_prompts(self.sources, self.bases, self.pairing, self.where)
        if any(source.answers for source in self.sources):
            check_pairs(self.pairs, self.where)
        names = [one.name for one in self.directions]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UsageError(f"{self.where}: directions named twice: {', '.join(twice)}")
        for one in self.directions:
            if isinstance(one, MeanDifference):
                _check_apart(one, (*self.sources, *self.bases), self.where)

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """All pairs, in an order of which every prefix shares as few prompts as it can."""
        if self.pairing == "one-to-one":
            matched = list(zip(self.sources, self.bases, strict=True))
        else:
            # Both go round at once; when both are back at the start, bases move on by one.
            n_sources, n_bases = len(self.sources), len(self.bases)
            round_length = lcm(n_sources, n_bases)
            matched = [
                (self.sources[k % n_sources], self.bases[(k + k // round_length) % n_bases])
                for k in range(n_sources * n_bases)
            ]
        return tuple(Pair(i, source, base) for i, (source, base) in enumerate(matched))

    @cached_property
    def by_id(self) -> dict[str, Pair]:
        """Its pairs by their ids."""
        return {pair.id: pair for pair in self.pairs}

    def first_pairs(self, n: int) -> tuple[Pair, ...]:
        """The first n pairs. Raises UsageError if there are fewer, or n is below 1."""
        if n < 1:
            raise UsageError(f"pairs {n}: expected at least 1")
        if n > len(self.pairs):
            raise UsageError(
                f"pairs {n}: task {self.name!r} has {len(self.pairs)} pairs ({self.where})"
            )
        return self.pairs[:n]

    @cached_property
    def by_lexicon(self) -> Lexicon:
        """The scorer by the task's lexicon, which is measured beside the task's own."""
        return Lexicon(self.lexicon)

    @cached_property
    def sha(self) -> str:
        """SHA-256 over everything that decides a trial's prompts and scores."""
        return sha256(
            json.dumps(
                [
                    words.VERSION,
                    self.name,
                    self.scorer.name,
                    sorted(self.lexicon),
                    self.pairing,
                    self.max_degenerate_share,
                    [_told(prompt) for prompt in self.sources],
                    [_told(prompt) for prompt in self.bases],
                    *(["falls"] if self.falls else []),
                ]
            )
        )

    @cached_property
    def has_messages(self) -> bool:
        """Whether some prompt is a chat, so that a model's chat template decides what is read."""
        return any(one.messages is not None for one in (*self.sources, *self.bases))

    def unrelated(self, pair: Pair) -> Iterator[Prompt]:
        """Bases to use as a foreign donor for a pair, best first, the same under any `--pairs`.

        Another text, of another family where there is one; the order comes from a hash, so that
        no pair's donor is chosen by hand. Of many bases it is the order of `DONORS_AT_ONCE` after
        `DONORS_AT_ONCE` of them, beginning where the pair's hash says.
        """

        def others(*, same_family: bool) -> Iterator[Prompt]:
            return (
                base
                for base in self._round(pair)
                if base.sha != pair.base.sha and (base.family == pair.base.family) == same_family
            )

        own = _by_luck(others(same_family=True), pair)
        if self._families == {pair.base.family}:
            return own
        return chain(_by_luck(others(same_family=False), pair), own)

    def _round(self, pair: Pair) -> Iterator[Prompt]:
        """All bases in an order that does not follow the file, from the pair's own place on."""
        start = int(pair.id[:16], 16) % len(self._ring)
        return chain(self._ring[start:], self._ring[:start])

    @cached_property
    def _ring(self) -> tuple[Prompt, ...]:
        return tuple(sorted(self.bases, key=lambda base: base.sha))

    @cached_property
    def _families(self) -> set[str]:
        return {base.family for base in self.bases}


def _check_apart(direction: MeanDifference, prompts: Iterable[Prompt], where: str) -> None:
    """Raise UsageError for a direction that is found on a prompt that is judged."""
    found = {seen(text) for text in (*direction.toward, *direction.away)}
    for prompt in prompts:
        texts = [prompt.text, *(message.content for message in prompt.messages or ())]
        if found & set(map(seen, texts)):
            raise UsageError(
                f"{where}: direction {direction.name!r} is found on the text of prompt "
                f"{prompt.id!r}, which is judged; expected other texts"
            )


def _told(prompt: Prompt) -> list[Any]:
    """All of a prompt as plain JSON."""
    said: Any = prompt.text
    if prompt.messages is not None:
        said = [[one.role, one.content] for one in prompt.messages]
    behind: list[Any] = []
    if (given := prompt.answers) is not None:
        behind.append(["answers", given.answer, given.foil, list(given.choices)])
    if prompt.continuation is not None:
        behind.append(["continuation", prompt.continuation])
    if prompt.spans:
        behind.append(["spans", *(list(span) for span in prompt.spans)])
    return [prompt.id, prompt.family, said, *behind]


def _by_luck(bases: Iterable[Prompt], pair: Pair) -> Iterator[Prompt]:
    """Bases in the order of their hash with a pair's, so many at once."""
    rest = iter(bases)
    while some := list(islice(rest, DONORS_AT_ONCE)):
        yield from sorted(some, key=lambda base: sha256(pair.id + base.sha))


def by_text(prompt: Prompt) -> str:
    """A prompt's identity where no model is known: the hash of its text."""
    return prompt.sha


def clusters_of(
    pairs: Sequence[Pair], identity: Callable[[Prompt], str] = by_text
) -> dict[str, dict[str, str]]:
    """By what pairs are clustered, and the cluster of each: pair id to a prompt's identity.

    By 'source', by 'base' or by both, where some of the pairs share such a prompt; else by 'pair'.
    identity: of a prompt; on a model, that of its tokens.
    """
    by = {
        "source": {pair.id: identity(pair.source) for pair in pairs},
        "base": {pair.id: identity(pair.base) for pair in pairs},
    }
    shared = {side: found for side, found in by.items() if len(set(found.values())) < len(found)}
    return shared or {"pair": {pair.id: pair.id for pair in pairs}}


def seen(text: str) -> str:
    """What a reader sees of a text: no character without a shape, NFC, one blank for several."""
    return " ".join(unicodedata.normalize("NFC", _UNSEEN.sub("", text)).split())


def sha256(text: str) -> str:
    """SHA-256 of a text in UTF-8, hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_prompts(
    sources: tuple[Prompt, ...], bases: tuple[Prompt, ...], pairing: str, where: str
) -> None:
    """Raise UsageError for prompts that no study should run on, naming the prompt."""
    for side, prompts in (("sources", sources), ("bases", bases)):
        if not prompts:
            raise UsageError(f"{where}: `{side}` is empty, expected at least one prompt")
        ids: dict[str, Prompt] = {}
        found: dict[Hashable, Prompt] = {}
        for prompt in prompts:
            here = f"{where}: {side} {prompt.id!r}"
            _check_content(prompt, here)
            _check_behind(prompt, here)
            if prompt.id in ids:
                raise UsageError(f"{here}: the id is used twice, expected one text an id")
            # What nobody sees makes no other text: what follows from both is no independent draw.
            if (other := found.get(prompt.looks)) is not None:
                raise UsageError(f"{here}: {_same(prompt, other)} as {other.id!r}")
            ids[prompt.id] = found[prompt.looks] = prompt
    by_looks = {base.looks: base for base in bases}
    for source in sources:
        if (base := by_looks.get(source.looks)) is not None:
            raise UsageError(
                f"{where}: source {source.id!r} and base {base.id!r} are {_same(source, base)}, "
                "expected a difference to transfer"
            )
    if pairing == "one-to-one" and len(sources) != len(bases):
        raise UsageError(
            f"{where}: pairing 'one-to-one' with {len(sources)} sources and {len(bases)} bases, "
            "expected as many of each"
        )


def check_pairs(pairs: Iterable[Pair], where: str) -> None:
    """Raise UsageError for pairs whose answer cannot be told from its foil, naming the pair."""
    for pair in pairs:
        if pair.source.answers is None:
            continue
        here = f"{where}: pair of source {pair.source.id!r} and base {pair.base.id!r}"
        try:
            options = options_of(pair.source.answers, pair.base.answers)
        except UsageError as error:
            raise UsageError(f"{here}: {error}") from None
        if options.has_foil:
            answer, foil, *_ = options.texts
            check_apart(answer, foil, here, seen)


def _check_behind(prompt: Prompt, where: str) -> None:
    """Raise UsageError for answers, or a continuation, that cannot follow a prompt."""
    texts = []
    if (given := prompt.answers) is not None:
        check_answers(given, where, seen)
        texts += [given.answer, *filter(None, [given.foil]), *given.choices]
    if prompt.continuation is not None:
        if not prompt.continuation.strip():
            raise UsageError(f"{where}: `continuation` is {prompt.continuation!r}, expected text")
        texts.append(prompt.continuation)
    # Behind messages the model's own template stands.
    for text in texts if prompt.messages is None else ():
        check_follows(text, prompt.text, where)


def _check_content(prompt: Prompt, where: str) -> None:
    """Raise UsageError for a prompt of which a reader sees nothing, or that is no chat."""
    said = [prompt.text] if prompt.messages is None else [one.content for one in prompt.messages]
    check_spans(prompt.spans, said, where)
    if prompt.messages is None:
        if not prompt.looks:
            raise UsageError(f"{where}: the text is empty")
        return
    check_messages(prompt.messages, where)
    if prompt.text != plain_form(prompt.messages):
        raise UsageError(f"{where}: a text and messages, expected one of them (`Prompt.of`)")
    for number, one in enumerate(prompt.messages, start=1):
        if not seen(one.content):
            raise UsageError(f"{where} message {number} ({one.role}): the content is empty")


def _same(one: Prompt, other: Prompt) -> str:
    """What two texts are that look the same."""
    if one.text.split() == other.text.split():
        return "the same text"
    return "the same text (but for characters that do not show, or Unicode form)"
