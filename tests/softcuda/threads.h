// Threads of a block as fibers of one thread of the host.
#pragma once
#include <functional>
#include <string>

#include "include/softcuda.h"

constexpr unsigned MOST_THREADS = 1024;

/// What kernels are bound to.
extern SoftState state;

/// Runs `call` in each thread of each block of a grid.
void run_grid(const std::string& kernel, SoftDim grid, SoftDim block, const std::function<void()>& before_block,
              const std::function<void()>& call);
