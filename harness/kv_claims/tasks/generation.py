"""What a scorer written in Python gets: one generated text, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from kv_claims.tasks.task import Pair, Prompt


@dataclass(frozen=True)
class Generation:
    """One generated text.

    text: without the prompt and without special tokens. tokens: the ids that were generated. pair:
    the source and the base that the text belongs to; prompt: which of these it follows, the
    source's in the source's own run, else the base's, whatever was patched there.

    Only `text` is known of a published table's texts: there the others are None.
    """

    text: str
    tokens: tuple[int, ...] | None = None
    pair: Pair | None = None
    prompt: Prompt | None = None

    @property
    def said(self) -> str:
        """Which one it is, for errors."""
        text = f"text {self.text!r:.80}"
        if self.pair is None:
            return text
        ids = f"source {self.pair.source.id!r}, base {self.pair.base.id!r}"
        return f"pair {self.pair.id[:12]} ({ids}), {text}"
