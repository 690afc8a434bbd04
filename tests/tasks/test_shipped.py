"""The task files that come with the project."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from kv_claims.tasks.load import load_task
from kv_claims.tasks.scorers import Lexicon, Unscored
from kv_claims.tasks.task import Prompt, Task, sha256
from kv_claims.tasks.words import words_of
from tests.tasks.bank import EARLIER, KINDS, NARRATIVE, auc, shares

FOLDER = Path(__file__).parents[2] / "claims/tasks"
FILES = sorted(FOLDER.glob("*.yaml"))
FEWEST_WORDS = 48
"""The longest window of the claims is 32 positions, of prompts whose last token is not cached."""
EARLIER_SHA = "c4ef336444f25f8f61f1c48d004a53c99a253f8ad2f934a6f99f40ec7800d6f0"
LEXICON_SHA = "903bb91a3293806260340feb4362ff1561a14aca59b12a297d61aef106a8a263"

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def self_observation() -> Task:
    return load_task(FOLDER / "self_observation.yaml")


def prompts_of(task: Task) -> tuple[Prompt, ...]:
    return (*task.sources, *task.bases)


def test_there_are_files() -> None:
    assert {"self_observation", "sea_stories"} <= {path.stem for path in FILES}


@each_file
def test_it_loads_under_its_own_name(path: Path) -> None:
    task = load_task(path)
    assert task.name == path.stem
    assert task.about.strip()
    assert len(task.pairs) >= 10


@each_file
def test_ids_are_unique_over_sources_and_bases(path: Path) -> None:
    counts = Counter(prompt.id for prompt in prompts_of(load_task(path)))
    assert [id for id, count in counts.items() if count > 1] == []


@each_file
def test_families_are_tagged_and_several(path: Path) -> None:
    """The unrelated donor is of another family, so there must be one for every base."""
    task = load_task(path)
    for side in (task.sources, task.bases):
        assert len({prompt.family for prompt in side}) > 1
    for pair in task.pairs:
        assert next(task.unrelated(pair)).family != pair.base.family


@each_file
def test_the_lexicon_tells_sources_from_bases(path: Path) -> None:
    """A scorer that does not separate the prompts themselves measures something else.

    By the AUC, which does not depend on how many bases there are: "above the highest base" does,
    and one knot (`bowline` ties three loops) would decide it.
    """
    task = load_task(path)
    if isinstance(task.scorer, Unscored):
        assert all(one.answers for one in prompts_of(task))
        return
    score = Lexicon(task.lexicon)
    assert auc(*([score(p.text) for p in side] for side in (task.sources, task.bases))) >= 0.9


def test_who_is_given_asks_for_the_name_that_does_not_act() -> None:
    """A pair differs in one word, and in its answer; no two scenes are alike but for names."""
    task = load_task(FOLDER / "who_is_given.yaml")
    assert len(task.pairs) >= 60
    first = 0
    scenes = set()
    for pair in task.pairs:
        words = [one.text.replace(",", " ,").split() for one in (pair.source, pair.base)]
        assert [a != b for a, b in zip(*words, strict=True)].count(True) == 1
        given = [one.answers.answer.strip() for one in (pair.source, pair.base) if one.answers]
        assert len(set(given)) == 2
        for said, answer in zip(words, given, strict=True):
            assert said[-1] == "to"
            assert (said.count(answer), said.count(*({*given} - {answer}))) == (1, 2)
        named = [word for word in words[0] if word in given]
        first += named[0] == given[0]
        scenes.add(" ".join("NAME" if word in given else word for word in words[0]))
    assert len(scenes) == len(task.pairs)
    assert first == len(task.pairs) // 2  # in every other pair: no place in a text is right


def test_self_observation_has_enough_pairs(self_observation: Task) -> None:
    assert len(self_observation.pairs) >= 160


def test_self_observation_keeps_its_first_pairs(self_observation: Task) -> None:
    """The pairs of earlier runs, as they were, come first: `--pairs 48` compares with those."""
    earlier = self_observation.first_pairs(EARLIER)
    assert sha256("".join(pair.id for pair in earlier)) == EARLIER_SHA


def test_self_observation_keeps_its_lexicon(self_observation: Task) -> None:
    """It was written down before any text was counted; no count may change it."""
    assert sha256(" ".join(sorted(self_observation.lexicon))) == LEXICON_SHA


@pytest.mark.parametrize("kind", KINDS)
def test_self_observation_is_balanced(kind: str, self_observation: Task) -> None:
    """The register is to be the difference, not person, tense, prose or where texts stop."""
    task = self_observation
    sources, bases = (shares(side)[kind] / len(side) for side in (task.sources, task.bases))
    assert abs(sources - bases) <= 0.08
    assert min(sources, bases) >= 0.1


def test_self_observation_narrative_is_tagged_by_ids_that_exist(self_observation: Task) -> None:
    assert {prompt.id for prompt in prompts_of(self_observation)} >= NARRATIVE


def test_self_observation_has_many_families(self_observation: Task) -> None:
    for side in (self_observation.sources, self_observation.bases):
        families = Counter(prompt.family for prompt in side)
        assert len(families) >= 100
        assert max(families.values()) <= 4


def test_self_observation_texts_hold_the_widest_window(self_observation: Task) -> None:
    words = {prompt.id: len(words_of(prompt.text)) for prompt in prompts_of(self_observation)}
    assert {id: n for id, n in words.items() if n < FEWEST_WORDS} == {}


def test_self_observation_texts_share_no_run_of_five_words(self_observation: Task) -> None:
    """Texts that share a template would be one cluster, not two pairs."""
    runs = {}
    for prompt in prompts_of(self_observation):
        words = words_of(prompt.text)
        runs[prompt.id] = set(zip(*(words[i:] for i in range(5)), strict=False))
    shared = {
        (one, two): runs[one] & runs[two]
        for one, two in combinations(runs, 2)
        if runs[one] & runs[two]
    }
    assert shared == {}


def test_self_observation_pairs_are_of_similar_length(self_observation: Task) -> None:
    """Matched by rank of word count, as the file says: no pair is off by more than a fifth."""
    gaps = []
    for pair in self_observation.pairs:
        source, base = (len(words_of(prompt.text)) for prompt in (pair.source, pair.base))
        gaps.append(source - base)
        assert abs(source - base) <= 0.2 * max(source, base), (pair.source.id, pair.base.id)
    assert max(map(abs, gaps[EARLIER:])) <= 8
    assert abs(sum(gaps)) / len(gaps) <= 3
