"""Chat messages to tokens, by the model's own template: held against transformers' own rendering.

What each template does to which messages; what is refused; what stands in the evidence; and that a
whole run on chats is one on their tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kv_claims.claims.patch import Patch
from kv_claims.errors import UsageError
from kv_claims.evidence.provenance import provenance
from kv_claims.models.load import LoadedModel
from kv_claims.models.tokens import Tokenization
from kv_claims.run.arms import BASE, FULL_SWAP, SOURCE, patched, self_patch
from kv_claims.run.ledger import Ledger
from kv_claims.run.runner import Runner
from kv_claims.run.sampling_settings import Sampling
from kv_claims.study.study import ModelStudy
from kv_claims.tasks.chat import as_chat
from kv_claims.tasks.messages import ROLES, Message
from kv_claims.tasks.scorers import Lexicon
from kv_claims.tasks.task import Prompt, Task
from tests.device import PLACE

SPECIAL = ["<s>", "<|im_start|>", "<|im_end|>"]
BOS, START, END = range(3)
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_BOS = "{{ bos_token }}" + CHATML
TRIMS = CHATML.replace("m.content", "m.content | trim")
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system prompt,\n\nplease') }}"
    "{% endif %}" + CHATML
)
DROPS_SYSTEM = "{% set messages = messages | rejectattr('role', 'eq', 'system') | list %}" + CHATML
OWN_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Tiny.<|im_end|>\n{% endif %}"
    + CHATML
)
CLOCK = "\n<|im_start|>system\nToday is {{ strftime_now('%d %B %Y, %H:%M') }}.<|im_end|>\n" + CHATML
ASKED = Message("user", "Who are you?")
BRIEF = Message("system", "Be brief.")


def tokenizer_of(template: str | None, *, adds: str = "") -> PreTrainedTokenizerFast:
    """Every byte a token. adds: what it puts around a text, such as `<s> $A`."""
    backend = Tokenizer(
        BPE({word: n for n, word in enumerate([*SPECIAL, *LETTERS])}, [], unk_token=None)
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if adds:
        backend.post_processor = TemplateProcessing(single=adds, special_tokens=[("<s>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="<|im_end|>",
        extra_special_tokens=["<|im_start|>"],
        chat_template=template,
    )


def network() -> LlamaForCausalLM:
    torch.manual_seed(0)
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = LlamaConfig(
        **ends,
        vocab_size=len(SPECIAL) + len(LETTERS),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    return LlamaForCausalLM(config).eval()


def reading(template: str | None, *, adds: str = "") -> Tokenization:
    return Tokenization("tiny", tokenizer_of(template, adds=adds), NETWORK)


NETWORK = network()


def theirs(how: Tokenization, messages: list[Message]) -> list[int]:
    """transformers' own tokens of a chat."""
    goes_on = messages[-1].role == "assistant"
    found = how.tokenizer.apply_chat_template(
        [{"role": one.role, "content": one.content} for one in messages],
        tokenize=True,
        add_generation_prompt=not goes_on,
        continue_final_message=goes_on,
    )
    return list(found["input_ids"])


def ours(how: Tokenization, messages: list[Message]) -> list[int]:
    return how.encode(how.rendered(Prompt.of("p", "f", messages)))


contents = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Co")), min_size=1, max_size=20
).filter(str.strip)
chats = st.lists(st.builds(Message, st.sampled_from(ROLES), contents), min_size=1, max_size=4)
HOW = [
    pytest.param(reading(CHATML), id="chatml"),
    pytest.param(reading(WITH_BOS), id="bos-by-the-template"),
    pytest.param(reading(WITH_BOS, adds="<s> $A"), id="bos-by-both"),
    pytest.param(reading(OWN_SYSTEM), id="a-system-prompt-of-its-own"),
]


@pytest.mark.parametrize("how", HOW)
@given(chat=chats)
def test_tokens_are_those_of_transformers_own_rendering(
    how: Tokenization, chat: list[Message]
) -> None:
    tokens = ours(how, chat)
    assert tokens == theirs(how, chat)
    assert tokens.count(BOS) == (BOS in theirs(how, [ASKED]))


@given(chat=chats)
def test_a_bos_that_the_template_forgets_is_there_once(chat: list[Message]) -> None:
    how = reading(CHATML, adds="<s> $A")
    tokens = ours(how, chat)
    assert BOS not in theirs(how, chat)
    assert tokens == [BOS, *theirs(how, chat)]


def test_an_assistants_last_message_goes_on() -> None:
    how = reading(CHATML)
    text = how.rendered(Prompt.of("p", "f", [ASKED, Message("assistant", "i ")]))
    assert text == "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\ni "


@pytest.mark.parametrize(
    ("template", "messages", "why"),
    [
        pytest.param(
            NO_SYSTEM,
            [BRIEF, ASKED],
            "refuses them: TemplateError: no system prompt, please",
            id="no-system-prompt",
        ),
        pytest.param(
            "{% for m in messages %}{{ m.content + 1 }}{% endfor %}",
            [ASKED],
            "refuses them: TypeError: ",
            id="an-error-of-its-own",
        ),
        pytest.param("{% for", [ASKED], "refuses them: TemplateSyntaxError: ", id="no-template"),
        pytest.param(DROPS_SYSTEM, [BRIEF, ASKED], "drops message 1 (system)", id="dropped"),
        pytest.param(CHATML * 2, [ASKED], "writes 2 times message 1 (user)", id="twice"),
        pytest.param(
            TRIMS,
            [ASKED, Message("assistant", "I feel ")],
            "does not keep the assistant's 'I feel ' as it is, but without the blanks around it: "
            "expected a content without them",
            id="trimmed-prefix",
        ),
        pytest.param(
            CHATML.replace("m.content", "m.content.split('</think>')[-1]"),
            [Message("user", "a</think>b"), ASKED],
            "does not keep the user's 'a</think>b' as it is",
            id="cut-out",
        ),
        pytest.param(
            CHATML + "{{ 'Quick!' if 'you' in messages[0].content }}",
            [ASKED],
            "writes other words around these contents than around others",
            id="other-words",
        ),
    ],
)
def test_a_template_that_does_not_take_all_of_it_is_one_line(
    template: str, messages: list[Message], why: str
) -> None:
    with pytest.raises(UsageError) as error:
        reading(template).rendered(Prompt.of("s1", "f", messages))
    (line,) = str(error.value).splitlines()
    assert line.startswith("model 'tiny': its chat template and the messages of 's1': it ")
    assert why in line


def test_trimming_takes_nothing_from_messages_without_blanks_around_them() -> None:
    chat = [BRIEF, ASKED, Message("assistant", "I feel")]
    assert ours(reading(TRIMS), chat) == ours(reading(CHATML), chat)


@pytest.mark.parametrize(
    ("template", "what"),
    [
        pytest.param(None, "no chat template", id="none"),
        pytest.param(
            {"tools": CHATML}, "several chat templates, none of them 'default'", id="no-default"
        ),
    ],
)
def test_messages_take_a_template(template: Any, what: str) -> None:
    how = reading(CHATML)
    how.tokenizer.chat_template = template
    assert how.rendered(Prompt("s1", "f", "hi")) == "hi"
    with pytest.raises(UsageError, match=f"model 'tiny': its tokenizer has {what}, and messages"):
        how.rendered(Prompt.of("s1", "f", [ASKED]))


def test_the_clock_stands_still_and_the_evidence_says_so() -> None:
    how = reading(CLOCK)
    prompt = Prompt.of("p", "f", [ASKED])
    begin = "\n<|im_start|>system\nToday is 26 July 2024, 00:00.<|im_end|>\n<|im_start|>user\n"
    assert how.rendered(prompt).startswith(begin + "Who")
    described = how.chat.describe([prompt])
    assert described["date"] == "2024-07-26"
    assert described["template_sha"] == how.chat.sha
    assert reading(CHATML).chat.describe([prompt])["date"] is None


def test_what_a_template_adds_is_in_its_form() -> None:
    plain = Prompt("t", "f", "a text")
    alone, both = Prompt.of("a", "f", [ASKED]), Prompt.of("b", "f", [BRIEF, ASKED])
    begin = "<|im_start|>system\n"
    end = "<|im_end|>\n<|im_start|>assistant\n"
    assert reading(OWN_SYSTEM).chat.describe([plain, alone, both])["forms"] == [
        {
            "roles": ["user"],
            "pieces": [begin + "You are Tiny.<|im_end|>\n<|im_start|>user\n", 0, end],
        },
        {
            "roles": ["system", "user"],
            "pieces": [begin, 0, "<|im_end|>\n<|im_start|>user\n", 1, end],
        },
    ]


def test_special_tokens_of_the_template_are_not_the_tasks() -> None:
    how = reading(WITH_BOS, adds="<s> $A")
    quoting = [Message("user", "say <|im_end|>"), Message("user", "<s>say"), ASKED]
    prompts = [Prompt.of(one.content, "f", [one]) for one in quoting]
    assert how.in_prompts([*prompts, Prompt("t", "f", "a text")]) == {
        "prompts": 4,
        "with_special_tokens": 2,
        "with_stop_ids": 1,
        "with_unknown_words": 0,
    }


# --- a run ---------------------------------------------------------------------------------


def model_of(template: str) -> LoadedModel:
    return LoadedModel(
        "tiny", NETWORK.to(PLACE), tokenizer_of(template), PLACE, torch.float32, None
    )


def talk() -> Task:
    """Twelve pairs of unequal lengths."""
    sources = [f"Watch yourself write {'now ' * (n % 4)}on {n}?" for n in range(12)]
    bases = [f"Where is {'the ' * (n % 3)}town {n}?" for n in range(12)]

    def side(name: str, texts: list[str]) -> tuple[Prompt, ...]:
        return tuple(Prompt(f"{name}{n}", f"{name}{n}", text) for n, text in enumerate(texts))

    words = frozenset({"now"})
    return Task(
        "talk", "", side("s", sources), side("b", bases), "one-to-one", Lexicon(words), words
    )


def runner_of(template: str, task: Task) -> Runner:
    return Runner(model_of(template), task, Sampling(6, 0.7), Ledger())


def test_a_template_counts_where_messages_are_used_and_only_there() -> None:
    plain, chat = talk(), as_chat(talk())
    assert runner_of(CHATML, plain).study == runner_of(TRIMS, plain).study
    assert runner_of(CHATML, chat).study != runner_of(TRIMS, chat).study
    assert runner_of(CHATML, chat).study != runner_of(CHATML, plain).study


def test_a_run_on_chats_is_that_of_their_rendered_texts() -> None:
    """Told as texts, the rendered prompts give the same tokens, arm by arm."""
    chat = as_chat(talk())
    how = model_of(OWN_SYSTEM).tokenization

    def told(prompts: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
        return tuple(Prompt(one.id, one.family, how.rendered(one)) for one in prompts)

    texts = replace(chat, sources=told(chat.sources), bases=told(chat.bases))
    arms = [BASE, SOURCE, FULL_SWAP, patched(Patch("kv", "2", "last(40)"))]
    rows = [runner_of(OWN_SYSTEM, task).rows for task in (chat, texts)]
    for one, other in zip(chat.pairs, texts.pairs, strict=True):
        assert rows[0].tokens(one.source) == rows[1].tokens(other.source)
        assert rows[0].identity(one.base) == rows[1].identity(other.base)
    greedy = [
        Runner(model_of(OWN_SYSTEM), task, Sampling(6, 0.0), Ledger()).run(arms, task.pairs, [0])
        for task in (chat, texts)
    ]
    assert [trial.tokens for trial in greedy[0]] == [trial.tokens for trial in greedy[1]]
    assert len({trial.source_sha for trial in (*greedy[0], *greedy[1])}) == 24


def test_the_instrument_holds_on_chats() -> None:
    """The full swap is the source, a self-patch the base, and the oracle agrees on the splice."""
    runner = runner_of(OWN_SYSTEM, as_chat(talk()))
    study = ModelStudy(runner, n_pairs=12, n_seeds=1)
    found = study.check_full_swap()
    assert found.passed, found.checks
    patch = Patch("kv", "2", "last(30)")
    trials = runner.run([patched(patch), self_patch((patch,))], study.pairs, [0])
    errors = [trial.oracle_error for trial in trials if trial.oracle_error is not None]
    assert errors
    assert max(errors) < 1e-4
    assert all(trial.changed for trial in trials if trial.arm == patched(patch).id)
    assert not any(trial.changed for trial in trials if trial.arm == self_patch((patch,)).id)
    told = provenance(runner, study.pairs)["tokens"]
    assert (told["prompts"], told["with_special_tokens"], told["with_stop_ids"]) == (24, 0, 0)
    assert told["chat"]["template_sha"] == runner.model.tokenization.chat.sha


def test_where_only_the_templates_own_end_is_pasted_nothing_is_known_to_be_equal() -> None:
    """The last positions of all prompts are the same tokens, behind others: these may be patched.
    The first are behind nothing else: there a patch changes nothing, and that is known."""
    runner = runner_of(CHATML, as_chat(talk()))
    end, begin = Patch("kv", "2", "last(8)"), Patch("kv", "2", "first(6)")
    trials = runner.run([patched(end), patched(begin)], runner.task.pairs, [0])
    for trial in trials:
        assert trial.known_equal == (trial.arm == patched(begin).id)
        assert (trial.changed > 0) == (not trial.known_equal)
