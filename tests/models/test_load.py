"""Loading: what is refused, and that the refusal comes before any weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kv_claims.errors import UsageError
from kv_claims.models.identity import weights_sha
from kv_claims.models.load import load_model
from kv_claims.models.request import check_request
from kv_claims.planted.build import save_planted
from kv_claims.planted.catalog import CATALOG


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("planted:nothing", r"no planted model of that name, expected one of planted:stored"),
        ("./no/such/folder", "not a folder and not a hub id"),
        ("/no/such/folder", "not a folder and not a hub id"),
        ("a/b/c", "not a folder and not a hub id"),
        ("has space/model", "not a folder and not a hub id"),
        ("", "not a folder and not a hub id"),
    ],
    ids=["planted", "relative", "absolute", "three-parts", "space", "empty"],
)
def test_a_name_that_is_no_model_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_request(name)


def test_a_folder_without_a_model_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing config.json, a \*.safetensors file, tokenizer"):
        check_request(str(tmp_path))
    save_planted(CATALOG["inert"], tmp_path)
    assert check_request(str(tmp_path)).folder == tmp_path
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UsageError, match=r"missing a \*.safetensors file"):
        check_request(str(tmp_path))


def test_a_folder_whose_config_is_no_language_model_is_refused(tmp_path: Path) -> None:
    save_planted(CATALOG["inert"], tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-architecture"}')
    with pytest.raises(UsageError, match="gives no causal language model"):
        load_model(str(tmp_path), device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype 'int8': expected one of float64, float32, bfloat16, float16"),
        ({"device": "quantum"}, "device 'quantum': expected cpu, cuda"),
        ({"device": "cuda:99"}, "device 'cuda:99': not there, this machine has cpu"),
        ({"revision": "main"}, "planted models have no revision"),
    ],
    ids=["dtype", "device", "device-not-there", "revision"],
)
def test_options_that_cannot_be_met_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_request("planted:inert", **options)


def test_planted_models_run_in_float64_unless_told() -> None:
    assert check_request("planted:inert", device="cpu").dtype == torch.float64
    assert check_request("owner/name", device="cpu").dtype == torch.float32
    model = load_model("planted:inert", device="cpu", dtype="bfloat16")
    assert next(model.network.parameters()).dtype == torch.bfloat16


def test_equal_weights_have_equal_hashes() -> None:
    one, two = (load_model("planted:inert", device="cpu") for _ in range(2))
    assert weights_sha(one.network) == weights_sha(two.network)
    other = load_model("planted:distributed", device="cpu")
    assert weights_sha(one.network) != weights_sha(other.network)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_taken_when_there_is_one() -> None:
    assert check_request("planted:inert").device.type == "cuda"


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    """transformers would fill them with random numbers, and only warn."""
    save_planted(CATALOG["inert"], tmp_path)
    file = tmp_path / "model.safetensors"
    kept = {name: t for name, t in load_file(file).items() if ".layers.3." not in name}
    save_file(kept, file, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"are missing, and would be made up.*layers\.3"):
        load_model(str(tmp_path), device="cpu")


def test_a_torn_weight_file_is_refused(tmp_path: Path) -> None:
    save_planted(CATALOG["inert"], tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a safetensors file")
    with pytest.raises(UsageError, match=r"model\.safetensors: no safetensors file"):
        load_model(str(tmp_path), device="cpu")
