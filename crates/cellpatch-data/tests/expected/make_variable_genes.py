"""Curves of scikit-misc's loess and scanpy's highly variable genes, for the tests of `variable_genes` to compare with.

Run (writes loess.json and variable_genes.json beside this script):
    python3 -m venv venv && venv/bin/pip install scanpy==1.11.5 scikit-misc==0.5.3
    venv/bin/python make_variable_genes.py PATH_TO_DATA
"""

import json
import sys
import warnings
from pathlib import Path

import anndata
import numpy as np
import scanpy
from scipy import sparse
from skmisc.loess import loess

warnings.filterwarnings("ignore")
HERE = Path(__file__).parent
DATA = Path(sys.argv[1])


def curve(name, x, y, span):
    x, y = np.round(x, 4), np.round(y, 4)
    model = loess(x, y, span=span, degree=2)
    model.fit()
    return {
        "name": name,
        "span": span,
        "x": x.tolist(),
        "y": y.tolist(),
        "fitted": model.outputs.fitted_values.tolist(),
    }


random = np.random.default_rng(3)
x = random.uniform(-3, 2, 300)
ties = np.log10(random.poisson(0.4, 250) + 1.0) - 2 * (random.random(250) < 0.2)
curves = [
    curve("even", x, np.sin(x) + random.normal(size=300) * 0.2, 0.3),
    curve("wide", x, x**2 + random.normal(size=300), 0.75),
    curve("skewed", np.exp(x), x + random.normal(size=300) * 0.1, 0.3),
    curve("ties", ties + np.round(random.random(250), 1), random.normal(size=250), 0.3),
]
(HERE / "loess.json").write_text(json.dumps(curves) + "\n")

# Where a local fit is close to singular, scikit-misc stops and scanpy has no genes.
FILES = {
    "cells/baron_h1.h5ad": 3000,
    "cellxgene/celltypist_sample.h5ad": 3000,
    "cellxgene/sc_celseq2.h5ad": 3000,
    "cellxgene/zheng_frozen_a.h5ad": 3000,
    "cells/speck_pbmc_1000.h5ad": 3000,
    "cells/kang_muscat_example.h5ad": 300,
    "spatial/dlpfc_151510_500svg.h5ad": 100,
    "spatial/starmap_mpfc_BZ5.h5ad": 50,
}
expected = {}
for name, n_top in FILES.items():
    cells = anndata.read_h5ad(DATA / name)
    try:
        scanpy.pp.highly_variable_genes(cells, flavor="seurat_v3", n_top_genes=n_top)
    except ValueError as error:
        print(name, "has none:", error)
        continue
    var = cells.var
    ranked = np.argsort(-var["variances_norm"].to_numpy(), kind="stable")
    expected[name] = {
        "n_top": n_top,
        "selected": np.flatnonzero(var["highly_variable"]).tolist(),
        "first": ranked[:20].tolist(),
        "standardized_variances": var["variances_norm"].iloc[::97].tolist(),
        "means": var["means"].iloc[::97].tolist(),
        "variances": var["variances"].iloc[::97].tolist(),
    }
    last = var["variances_norm"].to_numpy()[ranked[n_top - 1 : n_top + 1]]
    print(name, cells.shape, "last in, first out", last)
(HERE / "variable_genes.json").write_text(json.dumps(expected) + "\n")
