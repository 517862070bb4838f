"""How leidenalg groups real cells, for the tests of `leiden` to compare with.

Run (writes leiden.json beside this script; the cells are those of mixture/make_embeddings.py):
    python3 -m venv venv && venv/bin/pip install scanpy==1.11.5 leidenalg==0.12.0 igraph==1.0.0 scikit-learn==1.9.1
    venv/bin/python make_leiden.py
"""

import itertools
import json
from pathlib import Path

import anndata
import igraph
import leidenalg
import numpy as np
import scanpy
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

HERE = Path(__file__).parent
N_SEEDS = 10
KINDS = {
    "modularity": leidenalg.RBConfigurationVertexPartition,
    "constant_potts": leidenalg.CPMVertexPartition,
}


expected = []
for name, n_features in [("starmap", 30), ("baron_h1", 15)]:
    values = np.fromfile(HERE / f"mixture/{name}.i16", "<i2").reshape(-1, n_features).astype(np.float32)
    cells = anndata.AnnData(values)
    # Exact neighbours, as below 4,096 cells; the cell itself counts as one of 15.
    scanpy.pp.neighbors(cells, n_neighbors=15, use_rep="X", method="umap")
    links = sparse.triu(cells.obsp["connectivities"], k=1).tocoo()
    graph = igraph.Graph(len(values), list(zip(links.row, links.col)))
    graph.es["weight"] = links.data.astype(float)
    for kind, resolution in [("modularity", 0.5), ("modularity", 1.0), ("modularity", 2.0), ("constant_potts", 0.02)]:
        partitions = [
            leidenalg.find_partition(
                graph,
                KINDS[kind],
                weights="weight",
                resolution_parameter=resolution,
                n_iterations=-1,
                seed=seed,
            )
            for seed in range(N_SEEDS)
        ]
        # Both count each link from both ends; modularity is not divided by the graph's weight yet.
        scale = 2 * links.data.astype(float).sum() if kind == "modularity" else 2
        qualities = [partition.quality() / scale for partition in partitions]
        pairs = itertools.combinations([partition.membership for partition in partitions], 2)
        best = partitions[int(np.argmax(qualities))].membership
        expected.append(
            {
                "name": name,
                "n_features": n_features,
                "kind": kind,
                "resolution": resolution,
                "total_weight": float(links.data.astype(float).sum()),
                "n_links": len(links.data),
                "qualities": qualities,
                "n_groups": [len(partition) for partition in partitions],
                "agreement": float(np.mean([adjusted_rand_score(a, b) for a, b in pairs])),
                "best": best,
            }
        )
        print(name, kind, resolution, np.mean(qualities), np.std(qualities), expected[-1]["n_groups"], expected[-1]["agreement"])
(HERE / "leiden.json").write_text(json.dumps(expected) + "\n")
