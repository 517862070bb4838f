"""Makes the files of this folder with PyTorch; written with 2.15.

They hold every kind of tensor and container that `torch.save` writes into checkpoints, each as small as it can be.
Run in this folder: python make.py
"""
from collections import OrderedDict

import numpy
import torch


def numbers(*shape, dtype=torch.float32):
    """1, 2, 3, ... / 4: exact in every floating-point type."""
    n = torch.Size(shape).numel()
    return ((torch.arange(n) + 1) / 4).reshape(shape).to(dtype)


table = numbers(4, 3)
tied = numbers(2, 2)
kinds = OrderedDict(
    float32=numbers(2, 3),
    float64=numbers(2, 3, dtype=torch.float64),
    float16=numbers(2, 3, dtype=torch.float16),
    bfloat16=numbers(2, 3, dtype=torch.bfloat16),
    scalar=torch.tensor(0.25),
    empty=torch.zeros(0, 3),
    transposed=numbers(3, 2).t(),
    rows_from_the_second=table[1:],
    every_other_column=numbers(2, 4)[:, ::2],
    tied_one=tied,
    tied_other=tied.t(),
    parameter=torch.nn.Parameter(numbers(3)),
    int64=torch.arange(3),
    bool=torch.tensor([True, False]),
    sparse=torch.tensor([[0.0, 1.0], [0.0, 0.0]]).to_sparse(),
)
torch.save(kinds, "kinds.pth")

plain = OrderedDict(bias=numbers(2), empty=torch.zeros(0, 3), scalar=torch.tensor(0.25), weight=numbers(2, 3))
torch.save(plain, "state_dict.pth")
torch.save({"model_state_dict": plain}, "model_state_dict.pth")
torch.save({"state_dict": plain, "epoch": 3}, "key_state_dict.pth")
torch.save({"model": plain, "best": numpy.float64(0.5), "args": None}, "key_model.pth")
prefixed = OrderedDict((f"module.{name}", tensor) for name, tensor in plain.items())
torch.save({"model_state_dict": prefixed}, "released.pth")
torch.save(plain, "legacy.pth", _use_new_zipfile_serialization=False)
torch.save({"weight": numbers(1, 3).expand(2, 3)}, "expanded.pth")
torch.save(torch.nn.Linear(2, 2), "whole_module.pth")
torch.serialization.set_crc32_options(False)
torch.save(plain, "without_checksums.pth")
