#include "threads.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

SoftState state;

namespace {

constexpr size_t STACK = 256 << 10;
constexpr unsigned WARP = 32;

enum class Waits { no, for_warp, for_block, ended };

struct Fiber {
    void* stack_pointer;
    Waits waits;
    SoftDim place;
    /// Which of two rooms its warp's next exchange has.
    unsigned turn;
};

unsigned char* stacks;
Fiber fibers[MOST_THREADS];
unsigned char rooms[MOST_THREADS / WARP][2][WARP][64];
void* scheduler;
unsigned current, n_threads;
const std::function<void()>* body;

/// Saves where it was called from, and goes on where `to` was saved.
extern "C" __attribute__((visibility("hidden"))) void softcuda_switch(void** save, void* to);
asm(R"(
.globl softcuda_switch
.hidden softcuda_switch
softcuda_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
)");

void wait(Waits what) {
    fibers[current].waits = what;
    softcuda_switch(&fibers[current].stack_pointer, scheduler);
}

void entry() {
    (*body)();
    wait(Waits::ended);
    abort();
}

SoftSlots exchange() {
    fibers[current].turn ^= 1;
    return rooms[current / WARP][fibers[current].turn];
}

unsigned live_lanes() {
    unsigned first = current / WARP * WARP, bits = 0;
    for (unsigned thread = first; thread < std::min(first + WARP, n_threads); thread++)
        if (fibers[thread].waits != Waits::ended) bits |= 1u << (thread - first);
    return bits;
}

void start(unsigned thread) {
    void** top = reinterpret_cast<void**>(stacks + (thread + 1) * STACK - 64);
    *--top = nullptr;
    *--top = reinterpret_cast<void*>(entry);
    // What the first switch takes for saved registers.
    top -= 6;
    memset(top, 0, 6 * sizeof(void*));
    fibers[thread].stack_pointer = top;
    fibers[thread].waits = Waits::no;
    fibers[thread].turn = 0;
}

/// Runs every thread that waits for nothing until it waits or ends; whether there was one.
bool run_ready(unsigned& left) {
    static const bool backwards = getenv("SOFTCUDA_ORDER") && !strcmp(getenv("SOFTCUDA_ORDER"), "backwards");
    bool ran = false;
    for (unsigned i = 0; i < n_threads; i++) {
        unsigned thread = backwards ? n_threads - 1 - i : i;
        Fiber& fiber = fibers[thread];
        if (fiber.waits != Waits::no) continue;
        ran = true;
        current = thread;
        state.thread = fiber.place;
        state.lane = thread % WARP;
        softcuda_switch(&scheduler, fiber.stack_pointer);
        if (fiber.waits == Waits::ended) left--;
    }
    return ran;
}

/// Lets warps go on all of whose lanes wait for each other; whether there was one.
bool release_warps() {
    bool released = false;
    for (unsigned first = 0; first < n_threads; first += WARP) {
        auto begin = fibers + first, end = fibers + std::min(first + WARP, n_threads);
        auto waiting = std::count_if(begin, end, [](auto& fiber) { return fiber.waits == Waits::for_warp; });
        auto ended = std::count_if(begin, end, [](auto& fiber) { return fiber.waits == Waits::ended; });
        if (!waiting || waiting + ended != end - begin) continue;
        released = true;
        for (auto fiber = begin; fiber != end; fiber++)
            if (fiber->waits == Waits::for_warp) fiber->waits = Waits::no;
    }
    return released;
}

void run_block(const std::string& kernel) {
    for (unsigned thread = 0; thread < n_threads; thread++) start(thread);
    unsigned left = n_threads;
    while (left) {
        if (run_ready(left) | release_warps()) continue;
        unsigned waiting = 0;
        for (unsigned thread = 0; thread < n_threads; thread++) waiting += fibers[thread].waits == Waits::for_block;
        if (waiting != left) {
            fprintf(stderr, "softcuda: %s: %u of %u threads wait at a barrier that the others do not reach\n",
                    kernel.c_str(), waiting, left);
            abort();
        }
        for (unsigned thread = 0; thread < n_threads; thread++)
            if (fibers[thread].waits == Waits::for_block) fibers[thread].waits = Waits::no;
    }
}

}  // namespace

void run_grid(const std::string& kernel, SoftDim grid, SoftDim block, const std::function<void()>& before_block,
              const std::function<void()>& call) {
    if (!stacks) {
        auto flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void* mapped = mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (mapped == MAP_FAILED) {
            perror("softcuda: no room for stacks");
            abort();
        }
        stacks = static_cast<unsigned char*>(mapped);
        state.sync_block = [] { wait(Waits::for_block); };
        state.sync_warp = [] { wait(Waits::for_warp); };
        state.exchange = exchange;
        state.live_lanes = live_lanes;
    }
    state.block_dim = block;
    state.grid_dim = grid;
    n_threads = block.x * block.y * block.z;
    for (unsigned thread = 0; thread < n_threads; thread++)
        fibers[thread].place = {thread % block.x, thread / block.x % block.y, thread / block.x / block.y};
    body = &call;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                state.block = {x, y, z};
                before_block();
                run_block(kernel);
            }
}
