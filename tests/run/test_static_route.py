"""The static route: the same trials as the plain one, recorded once, in memory used again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from functools import wraps

import pytest
import torch
import transformers

from kv_claims.claims.patch import Patch
from kv_claims.evidence.provenance import provenance
from kv_claims.models.load import LoadedModel
from kv_claims.patch.build import build
from kv_claims.patch.memory import Memory
from kv_claims.patch.plan import RowPlan
from kv_claims.patch.store import PromptStore
from kv_claims.run import routes, static_step, steps
from kv_claims.run.arms import BASE, SOURCE, Arm, controls, patched, self_patch
from kv_claims.run.batch_size import BatchSize
from kv_claims.run.captured import Recorder, Step
from kv_claims.run.decode import Decoded, decode
from kv_claims.run.fused_norms import Norm
from kv_claims.run.ledger import Ledger
from kv_claims.run.routes import Route, route_of
from kv_claims.run.runner import Runner
from kv_claims.run.sampling import uniforms
from kv_claims.run.sampling_settings import Sampling
from kv_claims.run.static_step import KEPT, REACH
from kv_claims.run.tolerances import TOLERANCE
from tests.device import on_a_gpu, on_the_cpu
from tests.models.architectures import CONFIGS, prompt, tiny
from tests.run.tape import taped
from tests.run.test_routes import HALF, WINDOWED, trials
from tests.run.test_runner import ARMS, LIVE, RECOMPUTED, assert_same_geometry, number_task

READS_BACK = ("llama-dynamic", "mixtral")
STATIC = [name for name in CONFIGS if name not in (*WINDOWED, *READS_BACK)]
IN_PREFILL = RECOMPUTED[:5]
"""Those whose patches end with the prompt; the first writes its last token, fed in step 0."""
LENGTHS = (7, 12, 30, 12, 18)


def on(device: str, model: LoadedModel) -> LoadedModel:
    """The same model elsewhere."""
    place = torch.device(device)
    return replace(model, network=model.network.to(place), device=place)


def decoded(
    model: LoadedModel,
    memory: Memory | None,
    lengths: Sequence[int] = LENGTHS,
    tokens: int = 40,
    *,
    temperature: float = 0.7,
) -> Decoded:
    """Unpatched rows of these lengths, plainly or in a memory."""
    store = PromptStore(model)
    prompts = [prompt(length, seed) for seed, length in enumerate(lengths)]
    store.add(prompts)
    plans = [RowPlan(store.index(one), len(one)) for one in prompts]
    slab = build(store, plans, None, headroom=tokens, memory=memory).slab
    luck = torch.stack([uniforms(f"row {row}", 0, tokens) for row in range(len(plans))])
    first = [one[-1] for one in prompts]
    kept = range(len(plans))
    return decode(model, slab, first, luck, Sampling(tokens, temperature), keep=kept)


def taken(model: LoadedModel) -> Route:
    """The route, where this transformers lets it be taken at all."""
    found = route_of(model, "static")
    if model.name == "tiny:phi3-longrope" and found.reason.startswith("ReadBackError"):
        pytest.skip(f"LongRoPE of transformers {transformers.__version__}: {found.reason}")
    return found


def assert_same_trials(model: LoadedModel, arms: list[Arm], **given: int) -> Runner:
    plain, plainly = trials(model, arms, Route("plain"), **given)
    static, runner = trials(model, arms, Route("static"), **given)
    assert set(plainly.batches) == {"plain"}
    for one, other in zip(plain, static, strict=True):
        assert (one.tokens, one.stopped) == (other.tokens, other.stopped), one.arm
        assert (one.elements, one.beyond_rounding) == (other.elements, other.beyond_rounding)
        assert bool(one.differs) == bool(other.differs)
        assert one.fired_steps == other.fired_steps
        assert one.beyond_rounding_steps == other.beyond_rounding_steps
        assert other.margin == pytest.approx(one.margin, abs=1e-7)
        assert_same_geometry(one, other)
        for error in (other.oracle_error, other.oracle_keys_error):
            assert error is None or error < TOLERANCE["float64"]
    return runner


@pytest.mark.parametrize("name", STATIC)
def test_both_routes_give_the_same_trials(name: str) -> None:
    """Keys of GPT-2 cannot be moved, so there only arms that keep them in place."""
    model = tiny(name)
    arms = [BASE, SOURCE, patched(HALF[0])] if name == "gpt2" else ARMS
    found = taken(model)
    assert (found.kind, found.reason) == ("static", "")
    assert set(assert_same_trials(model, arms).batches) == {"static"}


@pytest.mark.parametrize("name", ["llama", "phi3", "gpt_neox"])
def test_patches_of_the_prompt_pass_end_with_a_plain_first_step(name: str) -> None:
    runner = assert_same_trials(tiny(name), IN_PREFILL)
    assert set(runner.batches) == {"static"}
    fired = {
        trial.fired_steps for trial in runner.run(IN_PREFILL, number_task().first_pairs(5), [0])
    }
    assert fired > {0}


def test_what_is_written_while_rows_generate_is_decoded_plainly() -> None:
    model = tiny("llama")
    held = patched(Patch("kv_proj", "2", "first(3)", active="every_step(held)"))
    for arms in (
        [self_patch(LIVE)],
        [held],
        [patched(Patch("kv", "1", "last(4)", active="every_step"))],
    ):
        assert set(assert_same_trials(model, arms).batches) == {"plain"}


def test_a_static_slab_is_refused_for_rows_that_are_written_to() -> None:
    """The runner asks the route first; who does not is told, and not given unpatched rows."""
    model, task = tiny("llama"), number_task()
    runner = Runner(model, task, Sampling(4), Ledger())
    arm = patched(Patch("kv_proj", "2", "first(3)", active="every_step(held)"))
    runner.prefill([(task.pairs[0], arm)])
    plan = runner.rows.plan(arm, task.pairs[0], 0, runner.store)
    built = build(runner.store, [plan], runner.rows.rotation, headroom=4, memory=Memory())
    with pytest.raises(ValueError, match="while they generate"):
        decode(model, built.slab, [1], torch.zeros(1, 4).double(), Sampling(4), live=built.live)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox", "phi3-longrope"])
def test_replayed_without_its_python_a_step_does_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As a graph is: steps cross three boundaries of how far they read, in two batches."""
    model, memory = tiny(name), Memory()
    taken(model)
    for lengths in (LENGTHS, LENGTHS[::-1]):
        plain = decoded(model, None, lengths, 70)
        with taped(monkeypatch) as tapes:
            static = decoded(model, memory, lengths, 70)
        assert static.tokens == plain.tokens
        for row in range(len(lengths)):
            assert_close(plain.logits[row], static.logits[row], 1e-6)
        # 32 slots and 70 steps: up to 64, 96 and 112 positions, recorded in the first batch.
        assert len(tapes) == (3 if lengths is LENGTHS else 0)
    assert all(tape.operations for tape in tapes)


def assert_close(one: torch.Tensor, other: torch.Tensor, share: float) -> None:
    """Logits, relative to the largest."""
    assert one.shape == other.shape
    assert float((one.double() - other.double()).abs().max()) <= share * float(one.abs().max())


@pytest.mark.parametrize("temperature", [0.7, 0.0], ids=["sampled", "greedy"])
def test_in_float32_they_part_at_near_ties_only(temperature: float) -> None:
    model = tiny("qwen3", dtype=torch.float32)
    arms = [*ARMS, patched(HALF), *controls(HALF, 4, about_layer=True).values()]
    plain, _ = trials(model, arms, Route("plain"), temperature)
    static, _ = trials(model, arms, route_of(model, "static"), temperature)
    parted = [
        max(one.margin, other.margin)
        for one, other in zip(plain, static, strict=True)
        if one.tokens != other.tokens
    ]
    assert all(margin < 1e-4 for margin in parted)
    assert len(parted) <= len(plain) / 20


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["llama", "mistral", "gpt_neox"])
def test_in_half_precision_logits_agree_while_tokens_do(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype
) -> None:
    model = tiny(name, dtype=dtype)
    assert route_of(model, "static").kind == "static"
    norms, real = [], static_step.fused

    def counted(some: Sequence[Norm]) -> object:
        norms.append(len(some))
        return real(some)

    monkeypatch.setattr(static_step, "fused", counted)
    plain, static = decoded(model, None), decoded(model, Memory())
    assert set(norms) == {0 if name == "gpt_neox" else 9}
    steps_compared = 0
    for row in range(len(LENGTHS)):
        parts = [a != b for a, b in zip(plain.ids[row], static.ids[row], strict=True)]
        same = parts.index(True) + 1 if True in parts else len(parts)
        assert_close(
            plain.logits[row][:same], static.logits[row][:same], TOLERANCE[model.dtype_name]
        )
        steps_compared += same
    assert steps_compared > 40


def test_rows_that_end_stay_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every eighth token a stop rows end at different steps; that is looked up every 8."""
    model = tiny("llama")
    model.__dict__["stop_ids"] = frozenset(range(0, 97, 8))
    arms = [BASE, SOURCE, patched(HALF)]
    runner = assert_same_trials(model, arms, tokens=50)
    ran = runner.run(arms, number_task().first_pairs(5), [0])
    assert len({len(trial.tokens) for trial in ran}) > 5
    fed: list[int] = []
    real = steps.StaticSteps.feed

    def counted(self: steps.StaticSteps, token: torch.Tensor, number: int) -> torch.Tensor:
        fed.append(number)
        return real(self, token, number)

    monkeypatch.setattr(steps.StaticSteps, "feed", counted)
    found = decoded(model, Memory(), tokens=80)
    longest = max(map(len, found.tokens))
    assert all(found.stopped)
    assert len(fed) == -(-longest // steps.LOOK) * steps.LOOK < 80
    assert found.tokens == decoded(model, None, tokens=80).tokens


def counting(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    recorded: list[Step] = []
    real = Recorder.record

    def record(self: Recorder, step: Step, warm_up: Step) -> object:
        recorded.append(step)
        return real(self, step, warm_up)

    monkeypatch.setattr(Recorder, "record", record)
    return recorded


def test_a_shape_is_recorded_once_and_forgotten_after_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded, model, memory = counting(monkeypatch), tiny("llama"), Memory()
    longest = (7, 16 * (KEPT + 2))
    decoded(model, memory, longest, 4)  # the largest first: memory that grows forgets all
    before = len(recorded)
    for lengths in (longest, (9, longest[1]), (longest[1], *longest)):
        decoded(model, memory, lengths, 4)
    assert len(recorded) == before, "other prompts, and other numbers of rows up to 32"
    for blocks in range(1, KEPT + 1):
        decoded(model, memory, (7, 16 * blocks), 4)
    before = len(recorded)
    decoded(model, memory, longest, 4)
    assert len(recorded) == before + 1, f"it is kept behind {KEPT} others"


def test_a_step_reads_no_further_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    real = static_step.static_attention

    def seen(*args: torch.Tensor, **given: float) -> object:
        widths.append(args[2].shape[2])
        return real(*args, **given)

    monkeypatch.setattr(static_step, "static_attention", seen)
    decoded(tiny("llama"), Memory(), (17,), 60)
    # 16 slots: the step writes at 16, 17, ... and reads up to there at least.
    assert set(widths) == {32, 64, 80}
    assert widths.count(32) == (16 + 2) * 4, "16 steps and the two that warm up, in 4 layers"
    assert REACH == 32


def test_memory_is_free_once_it_is_let_go() -> None:
    """Without waiting for a collection of garbage: on a GPU two of them would not fit."""
    model, memory = tiny("llama"), Memory()
    gc.disable()
    try:
        decoded(model, memory)
        pieces = [weakref.ref(piece) for piece in memory._pieces]
        held = weakref.ref(memory.held)  # type: ignore[arg-type]
        assert memory.bytes > 0
        memory.release()
        assert memory.bytes == 0
        assert held() is None
        assert [piece() for piece in pieces] == [None] * len(pieces)
    finally:
        gc.enable()


def test_another_model_in_the_same_memory_is_recorded_anew() -> None:
    memory = Memory()
    for name in ("llama", "qwen2"):
        model = tiny(name)
        assert decoded(model, memory).tokens == decoded(model, None).tokens


def test_memory_is_given_back_where_it_ran_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model, task = tiny("llama"), number_task()
    runner = Runner(model, task, Sampling(4), Ledger(), 64)
    runner.route = Route("static")
    real, left = Runner._run_batch, []

    def runs_out(self: Runner, batch: list[object], size: BatchSize) -> object:
        left.append(self.memory.bytes)
        found = real(self, batch, size)  # type: ignore[arg-type]
        if len(batch) > 32:
            raise torch.OutOfMemoryError
        return found

    monkeypatch.setattr(Runner, "_run_batch", runs_out)
    assert runner.run(ARMS, task.first_pairs(5), [0])
    assert left[:2] == [0, 0]
    assert runner.memory.bytes > 0


@pytest.mark.parametrize("name", WINDOWED)
def test_windows_are_decoded_plainly_and_it_is_said(name: str) -> None:
    found = route_of(tiny(name), "static")
    assert found.kind == "plain"
    assert "looks back" in found.reason


def test_a_window_that_no_row_reaches_is_no_reason() -> None:
    model = tiny("mistral-window")
    model.config.sliding_window = 64
    found = route_of(model, "static")
    assert found == Route("static", within=64)
    assert found.of([RowPlan(0, 40)], 24) == "static"
    assert found.of([RowPlan(0, 41)], 24) == "plain"


@pytest.mark.parametrize("name", READS_BACK)
def test_a_model_that_reads_a_number_back_is_decoded_plainly(name: str) -> None:
    """Dynamic RoPE asks how long the text is; Mixtral, which experts have anything to do."""
    found = route_of(tiny(name), "static")
    assert found.kind == "plain"
    assert found.reason.startswith("ReadBackError")


@pytest.mark.parametrize("scale", [1.2, float("nan")], ids=["off", "nan"])
def test_attention_that_errs_is_found_and_not_taken(
    monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    real = static_step.static_attention

    def wrong(*args: torch.Tensor, **given: object) -> object:
        out, weights = real(*args, **given)  # type: ignore[arg-type]
        return out * scale, weights

    monkeypatch.setattr(static_step, "static_attention", wrong)
    for dtype in (torch.float64, torch.bfloat16):
        found = route_of(tiny("llama", dtype), "static")
        assert found.kind == "plain"
        assert "differ" in found.reason or "finite" in found.reason


def test_a_model_that_asks_for_more_is_decoded_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    real = model.network.forward

    @wraps(real)
    def with_a_cap(**given: object) -> object:
        return real(**given, softcap=3.0)

    monkeypatch.setattr(model.network, "forward", with_a_cap)
    found = route_of(model, "static")
    assert found.kind == "plain"
    assert "softcap" in found.reason


@on_the_cpu("it asks for the route of a CPU")
def test_a_device_has_its_best_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU nothing but the shared route is tried; what a GPU gets is in the same table."""
    assert routes.BEST == {"cpu": "shared", "cuda": "static"}
    model = tiny("llama")
    assert route_of(model).kind == "shared"
    monkeypatch.setitem(routes.BEST, "cpu", "static")
    runner = Runner(model, number_task(), Sampling(4), Ledger())
    runner.run([BASE], runner.task.first_pairs(3), [0])
    assert runner.batches == {"static": 1}
    monkeypatch.delitem(routes.BEST, "cpu")
    assert route_of(model) == Route("plain", "nothing faster is known on cpu")
    assert route_of(model, "plain").kind == "plain"


@on_the_cpu("it asks for the route of a CPU")
def test_the_route_is_part_of_what_a_run_is_in_half_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def studies() -> list[str]:
        return [Runner(model, number_task(), Sampling(4), Ledger()).study for model in models]

    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    models = [tiny("llama", dtype) for dtype in dtypes]
    before = studies()
    monkeypatch.setitem(routes.BEST, "cpu", "static")
    same = [one == other for one, other in zip(before, studies(), strict=True)]
    assert same == [True, True, False, False]


def test_the_evidence_says_by_which_route(stored: LoadedModel) -> None:
    runner = Runner(stored, number_task(), Sampling(4), Ledger())
    runner.route = route_of(stored, "static")
    assert provenance(runner, [])["decoding"] == {"kind": "static", "reason": "", "within": None}


def test_a_planted_model_gives_the_same_trials(stored: LoadedModel, stored_task: object) -> None:
    found = []
    for route in (Route("plain"), route_of(stored, "static")):
        runner = Runner(stored, stored_task, Sampling(12), Ledger())  # type: ignore[arg-type]
        runner.route = route
        arms = [BASE, SOURCE, patched(Patch("kv", "12", "last(8)"))]
        found.append([trial.tokens for trial in runner.run(arms, stored_task.first_pairs(8), [0])])  # type: ignore[attr-defined]
        assert set(runner.batches) == {route.kind}
    assert found[0] == found[1]


@on_a_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("name", STATIC)
def test_on_a_gpu_the_recorded_route_gives_the_same_tokens(name: str) -> None:
    model = on("cuda", tiny(name))
    assert route_of(model) == Route("static")
    memory = Memory()
    for lengths in (LENGTHS, LENGTHS[::-1], LENGTHS[:2]):
        plain, static = decoded(model, None, lengths, 70), decoded(model, memory, lengths, 70)
        assert static.tokens == plain.tokens


@on_a_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_on_a_gpu_logits_agree_while_tokens_do(dtype: torch.dtype) -> None:
    model = on("cuda", tiny("llama", dtype))
    assert route_of(model) == Route("static")
    plain, static = decoded(model, None), decoded(model, Memory())
    for row in range(len(LENGTHS)):
        parts = [a != b for a, b in zip(plain.ids[row], static.ids[row], strict=True)]
        same = parts.index(True) + 1 if True in parts else len(parts)
        assert_close(
            plain.logits[row][:same], static.logits[row][:same], TOLERANCE[model.dtype_name]
        )


@on_a_gpu
@pytest.mark.gpu
def test_on_a_gpu_a_replayed_step_does_not_wait_for_the_device() -> None:
    model, memory = on("cuda", tiny("llama")), Memory()
    decoded(model, memory)
    store = PromptStore(model)
    store.add([prompt(12, 1)])
    slab = build(store, [RowPlan(0, 12)], None, headroom=40, memory=memory).slab
    fed = steps.StaticSteps(model, slab, None)
    token = torch.ones(1, dtype=torch.long, device="cuda")
    fed.feed(token, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for number in range(1, 8):
            fed.feed(token, number)
    finally:
        torch.cuda.set_sync_debug_mode("default")
