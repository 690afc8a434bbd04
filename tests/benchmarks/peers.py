"""The reference work by neighbours, timed in turn with the engine: `make bench-peers`.

Runs in an environment of its own (`.venv-peers/`), where the neighbours are installed. Not a test.
All rows at once; each way prefills 256 rows of its own or is given our spliced caches, as said.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from nnsight import NNsight
from transformers import DynamicCache

from harness.benching.reference import ARMS, LAYERS, WIDTH, Reference, Tokens
from harness.benching.timing import in_turn
from harness.models.forward import with_cache
from harness.patch.build import build
from harness.patch.plan import RowPlan, Write
from harness.patch.store import PromptStore
from harness.run.slab_cache import as_cache


class Peers:
    def __init__(self, work: Reference) -> None:
        self.work, self.network = work, work.model.network
        self.traced = NNsight(self.network)

    @torch.no_grad()
    def nnsight_given_our_cache(self) -> Tokens:
        """A trace a step, on a slab that our engine spliced: the same trials as the engine's."""
        work = self.work
        store = PromptStore(work.model)
        store.add([*work.bases, *work.sources])
        plans = [
            RowPlan(
                store.index(base),
                work.tokens,
                (Write(store.index(source), "kv", (arm % LAYERS,), work.window),),
            )
            for base, source in zip(work.bases, work.sources, strict=True)
            for arm in range(ARMS)
        ]
        slab = build(store, plans, None, room=work.new_tokens).slab
        ids = torch.tensor([[store.tokens[plan.prompt][-1]] for plan in plans])
        return self._decode(ids, as_cache(slab))

    @torch.no_grad()
    def nnsight_in_the_prompt(self) -> Tokens:
        """In-prefill, 256 rows: v and k projections of the sources' rows, written to the bases'."""
        work = self.work
        sources = torch.tensor(work.sources)
        saved: dict[tuple[int, str], torch.Tensor] = {}
        layers = self.traced.model.layers
        with self.traced.trace(sources, use_cache=False):
            kept = {}
            for layer in range(LAYERS):
                kept[layer, "k"] = layers[layer].self_attn.k_proj.output[:, -WIDTH:].save()
                kept[layer, "v"] = layers[layer].self_attn.v_proj.output[:, -WIDTH:].save()
            kept.save()
        saved = dict(kept)
        bases = torch.tensor([base for base in work.bases for _ in range(ARMS)])
        cache = DynamicCache()
        rows = [torch.arange(len(work.bases)) * ARMS + layer for layer in range(LAYERS)]
        with self.traced.trace(
            bases, **with_cache(self.network, cache), use_cache=True, logits_to_keep=1
        ):
            for layer in range(LAYERS):
                attention = layers[layer].self_attn
                attention.k_proj.output[rows[layer], -WIDTH:] = saved[layer, "k"]
                attention.v_proj.output[rows[layer], -WIDTH:] = saved[layer, "v"]
            logits = self.traced.output.logits[:, -1].save()
        ids = logits.argmax(-1)[:, None]
        rest = self._decode(ids, cache, self.work.new_tokens - 1)
        return [[int(first), *row] for first, row in zip(ids, rest, strict=True)]

    def _decode(self, ids: torch.Tensor, cache: DynamicCache, steps: int | None = None) -> Tokens:
        found = []
        for _ in range(steps or self.work.new_tokens):
            with self.traced.trace(
                ids, **with_cache(self.network, cache), use_cache=True, logits_to_keep=1
            ):
                logits = self.traced.output.logits[:, -1].save()
            ids = logits.argmax(-1)[:, None]
            found.append(ids)
        tokens: Tokens = torch.cat(found, 1).tolist()
        return tokens


def main(rounds: int = 3) -> None:
    torch.set_num_threads(1)
    work = Reference()
    peers = Peers(work)
    ways: dict[str, Callable[[], object]] = {
        "bare decode loop": work.bare_loop,
        "engine": work.engine,
        "nnsight, our spliced caches": peers.nnsight_given_our_cache,
        "nnsight, in the prompt pass": peers.nnsight_in_the_prompt,
    }
    same = peers.nnsight_given_our_cache() == work.engine()
    timed = in_turn(ways, rounds)
    lines = [f"nnsight {metadata.version('nnsight')}; CPU seconds, best of {rounds}"]
    for name, seconds in timed.seconds.items():
        ratio = timed.ratio(name, "engine")
        lines.append(
            f"{name:30} {min(seconds):6.2f} s  {work.trials / min(seconds):6.1f} trials/s  "
            f"the engine is {ratio.median:.2f} x as fast ({ratio.least:.2f} to {ratio.most:.2f})"
        )
    lines.append(f"tokens given our caches are {'the same' if same else 'NOT the same'}")
    print("\n".join(lines))
    out = Path("reports/bench")
    out.mkdir(parents=True, exist_ok=True)
    stored = {"cpu_seconds": timed.seconds, "same_tokens": same, "lines": lines}
    (out / "peers.json").write_text(json.dumps(stored, indent=1), encoding="utf-8")
    raise SystemExit(int(not same))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
