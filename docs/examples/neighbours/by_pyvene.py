"""With pyvene 0.1.8: an IntervenableModel, and its `generate` with `intervene_on_prompt`."""

from pyvene import IntervenableConfig, IntervenableModel, VanillaIntervention
from shared import LAYERS, NEW_TOKENS, SLOTS, judge_texts, model, text_of

PLACES = [(layer, part) for layer in LAYERS for part in ("key_output", "value_output")]
venable = IntervenableModel(
    IntervenableConfig(
        [
            {
                "layer": layer,
                "component": part,
                "unit": "pos",
                "max_number_of_units": len(SLOTS),
                "group_key": 0,
                "intervention_type": VanillaIntervention,
            }
            for layer, part in PLACES
        ]
    ),
    model.network,
)
SETTINGS = {"max_new_tokens": NEW_TOKENS, "do_sample": False}


def generate(base, source):
    if source is None:
        return text_of(base, model.network.generate(base, **SETTINGS))
    where = [[list(SLOTS)]] * len(PLACES)
    _, tokens = venable.generate(
        {"input_ids": base},
        [{"input_ids": source}],
        {"sources->base": (where, where)},
        intervene_on_prompt=True,
        **SETTINGS,
    )
    return text_of(base, tokens)


judge_texts(generate)
