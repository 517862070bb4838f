"""The optima that scikit-learn finds for logistic regressions on made-up sparse cells, for the tests of `baseline`.

Run (writes baseline.json beside this script):
    python3 -m venv venv && venv/bin/pip install scikit-learn==1.9.1
    venv/bin/python make_baseline.py
"""

import json
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(8)
N_CELLS, N_NEW, N_FEATURES, N_CLASSES = 160, 60, 50, 4
labels = rng.choice(N_CLASSES, N_CELLS + N_NEW, p=[0.4, 0.3, 0.2, 0.1])
means = rng.gamma(0.3, 2.0, size=(N_CLASSES, N_FEATURES)) + rng.gamma(0.5, 1.0, size=N_FEATURES)
matrix = np.log1p(rng.poisson(means[labels] * 0.35)).astype(np.float32).round(3)
training, new = matrix[:N_CELLS], matrix[N_CELLS:]
y = labels[:N_CELLS]


def objective(model, cells, y, l1, c):
    weights, intercepts = model.coef_, model.intercept_
    if len(weights) == 1:
        logits = (cells @ weights.T + intercepts).ravel()
        loss = np.logaddexp(0, np.where(y == model.classes_[1], -logits, logits)).sum()
    else:
        log_p = log_softmax(cells.astype(np.float64) @ weights.T + intercepts, axis=1)
        loss = -log_p[np.arange(len(y)), np.searchsorted(model.classes_, y)].sum()
    return c * loss + (np.abs(weights).sum() if l1 else 0.5 * (weights**2).sum())


fits = []
for l1 in (True, False):
    for c in (0.05, 0.5, 5.0):
        model = LogisticRegression(
            l1_ratio=1.0 if l1 else 0.0,
            C=c,
            solver="saga" if l1 else "lbfgs",
            tol=1e-9 if l1 else 1e-10,
            max_iter=400_000,
            random_state=0,
        ).fit(training.astype(np.float64), y)
        fits.append(
            {
                "l1": l1,
                "c": c,
                "objective": objective(model, training, y, l1, c),
                "probabilities": [round(float(p), 6) for p in model.predict_proba(new).ravel()],
                "predicted": model.predict(new).tolist(),
                "n_used_features": int((np.abs(model.coef_) > 1e-7).any(0).sum()),
            }
        )

two = y < 2
binary = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(training[two].astype(np.float64), y[two])
rows = sparse.csr_matrix(matrix)
expected = {
    "n_training": N_CELLS,
    "n_features": N_FEATURES,
    "n_classes": N_CLASSES,
    "row_pointers": rows.indptr.tolist(),
    "features": rows.indices.tolist(),
    "values": [round(float(x), 3) for x in rows.data],
    "labels": labels.tolist(),
    "fits": fits,
    "binary_probabilities": [round(float(p), 6) for p in binary.predict_proba(new)[:, 1]],
}
Path(__file__).with_name("baseline.json").write_text(json.dumps(expected) + "\n")
