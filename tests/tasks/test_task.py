"""Pairs: their ids, their order, and the donors that are unrelated to them."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace

import pytest

from kv_claims.errors import UsageError
from kv_claims.tasks import task as task_module
from kv_claims.tasks.scorers import Lexicon, Published
from kv_claims.tasks.task import DONORS_AT_ONCE, Pair, Pairing, Prompt, Task, clusters_of

WORDS = frozenset({"rain"})


def prompts(side: str, n: int, families: int = 1000) -> tuple[Prompt, ...]:
    return tuple(
        Prompt(f"{side}{i}", f"{side}-family-{i % families}", f"Text {i} of the {side}s.")
        for i in range(n)
    )


def task_of(
    n_sources: int, n_bases: int, pairing: Pairing = "crossed", *, families: int = 1000
) -> Task:
    return Task(
        name="weather",
        about="",
        sources=prompts("source", n_sources),
        bases=prompts("base", n_bases, families),
        pairing=pairing,
        scorer=Lexicon(WORDS),
        lexicon=WORDS,
    )


def ids(pairs: tuple[Pair, ...]) -> list[tuple[int, int]]:
    """Pairs as (number of the source, number of the base)."""
    return [
        (int(pair.source.id.removeprefix("source")), int(pair.base.id.removeprefix("base")))
        for pair in pairs
    ]


# --- hashes --------------------------------------------------------------------------------


def test_the_hash_of_a_prompt_is_sha256_of_its_text_in_utf_8() -> None:
    prompt = Prompt("id", "family", "Grüße")
    assert prompt.sha == hashlib.sha256("Grüße".encode()).hexdigest()


def test_the_id_of_a_pair_is_the_hash_of_its_two_texts() -> None:
    pair = Pair(0, Prompt("s", "f", "one"), Prompt("b", "f", "two"))
    assert pair.id == hashlib.sha256(b"one\0two").hexdigest()


@pytest.mark.parametrize(
    ("source", "base"),
    [
        pytest.param("two", "one", id="turned"),
        pytest.param("onet", "wo", id="other-border"),
        pytest.param("one ", "two", id="a-space-more"),
    ],
)
def test_other_texts_are_another_pair(source: str, base: str) -> None:
    pair = Pair(0, Prompt("s", "f", "one"), Prompt("b", "f", "two"))
    assert Pair(0, Prompt("s", "f", source), Prompt("b", "f", base)).id != pair.id


def test_ids_families_and_places_are_no_part_of_a_pairs_id() -> None:
    pair = Pair(0, Prompt("s", "f", "one"), Prompt("b", "f", "two"))
    assert Pair(9, Prompt("x", "y", "one"), Prompt("z", "y", "two")).id == pair.id


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"name": "other"}, id="name"),
        pytest.param({"scorer": Published()}, id="scorer"),
        pytest.param({"lexicon": frozenset({"rain", "hail"})}, id="lexicon"),
        pytest.param({"pairing": "one-to-one"}, id="pairing"),
        pytest.param({"max_degenerate_share": 0.2}, id="degenerate-share"),
        pytest.param({"sources": prompts("source", 2)[::-1]}, id="order"),
        pytest.param({"bases": prompts("base", 2, families=1)}, id="family"),
    ],
)
def test_the_hash_of_a_task_changes_with_all_that_decides_a_trial(
    change: dict[str, object],
) -> None:
    task = task_of(2, 2)
    assert replace(task, **change).sha != task.sha


def test_the_hash_of_a_task_is_the_same_wherever_it_came_from() -> None:
    task = task_of(2, 2)
    assert replace(task, where="another file", about="other words").sha == task.sha


# --- pairs ---------------------------------------------------------------------------------


def test_one_to_one_pairs_the_ith_source_with_the_ith_base() -> None:
    assert ids(task_of(4, 4, "one-to-one").pairs) == [(0, 0), (1, 1), (2, 2), (3, 3)]


def test_crossed_pairs_go_round_with_a_turn_more_each_time() -> None:
    assert ids(task_of(3, 3).pairs) == [
        *((0, 0), (1, 1), (2, 2)),
        *((0, 1), (1, 2), (2, 0)),
        *((0, 2), (1, 0), (2, 1)),
    ]


SIZES = pytest.mark.parametrize(
    ("n_sources", "n_bases"),
    [
        pytest.param(1, 1, id="1x1"),
        pytest.param(6, 6, id="6x6"),
        pytest.param(5, 3, id="5x3"),
        pytest.param(6, 4, id="6x4"),
        pytest.param(7, 1, id="7x1"),
        pytest.param(1, 7, id="1x7"),
        pytest.param(3, 5, id="3x5"),
        pytest.param(4, 6, id="4x6"),
    ],
)


@SIZES
def test_crossed_pairs_are_every_source_with_every_base_once(n_sources: int, n_bases: int) -> None:
    pairs = task_of(n_sources, n_bases).pairs
    assert sorted(ids(pairs)) == [(i, j) for i in range(n_sources) for j in range(n_bases)]
    assert [pair.index for pair in pairs] == list(range(n_sources * n_bases))
    assert len({pair.id for pair in pairs}) == n_sources * n_bases


@SIZES
def test_every_prefix_of_crossed_pairs_shares_as_few_prompts_as_it_can(
    n_sources: int, n_bases: int
) -> None:
    """Clusters are sources and bases: n pairs have min(n, all) of each, so that power is not lost.

    (k mod sources, k mod bases), moved on by one base a round, shows that this can be had.
    """
    pairs = ids(task_of(n_sources, n_bases).pairs)
    for n in range(1, len(pairs) + 1):
        sources, bases = Counter(i for i, _ in pairs[:n]), Counter(j for _, j in pairs[:n])
        assert (len(sources), len(bases)) == (min(n, n_sources), min(n, n_bases)), f"{n} pairs"


@pytest.mark.parametrize("pairing", ["one-to-one", "crossed"])
def test_the_first_pairs_are_the_same_however_many_are_asked_for(pairing: Pairing) -> None:
    task = task_of(5, 5, pairing)
    total = len(task.pairs)
    assert total == (5 if pairing == "one-to-one" else 25)
    for n in range(1, total + 1):
        first = task.first_pairs(n)
        assert len(first) == n
        assert first == task.first_pairs(total)[:n]
        assert [pair.id for pair in first] == [pair.id for pair in task.pairs[:n]]


@pytest.mark.parametrize("n", [0, -1])
def test_no_pairs_are_refused(n: int) -> None:
    with pytest.raises(UsageError, match=f"^pairs {n}: expected at least 1$"):
        task_of(3, 3).first_pairs(n)


def test_more_pairs_than_there_are_are_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match=r"^pairs 10: task 'weather' has 9 pairs \(<memory>\)$"):
        task_of(3, 3).first_pairs(10)


# --- unrelated donors ----------------------------------------------------------------------


def test_unrelated_donors_are_all_other_bases() -> None:
    task = task_of(4, 4, "one-to-one")
    for pair in task.pairs:
        donors = list(task.unrelated(pair))
        assert sorted(d.id for d in donors) == sorted({b.id for b in task.bases} - {pair.base.id})


def test_unrelated_donors_of_another_family_come_first() -> None:
    task = task_of(12, 12, "one-to-one", families=3)
    for pair in task.pairs:
        same = [donor.family == pair.base.family for donor in task.unrelated(pair)]
        assert same == [False] * 8 + [True] * 3


def test_unrelated_donors_do_not_follow_the_file() -> None:
    """Best donors come from a hash: spread over the bases, and not the next one each time."""
    task = task_of(40, 40, "one-to-one")
    best = Counter(next(task.unrelated(pair)).id for pair in task.pairs)
    assert len(best) > 15
    orders = {tuple(donor.id for donor in task.unrelated(pair)) for pair in task.pairs}
    assert len(orders) == 40


def test_unrelated_donors_stay_when_prompts_are_listed_in_another_order() -> None:
    task = task_of(6, 6, "one-to-one")
    turned = replace(task, sources=task.sources[::-1], bases=task.bases[::-1])
    of = {pair.id: list(task.unrelated(pair)) for pair in task.pairs}
    assert {pair.id: list(turned.unrelated(pair)) for pair in turned.pairs} == of


def test_a_base_more_leaves_the_order_of_the_other_donors() -> None:
    fewer, more = task_of(5, 5), task_of(5, 6)
    pair = fewer.pairs[0]
    assert [d for d in more.unrelated(pair) if d.id != "base5"] == list(fewer.unrelated(pair))


def test_a_single_base_has_no_unrelated_donor() -> None:
    task = task_of(3, 1)
    assert list(task.unrelated(task.pairs[0])) == []


@pytest.mark.parametrize("families", [1, 3, 1000])
def test_up_to_so_many_bases_donors_are_in_the_order_of_one_hash(families: int) -> None:
    """What shipped tasks, pins and stored runs were made with: every other base, best first."""
    task = task_of(DONORS_AT_ONCE, DONORS_AT_ONCE, "one-to-one", families=families)
    for pair in task.pairs[:20]:
        others = [base for base in task.bases if base.id != pair.base.id]
        by_hash = sorted(
            others,
            key=lambda base: (
                base.family == pair.base.family,
                hashlib.sha256((pair.id + base.sha).encode()).hexdigest(),
            ),
        )
        assert list(task.unrelated(pair)) == by_hash


def test_of_many_bases_donors_are_all_others_and_another_familys_first() -> None:
    task = task_of(1300, 1300, "one-to-one", families=3)
    for pair in task.pairs[::300]:
        donors = list(task.unrelated(pair))
        assert sorted(d.id for d in donors) == sorted({b.id for b in task.bases} - {pair.base.id})
        same = [donor.family == pair.base.family for donor in donors]
        assert same == sorted(same)
        assert 432 <= sum(same) <= 433
    best = Counter(next(task.unrelated(pair)).id for pair in task.pairs[:200])
    assert len(best) > 150


@pytest.mark.parametrize("families", [1, 2, 5000])
def test_a_donor_takes_no_longer_however_many_bases_there_are(
    families: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash of every base with every pair was their square: 93 s for 5,000 pairs."""
    task = task_of(3000, 3000, "one-to-one", families=families)
    pairs, counted = task.pairs[:5], Counter[str]()
    next(task.unrelated(pairs[0]))  # hashes of the texts, which are made once
    real = task_module.sha256
    monkeypatch.setattr(task_module, "sha256", lambda text: counted.update(["hash"]) or real(text))
    for pair in pairs:
        next(task.unrelated(pair))
    assert 0 < counted["hash"] <= len(pairs) * (DONORS_AT_ONCE + 1)


# --- prompts that no study should run on ---------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"sources": ()}, "`sources` is empty", id="no-sources"),
        pytest.param({"bases": ()}, "`bases` is empty", id="no-bases"),
        pytest.param(
            {"sources": (Prompt("s", "f", "a"), Prompt("s", "f", "b"))},
            "sources 's': the id is used twice",
            id="id-twice",
        ),
        pytest.param(
            {"bases": (Prompt("one", "f", "a"), Prompt("two", "f", "a"))},
            "bases 'two': the same text as 'one'",
            id="text-twice",
        ),
        pytest.param(
            {"bases": (Prompt("b", "f", " \n"), Prompt("c", "f", "a"))},
            "bases 'b': the text is empty",
            id="blank",
        ),
        pytest.param(
            {"bases": (Prompt("b", "f", "a"), *prompts("source", 1))},
            "source 'source0' and base 'source0' are the same text",
            id="source-is-base",
        ),
        pytest.param(
            {"pairing": "one-to-one", "bases": prompts("base", 3)},
            "'one-to-one' with 2 sources and 3 bases",
            id="unequal",
        ),
    ],
)
def test_a_task_checks_its_prompts_when_it_is_made(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=f"^here: .*{message}"):
        replace(task_of(2, 2), where="here", **change)


CAFE = "un caf\u00e9 noir"
LOOKS = pytest.mark.parametrize(
    "text",
    [
        pytest.param("un  caf\u00e9\tnoir ", id="blanks"),
        pytest.param("un cafe\u0301 noir", id="decomposed"),
        pytest.param("un ca\u200bf\u00e9 noir", id="zero-width-space"),
        pytest.param("\ufeffun caf\u00e9 noir", id="byte-order-mark"),
        pytest.param("un caf\u00e9 no\u00adir", id="soft-hyphen"),
        pytest.param("un caf\u00e9\u200d noir\u2060", id="joiners"),
        pytest.param("\u202aun caf\u00e9 noir\u202c", id="directions"),
        pytest.param("un caf\u00e9 noir\ufe0f", id="variation-selector"),
        pytest.param("un cafe\u200b\u0301 noir", id="accent-behind-a-zero-width-space"),
    ],
)


@LOOKS
def test_texts_that_look_the_same_are_one_text(text: str) -> None:
    bases = (Prompt("one", "f", CAFE), Prompt("two", "f", text))
    with pytest.raises(UsageError, match=r"bases 'two': the same text.* as 'one'"):
        replace(task_of(2, 2), bases=bases)
    bases = (Prompt("one", "f", CAFE), *prompts("base", 1))
    sources = (Prompt("two", "f", text), *prompts("source", 1))
    with pytest.raises(UsageError, match="source 'two' and base 'one' are the same text"):
        replace(task_of(2, 2), sources=sources, bases=bases)


@pytest.mark.parametrize("text", ["un cafe noir", "UN CAF\u00c9 NOIR", "un caf\u00e9 noir."])
def test_texts_that_look_unlike_are_two(text: str) -> None:
    bases = (Prompt("one", "f", CAFE), Prompt("two", "f", text))
    assert replace(task_of(2, 2), bases=bases).bases == bases


def test_a_text_of_what_does_not_show_is_empty() -> None:
    bases = (Prompt("one", "f", "\u200b \ufeff"), *prompts("base", 1))
    with pytest.raises(UsageError, match="bases 'one': the text is empty"):
        replace(task_of(2, 2), bases=bases)


def test_an_id_may_stand_on_both_sides() -> None:
    task = replace(task_of(1, 1), sources=(Prompt("a", "f", "x"),), bases=(Prompt("a", "f", "y"),))
    assert len(task.pairs) == 1


# --- clusters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "n", "clusters"),
    [
        pytest.param(task_of(3, 3, "one-to-one"), 3, {"pair": 3}, id="one-to-one"),
        pytest.param(task_of(4, 3), 12, {"source": 4, "base": 3}, id="crossed"),
        pytest.param(task_of(4, 3), 4, {"base": 3}, id="bases-only"),
        pytest.param(task_of(3, 4), 4, {"source": 3}, id="sources-only"),
        pytest.param(task_of(4, 3), 3, {"pair": 3}, id="too-few-to-share"),
    ],
)
def test_pairs_are_clustered_by_the_texts_that_they_share(
    task: Task, n: int, clusters: dict[str, int]
) -> None:
    pairs = task.first_pairs(n)
    found = clusters_of(pairs)
    assert {by: len(set(cluster.values())) for by, cluster in found.items()} == clusters
    for by, cluster in found.items():
        for one in pairs:
            together = {pair.id for pair in pairs if cluster[pair.id] == cluster[one.id]}
            texts = {
                pair.id
                for pair in pairs
                if by != "pair" and getattr(pair, by).text == getattr(one, by).text
            }
            assert together == (texts or {one.id})


def test_prompts_of_one_identity_are_one_cluster() -> None:
    """On a model that is its tokens; here, the last digit of its number."""
    pairs = task_of(30, 30, "one-to-one").pairs
    found = clusters_of(pairs, lambda prompt: prompt.text.split()[1][-1])
    assert {by: len(set(cluster.values())) for by, cluster in found.items()} == {
        "source": 10,
        "base": 10,
    }
    assert found["source"][pairs[3].id] == found["source"][pairs[23].id]
