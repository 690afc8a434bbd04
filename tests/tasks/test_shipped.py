"""The task files that come with the project."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from kv_claims.tasks.load import load_task
from kv_claims.tasks.scorers import Lexicon
from kv_claims.tasks.task import Prompt, Task
from kv_claims.tasks.words import words_of

FOLDER = Path(__file__).parents[2] / "claims/tasks"
FILES = sorted(FOLDER.glob("*.yaml"))
FEWEST_WORDS = 48
"""The longest window of the claims is 32 positions, of prompts whose last token is not cached."""

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
    """A scorer that does not separate the prompts themselves measures something else."""
    task = load_task(path)
    score = Lexicon(task.lexicon)
    sources, bases = ([score(p.text) for p in side] for side in (task.sources, task.bases))
    above = sum(score > max(bases) for score in sources) / len(sources)
    assert above >= 0.9


def test_self_observation_has_enough_pairs(self_observation: Task) -> None:
    assert len(self_observation.sources) >= 40
    assert len(self_observation.bases) >= 40


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
    for pair in self_observation.pairs:
        source, base = (len(words_of(prompt.text)) for prompt in (pair.source, pair.base))
        assert abs(source - base) <= 0.2 * max(source, base), (pair.source.id, pair.base.id)
