"""From an arm and a pair to a row: which prompt, whose cache, which slots; and whether it fits.

Everything is decided from token counts, so all of it can be checked before a model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import chain, islice
from typing import NamedTuple

from kv_claims.claims.donors import vector_of
from kv_claims.claims.layers import resolve_layers
from kv_claims.claims.patch import Patch, check_apart, heads_on, names_span, window_of
from kv_claims.claims.positions import Extent, Positions, Window, resolve_window
from kv_claims.claims.sites import in_order
from kv_claims.errors import UsageError
from kv_claims.models.architectures import anatomy_of
from kv_claims.models.load import LoadedModel
from kv_claims.models.rotary import Rotation, longest_fixed, rotation_of
from kv_claims.models.window import attention_window
from kv_claims.patch.likeness import holds_other_token, is_known_equal, pastes_the_same
from kv_claims.patch.plan import RowPlan, Write
from kv_claims.patch.store import PromptStore
from kv_claims.run.arms import FULL_SWAP, OTHER_PROMPTS, Arm
from kv_claims.run.behind import TextsBehind
from kv_claims.run.constants import Constants
from kv_claims.run.oracle import Paste
from kv_claims.tasks.task import Pair, Prompt, Task, sha256

Tokens = tuple[int, ...]
_FIRST_DONORS = 4
"""Unrelated bases of each pair that are kept: it is seldom that none of them is long enough."""


class _Moved(NamedTuple):
    """Why keys move, and what to ask for where they cannot."""

    why: str
    instead: str


class Rows:
    """Rows of one task on one model. Arms come with their layers as numbers (`arms.canonical`).

    rotation: turns moved keys; None as long as no checked arm moves any. behind: what the task's
    own texts behind a prompt are as tokens. constants: what is written where no prompt is the
    donor. max_new_tokens: positions behind a prompt that must fit, as `room`; `make_room` asks for
    more.
    """

    def __init__(self, model: LoadedModel, task: Task, max_new_tokens: int) -> None:
        self.behind = TextsBehind(model)
        self._model = model
        self._task = task
        self.room = max_new_tokens
        self._tokens: dict[str, Tokens] = {}
        self._shas: dict[str, str] = {}
        self._extents: dict[str, Extent] = {}
        self._donors: dict[tuple[object, ...], Prompt] = {}
        self._others: dict[str, list[Prompt]] = {}
        self._checked: set[tuple[Arm, str, int]] = set()
        self.rotation: Rotation | None = None
        self.constants = Constants(model, task, self.tokens)

    def make_room(self, positions: int) -> None:
        """Let that many positions fit behind every prompt that is checked from now on."""
        self.room = max(self.room, positions)

    def tokens(self, prompt: Prompt) -> Tokens:
        """Token ids of a prompt."""
        if prompt.sha not in self._tokens:
            self._tokens[prompt.sha] = tuple(self._model.tokens(prompt))
        return self._tokens[prompt.sha]

    def identity(self, prompt: Prompt) -> str:
        """SHA-256, hex, of a prompt's token ids: prompts of equal tokens are one prompt."""
        if prompt.sha not in self._shas:
            self._shas[prompt.sha] = sha256(" ".join(map(str, self.tokens(prompt))))
        return self._shas[prompt.sha]

    def extent(self, prompt: Prompt, patches: Sequence[Patch]) -> Extent:
        """A prompt as the positions of some patches see it: its spans only where one is named."""
        if not names_span([patches]):
            return Extent(len(self.tokens(prompt)))
        if prompt.sha not in self._extents:
            self._extents[prompt.sha] = self._model.extent(prompt)
        return self._extents[prompt.sha]

    def check_differ(self, pairs: Sequence[Pair]) -> None:
        """Raise UsageError for pairs whose source and base are the same tokens on this model."""
        same = [pair for pair in pairs if self.tokens(pair.source) == self.tokens(pair.base)]
        if same:
            more = f", and those of {len(same) - 1} more pairs" if len(same) > 1 else ""
            raise UsageError(
                f"{_where(same[0])}: to {self._model.name} both prompts are the same "
                f"{len(self.tokens(same[0].base))} tokens{more}; expected a difference to transfer"
            )

    def start(self, arm: Arm, pair: Pair) -> Tokens:
        """The prompt whose cache the row starts from."""
        return self.tokens(_start(arm, pair))

    def last_token(self, arm: Arm, pair: Pair) -> int:
        """The prompt token that is still to be fed: the source's in a full swap."""
        return (self.tokens(pair.source) if arm == FULL_SWAP else self.start(arm, pair))[-1]

    def prompts(self, arm: Arm, pair: Pair) -> list[Tokens]:
        """The prompts that must be in the store for this row."""
        found = [self.tokens(pair.source), self.tokens(pair.base)]
        if arm.donor in OTHER_PROMPTS:
            found.append(self.tokens(self._unrelated(arm, pair)))
        return found

    def plan(self, arm: Arm, pair: Pair, seed: int, store: PromptStore) -> RowPlan:
        """What is copied, computed and written for this row."""
        end = self.tokens(pair.source) if arm == FULL_SWAP else self.start(arm, pair)
        writes = self._writes(arm, pair, seed, store.index)
        for write in writes:
            if write.constant is not None and write.constant.prepare is not None:
                write.constant.prepare(write.spots)
        appended = sum(len(write.window.base_slots) for write in writes if write.appended)
        return RowPlan(store.index(self.start(arm, pair)), len(end) + appended, writes)

    def pastes(
        self, arm: Arm, pair: Pair, generated: Mapping[Tokens, Tokens], seed: int = 0
    ) -> list[Paste]:
        """The same for the oracle, by prompts instead of the store's rows.

        generated: what the donors' prompts generated by themselves, where that is pasted. Means are
        the oracle's own.
        """
        if arm.donor is None or arm == FULL_SWAP:
            return []
        donors: list[Tokens] = []

        def note(tokens: Sequence[int]) -> int:
            donors.append(tuple(tokens))
            return len(donors) - 1

        return [
            Paste(
                donor=donors[write.donor],
                site=write.site,
                layers=write.layers,
                heads=write.heads or tuple(range(self._model.heads.of(write.site) or 1)),
                window=write.window,
                mode=write.mode,
                alpha=write.alpha,
                active=write.active,
                donor_generated=generated.get(donors[write.donor], ()),
                constant=self.constants.by_oracle(arm) or write.constant,
            )
            for write in self._writes(arm, pair, seed, note)
        ]

    def moves(self, pair: Pair) -> bool:
        """Whether source and base differ in length, so that windows at the end move keys."""
        return len(self.tokens(pair.source)) != len(self.tokens(pair.base))

    def is_known_equal(self, arm: Arm, pair: Pair) -> bool:
        """Whether the tokens say that an arm changes nothing: all it pastes stands there already.

        Not so of noise, nor of what goes on while the row generates.
        """
        row = self.start(arm, pair)
        return arm.donor is not None and all(
            write.noise is None
            and write.constant is None
            and write.active == "prompt"
            and not write.appended
            and is_known_equal(self.named_donor(arm, pair), row, write.window)
            for write in self._writes(arm, pair, 0, lambda _: 0)
        )

    def named_donor(self, arm: Arm, pair: Pair) -> Tokens:
        """The prompt that an arm names as its donor, by its name alone.

        Never by `_donor`: what is pasted is held against it (*hook-never-fired*). Of a constant the
        base, which is where it is written.
        """
        if arm.donor in OTHER_PROMPTS:
            return self.tokens(self._unrelated(arm, pair))
        return self.tokens(pair.source if arm.donor in ("source", "noise") else pair.base)

    def check_arm(self, arm: Arm) -> None:
        """Raise UsageError for what does not go together in an arm, whatever the pair."""
        check_apart(arm.patches, self._model.n_layers)
        for patch in arm.patches:
            layers = resolve_layers(patch.layers, self._model.n_layers)
            self.constants.check(arm, patch, layers)

    def check(self, arm: Arm, pair: Pair) -> None:
        """Raise UsageError where prompts, window, layers or architecture do not allow the row."""
        if (arm, pair.id, self.room) in self._checked:
            return
        self._check_prompt(pair.source)
        self._check_prompt(pair.base)
        writes = self._writes(arm, pair, 0, lambda _: 0)
        appended = sum(len(write.window.base_slots) for write in writes if write.appended)
        self._check_length(pair, appended)
        self._check_frequencies(pair, appended)
        for write in writes:
            if self._model.keeps_latents and write.site in ("k", "v"):
                raise UsageError(
                    f"Patch(site={write.site!r}): architecture {self._model.config.model_type!r} "
                    "caches a latent of keys and values together, and rotary keys; expected site "
                    "'kv', which pastes both"
                )
            if not write.is_splice or write.active != "prompt":
                anatomy = anatomy_of(self._model.network)
                for tensor in write.tensors:
                    anatomy.check(tensor)
            if "k" in write.tensors and (moved := self._why_keys_move(write, arm, pair)):
                self.rotation = self.rotation or self._rotation(moved, pair)
            if write.is_splice and write.active == "prompt" and arm != FULL_SWAP:
                self._check_reached(write, arm, pair)
        self._checked.add((arm, pair.id, self.room))

    def _why_keys_move(self, write: Write, arm: Arm, pair: Pair) -> _Moved | None:
        """Why some key stands elsewhere than it was computed for; None where none does."""
        if write.constant is not None:
            if arm.donor == "zero":
                return None
            return _Moved(
                f"keys of donor {arm.donor!r} are held without their rotation, and turned to each "
                "position",
                "site 'v', or donor 'zero' or 'resample'",
            )
        if write.appended:
            return _Moved("mode 'append' puts the source's keys behind the base's", "another mode")
        if write.active == "every_step(held)":
            return _Moved(
                "active 'every_step(held)' puts the key of one position at all later ones",
                "active 'prompt' or 'every_step'",
            )
        donor, row = len(self.tokens(self._donor(arm, pair))), len(self.start(arm, pair))
        if write.window.shift or (write.active == "every_step" and donor != row):
            return _Moved(
                f"keys of a prompt of {donor} tokens move to other positions in one of {row}",
                "prompts of equal length, or positions that do not move",
            )
        return None

    @cached_property
    def _keys_can_move(self) -> bool:
        try:
            rotation_of(self._model.network)
        except UsageError:
            return False
        return True

    def _rotation(self, moved: _Moved, pair: Pair) -> Rotation:
        try:
            return rotation_of(self._model.network)
        except UsageError as error:
            raise UsageError(
                f"{_where(pair)}: {moved.why}, but {error}; here {moved.instead} would do"
            ) from error

    def _check_frequencies(self, pair: Pair, appended: int) -> None:
        """Refuse lengths at which transformers picks other rotary frequencies for a whole batch.

        Keys that were cached before then no longer fit, and rows of a batch change each other.
        """
        limit = longest_fixed(self._model.network)
        prompts = max(len(self.tokens(pair.source)), len(self.tokens(pair.base)) + appended)
        if limit is not None and prompts + self.room > limit:
            raise UsageError(
                f"{_where(pair)}: {self._model.name} changes its rotary frequencies beyond {limit} "
                f"positions, and this pair has up to {prompts + self.room}; expected "
                "shorter prompts or fewer new tokens"
            )

    def _check_length(self, pair: Pair, appended: int) -> None:
        limit = getattr(self._model.config, "max_position_embeddings", None)
        tokens = len(self.tokens(pair.base)) + appended
        if limit is not None and tokens + self.room > limit:
            raise UsageError(
                f"{_where(pair)}: {tokens} positions after {appended} are appended and "
                f"{self.room} new ones, but {self._model.name} has {limit}"
            )

    def _check_prompt(self, prompt: Prompt) -> None:
        tokens = len(self.tokens(prompt))
        limit = getattr(self._model.config, "max_position_embeddings", None)
        if tokens < 2:
            raise UsageError(f"prompt {prompt.id!r}: {tokens} tokens, expected at least 2")
        if limit is not None and tokens + self.room > limit:
            raise UsageError(
                f"prompt {prompt.id!r}: {tokens} tokens and {self.room} new ones, but "
                f"{self._model.name} has {limit} positions"
            )

    def _check_reached(self, write: Write, arm: Arm, pair: Pair) -> None:
        """Refuse a patch that no generated token can see: its effect is 0 by construction."""
        nearest = len(self.start(arm, pair)) - write.window.base_slots.stop
        windows = [attention_window(self._model.config, layer) for layer in write.layers]
        if all(window is not None and nearest >= window for window in windows):
            raise UsageError(
                f"{_where(pair)}: the patched positions end {nearest} before the last prompt "
                f"token, but layers {list(write.layers)} look back over {windows[0]} positions "
                "only; nothing can read what is patched"
            )

    def _writes(
        self, arm: Arm, pair: Pair, seed: int, index: Callable[[Sequence[int]], int]
    ) -> tuple[Write, ...]:
        """The writes of a row. index: turns a prompt's tokens into the store's row."""
        writes = [self._write(arm, patch, pair, seed, index) for patch in arm.patches]
        # What a write in the prompt pass gives what is computed later may be what is pasted there.
        passed_on = min((w.gives_from for w in writes if not w.is_splice), default=None)
        return tuple(
            write._replace(must_change=False)
            if passed_on is not None and passed_on < in_order(write.spots[-1]) and len(writes) > 1
            else write
            for write in writes
        )

    def _write(
        self,
        arm: Arm,
        patch: Patch,
        pair: Pair,
        seed: int,
        index: Callable[[Sequence[int]], int],
    ) -> Write:
        row, source = self.start(arm, pair), self.tokens(pair.source)
        window = self._window(patch, pair, pair.source if arm == FULL_SWAP else _start(arm, pair))
        prompt, pasted = self._donor(arm, pair), window
        if arm.donor == "base" or arm.donor in OTHER_PROMPTS:
            pasted = self._aligned(patch, prompt, window.base_slots, pair)
        donor = self.tokens(prompt)
        is_noise, is_control = arm.donor == "noise", arm.donor in ("unrelated-base", "noise")
        constant = self.constants.of(arm, pair, seed)
        instead = (index(source), window) if is_control else self.constants.instead_of(arm)
        return Write(
            donor=index(donor),
            site=patch.site,
            layers=resolve_layers(patch.layers, self._model.n_layers),
            window=pasted,
            heads=heads_on(patch, self._model.heads),
            mode=patch.how.kind,
            alpha=patch.alpha,
            active=patch.active,
            constant=constant,
            noise=f"{pair.id}:{seed}" if is_noise else None,
            instead_of=instead,
            # Of the donor that the arm names: what is carried out does not judge itself.
            # Zeros or a mean may stand there already, and nothing may lie along a direction.
            must_change=is_noise
            or (vector_of(patch.donor) is not None and patch.how.kind != "project_out")
            or (constant is None and holds_other_token(self.named_donor(arm, pair), row, pasted)),
            vacuous=is_control and not is_noise and pastes_the_same(donor, pasted, source, window),
        )

    def _donor(self, arm: Arm, pair: Pair) -> Prompt:
        """The prompt whose activations are pasted (noise takes the norms of the source's).

        Of a constant the base, none of which is read.
        """
        if arm.donor in OTHER_PROMPTS:
            return self._unrelated(arm, pair)
        return pair.source if arm.donor in ("source", "noise") else pair.base

    def _window(self, patch: Patch, pair: Pair, row: Prompt) -> Window:
        """The window of the patched arm: what its controls write to as well.

        row: the source, where that is patched or its whole cache swapped; else the base.
        """
        source, base = (self.extent(one, [patch]) for one in (pair.source, row))
        if patch.mode == "append":
            # It need not fit the base: it goes behind it.
            taken = resolve_window(patch.positions, source, source, where=_where(pair))
            width = len(taken.source_slots)
            return Window(taken.source_slots, range(base.tokens - 1, base.tokens - 1 + width))
        return window_of(patch, source, base, where=_where(pair))

    def _aligned(self, patch: Patch, donor: Prompt, base_slots: range, pair: Pair) -> Window:
        """A donor's window for given base slots: the positions that the patch names in the donor.

        Raises UsageError where it has not so many there.
        """
        where = f"the donor {donor.id!r} of {_where(pair)}"
        there = self.extent(donor, [patch])
        width = len(base_slots)
        slots = Positions.parse(patch.positions).slots(there, patch.span, width, "donor", where)
        return Window(slots, base_slots)

    def _unrelated(self, arm: Arm, pair: Pair) -> Prompt:
        """The first unrelated base that has the positions of every window of the arm.

        Where keys cannot move, the first that is as long as the base, if one is.
        """
        windows = [self._window(patch, pair, _start(arm, pair)) for patch in arm.patches]
        asked = [
            (patch.positions, patch.span, len(window.base_slots))
            for patch, window in zip(arm.patches, windows, strict=True)
        ]
        if (known := self._donors.get((pair.id, *asked))) is not None:
            return known
        own = (self.tokens(pair.source), self.tokens(pair.base))
        if pair.id not in self._others:
            self._others[pair.id] = [*islice(self._task.unrelated(pair), _FIRST_DONORS)]
        found = (
            other
            for other in chain(self._others[pair.id], self._task.unrelated(pair))
            if self.tokens(other) not in own and self._has_room(other, arm, windows, pair)
        )
        first = next(found, None)
        if first is not None:
            if not self._keys_can_move:
                # One of the base's length, whose keys need not move, if there is one.
                alike = (t for t in chain([first], found) if len(self.tokens(t)) == len(own[1]))
                first = next(alike, first)
            return self._donors.setdefault((pair.id, *asked), first)
        needed = " and ".join(f"{width} tokens at {positions}" for positions, _, width in asked)
        raise UsageError(
            f"task {self._task.name!r}: no other base has {needed}, which "
            f"{'the control ' if arm.donor == 'unrelated-base' else 'donor '}{arm.donor!r} needs "
            f"for base {pair.base.id!r}"
        )

    def _has_room(self, donor: Prompt, arm: Arm, windows: Sequence[Window], pair: Pair) -> bool:
        """Whether a prompt has the positions that an arm's patches name, so many of each."""
        if len(self.tokens(donor)) < 2:
            return False
        try:
            for patch, window in zip(arm.patches, windows, strict=True):
                self._aligned(patch, donor, window.base_slots, pair)
        except UsageError:
            return False
        return True


def _start(arm: Arm, pair: Pair) -> Prompt:
    """The prompt that an arm's row starts from."""
    return pair.source if arm.prompt == "source" else pair.base


def _where(pair: Pair) -> str:
    return f"pair {pair.index} (source {pair.source.id!r}, base {pair.base.id!r})"
