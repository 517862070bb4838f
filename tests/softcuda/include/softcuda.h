// What a kernel compiled for the host shares with the driver that runs it.
#pragma once

struct SoftDim {
    unsigned x, y, z;
};

/// What lanes of a warp show each other: 64 bytes each.
using SoftSlots = unsigned char (*)[64];

struct SoftState {
    /// Of the thread that runs.
    SoftDim thread, block, block_dim, grid_dim;
    unsigned lane;
    /// Wait for the threads of the block, or for the lanes of the warp.
    void (*sync_block)();
    void (*sync_warp)();
    /// Room for an exchange between lanes, which is over when they have met once: the next has room of its own.
    SoftSlots (*exchange)();
    /// Lanes of the warp that have not ended, a bit each.
    unsigned (*live_lanes)();
};
