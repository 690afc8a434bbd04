"""Loading a model: planted, shipped, a folder, a GGUF file, or a hub id; device, dtype, revision.

Promises: whatever is wrong with a model is one `UsageError` of one line, found before a study
runs; no code of a folder is run and nothing but safetensors is read; what transformers ignored,
added or guessed stands in `LoadedModel.loading`, or is refused. Does not: know where an
architecture keeps its keys (see `kv_claims.models.rotary`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from kv_claims.claims.positions import Extent
from kv_claims.claims.sites import HeadCounts
from kv_claims.errors import UsageError
from kv_claims.models.budget import no_larger_than
from kv_claims.models.cached import Kept, kept_by
from kv_claims.models.contents import Contents, contents_of
from kv_claims.models.gguf import GgufFile, made_of, undone
from kv_claims.models.hub import snapshot
from kv_claims.models.loading import Loading, loading_of
from kv_claims.models.quiet import quiet
from kv_claims.models.request import Request, check_request
from kv_claims.models.spans import located
from kv_claims.models.tokens import Tokenization, load_tokenizer
from kv_claims.planted.build import build_planted
from kv_claims.planted.known import PlantedModel
from kv_claims.tasks.task import Prompt

_COARSENESS = ("float64", "float32", "float16", "bfloat16")
_LONGEST = 300
"""Characters of a reason that are shown."""


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model, ready to run.

    loading: what stood in its files and what was made of it. file: the GGUF file that those were
    made of, if they were. What identifies it is asked of
    `kv_claims.models.identity`, when it is run: `network` may be edited.
    """

    name: str
    network: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    revision: str | None
    planted: PlantedModel | None = None
    loading: Loading = field(default_factory=Loading)
    file: GgufFile | None = None

    @cached_property
    def config(self) -> Any:
        """The text model's configuration."""
        return self.network.config.get_text_config()

    @property
    def n_layers(self) -> int:
        return int(self.config.num_hidden_layers)

    @cached_property
    def kept(self) -> tuple[Kept, ...]:
        """What each layer keeps of a position, seen in a cache. Errors as in `kept_by`."""
        return kept_by(self.network, self.device)

    @property
    def keeps_latents(self) -> bool:
        """Whether a layer keeps a compressed latent and a rotary key where others keep K and V.

        So do DeepSeek's models and others of that attention, in releases of transformers that
        expand neither before they are cached.
        """
        rank = getattr(self.config, "kv_lora_rank", None)
        return rank is not None and any((k.heads, k.key) == (1, rank) for k in self.kept)

    @cached_property
    def n_kv_heads(self) -> int:
        """Heads of keys and values; with grouped queries fewer than heads of queries.

        Raises UsageError where layers have unlike numbers of them.
        """
        numbers = sorted({kept.heads for kept in self.kept})
        if len(numbers) > 1:
            raise UsageError(
                f"model {self.name!r}: its layers keep {' or '.join(map(str, numbers))} heads of "
                "keys and values; expected as many in every layer"
            )
        return numbers[0]

    @property
    def heads(self) -> HeadCounts:
        """Heads of each layer. Errors as in `n_kv_heads`."""
        return HeadCounts(self.n_kv_heads, self.n_query_heads)

    @property
    def n_query_heads(self) -> int:
        """Heads of queries in each layer."""
        return int(self.config.num_attention_heads)

    @property
    def dtype_name(self) -> str:
        """The dtype that is computed in."""
        return str(self.dtype).removeprefix("torch.")

    @cached_property
    def precision(self) -> str:
        """The dtype whose rounding its numbers have, by which tolerances are chosen.

        That of a quantised model may be coarser than `dtype_name`.
        """
        stored = self.loading.quantization
        rounds = stored.rounds if stored else None
        return max((self.dtype_name, rounds or self.dtype_name), key=_COARSENESS.index)

    @cached_property
    def tokenization(self) -> Tokenization:
        """How text becomes tokens and tokens text."""
        return Tokenization(self.name, self.tokenizer, self.network)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Token ids that end a text; none for the planted models."""
        return self.tokenization.stops.all

    def tokens(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt as it is fed; errors as of `Tokenization.rendered` and `encode`."""
        return self.encode(self.tokenization.rendered(prompt))

    def extent(self, prompt: Prompt) -> Extent:
        """A prompt as positions see it; errors as of `tokens` and `spans.located`."""
        return Extent(len(self.tokens(prompt)), located(self.tokenization, prompt))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text as it is fed: see `kv_claims.models.tokens`.

        Raises UsageError for a token that the network has no embedding of.
        """
        ids = self.tokenization.encode(text)
        self._check_ids(ids)
        return ids

    def behind(self, prompt: Prompt, text: str) -> list[int]:
        """Token ids of a text that follows a prompt; errors as of `Tokenization.behind`."""
        ids = self.tokenization.behind(prompt, text)
        self._check_ids(ids)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated token ids, without special tokens."""
        return self.tokenization.decode(ids)

    def _check_ids(self, ids: Sequence[int]) -> None:
        if ids and max(ids) >= (known := self.network.get_input_embeddings().weight.shape[0]):
            raise UsageError(
                f"model {self.name!r}: its tokenizer gives token {max(ids)} "
                f"({self.decode([max(ids)])!r}), and its network knows {known}"
            )


def load_model(
    name: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    revision: str | None = None,
) -> LoadedModel:
    """Load a model by name; arguments and errors as in `check_request`.

    Raises UsageError as well when the hub or the folder does not give a causal language model
    whose files are read in full.
    """
    request = check_request(name, device=device, dtype=dtype, revision=revision)
    if request.planted is not None:
        network, tokenizer = build_planted(request.planted)
        network.to(device=request.device, dtype=request.dtype)
        return LoadedModel(
            name=name,
            network=network,
            tokenizer=tokenizer,
            device=request.device,
            dtype=request.dtype,
            revision=None,
            planted=PlantedModel.of(request.planted),
        )
    with _refusing(request), quiet():
        made = undone(request.file) if request.file else request.folder
        return _loaded(request, made or snapshot(name, revision))


def _loaded(request: Request, folder: Path) -> LoadedModel:
    """A folder's model. What is cheap comes first: files, configuration, tokenizer, weights."""
    contents, file = contents_of(folder), made_of(folder)
    place = {"pretrained_model_name_or_path": str(folder), **_ALONE}
    config = AutoConfig.from_pretrained(**place)
    _check_whole(config)
    tokenizer = load_tokenizer(str(folder), **_ALONE)
    network, report = _network(contents, config, request.dtype)
    loading = loading_of(network, contents, report, request.dtype)
    network = network.to(request.device).eval()
    model = LoadedModel(
        name=request.name,
        network=network,
        tokenizer=tokenizer,
        device=request.device,
        dtype=request.dtype,
        revision=folder.name if request.folder is None and file is None else None,
        loading=loading,
        file=file,
    )
    _try_out(model)
    return model


_ALONE = {"trust_remote_code": False, "local_files_only": True}
"""What every call of transformers is told: the folder's code is not run, and nothing is fetched."""


def _network(contents: Contents, config: Any, dtype: torch.dtype) -> tuple[Any, dict[str, Any]]:
    is_quantized = getattr(config, "quantization_config", None) is not None
    with no_larger_than(contents, quantized=is_quantized):
        network, report = AutoModelForCausalLM.from_pretrained(
            str(contents.folder),
            config=config,
            dtype=dtype,
            use_safetensors=True,
            # Else it raises without saying which; they are refused with what else is wrong.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **_ALONE,
        )
    return network, report


def _check_whole(config: Any) -> None:
    if not config.return_dict:
        raise UsageError(
            "config.json: return_dict false, expected networks that name their outputs"
        )


@torch.no_grad()
def _try_out(model: LoadedModel) -> None:
    """Two tokens, so that what a network cannot compute is said here and once."""
    names = inspect.signature(model.network.forward).parameters
    if not {"cache", "past_key_values"} & set(names):
        raise UsageError(
            f"architecture {model.config.model_type!r} takes no cache of keys and values, and that "
            "is what is patched"
        )
    if not all(isinstance(stop, int) for stop in model.stop_ids):
        raise UsageError(f"eos_token_id {sorted(model.stop_ids, key=str)}: expected token numbers")
    ids = torch.zeros(1, 2, dtype=torch.long, device=model.device)
    logits = model.network(input_ids=ids, use_cache=True).logits
    if logits.shape[:2] != ids.shape:
        raise UsageError(f"its logits have shape {tuple(logits.shape)} for 2 tokens")


@contextmanager
def _refusing(request: Request) -> Iterator[None]:
    """The one place where whatever is raised while a model loads becomes one line.

    Anything may be: files are somebody else's, and transformers checks little of them itself.
    """
    kind = "folder" if request.folder else "file" if request.file else "hub id"
    try:
        yield
    except UsageError as error:
        raise UsageError(f"model {request.name!r}: {error}") from error
    except Exception as error:
        raise UsageError(
            f"model {request.name!r}: the {kind} gives no causal language model: "
            f"{type(error).__name__}: {_one_line(str(error))}"
        ) from error
    except BaseException as error:
        # Raised by libraries that are written in Rust, and no kind of Exception.
        if type(error).__name__ != "PanicException":
            raise
        raise UsageError(
            f"model {request.name!r}: the {kind} makes a library panic: {_one_line(str(error))}"
        ) from error


def _one_line(text: str) -> str:
    told = re.sub(r"\s+", " ", text).strip() or "no reason given"
    return told if len(told) <= _LONGEST else told[:_LONGEST] + " ..."
