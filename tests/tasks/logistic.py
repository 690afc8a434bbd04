"""A scorer made another way than the lexicon: logistic regression on word counts.

It is that of scikit-learn's `LogisticRegression()` on `CountVectorizer(min_df=2)`: an L2 penalty
with C = 1, no penalty on the intercept. Nothing of it was chosen by what it finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

Array = npt.NDArray[np.float64]
Texts = Sequence[Sequence[str]]


def fit(counts: Array, labels: Array) -> Array:
    """Weights and, last, the intercept. counts: (texts, words); labels: 0 or 1."""
    rows = np.hstack([counts, np.ones((len(counts), 1))])

    def loss(weights: Array) -> tuple[float, Array]:
        scores = rows @ weights
        penalised = np.append(weights[:-1], 0.0)
        value = np.logaddexp(0, scores).sum() - labels @ scores + penalised @ penalised / 2
        return value, rows.T @ (expit(scores) - labels) + penalised

    found = minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B")
    assert found.success, found.message
    return np.asarray(found.x)


def judged_on_the_other_half(sources: Texts, bases: Texts, train: int) -> tuple[Array, Array]:
    """Log-odds of being a source, of the sources and the bases of the half not trained on.

    train: 0 trains on the texts of even place in the order given, 1 on those of odd place.
    """
    learned = [*sources[train::2], *bases[train::2]]
    labels = np.repeat([1.0, 0.0], [len(sources[train::2]), len(bases[train::2])])
    texts_with = Counter(word for words in learned for word in set(words))
    vocabulary = {w: i for i, w in enumerate(sorted(w for w, n in texts_with.items() if n > 1))}

    def counts(texts: Texts) -> Array:
        table = np.zeros((len(texts), len(vocabulary)))
        for row, words in zip(table, texts, strict=True):
            for word in words:
                if word in vocabulary:
                    row[vocabulary[word]] += 1
        return table

    weights = fit(counts(learned), labels)

    def odds(side: Texts) -> Array:
        return np.asarray(counts(side[1 - train :: 2]) @ weights[:-1] + weights[-1])

    return odds(sources), odds(bases)
