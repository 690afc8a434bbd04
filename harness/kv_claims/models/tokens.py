"""How a model's text becomes tokens and back: one place for it, and what identifies it.

Promises
- A prompt starts with what the tokenizer puts before a text (BOS), once: a text that brings it
  along does not get it twice. It ends with its text: what the tokenizer puts behind (EOS, SEP)
  would end it before it goes on, and is not fed.
- A text ends at any token that the generation config, the config or the tokenizer calls its end.
- Names of special tokens that stand in a text (`<s>`, `<|im_end|>`) are read as those tokens, as
  transformers reads them: chat templates need it. `in_prompts` counts the prompts that have any of
  their own.

Does not: check that token ids fit the model's embedding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoTokenizer
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from kv_claims.errors import UsageError
from kv_claims.models.chat import Chat
from kv_claims.tasks.task import Prompt

_PROBES = ("0", "1 2", "a")
"""Texts that show what a tokenizer puts around a text; one that it can read is enough."""
_FLAGS = (
    *("split_special_tokens", "add_bos_token", "add_eos_token", "add_prefix_space", "legacy"),
    *("clean_up_tokenization_spaces", "spaces_between_special_tokens"),
    "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
)
"""Attributes of a tokenizer that its calls read."""
_ELSEWHERE = ("name_or_path", "local_files_only", "is_local", "trust_remote_code", "chat_template")
"""Options of a tokenizer that say where it came from, or that no plain text goes through."""


class Around(NamedTuple):
    """Token ids that a tokenizer puts before and behind every text."""

    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()


class Stops(NamedTuple):
    """Token ids that end a text, by who says so."""

    generation_config: tuple[int, ...] = ()
    config: tuple[int, ...] = ()
    tokenizer: tuple[int, ...] = ()

    @property
    def all(self) -> frozenset[int]:
        return frozenset(stop for stops in self for stop in stops)


def load_tokenizer(place: str, **options: Any) -> Any:
    """The tokenizer of a folder or hub id; options as of `AutoTokenizer.from_pretrained`.

    `add_bos_token: true` in `tokenizer_config.json` is followed where transformers does not, as it
    takes `tokenizer.json` alone. Errors are those of transformers.
    """
    tokenizer = AutoTokenizer.from_pretrained(place, **options)
    asked = get_tokenizer_config(place, **options).get("add_bos_token") is True
    start = getattr(tokenizer, "bos_token_id", None)
    if asked and start is not None and start not in around(tokenizer).before:
        tokenizer.add_bos_token = True
    return tokenizer


@dataclass(frozen=True)
class Tokenization:
    """A tokenizer beside its model.

    Raises UsageError, when asked, for an end of text that is no token id, and for a tokenizer that
    puts something else around one text than around another.
    """

    name: str
    tokenizer: Any
    network: Any

    @cached_property
    def around(self) -> Around:
        return around(self.tokenizer)

    @cached_property
    def chat(self) -> Chat:
        """The chat template, which no plain text goes through."""
        return Chat(self.name, self.tokenizer)

    @cached_property
    def stops(self) -> Stops:
        generation = getattr(self.network, "generation_config", None)
        configs = (self.network.config, self.network.config.get_text_config())
        told = self._ids(_ends_of(configs), "config")
        # Where a config states none it has that of its class, the end of some other vocabulary.
        default = self._ids(_ends_of([type(config)() for config in configs]), "config's class")
        return Stops(
            self._ids(_end_of(generation), "generation_config"),
            tuple(token for token in told if token in self.special or token not in default),
            self._ids(_end_of(self.tokenizer), "tokenizer"),
        )

    @cached_property
    def special(self) -> frozenset[int]:
        """Ids of the tokens that stand for no text: a decoded text shows none of them.

        The token for whatever the vocabulary lacks is none of them: it stands for a text.
        """
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        named = {*getattr(self.tokenizer, "all_special_ids", ())}
        named |= {token for token, told in added.items() if told.special}
        return frozenset(named - {self.unknown})

    @property
    def unknown(self) -> int | None:
        """The token for whatever the vocabulary lacks; None where there is none, or none named."""
        found: int | None = getattr(self.tokenizer, "unk_token_id", None)
        return found

    @cached_property
    def sha(self) -> str:
        """SHA-256, hex, of all that decides how text becomes tokens and tokens text.

        Its class, vocabulary and rules, added and special tokens, the options it was made with and
        the flags that its calls read; not where it was loaded from, nor versions of libraries, nor
        its chat template, which `chat` identifies.
        """
        return hashlib.sha256(json.dumps(_content(self.tokenizer)).encode()).hexdigest()

    def rendered(self, prompt: Prompt) -> str:
        """The text of a prompt: its own, or what the chat template makes of its messages.

        Raises UsageError for messages that the template does not take.
        """
        if prompt.messages is None:
            return prompt.text
        return self.chat.render(prompt.messages, repr(prompt.id))

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt's text, as they are fed."""
        found = list(self.tokenizer(text)["input_ids"])
        before, behind = list(self.around.before), list(self.around.behind)
        end = len(found) - len(behind)
        if found[: len(before)] != before or found[end:] != behind or end < len(before):
            raise UsageError(
                f"model {self.name!r}: its tokenizer puts {before} before and {behind} behind some "
                f"texts, and not around {text!r:.40}; expected the same around every text"
            )
        own = found[len(before) : end]
        while before and own[: len(before)] == before:
            own = own[len(before) :]
        return [*before, *own]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Characters of a text that each fed token stands for, as (first, behind the last).

        Of what is put before a text (0, 0). Raises UsageError for a tokenizer that does not say.
        """
        try:
            found = self.tokenizer(text, return_offsets_mapping=True)
            ids, places = list(found["input_ids"]), list(found["offset_mapping"])
        except (NotImplementedError, KeyError):
            raise UsageError(
                f"model {self.name!r}: its tokenizer ({type(self.tokenizer).__name__}) does not "
                "say which characters a token stands for; expected positions without a span"
            ) from None
        fed = self.encode(text)
        own = fed[len(self.around.before) :]
        end = len(ids) - len(self.around.behind)
        kept = places[end - len(own) : end]
        return [(0, 0)] * len(self.around.before) + [(int(a), int(b)) for a, b in kept]

    def behind(self, prompt: Prompt, text: str) -> list[int]:
        """Token ids of a text that follows a prompt: those of both together less the prompt's.

        A blank before the text belongs to it. Raises UsageError where the two meet inside a token,
        so that the prompt alone is read as other tokens than with the text behind it, where no
        token is left for the text, and for words that the vocabulary lacks.
        """
        rendered = self.rendered(prompt)
        own, whole = self.encode(rendered), self.encode(rendered + text)
        where = f"prompt {prompt.id!r} and {text!r:.60} behind it, on {self.name}"
        if whole[: len(own)] != own:
            at = next((k for k, (a, b) in enumerate(zip(own, whole, strict=False)) if a != b), -1)
            alone, both = (self.tokenizer.decode(ids[at:][:3]) for ids in (own, whole))
            blank = " (a blank at the end of the prompt belongs in front of the text)"
            raise UsageError(
                f"{where}: they meet inside a token: the prompt ends in {alone!r} alone and is "
                f"read as {both!r} with the text; expected a text that begins where a token does"
                f"{blank if rendered[-1:] == ' ' else ''}"
            )
        found = whole[len(own) :]
        if not found:
            raise UsageError(f"{where}: no token is left for the text, expected at least one")
        if self.unknown in found:
            raise UsageError(
                f"{where}: the vocabulary lacks some of its words, expected known ones"
            )
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated token ids, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def describe(self) -> dict[str, Any]:
        """What is fed around a text and what ends one, as plain JSON."""
        return {
            "tokenizer": type(self.tokenizer).__name__,
            "sha": self.sha,
            "starts_with": self._named(self.around.before),
            "not_fed": self._named(self.around.behind),
            "stop_ids": {who: list(ids) for who, ids in self.stops._asdict().items()},
        }

    def in_prompts(self, prompts: Iterable[Prompt]) -> dict[str, int]:
        """How many prompts there are, and how many hold which tokens that are no plain text.

        Counted is what a task's own texts hold: neither what the tokenizer puts before them, nor
        what a chat template puts around messages.
        """
        own = [set(self._own(prompt)) for prompt in prompts]
        return {
            "prompts": len(own),
            "with_special_tokens": sum(bool(ids & self.special) for ids in own),
            "with_stop_ids": sum(bool(ids & self.stops.all) for ids in own),
            "with_unknown_words": sum(self.unknown in ids for ids in own),
        }

    def _own(self, prompt: Prompt) -> Iterator[int]:
        """Token ids of a prompt's text, or of its messages' contents, each by itself."""
        if prompt.messages is None:
            yield from self.encode(prompt.text)[len(self.around.before) :]
        for one in prompt.messages or ():
            yield from self.tokenizer(one.content, add_special_tokens=False)["input_ids"]

    def _named(self, ids: Sequence[int]) -> dict[str, Any]:
        return {"ids": list(ids), "tokens": [str(self.tokenizer.decode([one])) for one in ids]}

    def _ids(self, told: Any, where: str) -> tuple[int, ...]:
        """Token ids from one, a list, or nothing."""
        found = [] if told is None else [*_flat(told)]
        for token in found:
            if isinstance(token, bool) or not isinstance(token, int) or token < 0:
                raise UsageError(
                    f"model {self.name!r}: eos_token_id of its {where} is {told!r:.60}, expected "
                    "token ids"
                )
        return tuple(dict.fromkeys(found))


def around(tokenizer: Any) -> Around:
    """What a tokenizer puts around a text, seen on texts of its own."""
    for probe in _PROBES:
        whole = list(tokenizer(probe)["input_ids"])
        own = list(tokenizer(probe, add_special_tokens=False)["input_ids"])
        starts = range(len(whole) - len(own) + 1)
        places = [start for start in starts if whole[start : start + len(own)] == own]
        if own and len(places) == 1:
            first = places[0]
            return Around(tuple(whole[:first]), tuple(whole[first + len(own) :]))
    raise UsageError(
        f"tokenizer {type(tokenizer).__name__}: reads none of the texts {', '.join(_PROBES)}, so "
        "what it puts before and behind a text cannot be told from the text"
    )


def _flat(told: Any) -> Iterator[Any]:
    if isinstance(told, list | tuple):
        for one in told:
            yield from _flat(one)
    else:
        yield told


def _ends_of(some: Iterable[Any]) -> list[Any]:
    """What each of some configs calls the end of a text, where it does."""
    return [end for one in some if (end := _end_of(one)) is not None]


def _end_of(one: Any) -> Any:
    return getattr(one, "eos_token_id", None)


def _content(tokenizer: Any) -> list[Any]:
    """What identifies a tokenizer, as plain JSON."""
    kind = type(tokenizer)
    flags = {name: _plain(getattr(tokenizer, name, None)) for name in _FLAGS}
    options = {
        name: plain
        for name, value in getattr(tokenizer, "init_kwargs", {}).items()
        if not name.startswith("_")
        and not name.endswith(("_file", "_path"))
        and name not in _ELSEWHERE
        and (plain := _plain(value)) is not None
    }
    added = getattr(tokenizer, "added_tokens_decoder", {})
    special = getattr(tokenizer, "special_tokens_map", {})
    return [
        f"{kind.__module__}.{kind.__qualname__}",
        _rules(tokenizer),
        sorted((token, repr(told)) for token, told in added.items()),
        sorted((name, str(token)) for name, token in special.items()),
        sorted(flags.items()),
        sorted(options.items()),
    ]


def _rules(tokenizer: Any) -> Any:
    """Vocabulary and rules: of the fast backend, else of the files it was made from."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        content = json.loads(backend.to_str())
        # A call sets both; here nothing is cut and nothing filled up.
        return {k: v for k, v in content.items() if k not in ("truncation", "padding")}
    vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
    names = (*getattr(tokenizer, "vocab_files_names", ()), "_tokenizer_path")
    files = [getattr(tokenizer, name, None) for name in names]
    read = [Path(file).read_bytes() for file in files if file and Path(file).is_file()]
    return [sorted(vocabulary.items()), [hashlib.sha256(one).hexdigest() for one in read]]


def _plain(value: Any) -> Any:
    """A value as JSON with keys in order; None for an object, which stands in the rules."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in sorted(value.items(), key=str)}
    if isinstance(value, set):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return repr(value) if type(value).__name__ == "AddedToken" else None
