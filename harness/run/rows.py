"""From an arm and a pair to a row: which prompt, whose cache, which slots; and whether it fits.

Everything is decided from token counts, so all of it can be checked before a model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.errors import UsageError
from harness.models.load import LoadedModel
from harness.models.rotary import Rotation, rotation_of
from harness.models.window import attention_window
from harness.patch.splice import TENSORS, RowPlan, Write
from harness.patch.store import PromptStore
from harness.run.arms import FULL_SWAP, Arm
from harness.run.oracle import Paste
from harness.spec import Window, resolve_layers, resolve_window
from harness.tasks.task import Pair, Prompt, Task

Tokens = tuple[int, ...]


class Rows:
    """Rows of one task on one model. Arms come with their layers as numbers (`arms.canonical`).

    rotation: turns moved keys; None as long as no checked arm moves any.
    """

    def __init__(self, model: LoadedModel, task: Task, max_new_tokens: int) -> None:
        self._model = model
        self._task = task
        self._max_new_tokens = max_new_tokens
        self._tokens: dict[str, Tokens] = {}
        self._donors: dict[tuple[str, int], Tokens] = {}
        self._checked: set[tuple[Arm, str]] = set()
        self.rotation: Rotation | None = None

    def tokens(self, prompt: Prompt) -> Tokens:
        """Token ids of a prompt."""
        if prompt.text not in self._tokens:
            self._tokens[prompt.text] = tuple(self._model.encode(prompt.text))
        return self._tokens[prompt.text]

    def start(self, arm: Arm, pair: Pair) -> Tokens:
        """The prompt whose cache the row starts from."""
        return self.tokens(pair.source if arm.prompt == "source" else pair.base)

    def last_token(self, arm: Arm, pair: Pair) -> int:
        """The prompt token that is still to be fed: the source's in a full swap."""
        return (self.tokens(pair.source) if arm == FULL_SWAP else self.start(arm, pair))[-1]

    def prompts(self, arm: Arm, pair: Pair) -> list[Tokens]:
        """The prompts that must be in the store for this row."""
        found = [self.tokens(pair.source), self.tokens(pair.base)]
        if arm.donor == "unrelated-base":
            found.append(self._unrelated(arm, pair))
        return found

    def plan(self, arm: Arm, pair: Pair, seed: int, store: PromptStore) -> RowPlan:
        """What the splice does for this row."""
        end = self.tokens(pair.source) if arm == FULL_SWAP else self.start(arm, pair)
        return RowPlan(
            store.index(self.start(arm, pair)),
            len(end),
            self._write(arm, pair, seed, store.index),
        )

    def paste(self, arm: Arm, pair: Pair) -> Paste | None:
        """The same for the oracle, by prompts instead of the store's rows."""
        if arm.donor is None or arm == FULL_SWAP:
            return None
        donors: list[Tokens] = []

        def note(tokens: Sequence[int]) -> int:
            donors.append(tuple(tokens))
            return len(donors) - 1

        write = self._write(arm, pair, 0, note)
        assert write is not None
        return Paste(donors[write.donor], write.site, write.layers, write.window)

    def moves(self, pair: Pair) -> bool:
        """Whether source and base differ in length, so that windows at the end move keys."""
        return len(self.tokens(pair.source)) != len(self.tokens(pair.base))

    def is_source_run(self, arm: Arm, pair: Pair) -> bool:
        """Whether the row is the source under another name: its whole cache and last token."""
        if arm == FULL_SWAP:
            return True
        if arm.donor != "source" or arm.patch is None or arm.patch.site != "kv":
            return False
        source, base = self.tokens(pair.source), self.tokens(pair.base)
        every_layer = len(resolve_layers(arm.patch.layers, self._model.n_layers))
        return (
            every_layer == self._model.n_layers
            and len(source) == len(base) == len(self._window(arm, pair).base_slots) + 1
            and source[-1] == base[-1]
        )

    def check(self, arm: Arm, pair: Pair) -> None:
        """Raise UsageError where prompts, window, layers or architecture do not allow the row."""
        if (arm, pair.id) in self._checked:
            return
        self._check_prompt(pair.source)
        self._check_prompt(pair.base)
        write = self._write(arm, pair, 0, lambda _: 0)
        if write is not None and write.window.shift and "k" in TENSORS[write.site]:
            self.rotation = self.rotation or rotation_of(self._model.network)
        if write is not None and arm != FULL_SWAP:
            self._check_reached(write, pair)
        self._checked.add((arm, pair.id))

    def _check_prompt(self, prompt: Prompt) -> None:
        tokens = len(self.tokens(prompt))
        limit = getattr(self._model.config, "max_position_embeddings", None)
        if tokens < 2:
            raise UsageError(f"prompt {prompt.id!r}: {tokens} tokens, expected at least 2")
        if limit is not None and tokens + self._max_new_tokens > limit:
            raise UsageError(
                f"prompt {prompt.id!r}: {tokens} tokens and {self._max_new_tokens} new ones, but "
                f"{self._model.name} has {limit} positions"
            )

    def _check_reached(self, write: Write, pair: Pair) -> None:
        """Refuse a patch that no generated token can see: its effect is 0 by construction."""
        nearest = len(self.tokens(pair.base)) - write.window.base_slots.stop
        windows = [attention_window(self._model.config, layer) for layer in write.layers]
        if all(window is not None and nearest >= window for window in windows):
            raise UsageError(
                f"{_where(pair)}: the patched positions end {nearest} before the last prompt "
                f"token, but layers {list(write.layers)} look back over {windows[0]} positions "
                "only; nothing can read what is patched"
            )

    def _write(
        self, arm: Arm, pair: Pair, seed: int, index: Callable[[Sequence[int]], int]
    ) -> Write | None:
        """The write of a row. index: turns a prompt's tokens into the store's row."""
        if arm.patch is None:
            return None
        source, base = self.tokens(pair.source), self.tokens(pair.base)
        window = self._window(arm, pair)
        donor, pasted = source, window
        if arm.donor == "base":
            donor, pasted = base, Window(window.base_slots, window.base_slots)
        elif arm.donor == "unrelated-base":
            donor = self._unrelated(arm, pair)
            pasted = _aligned(arm.patch.positions, len(donor), window.base_slots)
        is_control = arm.donor in ("unrelated-base", "noise")
        return Write(
            donor=index(donor),
            site=arm.patch.site,
            layers=resolve_layers(arm.patch.layers, self._model.n_layers),
            window=pasted,
            noise=f"{pair.id}:{seed}" if arm.donor == "noise" else None,
            instead_of=(index(source), window) if is_control else None,
        )

    def _window(self, arm: Arm, pair: Pair) -> Window:
        """The window of the patched arm: what its controls write to as well."""
        assert arm.patch is not None
        n_source, n_base = len(self.tokens(pair.source)), len(self.tokens(pair.base))
        if arm == FULL_SWAP:
            return Window(range(n_source - 1), range(n_source - 1))
        return resolve_window(arm.patch.positions, n_source, n_base, where=_where(pair))

    def _unrelated(self, arm: Arm, pair: Pair) -> Tokens:
        """Tokens of the first unrelated base whose cache holds the window."""
        width = len(self._window(arm, pair).base_slots)
        if (pair.id, width) in self._donors:
            return self._donors[pair.id, width]
        for prompt in self._task.unrelated(pair):
            tokens = self.tokens(prompt)
            if len(tokens) - 1 >= width:
                return self._donors.setdefault((pair.id, width), tokens)
        raise UsageError(
            f"task {self._task.name!r}: no other base caches {width} positions, which the control "
            f"'unrelated-base' needs for base {pair.base.id!r}"
        )


def _where(pair: Pair) -> str:
    return f"pair {pair.index} (source {pair.source.id!r}, base {pair.base.id!r})"


def _aligned(positions: str, donor_tokens: int, base_slots: range) -> Window:
    """The donor's window for given base slots: at its start for `first`, at its end else."""
    width, cached = len(base_slots), donor_tokens - 1
    start = 0 if positions.startswith("first") else cached - width
    return Window(range(start, start + width), base_slots)
