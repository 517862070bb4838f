"""Small files whose groups are stored in each of HDF5's ways, for the tests of adding to a file.

Run (writes old.h5ad, compact.h5ad and dense.h5ad beside this script):
    python3 -m venv venv && venv/bin/pip install h5py==3.16.0
    venv/bin/python make.py
"""

from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).parent
CELLS = ["c0", "c1", "c2"]


def frame(parent, name, index, columns):
    group = parent.create_group(name)
    group.attrs["encoding-type"] = "dataframe"
    group.attrs["encoding-version"] = "0.2.0"
    group.attrs["_index"] = "_index"
    group.attrs["column-order"] = np.array(columns, dtype=h5py.string_dtype())
    index = group.create_dataset("_index", data=index, dtype=h5py.string_dtype())
    index.attrs["encoding-type"] = "string-array"
    index.attrs["encoding-version"] = "0.2.0"
    for position, column in enumerate(columns):
        group.create_dataset(column, data=np.full(len(index), position, dtype="i1"))
    return group


def make(name, n_columns, n_notes, **options):
    with h5py.File(HERE / name, "w", **options) as file:
        file.attrs["encoding-type"] = "anndata"
        file.attrs["encoding-version"] = "0.1.0"
        x = file.create_dataset("X", data=np.arange(6, dtype="f4").reshape(3, 2))
        x.attrs["encoding-type"] = "array"
        x.attrs["encoding-version"] = "0.2.0"
        obs = frame(file, "obs", CELLS, [f"column_{position:03}" for position in range(n_columns)])
        for note in range(n_notes):
            obs.attrs[f"note_{note:02}"] = np.int16(note)
        if n_notes > 8:
            obs.attrs["long"] = np.bytes_(b"long" * 1200)
        frame(file, "var", ["TP53", "CD8A"], ["role"])
        for other in ["layers", "obsm", "obsp", "uns", "varm", "varp"]:
            group = file.create_group(other)
            group.attrs["encoding-type"] = "dict"
            group.attrs["encoding-version"] = "0.1.0"
        file["obsm/alias"] = h5py.SoftLink("/X")


# A symbol table over several leaves, a version 0 superblock.
make("old.h5ad", n_columns=20, n_notes=0)
# Links in object headers, a version 3 superblock, creation order tracked.
make("compact.h5ad", n_columns=2, n_notes=2, libver=("v110", "v110"), track_order=True)
# Links and attributes in fractal heaps with indexes of two levels; one attribute is larger than a heap's blocks take.
make("dense.h5ad", n_columns=60, n_notes=60, libver=("v110", "v110"))
