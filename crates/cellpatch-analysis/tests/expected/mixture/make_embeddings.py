"""Small embeddings to fit mixtures to: real cells along their principal components, and two made-up sets.

Run (writes *.i16 beside this script), then make_mixture.R, which repeats their shapes:
    python3 -m venv venv && venv/bin/pip install scanpy==1.11.5
    venv/bin/python make_embeddings.py PATH_TO_DATA

Values are rounded to whole numbers from -32,000 to 32,000, `[n_cells, n_features]` row-major, little-endian: both
programs then start from the very same numbers, and the files stay small.
"""

import sys
from pathlib import Path

import numpy as np
import scanpy

HERE = Path(__file__).parent
DATA = Path(sys.argv[1])


def components(path, n):
    cells = scanpy.read_h5ad(DATA / path)
    scanpy.pp.normalize_total(cells, target_sum=1e4)
    scanpy.pp.log1p(cells)
    values = cells.X.toarray()
    kept = np.argsort(-values.var(0), kind="stable")[:2000]
    values = values[:, kept].astype(np.float64)
    left, scale, _ = np.linalg.svd(values - values.mean(0), full_matrices=False)
    return left[:, :n] * scale[:n]


def separated(random):
    centres = random.normal(size=(5, 4)) * 30
    spread = random.normal(size=(4, 4))
    return centres[np.repeat(range(5), [150, 120, 80, 40, 10])] + random.normal(size=(400, 4)) @ spread


random = np.random.default_rng(7)
embeddings = {
    "dlpfc_151510": components("spatial/dlpfc_151510_500svg.h5ad", 10),
    "starmap": components("spatial/starmap_mpfc_BZ5.h5ad", 30),
    "baron_h1": components("cells/baron_h1.h5ad", 15),
    "random": random.normal(size=(300, 5)),
    "separated": separated(random),
}
for name, values in embeddings.items():
    values = np.round(values * (32_000 / np.abs(values).max())).astype("<i2")
    (HERE / f"{name}.i16").write_bytes(values.tobytes())
    print(name, values.shape)
