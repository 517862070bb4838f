// The CUDA driver's interface, as far as CubeCL uses it. Streams do at once what they are given.
#include "driver.h"

#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <sstream>

#include "threads.h"

std::string setting(const char* name, const char* otherwise) {
    const char* value = getenv(name);
    return value && *value ? value : otherwise;
}

namespace {

using Address = unsigned long long;

enum Result { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, INVALID_IMAGE = 200 };

std::mutex lock;

int architecture() { return std::stoi(setting("SOFTCUDA_ARCH", "80")); }

size_t total_memory() { return std::stoul(setting("SOFTCUDA_MEMORY_MB", "16384")) << 20; }

// What a process asked for, for its report.
#define COUNTS(X)                                                                                                      \
    X(launches) X(compiled) X(allocations) X(frees) X(pinned_allocations) X(copies_to_device) X(bytes_to_device)       \
    X(unpinned_copies_to_device) X(copies_to_host) X(bytes_to_host) X(waits)

struct Counts {
#define X(name) std::atomic<long> name{0};
    COUNTS(X)
#undef X

    ~Counts() {
        std::string path = setting("SOFTCUDA_REPORT", "");
        FILE* file = path.empty() ? nullptr : fopen(path.c_str(), "a");
        if (!file) return;
        fprintf(file, "{\"process\": %d", getpid());
#define X(name) fprintf(file, ", \"" #name "\": %ld", name.load());
        COUNTS(X)
#undef X
        fprintf(file, "}\n");
        fclose(file);
    }
} counts;

std::map<char*, size_t> device_memory, pinned_memory;
size_t in_use;

/// Whether all of some memory belongs to one allocation.
bool lies_in(const std::map<char*, size_t>& memory, const void* begin, size_t n) {
    auto address = static_cast<const char*>(begin);
    auto next = memory.upper_bound(const_cast<char*>(address));
    if (next == memory.begin()) return false;
    --next;
    return address + n <= next->first + next->second;
}

void check_device(Address begin, size_t n, const char* what) {
    std::lock_guard<std::mutex> guard(lock);
    if (lies_in(device_memory, reinterpret_cast<void*>(begin), n)) return;
    fprintf(stderr, "softcuda: %s: %zu bytes beyond what was allocated\n", what, n);
    abort();
}

void count_to_device(const void* from, size_t n) {
    counts.copies_to_device++;
    counts.bytes_to_device += n;
    std::lock_guard<std::mutex> guard(lock);
    counts.unpinned_copies_to_device += !lies_in(pinned_memory, from, n);
}

void count_to_host(size_t n) {
    counts.copies_to_host++;
    counts.bytes_to_host += n;
}

Result allocate(Address* address, size_t n) {
    std::lock_guard<std::mutex> guard(lock);
    void* memory = nullptr;
    if (in_use + n > total_memory() || posix_memalign(&memory, 512, n ? n : 1)) return OUT_OF_MEMORY;
    // Floats that nobody wrote are no numbers. Large pages are left alone: filling would take their memory.
    if (n <= 64u << 20) memset(memory, 0xff, n);
    device_memory[static_cast<char*>(memory)] = n;
    in_use += n;
    counts.allocations++;
    *address = reinterpret_cast<Address>(memory);
    return SUCCESS;
}

Result release(Address address) {
    std::lock_guard<std::mutex> guard(lock);
    auto found = device_memory.find(reinterpret_cast<char*>(address));
    if (found == device_memory.end()) return INVALID_VALUE;
    in_use -= found->second;
    counts.frees++;
    free(found->first);
    device_memory.erase(found);
    return SUCCESS;
}

struct Module {
    void* library;
    std::string kernel;
};

struct Function {
    std::string kernel;
    void (*call)(void**);
    void (*bind)(SoftState*);
    unsigned char* shared_memory;
};

int a_context;

}  // namespace

void count_compiled() { counts.compiled++; }

API int cuInit(unsigned) { return SUCCESS; }

API int cuDriverGetVersion(int* version) {
    *version = 12080;
    return SUCCESS;
}

API int cuDeviceGet(int* device, int index) {
    *device = 0;
    return index == 0 ? SUCCESS : INVALID_DEVICE;
}

API int cuDeviceGetCount(int* n) {
    *n = 1;
    return SUCCESS;
}

API int cuDeviceGetName(char* name, int n, int) {
    snprintf(name, n, "softcuda");
    return SUCCESS;
}

API int cuDeviceTotalMem_v2(size_t* n, int) {
    *n = total_memory();
    return SUCCESS;
}

API int cuDeviceGetAttribute(int* value, int attribute, int) {
    switch (attribute) {
        case 1: case 2: case 3: *value = MOST_THREADS; break;  // threads of a block, and along x and y
        case 4: *value = 64; break;                            // along z
        case 5: *value = 2147483647; break;                    // blocks along x
        case 6: case 7: *value = 65535; break;                 // along y and z
        case 10: *value = 32; break;                           // lanes of a warp
        case 16: *value = 4; break;                            // multiprocessors
        case 75: *value = architecture() / 10; break;
        case 76: *value = architecture() % 10; break;
        case 97: *value = architecture() >= 90 ? 227 << 10 : 163 << 10; break;  // shared memory
        default: *value = 0;
    }
    return SUCCESS;
}

API int cuDevicePrimaryCtxRetain(void** context, int) {
    *context = &a_context;
    return SUCCESS;
}

API int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
API int cuCtxSetCurrent(void*) { return SUCCESS; }

API int cuStreamCreate(void** stream, unsigned) {
    static std::atomic<long> n{0};
    *stream = reinterpret_cast<void*>(++n);
    return SUCCESS;
}

API int cuStreamDestroy_v2(void*) { return SUCCESS; }
API int cuStreamWaitEvent(void*, void*, unsigned) { return SUCCESS; }

API int cuStreamSynchronize(void*) {
    counts.waits++;
    return SUCCESS;
}

API int cuEventCreate(void** event, unsigned) {
    *event = malloc(1);
    return SUCCESS;
}

API int cuEventRecord(void*, void*) { return SUCCESS; }

API int cuEventSynchronize(void*) {
    counts.waits++;
    return SUCCESS;
}

API int cuEventDestroy_v2(void* event) {
    free(event);
    return SUCCESS;
}

API int cuGetErrorName(int, const char** name) {
    *name = "SOFTCUDA_ERROR";
    return SUCCESS;
}

API int cuGetErrorString(int code, const char** text) {
    static thread_local char message[32];
    snprintf(message, sizeof message, "softcuda error %d", code);
    *text = message;
    return SUCCESS;
}

API int cuMemAlloc_v2(Address* address, size_t n) { return allocate(address, n); }
API int cuMemAllocAsync(Address* address, size_t n, void*) { return allocate(address, n); }
API int cuMemFree_v2(Address address) { return release(address); }
API int cuMemFreeAsync(Address address, void*) { return release(address); }

API int cuMemAllocHost_v2(void** memory, size_t n) {
    *memory = aligned_alloc(512, (n + 511) / 512 * 512);
    if (!*memory) return OUT_OF_MEMORY;
    counts.pinned_allocations++;
    std::lock_guard<std::mutex> guard(lock);
    pinned_memory[static_cast<char*>(*memory)] = n;
    return SUCCESS;
}

API int cuMemFreeHost(void* memory) {
    std::lock_guard<std::mutex> guard(lock);
    pinned_memory.erase(static_cast<char*>(memory));
    free(memory);
    return SUCCESS;
}

API int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t n, void*) {
    check_device(to, n, "copy to the device");
    count_to_device(from, n);
    memcpy(reinterpret_cast<void*>(to), from, n);
    return SUCCESS;
}

API int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t n, void*) {
    check_device(from, n, "copy to the host");
    count_to_host(n);
    memcpy(to, reinterpret_cast<void*>(from), n);
    return SUCCESS;
}

struct Copy2D {
    struct Side {
        size_t x, y;
        int type;
        void* host;
        Address device;
        void* array;
        size_t pitch;

        bool is_host() const { return type == 1; }
        char* row(size_t row, size_t width) const {
            char* begin = is_host() ? static_cast<char*>(host) : reinterpret_cast<char*>(device);
            return begin + (row + y) * (pitch ? pitch : width) + x;
        }
    } from, to;
    size_t width, height;
};

API int cuMemcpy2DAsync_v2(const Copy2D* copy, void*) {
    if (copy->from.is_host())
        count_to_device(copy->from.host, copy->width * copy->height);
    else
        count_to_host(copy->width * copy->height);
    for (size_t row = 0; row < copy->height; row++)
        memcpy(copy->to.row(row, copy->width), copy->from.row(row, copy->width), copy->width);
    return SUCCESS;
}

API int cuModuleLoadData(void** module, const void* image) {
    std::istringstream text(static_cast<const char*>(image));
    std::string path, kernel;
    std::getline(text, path);
    std::getline(text, kernel);
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "softcuda: %s\n", dlerror());
        return INVALID_IMAGE;
    }
    *module = new Module{library, kernel};
    return SUCCESS;
}

API int cuModuleGetFunction(void** function, void* module, const char*) {
    auto& [library, kernel] = *static_cast<Module*>(module);
    *function = new Function{kernel, reinterpret_cast<void (*)(void**)>(dlsym(library, "softcuda_call")),
                             reinterpret_cast<void (*)(SoftState*)>(dlsym(library, "softcuda_bind")),
                             static_cast<unsigned char*>(dlsym(library, "dynamic_shared_mem"))};
    return SUCCESS;
}

API int cuFuncSetAttribute(void*, int, int) { return SUCCESS; }

API int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                       unsigned block_y, unsigned block_z, unsigned shared, void*, void** arguments, void**) {
    std::lock_guard<std::mutex> guard(lock);
    counts.launches++;
    auto n_threads = static_cast<unsigned long long>(block_x) * block_y * block_z;
    auto n_blocks = static_cast<unsigned long long>(grid_x) * grid_y * grid_z;
    if (!n_threads || n_threads > MOST_THREADS || !n_blocks || grid_y > 65535 || grid_z > 65535) return INVALID_VALUE;
    if (shared > SHARED_MEMORY) return INVALID_VALUE;
    auto& kernel = *static_cast<Function*>(function);
    kernel.bind(&state);
    auto before_block = [&] { memset(kernel.shared_memory, 0xff, shared); };
    run_grid(kernel.kernel, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, before_block,
             [&] { kernel.call(arguments); });
    return SUCCESS;
}
