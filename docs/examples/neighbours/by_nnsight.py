"""With nnsight 0.8: what a trace writes happens in the first step of `generate`, the prompt."""

from nnsight import TransformersModel, save
from shared import LAYERS, NEW_TOKENS, SLOTS, judge_texts, model, text_of

traced = TransformersModel(model.network, tokenizer=model.tokenizer)
SETTINGS = {"max_new_tokens": NEW_TOKENS, "do_sample": False}


def donors(source):
    with traced.trace(source):
        kept = save({})
        for layer in LAYERS:
            attention = traced.model.layers[layer].self_attn
            kept[layer] = (attention.k_proj.output[:, SLOTS], attention.v_proj.output[:, SLOTS])
    return kept


def generate(base, source):
    kept = donors(source) if source is not None else {}
    with traced.generate(base, **SETTINGS) as tracer:
        for layer, (keys, values) in kept.items():
            attention = traced.model.layers[layer].self_attn
            attention.k_proj.output[:, SLOTS] = keys
            attention.v_proj.output[:, SLOTS] = values
        tokens = save(tracer.result)
    return text_of(base, tokens)


judge_texts(generate)
