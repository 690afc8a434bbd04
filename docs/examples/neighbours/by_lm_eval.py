"""With lm-eval 0.4: its tasks, its samples. It does not patch: that is a hook of torch."""

from datasets import Dataset
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from shared import LAYERS, NEW_TOKENS, SLOTS, ids, judge_scores, model, task

PARTS = [
    getattr(model.network.model.layers[layer].self_attn, part)
    for layer in LAYERS
    for part in ("k_proj", "v_proj")
]
SOURCES = {tuple(ids(pair.base.text)[0].tolist()): pair.source.text for pair in task.pairs}
"""The source's text by the tokens of its base."""


def hooked(hook_of):
    return [part.register_forward_hook(hook_of(number)) for number, part in enumerate(PARTS)]


def donors_of(source):
    kept = {}

    def keep(number):
        return lambda _module, _inputs, output: kept.update({number: output[:, SLOTS]})

    handles = hooked(keep)
    model.network(source)
    for handle in handles:
        handle.remove()
    return kept


class Patched(HFLM):
    """Each base with its own source's keys and values, pasted while its prompt is computed."""

    def _model_generate(self, context, *args, **kwargs):
        kept = donors_of(ids(SOURCES[tuple(context[0].tolist())]))

        def paste(number):
            def hook(_module, _inputs, output):
                if output.shape[1] > 1:
                    output[:, SLOTS] = kept[number]
                return output

            return hook

        handles = hooked(paste)
        try:
            return super()._model_generate(context, *args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()


def scores(lm, side):
    """One number a pair, from the logged samples."""
    texts = [{"pair": pair.id, "text": getattr(pair, side).text} for pair in task.pairs]
    config = {
        "task": f"register_{side}",
        "custom_dataset": lambda **_: {"test": Dataset.from_list(texts)},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "",
        "generation_kwargs": {"until": [], "max_gen_toks": NEW_TOKENS, "do_sample": False},
        "process_results": lambda _doc, results: {"harbor": task.scorer(results[0])},
        "metric_list": [{"metric": "harbor", "aggregation": "mean", "higher_is_better": True}],
    }
    found = simple_evaluate(model=lm, tasks=[config], bootstrap_iters=0)
    return {one["doc"]["pair"]: one["harbor"] for one in found["samples"][config["task"]]}


model.tokenizer.add_special_tokens({"eos_token": "<end>"})  # mini has none; lm-eval wants one
plain, patched = (
    kind(pretrained=model.network, tokenizer=model.tokenizer, batch_size=1, max_length=256)
    for kind in (HFLM, Patched)
)
judge_scores(
    {
        "source": scores(plain, "source"),
        "base": scores(plain, "base"),
        "patched": scores(patched, "base"),
    }
)
