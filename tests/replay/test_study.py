"""Stored trials judged again: by the claim as it was, as it was edited, by another scorer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kv_claims.claims.claim import Part, Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import plain
from kv_claims.evidence.hashes import content_sha
from kv_claims.replay.edits import CLAIM_EDITED, FILES_EDITED, SCORER_CHANGED
from kv_claims.replay.run import ReplayedRun
from kv_claims.run.ledger import LIKELIHOODS, Records
from kv_claims.run.likelihood import Likelihood
from kv_claims.study.cell import Cell
from kv_claims.tasks.scorers import Hit, Lexicon
from tests.replay.conftest import MODEL, opened, own_task
from tests.runs import HERE, KINDS, PAIRS, THERE, claim, edited_copy, key_of

pytestmark = pytest.mark.filterwarnings("error")
NEVER_LOOKED = Cell.of(claim("looks", transfer=Region(high=0.12), looks=(50, 60)), "a", THERE)


def again(source: ReplayedRun, cell: Cell) -> dict[str, Any]:
    """Evidence as JSON has it."""
    found, _ = source.study(MODEL).judge(cell)
    return dict(plain(found.__dict__))


def check(one: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (each for each in one["checks"] if each["name"] == name)
    return dict(found)


def close(one: Any, other: Any) -> bool:
    """Whether two pieces of JSON are the same, numbers to 1e-12."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-12, abs=1e-12)
    return bool(one == other)


@pytest.mark.parametrize("cell", KINDS, ids=lambda cell: cell.claim.id)
def test_a_claim_that_was_not_edited_has_the_evidence_that_stands(
    cell: Cell, replayed: ReplayedRun
) -> None:
    stored = dict(replayed.stored.evidence[key_of(cell.claim.id)])
    found, expected = replayed.study(MODEL).judge(cell)
    one = plain(found.__dict__)
    assert one["provenance"].pop("replayed")["trials_sha"]
    checks = {each["name"]: each for each in one.pop("checks")}
    assert checks.pop(CLAIM_EDITED)["passed"] is True
    # Of a conjunction, checks that its parts do not share are numbered.
    assert checks == {each["name"]: each for each in stored.pop("checks")}
    stored["multiplicity"]["holm"] = None  # made at the end of a session
    stored.pop("test")
    assert set(one) == set(stored)
    for name in one:
        assert close(one[name], stored[name]), name
    assert (expected.word if expected else None) == stored["expected"]


def test_the_kinds_that_are_compared_are_of_all_words(replayed: ReplayedRun) -> None:
    """Else the test above could pass on verdicts that nothing can change."""
    words = {one["verdict"] for one in replayed.stored.evidence.values()}
    assert words == {"supported", "refuted", "invalid"}
    assert len(replayed.stored.evidence[key_of("both")]["parts"]) == 3
    assert replayed.stored.evidence[key_of("loglik")]["likelihoods"] > 0


def test_a_region_that_was_edited_is_judged_and_shown(replayed: ReplayedRun) -> None:
    stored = replayed.stored.evidence[key_of("transfer")]
    assert stored["verdict"] == "supported"
    moved = Cell.of(
        claim("transfer", transfer=Region(0.9, 0.95), about="layer"), "a", HERE, siblings=2
    )
    one = again(replayed, moved)
    assert one["verdict"] == "refuted"
    assert one["expected"] == "refuted"
    assert one["verified"] is False
    told = check(one, CLAIM_EDITED)
    assert told["passed"] is None
    assert "region of behavior transfer: [0.1, 0.95] -> [0.9, 0.95]" in told["detail"]
    # The plan stays the one from before the run: a second replay cannot lose the edit.
    assert one["plan"] == stored["plan"]
    assert one["estimate"] == stored["estimate"]


@pytest.mark.parametrize(
    ("edited", "told"),
    [
        ({"transfer": Region(high=0.12), "margin": 0.2}, "margin: 0.1 -> 0.2"),
        ({"transfer": Region(high=0.12), "says": "Another."}, "says: A sentence. -> Another."),
        ({"transfer": Region(high=0.12), "looks": (10, PAIRS)}, "looks: [] -> [10, 30]"),
        ({"gap": Region(low=0.0)}, "region of behavior transfer: <= 0.12 -> nothing"),
    ],
    ids=["margin", "says", "looks", "estimand"],
)
def test_every_edit_is_shown(edited: dict[str, Any], told: str, replayed: ReplayedRun) -> None:
    patches = None if "gap" in edited else [THERE, Patch("v", "3", "all")]
    if patches is None:
        # Another estimand needs other arms: those that are stored are enough for it.
        one = again(replayed, Cell.of(claim("nothing", **edited), "a"))
    else:
        one = again(replayed, Cell.of(claim("nothing", **edited), "a", patches))
    assert told in check(one, CLAIM_EDITED)["detail"]
    assert one["verified"] is False


def test_cells_that_were_added_change_the_share(replayed: ReplayedRun) -> None:
    one = again(replayed, replace(KINDS[0], siblings=8))
    assert one["multiplicity"]["alpha"] == 0.05 / 8
    assert "family_size: 2 -> 8" in check(one, CLAIM_EDITED)["detail"]
    assert check(one, "best-of-k")["passed"] is True


def test_an_outcome_that_was_edited_is_read_from_the_trials(replayed: ReplayedRun) -> None:
    moved = claim("nothing", outcome="pr@27/32/generated", transfer=Region(high=0.9))
    one = again(replayed, Cell.of(moved, "a", [THERE, Patch("v", "3", "all")]))
    assert one["outcome"]["name"] == "pr@27/32/generated"
    assert one["expected"] is None  # its truth needs a model's weights
    assert "no outcome is read from text" in check(one, "degenerate-text")["detail"]


def test_a_control_that_an_edit_asks_for_is_not_run(replayed: ReplayedRun) -> None:
    moved = claim("nothing", transfer=Region(high=0.12), about="layer")
    one = again(replayed, Cell.of(moved, "a", [THERE, Patch("v", "3", "all")]))
    assert check(one, "control wrong-layer")["passed"] is None


def test_looks_that_the_stored_pairs_do_not_reach_are_not_taken(replayed: ReplayedRun) -> None:
    one = again(replayed, NEVER_LOOKED)
    assert one["verdict"] == "inconclusive"
    assert one["reason"].startswith("not looked at yet: its first look is after 50 pairs")
    assert one["verified"] is False


def test_another_patch_than_the_stored_is_an_error_that_names_both(replayed: ReplayedRun) -> None:
    with pytest.raises(UsageError) as error:
        again(replayed, replace(KINDS[0], patches=(THERE,)))
    assert str(error.value) == (
        "transfer, cell a on planted:stored-at-layer: patched is source>kv@9/last(16) as asked "
        "now, and the stored trials are of source>kv@12/last(16); run it, or ask for what was run"
    )


def test_a_patch_in_another_spelling_is_the_same(replayed: ReplayedRun) -> None:
    spelled = Patch("kv", layers="24/32", positions="last(16)")
    one = again(replayed, replace(KINDS[0], patches=(spelled,)))
    assert one["verified"] is True


def test_what_was_not_run_cannot_be_judged_once_it_needs_trials(replayed: ReplayedRun) -> None:
    moved = claim("pasted", transfer=Region(0.9, 1.1))
    with pytest.raises(UsageError, match=r"no trials are stored of it \(invalid: measured-where"):
        again(replayed, Cell.of(moved, "a", Patch("v_proj", "27/32", "last(16)")))


def test_another_patch_where_nothing_was_run_is_looked_at_anew(replayed: ReplayedRun) -> None:
    """Both read what they paste; which of them is asked about still shows."""
    pasted = claim("pasted", transfer=Region(0.9, 1.1), outcome="pr@27/32")
    one = again(replayed, Cell.of(pasted, "a", Patch("kv_proj", "27/32", "last(16)")))
    assert (one["verdict"], one["verified"]) == ("invalid", False)
    assert one["reason"].startswith("measured-where-patched")
    assert (
        "patch: ['v_proj@27/32/last(16)'] -> ['kv_proj@27/32/last(16)']"
        in (check(one, CLAIM_EDITED)["detail"])
    )
    with pytest.raises(UsageError, match="no trials are stored of it"):
        again(replayed, Cell.of(pasted, "a", Patch("v_proj", "3", "last(16)")))


def test_evidence_that_was_edited_by_hand_shows(a_run: Path, tmp_path: Path) -> None:
    def widen(content: dict[str, Any]) -> None:
        for one in content["evidence"]:
            one["plan"]["parts"][0]["region"] = [0.0, 1.0]

    one = again(opened(edited_copy(a_run, tmp_path / "edited", widen)), KINDS[0])
    told = check(one, CLAIM_EDITED)
    assert told["passed"] is None
    assert "the plan is not the one that its hash is of" in told["detail"]


def test_a_failed_check_of_the_instrument_stays_failed(a_run: Path, tmp_path: Path) -> None:
    def fail(content: dict[str, Any]) -> None:
        for one in content["evidence"]:
            for each in one["checks"]:
                if each["name"] == "self-patch":
                    each["passed"] = False

    one = again(opened(edited_copy(a_run, tmp_path / "edited", fail)), KINDS[0])
    assert (one["verdict"], one["reason"].partition(":")[0]) == ("invalid", "self-patch")


# --- another scorer ---------------------------------------------------------------------------


def test_texts_are_scored_again_by_another_scorer(a_run: Path) -> None:
    own = own_task(MODEL, None)
    few = frozenset(sorted(own.lexicon)[:20])
    other = replace(own, scorer=Lexicon(few), lexicon=few, where="task file few.yaml")
    source = opened(a_run, other)
    one = again(source, KINDS[0])
    stored = source.stored.evidence[key_of("transfer")]
    assert 0 < one["means"]["source"] < stored["means"]["source"]
    assert one["expected"] is None
    assert one["verified"] is False
    told = check(one, SCORER_CHANGED)
    assert told["passed"] is None
    assert "scored again by lexicon of task file few.yaml" in told["detail"]
    assert "not the run's own" in told["detail"]
    assert one["provenance"]["task_sha"] == own.sha
    table = source.trials([one])
    rows = table[(table["arm"] == "source")]
    assert rows["score"].mean() == pytest.approx(one["means"]["source"])


def test_a_scorer_that_counts_parts_of_words_is_seen(a_run: Path) -> None:
    own = own_task(MODEL, None)

    class Letters:
        name, unit = "letters", "letters e"

        def __call__(self, text: str) -> float:
            return float(text.count("e"))

        def hits(self, text: str) -> Any:
            return tuple(Hit(at, at + 1) for at, letter in enumerate(text) if letter == "e")

    one = again(opened(a_run, replace(own, scorer=Letters(), where="letters")), KINDS[0])
    assert check(one, "substring-markers")["passed"] is False
    assert one["verdict"] == "invalid"


def test_parts_and_shares_are_of_the_claim_as_it_stands(replayed: ReplayedRun) -> None:
    """A conjunction that lost a part is judged on what is left."""
    moved = claim("both", all_of=(Part.transfer("behavior", Region(0.1, 0.9)),))
    one = again(replayed, Cell.of(moved, "a", HERE))
    assert len(one["parts"]) == 1
    assert (
        "region of pr@27/32/generated gap: >= -90.0 -> nothing"
        in (check(one, CLAIM_EDITED)["detail"])
    )


# --- files that are not as the run wrote them ---------------------------------------------------


def with_hashes(content: dict[str, Any]) -> None:
    """As a replay of edited files leaves its own: whole, and telling what it judged."""
    content["evidence"][0]["checks"].append(
        {"name": FILES_EDITED, "passed": None, "detail": "edited since the run: trials.parquet"}
    )
    content["sha"] = content_sha(content)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda c: c["evidence"][0].update(says="Other."), "edited since the run: evidence.json"),
        (lambda c: c.pop("files"), "evidence.json has no hashes"),
        (with_hashes, "edited since the run: trials.parquet"),
    ],
    ids=["edited", "no hashes", "a replay of edited files"],
)
def test_no_verdict_on_edited_files_is_verified(
    a_run: Path, tmp_path: Path, edit: Callable[[dict[str, Any]], None], told: str
) -> None:
    source = opened(edited_copy(a_run, tmp_path / "copy", edit))
    found = again(source, KINDS[0])
    assert found["verified"] is False
    assert check(found, FILES_EDITED)["passed"] is None
    assert told in check(found, FILES_EDITED)["detail"]
    # What was not edited in a replay's own files is told of the cells that it was told of.
    other = again(source, KINDS[1])
    assert other["verified"] is (edit is with_hashes)


def test_edited_details_and_dropped_pairs_are_not_verified(a_run: Path, tmp_path: Path) -> None:
    """What the trials still bear out, and a replay cannot see: forged, with all counts in step."""

    def forge(content: dict[str, Any]) -> None:
        for one in content["evidence"]:
            for each in one["checks"]:
                each["detail"] = "all is well"

    source = opened(edited_copy(a_run, tmp_path / "copy", forge))
    assert all(again(source, cell)["verified"] is False for cell in KINDS)


def test_likelihoods_that_were_edited_are_not_verified(a_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(a_run, tmp_path / "copy"))
    folder = copy / "ledger" / LIKELIHOODS
    records = list(Records(Likelihood, folder, read_only=True).all())
    (folder / "main.jsonl").unlink()
    Records(Likelihood, folder).append(
        replace(one, of_source=0.0) if one.arm.startswith("source>") else one for one in records
    )
    source = opened(copy)
    (loglik,) = (cell for cell in KINDS if cell.claim.id == "loglik")
    found = again(source, loglik)
    assert found["verified"] is False
    assert "ledger/likelihoods" in check(found, FILES_EDITED)["detail"]
    assert source.facts()["replay"]["edited"] == "edited since the run: ledger/likelihoods"
