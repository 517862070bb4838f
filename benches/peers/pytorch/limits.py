"""What a card can do at most, as PyTorch reaches it: one line of JSON.

Bytes a second of a copy, operations a second of large matrix products (a multiply-add as two), exponentials a second.
"""

import argparse
import json
import time

import torch


def seconds(work, turns: int = 9) -> float:
    """Median of several turns, after two to warm up."""
    times = []
    for turn in range(turns + 2):
        start = time.perf_counter()
        work()
        if DEVICE != "cpu":
            torch.cuda.synchronize()
        if turn > 1:
            times.append(time.perf_counter() - start)
    return sorted(times)[turns // 2]


def product(kind: torch.dtype, tf32: bool, n: int) -> float:
    torch.backends.cuda.matmul.allow_tf32 = tf32
    a, b = (torch.randn(n, n, device=DEVICE).to(kind) for _ in range(2))
    return 2 * n**3 / seconds(lambda: a @ b)


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
DEVICE = parser.parse_args().device
n, side = (1 << 28, 8192) if DEVICE != "cpu" else (1 << 24, 1024)
x = torch.rand(n, device=DEVICE)
y = torch.empty_like(x)
small = torch.rand(n // 64, device=DEVICE)


def chain(z: torch.Tensor) -> torch.Tensor:
    for _ in range(64):
        z = torch.exp(-z)
    return z


# One kernel on a card, so that no result but the last goes through memory.
chain = torch.compile(chain) if DEVICE != "cpu" else chain

found = {
    "name": torch.cuda.get_device_name() if DEVICE != "cpu" else "cpu",
    "bytes": 8 * n / seconds(lambda: y.copy_(x)),
    "exponentials": len(small) * 64 / seconds(lambda: chain(small)),
    "f32": product(torch.float32, False, side),
    "tf32": product(torch.float32, True, side),
    "bf16": product(torch.bfloat16, False, side),
}
print(json.dumps(found))
