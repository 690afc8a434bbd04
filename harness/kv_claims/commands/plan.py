"""How many pairs a verdict on a claim takes, from a pilot's spreads or from stated ones."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kv_claims.claims.claim import FEWEST_PAIRS
from kv_claims.errors import UsageError
from kv_claims.plain import line_of, say

if TYPE_CHECKING:
    from kv_claims.evidence.schema import EvidenceSaid, SpreadSaid
    from kv_claims.judging.frame import Spread
    from kv_claims.judging.planning import Outlook
    from kv_claims.judging.rule import Rule

NAME = "plan"
HELP = "pairs that a claim needs for a verdict, and the width that some pairs give"
SEEDS = (
    "Seeds do not replace pairs: more generations of the same pairs take out the luck within a "
    "pair,\nand leave untouched how pairs differ. Spend on pairs."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--claim", required=True, metavar="ID", help="of a claim in the claims folder")
    add("--model", metavar="M", help="that the pilot ran on (claims_models of the project)")
    add("--cell", metavar="ID", help="one cell of the claim only")
    add(
        "--pilot",
        type=Path,
        metavar="DIR",
        help="folder of a run that judged the claim (claims_out of the project or reports/latest; "
        "reports/pilot where one is run first)",
    )
    add(
        "--pilot-pairs",
        type=int,
        metavar="N",
        help="run the claim on N pairs first, into the pilot's folder",
    )
    # Of the pilot that is run first; the names are those of `pytest claims`.
    add("--task", metavar="FILE", help="of the pilot that is run")
    add("--chat", action="store_true", help="the same")
    add("--device", metavar="NAME", help="the same")
    add("--dtype", metavar="NAME", help="the same")
    add("--max-new-tokens", type=int, metavar="N", help="the same")
    add("--temperature", type=float, metavar="X", help="the same")
    add("--spread", type=float, metavar="S", help="instead of a pilot: of A - T D, over mean D")
    add("--gap-spread", type=float, default=0.5, metavar="S", help="of D, over its mean (0.5)")
    add("--transfer", type=float, metavar="T", help="the true value to assume (the pilot's own)")
    add("--power", type=float, default=0.8, metavar="P", help="%(default)s")
    add("--pairs", type=int, action="append", default=[], metavar="N", help="repeatable")
    add("--claims", default="claims", metavar="PATH", help="where the claims are (%(default)s)")


class _Asked(NamedTuple):
    """One part of a cell to be planned for."""

    title: str
    share: str
    rule: Rule
    spreads: list[Spread]


def run(given: argparse.Namespace) -> int:
    """Print, for each part of each cell, what numbers of pairs would give."""
    if not 0 < given.power < 1:
        raise UsageError(f"power {given.power}: expected above 0 and below 1")
    for name in ("transfer", "spread", "gap_spread"):
        if not math.isfinite(getattr(given, name) or 0.0):
            raise UsageError(f"--{name.replace('_', '-')}: expected a finite number")
    if (fewest := min(given.pairs, default=FEWEST_PAIRS)) < FEWEST_PAIRS:
        raise UsageError(f"pairs {fewest}: expected at least {FEWEST_PAIRS}, or nothing is judged")
    if given.pilot_pairs is None and (idle := _of_a_pilot(given)):
        raise UsageError(f"{idle[0]}: expected --pilot-pairs beside it, which runs a pilot")
    asked = list(_stated(given) if given.spread is not None else _piloted(given))
    # All of it or nothing: what cannot be planned is an error before anything is said.
    parts = ["\n".join(map(line_of, _lines(one, given))) for one in asked]
    say("\n\n".join([*parts, SEEDS]))
    return 0


def _lines(one: _Asked, given: argparse.Namespace) -> list[str]:
    from kv_claims.judging.planning import at_value, estimate_of, expected_word, outlook, pairs_for

    rule, spreads = one.rule, one.spreads
    if given.transfer is not None:
        spreads = [at_value(spread, rule, given.transfer) for spread in spreads]
    value, word = estimate_of(spreads[0], rule), expected_word(spreads, rule)
    if not math.isfinite(value):
        raise UsageError(
            f"{one.title}: source and base do not differ, so there is no {rule.estimand} to plan"
        )
    smallest = min(rule.region.edges, key=lambda edge: abs(edge[0] - value))[0]
    lines = [
        one.title,
        f"  {rule.estimand} assumed {value:.3f}, region {rule.region}, {one.share}",
    ]
    found = pairs_for(spreads, rule, word, given.power)
    rows = [outlook(spreads, rule, pairs) for pairs in sorted(given.pairs)]
    rows += [found] if found else []
    if rows:
        lines.append(
            f"  {'pairs':>6}  {'supp.':>6} {'refut.':>6} {'incon.':>6} {'inval.':>6}  width"
        )
        lines += [_row(row) for row in sorted(rows, key=lambda row: row.pairs)]
    if found:
        lines.append(f"  {given.power:.0%} power for *{word}* at about {found.pairs} pairs")
    else:
        lines.append(
            f"  no number of pairs that is within reach gives *{word}* with {given.power:.0%} "
            f"power: the nearest edge, {smallest:g}, is {abs(value - smallest):.3f} away, or a "
            "control or the gap stands against it"
        )
    return lines


def _row(row: Outlook) -> str:
    words = " ".join(f"{rate:>6.0%}" for rate in row.rates.values())
    return f"  {row.pairs:>6}  {words}  {row.width:.3f}"


def _stated(given: argparse.Namespace) -> Iterator[_Asked]:
    from kv_claims.commands.collect import claim_by_id
    from kv_claims.judging.multiplicity import Share
    from kv_claims.judging.planning import stated
    from kv_claims.judging.rule import Rule

    claim, cells = claim_by_id(given.claims, given.claim)
    if given.transfer is None:
        raise UsageError("--spread: needs --transfer, the true value to assume")
    share = Share.of(claim, cells)
    for part in claim.parts:
        if part.estimand != "transfer":
            raise UsageError(
                f"claim {claim.id!r}: {part} needs a pilot, --spread is for transfers only"
            )
        yield _Asked(
            f"{claim.id}: {part} (no pilot: spreads as stated, no controls)",
            f"judged at {share.alpha:.4g}, as {share}",
            Rule(part.region, margin=claim.margin, alpha=share.alpha, alpha_refuted=share.alpha),
            [stated(given.transfer, given.spread, given.gap_spread)],
        )


def _piloted(given: argparse.Namespace) -> Iterator[_Asked]:
    from kv_claims.commands.project import model_of, project_here, run_folder

    project = project_here()
    if given.model is None:
        given.model = model_of(project, "plan")
    if given.pilot is None:
        given.pilot = run_folder(project) if given.pilot_pairs is None else Path("reports/pilot")
    if given.pilot_pairs is not None:
        from kv_claims.commands.collect import run_pilot

        options = ["--claims-pairs", str(given.pilot_pairs), *_of_a_pilot(given)]
        run_pilot(given.claims, given.claim, given.model, options, given.pilot)
    from kv_claims.evidence.folder import EVIDENCE_FILE
    from kv_claims.evidence.stored import read_evidence

    try:
        found = read_evidence(given.pilot / EVIDENCE_FILE)["evidence"]
    except UsageError as error:
        raise UsageError(
            f"{error}; give --pilot-pairs 20 to have a pilot run, or --spread and --transfer for "
            "none"
        ) from error
    cells = [
        one
        for one in found
        if (one["claim"], one["model"]) == (given.claim, given.model)
        and given.cell in (None, one["cell"])
    ]
    if not cells:
        which = f"claim {given.claim!r}" + (f", cell {given.cell!r}" if given.cell else "")
        raise UsageError(
            f"{given.pilot}: no evidence of {which} on {given.model}; expected a run that judged "
            "it: give --pilot-pairs 20 to have it run, or --spread and --transfer for none"
        )
    for one in cells:
        yield from _of_cell(one)


def _of_a_pilot(given: argparse.Namespace) -> list[str]:
    """What was said of the pilot that is run, as options of pytest."""
    names = ("task", "device", "dtype", "max_new_tokens", "temperature")
    values = {f"--claims-{name.replace('_', '-')}": getattr(given, name) for name in names}
    chat = ["--claims-chat"] if given.chat else []
    return [*(f"{name}={value}" for name, value in values.items() if value is not None), *chat]


def _spread(stored: SpreadSaid) -> Spread:
    """Raises UsageError for a covariance that is not one of its arms."""
    from kv_claims.judging.frame import Spread

    arms = len(stored["arms"])
    if {len(stored["means"]), len(stored["covariance"]), *map(len, stored["covariance"])} != {arms}:
        raise UsageError(f"pilot: spreads of {arms} arms without means and covariances of each")
    return Spread(
        stored["by"],
        stored["clusters"],
        stored["pairs"],
        tuple(stored["arms"]),
        stored["means"],
        stored["covariance"],
    )


def _of_cell(one: EvidenceSaid) -> Iterator[_Asked]:
    from kv_claims.claims.claim import Family
    from kv_claims.evidence.stored import part_of
    from kv_claims.judging.estimand import direction_of
    from kv_claims.judging.multiplicity import Share
    from kv_claims.judging.rule import Rule

    alpha, parts = one["multiplicity"]["alpha"], one["parts"]
    claimed = sum(not part["given"] for part in parts)
    for part in parts:
        spreads = [_spread(spread) for spread in part.get("spreads", [])]
        title = (
            f"{one['claim']}, cell {one['cell']} on {one['model']}: {part['outcome']['name']} "
            f"(pilot of {one['pairs']} pairs x {one['seeds']} seeds: {part['verdict']})"
        )
        if not spreads:
            raise UsageError(f"{title}: nothing was measured ({one['reason']}), so nothing to plan")
        asserted = part_of(part)
        rule = Rule(
            asserted.region,
            asserted.estimand,
            direction_of(asserted, falls=part["outcome"].get("falls", False)),
            part["region"]["margin"],
            alpha,
            alpha / (1 if part["given"] else claimed),
        )
        how = one["multiplicity"]
        looks = len(how["looks"]["planned"])
        share = (
            f"judged at {alpha:.4g}, as {Share(Family(how['family'], how['size']), max(1, looks))}"
        )
        yield _Asked(title, share, rule, spreads)
