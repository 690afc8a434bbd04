"""Text to tokens and back: what stands around a prompt, what ends a text, what identifies both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel, load_model
from kv_claims.models.tokens import Tokenization, around
from kv_claims.planted.catalog import CATALOG
from kv_claims.run.arms import BASE, SOURCE
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.tasks.scorers import Lexicon
from kv_claims.tasks.task import Prompt, Task
from tests.models.architectures import tiny

WORDS = ["<unk>", "<s>", "</s>", "<|end|>", "0", "the", "sea", "is", "wide", ".", "do", "n't"]
"""Token n is the n-th word."""
START, END, TURN, THE, SEA = 1, 2, 3, 5, 6


def word_tokenizer(template: str = "", **options: Any) -> PreTrainedTokenizerFast:
    """A tokenizer of some words. template: what it puts around a text, such as `<s> $A </s>`."""
    backend = Tokenizer(WordLevel({w: n for n, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    if template:
        special = [(w, n) for n, w in enumerate(WORDS) if w in template.split()]
        backend.post_processor = TemplateProcessing(single=template, special_tokens=special)
    named = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{**named, "extra_special_tokens": ["<|end|>"], **options},
    )


def network(**config: Any) -> LlamaForCausalLM:
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return LlamaForCausalLM(
        LlamaConfig(
            **{**ends, **config},
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
        )
    )


def reading(tokenizer: Any, model: Any = None) -> Tokenization:
    return Tokenization("small", tokenizer, network() if model is None else model)


def saved(to: Path, tokenizer: Any, model: Any = None) -> Path:
    """A model's folder."""
    torch.manual_seed(0)
    (model or network()).save_pretrained(to)
    tokenizer.save_pretrained(to)
    return to


def set_in(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **values}), encoding="utf-8")


# --- what stands around a prompt -----------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "before", "behind"),
    [
        pytest.param("", (), (), id="nothing"),
        pytest.param("<s> $A", (START,), (), id="bos"),
        pytest.param("$A </s>", (), (END,), id="eos"),
        pytest.param("<s> $A </s>", (START,), (END,), id="both"),
        pytest.param("<s> <|end|> $A </s> <|end|>", (START, TURN), (END, TURN), id="several"),
    ],
)
def test_a_prompt_starts_as_the_tokenizer_says_and_ends_with_its_text(
    template: str, before: tuple[int, ...], behind: tuple[int, ...]
) -> None:
    tokenizer = word_tokenizer(template)
    assert around(tokenizer) == (before, behind)
    found = reading(tokenizer)
    assert found.encode("the sea") == [*before, THE, SEA]
    described = found.describe()
    assert described["starts_with"]["ids"] == list(before)
    assert described["not_fed"] == {
        "ids": list(behind),
        "tokens": [WORDS[token] for token in behind],
    }


@pytest.mark.parametrize("text", ["the sea", "<s> the sea", "<s> <s> the sea", "<s>the sea"])
def test_a_prompt_has_one_bos_whoever_brings_it(text: str) -> None:
    both = word_tokenizer("<s> $A </s>")
    assert list(both("<s> the sea")["input_ids"]) == [START, START, THE, SEA, END], "as it was"
    assert reading(both).encode(text) == [START, THE, SEA]


def test_what_a_text_brings_stays_where_the_tokenizer_adds_nothing() -> None:
    """Its own start, names of special tokens within it, and its own end."""
    plain = reading(word_tokenizer())
    assert plain.encode("<s> the <|end|> sea </s>") == [START, THE, TURN, SEA, END]
    ended = reading(word_tokenizer("$A </s>"))
    assert ended.encode("the sea </s>") == [THE, SEA, END]
    assert ended.encode("the </s> sea") == [THE, END, SEA]


def test_a_bos_that_the_tokenizer_config_asks_for_is_added(tmp_path: Path) -> None:
    """transformers reads `tokenizer.json` alone, and this one's adds nothing."""
    folder = saved(tmp_path / "m", word_tokenizer())
    assert load_model(str(folder), device="cpu").encode("the sea") == [THE, SEA]
    set_in(folder / "tokenizer_config.json", add_bos_token=True)
    assert list(AutoTokenizer.from_pretrained(folder)("the sea")["input_ids"]) == [THE, SEA]
    model = load_model(str(folder), device="cpu")
    assert model.encode("the sea") == model.encode("<s> the sea") == [START, THE, SEA]


def test_a_bos_that_is_there_already_is_not_asked_for_twice(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", word_tokenizer("<s> $A </s>"))
    before = load_model(str(folder), device="cpu").tokenization
    set_in(folder / "tokenizer_config.json", add_bos_token=True)
    after = load_model(str(folder), device="cpu").tokenization
    assert after.encode("the sea") == [START, THE, SEA]
    assert after.around == before.around == ((START,), (END,))


def test_a_tokenizer_that_reads_no_text_is_refused() -> None:
    class Deaf:
        def __call__(self, _text: str, **_: object) -> dict[str, list[int]]:
            return {"input_ids": []}

    with pytest.raises(UsageError, match=r"^tokenizer Deaf: reads none of the texts"):
        around(Deaf())


def test_a_tokenizer_that_wraps_texts_in_turns_is_refused() -> None:
    class Moody:
        def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
            wrapped = add_special_tokens and text != "the"
            return {"input_ids": [START, THE] if wrapped else [THE]}

    with pytest.raises(UsageError, match=r"'small'.*puts \[1\] before and \[\] behind .*'the'"):
        reading(Moody()).encode("the")


def test_planted_models_and_number_tokenizers_have_nothing_around() -> None:
    for name in CATALOG:
        model = load_model(f"planted:{name}", device="cpu")
        assert model.tokenization.around == ((), ())
        assert model.stop_ids == frozenset()
        assert model.encode("River zork") == list(model.tokenizer("river zork")["input_ids"])
    assert tiny("llama").encode("5 17 3") == [5, 17, 3]
    assert tiny("llama").stop_ids == frozenset()


def test_stories_has_one_bos_and_its_end(stories: LoadedModel) -> None:
    text = "Once upon a time"
    theirs = list(stories.tokenizer(text)["input_ids"])
    assert stories.encode(text) == stories.encode("<s>" + text)[: len(theirs)] == theirs
    assert theirs[0] == 1
    assert 1 not in theirs[1:]
    assert stories.stop_ids == {2}


# --- what ends a text ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("generation", "config", "tokenizer", "stops"),
    [
        pytest.param(None, None, None, {}, id="nobody"),
        pytest.param(4, None, None, {"generation_config": [4]}, id="generation-config"),
        pytest.param([4, 9], None, None, {"generation_config": [4, 9]}, id="a-list"),
        pytest.param(None, 5, None, {"config": [5]}, id="config"),
        pytest.param(None, None, "</s>", {"tokenizer": [END]}, id="tokenizer"),
        pytest.param(
            4,
            [5, 9],
            "</s>",
            {"generation_config": [4], "config": [5, 9], "tokenizer": [END]},
            id="all",
        ),
    ],
)
def test_a_text_ends_where_anybody_says_so(
    generation: Any, config: Any, tokenizer: str | None, stops: Mapping[str, list[int]]
) -> None:
    model = network()
    model.config.eos_token_id = config
    model.generation_config.eos_token_id = generation
    found = reading(word_tokenizer(eos_token=tokenizer), model)
    told = {who: ids for who, ids in found.describe()["stop_ids"].items() if ids}
    assert told == stops
    assert found.stops.all == {token for ids in stops.values() for token in ids}


def test_an_end_that_no_config_states_is_another_vocabularys() -> None:
    """Llama's class says 2; to this tokenizer that is a word, and no text ends with it."""
    model = network(eos_token_id=2)
    assert model.config.eos_token_id == LlamaConfig().eos_token_id == 2
    model.generation_config.eos_token_id = 9
    plain = word_tokenizer(eos_token=None)
    assert reading(word_tokenizer(), model).stops.config == (2,)
    backend = json.loads(plain.backend_tokenizer.to_str())
    backend["added_tokens"] = [t for t in backend["added_tokens"] if t["content"] != "</s>"]
    unaware = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(backend)))
    assert reading(unaware, model).stops == ((9,), (), ())


@pytest.mark.parametrize("told", ["2", [True], -1, 2.5])
def test_an_end_that_is_no_token_id_is_one_clear_error(told: Any) -> None:
    model = network()
    model.generation_config.eos_token_id = told
    with pytest.raises(UsageError, match=r"'small': eos_token_id of its generation_config is"):
        _ = reading(word_tokenizer(), model).stops


def test_a_tokenizers_end_stops_a_text_that_the_generation_config_lets_go_on(
    tmp_path: Path,
) -> None:
    model = load_model(str(saved(tmp_path / "m", word_tokenizer())), device="cpu")
    assert model.network.generation_config.eos_token_id is None
    assert model.stop_ids == {END}


# --- what prompts hold ---------------------------------------------------------------------


def test_prompts_that_are_no_plain_text_are_counted() -> None:
    found = reading(word_tokenizer("<s> $A </s>"))
    texts = ["the sea", "<s> the sea", "the <|end|> sea", "the sea </s>", "the zork sea"]
    assert found.in_prompts(Prompt(text, "", text) for text in texts) == {
        "prompts": 5,
        "with_special_tokens": 2,
        "with_stop_ids": 1,
        "with_unknown_words": 1,
    }
    assert found.decode([START, THE, TURN, SEA, END]) == "the sea"


# --- identity ------------------------------------------------------------------------------


def written(tmp_path: Path) -> Path:
    backend = word_tokenizer("<s> $A")
    backend.backend_tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return saved(tmp_path / "m", backend)


def sha_of(folder: Path) -> str:
    return load_model(str(folder), device="cpu").tokenization.sha


def flip_cleanup(folder: Path) -> None:
    set_in(folder / "tokenizer_config.json", clean_up_tokenization_spaces=True)


def split_special(folder: Path) -> None:
    set_in(folder / "tokenizer_config.json", split_special_tokens=True)


def other_word(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"wide"', '"deep"'), encoding="utf-8")


def more_special(folder: Path) -> None:
    set_in(folder / "tokenizer_config.json", extra_special_tokens=["<|end|>", "<|more|>"])


def other_decoder(folder: Path) -> None:
    set_in(folder / "tokenizer.json", decoder=None)


def other_end(folder: Path) -> None:
    set_in(folder / "tokenizer_config.json", eos_token="<|end|>")


def asked_bos(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    set_in(folder / "tokenizer.json", **{**content, "post_processor": None})


@pytest.mark.parametrize(
    "change",
    [
        flip_cleanup,
        split_special,
        other_word,
        more_special,
        other_decoder,
        other_end,
        asked_bos,
    ],
)
def test_whatever_decides_tokens_or_text_is_in_the_identity(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    folder = written(tmp_path)
    before = sha_of(folder)
    change(folder)
    assert sha_of(folder) != before


def test_a_flipped_clean_up_gives_other_texts_of_the_same_tokens(tmp_path: Path) -> None:
    """So a stored text of the one must not be taken for one of the other."""
    folder = written(tmp_path)
    ids = [THE, SEA, 9, 10, 11]
    before = load_model(str(folder), device="cpu").decode(ids)
    flip_cleanup(folder)
    assert load_model(str(folder), device="cpu").decode(ids) != before


def test_texts_of_an_earlier_clean_up_are_not_read_from_the_ledger(tmp_path: Path) -> None:
    """The same folder and ledger, one flag of the tokenizer flipped between two runs."""
    folder, task = written(tmp_path), sea_task()

    def texts() -> tuple[int, list[str]]:
        runner = Runner(
            load_model(str(folder), device="cpu"), task, Sampling(20), Ledger(tmp_path / "ledger")
        )
        trials = runner.run([BASE, SOURCE], task.pairs, [0])
        assert [t.text for t in trials] == [runner.model.decode(t.tokens) for t in trials]
        return runner.read, [trial.text for trial in trials]

    read, before = texts()
    assert read == 0
    assert texts() == (len(before), before)
    flip_cleanup(folder)
    read, after = texts()
    assert read == 0
    assert after != before


def sea_task() -> Task:
    def side(words: str) -> tuple[Prompt, ...]:
        return tuple(
            Prompt(f"{words}{n}", words, " ".join([*["sea"] * n, *words.split()])) for n in range(6)
        )

    words = frozenset({"wide"})
    return Task(
        name="sea",
        about="words",
        sources=side("the sea is wide"),
        bases=side("the sea do n't"),
        pairing="one-to-one",
        scorer=Lexicon(words),
        lexicon=words,
    )


def test_where_a_tokenizer_lies_and_what_was_read_with_it_is_not(tmp_path: Path) -> None:
    folder = written(tmp_path)
    model = load_model(str(folder), device="cpu")
    copy = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    before = model.tokenization.sha
    model.tokenizer("the sea", truncation=True, max_length=2)
    again = Tokenization(model.name, model.tokenizer, model.network).sha
    set_in(copy / "tokenizer_config.json", chat_template="{{ messages }}")
    assert before == again == sha_of(copy)


def test_a_vocabulary_in_a_file_is_in_the_identity(tmp_path: Path) -> None:
    """Of a tokenizer without a backend to ask."""

    class Slow:
        vocab_files_names = {"vocab_file": "vocab.txt"}  # noqa: RUF012
        vocab_file = str(tmp_path / "vocab.txt")

    def sha(content: str) -> str:
        (tmp_path / "vocab.txt").write_text(content, encoding="utf-8")
        return reading(Slow()).sha

    assert sha("a b") == sha("a b") != sha("a c")


def test_bpe_reads_a_start_typed_in_the_text_as_one_token() -> None:
    """What transformers does with names of special tokens, which templates of chats rely on."""
    letters = {c: n for n, c in enumerate(["<s>", *"0abcs<>"])}
    backend = Tokenizer(BPE(vocab=letters, merges=[]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    assert reading(tokenizer).encode("ab<s>c") == [2, 3, 0, 4]
