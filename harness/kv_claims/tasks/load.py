"""Task files: YAML in, `Task` out. Every defect of a file is one error that names the place.

Unknown keys are errors: a threshold that nothing reads must not look as if it were in force
(docs/failures.md names it *unread-thresholds*).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, get_args

from kv_claims.errors import UsageError
from kv_claims.files.given import read_yaml
from kv_claims.files.reading import listed
from kv_claims.tasks.answers import Answers
from kv_claims.tasks.code import CodeFrom
from kv_claims.tasks.directions import AnyDirection, MeanDifference, read_direction
from kv_claims.tasks.messages import Message
from kv_claims.tasks.patterns import stated_scorer
from kv_claims.tasks.python_scorer import python_scorer
from kv_claims.tasks.scorers import Lexicon, Published, Scorer, Unscored
from kv_claims.tasks.task import Pairing, Prompt, Task

SCHEMA = 1
OWN_TASK = "task.yaml"
"""A model's own task, in its folder: what it runs when no other is given."""
_REQUIRED: dict[str, type | tuple[type, ...]] = {
    "schema": int,
    "name": str,
    "about": str,
    "pairing": str,
    "sources": list,
    "bases": list,
}
_OPTIONAL: dict[str, type | tuple[type, ...]] = {
    "scorer": (dict, str),
    "lexicon": list,
    "max_degenerate_share": (int, float),
    "directions": dict,
    "falls": bool,
}
_NAMED = ("id", "family")
_ANSWER_KEYS = ("answer", "foil", "choices")
_PROMPT_KEYS = (*_NAMED, "text", "messages", "spans", *_ANSWER_KEYS, "continuation")
_MESSAGE_KEYS = ("role", "content")
_FILE_KEYS, _MEANS_KEYS = ("file",), ("toward", "away", "at")


def _falls_of(content: dict[Any, Any], where: str) -> bool:
    """Whether the score is to fall. Raises UsageError where there is none that could."""
    falls: bool = content.get("falls", False)
    if falls and "scorer" not in content:
        raise UsageError(f"{where}: `falls` without `scorer`, whose score it is about")
    return falls


class CodeRefusedError(UsageError):
    """A task whose scorer is code that may not be imported on behalf of whoever names the task."""


def load_task(path: str | Path, *, code: CodeFrom | Path | None = None) -> Task:
    """Read a task file (YAML, schema 1; docs/how-to/own-task.md describes the keys).

    code: the root of the project below which, or in an installed package, a scorer in Python may
        lie; None imports no code: a task that states one is refused.
    Raises UsageError for a file that is missing, is not YAML, has an unknown or missing key, a
    key of the wrong type, an empty or repeated prompt, or one text as both source and base.
    """
    path = Path(path)
    where, may = f"task file {path}", CodeFrom(code) if isinstance(code, Path) else code
    return _task_of(read_yaml(path, "task file"), path.parent, where, may)


def own_task(folder: Path | None) -> Path | None:
    """The task file in a model's folder; None where the model is none (None), or brings none."""
    path = folder / OWN_TASK if folder else None
    return path if path and path.is_file() else None


def _task_of(content: Any, folder: Path, where: str, code: CodeFrom | None) -> Task:
    if not isinstance(content, dict):
        raise UsageError(f"{where}: expected a mapping at the top, got {type(content).__name__}")
    known = {**_REQUIRED, **_OPTIONAL}
    scored = set() if _asks_no_text(content) else {"scorer"}
    if scored and not isinstance(content.get("scorer"), dict):
        scored.add("lexicon")
    _check_keys(content, {*_REQUIRED, *scored}, set(known), where)
    for key, kind in known.items():
        if key in content and (
            not isinstance(content[key], kind)
            or (isinstance(content[key], bool) and kind is not bool)
        ):
            raise UsageError(f"{where}: `{key}` is {content[key]!r:.60}, expected {_name_of(kind)}")
    if content["schema"] != SCHEMA:
        raise UsageError(f"{where}: schema {content['schema']}, expected {SCHEMA}")
    if content["pairing"] not in get_args(Pairing):
        raise UsageError(
            f"{where}: pairing {content['pairing']!r}, expected one of {get_args(Pairing)}"
        )
    share = content.get("max_degenerate_share", Task.max_degenerate_share)
    if not 0 <= share < 1:
        raise UsageError(f"{where}: max_degenerate_share {share}, expected 0 <= share < 1")
    lexicon = _lexicon_of(content["lexicon"], where) if "lexicon" in content else None
    return Task(
        name=content["name"],
        about=content["about"],
        sources=_prompts_of(content["sources"], f"{where}: sources"),
        bases=_prompts_of(content["bases"], f"{where}: bases"),
        pairing=content["pairing"],
        scorer=_scorer_of(content.get("scorer"), lexicon, where, code),
        lexicon=lexicon.words if lexicon else frozenset(),
        max_degenerate_share=float(share),
        falls=_falls_of(content, where),
        where=where,
        directions=_directions_of(content.get("directions", {}), folder, where),
    )


def _directions_of(entries: dict[Any, Any], folder: Path, where: str) -> tuple[AnyDirection, ...]:
    """The directions that a task names: from files beside it or in folders below, or of texts."""
    found: list[AnyDirection] = []
    for name, entry in entries.items():
        here = f"{where}: direction {name!r}"
        known = isinstance(entry, dict) and not {"file", "toward", "away"}.isdisjoint(entry)
        if not isinstance(name, str) or not known:
            raise UsageError(
                f"{here}: {entry!r:.60}, expected a name and a mapping of `file`, or of `toward` "
                "and `away`"
            )
        if "file" not in entry:
            _check_keys(entry, {"toward", "away"}, set(_MEANS_KEYS), here)
            toward, away = (_texts_of(entry[side], side, here) for side in ("toward", "away"))
            found.append(MeanDifference(name, toward, away, entry.get("at", "last"), here))
            continue
        _check_keys(entry, set(_FILE_KEYS), set(_FILE_KEYS), here)
        _check_text(entry, "file", here)
        path = (folder / entry["file"]).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise UsageError(
                f"{here}: file {entry['file']!r} is not below {folder}, expected one beside the "
                "task file or in a folder there"
            )
        found.append(read_direction(name, path))
    return tuple(found)


def _texts_of(entries: Any, side: str, where: str) -> tuple[str, ...]:
    if not isinstance(entries, list):
        raise UsageError(f"{where}: `{side}` is {entries!r:.60}, expected a list of texts")
    return tuple(entries)


def _asks_no_text(content: dict[Any, Any]) -> bool:
    """Whether every source has what no text need be generated for, so that none need be scored."""
    sources = content.get("sources")
    return isinstance(sources, list) and all(
        isinstance(one, dict) and ("answer" in one or "continuation" in one) for one in sources
    )


def _scorer_of(name: Any, lexicon: Lexicon | None, where: str, code: CodeFrom | None) -> Scorer:
    """The scorer of generated text; none is named where no text need be scored."""
    if isinstance(name, dict) and "python" in name:
        _check_keys(name, {"python"}, {"python"}, f"{where}: scorer")
        _check_text(name, "python", f"{where}: scorer")
        if code is None:
            raise CodeRefusedError(
                f"{where}: scorer python {name['python']!r:.80} is code, and not you named this "
                "task; expected --claims-task FILE, or --claims-allow-code (in a script "
                "`load_task(FILE, code=ROOT)`)"
            )
        try:
            return python_scorer(name["python"], code)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
    if isinstance(name, dict):
        try:
            return stated_scorer(name)
        except UsageError as error:
            raise UsageError(f"{where}: {error}") from None
    if name is None and lexicon is None:
        return Unscored()
    if name is None:
        raise UsageError(f"{where}: missing key scorer, beside a lexicon")
    known: dict[str | None, Scorer | None] = {"published": Published(), "lexicon": lexicon}
    found = known.get(name)
    if name not in known:
        raise UsageError(f"{where}: scorer {name!r}, expected one of {sorted(map(str, known))}")
    if found is None:
        raise UsageError(f"{where}: missing key lexicon, whose words scorer 'lexicon' counts")
    return found


def _lexicon_of(words: list[Any], where: str) -> Lexicon:
    if not words:
        raise UsageError(f"{where}: `lexicon` is empty, expected at least one word")
    for word in words:
        if not isinstance(word, str) or word != word.lower():
            raise UsageError(
                f"{where}: lexicon entry {word!r:.60}, expected one whole word in lower case "
                "(quote words that YAML reads as something else, such as 'no')"
            )
    if twice := sorted(word for word, n in Counter(words).items() if n > 1):
        raise UsageError(f"{where}: lexicon words given twice: {', '.join(twice)}")
    try:
        return Lexicon(frozenset(words))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None


def _prompts_of(entries: list[Any], where: str) -> tuple[Prompt, ...]:
    prompts = []
    for number, entry in enumerate(entries, start=1):
        here = f"{where} entry {number}"
        if not isinstance(entry, dict):
            raise UsageError(
                f"{here}: {entry!r:.60}, expected a mapping of id, family, and text or messages"
            )
        _check_keys(entry, set(_NAMED), set(_PROMPT_KEYS), here)
        if "text" not in entry and "messages" not in entry:
            raise UsageError(f"{here}: missing key text or messages")
        if "text" in entry and "messages" in entry:
            raise UsageError(f"{here}: `text` and `messages`, expected one of them")
        for key in (*_NAMED, "text", "answer", "foil", "continuation"):
            if key in entry:
                _check_text(entry, key, here)
        who = entry["id"], entry["family"]
        more: dict[str, Any] = {
            "answers": _answers_of(entry, here),
            "continuation": entry.get("continuation"),
            "spans": _spans_of(entry.get("spans", {}), here),
        }
        if "text" in entry:
            prompts.append(Prompt(*who, entry["text"], **more))
        else:
            prompts.append(Prompt.of(*who, _messages_of(entry["messages"], here), **more))
    return tuple(prompts)


def _spans_of(entries: Any, where: str) -> tuple[tuple[str, str], ...]:
    """The spans of a prompt; `check_spans` looks for them in its text."""
    if not isinstance(entries, dict):
        raise UsageError(f"{where}: `spans` is {entries!r:.60}, expected names and their texts")
    for name, text in entries.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise UsageError(
                f"{where}: span {name!r:.60}: {text!r:.60}, expected a name and a text"
            )
    return tuple(entries.items())


def _answers_of(entry: dict[Any, Any], where: str) -> Answers | None:
    """What a prompt is answered with; `check_answers` looks at it together."""
    named = [key for key in _ANSWER_KEYS if key in entry]
    if not named:
        return None
    if "answer" not in named:
        raise UsageError(f"{where}: `{named[0]}` without `answer`, expected both")
    choices = entry.get("choices", [])
    if not isinstance(choices, list) or ("choices" in named and not choices):
        raise UsageError(f"{where}: `choices` is {choices!r:.60}, expected a list of texts")
    for choice in choices:
        if not isinstance(choice, str) or not choice.strip():
            raise UsageError(f"{where}: `choices` holds {choice!r:.60}, expected text, not empty")
    return Answers(entry["answer"], entry.get("foil"), tuple(choices))


def _messages_of(entries: Any, where: str) -> tuple[Message, ...]:
    """The messages of a prompt, each whole by itself; `check_messages` looks at them together."""
    if not isinstance(entries, list):
        raise UsageError(f"{where}: `messages` is {entries!r:.60}, expected a list")
    for number, entry in enumerate(entries, start=1):
        here = f"{where} message {number}"
        if not isinstance(entry, dict):
            raise UsageError(f"{here}: {entry!r:.60}, expected a mapping of {_MESSAGE_KEYS}")
        _check_keys(entry, set(_MESSAGE_KEYS), set(_MESSAGE_KEYS), here)
        for key in _MESSAGE_KEYS:
            _check_text(entry, key, here)
    return tuple(Message(**entry) for entry in entries)


def _check_text(entry: dict[Any, Any], key: str, where: str) -> None:
    if not isinstance(entry[key], str) or not entry[key].strip():
        raise UsageError(f"{where}: `{key}` is {entry[key]!r:.60}, expected text, not empty")


def _check_keys(found: dict[Any, Any], required: set[str], known: set[str], where: str) -> None:
    if unknown := sorted(map(str, set(found) - known)):
        raise UsageError(
            f"{where}: unknown key {listed(unknown)}; expected {', '.join(sorted(known))}"
        )
    if missing := sorted(required - set(found)):
        raise UsageError(f"{where}: missing key {', '.join(missing)}")


def _name_of(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a mapping",
    }
    return words[kinds[-1]]
