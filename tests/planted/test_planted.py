"""Planted models are ordinary models, and their tasks are what they say; the truth has its own."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from kv_claims.models.load import load_model
from kv_claims.planted.build import build_planted, save_planted
from kv_claims.planted.catalog import CATALOG, STYLES, style_of
from kv_claims.planted.prompts import planted_task
from kv_claims.planted.words import MARKERS, PLAIN, STYLED, TRIGGERS
from kv_claims.tasks.words import words_of

CLASSES = (MARKERS, PLAIN, TRIGGERS, STYLED)


def test_word_classes_are_disjoint_and_large() -> None:
    assert len(MARKERS) == len(PLAIN) >= 100
    every = [word for words in CLASSES for word in words]
    assert len(set(every)) == len(every)
    assert all(words_of(word) == [word] for word in every)


@pytest.mark.parametrize("name", CATALOG)
def test_tasks_are_stable_and_never_repeat_a_prompt(name: str) -> None:
    planted = CATALOG[name]
    few, many = planted_task(planted, 20), planted_task(planted, 300)
    assert [pair.id for pair in few.pairs] == [pair.id for pair in many.pairs[:20]]
    texts = [prompt.text for prompt in (*many.sources, *many.bases)]
    assert len(set(texts)) == 600
    lengths = np.array([len(text.split()) for text in texts])
    assert (lengths.min(), lengths.max()) == (36, 44)
    words = {word for text in texts for word in text.split()}
    assert words <= set(planted.words) - set(MARKERS)


def test_what_prompts_are_made_of() -> None:
    """Triggers stand where the model says, in sources alone."""
    for planted in CATALOG.values():
        task = planted_task(planted, 10)
        for prompt in task.sources:
            words = prompt.text.split()
            assert [word in TRIGGERS for word in words] == planted.is_trigger(len(words))
        assert not any(word in TRIGGERS for prompt in task.bases for word in prompt.text.split())


def test_a_styled_prompt_has_one_style_and_no_source_that_of_a_base() -> None:
    task = planted_task(CATALOG["disrupted"], 100)
    found = {}
    for side, prompts in (("base", task.bases), ("source", task.sources)):
        found[side] = [
            {tuple(style_of(word, bit) for bit in range(3)) for word in prompt.text.split()}
            for prompt in prompts
        ]
        assert all(len(styles) == 1 for styles in found[side])
        assert len(set().union(*found[side])) == len(STYLES[side]) == 4
    assert not set().union(*found["base"]) & set().union(*found["source"])


def test_a_model_is_built_in_well_under_a_second() -> None:
    # A bound for a broken build, ten times what it takes; speed itself is in benchmarks/.
    started = time.process_time()
    build_planted(CATALOG["distributed"])
    assert time.process_time() - started < 5


@pytest.mark.parametrize("name", CATALOG)
def test_a_saved_folder_is_an_ordinary_model(name: str, tmp_path: Path) -> None:
    save_planted(CATALOG[name], tmp_path)
    folder = load_model(str(tmp_path), device="cpu", dtype="float64")
    memory = load_model(f"planted:{name}", device="cpu")
    assert folder.planted is None
    text = planted_task(CATALOG[name], 1).pairs[0].source.text
    ids = folder.encode(text)
    assert ids == memory.encode(text)
    assert len(ids) == len(text.split())
    with torch.no_grad():
        found, wanted = (m.network(torch.tensor([ids])).logits for m in (folder, memory))
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", CATALOG)
def test_only_markers_and_plain_words_are_ever_generated(name: str) -> None:
    model = load_model(f"planted:{name}", device="cpu")
    words = model.encode(" ".join((*MARKERS, *PLAIN)))
    for prompt in (
        planted_task(CATALOG[name], 1).pairs[0].source,
        planted_task(CATALOG[name]).bases[0],
    ):
        with torch.no_grad():
            logits = model.network(torch.tensor([model.encode(prompt.text)])).logits[0, -1]
        chances = torch.softmax(logits / 0.7, -1)
        assert float(chances[words].sum()) == pytest.approx(1, abs=1e-12)
    assert model.decode(words) == " ".join((*MARKERS, *PLAIN))
