"""`evidence.json`, schema 1, as types: what a run writes, and what is read back from one.

Every type is a plain JSON object that has at least these fields; what they mean stands at
`kv_claims.evidence.evidence`. A field that a later version adds is no error: `unknown_fields` names
it. Fields marked NotRequired are those that some run has not: one of an earlier version, or a
replay of a published table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from kv_claims.claims.claim import Estimand
from kv_claims.files.reading import Count, Number
from kv_claims.judging.result import Word

NLayers = Annotated[int, Meta(ge=1, le=10_000)]
Interval = Annotated[list[Number], Meta(min_length=2, max_length=2)]
"""[low, high]"""
Counted = dict[str, Count]
OWN_TABLE = "own-table"
"""Stands for the task of a table that a claim's test made."""


class OutcomeSaid(TypedDict):
    """What was measured."""

    name: str
    unit: str
    scorer: NotRequired[str]
    falls: NotRequired[bool]


class RegionSaid(TypedDict):
    """The region of a part; an open end is None."""

    low: Number | None
    high: Number | None
    margin: Number
    about: str | None


class OnePatch(TypedDict):
    """A patch as asked and as it is on the model."""

    site: str
    positions: str
    heads: str
    mode: str
    donor: NotRequired[str]
    donor_told: NotRequired[str | None]
    text: str
    resolved_layers: list[Count]
    resolved_heads: list[Count] | None
    head_kind: NotRequired[str | None]
    n_layers: NLayers
    semantics: str
    positions_count: str


class Patches(OnePatch):
    """The first patch of a side, and all of them."""

    all: Annotated[list[OnePatch], Meta(min_length=1)]


class CheckSaid(TypedDict):
    """A check; passed is None where it was not run."""

    name: str
    passed: bool | None
    detail: str


class ControlSaid(TypedDict):
    """What came of a control."""

    transfer: Number | None
    state: str | None


class SpreadSaid(TypedDict):
    """See `kv_claims.judging.frame.Spread`."""

    by: str
    clusters: Count
    pairs: Count
    arms: list[str]
    means: list[Number]
    covariance: list[list[Number]]


class BootstrapSaid(TypedDict):
    interval: Interval | None


class RangeSaid(TypedDict):
    low: Number | None
    high: Number | None


class LinesSaid(TypedDict):
    """What one way of clustering shows beside a verdict."""

    by: str
    bootstrap: BootstrapSaid | None
    without_cluster: RangeSaid | None


class SensitivitySaid(TypedDict):
    level: Number
    lines: list[LinesSaid]


class OtherScorerSaid(TypedDict):
    scorer: str
    verdict: Word
    estimate: Number | None


class PartTruth(TypedDict):
    """The truth of a part on a planted model."""

    value: Number | None
    controls: NotRequired[dict[str, Number | None] | None]


class PartSaid(TypedDict):
    """One assertion, judged."""

    outcome: OutcomeSaid
    estimand: Estimand
    region: RegionSaid
    given: bool
    verdict: Word
    estimate: Number | None
    interval: Interval | None
    level: Number
    means: dict[str, Number | None]
    controls: dict[str, ControlSaid]
    weighings: NotRequired[dict[str, Number | None]]
    spreads: NotRequired[list[SpreadSaid]]
    truth: NotRequired[PartTruth | None]
    sensitivity: NotRequired[SensitivitySaid | None]
    other_scorer: NotRequired[OtherScorerSaid | None]


class Truth(TypedDict):
    """The truth of a cell on a planted model."""

    transfer: Number | None
    controls: dict[str, Number | None]
    because: str
    unless: str | None


class PinnedSaid(TypedDict):
    """How a cell stands to its pin."""

    word: str
    changes: NotRequired[list[str]]
    notes: NotRequired[list[str]]


class LookSaid(TypedDict):
    pairs: Count
    verdict: Word
    estimate: Number | None


class Looks(TypedDict):
    planned: list[Count]
    taken: list[LookSaid]
    pairs_spared: Count


class HolmSaid(TypedDict):
    verdict: Word


class Multiplicity(TypedDict):
    """The family of a cell, its share and its looks."""

    family: str
    size: Annotated[int, Meta(ge=1, le=2**53)]
    alpha: Annotated[float, Meta(gt=0, lt=1)]
    raw: Word
    holm: HolmSaid | None
    looks: Looks


class TrialCounts(TypedDict):
    planned: Count
    run: Count
    failed: Count


class Repetition(TypedDict):
    repeated_4grams: Number


class GeometrySaid(TypedDict):
    outcome: str
    means: dict[str, Number | None]
    reach: str | None
    why: str | None


class Ends(TypedDict):
    base: Count


class ScorerSaid(TypedDict):
    """A task's scorer, measured. Where nothing was run the evidence has an empty object."""

    name: str
    unit: str
    falls: NotRequired[bool]
    auc: Number | None
    level: Number
    interval: Interval | None
    by: str
    clusters: Count
    why: str | None
    texts: Ends
    false_positives: Count
    false_positive_interval: Interval
    repetition_share: dict[str, Number | None]


class TextScores(TypedDict):
    base: Number
    source: Number
    patched: Number


class Texts(TypedDict):
    """The example of a cell. Where nothing was run the evidence has an empty object."""

    rule: str
    base: str
    source: str
    patched: str
    scores: TextScores


class SamplingSaid(TypedDict):
    rule: str
    max_new_tokens: Count
    temperature: Number
    ignored: dict[str, str]


class OwnTable(TypedDict):
    """A table that a claim's test made: its SHA-256, and how many rows it has."""

    sha: str
    rows: Count


class FileSaid(TypedDict):
    """The GGUF file that a network was made of: see `kv_claims.models.gguf.GgufFile`."""

    name: str
    sha256: str
    architecture: str
    quantization: str
    tensors: Counted
    licence: str | None
    unread: list[str]
    read_by: dict[str, str]


class FormSaid(TypedDict):
    """What a chat template makes of messages of some roles: see `kv_claims.tasks.messages.Form`."""

    roles: list[str]
    pieces: list[str | Count]


class ChatSaid(TypedDict):
    """The chat template that made texts of messages: see `kv_claims.models.chat.Chat.describe`."""

    template_sha: str
    date: str | None
    forms: list[FormSaid]


class TokensSaid(TypedDict):
    """How prompts became tokens."""

    chat: NotRequired[ChatSaid]


class Provenance(TypedDict):
    """How a model was run; of a published table all but the layers is unknown."""

    python: str
    versions: dict[str, str]
    device: str
    hardware: str
    threads: Count | str
    dtype: str
    n_layers: NLayers
    n_kv_heads: NotRequired[NLayers]
    n_query_heads: NotRequired[NLayers]
    revision: str | None
    weights_sha: str
    task_sha: str
    file: NotRequired[FileSaid]
    tokens: NotRequired[TokensSaid]
    sampling: NotRequired[SamplingSaid]
    replayed: NotRequired[dict[str, Any]]
    table: NotRequired[OwnTable]
    decoding: NotRequired[dict[str, Any]]


class OwnProvenance(Provenance):
    """That of a run of ours."""

    cores: Count | None
    batch_size: Count | str


class PlanPart(TypedDict):
    outcome: str
    estimand: Estimand
    region: Annotated[list[Number | None], Meta(min_length=2, max_length=2)]


class Plan(TypedDict):
    """A claim as it was stated before anything was run."""

    says: str
    cites: str
    parts: list[PlanPart]
    given: list[PlanPart]
    about: str | None
    margin: Number
    family: str
    family_size: Count
    looks: list[Count]
    patch: list[str]
    versus: list[str]
    claim: NotRequired[str]
    sha: NotRequired[str]


class EvidenceSaid(TypedDict):
    """One claim, one cell, one model; see `kv_claims.evidence.evidence.Evidence`."""

    claim: str
    cell: str
    says: str
    cites: str
    model: str
    task: str
    patch: Patches | None
    versus: Patches | None
    outcome: OutcomeSaid
    region: RegionSaid
    parts: Annotated[list[PartSaid], Meta(min_length=1)]
    verdict: Word
    reason: str
    verified: bool
    expected: Word | None
    truth: Truth | None
    pinned: NotRequired[PinnedSaid | None]
    estimate: Number | None
    interval: Interval | None
    level: Number
    interval_other: Interval | None
    p_supported: Number | None
    p_refuted: Number | None
    pairs_needed: Count | None
    multiplicity: Multiplicity
    means: dict[str, Number | None]
    controls: dict[str, ControlSaid]
    pairs: Count
    clusters: Count
    seeds: Count
    trials: TrialCounts
    likelihoods: Count
    answers: NotRequired[Count]
    fired: dict[str, Counted]
    repetition: dict[str, Repetition]
    scorer: dict[str, Any]
    geometry: list[GeometrySaid]
    checks: list[CheckSaid]
    texts: dict[str, Any]
    arms: dict[str, str]
    near_ties: Count
    study: str
    provenance: Provenance
    plan: NotRequired[Plan]
    test: NotRequired[str]


class InstrumentSaid(TypedDict):
    """An instrument check that stands on its own."""

    name: str
    model: str
    task: str
    passed: bool
    checks: list[CheckSaid]
    pairs: Count
    seeds: Count
    trials: TrialCounts
    arms: dict[str, str]
    study: str
    provenance: OwnProvenance
    test: NotRequired[str]


class FamilySaid(TypedDict):
    """Holm's procedure over a family on a model."""

    family: str
    model: str
    size: Count
    judged: Count
    alpha: Number
    words: dict[Literal["raw", "share", "holm"], dict[Word, Count]]


class DefectSaid(TypedDict):
    name: str
    says: str


class RowSaid(TypedDict):
    """The published protocol with some of its defects."""

    turned_off: str | None
    unit: str
    pairs: Count
    base: Number
    source: Number | None
    patched: Number
    best_cell: str
    best: Number
    delta: Number
    change: Number | None
    transfer: Number | None
    words: dict[str, dict[Word, Count]]
    reads: str


class EngineSaid(TypedDict):
    defect: str | None
    patch: str
    pairs: Count
    self_patch_changed: Count
    patched_changed: Count
    keys_error: Number | None


class HitSaid(TypedDict):
    marker: str
    words: list[str]
    rule: str


class ScoredText(TypedDict):
    """A text, and why it scores."""

    cell: str
    text: str
    published: Number
    bonus: Number
    hits: list[HitSaid]
    lexicon: Number
    lexicon_task: str


class SampleText(ScoredText):
    """The seed's own best cell."""

    reported: Number
    cites: str


class ProtocolSaid(TypedDict):
    """The published protocol, replayed on a model; see `evidence.ProtocolEvidence`."""

    name: str
    model: str
    task: str
    pairs: Count
    pair: NotRequired[str]
    drawn: int
    defects: list[DefectSaid]
    rows: Annotated[list[RowSaid], Meta(min_length=1)]
    engines: Annotated[list[EngineSaid], Meta(min_length=1)]
    best: ScoredText
    sample: SampleText
    trials: TrialCounts
    provenance: OwnProvenance


class SpentOnModel(TypedDict):
    run: Count
    read: Count
    seconds: Number


class SpentSaid(TypedDict):
    seconds: Number
    trials: Count
    models: NotRequired[dict[str, SpentOnModel]]


class CountedBy(TypedDict):
    """A scorer by its name, and its words where it has a list."""

    name: str
    words: list[str] | None


class ScoredBy(TypedDict):
    task: str
    sha: str


class ReplaySaid(TypedDict):
    """What was judged again."""

    folder: str
    kind: str
    trials_sha: str
    scored_by: ScoredBy | None


class CellsSaid(TypedDict):
    """How many cells a run had to judge, and did."""

    planned: Count
    judged: Count


class PromptsSaid(TypedDict):
    """What a model read of a task with messages: its prompts by id, as they were rendered."""

    sources: dict[str, str]
    bases: dict[str, str]


class RunSaid(TypedDict):
    """What holds for a run as a whole. not_replayed stands where replay does.

    chat: whether texts were sent as a user's messages. prompts: by model, of those with messages.
    """

    profile: str | None
    seeds: Count
    max_new_tokens: Count | None
    temperature: Number | None
    task_file: str | None
    chat: NotRequired[bool]
    prompts: NotRequired[dict[str, PromptsSaid]]
    ledger_lines_set_aside: list[str]
    kv_claims: NotRequired[str]
    command: NotRequired[str]
    protocol: NotRequired[str]
    models: NotRequired[list[str]]
    pairs_asked: NotRequired[Count | None]
    strict: NotRequired[bool]
    spent: NotRequired[SpentSaid | None]
    scorers: NotRequired[dict[str, CountedBy]]
    replay: NotRequired[ReplaySaid]
    not_replayed: NotRequired[dict[str, Count]]
    id: NotRequired[str]
    complete: NotRequired[bool]
    cells: NotRequired[CellsSaid]


class EvidenceFile(TypedDict):
    """The whole file."""

    schema: Literal[1]
    run: RunSaid
    evidence: list[EvidenceSaid]
    families: NotRequired[list[FamilySaid]]
    instrument: NotRequired[list[InstrumentSaid]]
    protocol: NotRequired[list[ProtocolSaid]]
    files: NotRequired[dict[str, str]]
    sha: NotRequired[str]


def is_own_table(provenance: Mapping[str, Any]) -> bool:
    """Whether evidence rests on a table that its test made, and on no trial of ours."""
    return "table" in provenance


def unknown_fields(content: EvidenceFile) -> list[str]:
    """Fields of the file, of the run and of evidence that this version does not know."""
    levels: Iterable[tuple[str, type, Mapping[str, object]]] = [
        ("$", EvidenceFile, content),
        ("$.run", RunSaid, content["run"]),
        *(("$.evidence[...]", EvidenceSaid, one) for one in content["evidence"]),
    ]
    return list(
        dict.fromkeys(
            f"{place}.{name}"
            for place, kind, found in levels
            for name in found
            if name not in kind.__annotations__
        )
    )
