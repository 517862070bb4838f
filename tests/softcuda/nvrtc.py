"""Compiles the kernels that softcuda kept (SOFTCUDA_KEEP=1) with NVIDIA's compiler; a line a kernel: registers, spills.

    python tests/softcuda/nvrtc.py sm_90a target/softcuda/kernels

A kernel that does not compile is printed with its log, and the exit code is 1.
"""

import ctypes
import re
import sys
from pathlib import Path

import nvidia

ROOT = next(path for base in nvidia.__path__ for path in Path(base).glob("cu*") if (path / "lib").is_dir())


def compile_kernel(nvrtc: ctypes.CDLL, source: bytes, architecture: str) -> tuple[bool, str]:
    program, n = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"kernel.cu", 0, None, None)
    include = [ROOT / "include", ROOT / "include" / "cccl"]
    texts = [f"--gpu-architecture={architecture}", "--ptxas-options=-v", *(f"--include-path={path}" for path in include)]
    options = (ctypes.c_char_p * len(texts))(*(text.encode() for text in texts))
    failed = nvrtc.nvrtcCompileProgram(program, len(texts), options)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(n))
    log = ctypes.create_string_buffer(n.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return not failed, log.value.decode(errors="replace")


def main(architecture: str, folder: str) -> int:
    nvrtc = ctypes.CDLL(str(next((ROOT / "lib").glob("libnvrtc.so.*"))))
    n_failed, lines = 0, []
    for path in sorted(Path(folder).glob("*.cu")):
        source = path.read_bytes()
        threads, name = re.search(rb"__launch_bounds__\((\d+)\)\s*(\w+) \(", source).groups()
        compiled, log = compile_kernel(nvrtc, source, architecture)
        if not compiled:
            n_failed += 1
            print(f"{name.decode()} in {path} does not compile:\n{log}")
            continue
        registers = re.search(r"Used (\d+) registers", log)
        spilled = re.search(r"(\d+) bytes spill stores", log)
        lines.append(
            f"{name.decode():70} {threads.decode():>5} threads {registers[1] if registers else '?':>4} registers "
            f"{spilled[1] if spilled else '?':>4} bytes spilled  {path.name}"
        )
    print("\n".join(sorted(lines)))
    print(f"{len(lines)} compile for {architecture}, {n_failed} do not")
    return int(n_failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
