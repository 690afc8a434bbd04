"""Every way in which a task file can be bad, and that the error says where."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kv_claims.errors import UsageError
from kv_claims.tasks.load import load_task
from kv_claims.tasks.messages import Message
from kv_claims.tasks.scorers import Lexicon, Published
from kv_claims.tasks.task import Prompt

GOOD: dict[str, Any] = {
    "schema": 1,
    "name": "weather",
    "about": "Does rain carry over?",
    "scorer": "lexicon",
    "lexicon": ["rain", "rains", "self-aware", "o'clock"],
    "pairing": "one-to-one",
    "sources": [
        {"id": "s1", "family": "letter", "text": "It rains, and I write that it rains."},
        {"id": "s2", "family": "diary", "text": "Rain again; the page is wet."},
    ],
    "bases": [
        {"id": "b1", "family": "geology", "text": "Granite is an igneous rock."},
        {"id": "b2", "family": "botany", "text": "A fern has no flowers."},
    ],
}

Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a task file: text as it is, bytes as they are, anything else as YAML."""

    def write_it(content: Any) -> Path:
        path = tmp_path / "task.yaml"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            text = content if isinstance(content, str) else yaml.safe_dump(content)
            path.write_text(text, encoding="utf-8")
        return path

    return write_it


def changed(*keys: str | int, value: Any) -> dict[str, Any]:
    """GOOD with one value replaced, at a path of keys."""
    content = copy.deepcopy(GOOD)
    inner: Any = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return content


def without(*keys: str | int) -> dict[str, Any]:
    content = copy.deepcopy(GOOD)
    inner: Any = content
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return content


def error_of(path: Path) -> str:
    """The message, which must be a UsageError's and start with the file."""
    with pytest.raises(UsageError) as caught:
        load_task(path)
    message = str(caught.value)
    assert message.startswith(f"task file {path}: ")
    return message.removeprefix(f"task file {path}: ")


# --- good files ----------------------------------------------------------------------------


def test_a_good_file_is_read_whole(write: Write) -> None:
    path = write({**GOOD, "max_degenerate_share": 0.25})
    task = load_task(path)
    assert (task.name, task.about) == ("weather", "Does rain carry over?")
    assert task.sources == tuple(Prompt(**entry) for entry in GOOD["sources"])
    assert task.bases == tuple(Prompt(**entry) for entry in GOOD["bases"])
    assert task.pairing == "one-to-one"
    assert task.lexicon == frozenset(GOOD["lexicon"])
    assert task.scorer == Lexicon(task.lexicon)
    assert task.max_degenerate_share == 0.25
    assert task.where == f"task file {path}"


def test_the_share_of_degenerate_texts_may_be_left_out(write: Write) -> None:
    assert load_task(write(GOOD)).max_degenerate_share == 0.10


@pytest.mark.parametrize("share", [0, 0.0, 0.999], ids=["whole-0", "0", "almost-1"])
def test_shares_that_are_fine(write: Write, share: float) -> None:
    found = load_task(write({**GOOD, "max_degenerate_share": share})).max_degenerate_share
    assert isinstance(found, float)
    assert found == share


def test_the_published_scorer_is_chosen_by_name(write: Write) -> None:
    assert load_task(write(changed("scorer", value="published"))).scorer == Published()


def test_crossed_sets_may_be_of_unequal_size(write: Write) -> None:
    content = without("bases", 1)
    task = load_task(write({**content, "pairing": "crossed"}))
    assert [(pair.source.id, pair.base.id) for pair in task.pairs] == [("s1", "b1"), ("s2", "b1")]


def test_a_path_may_be_text(write: Write) -> None:
    assert load_task(str(write(GOOD))).name == "weather"


def test_texts_are_read_as_unicode_and_kept_as_they_are(write: Write) -> None:
    text = "  Ünïcode «quotes», 雨,\n  and a line of its own.\n"
    assert load_task(write(changed("sources", 0, "text", value=text))).sources[0].text == text


def test_a_byte_order_mark_is_no_part_of_the_first_key(write: Write) -> None:
    assert load_task(write(b"\xef\xbb\xbf" + yaml.safe_dump(GOOD).encode())).name == "weather"


def test_a_file_read_again_is_the_same_task(write: Write) -> None:
    path = write(GOOD)
    one, two = load_task(path), load_task(path)
    assert one == two
    assert one.sha == two.sha


# --- files that are no task ----------------------------------------------------------------


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none.yaml") == "cannot be read (No such file or directory)"


def test_a_folder(tmp_path: Path) -> None:
    assert error_of(tmp_path) == "cannot be read (it is a folder)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("", "expected a mapping at the top, got NoneType", id="empty"),
        pytest.param("- a\n- b\n", "expected a mapping at the top, got list", id="list"),
        pytest.param("just text", "expected a mapping at the top, got str", id="text"),
        pytest.param("a: [1, 2", "not YAML: .*line 1", id="unclosed"),
        pytest.param("name: a\n  about: b\n", "not YAML: .*line 2", id="indented"),
        pytest.param("name: a\n--- \nname: b\n", "not YAML: .*single document", id="two-documents"),
        pytest.param("name: \x07\n", "not YAML: .*special characters", id="control-character"),
        pytest.param(b"name: \xff\xfe\n", "not UTF-8 .*can't decode byte 0xff", id="not-utf-8"),
        pytest.param(
            "name: !!python/name:os.system\n",
            "not YAML: a tag .*os.system.*line 1",
            id="python-tag",
        ),
        pytest.param("name: *unknown\n", "not YAML: an alias .*line 1", id="alias"),
    ],
)
def test_what_is_not_yaml_or_no_mapping(write: Write, content: str | bytes, message: str) -> None:
    assert re.match(message, error_of(write(content)), re.DOTALL)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        pytest.param("name: a\n? [b, c]\n: 1\n", "line 2", id="list-as-key"),
        pytest.param("name: {{ weather }}\n", "line 1", id="template-left-in"),
        pytest.param("about: b\nname: 2024-02-30\n", "", id="date-that-is-none"),
        pytest.param("about: b\nschema: !!int one\n", "", id="tagged-as-a-number"),
    ],
)
def test_yaml_that_cannot_be_built_is_an_error_of_the_file(
    write: Write, content: str, place: str
) -> None:
    """PyYAML itself raises plain TypeError and ValueError for some of these."""
    message = error_of(write(content))
    assert message.startswith("not YAML: ")
    assert place in message


def test_a_text_that_is_no_unicode_is_an_error_of_the_file(write: Write) -> None:
    """Half of a surrogate pair, as cut-off JSON has it: it has no UTF-8, so no hash either."""
    text = (
        yaml.safe_dump(GOOD).replace("Granite is", r'"\ud800 Granite is').replace("rock.", 'rock."')
    )
    assert "half a character" in error_of(write(text))


def test_a_pair_of_halves_is_a_character(write: Write) -> None:
    """As JSON writes an emoji."""
    text = yaml.safe_dump(GOOD)
    assert "Granite is" in text
    text = text.replace("Granite is an igneous rock.", r'"\ud83c\udf0a is a wave."')
    assert load_task(write(text)).bases[0].text == "\U0001f30a is a wave."


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        pytest.param(
            yaml.safe_dump(GOOD, sort_keys=False) + "name: again\n", "'name'", 25, id="at-the-top"
        ),
        pytest.param(
            "name: a\nsources:\n  - id: s1\n    family: f\n    id: s2\n",
            "'id'",
            5,
            id="in-a-prompt",
        ),
        pytest.param("{1: a, 1: b}\n", "1", 1, id="not-text"),
    ],
)
def test_a_key_given_twice_is_refused_with_its_line(
    write: Write, text: str, key: str, line: int
) -> None:
    """PyYAML keeps the last and says nothing: a threshold above would not be in force."""
    message = error_of(write(text))
    assert f"key {key} is given twice" in message
    assert f"line {line}" in message


def test_the_same_key_in_two_mappings_is_not_twice(write: Write) -> None:
    assert len(load_task(write(GOOD)).sources) == 2


# --- keys and their types ------------------------------------------------------------------


@pytest.mark.parametrize("key", GOOD)
def test_a_missing_key_is_named(write: Write, key: str) -> None:
    assert error_of(write(without(key))) == f"missing key {key}"


def test_all_missing_keys_are_named(write: Write) -> None:
    assert error_of(write({"schema": 1, "name": "a"})) == (
        "missing key about, bases, lexicon, pairing, scorer, sources"
    )


@pytest.mark.parametrize("key", ["treshold", "Name", 3], ids=["typo", "capital", "number"])
def test_an_unknown_key_is_named_beside_the_known_ones(write: Write, key: object) -> None:
    message = error_of(write({**GOOD, key: 0.3}))
    assert message.startswith(f"unknown key {key}; expected about, bases, ")
    assert "max_degenerate_share" in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        pytest.param("schema", "1", "a whole number", id="schema-text"),
        pytest.param("schema", 1.0, "a whole number", id="schema-float"),
        pytest.param("schema", True, "a whole number", id="schema-bool"),
        pytest.param("name", 3, "text", id="name-number"),
        pytest.param("name", None, "text", id="name-null"),
        pytest.param("about", ["a"], "text", id="about-list"),
        pytest.param("scorer", ["lexicon"], "text", id="scorer-list"),
        pytest.param("pairing", False, "text", id="pairing-bool"),
        pytest.param("lexicon", "rain", "a list", id="lexicon-text"),
        pytest.param("sources", {"s1": "text"}, "a list", id="sources-mapping"),
        pytest.param("bases", None, "a list", id="bases-null"),
        pytest.param("max_degenerate_share", "10%", "a number", id="share-text"),
        pytest.param("max_degenerate_share", True, "a number", id="share-bool"),
    ],
)
def test_a_key_of_the_wrong_type(write: Write, key: str, value: object, expected: str) -> None:
    assert error_of(write({**GOOD, key: value})) == f"`{key}` is {value!r}, expected {expected}"


def test_a_long_wrong_value_is_shown_in_part(write: Write) -> None:
    message = error_of(write({**GOOD, "name": ["word"] * 100}))
    assert len(message) < 120


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        pytest.param("schema", 2, "schema 2, expected 1", id="schema"),
        pytest.param(
            "pairing",
            "all",
            "pairing 'all', expected one of ('one-to-one', 'crossed')",
            id="pairing",
        ),
        pytest.param(
            "scorer", "gpt", "scorer 'gpt', expected one of ['lexicon', 'published']", id="scorer"
        ),
        *(
            pytest.param(
                "max_degenerate_share",
                share,
                f"max_degenerate_share {share}, expected 0 <= share < 1",
                id=f"share-{share}",
            )
            for share in (1, 1.5, -0.1, float("nan"), float("inf"))
        ),
    ],
)
def test_a_value_out_of_range(write: Write, key: str, value: object, message: str) -> None:
    assert error_of(write({**GOOD, key: value})) == message


def test_a_score_may_be_to_fall(write: Write) -> None:
    assert load_task(write({**GOOD, "falls": True})).falls is True
    assert load_task(write(GOOD)).falls is load_task(write({**GOOD, "falls": False})).falls is False
    for value in (1, "down", None):
        told = f"`falls` is {value!r}, expected true or false"
        assert error_of(write({**GOOD, "falls": value})) == told
    for key in ("schema", "max_degenerate_share"):
        assert f"`{key}` is True, expected " in error_of(write({**GOOD, key: True}))
    answered = {side: [{**one, "answer": " yes"} for one in GOOD[side]] for side in ("sources",)}
    bare = {key: GOOD[key] for key in GOOD if key not in ("scorer", "lexicon")}
    told = "`falls` without `scorer`, whose score it is about"
    assert error_of(write({**bare, **answered, "falls": True})) == told


# --- the lexicon ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param("Rain", id="capital"),
        pytest.param("two words", id="two-words"),
        pytest.param("rain,", id="comma"),
        pytest.param("", id="empty"),
        pytest.param("h2o", id="digit"),
        pytest.param("rain-", id="open-hyphen"),
        pytest.param("rain*", id="pattern"),
        pytest.param(3, id="number"),
        pytest.param(None, id="null"),
        # YAML 1.1 reads a bare `no` as this.
        pytest.param(False, id="bare-no"),
    ],
)
def test_a_lexicon_entry_is_one_whole_word_in_lower_case(write: Write, entry: object) -> None:
    message = error_of(write({**GOOD, "lexicon": ["rain", entry]}))
    assert message.startswith(f"lexicon entry {entry!r}, expected one whole word in lower case")


def test_an_empty_lexicon(write: Write) -> None:
    message = error_of(write({**GOOD, "lexicon": []}))
    assert message == "`lexicon` is empty, expected at least one word"


def test_lexicon_words_given_twice_are_named(write: Write) -> None:
    message = error_of(write({**GOOD, "lexicon": ["sun", "rain", "sun", "rain", "hail"]}))
    assert message == "lexicon words given twice: rain, sun"


# --- prompts -------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["sources", "bases"])
@pytest.mark.parametrize("key", ["id", "family", "text"])
def test_a_prompt_without_a_key_is_named_by_its_number(write: Write, side: str, key: str) -> None:
    missing = "text or messages" if key == "text" else key
    assert error_of(write(without(side, 1, key))) == f"{side} entry 2: missing key {missing}"


@pytest.mark.parametrize("side", ["sources", "bases"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("text", "", id="empty-text"),
        pytest.param("text", " \n\t", id="blank-text"),
        pytest.param("text", None, id="null-text"),
        pytest.param("id", 7, id="number-as-id"),
        pytest.param("id", "", id="empty-id"),
        pytest.param("family", ["a"], id="list-as-family"),
    ],
)
def test_a_prompt_with_a_bad_value(write: Write, side: str, key: str, value: object) -> None:
    message = error_of(write(changed(side, 0, key, value=value)))
    assert message == f"{side} entry 1: `{key}` is {value!r}, expected text, not empty"


def test_a_prompt_with_an_unknown_key(write: Write) -> None:
    message = error_of(write(changed("bases", 1, "weight", value=2)))
    assert message == (
        "bases entry 2: unknown key weight; expected answer, choices, continuation, family, foil, "
        "id, messages, spans, text"
    )


@pytest.mark.parametrize(
    "entry", ["just text", 3, None, ["a"]], ids=["text", "int", "null", "list"]
)
def test_a_prompt_that_is_no_mapping(write: Write, entry: object) -> None:
    message = error_of(write(changed("sources", 1, value=entry)))
    assert message == (
        f"sources entry 2: {entry!r}, expected a mapping of id, family, and text or messages"
    )


@pytest.mark.parametrize("side", ["sources", "bases"])
def test_no_prompts(write: Write, side: str) -> None:
    message = error_of(write({**GOOD, side: []}))
    assert message == f"`{side}` is empty, expected at least one prompt"


@pytest.mark.parametrize("side", ["sources", "bases"])
def test_an_id_used_twice(write: Write, side: str) -> None:
    first = GOOD[side][0]["id"]
    message = error_of(write(changed(side, 1, "id", value=first)))
    assert message == f"{side} {first!r}: the id is used twice, expected one text an id"


@pytest.mark.parametrize("side", ["sources", "bases"])
def test_a_text_given_twice_names_both(write: Write, side: str) -> None:
    first, second = (entry["id"] for entry in GOOD[side])
    message = error_of(write(changed(side, 1, "text", value=GOOD[side][0]["text"])))
    assert message == f"{side} {second!r}: the same text as {first!r}"


def test_one_text_as_source_and_as_base_names_both(write: Write) -> None:
    message = error_of(write(changed("bases", 1, "text", value=GOOD["sources"][0]["text"])))
    assert message.startswith("source 's1' and base 'b2' are the same text")


def test_one_to_one_needs_as_many_sources_as_bases(write: Write) -> None:
    message = error_of(write(without("bases", 1)))
    assert message == ("pairing 'one-to-one' with 2 sources and 1 bases, expected as many of each")


# --- messages ------------------------------------------------------------------------------

CHAT = [
    {"role": "system", "content": "You observe yourself."},
    {"role": "user", "content": "What do you notice?"},
    {"role": "assistant", "content": "I notice"},
]


def with_messages(messages: Any, **more: Any) -> dict[str, Any]:
    """GOOD with messages in the place of the second source's text."""
    return changed(
        "sources", 1, value={"id": "s2", "family": "diary", "messages": messages, **more}
    )


def test_messages_stand_in_the_place_of_a_text(write: Write) -> None:
    task = load_task(write(with_messages(CHAT)))
    plain, chat = task.sources
    assert plain.messages is None
    assert chat.messages == tuple(Message(**one) for one in CHAT)
    assert chat.text == (
        "[system]\n  You observe yourself.\n[user]\n  What do you notice?\n[assistant]\n  I notice"
    )
    assert task.has_messages
    assert not load_task(write(GOOD)).has_messages


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        pytest.param("hello", "`messages` is 'hello', expected a list", id="text"),
        pytest.param(None, "`messages` is None, expected a list", id="nothing"),
        pytest.param(["hello"], "message 1: 'hello', expected a mapping", id="no-mapping"),
        pytest.param([{"role": "user"}], "message 1: missing key content", id="without-a-content"),
        pytest.param(
            [{"role": "user", "content": "a", "name": "Ann"}],
            "message 1: unknown key name; expected content, role",
            id="unknown-key",
        ),
        pytest.param(
            [{"role": "user", "content": ["a"]}],
            "message 1: `content` is ['a'], expected text, not empty",
            id="content-in-parts",
        ),
        pytest.param(
            [{"role": "user", "content": " "}],
            "message 1: `content` is ' ', expected text, not empty",
            id="empty",
        ),
    ],
)
def test_messages_that_are_none(write: Write, messages: Any, message: str) -> None:
    found = error_of(write(with_messages(messages))).removeprefix("sources entry 2")
    assert found.lstrip(": ").startswith(message)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        pytest.param([], ": `messages` is empty, expected at least a user's", id="none"),
        pytest.param(CHAT[::2], ": no message of role 'user', expected at least one", id="no-user"),
        pytest.param(
            [{"role": "bot", "content": "a"}],
            " message 1: role 'bot', expected one of system, user, assistant",
            id="role",
        ),
        pytest.param(
            [{"role": "user", "content": "\u200b"}],
            " message 1 (user): the content is empty",
            id="nothing-that-shows",
        ),
    ],
)
def test_messages_that_make_no_chat(write: Write, messages: Any, message: str) -> None:
    assert error_of(write(with_messages(messages))) == f"sources 's2'{message}"


def test_a_text_and_messages_are_one_too_many(write: Write) -> None:
    message = error_of(write(with_messages(CHAT, text="What do you notice?")))
    assert message == "sources entry 2: `text` and `messages`, expected one of them"


def test_chats_that_look_alike_are_one(write: Write) -> None:
    content = with_messages(CHAT)
    again = copy.deepcopy([*CHAT[:2], {**CHAT[2], "content": "I\u200b  notice"}])
    content["sources"][0] = {"id": "s1", "family": "letter", "messages": again}
    assert "the same text" in error_of(write(content))
    content["sources"][0]["messages"] = copy.deepcopy(CHAT[:2])
    assert len(load_task(write(content)).sources) == 2
