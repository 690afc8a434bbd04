"""A published table: judged by the rules of our own trials; whatever is wrong with it is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from kv_claims.claims.claim import Claim, Part, Region
from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.evidence.evidence import plain
from kv_claims.judging.checks import INSTRUMENT_CHECKS
from kv_claims.judging.parts import judge_part
from kv_claims.replay.foreign import ForeignTable
from kv_claims.replay.source import kind_of
from kv_claims.study.cell import Cell
from kv_claims.tasks.code import CodeFrom
from tests.runs import claim

PAIRS = 24
TRANSFERS = claim("transfers", transfer=Region(0.7, 0.9))
ORDER = claim("order", difference=Region(low=0.0))
BOTH = claim(
    "both",
    all_of=(Part.transfer("behavior", Region(0.7, 0.9)), Part.transfer("loglik", Region(low=0.5))),
)
PATCH = Patch("kv", layers="25/32", positions="last(32)")
CELLS: dict[str, tuple[Claim, set[str]]] = {
    one.id: (one, {"a", "b"}) for one in (TRANSFERS, ORDER, BOTH)
}
ROLES = {"base": "none", "source": "champion", "patched": "kv"}
NAMED: dict[str, Any] = {
    "schema": 1,
    "table": "published.csv",
    "model": "their/model",
    "n_layers": 32,
    "columns": {"pair": "prompt", "arm": "condition", "score": "points"},
    "claims": {"transfers": {"a": ROLES}},
}


def table(**arms: float) -> pd.DataFrame:
    """A row for each prompt and condition; scores of some spread around these means."""
    luck = np.random.default_rng(0)
    rows = [
        {"prompt": f"p{n:02}", "condition": name, "points": round(mean + luck.normal(0, 0.3), 4)}
        for name, mean in arms.items()
        for n in range(PAIRS)
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a table and its description, changed as told; the description's path."""

    def make(told: dict[str, Any] | str | None = None, rows: pd.DataFrame | None = None) -> Path:
        rows = table(none=1.0, champion=11.0, kv=9.0) if rows is None else rows
        rows.to_csv(tmp_path / "published.csv", index=False)
        path = tmp_path / "replay.yaml"
        text = told if isinstance(told, str) else yaml.safe_dump({**NAMED, **(told or {})})
        path.write_text(text, encoding="utf-8")
        return path

    return make


def write_task(folder: Path, word: str, **more: Any) -> None:
    """A task beside the table, whose scorer counts a word."""
    task = {
        "schema": 1,
        "name": "theirs",
        "about": "a test",
        "scorer": "lexicon",
        "lexicon": [word],
        "pairing": "one-to-one",
        "sources": [{"id": "s", "family": "f", "text": "one"}],
        "bases": [{"id": "b", "family": "f", "text": "two"}],
        **more,
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(task))


def opened(path: Path) -> ForeignTable:
    source = ForeignTable.open(path, (), None)
    source.check_tests(CELLS)
    return source


def judged(path: Path, cell: Cell | None = None) -> dict[str, Any]:
    source = opened(path)
    found, expected = source.study("their/model").judge(cell or Cell.of(TRANSFERS, "a", PATCH))
    assert expected is None
    return dict(plain(found.__dict__))


def test_a_table_is_judged_as_our_own_trials_are(write: Callable[..., Path]) -> None:
    rows, roles = table(none=1.0, champion=11.0, kv=9.0, random=1.0), ROLES | {"noise": "random"}
    one = judged(write({"claims": {"transfers": {"a": roles}}}, rows))
    frame = rows.rename(columns={"prompt": "pair", "condition": "arm", "points": "score"})
    frame["arm"] = frame["arm"].map({arm: role for role, arm in roles.items()})
    own = judge_part(frame.assign(seed="0"), TRANSFERS.parts[0])
    assert one["verdict"] == own.word == "supported"
    assert one["estimate"] == own.estimate
    assert one["interval"] == list(own.interval or ())
    assert (one["pairs"], one["seeds"], one["arms"]) == (PAIRS, 1, roles)


def test_what_a_table_cannot_show_is_not_run_and_nothing_is_verified(
    write: Callable[..., Path],
) -> None:
    one = judged(write())
    checks = {each["name"]: each for each in one["checks"]}
    assert one["verified"] is False
    for name in INSTRUMENT_CHECKS:
        assert checks[name]["passed"] is None
        assert checks[name]["detail"].startswith("not run")
    assert checks["best-of-k"]["passed"] is True


def test_without_a_source_there_is_no_ceiling(write: Callable[..., Path]) -> None:
    roles = {"base": "none", "patched": "kv"}
    one = judged(write({"claims": {"transfers": {"a": roles}}}))
    assert (one["verdict"], one["estimate"]) == ("invalid", None)
    assert one["reason"].startswith("no-ceiling: no source arm was run")


def test_one_trial_a_cell_is_too_few(write: Callable[..., Path]) -> None:
    one = judged(write(rows=table(none=1.0, champion=11.0, kv=9.0).drop_duplicates("condition")))
    assert (one["verdict"], one["pairs"]) == ("invalid", 1)
    assert one["reason"] == "enough-pairs: 1 pairs, at least 10 wanted"


def test_a_control_that_moves_it_too_is_seen(write: Callable[..., Path]) -> None:
    rows = table(none=1.0, champion=11.0, kv=9.0, random=8.0)
    roles = {**ROLES, "unrelated-base": "random"}
    one = judged(write({"claims": {"transfers": {"a": roles}}}, rows))
    assert one["verdict"] == "invalid"
    assert "unrelated-base" in one["reason"]


def test_an_order_and_another_outcome_have_arms_and_columns_of_their_own(
    write: Callable[..., Path],
) -> None:
    rows = table(none=1.0, champion=11.0, kv=9.0, other=3.0, random=1.0)
    rows["contraction"] = rows["points"] / 2
    told = {
        "scores": {"loglik": "contraction"},
        "shared": {"base": "none", "source": "champion", "noise": "random"},
        "claims": {
            "order": {"a": {"patched": "kv", "versus": "other"}},
            "both": {"b": {"patched": "kv"}},
        },
    }
    path = write(told, rows)
    one = judged(path, Cell.of(ORDER, "a", PATCH, Patch("kv", "3", "last(32)")))
    assert (one["verdict"], one["estimate"]) == ("supported", pytest.approx(0.6, abs=0.05))
    one = judged(path, Cell.of(BOTH, "b", PATCH))
    assert [part["verdict"] for part in one["parts"]] == ["supported", "supported"]


def test_geometry_read_where_it_was_pasted_is_invalid(write: Callable[..., Path]) -> None:
    rows = table(none=1.0, champion=11.0, kv=11.0)
    pasted = claim("transfers", transfer=Region(0.9, 1.1), outcome="pr@27/32")
    told = {
        "scores": {"pr@27/32": "points"},
        "tokens": {"source": 51, "base": 40},
    }
    source = ForeignTable.open(write(told, rows), (), None)
    cell = Cell.of(pasted, "a", Patch("v_proj", "27/32", "last(16)"))
    found, _ = source.study("their/model").judge(cell)
    assert found.verdict == "invalid"
    assert found.reason.startswith("measured-where-patched")
    assert not found.verified


def test_the_whole_cache_at_every_layer_is_no_finding(write: Callable[..., Path]) -> None:
    one = judged(write(), Cell.of(TRANSFERS, "a", Patch("kv", layers="all", positions="all")))
    assert one["reason"].startswith("full-swap-is-the-donor")


def test_pairs_that_share_a_prompt_are_one_cluster(write: Callable[..., Path]) -> None:
    rows = table(none=1.0, champion=11.0, kv=9.0)
    rows["topic"] = [f"t{int(name[1:]) % 12}" for name in rows["prompt"]]
    one = judged(write({"columns": {**NAMED["columns"], "cluster": "topic"}}, rows))
    assert (one["pairs"], one["clusters"]) == (PAIRS, 12)


def test_texts_that_hold_their_prompt_are_invalid(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    rows = table(none=1.0, champion=11.0, kv=9.0)
    rows = pd.concat([rows.assign(run=run) for run in "ab"], ignore_index=True)
    same = "What the prompt says before anything is generated by"
    rows["said"] = [f"{same} {row.prompt}: {row.condition} {row.run}" for row in rows.itertuples()]
    rows["said"] = rows["prompt"] + " " + rows["said"]
    write_task(tmp_path, "champion")
    columns = {"pair": "prompt", "arm": "condition", "text": "said", "seed": "run"}
    path = write({"columns": columns, "task": "task.yaml"}, rows)
    found = judged(path)
    assert (found["verdict"], found["reason"].split(":")[0]) == ("invalid", "prompt-scored")


def test_what_a_table_is_read_as_is_told_before_anything_is_judged(
    write: Callable[..., Path],
) -> None:
    rows = table(none=1.0, champion=11.0, kv=9.0, other=3.0, more=4.0)
    rows.loc[rows["condition"] == "more", "points"] = None
    lines = opened(write({"others": {"more": "another layer"}}, rows)).dry_run()
    assert lines[0] == "published.csv: 120 rows read, 24 pairs, 5 arms, 1 seed"
    told = {line.split()[0]: " ".join(line.split()[1:]) for line in lines[2:7]}
    assert told["none"].startswith("base 24 24 ")
    assert told["kv"].startswith("patched 24 24 ")
    assert told["other"].startswith("in no role 24 24 ")
    assert told["more"] == "another layer 24 24 nan, nan, nan, 24 without a number"
    assert lines[7:] == [
        "judged, at 0.05 / 2 or less, as so many arms were tried:",
        "  transfers a: base = none, source = champion, patched = kv",
    ]


def test_texts_are_scored_again_by_a_task(write: Callable[..., Path], tmp_path: Path) -> None:
    rows = table(none=1.0, champion=11.0, kv=9.0)
    words = {"none": "the sea the sea", "champion": "a loop a loop", "kv": "the sea a loop"}
    rows["said"] = [words[arm] + f" {'so ' * (n % 5)}" for n, arm in enumerate(rows["condition"])]
    write_task(tmp_path, "loop", max_degenerate_share=0.9)
    columns = {"pair": "prompt", "arm": "condition", "text": "said"}
    one = judged(write({"task": "task.yaml", "columns": columns}, rows))
    assert one["estimate"] == pytest.approx(0.5, abs=0.1)
    checks = {each["name"]: each for each in one["checks"]}
    assert checks["scorer-changed"]["passed"] is None
    assert "texts scored again by lexicon" in checks["scorer-changed"]["detail"]
    assert checks["substring-markers"]["passed"] is True
    assert checks["degenerate-text"]["passed"] is not None


def test_arms_in_no_role_are_said(write: Callable[..., Path]) -> None:
    source = opened(write(rows=table(none=1.0, champion=11.0, kv=9.0, spare=3.0)))
    assert source.facts()["replay"]["unused_arms"] == ["spare"]


# --- the forms that tables come in -----------------------------------------------------------


def long_table() -> pd.DataFrame:
    return table(none=1.0, champion=11.0, kv=9.0, random=1.0)


def as_wide(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Each arm a column."""
    found = rows.pivot(index="prompt", columns="condition", values="points").reset_index()
    return found, {"columns": {"pair": "prompt", "arms": ["none", "champion", "kv", "random"]}}


def as_two_columns(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """An arm named by a condition and a number."""
    roles = {role: [arm, 0.5] for role, arm in CONTROLLED.items()}
    told = {
        "columns": {"pair": "prompt", "arm": ["condition", "alpha"], "score": "points"},
        "claims": {"transfers": {"a": roles}},
    }
    return rows.assign(alpha=0.5), told


def as_shares(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    return rows.assign(points=[f"{100 * points:.6f}%" for points in rows["points"]]), {}


def beside_a_hole(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A score that is missing where nothing is judged."""
    other = pd.DataFrame({"prompt": ["p00"], "condition": ["other"], "points": [None]})
    return pd.concat([rows, other]), {"others": {"other": "a run that broke off"}}


CONTROLLED = {**ROLES, "noise": "random"}
FORMS: dict[str, Callable[[pd.DataFrame], tuple[pd.DataFrame, dict[str, Any]]]] = {
    "wide": as_wide,
    "two columns": as_two_columns,
    "shares": as_shares,
    "a hole": beside_a_hole,
}


@pytest.mark.parametrize("form", FORMS)
def test_one_table_in_another_form_is_judged_alike(form: str, write: Callable[..., Path]) -> None:
    plain_one = judged(write({"claims": {"transfers": {"a": CONTROLLED}}}, long_table()))
    rows, told = FORMS[form](long_table())
    one = judged(write({"claims": {"transfers": {"a": CONTROLLED}}, **told}, rows))
    assert one["verdict"] == plain_one["verdict"] == "supported"
    assert one["estimate"] == pytest.approx(plain_one["estimate"])
    assert one["interval"] == pytest.approx(plain_one["interval"])


@pytest.mark.parametrize("lines", [True, False])
def test_records_are_read_by_their_paths(
    lines: bool, write: Callable[..., Path], tmp_path: Path
) -> None:
    name = "published.jsonl" if lines else "published.json"
    records = [
        {"prompt": row.prompt, "of": {"arm": row.condition, "points": row.points}}
        for row in long_table().itertuples()
    ]
    text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records)
    told = {
        "table": name,
        "columns": {"pair": "prompt", "arm": "of.arm", "score": "of.points"},
        "claims": {"transfers": {"a": CONTROLLED}},
    }
    path = write(told)
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert judged(path)["verdict"] == "supported"


@pytest.mark.parametrize(
    "text",
    ["", "[1, 2]", "{", "[" * 100_000, '{"prompt": "p"', "\x00"],
    ids=["empty", "no-records", "cut", "deep", "one-cut", "nul"],
)
def test_a_file_that_holds_no_records_is_one_error(
    text: str, write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write({"table": "published.json"})
    (tmp_path / "published.json").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"published\.json: ") as error:
        opened(path)
    assert "\n" not in str(error.value)


def test_true_and_false_are_1_and_0(write: Callable[..., Path]) -> None:
    rows = long_table()
    words = rows.assign(points=[points > 5 for points in rows["points"]])
    one = judged(write({"claims": {"transfers": {"a": ROLES}}}, words))
    assert one["means"] == {"base": 0.0, "source": 1.0, "patched": 1.0}


def test_seeds_that_differ_between_arms_can_be_averaged(write: Callable[..., Path]) -> None:
    """The base run once, beside three seeds of the others."""
    rows = pd.concat([long_table().assign(run=run) for run in range(3)], ignore_index=True)
    rows = rows[(rows["condition"] != "none") | (rows["run"] == 0)]
    columns = {**NAMED["columns"], "seed": "run"}
    told = {"columns": columns, "claims": {"transfers": {"a": CONTROLLED}}}
    assert judged(write(told, rows))["reason"].startswith("silent-n: trials are missing")
    averaged = judged(write({**told, "seeds": "averaged"}, rows))
    wanted = judged(write({"claims": {"transfers": {"a": CONTROLLED}}}, long_table()))
    assert averaged["estimate"] == pytest.approx(wanted["estimate"])
    assert averaged["seeds"] == 1


# --- what is left out ------------------------------------------------------------------------


def test_an_arm_that_is_left_out_stands_against_an_effect(write: Callable[..., Path]) -> None:
    """Naming a control that moves it, or hiding it: neither is *supported*."""
    rows = table(none=1.0, champion=11.0, kv=9.0, random=1.0, moves=8.0)
    hidden = judged(write({"claims": {"transfers": {"a": CONTROLLED}}}, rows))
    assert hidden["verdict"] == "inconclusive"
    assert "arms of the table in no role, of which any may be one: moves" in hidden["reason"]
    shown = {**ROLES, "noise": "moves"}
    assert judged(write({"claims": {"transfers": {"a": shown}}}, rows))["verdict"] == "invalid"
    told = {"claims": {"transfers": {"a": CONTROLLED}}, "others": {"moves": "another model's"}}
    assert judged(write(told, rows))["verdict"] == "supported"


def test_every_arm_that_was_tried_is_one_of_the_family(write: Callable[..., Path]) -> None:
    many = {f"kv{n}": 3.0 for n in range(7)}
    rows = table(none=1.0, champion=11.0, kv=9.0, random=1.0, **many)
    one = judged(write({"claims": {"transfers": {"a": CONTROLLED}}}, rows))
    assert one["multiplicity"]["size"] == one["plan"]["family_size"] == 8
    assert one["multiplicity"]["alpha"] == pytest.approx(0.05 / 8)


def test_one_arm_stands_for_one_cell_of_a_claim(write: Callable[..., Path]) -> None:
    path = write({"claims": {"transfers": {"a": ROLES, "b": {**ROLES}}}})
    with pytest.raises(UsageError, match="arm 'kv' stands for the cells 'a' and 'b', expected"):
        opened(path)


def test_parquet_is_read_as_csv_is(write: Callable[..., Path], tmp_path: Path) -> None:
    path = write()
    first = judged(path)
    table(none=1.0, champion=11.0, kv=9.0).to_parquet(tmp_path / "published.parquet")
    second = judged(write({"table": "published.parquet"}))
    assert (first["estimate"], first["interval"]) == (second["estimate"], second["interval"])


# --- what is wrong ----------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, Any] | str, str]] = {
    "a list": ("- 1\n- 2\n", "list, expected a mapping"),
    "empty": ("", "NoneType, expected a mapping"),
    "a tag": ("schema: !!python/object/apply:os.getcwd []\n", "not YAML: a tag "),
    "a key twice": ("schema: 1\nschema: 1\n", "not YAML: .*given twice"),
    "an unknown key": ({"colums": {}}, "unknown key 'colums', .*did you mean 'columns'?"),
    "no schema": ({"schema": 2}, "schema 2, expected 1"),
    "layers": ({"n_layers": "many"}, "n_layers: 'many', expected a whole number"),
    "a bare no": (
        {"claims": {"transfers": {"a": {**ROLES, "base": False}}}},
        "claims: transfers: a: base: False, expected text",
    ),
    "an unknown role": (
        {"claims": {"transfers": {"a": {**ROLES, "controll": "kv"}}}},
        "claims: transfers: a: unknown key 'controll', expected base, source, patched, versus",
    ),
    "an unknown arm": (
        {"claims": {"transfers": {"a": {**ROLES, "source": "champ"}}}},
        "a: source: no arm 'champ' in published.csv, which has none, champion, kv; did you mean",
    ),
    "an unknown claim": (
        {"claims": {"transfer": {"a": ROLES}}},
        "no claim 'transfer' was collected, but both, order, transfers; did you mean 'transfers'",
    ),
    "an unknown cell": (
        {"claims": {"transfers": {"c": ROLES}}},
        "transfers: no cell 'c', expected one of a, b",
    ),
    "no claim": ({"claims": {}}, "claims is empty"),
    "no cell": ({"claims": {"transfers": {}}}, "transfers: no cell, expected at least one"),
    "no role": (
        {"claims": {"transfers": {"a": {}}}},
        "transfers: a: no arm is named that the claim is judged on",
    ),
    "an unread role": (
        {"claims": {"transfers": {"a": {"base": "none", "patched": "kv", "versus": "champion"}}}},
        "a: the claim compares no two patches: versus",
    ),
    "an arm in two roles": (
        {"claims": {"transfers": {"a": {**ROLES, "noise": ROLES["base"]}}}},
        "is both base and noise, expected an arm of its own for each role",
    ),
    "no column for an outcome": (
        {"claims": {"both": {"a": ROLES}}},
        "both: it is about loglik, expected its column under `scores`, which has none",
    ),
    "an unknown column": (
        {"columns": {"pair": "promt", "arm": "condition", "score": "points"}},
        "no column 'promt', which replay.yaml names; it has prompt, condition, points; did you",
    ),
    "no score": (
        {"columns": {"pair": "prompt", "arm": "condition"}},
        "columns has no score; expected one, or text and a task",
    ),
    "no such table": ({"table": "gone.csv"}, r"gone\.csv: cannot be read \(No such file"),
    "a table outside": ({"table": "../published.csv"}, "table: '../published.csv' is not in"),
    "an absolute table": ({"table": "/etc/passwd"}, "table: '/etc/passwd' is not in"),
    "a task outside": ({"task": "../task.yaml"}, "task: '../task.yaml' is not in"),
    "an absolute task": ({"task": "/etc/passwd"}, "task: '/etc/passwd' is not in"),
    "too many layers": ({"n_layers": 10**7}, "n_layers: 10000000, expected a whole number from 1"),
    "a claim for a terminal": (
        {"claims": {"\x1b[2J" * 99: {"a": {"base": []}}}},
        r"claims: (\\x1b\[2J)+\S*\.\.\.: a: base: \[\], expected",
    ),
    "a long key": ({"x" * 5000: 1}, r"unknown key 'x{60}'\.\.\., expected"),
    "a key for a terminal": ({"\x1b[2J": 1}, r"unknown key '\\x1b\[2J', expected"),
    "a table of another kind": ({"table": "replay.yaml"}, r"\.yaml, expected \.csv"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_description_is_one_error(what: str, write: Callable[..., Path]) -> None:
    told, message = WRONG[what]
    with pytest.raises(UsageError, match=message) as error:
        opened(write(told))
    assert "\n" not in str(error.value)


def doubled(rows: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([rows, rows.iloc[:1]])


BAD_ROWS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "empty": (lambda t: t.iloc[:0], "no row, expected one a trial"),
    "twice": (doubled, r"\(pair, arm, seed\) more than once in 2 rows"),
    "words": (
        lambda t: t.astype(str).assign(points=["many", *map(str, t["points"].iloc[1:])]),
        "'points' is no number in row 1, such as 'many'",
    ),
    "holes": (
        lambda t: t.assign(points=[None, None, *t["points"].iloc[2:]]),
        "'points' is no number in row 1 and 1 more, such as ''",
    ),
    "no pair": (
        lambda t: t.assign(prompt=["", *t["prompt"].iloc[1:]]),
        "nothing in a key or text of row 1",
    ),
    "infinite": (lambda t: t.assign(points=np.inf), "not finite"),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_a_wrong_table_is_one_error(what: str, write: Callable[..., Path]) -> None:
    edit, message = BAD_ROWS[what]
    path = write(rows=edit(table(none=1.0, champion=11.0, kv=9.0)))
    with pytest.raises(UsageError, match=message) as error:
        opened(path)
    assert "published.csv: " in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty, expected a header"),
        ("prompt,condition,points\né,none,1\n".encode("latin-1"), "not UTF-8"),
        (b'prompt,condition,points\n"a,none,1\n', "cannot be read as a table|no row"),
    ],
    ids=["nothing", "latin-1", "open quote"],
)
def test_a_file_that_is_no_table_is_one_error(
    content: bytes, message: str, write: Callable[..., Path], tmp_path: Path
) -> None:
    path = write()
    (tmp_path / "published.csv").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        opened(path)


@pytest.mark.parametrize("key", ["table", "task"])
def test_a_link_that_leads_out_of_the_folder_is_not_followed(
    write: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory, key: str
) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.yaml"
    secret.write_text("password: hunter2\n")
    path = write({key: "link.yaml"})
    (path.parent / "link.yaml").symlink_to(secret)
    with pytest.raises(UsageError, match=f"{key}: 'link.yaml' is not in") as raised:
        opened(path)
    assert "password" not in str(raised.value)


def test_lists_in_place_of_numbers_are_one_error(write: Callable[..., Path]) -> None:
    path = write({"table": "t.parquet"})
    rows = table(none=1.0, champion=11.0, kv=9.0)
    rows.assign(points=[[1.0]] * len(rows)).to_parquet(path.parent / "t.parquet")
    with pytest.raises(UsageError, match="column 'points' holds list"):
        opened(path)


def test_a_description_in_another_encoding_is_one_error(write: Callable[..., Path]) -> None:
    path = write()
    path.write_bytes("about: caf\u00e9\n".encode("latin-1") + path.read_bytes())
    with pytest.raises(UsageError, match="not UTF-8 \\('utf-8' codec"):
        opened(path)


def test_another_model_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(
        UsageError, match=r"--claims-model mine: no trials of it in .*, expected one of"
    ):
        ForeignTable.open(write(), ["mine"], None)


def test_what_is_neither_run_nor_table_is_refused(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "gone", "not there"), (tmp_path, "neither evidence.json nor")):
        with pytest.raises(UsageError, match=told):
            kind_of(path)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UsageError, match="a file that is no YAML"):
        kind_of(tmp_path / "a.json")


def test_the_shipped_example_is_the_table_of_the_seed() -> None:
    folder = Path(__file__).parents[2] / "docs/examples/seed-table"
    source = ForeignTable.open(folder / "replay.yaml", (), None)
    assert source.facts()["replay"]["unused_arms"] == []
    assert source.frame["score"].sum() == 1


def test_no_code_that_a_description_names_is_imported(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    module = f"scorer_of_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(
        "from pathlib import Path\nPath(__file__).with_suffix('.ran').touch()\n"
        "def score(said): return float(said.text) if said.pair is said.prompt is None else 0\n"
    )
    task = {
        "schema": 1,
        "name": "own",
        "about": "any",
        "scorer": {"python": f"{module}:score"},
        "pairing": "one-to-one",
        "sources": [{"id": "s", "family": "f", "text": "one"}],
        "bases": [{"id": "b", "family": "f", "text": "two"}],
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    columns = {"pair": "prompt", "arm": "condition", "text": "points"}
    path = write({"columns": columns, "task": "task.yaml"})
    with pytest.raises(UsageError, match="expected --claims-task FILE, or --claims-allow-code"):
        ForeignTable.open(path, (), None)
    with pytest.raises(UsageError, match="in the folder of what is replayed"):
        ForeignTable.open(path, (), None, CodeFrom(tmp_path, (tmp_path,)))
    assert not list(tmp_path.glob("*.ran"))
    found = ForeignTable.open(path, (), None, CodeFrom(tmp_path))
    assert found.frame["score"].mean() == pytest.approx(21 / 3, abs=0.2)
