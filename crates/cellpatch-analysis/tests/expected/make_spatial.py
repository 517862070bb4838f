"""What scipy, scikit-learn and the definitions of CHAOS, PAS and STAGATE's refinement make of made-up slices, for the
tests of `spatial` and `metrics::paired` to compare with.

Run (writes spatial.json and paired.json beside this script):
    python3 -m venv venv && venv/bin/pip install scipy==1.17.1 scikit-learn==1.9.1
    venv/bin/python make_spatial.py
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.spatial import distance_matrix
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

HERE = Path(__file__).parent
random = np.random.default_rng(11)

# Spots off any grid, so that no two neighbours are equally near.
places = np.round(random.uniform(0, 100, size=(400, 2)) * [1, 3], 3).astype(np.float32)
layers = (places[:, 1] // 60).astype(int)
domains = np.where(random.random(400) < 0.25, random.integers(0, 6, 400), layers)
domains[:2] = 7
distances = distance_matrix(places.astype(float), places.astype(float))
np.fill_diagonal(distances, np.inf)
order = distances.argsort(axis=1)

# Counter keeps the order in which domains are met, and its most common one is the first of equals.
refined = {n: [int(Counter(domains[near[:n]]).most_common(1)[0][0]) for near in order] for n in [8, 50]}
scaled = (places.astype(float) - places.astype(float).mean(0)) / places.astype(float).std(0)
within = distance_matrix(scaled, scaled)
np.fill_diagonal(within, np.inf)
chaos = 0.0
for domain in np.unique(domains):
    members = np.flatnonzero(domains == domain)
    if len(members) > 2:
        chaos += within[np.ix_(members, members)].min(axis=1).sum()
abnormal = [(domains[near[:10]] != domain).sum() > 5 for near, domain in zip(order, domains)]
labels = np.where(random.random(400) < 0.1, -1, layers)
known = labels >= 0
(HERE / "spatial.json").write_text(
    json.dumps(
        {
            "places": [round(float(x), 3) for x in places.ravel()],
            "domains": domains.tolist(),
            "labels": [int(label) if label >= 0 else None for label in labels],
            "refined_by_8": refined[8],
            "refined_by_50": refined[50],
            "chaos": chaos / len(domains),
            "abnormal": float(np.mean(abnormal)),
            "adjusted_rand_index": adjusted_rand_score(labels[known], domains[known]),
            "normalized_mutual_information": normalized_mutual_info_score(labels[known], domains[known]),
        }
    )
    + "\n"
)


def pair(name, first, second, **options):
    first, second = np.round(first, 7), np.round(second, 7)
    wilcoxon = stats.wilcoxon(first, second, **options)
    t = stats.ttest_rel(first, second)
    return {
        "name": name,
        "first": first.tolist(),
        "second": second.tolist(),
        "statistic": float(wilcoxon.statistic),
        "wilcoxon_p": float(wilcoxon.pvalue),
        "t": float(t.statistic),
        "degrees_of_freedom": int(t.df),
        "t_p": float(t.pvalue),
    }


base = random.uniform(0.3, 0.7, 60)
quarters = random.integers(-3, 5, 12) / 4
pairs = [
    pair("twelve slices", base[:12] + random.normal(0.04, 0.05, 12), base[:12], method="exact"),
    pair("five slices, all higher", base[:5] + random.uniform(0.01, 0.1, 5), base[:5], method="exact"),
    pair("fifty slices", base[:50] + random.normal(0.01, 0.05, 50), base[:50], method="exact"),
    pair("sixty slices", base + random.normal(0.02, 0.05, 60), base, method="asymptotic"),
    pair("sixty slices, many equal", random.integers(0, 9, 60) / 8, random.integers(1, 8, 60) / 8, method="asymptotic"),
    pair("far apart", base + 0.3 + random.normal(0, 0.01, 60), base, method="asymptotic"),
    # Without differences of 0, which the permutation test would give signs too.
    pair(
        "equal magnitudes",
        np.where(quarters == 0, 0.5, quarters),
        np.zeros(12),
        method=stats.PermutationMethod(n_resamples=np.inf),
    ),
]
(HERE / "paired.json").write_text(json.dumps(pairs) + "\n")
for entry in pairs:
    print(entry["name"], entry["statistic"], entry["wilcoxon_p"], entry["t"], entry["t_p"])
