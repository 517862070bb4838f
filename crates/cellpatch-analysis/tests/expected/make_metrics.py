"""What scikit-learn and SciPy say of made-up labels and logits, for the tests of `metrics` to compare with.

Run (writes metrics.json beside this script):
    python3 -m venv venv && venv/bin/pip install scikit-learn==1.9.1
    venv/bin/python make_metrics.py
"""

import json
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import t
from sklearn import metrics

rng = np.random.default_rng(5)
N_CELLS, N_CLASSES = 240, 7
# Class 5 occurs only as a prediction, class 6 not at all.
truth = rng.choice(5, N_CELLS, p=[0.5, 0.25, 0.15, 0.08, 0.02])
logits = rng.normal(size=(N_CELLS, N_CLASSES)) * 2.5
logits[np.arange(N_CELLS), truth] += 3.0
logits[:, 6] = -30.0
logits[:, 4] -= 9.0
logits = logits.astype(np.float32).round(3)
predicted = logits.argmax(1)
assert 5 in predicted and 4 not in predicted

log_p = log_softmax(logits.astype(np.float64), axis=1)
confidence = np.exp(log_p).max(1)
correct = predicted == truth
edges = np.linspace(0, 1, 16)
bins = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, 14)
ece = sum(
    (bins == b).mean() * abs(correct[bins == b].mean() - confidence[bins == b].mean())
    for b in range(15)
    if (bins == b).any()
)


def loss(log_temperature):
    scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
    return -scaled[np.arange(N_CELLS), truth].mean()


best = minimize_scalar(loss, bounds=(-4, 4), method="bounded", options={"xatol": 1e-10})
precision, recall, f1, support = metrics.precision_recall_fscore_support(
    truth, predicted, labels=range(N_CLASSES), zero_division=0
)
repeats = rng.normal(0.9, 0.02, size=40).round(4)


def interval(values):
    return t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))


expected = {
    "truth": truth.tolist(),
    "predicted": predicted.tolist(),
    "logits": [round(float(x), 3) for x in logits.ravel()],
    "accuracy": metrics.accuracy_score(truth, predicted),
    "precision": precision.tolist(),
    "recall": recall.tolist(),
    "f1": f1.tolist(),
    "support": support.tolist(),
    "macro_f1": metrics.f1_score(truth, predicted, average="macro", zero_division=0),
    "weighted_f1": metrics.f1_score(truth, predicted, average="weighted", zero_division=0),
    "balanced_accuracy": metrics.balanced_accuracy_score(truth, predicted),
    "adjusted_rand_index": metrics.adjusted_rand_score(truth, predicted),
    "normalized_mutual_information": metrics.normalized_mutual_info_score(truth, predicted),
    "expected_error": ece,
    "bin_counts": np.bincount(bins, minlength=15).tolist(),
    "temperature": float(np.exp(best.x)),
    "loss_before": loss(0.0),
    "loss_after": best.fun,
    "repeats": repeats.tolist(),
    "half_width_of_40": interval(repeats),
    "half_width_of_5": interval(repeats[:5]),
}
Path(__file__).with_name("metrics.json").write_text(json.dumps(expected) + "\n")
