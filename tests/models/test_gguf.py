"""GGUF files: what is loaded is what was written, and a bad one is refused before anything runs."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from kv_claims.errors import UsageError
from kv_claims.evidence.schema import FileSaid
from kv_claims.files.cache import VARIABLE, sha256
from kv_claims.models import gguf as undoing
from kv_claims.models.gguf import NOTE
from kv_claims.models.load import LoadedModel, load_model
from kv_claims.models.packages import PACKAGED
from kv_claims.models.request import check_request
from tests.models.gguf_files import LAYERS, TEMPLATE, Spoiled, network, write

TEXTS = ("hello", "I notice 123 things,\n\nand don't  know why… café 日本", "<|begin|>hell <|end|>")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


def load(path: Path, **options: Any) -> LoadedModel:
    return load_model(str(path), device="cpu", dtype="float32", **options)


@torch.no_grad()
def logits(net: Any, ids: list[int]) -> torch.Tensor:
    found: torch.Tensor = net(torch.tensor([ids])).logits
    return found


def test_what_is_loaded_is_the_network_that_was_written(tmp_path: Path) -> None:
    model = load(write(tmp_path / "tiny.gguf"))
    ids = model.encode(TEXTS[1])
    assert torch.equal(logits(model.network, ids), logits(network(), ids))
    assert model.decode(ids) == TEXTS[1]
    assert ids[0] == 0  # the start that the file asks for, once
    assert model.encode(TEXTS[2])[:2] == [0, model.encode("hell")[1]]
    assert model.stop_ids == {1}
    assert model.revision is None


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"])
def test_what_is_undone_is_what_transformers_undoes(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = write(tmp_path / "tiny.gguf", kind=kind)
    model = load(path)
    place = {"pretrained_model_name_or_path": str(tmp_path), "gguf_file": path.name}
    oracle = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(**place)
    for text in TEXTS:
        ids = list(tokenizer(text)["input_ids"])
        assert model.encode(text) == ids or text == TEXTS[2]  # which brings its own start
        assert torch.equal(logits(model.network, ids), logits(oracle, ids))
    messages = [{"role": "user", "content": "hello"}]
    rendered = [
        one.apply_chat_template(messages, tokenize=False) for one in (model.tokenizer, tokenizer)
    ]
    assert rendered == ["user: hello\n"] * 2
    assert model.tokenizer.chat_template == TEMPLATE


def test_provenance_names_file_hash_quantisation_and_licence(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", kind="Q4_1")
    file = load(path).file
    assert file is not None
    said = msgspec.convert(json.loads(json.dumps(file.to_dict())), FileSaid)
    assert (said["name"], said["sha256"]) == ("tiny.gguf", sha256(path))
    assert (said["architecture"], said["quantization"], said["licence"]) == ("llama", "Q4_1", "mit")
    assert said["tensors"] == {"F32": 2 * LAYERS + 1, "Q4_1": 7 * LAYERS + 2}
    assert said["unread"] == []


def test_it_is_undone_once_and_a_changed_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "tiny.gguf")
    folder = undoing.undone_folder(sha256(path))
    first = load(path)
    moved = path.rename(tmp_path / "other-name.gguf")
    with monkeypatch.context() as never:
        never.setattr(undoing, "_undo", lambda *_: pytest.fail("undone again"))
        assert load(moved).file == first.file
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    with pytest.raises(UsageError, match=r"config\.json changed; remove it, it is made again"):
        load(moved)
    (folder / NOTE).write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        load(moved)


def _drop(name: str) -> Spoiled:
    return lambda said, tensors: (said.pop(name, None), tensors.pop(name, None), None)[2]


def _say(**entries: Any) -> Spoiled:
    return lambda said, _: said.update({k.replace("__", "."): v for k, v in entries.items()})


def _add(name: str, *shape: int) -> Spoiled:
    return lambda _, tensors: tensors.update({name: np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"architecture": "clip"}, r"architecture 'clip', and transformers reads .*llama"),
        (
            {"raw": {"blk.0.ffn_up.weight": "Q8_K"}},
            "tensors stored as Q8_K, which cannot be undone",
        ),
        ({"spoil": _say(split__count=3)}, "one of 3 parts of a model"),
        ({"spoil": _say(llama__block_count=10**6)}, "block_count 1000000, and it holds 21 tensors"),
    ],
    ids=["architecture", "quantisation", "parts", "layers"],
)
def test_a_file_that_cannot_be_read_is_refused_before_anything_is_built(
    options: Any, told: str, tmp_path: Path, cache: Path
) -> None:
    path = write(tmp_path / "bad.gguf", **options)
    with pytest.raises(UsageError, match=rf"model '.*bad\.gguf': .*{told}") as refused:
        check_request(str(path))
    assert "\n" not in str(refused.value)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_drop("blk.1.ffn_up.weight"), "are missing, and would be made up: model.layers.1.mlp.up"),
        (_add("rope_freqs.weight", 8), r"8 of its numbers find no place .*rope_freqs\.weight\?"),
        (_add("blk.0.attn_q.bias", 64), r"64 of its numbers find no place"),
        (
            _say(llama__rope__scaling__factor=4.0),
            "rope.scaling.factor 4.0, which transformers does",
        ),
        (_say(llama__embedding_length=10**6), "asks for more numbers than the files hold"),
        (_say(tokenizer__ggml__model="none-such"), "none-such"),
        (_drop("llama.attention.head_count"), "the file gives no causal language model"),
    ],
    ids=["missing", "rope", "bias", "scaling", "width", "tokenizer", "heads"],
)
def test_a_file_that_would_be_another_model_is_refused_and_nothing_is_kept(
    spoil: Spoiled, told: str, tmp_path: Path, cache: Path
) -> None:
    path = write(tmp_path / "bad.gguf", spoil=spoil)
    with pytest.raises(UsageError, match=told) as refused:
        load(path)
    assert "\n" not in str(refused.value)
    assert [one.name for one in (cache / "gguf").iterdir() if not one.name.endswith(".lock")] == []


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = write(tmp_path / "tiny.gguf", kind="Q8_0").read_bytes()
    assert check_request(str(tmp_path / "tiny.gguf")).file is not None
    cut = tmp_path / "cut.gguf"
    for end in (0, 3, 4, 23, 24, 100, *range(200, len(whole), len(whole) // 40), len(whole) - 33):
        cut.write_bytes(whole[:end])
        with pytest.raises(UsageError, match=r"cut\.gguf': (no GGUF file|truncated)"):
            check_request(str(cut))


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with pytest.raises(UsageError, match="no such file"):
        check_request(str(path))
    whole = write(path).read_bytes()
    with pytest.raises(UsageError, match="a file has no revision"):
        check_request(str(path), revision="main")
    for start, told in ((b"PK\3\4", "no GGUF file: starts with"), (b"GGUF\1\0\0\0", "version 1")):
        path.write_bytes(start + whole[len(start) :])
        with pytest.raises(UsageError, match=told):
            check_request(str(path))


def test_packages_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "m.gguf")
    monkeypatch.setattr(undoing, "find_spec", lambda name: None if name == "accelerate" else name)
    with pytest.raises(
        UsageError, match=r"not installed: accelerate \(pip install .kv-claims\[gguf"
    ):
        check_request(str(path))


def test_an_older_transformers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.gguf")
    monkeypatch.setattr(undoing.metadata, "version", lambda _: "5.23.1")
    with pytest.raises(UsageError, match=r"transformers 5\.24 or newer, and 5\.23\.1 is installed"):
        check_request(str(path))


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may have more than 200 kB: a disk that fills up while weights are written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_cache_that_fills_up_is_one_line_and_keeps_nothing(
    tmp_path: Path, cache: Path, request: pytest.FixtureRequest
) -> None:
    path = write(tmp_path / "m.gguf")
    request.getfixturevalue("small_files")
    with pytest.raises(UsageError, match=rf"{cache}.*cannot be written \(.*give another by"):
        load(path)
    assert [one.name for one in (cache / "gguf").iterdir() if one.is_dir()] == []


@pytest.mark.parametrize("name", PACKAGED)
def test_a_model_that_was_not_fetched_says_how(name: str) -> None:
    with pytest.raises(UsageError, match=rf"not fetched yet: `kv-claims get {name}`"):
        check_request(name)
