"""Answers as tokens: those of prompt and answer less the prompt's, and what is refused of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from kv_claims.claims.outcome import ANSWER_NAMES, Outcome
from kv_claims.errors import UsageError
from kv_claims.models.load import LoadedModel
from kv_claims.run.behind import TextsBehind
from kv_claims.tasks.answers import Answers
from kv_claims.tasks.messages import Message
from kv_claims.tasks.task import Pair, Prompt
from tests.models.architectures import tiny


def _byte_pairs() -> PreTrainedTokenizerFast:
    """Letters, with a blank before or not, and some merges: `ab`, `Ġab`, `Ġa`, `cd`."""
    letters = [*"abcde", "Ġ"]
    merges = [("a", "b"), ("Ġ", "ab"), ("Ġ", "a"), ("c", "d"), ("Ġ", "c")]
    words = [*letters, *("".join(pair) for pair in merges)]
    backend = Tokenizer(BPE({word: n for n, word in enumerate(words)}, merges))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = ByteLevelDecoder()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.fixture(scope="module")
def numbers() -> LoadedModel:
    return tiny("llama")


@pytest.fixture(scope="module")
def letters() -> LoadedModel:
    """A model whose tokens depend on what stands around them."""
    return replace(tiny("llama"), tokenizer=_byte_pairs())


def pair(
    source: Answers | None,
    base: Answers | None = None,
    *,
    ends: tuple[str, str] = ("3", "4"),
    **more: Any,
) -> Pair:
    return Pair(
        0,
        Prompt("s", "f", f"1 {ends[0]}", answers=source, **more),
        Prompt("b", "f", f"2 {ends[1]}", answers=base),
    )


def test_a_text_is_what_is_left_of_prompt_and_text(numbers: LoadedModel) -> None:
    asked = TextsBehind(numbers).of(pair(Answers(" 5 6"), Answers(" 7")), "answers")
    assert asked.tokens == ((5, 6), (7,))
    assert asked.options.texts == (" 5 6", " 7")
    more = pair(Answers(" 5"), continuation=" 8 9 10")
    assert TextsBehind(numbers).of(more, "continuation").tokens == ((8, 9, 10),)


@given(st.text("abcd ", min_size=1, max_size=12), st.text("abcd ", min_size=1, max_size=6))
def test_a_text_is_read_as_in_the_whole_or_refused(prompt: str, text: str) -> None:
    """The law, on a tokenizer whose tokens join over the border wherever they can."""
    model = replace(tiny_letters(), tokenizer=_LETTERS)
    own, whole = model.encode(prompt), model.encode(prompt + text)
    one = Prompt("p", "f", prompt)
    if whole[: len(own)] != own:
        with pytest.raises(UsageError, match=r"prompt 'p' and .* they meet inside a token"):
            model.behind(one, text)
        return
    found = model.behind(one, text)
    assert own + found == whole
    assert found
    assert model.decode(found) == text


_LETTERS, _MODELS = _byte_pairs(), dict[str, LoadedModel]()


def tiny_letters() -> LoadedModel:
    return _MODELS.setdefault("llama", tiny("llama"))


@pytest.mark.parametrize(
    ("prompt", "text", "message"),
    [
        ("ba", "b", "they meet inside a token: the prompt ends in 'a' alone and is read as 'ab'"),
        ("b ", "a", "(a blank at the end of the prompt belongs in front of the text)"),
    ],
)
def test_a_border_inside_a_token_is_refused(
    prompt: str, text: str, message: str, letters: LoadedModel
) -> None:
    with pytest.raises(UsageError) as error:
        letters.behind(Prompt("p", "f", prompt), text)
    assert message in str(error.value)


def test_the_blank_before_a_text_belongs_to_it(letters: LoadedModel) -> None:
    words = letters.tokenizer.convert_ids_to_tokens(letters.behind(Prompt("p", "f", "b"), " ab"))
    assert words == ["Ġab"]


def test_words_that_the_vocabulary_lacks_are_refused() -> None:
    from kv_claims.models.load import load_model

    model = load_model("planted:relay", device="cpu")
    with pytest.raises(UsageError, match="the vocabulary lacks some of its words"):
        model.behind(Prompt("p", "f", "river valley"), " zeppelin")
    assert len(model.behind(Prompt("p", "f", "river valley"), " mirror loop")) == 2


@pytest.mark.parametrize(
    ("source", "base", "message"),
    [
        (" 5", " 102", r"' 5' and ' 102' are the same tokens \[5\]"),
        (" 5 6", " 5", r"' 5 6' begins with all the tokens of ' 5', so that it can never be"),
        (" 5", " 5 6", r"' 5 6' begins with all the tokens of ' 5'"),
    ],
)
def test_answers_that_are_no_alternatives_are_refused(
    source: str, base: str, message: str, numbers: LoadedModel
) -> None:
    """97 tokens are known here, and a number is its rest."""
    with pytest.raises(UsageError, match=f"pair 0 .*: {message}"):
        TextsBehind(numbers).of(pair(Answers(source), Answers(base)), "answers")


def test_other_tokens_behind_the_source_than_behind_the_base_are_refused(
    letters: LoadedModel,
) -> None:
    class Counting:
        """Reads a text by how long what stands before it is."""

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [len(text.split()[0]) + len(w) for w in text.split()]}

        def decode(self, ids: list[int], **_: Any) -> str:
            return str(ids)

    model = replace(letters, tokenizer=Counting())
    one = Pair(0, Prompt("s", "f", "aa b", answers=Answers(" c")), Prompt("b", "f", "a b"))
    with pytest.raises(UsageError, match=r"' c' is \[3\] behind the source and \[2\] behind"):
        TextsBehind(model).of(one, "answers")


@pytest.mark.parametrize(
    ("outcome", "source", "message"),
    [
        ("logit_diff", Answers(" 5"), "no foil; expected `foil` in the source's entry"),
        ("logit_diff", Answers(" 5", choices=(" 5", " 6", " 7")), "no foil"),
        ("accuracy", Answers(" 5"), "no foil and no choices"),
        ("choice", Answers(" 5", " 6"), "no choices; expected `choices`"),
        ("rank", Answers(" 5 6", " 7"), "has 2 tokens, and only single tokens have a rank"),
        ("prob", None, "no answer; expected `answer` in the source's entry"),
        ("loss", Answers(" 5"), "no continuation; expected `continuation`"),
    ],
)
def test_an_outcome_that_a_pair_has_not_is_refused(
    outcome: str, source: Answers | None, message: str, numbers: LoadedModel
) -> None:
    with pytest.raises(UsageError, match=message):
        TextsBehind(numbers).check([Outcome.parse(outcome)], [pair(source)])


def test_every_outcome_is_had_by_a_pair_with_choices(numbers: LoadedModel) -> None:
    whole = pair(Answers(" 5", choices=(" 5", " 6")))
    TextsBehind(numbers).check(map(Outcome.parse, ANSWER_NAMES), [whole])


def test_lengths_over_pairs(numbers: LoadedModel) -> None:
    pairs = [
        pair(Answers(" 5 6 7", " 8")),
        replace(pair(Answers(" 5 6", " 8"), ends=("9", "9")), index=1),
    ]
    behind, outcome = TextsBehind(numbers), Outcome.parse("prob")
    assert behind.longest([outcome], pairs) == 3
    assert behind.fewest_read(outcome, pairs) == 2
    assert behind.longest([Outcome.parse("loglik")], pairs) == 0
    assert behind.fewest_read(Outcome.parse("loglik"), pairs) is None


def test_a_chats_answer_follows_what_its_template_writes(numbers: LoadedModel) -> None:
    class Chatting(type(numbers.tokenizer)):  # type: ignore[misc]
        chat_template = "x"

        def get_chat_template(self) -> str:
            return "x"

        def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
            return "".join(f"90 {one['content']} 91 " for one in messages) + "92 "

    model = replace(numbers, tokenizer=Chatting())
    answers = Answers("5")
    one = Pair(
        0,
        Prompt.of("s", "f", [Message("user", "1 3")], answers=answers),
        Prompt.of("b", "f", [Message("user", "2 4")], answers=Answers("6")),
    )
    assert model.tokens(one.source) == [90, 1, 3, 91, 92]
    assert TextsBehind(model).of(one, "answers").tokens == ((5,), (6,))
