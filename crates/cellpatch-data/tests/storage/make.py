"""AnnData files in HDF5's rarer forms, every matrix with the same counts.

Run (writes the .h5ad files beside this script, and counts.txt: one cell a line, "gene:count"):
    python3 -m venv venv && venv/bin/pip install h5py==3.16.0 hdf5plugin==7.1.0 scipy
    venv/bin/python make.py
"""

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from scipy import sparse

HERE = Path(__file__).parent
CELLS, GENES = 24, 60
TEXT = h5py.string_dtype()
random = np.random.default_rng(7)
dense = (random.poisson(3, (CELLS, GENES)) * (random.random((CELLS, GENES)) < 0.4)).astype(np.float32)
counts = sparse.csr_matrix(dense)


def frame(file, name, index):
    group = file.create_group(name)
    group.attrs.update({"_index": "_index", "encoding-type": "dataframe", "encoding-version": "0.2.0"})
    group.attrs["column-order"] = np.array([], dtype=TEXT)
    group.create_dataset("_index", data=index, dtype=TEXT)


def create(name, libver=None):
    file = h5py.File(HERE / name, "w", libver=libver)
    file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
    frame(file, "obs", [f"c{cell}" for cell in range(CELLS)])
    frame(file, "var", [f"G{gene}" for gene in range(GENES)])
    return file


def write_sparse(parent, name, chunk, growing=False, **filters):
    group = parent.create_group(name)
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
    group.attrs["shape"] = np.array(counts.shape)
    for part in ["data", "indices", "indptr"]:
        values = getattr(counts, part)
        shape = (min(chunk, len(values)),) if chunk else None
        group.create_dataset(part, data=values, chunks=shape, maxshape=(None,) if growing else None, **filters)


def write_dense(parent, name, chunk, growing=False, dtype="f4", **filters):
    maxshape = (None, None) if growing else None
    parent.create_dataset(name, data=dense.astype(dtype), chunks=chunk, maxshape=maxshape, **filters)


plugin = {
    f"blosc-{codec}-{shuffle}": dict(hdf5plugin.Blosc(cname=codec, clevel=9, shuffle=number))
    for codec in ["blosclz", "lz4", "zlib", "zstd"]
    for number, shuffle in enumerate(["plain", "bytes", "bits"])
}
plugin |= {
    "lz4": dict(hdf5plugin.LZ4()),
    "lz4-small-blocks": dict(hdf5plugin.LZ4(nbytes=256)),
    "bitshuffle": dict(hdf5plugin.Bitshuffle(cname="none")),
    "bitshuffle-lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "bitshuffle-lz4-small-blocks": dict(hdf5plugin.Bitshuffle(nelems=64, cname="lz4")),
    "bitshuffle-zstd": dict(hdf5plugin.Bitshuffle(cname="zstd")),
    "zstd": dict(hdf5plugin.Zstd()),
}
usual = {
    "plain": {},
    "gzip": {"compression": "gzip", "shuffle": True, "fletcher32": True},
    "lzf": {"compression": "lzf", "shuffle": True},
}

with create("filters.h5ad") as file:
    layers = file.create_group("layers")
    for name, filters in plugin.items():
        write_dense(layers, name, (13, 50), **filters)
        # Small elements split into other streams than large ones, and so does a chunk blosc leaves whole.
        write_dense(layers, f"{name}-u2", (24, 60), dtype="u2", **filters)
    for name in ["blosc-blosclz-bytes", "blosc-lz4-bits", "lz4", "bitshuffle-lz4", "zstd"]:
        write_sparse(layers, f"{name}-csr", 199, **plugin[name])
with create("blosc2.h5ad") as file:
    write_dense(file, "X", (13, 50), **dict(hdf5plugin.Blosc2()))
with create("newest.h5ad", "latest") as file:
    layers = file.create_group("layers")
    for name, filters in (usual | {"zstd": plugin["zstd"]}).items():
        for growing in [False, True]:
            form = "growing" if growing else "fixed"
            for chunk in [3, 200, 5000]:
                write_sparse(layers, f"{name}-{form}-{chunk}", chunk, growing, **filters)
            write_dense(layers, f"{name}-{form}-dense", (7, 11), growing, **filters)
for libver, age in [(None, "old"), ("latest", "new")]:
    with create(f"links-{age}.h5ad", libver) as file:
        write_sparse(file, "stored", 199, compression="lzf")
        file["X"] = h5py.SoftLink("/stored")
        file.move("obs", "cells")
        file["obs"] = h5py.SoftLink("cells")
        file["cells/number"] = np.arange(CELLS)
        file["cells/again"] = h5py.SoftLink("number")
        file["cells"].attrs["column-order"] = np.array(["number", "again"], dtype=TEXT)
        layers = file.create_group("layers")
        layers["same"] = h5py.SoftLink("/X")
        layers["nowhere"] = h5py.SoftLink("/no/such")
        layers["circle"] = h5py.SoftLink("/layers/round")
        layers["round"] = h5py.SoftLink("circle")
        layers["outside"] = h5py.ExternalLink("other.h5ad", "/X")

lines = (" ".join(f"{gene}:{int(row[gene])}" for gene in np.flatnonzero(row)) for row in dense)
(HERE / "counts.txt").write_text("\n".join(lines) + "\n")
