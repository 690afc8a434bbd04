"""With TransformerLens 3.9 or 4.3: hooks on keys and values, in the prompt pass only."""

from shared import LAYERS, NEW_TOKENS, SLOTS, judge_texts, model, text_of
from transformer_lens.model_bridge.sources import build_bridge_from_module

lens = build_bridge_from_module(
    model.network, "MistralForCausalLM", hf_config=model.config, tokenizer=model.tokenizer
)
NAMES = [f"blocks.{layer}.attn.hook_{part}" for layer in LAYERS for part in "kv"]


def generate(base, source):
    hooks = []
    if source is not None:
        _, cache = lens.run_with_cache(source, names_filter=NAMES)

        def paste(states, hook):
            if states.shape[1] > 1:  # the prompt; later steps have one position
                states[:, SLOTS] = cache[hook.name][:, SLOTS]
            return states

        hooks = [(name, paste) for name in NAMES]
    with lens.hooks(fwd_hooks=hooks):
        tokens = lens.generate(
            base, max_new_tokens=NEW_TOKENS, do_sample=False, return_type="tokens", verbose=False
        )
    return text_of(base, tokens)


judge_texts(generate)
