// What driver and compiler share.
#pragma once
#include <cstddef>
#include <string>

#define API extern "C" __attribute__((visibility("default")))

/// Shared memory of a block, as an H100 has it.
constexpr size_t SHARED_MEMORY = 227 << 10;

/// A variable of the environment.
std::string setting(const char* name, const char* otherwise);

/// Counts a kernel that was compiled.
void count_compiled();
