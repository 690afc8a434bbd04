"""The engine for a script of one's own: arms by name in, a table of trials out."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import pandas as pd

from kv_claims.claims.outcome import Outcome
from kv_claims.claims.patch import Patch, canonical
from kv_claims.errors import UsageError
from kv_claims.files.lock import hold_ledger
from kv_claims.judging.checks import CONTROLS, Check
from kv_claims.judging.frame import refused_text
from kv_claims.models.load import LoadedModel
from kv_claims.run.arms import BASE, OF_SOURCE, SOURCE, Arm, patched, self_patch
from kv_claims.run.feed import fed_to
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.scores import scored
from kv_claims.run.table import trials_frame
from kv_claims.study.scored import check_scored
from kv_claims.study.study import by_arm
from kv_claims.study.testable import REACH_CHECKS, idle, runs_donor, unreached
from kv_claims.tasks.task import Pair, Task

_OWN = ("base", "source")
"""Arms that every study has, by these names."""
_DONORS = tuple(donor for donor in OF_SOURCE if donor in CONTROLS)
"""Names of controls that an arm's donor tells apart; a wrong layer is a patch like any other."""


def run_study(
    model: LoadedModel,
    task: Task,
    arms: Mapping[str, Patch | Sequence[Patch] | Arm],
    *,
    outcome: str = "behavior",
    pairs: int | None = None,
    seeds: int = 1,
    max_new_tokens: int = 50,
    temperature: float = 0.7,
    batch_size: int | None = None,
    ledger: Path | None = None,
) -> pd.DataFrame:
    """Run arms by name, with base and source beside them: one row a trial.

    arms: a name (such as 'patched') to a Patch of the source, to several, or to an Arm. No name
        may be 'base' or 'source', which are run as they are; 'noise' and 'unrelated-base', which
        `judge` reads as negative controls, are for arms of that donor.
    outcome: what `score` is, such as 'behavior', 'logit_diff', 'loglik' or 'pr@27/32'; NaN where a
    trial has none. Of what the task puts behind its prompts (answers, a continuation) nothing is
    generated: trials are then two tokens long, whatever max_new_tokens.
    pairs: how many, from the first; None for all of the task.
    seeds: how many sampling seeds, a generation of each pair and arm each.
    ledger: a folder that keeps the trials and lets a killed study go on, and has one writer at a
    time; None keeps nothing.
    Columns: `pair, arm, seed, score`, the trial's record and its other outcomes; `patch`, the id of
    the arm, whatever its name; `refused`, why what the arm does to `score` could say nothing (the
    outcome is tautological or out of reach, the arm is the source's run ...), '' where it can, and
    by which `judge` answers *invalid* as a claim's test does.
    Raises UsageError for whatever does not fit, before the model runs.
    """
    if seeds < 1:
        raise UsageError(f"seeds {seeds}: expected at least 1")
    wanted = Outcome.parse(outcome)
    wanted.layers(model.n_layers)
    chosen = task.first_pairs(len(task.pairs) if pairs is None else pairs)
    named = {"base": BASE, "source": SOURCE, **_named(arms)}
    sampling = Sampling(max_new_tokens, temperature)
    refused: dict[str, str] = {}
    with nullcontext() if ledger is None else hold_ledger(ledger, command="run_study"):
        runner = Runner(model, task, sampling, Ledger(ledger), batch_size)
        if wanted.behind is not None:
            runner = runner.brief()
        check_scored([wanted], task)
        behind = runner.rows.behind
        behind.check([wanted], chosen)
        runner.rows.make_room(behind.longest([wanted], chosen))
        runner.check(named.values(), chosen)
        refused = {
            name: refused_text(_unreached(arm, wanted, runner, chosen))
            for name, arm in named.items()
        }
        trials = by_arm(runner.run(named.values(), chosen, range(seeds)))
        fed = fed_to(runner, [wanted], list(named.values()), chosen, range(seeds))
    frames = []
    for name, arm in named.items():
        some = trials[runner.canonical(arm).id]
        frame = scored(trials_frame(some, task), some, wanted, model.n_layers, fed)
        frames.append(frame.assign(patch=frame["arm"], arm=name, refused=refused[name]))
    return pd.concat(frames, ignore_index=True)


def _unreached(arm: Arm, outcome: Outcome, runner: Runner, pairs: Sequence[Pair]) -> list[Check]:
    """Failed checks of an arm that could say nothing through an outcome, as a test's verdict has
    them; of no meaning where it stands as a control."""
    if arm.donor is None:
        return []
    if arm.donor == arm.prompt and arm.patches == self_patch(arm.patches).patches:
        return [Check(REACH_CHECKS["null"], False, f"{arm.id} pastes what stands there already")]
    n_layers = runner.model.n_layers
    patches = tuple(canonical(patch, n_layers, runner.model.heads) for patch in arm.patches)

    def tokens(pair: Pair, side: str) -> int:
        return len(runner.rows.tokens(pair.base if side == "base" else pair.source))

    lengths = [(tokens(pair, arm.donor), tokens(pair, arm.prompt)) for pair in pairs]
    if arm.prompt == "base" and arm.donor in ("source", "resample"):
        donor = runs_donor([patches], n_layers, lengths)
        if donor is not None:
            return [donor]
    read = runner.rows.behind.fewest_read(outcome, pairs)
    fed: dict[str, int] = {} if read is None else {outcome.name: read}
    return [*idle([patches], n_layers), *unreached([(patches, outcome)], n_layers, lengths, fed)]


def _named(arms: Mapping[str, Patch | Sequence[Patch] | Arm]) -> dict[str, Arm]:
    """Arms by name. Raises UsageError for a name that is another arm's, or no name."""
    if not isinstance(arms, Mapping):
        raise UsageError(f"arms: {type(arms).__name__}, expected names and patches")
    found: dict[str, Arm] = {}
    names: dict[str, str] = {}
    for name, given in arms.items():
        if not isinstance(name, str) or not name.strip() or name != name.strip():
            raise UsageError(f"arms: name {name!r}, expected text without space around it")
        plain = unicodedata.normalize("NFKC", name).casefold()
        if plain in _OWN:
            raise UsageError(
                f"arms: name {name!r} is that of an arm which every study runs; expected another "
                "one, such as 'patched'"
            )
        if (other := names.setdefault(plain, name)) != name:
            raise UsageError(f"arms: names {other!r} and {name!r} differ in case or form only")
        arm = given if isinstance(given, Arm) else patched(given)
        if plain in _DONORS and arm.donor != plain:
            raise UsageError(
                f"arms: name {name!r} is that of a negative control, whose donor is {plain!r}; "
                f"got {arm.id}"
            )
        found[name] = arm
    return found
