"""Models in packages: fetched by pip alone, joined, held against a hash; `kv-claims get`."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from kv_claims.__main__ import main
from kv_claims.errors import UsageError
from kv_claims.files.cache import VARIABLE, cache_folder, sha256
from kv_claims.models import gguf as undoing
from kv_claims.models import packages
from kv_claims.models.load import load_model
from kv_claims.models.packages import PACKAGED, Packaged, Piece, fetch
from kv_claims.models.request import check_request
from tests.models.gguf_files import write


def wheel(folder: Path, package: str, version: str, files: dict[str, bytes]) -> Path:
    """A wheel that needs what no index has: whoever asks for that fails."""
    plain = package.replace("-", "_")
    about = f"{plain}-{version}.dist-info"
    needs = "Requires-Dist: no-such-package-of-kv-claims\n"
    said = {
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n{needs}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/RECORD": "",
    }
    path = folder / f"{plain}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in {**said, **files}.items():
            opened.writestr(name, content)
    return path


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the packages of `tiny`, which is in two parts, and a cache of its own."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    file = write(tmp_path / "tiny.gguf")
    content, folder = file.read_bytes(), tmp_path / "wheels"
    folder.mkdir()
    wheel(folder, "tiny-one", "1.0", {"one/part": content[:9999], "one/LICENSE": b"do as you like"})
    wheel(folder, "tiny-two", "1.0", {"two/part": content[9999:]})
    tiny = Packaged(
        about="tiny",
        version="1.0",
        file="tiny.gguf",
        sha256=sha256(file),
        size=len(content),
        licence="its own",
        pieces=(Piece("tiny-one", "one/part"), Piece("tiny-two", "two/part")),
        terms=(Piece("tiny-one", "one/LICENSE"),),
    )
    monkeypatch.setitem(PACKAGED, "tiny", tiny)
    return folder


def test_get_fetches_shows_the_licence_and_makes_the_name_a_model(
    wheels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="not fetched yet: `kv-claims get tiny`"):
        check_request("tiny")
    assert main(["get", "tiny", "--from", str(wheels)]) == 0
    said = capsys.readouterr().out
    terms = cache_folder() / "packages/tiny-1.0/LICENSE"
    assert f"licence: its own, which holds for whoever uses it: {terms}" in said
    assert terms.read_text() == "do as you like"
    model = load_model("tiny", device="cpu")
    assert model.file is not None
    assert (model.file.name, model.file.sha256) == ("tiny.gguf", PACKAGED["tiny"].sha256)
    shutil.rmtree(wheels)
    assert main(["get", "tiny"]) == 0  # what is there is not asked for again


def other_version(wheels: Path) -> None:
    (path,) = wheels.glob("tiny_two*")
    wheel(wheels, "tiny-two", "1.1", {"two/part": b""})
    path.unlink()


def other_content(wheels: Path) -> None:
    wheel(wheels, "tiny-two", "1.0", {"two/part": b"another"})


def more_content(wheels: Path) -> None:
    wheel(wheels, "tiny-two", "1.0", {"two/part": bytes(1 << 22)})


def without_the_file(wheels: Path) -> None:
    wheel(wheels, "tiny-two", "1.0", {"two/other": b""})


def damaged(wheels: Path) -> None:
    """One byte of what is stored, not of what pip reads."""
    (path,) = wheels.glob("tiny_two*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (other_version, r"pip does not fetch tiny-one==1.0, tiny-two==1.0: .*versions: 1\.1"),
        (other_content, r"tiny-one, tiny-two 1.0: holds another tiny.gguf: SHA-256 .* expected"),
        (more_content, r"holds another tiny.gguf"),
        (without_the_file, r"tiny_two-1.0-py3-none-any.whl: holds no two/part"),
        (damaged, r"tiny_two-1.0-py3-none-any.whl: a damaged wheel"),
    ],
)
def test_another_package_is_refused_and_nothing_is_kept(
    spoil: object, told: str, wheels: Path
) -> None:
    spoil(wheels)  # type: ignore[operator]
    with pytest.raises(UsageError, match=told) as refused:
        fetch("tiny", wheels)
    assert "\n" not in str(refused.value)
    assert not [path for path in (cache_folder() / "packages").iterdir() if path.is_dir()]


def test_a_fetched_file_that_was_changed_is_refused(
    wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch("tiny", wheels)
    (folder / "tiny.gguf").write_bytes(b"another")
    monkeypatch.setattr(packages, "_download", lambda *_: pytest.fail("fetched again"))
    with pytest.raises(UsageError, match=r"tiny\.gguf: was changed; remove that folder"):
        fetch("tiny")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no-such"], "get 'no-such': expected one of smollm2, gemma3-270m"),
        (["smollm2", "--from", "no/such"], "--from no/such: expected a folder of packages"),
    ],
)
def test_get_refuses_what_it_does_not_know(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["get", *arguments]) == 2
    assert told in capsys.readouterr().err


def test_get_fetches_nothing_that_could_not_be_read(
    wheels: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(undoing, "find_spec", lambda _: None)
    assert main(["get", "tiny", "--from", str(wheels)]) == 2
    told = capsys.readouterr()
    assert "not installed: gguf, accelerate (pip install 'kv-claims[gguf]')" in told.err
    assert not told.out
    assert not cache_folder().exists()


@torch.no_grad()
def logits_of(net: Any, ids: list[int]) -> torch.Tensor:
    found: torch.Tensor = net(torch.tensor([ids])).logits
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2", "gemma3-270m"])
def test_the_real_models_are_those_that_transformers_reads(name: str) -> None:
    """In the cache of whoever runs this; `kv-claims get NAME` puts it there."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    packaged = PACKAGED[name]
    folder = cache_folder() / "packages" / f"{name}-{packaged.version}"
    try:
        model = load_model(name, device="cpu", dtype="float32")
    except UsageError as error:
        pytest.skip(str(error))
    place = {"pretrained_model_name_or_path": str(folder), "gguf_file": packaged.file}
    oracle = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(**place)
    for text in ("The capital of France is", "I notice 12345 things,\n\nand don't  know… 日本語"):
        ids = model.encode(text)
        assert ids == list(tokenizer(text)["input_ids"])
        assert torch.equal(logits_of(model.network, ids), logits_of(oracle, ids))
    last = logits_of(model.network, model.encode("The capital of France is"))[0, -1]
    assert " Paris" in [model.decode([int(token)]) for token in last.topk(5).indices]
