"""A claim on a model: its cells, each verdict with what it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from kv_claims.claims.claim import SHARES
from kv_claims.claims.outcome import Outcome
from kv_claims.evidence.schema import (
    EvidenceSaid,
    Multiplicity,
    OnePatch,
    PartSaid,
    Patches,
    TrialCounts,
)
from kv_claims.judging.checks import CONTROLS
from kv_claims.judging.result import WORDS
from kv_claims.pins.passes import outcome
from kv_claims.report.sentences import asserted_text, interval_text, part_text
from kv_claims.report.view.scale import Mark, Scale, Tick
from kv_claims.report.view.scores import Scores
from kv_claims.study.expectation import Expectation

HEIGHT = 20
"""Of a strip of points, in pixels."""
_SHOWN = ("base", "source", "patched", "versus", *CONTROLS)


class Strip(NamedTuple):
    """One arm: a point a pair. dots: the data of an SVG path, empty where scores are not stored.

    is_control: whether it should not move the outcome; transfer, state: what came of that.
    """

    role: str
    mean: float | None
    mean_at: int | None
    dots: str
    is_control: bool
    transfer: float | None
    state: str | None


class PartView(NamedTuple):
    """One assertion of a cell. lines: what was looked at beside the verdict, decides nothing."""

    says: str
    verdict: str
    estimate: float | None
    interval: str
    mark: Mark
    truth: float | None
    unit: str
    strips: list[Strip]
    lines: list[str]


class CellView(NamedTuple):
    """One verdict. patch: as asked, and as it is on this model.

    agrees: whether it is what a planted truth says; None without one, or of an inconclusive one.
    """

    anchor: str
    cell: str
    patch: str
    resolved: str
    verdict: str
    verified: bool
    reason: str
    expected: str | None
    because: str | None
    agrees: bool | None
    pinned: str | None
    changes: list[str]
    parts: list[PartView]
    pairs: int
    seeds: int
    clusters: int
    trials: TrialCounts
    near_ties: int
    pairs_needed: int | None
    family: str
    checks_passed: int
    checks: int


class CheckView(NamedTuple):
    """A check as it went in some cells of a claim. cells: empty where it is all of them."""

    name: str
    passed: bool | None
    detail: str
    cells: list[str]


class ClaimView(NamedTuple):
    """A claim on one model. ticks: of the line that its intervals are drawn over, by part."""

    anchor: str
    claim: str
    says: str
    cites: str
    asserted: str
    words: dict[str, int]
    ticks: list[list[Tick]]
    cells: list[CellView]
    checks: list[CheckView]


def claim_view(anchor: str, cells: Sequence[EvidenceSaid], scores: Scores) -> ClaimView:
    """The cells of one claim on one model, drawn to one scale."""
    first = cells[0]
    found: list[str] = [one["verdict"] for one in cells]
    words = {word: found.count(word) for word in (*WORDS, *found) if word in found}
    scales = [_scale(cells, number) for number in range(len(first["parts"]))]
    strips = [_strip_scale(cells, number, scores) for number in range(len(first["parts"]))]
    return ClaimView(
        anchor=anchor,
        claim=first["claim"],
        says=first["says"],
        cites=first["cites"],
        asserted=asserted_text(first),
        words=words,
        ticks=[
            scale.ticks(share=part["estimand"] in SHARES)
            for scale, part in zip(scales, first["parts"], strict=True)
        ],
        cells=[
            _cell(f"{anchor}-{number}", one, scales, strips, scores)
            for number, one in enumerate(cells)
        ],
        checks=list(_checks(cells)),
    )


def patch_text(one: EvidenceSaid) -> str:
    """The patches of a cell, and those that they are compared with."""
    sides = [side_text(side) for side in (one["patch"], one["versus"]) if side is not None]
    return " versus ".join(sides) or "none: source against base"


def side_text(side: Patches | None) -> str:
    """The patches of one side."""
    return " & ".join(patch["text"] for patch in side["all"]) if side else ""


def _resolved(one: EvidenceSaid) -> str:
    if one["patch"] is None:
        return ""
    said = [
        f"{p['site']} of {_layers(p['resolved_layers'])} of {p['n_layers']}{_heads(p)}, "
        f"{p['positions']} of {p['positions_count']}, {p['semantics']}"
        for p in one["patch"]["all"]
    ]
    return "; ".join(said)


def _heads(patch: OnePatch) -> str:
    """`, query heads 0 and 2`, whose heads they are too; nothing where all are patched, or none."""
    kind = patch.get("head_kind") or "heads"
    if patch["heads"] == "all" or not patch["resolved_heads"]:
        return ""
    return f", {kind} {' and '.join(map(str, patch['resolved_heads']))}"


def _layers(layers: Sequence[int]) -> str:
    """`layer 9`, `layers 8..15`, `layers 12 and 13`; `no layer` where the model has none such."""
    if not layers:
        return "no layer"
    if len(layers) == 1:
        return f"layer {layers[0]}"
    if len(layers) > 2 and layers[-1] - layers[0] == len(layers) - 1:
        return f"layers {layers[0]}..{layers[-1]}"
    return "layers " + " and ".join(map(str, layers))


def _cell(
    anchor: str,
    one: EvidenceSaid,
    scales: Sequence[Scale],
    strips: Sequence[Scale],
    scores: Scores,
) -> CellView:
    truth, pinned = one["truth"], one.get("pinned")
    return CellView(
        anchor=anchor,
        cell=one["cell"],
        patch=patch_text(one),
        resolved=_resolved(one),
        verdict=one["verdict"],
        verified=one["verified"],
        reason=one["reason"],
        expected=one["expected"],
        because=truth["because"] if truth else None,
        agrees=_agrees(one),
        pinned=pinned["word"] if pinned else None,
        changes=pinned.get("changes", []) if pinned else [],
        parts=[
            _part(one, part, scales[number], strips[number], scores)
            for number, part in enumerate(one["parts"])
        ],
        pairs=one["pairs"],
        seeds=one["seeds"],
        clusters=one["clusters"],
        trials=one["trials"],
        near_ties=one["near_ties"],
        pairs_needed=one["pairs_needed"],
        family=_family(one["multiplicity"]),
        checks_passed=sum(check["passed"] is True for check in one["checks"]),
        checks=len(one["checks"]),
    )


def _agrees(one: EvidenceSaid) -> bool | None:
    """As a test of it counts, in `kv_claims.pins.passes`."""
    if one["expected"] is None or one["verdict"] == "inconclusive":
        return None
    truth = one["truth"]
    expected = Expectation(one["expected"], truth["because"] if truth else "")
    expected = replace(expected, unless=truth["unless"] if truth else None)
    return outcome(one["verdict"], one["reason"], expected, strict=False)[0] == "pass"


def _part(
    one: EvidenceSaid,
    part: PartSaid,
    scale: Scale,
    strip_scale: Scale,
    scores: Scores,
) -> PartView:
    region = (part["region"]["low"], part["region"]["high"])
    truth = _true_value(part)
    return PartView(
        says=part_text(part),
        verdict=part["verdict"],
        estimate=part["estimate"],
        interval=interval_text(part),
        mark=scale.mark(part["estimate"], part["interval"], region, truth),
        truth=truth,
        unit=part["outcome"]["unit"],
        strips=list(_strips(one, part, strip_scale, scores)),
        lines=list(_beside(part)),
    )


def _true_value(part: PartSaid) -> float | None:
    truth = part.get("truth")
    return truth["value"] if truth else None


def _strips(one: EvidenceSaid, part: PartSaid, scale: Scale, scores: Scores) -> Iterator[Strip]:
    measured = Outcome.parse(part["outcome"]["name"])
    for role in _SHOWN:
        mean = part["means"].get(role)
        found = scores.of(one, role, measured)
        if mean is None and found is None:
            continue
        control = part["controls"].get(role)
        yield Strip(
            role=role,
            mean=mean,
            mean_at=None if mean is None else scale.at(mean),
            dots="" if found is None else scale.dots(found.scores, HEIGHT),
            is_control=role in CONTROLS,
            transfer=control["transfer"] if control else None,
            state=control["state"] if control else None,
        )


def _scale(cells: Sequence[EvidenceSaid], number: int) -> Scale:
    values: list[float | None] = []
    for one in cells:
        part = one["parts"][number]
        values += [part["estimate"], *(part["interval"] or ()), _true_value(part)]
        values += [part["region"]["low"], part["region"]["high"]]
    return Scale.of(values, share=cells[0]["parts"][number]["estimand"] in SHARES)


def _strip_scale(cells: Sequence[EvidenceSaid], number: int, scores: Scores) -> Scale:
    values: list[float | None] = []
    for one in cells:
        part = one["parts"][number]
        measured = Outcome.parse(part["outcome"]["name"])
        values += part["means"].values()
        for role in _SHOWN:
            if found := scores.of(one, role, measured):
                values += found.scores.tolist()
    known = [value for value in values if value is not None and value == value]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    pad = 0.03 * (high - low) or 1.0
    return Scale(low - pad, high + pad)


def _family(multiplicity: Multiplicity) -> str:
    """At what share of 0.05 a cell was judged, where it is one of several."""
    if multiplicity["size"] == 1 and not multiplicity["looks"]["planned"]:
        return ""
    said = f"one of {multiplicity['size']} in {multiplicity['family']}, judged at "
    said += f"{multiplicity['alpha']:.3g}; alone it would be {multiplicity['raw']}"
    if holm := multiplicity["holm"]:
        said += f", by Holm {holm['verdict']}"
    return said


def _beside(part: PartSaid) -> Iterator[str]:
    """Bootstrap, leave-one-out, and the other scorer, each in a line."""
    beside = part.get("sensitivity")
    for line in beside["lines"] if beside else ():
        boot, out = line["bootstrap"], line["without_cluster"]
        if beside and boot and boot["interval"]:
            low, high = boot["interval"]
            level = 100 * beside["level"]
            yield f"bootstrap over {line['by']}s: [{low:.3f}, {high:.3f}] {level:g}%"
        if out and out["low"] is not None:
            yield f"without any one {line['by']}: {out['low']:.3f} to {out['high']:.3f}"
    if other := part.get("other_scorer"):
        value = "" if other["estimate"] is None else f", {other['estimate']:.3f}"
        yield f"under the {other['scorer']} scorer: {other['verdict']}{value}"


def _checks(cells: Sequence[EvidenceSaid]) -> Iterator[CheckView]:
    """Checks of all cells: what did not pass first, and what went alike told once."""
    found: dict[tuple[str, bool | None, str], list[str]] = {}
    for one in cells:
        for check in one["checks"]:
            key = (check["name"], check["passed"], check["detail"])
            found.setdefault(key, []).append(one["cell"])
    names = list(dict.fromkeys(name for name, _, _ in found))
    order = sorted(found, key=lambda key: (key[1] is True, names.index(key[0])))
    for name, passed, detail in order:
        where = found[name, passed, detail]
        yield CheckView(name, passed, detail, [] if len(where) == len(cells) else where)
