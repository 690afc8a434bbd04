"""What loading made of a folder is recorded: what it ignored, tied, guessed, and how it stores."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kv_claims.errors import UsageError
from kv_claims.models.identity import weights_sha
from kv_claims.models.load import LoadedModel, load_model
from kv_claims.models.loading import Loading, Quantization, quantization_of
from kv_claims.planted.made import word_tokenizer
from tests.models.architectures import CONFIGS, VOCAB, tiny
from tests.models.hostile import (
    INDEX,
    WEIGHTS,
    Harm,
    config,
    entries,
    good_folder,
    tensors,
    tokenizer_code,
    without,
)
from tests.processes import inherited


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "good"
    good_folder(folder)
    return folder


@pytest.fixture
def copied(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def load(folder: Path, **options: Any) -> LoadedModel:
    return load_model(str(folder), device="cpu", **options)


def test_an_ordinary_folder_has_nothing_to_tell(good: Path) -> None:
    loading = load(good).loading
    assert loading == Loading(stored={"F32": 39}, computed="float32")
    assert json.loads(json.dumps(loading.to_dict())) == loading.to_dict() | {
        name: [] for name in ("added", "tied", "unknown", "code", "unread")
    }


def test_a_conversion_of_numbers_is_recorded(good: Path) -> None:
    loading = load(good, dtype="bfloat16").loading
    assert (loading.stored, loading.computed) == ({"F32": 39}, "bfloat16")


@pytest.mark.parametrize(
    ("harm", "ignored"),
    [
        (
            tensors(vision_tower__blocks__0__weight=(2, 2), vision_tower__blocks__1__weight=(2,)),
            {"vision_tower": 2},
        ),
        (tensors(model__visual__merger__mlp__weight=(2,)), {"model.visual": 1}),
        (tensors(v_head__weight=(2,), v_head__bias=(1,)), {"v_head": 2}),
        (
            tensors(model__layers__0__self_attn__rotary_emb__inv_freq=(2,)),
            {"model.layers.*.self_attn.rotary_emb.inv_freq": 1},
        ),
    ],
    ids=["tower", "tower-inside", "head", "old-frequencies"],
)
def test_a_part_that_the_network_does_not_have_is_recorded(
    harm: Harm, ignored: dict[str, int], copied: Path, good: Path
) -> None:
    harm(copied)
    model = load(copied)
    assert model.loading.ignored == ignored
    assert weights_sha(model.network) == weights_sha(load(good).network)


def test_tied_weights_are_recorded_and_whether_somebody_said_so(copied: Path) -> None:
    without("lm_head")(copied)
    with pytest.raises(UsageError, match=r"are missing.*lm_head.weight"):
        load(copied)
    config(tie_word_embeddings=True)(copied)
    loading = load(copied).loading
    assert loading.tied == ("model.embed_tokens.weight = lm_head.weight",)
    assert loading.guessed == {}


def test_embeddings_that_are_said_to_be_tied_and_are_not(copied: Path) -> None:
    config(tie_word_embeddings=True)(copied)
    loading = load(copied).loading
    assert loading.tied == ()
    assert loading.guessed == {"tie_word_embeddings": "False, as the files hold both"}


def test_what_config_leaves_to_its_class_and_what_its_class_leaves(copied: Path) -> None:
    content = json.loads((copied / "config.json").read_text())
    del content["rms_norm_eps"]
    (copied / "config.json").write_text(json.dumps(content | {"my_gate": 3}))
    loading = load(copied).loading
    assert loading.guessed == {"rms_norm_eps": "1e-06"}
    assert loading.unknown == ("my_gate",)


def test_weights_that_stand_beside_those_that_are_read(copied: Path) -> None:
    shutil.copy(copied / WEIGHTS, copied / "consolidated.safetensors")
    assert load(copied).loading.unread == ("consolidated.safetensors",)


def test_code_of_the_folder_is_named_and_not_run(copied: Path) -> None:
    tokenizer_code(copied)
    config(auto_map={"AutoModelForCausalLM": "evil.M"})(copied)
    assert load(copied).loading.code == ("evil.M", "evil.T")
    assert not (copied / "was-run").exists()


def test_the_same_weights_in_shards_are_the_same_model(copied: Path, good: Path) -> None:
    found = load_file(copied / WEIGHTS)
    (copied / WEIGHTS).unlink()
    (copied / "part").mkdir()
    where = {}
    for number, names in enumerate((list(found)[:20], list(found)[20:])):
        file = f"part/{number}.safetensors"
        save_file({name: found[name] for name in names}, copied / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    (copied / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert weights_sha(load(copied).network) == weights_sha(load(good).network)
    scrambled = load_file(copied / "part/0.safetensors")
    scrambled = {name: tensor.flip(0) for name, tensor in scrambled.items()}
    save_file(scrambled, copied / "part/0.safetensors", metadata={"format": "pt"})
    assert weights_sha(load(copied).network) != weights_sha(load(good).network)


def _cache(good: Path, cache: Path) -> Path:
    """The hub's cache as its library leaves it: files by number, a snapshot of links to them."""
    home, commit = cache / "models--owner--name", "0123456789abcdef0123456789abcdef01234567"
    snapshot = home / "snapshots" / commit
    for folder in (home / "blobs", home / "refs", snapshot):
        folder.mkdir(parents=True)
    (home / "refs/main").write_text(commit)
    for number, file in enumerate(sorted(good.iterdir())):
        shutil.copy(file, home / "blobs" / f"{number:040x}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number:040x}")
    return snapshot


def test_a_snapshot_of_the_hubs_cache_loads_as_a_folder(good: Path, tmp_path: Path) -> None:
    model = load(_cache(good, tmp_path))
    assert weights_sha(model.network) == weights_sha(load(good).network)


def test_a_hub_id_is_its_snapshot_and_its_commit(good: Path, tmp_path: Path) -> None:
    snapshot = _cache(good, tmp_path)
    program = (
        "from kv_claims.models.load import load_model\n"
        "from kv_claims.models.identity import weights_sha\n"
        "model = load_model('owner/name', device='cpu')\n"
        "print(model.revision, weights_sha(model.network))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**inherited(), "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == [snapshot.name, weights_sha(load(good).network)], done.stderr


def test_a_tokenizer_of_more_words_than_the_network_says_so(copied: Path) -> None:
    tokenizer = json.loads((copied / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["later"] = 40
    (copied / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = load(copied)
    assert model.encode("w1 w39") == [1, 39]
    with pytest.raises(UsageError, match=r"token 40 \('later'\), and its network knows 40"):
        model.encode("w1 later")


class _Config:
    def __init__(self, **said: Any) -> None:
        self.quantization_config = said


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False},
            Quantization("bitsandbytes", 8, "bfloat16"),
        ),
        (
            {
                "quant_method": "bitsandbytes",
                "load_in_4bit": True,
                "bnb_4bit_compute_dtype": "float16",
                "bnb_4bit_quant_type": "nf4",
            },
            Quantization("bitsandbytes", 4, "float16"),
        ),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, Quantization("gptq", 4, None)),
        ({"quant_method": "quanto", "weights": "int2"}, Quantization("quanto", 2, None)),
        (
            {"quant_method": "quanto", "weights": "int8", "activations": "int8"},
            Quantization("quanto", 8, "bfloat16"),
        ),
        (
            {
                "quant_method": "torchao",
                "quant_type": {"default": {"_type": "Int8WeightOnlyConfig"}},
            },
            Quantization("torchao", 8, None),
        ),
        (
            {
                "quant_method": "torchao",
                "quant_type": {"default": {"_type": "Int8DynamicActivationInt8WeightConfig"}},
            },
            Quantization("torchao", 8, "bfloat16"),
        ),
        (
            {
                "quant_method": "fp8",
                "activation_scheme": "dynamic",
                "weight_block_size": [128, 128],
            },
            Quantization("fp8", 8, "bfloat16"),
        ),
        ({"quant_method": "unheard"}, Quantization("unheard", None, None)),
    ],
    ids=["bnb-8", "bnb-4", "gptq", "quanto", "quanto-inputs", "ao", "ao-dynamic", "fp8", "other"],
)
def test_how_weights_are_stored_is_read_from_what_the_quantiser_says(
    said: dict[str, Any], found: Quantization
) -> None:
    """As each of them writes it into `config.json` (read from files that they saved)."""
    assert quantization_of(_Config(**said)) == found


@pytest.mark.parametrize(
    ("dtype", "rounds", "precision"),
    [
        (torch.float32, None, "float32"),
        (torch.float32, "bfloat16", "bfloat16"),
        (torch.bfloat16, "float16", "bfloat16"),
        (torch.float64, "float32", "float32"),
    ],
)
def test_tolerances_are_those_of_the_coarsest_rounding(
    dtype: torch.dtype, rounds: str | None, precision: str, stored: LoadedModel
) -> None:
    loading = Loading(quantization=Quantization("any", 8, rounds))
    model = LoadedModel("", stored.network, None, stored.device, dtype, None, None, loading)
    assert model.precision == precision
    assert model.dtype_name == str(dtype).removeprefix("torch.")


def test_entries_of_a_tokenizer_are_no_paths(copied: Path) -> None:
    """Old tokenizers name files of the machine that saved them: they are not opened."""
    entries("tokenizer_config.json", special_tokens_map_file="/nowhere/map.json")(copied)
    assert load(copied).n_layers == 4


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_loads_as_what_was_saved(name: str, tmp_path: Path) -> None:
    """Nothing that an honest folder asks for is too much, and nothing of it is left out."""
    saved = tiny(name, torch.float32).network
    saved.save_pretrained(tmp_path)
    word_tokenizer([f"w{i}" for i in range(VOCAB)], unknown="w0").save_pretrained(tmp_path)
    model = load(tmp_path)
    assert model.loading.ignored == {}
    assert model.loading.added == ()
    fresh = model.network.state_dict()
    assert all(torch.equal(fresh[name], tensor) for name, tensor in saved.state_dict().items())
