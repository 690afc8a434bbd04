"""The engine's way on a GPU, with numbers, on a device that only says that it is one.

The whole of it: `KV_CLAIMS_DEVICE=pretend pytest tests/run tests/patch`; here, one model by all
kinds of arms, and that the pretended device would tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch

from kv_claims.run import static_step
from kv_claims.run.arms import Arm, patched, self_patch
from kv_claims.run.ledger import Ledger
from kv_claims.run.routes import Route
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.trial import Trial
from tests.device import PLACE
from tests.models.architectures import tiny
from tests.pretend_gpu import pretend_gpu
from tests.run.test_runner import ARMS, LIVE, RECOMPUTED, number_task

pytestmark = pytest.mark.skipif(PLACE.type != "cpu", reason="the tests are on a device already")
ARMS_OF = {"static": [*ARMS, *RECOMPUTED[:2]], "plain": [self_patch(LIVE), patched(LIVE)]}
"""By the route that they are decoded by: what is written while rows generate is not recorded."""


@pytest.fixture
def gpu() -> Iterator[torch.device]:
    with pretend_gpu() as device:
        yield device


def ran(
    device: str, dtype: torch.dtype, arms: Sequence[Arm] = ARMS_OF["static"], **how: object
) -> tuple[Runner, list[Trial]]:
    model = tiny("llama", dtype)
    model = replace(model, network=model.network.to(device), device=torch.device(device))
    runner = Runner(model, number_task(), Sampling(6), Ledger(), 16)
    for name, value in how.items():
        setattr(runner, name, value)
    return runner, runner.run(arms, runner.task.first_pairs(2), [0])


@pytest.mark.parametrize("kind", ARMS_OF)
def test_every_kind_of_arm_says_on_it_what_it_says_on_a_cpu(kind: str) -> None:
    arms = ARMS_OF[kind]
    _, wanted = ran("cpu", torch.float64, arms, route=Route("plain"))
    with pretend_gpu():
        runner, found = ran("cuda", torch.float64, arms)
    assert runner.route == Route("static")
    assert set(runner.batches) == {kind}
    assert [one.tokens for one in found] == [one.tokens for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert (one.changed, one.fired, one.changed_steps) == (
            other.changed,
            other.fired,
            other.changed_steps,
        )
        assert (one.oracle_error is None) == (other.oracle_error is None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_other_dtypes_run_on_it(gpu: torch.device, dtype: torch.dtype) -> None:
    runner, found = ran("cuda", dtype)
    assert runner.route == Route("static")
    assert len(found) == 2 * len(ARMS_OF["static"])
    assert gpu.type == "cuda"


def test_a_tensor_left_on_the_host_is_told(
    gpu: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step whose positions stand on the host: the route is not taken, and the reason is said."""
    real = static_step.StaticStep.__init__

    def forgets(self: static_step.StaticStep, *args: object) -> None:
        real(self, *args)  # type: ignore[arg-type]
        self._state.position = self._state.position.cpu()

    monkeypatch.setattr(static_step.StaticStep, "__init__", forgets)
    runner, _ = ran(gpu.type, torch.float64)
    assert runner.route.kind == "plain"
    assert "same device" in runner.route.reason


HOST, WORDS = torch.ones(2, 3), torch.zeros(2, dtype=torch.long)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda there: there + HOST,
        lambda there: torch.cat([there, HOST]),
        lambda there: torch.where(there > 0, there, HOST),
        lambda there: there.masked_fill(HOST > 0, 0.0),
        lambda there: HOST[there[0].long() * 0],
        lambda there: there.__setitem__(WORDS, HOST),
        lambda there: torch.nn.functional.linear(there, HOST),
        lambda there: torch.equal(there, HOST),
    ],
    ids=["add", "cat", "where", "fill", "place", "write", "linear", "equal"],
)
def test_what_cuda_refuses_is_refused(
    gpu: torch.device, wrong: Callable[[torch.Tensor], object]
) -> None:
    there = torch.ones(2, 3, device=gpu)
    with pytest.raises(RuntimeError, match="same device"):
        wrong(there)
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()


def test_what_cuda_takes_is_taken(gpu: torch.device) -> None:
    there = torch.arange(6.0, device=gpu).view(2, 3)
    assert there.device == there[WORDS].device == (there + torch.tensor(1.0)).device == gpu
    assert there.copy_(HOST) is there
    there[:1] = HOST[:1]
    assert there.to("cpu").device == there.cpu().device == torch.device("cpu")
    assert there.to(torch.float64).device == HOST.to(there).device == gpu
    assert there.sum().item() == 6
    assert there.cpu().numpy().shape == (2, 3)
    # Another device has memory of its own.
    there.cpu().zero_()
    assert there.sum().tolist() == 6
    there[0].add_(1)
    assert there.tolist()[0] == [2.0, 2.0, 2.0]
    assert there._version == there[0]._version
