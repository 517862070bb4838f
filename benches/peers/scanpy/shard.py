"""What scanpy users do to counts before a model sees them, on request: reads lines from standard input, does it once for each,
answers with seconds. At the end of input it answers with its peak memory.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import scanpy as sc


def prepare(cells: Path, out: Path, compression: str | None) -> None:
    adata = sc.read_h5ad(cells)
    sc.pp.filter_cells(adata, min_genes=200)
    sc.pp.filter_genes(adata, min_cells=3)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    adata.write_h5ad(out, compression=compression)


def peak_bytes() -> int:
    """Of this program alone: ru_maxrss would know what the process that started it had."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=Path, action="append", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--compression", choices=["gzip"])
    arguments = parser.parse_args()
    out = arguments.out / f"prepared-{arguments.compression}.h5ad"
    for _ in sys.stdin:
        start, before = time.perf_counter(), time.process_time()
        n_bytes = 0
        for cells in arguments.cells:
            prepare(cells, out, arguments.compression)
            n_bytes += out.stat().st_size
        answer = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - before}
        print(json.dumps({**answer, "bytes": n_bytes}), flush=True)
        out.unlink()
    print(json.dumps({"peak_bytes": peak_bytes()}), flush=True)


if __name__ == "__main__":
    main()
