"""Recording a step: what is refused, what a CPU does instead, and what is asked of CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from kv_claims.run.captured import WARM_UPS, ReadBackError, Recorder
from tests.device import PRETENDED

CPU = torch.device("cpu")
NUMBERS = torch.arange(6.0).view(2, 3)


def test_on_a_cpu_a_replay_is_a_call() -> None:
    count = torch.zeros(1)
    warmed: list[int] = []
    captured = Recorder(CPU).record(lambda: count.add_(1), lambda: warmed.append(1))
    assert (float(count), len(warmed)) == (0.0, WARM_UPS)
    captured.replay()
    captured.replay()
    assert float(count) == 2


@pytest.mark.parametrize(
    "step",
    [
        lambda: NUMBERS.max().item(),
        lambda: int(NUMBERS.sum()),
        lambda: bool((NUMBERS > 2).any()),
        lambda: NUMBERS.nonzero(),
        lambda: NUMBERS[NUMBERS > 2],
        lambda: NUMBERS.clone().__setitem__(NUMBERS > 2, torch.zeros(3)),
        lambda: NUMBERS.masked_select(NUMBERS > 2),
        lambda: NUMBERS.unique(),
        lambda: torch.equal(NUMBERS, NUMBERS),
        lambda: NUMBERS.to("meta"),
    ],
    ids=[
        *("item", "int", "bool", "nonzero", "mask", "mask-written", "masked-select"),
        *("unique", "equal", "another-device"),
    ],
)
def test_what_needs_a_number_on_the_host_is_refused(step: Callable[[], object]) -> None:
    with pytest.raises(ReadBackError):
        Recorder(CPU).record(step, step)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "step",
    [
        lambda: NUMBERS[torch.tensor([1, 0])],
        lambda: NUMBERS.clone().index_copy_(1, torch.tensor([2]), torch.ones(2, 1)),
        lambda: NUMBERS.masked_fill(NUMBERS > 2, 0.0),
        lambda: NUMBERS.topk(2, -1).indices,
        lambda: torch.where(NUMBERS.max() > 2, NUMBERS, -NUMBERS),
    ],
    ids=["places", "copied-to-places", "filled", "topk", "where"],
)
def test_what_stays_on_the_device_is_not(step: Callable[[], object]) -> None:
    Recorder(CPU).record(step, step)  # type: ignore[arg-type]


class _Cuda:
    """Stands in for the parts of torch.cuda that are asked for, and writes down in which order."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def stream(self, stream: Any) -> Any:
        return self._while(f"on {stream.name}")

    def device(self, device: torch.device) -> Any:
        return self._while(f"on {device}")

    def graph(self, _graph: Any, *, pool: str, stream: Any, capture_error_mode: str) -> Any:
        assert (pool, capture_error_mode) == ("pool", "thread_local")
        return self._while(f"recording on {stream.name}")

    @contextmanager
    def _while(self, what: str) -> Iterator[None]:
        self.said.append(what)
        yield
        self.said.append(f"no longer {what}")

    def made(self, name: str) -> Any:
        def wait_stream(other: Any) -> None:
            self.said.append(f"{name} waits for {other.name}")

        return type("Stream", (), {"name": name, "wait_stream": staticmethod(wait_stream)})


@pytest.mark.skipif(PRETENDED, reason="the pretended GPU records in another way")
def test_a_graph_is_warmed_up_on_the_stream_that_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No GPU is needed to see the order: each stream waits, and nothing else is recorded."""
    cuda = _Cuda()
    side, main = cuda.made("side"), cuda.made("main")
    graph = type("Graph", (), {"replay": staticmethod(lambda: cuda.said.append("replayed"))})
    replaced: dict[str, Any] = {
        "Stream": lambda _device: side,
        "graph_pool_handle": lambda: "pool",
        "current_stream": lambda _device: main,
        "stream": cuda.stream,
        "device": cuda.device,
        "graph": cuda.graph,
        "CUDAGraph": lambda: graph,
    }
    for name, stand_in in replaced.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    recorder = Recorder(torch.device("cuda:1"))
    captured = recorder.record(lambda: cuda.said.append("step"), lambda: cuda.said.append("warm"))
    assert cuda.said == [
        *("on cuda:1", "on main", "side waits for main"),
        *("on side", *["warm"] * WARM_UPS, "no longer on side", "main waits for side"),
        *("recording on side", "step", "no longer recording on side"),
        *("no longer on main", "no longer on cuda:1"),
    ]
    captured.replay()
    assert cuda.said[-1] == "replayed"
