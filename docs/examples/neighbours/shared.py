"""What the scripts beside this file share: mini, its pairs, its scorer, and the table."""

import pandas as pd

import kv_claims
from kv_claims.files.shipped import shipped

model = kv_claims.load_model("mini")  # 8 layers, trained; `.network` is of transformers
task = kv_claims.load_task(shipped("models/mini/task.yaml"))
LAYERS, SLOTS, NEW_TOKENS = (0, 1), range(16), 14


def ids(text):
    return model.tokenizer(text, return_tensors="pt").input_ids


def text_of(prompt, tokens):
    """What was generated, without the prompt."""
    return model.tokenizer.decode(tokens[0, prompt.shape[1] :], skip_special_tokens=True)


def judge_scores(scores):
    """scores: by arm, a number a pair."""
    frame = pd.DataFrame(
        {"pair": pair, "arm": arm, "seed": 0, "score": score}
        for arm, found in scores.items()
        for pair, score in found.items()
    )
    print(repr(kv_claims.judge(frame, kv_claims.Region(low=0.5))))


def judge_texts(generate):
    """generate(base, source): a text; source is None where nothing is patched."""
    scores = {"source": {}, "base": {}, "patched": {}}
    for pair in task.pairs:
        source, base = ids(pair.source.text), ids(pair.base.text)
        scores["source"][pair.id] = task.scorer(generate(source, None))
        scores["base"][pair.id] = task.scorer(generate(base, None))
        scores["patched"][pair.id] = task.scorer(generate(base, source))
    judge_scores(scores)
