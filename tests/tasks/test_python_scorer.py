"""Scorers in Python: what they get, what is refused of them, and from where code is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from kv_claims.errors import UsageError
from kv_claims.judging.texts import parts_of_words
from kv_claims.tasks.code import CodeFrom
from kv_claims.tasks.generation import Generation
from kv_claims.tasks.load import CodeRefusedError, load_task
from kv_claims.tasks.python_scorer import PythonScorer, python_scorer, score_of
from kv_claims.tasks.scorers import Lexicon
from kv_claims.tasks.task import Pair, Prompt, Task

PAIR = Pair(0, Prompt("s1", "f", "one"), Prompt("b1", "f", "two"))
SAID = Generation("I refuse.", (3, 4), PAIR, PAIR.base)
_NUMBERS = count()
Made = Callable[..., PythonScorer]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Modules that a test imported are gone behind it, and the search path is as it was."""
    known, path = set(sys.modules), [*sys.path]
    yield
    assert sys.path == path
    for name in set(sys.modules) - known:
        del sys.modules[name]


@pytest.fixture
def module(tmp_path: Path) -> Callable[[str], str]:
    """Write a module of a name that no other has."""

    def written(source: str) -> str:
        name = f"scorers_{next(_NUMBERS)}_of_a_test"
        (tmp_path / f"{name}.py").write_text(source)
        return name

    return written


@pytest.fixture
def made(tmp_path: Path, module: Callable[[str], str]) -> Made:
    """The scorer `score` of a source."""
    return lambda source: python_scorer(f"{module(source)}:score", CodeFrom(tmp_path))


@pytest.mark.parametrize(
    ("source", "score"),
    [
        ("def score(text): return 2.5 if 'refuse' in text else 0", 2.5),
        ("def score(said): return len(said.tokens)", 2.0),
        ("def score(g, bonus=1): return (g.pair.source.id == 's1') + (g.prompt.id == 'b1')", 2.0),
        ("def score(text): return 'refuse' in text", 1.0),
        ("import numpy as np\ndef score(text): return np.float32(-1.5)", -1.5),
        ("import numpy as np\ndef score(text): return np.bool_(True)", 1.0),
        ("class Of:\n  def __call__(self, text): return 4\nscore = Of()", 4.0),
    ],
)
def test_it_gets_the_text_or_all_of_the_generation(made: Made, source: str, score: float) -> None:
    scorer = made(source)
    assert score_of(SAID, scorer) == score
    assert scorer.hits(SAID.text) == ()


def test_any_other_scorer_reads_the_text_alone() -> None:
    assert score_of(SAID, Lexicon(frozenset({"refuse"}))) == 50.0


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise KeyError('x')", "raises KeyError: 'x'"),
        ("raise SystemExit(3)", "raises SystemExit: 3"),
        ("return float('nan')", "gives nan, expected a finite number"),
        ("return float('inf')", "gives inf, expected a finite number"),
        ("return '1'", "gives '1', expected a finite number"),
        ("return None", "gives None, expected a finite number"),
        ("return 1j", "gives 1j, expected a finite number"),
        ("return next(N)", "gives 0, then 1; expected one number for one generation"),
    ],
)
def test_what_gives_no_number_names_scorer_pair_and_text(made: Made, body: str, why: str) -> None:
    scorer = made(f"from itertools import count\nN = count()\ndef score(said):\n    {body}")
    with pytest.raises(UsageError) as error:
        score_of(SAID, scorer)
    assert str(error.value) == (
        f"scorer {scorer.target} on pair {PAIR.id[:12]} (source 's1', base 'b1'), text "
        f"'I refuse.': {why}"
    )


def test_a_generation_is_scored_twice_and_then_known(made: Made) -> None:
    scorer = made("CALLS = []\ndef score(text):\n    CALLS.append(text)\n    return 1")
    assert [score_of(SAID, scorer) for _ in range(3)] == [1.0] * 3
    assert [SAID.text] * 2 == sys.modules[scorer.target.split(":")[0]].CALLS


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("x = 1", "has no 'score'"),
        ("score = 1", "'score' of {file} is 1, expected a function"),
        ("def score(): return 1", "takes nothing, expected one argument"),
        ("def score(a, b): return 1", "takes a, b, expected one argument"),
        ("def score(text, *, k): return 1", "takes text, *, k, expected one argument"),
        ("from os.path import basename as score", "is defined in posixpath, expected in the file"),
        ("def score(text: return 1", "importing {file} raises SyntaxError"),
        ("raise ValueError('no')", "importing {file} raises ValueError: no"),
    ],
)
def test_what_is_no_scorer_is_refused(
    tmp_path: Path, module: Callable[[str], str], source: str, why: str
) -> None:
    name = module(source)
    with pytest.raises(UsageError) as error:
        python_scorer(f"{name}:score", CodeFrom(tmp_path))
    told = str(error.value)
    assert told.startswith(f"scorer python '{name}:score': ")
    # The signature is joined by commas, with no bare star.
    assert why.format(file=tmp_path / f"{name}.py").replace("*, ", "") in told


@pytest.mark.parametrize("target", ["mylab.scorers", "mylab:", ":f", "my-lab:f", "a..b:f", "a:b.c"])
def test_what_is_no_name_is_refused(tmp_path: Path, target: str) -> None:
    with pytest.raises(UsageError, match="expected 'module:function'"):
        python_scorer(target, CodeFrom(tmp_path))


TRAP = "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"


def test_nothing_is_run_of_what_lies_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    inside = root / "run"
    for folder in (other, inside / "deep"):
        folder.mkdir(parents=True)
        (folder / "trap_of_a_test.py").write_text(TRAP + "def score(text): return 1")
    (inside / "deep/__init__.py").write_text(TRAP)
    monkeypatch.syspath_prepend(str(other))
    for target, code in (
        ("trap_of_a_test:score", CodeFrom(root)),
        ("os:system", CodeFrom(root)),
        ("subprocess:getoutput", CodeFrom(root)),
        ("run.deep.trap_of_a_test:score", CodeFrom(root, (inside,))),
        ("run.deep.nothing:score", CodeFrom(root)),
    ):
        with pytest.raises(UsageError, match=r"expected a module below .*root or of an installed"):
            python_scorer(target, code)
    (root / "link.py").symlink_to(other / "trap_of_a_test.py")
    with pytest.raises(UsageError, match=r"is .*other.*, expected a module below"):
        python_scorer("link:score", CodeFrom(root))
    assert not list(tmp_path.rglob("*.ran"))


def test_an_installed_package_may_be_named(tmp_path: Path) -> None:
    assert callable(python_scorer("packaging.utils:canonicalize_name", CodeFrom(tmp_path)))


def test_another_module_of_the_name_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text("def score(text): return 1")
    import colorsys

    with pytest.raises(UsageError, match=r"module 'colorsys' is .* in this process, expected"):
        python_scorer("colorsys:score", CodeFrom(tmp_path))
    assert not hasattr(colorsys, "score")


def task_file(folder: Path, scorer: Any, **more: Any) -> Path:
    content = {
        "schema": 1,
        "name": "t",
        "about": "a",
        "scorer": scorer,
        "pairing": "one-to-one",
        "sources": [{"id": "s", "family": "f", "text": "one"}],
        "bases": [{"id": "b", "family": "f", "text": "two"}],
        **more,
    }
    path = folder / "t.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_tasks_hash_knows_the_source(tmp_path: Path, module: Callable[[str], str]) -> None:
    def task(source: str) -> Task:
        name = module(source)
        return load_task(task_file(tmp_path, {"python": f"{name}:score"}), code=tmp_path)

    one, other = (task(f"def score(text): return {k}") for k in (1, 2))
    assert one.sha != other.sha
    same = task("def score(text): return 1").scorer
    assert isinstance(same, PythonScorer)
    assert isinstance(one.scorer, PythonScorer)
    assert (same.sha == one.scorer.sha, same.name == one.scorer.name) == (True, False)


def test_a_file_that_was_edited_meanwhile_is_refused(
    tmp_path: Path, module: Callable[[str], str]
) -> None:
    name = module("def score(text): return 1")
    python_scorer(f"{name}:score", CodeFrom(tmp_path))
    (tmp_path / f"{name}.py").write_text("def score(text): return 2")
    with pytest.raises(UsageError, match="edited while this process runs"):
        python_scorer(f"{name}:score", CodeFrom(tmp_path))


def test_no_code_is_imported_that_nobody_allowed(tmp_path: Path) -> None:
    (tmp_path / "trap_of_a_test.py").write_text(TRAP)
    path = task_file(tmp_path, {"python": "trap_of_a_test:score"})
    with pytest.raises(CodeRefusedError, match=r"t.yaml: scorer python 'trap_of_a_test:score' is"):
        load_task(path)
    assert not list(tmp_path.rglob("*.ran"))


@pytest.mark.parametrize(
    ("scorer", "why"),
    [
        ({"python": 3}, "`python` is 3, expected text"),
        ({"python": "a:b", "regex": "x"}, "unknown key regex"),
        ({"python": "a:b"}, "no module 'a', expected"),
    ],
)
def test_a_task_that_states_none_names_its_file(tmp_path: Path, scorer: Any, why: str) -> None:
    with pytest.raises(UsageError, match=r"task file .*t\.yaml: ") as error:
        load_task(task_file(tmp_path, scorer), code=tmp_path)
    assert why in str(error.value)


def test_what_it_counts_inside_a_word_is_its_own_business(made: Made) -> None:
    check = parts_of_words({"patched": ["He refused."]}, [made("def score(text): return 1")])
    assert check.passed
