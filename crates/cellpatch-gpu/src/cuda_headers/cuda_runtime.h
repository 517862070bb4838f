// In place of CUDA's header of this name: its runtime compiler knows threads, vectors and functions without it.
#pragma once
