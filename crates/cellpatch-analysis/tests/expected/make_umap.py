"""How well umap-learn keeps the neighbourhoods of made-up cells, for the tests of `umap` to compare with.

Run (writes umap.json beside this script):
    python3 -m venv venv && venv/bin/pip install umap-learn==0.5.12 scikit-learn==1.9.1
    venv/bin/python make_umap.py
"""

import json
from pathlib import Path

import numpy as np
import umap
from sklearn.neighbors import NearestNeighbors

rng = np.random.default_rng(2)
SIZES = [120, 90, 60, 40, 25, 15]
N_FEATURES = 8
centres = rng.normal(size=(len(SIZES), N_FEATURES)) * 1.6
labels = np.repeat(range(len(SIZES)), SIZES)
# Elongated groups that overlap a little.
values = centres[labels] + rng.normal(size=(len(labels), N_FEATURES))
values += rng.normal(size=(len(labels), 1)) * rng.normal(size=(len(SIZES), N_FEATURES))[labels]
values = values.astype(np.float32).round(2)


def neighbours(cells, n):
    return NearestNeighbors(n_neighbors=n).fit(cells).kneighbors(return_distance=False)


kept, purity = [], []
for seed in range(10):
    embedding = umap.UMAP(random_state=seed).fit_transform(values)
    near = neighbours(embedding, 10)
    kept.append(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(neighbours(values, 10), near)]))
    purity.append((labels[near] == labels[:, None]).mean())

expected = {
    "n_features": N_FEATURES,
    "values": [round(float(x), 2) for x in values.ravel()],
    "labels": labels.tolist(),
    "kept": float(np.mean(kept)),
    "kept_deviation": float(np.std(kept, ddof=1)),
    "purity": float(np.mean(purity)),
    "purity_deviation": float(np.std(purity, ddof=1)),
}
Path(__file__).with_name("umap.json").write_text(json.dumps(expected) + "\n")
