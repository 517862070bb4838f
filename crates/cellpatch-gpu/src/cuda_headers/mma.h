// In place of CUDA's header of this name: kernels that use tensor cores through PTX include it and need nothing of it.
#pragma once
