"""What anndata and scanpy read from the real files, for the tests of this crate to compare with.

Run (writes files.json and quality.json beside this script):
    python3 -m venv venv && venv/bin/pip install anndata==0.12.19 scanpy==1.11.5 hdf5plugin
    venv/bin/python make.py PATH_TO_DATA
"""

import gzip
import hashlib
import json
import sys
import tempfile
import warnings
from pathlib import Path

import anndata
import hdf5plugin  # noqa: F401  (lets h5py read zstd)
import numpy as np
import scanpy
from scipy import sparse

warnings.filterwarnings("ignore")
HERE = Path(__file__).parent
# anndata reads these although their matrices are broken; the crate must not.
BROKEN = {"formats/variants/index_out_of_range.h5ad", "formats/cellxgene/nan.h5ad"}


def sha256(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def describe_matrix(matrix):
    matrix = sparse.csr_matrix(matrix).astype(np.float32)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return {
        "shape": list(matrix.shape),
        "nonzero": int(matrix.nnz),
        "sum": float(matrix.data.astype(np.float64).sum()),
        "sha256": sha256(
            matrix.indptr.astype("<u8").tobytes(),
            matrix.indices.astype("<u4").tobytes(),
            matrix.data.astype("<f4").tobytes(),
        ),
    }


def texts(values):
    """Values as text, "" where missing; None for a column of fractions, which languages print differently."""
    if values.dtype.kind == "f":
        return None
    if hasattr(values, "cat"):
        if values.cat.categories.dtype.kind == "f":
            return None
        values = values.astype(object)
    return ["" if missing else str(value) for value, missing in zip(values, values.isna())]


def describe(path):
    cells = anndata.read_h5ad(path)
    matrices = {}
    if cells.X is not None:
        matrices["X"] = describe_matrix(cells.X)
    if cells.raw is not None:
        matrices["raw/X"] = describe_matrix(cells.raw.X)
    for name, layer in cells.layers.items():
        matrices[f"layers/{name}"] = describe_matrix(layer)
    columns = {}
    for name in cells.obs.columns:
        values = texts(cells.obs[name])
        columns[name] = None if values is None else sha256("\n".join(values).encode())
    return {
        "n_cells": cells.n_obs,
        "cell_ids": sha256("\n".join(map(str, cells.obs_names)).encode()),
        "matrices": matrices,
        "obs": columns,
    }


def describe_quality(path, raw):
    cells = anndata.read_h5ad(path)
    cells = cells.raw.to_adata() if raw else cells
    cells = anndata.AnnData(sparse.csr_matrix(cells.X).astype(np.float64))
    cells.var["column"] = np.arange(cells.n_vars)
    cells.obs["row"] = np.arange(cells.n_obs)
    scanpy.pp.filter_cells(cells, min_genes=200)
    scanpy.pp.filter_genes(cells, min_cells=3)
    scanpy.pp.normalize_total(cells, target_sum=1e4)
    scanpy.pp.log1p(cells)
    cells.X.sort_indices()
    chosen = np.linspace(0, cells.n_obs - 1, 12).astype(int)
    values = []
    for cell in chosen:
        row = cells.X[cell]
        for at in np.linspace(0, row.nnz - 1, 5).astype(int):
            column = int(cells.var["column"].iloc[row.indices[at]])
            values.append([int(cells.obs["row"].iloc[cell]), column, float(row.data[at])])
    return {
        "matrix": "raw/X" if raw else "X",
        "kept_cells": cells.n_obs,
        "kept_genes": cells.n_vars,
        "kept_cells_sha256": sha256(cells.obs["row"].to_numpy().astype("<u8").tobytes()),
        "kept_genes_sha256": sha256(cells.var["column"].to_numpy().astype("<u8").tobytes()),
        "cell_sums": [[int(cells.obs["row"].iloc[cell]), float(cells.X[cell].sum())] for cell in chosen],
        "values": values,
        "total": float(cells.X.sum()),
    }


def describe_tenx(cells):
    cells.var_names = cells.var_names.astype(str)
    ids = cells.var["gene_ids"].astype(str) if "gene_ids" in cells.var else cells.var_names
    return {
        "matrix": describe_matrix(cells.X),
        "cell_ids": sha256("\n".join(map(str, cells.obs_names)).encode()),
        "gene_names": sha256("\n".join(map(str, cells.var_names)).encode()),
        "first_gene": [str(ids.iloc[0] if hasattr(ids, "iloc") else ids[0]), str(cells.var_names[0])],
    }


def tenx_inputs(data):
    """10x inputs by path and genome, as scanpy reads them."""
    formats = data / "formats"
    h5 = {
        ("scanpy10x_v2/filtered_gene_bc_matrices_h5.h5", None),
        ("scanpy10x_v2/multiple_genomes.h5", "hg19_chr21"),
        ("scanpy10x_v2/multiple_genomes.h5", "another_genome"),
        ("scanpy10x_v3/filtered_feature_bc_matrix.h5", None),
        ("scanpy_visium1/filtered_feature_bc_matrix.h5", None),
    }
    found = {}
    for name, genome in h5:
        found[f"formats/{name}|{genome or ''}"] = describe_tenx(scanpy.read_10x_h5(formats / name, genome=genome))
    for name in ["scanpy10x_v2/filtered_gene_bc_matrices/hg19_chr21", "scanpy10x_v3/filtered_feature_bc_matrix"]:
        cells = scanpy.read_10x_mtx(formats / name, make_unique=False)
        found[f"formats/{name}|"] = describe_tenx(cells)
    # scanpy 1.11 wants features.tsv compressed; this folder's is not.
    with tempfile.TemporaryDirectory() as packed:
        for path in (formats / "scanpy10x_intids").iterdir():
            (Path(packed) / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        found["formats/scanpy10x_intids|"] = describe_tenx(scanpy.read_10x_mtx(packed, make_unique=False))
    return found


def main(data):
    files = {}
    for folder in ["cells", "cellxgene", "formats", "spatial"]:
        for path in sorted((data / folder).rglob("*.h5ad")):
            name = str(path.relative_to(data))
            if name in BROKEN:
                continue
            try:
                files[name] = describe(path)
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {str(error)[:150]}", file=sys.stderr)
    quality = {
        "cells/zheng_facs800.h5ad": False,
        "cells/baron_h1.h5ad": False,
        "cellxgene/kang_muscat_example.h5ad": True,
        "cells/speck_pbmc_1000.h5ad": False,
    }
    quality = {name: describe_quality(data / name, raw) for name, raw in quality.items()}
    tenx = tenx_inputs(data)
    for name, content in [("files.json", files), ("quality.json", quality), ("tenx.json", tenx)]:
        lines = [f"{json.dumps(key)}: {json.dumps(content[key], sort_keys=True)}" for key in sorted(content)]
        (HERE / name).write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
