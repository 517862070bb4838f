// The runtime compiler's interface: CUDA becomes a shared library of the host, kept from run to run.
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>

#include "driver.h"

namespace {

constexpr int COMPILATION_FAILED = 6;

struct Program {
    std::string source;
    /// Path of the library and name of the kernel, a line each: what the driver is given in place of PTX.
    std::string image;
    std::string log;
};

Program& program(void* handle) { return *static_cast<Program*>(handle); }

/// The source with calls of functions where it has products of tensor cores in PTX.
std::string without_ptx(const std::string& source) {
    static const std::regex product(
        R"(asm volatile\("mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.(bf16|f16)\.[^"]*"[^:]*:[^:]*:[^;]*;)");
    return std::regex_replace(source, product,
                              "soft_product_$1({reg_a_0, reg_a_1, reg_a_2, reg_a_3}, {reg_b_0, reg_b_1}, "
                              "{reg_c_0, reg_c_1, reg_c_2, reg_c_3}, reg_d_0, reg_d_1, reg_d_2, reg_d_3);");
}

/// Compiles to `library`; false and a log if it cannot.
bool compile(Program& program, const std::string& kernel, const std::string& base, const std::string& library) {
    // Of this process alone until it is whole.
    std::string own = base + "." + std::to_string(getpid());
    std::ofstream(own + ".cpp") << without_ptx(program.source) << "\nextern \"C\" {\n"
                                << "alignas(1024) unsigned char dynamic_shared_mem[" << SHARED_MEMORY << "];\n"
                                << "void softcuda_call(void** arguments) { soft_call(" << kernel << ", arguments); }\n"
                                << "void softcuda_bind(SoftState* state) { soft = state; }\n}\n";
    std::string command = setting("CXX", "g++") + " -std=c++17 -O1 -march=native -w -shared -fPIC -I" +
                          setting("SOFTCUDA_INCLUDE", ".") + " -o " + own + ".so " + own + ".cpp 2>" + own + ".log";
    bool compiled = system(command.c_str()) == 0;
    std::stringstream log;
    log << std::ifstream(own + ".log").rdbuf();
    program.log = log.str();
    unlink((own + ".log").c_str());
    if (!compiled) {
        fprintf(stderr, "softcuda: %s.cpp does not compile\n", own.c_str());
        return false;
    }
    unlink((own + ".cpp").c_str());
    if (!setting("SOFTCUDA_KEEP", "").empty()) std::ofstream(base + ".cu") << program.source;
    return rename((own + ".so").c_str(), library.c_str()) == 0;
}

}  // namespace

API int nvrtcVersion(int* major, int* minor) {
    *major = 12;
    *minor = 8;
    return 0;
}

API const char* nvrtcGetErrorString(int) { return "softcuda: a kernel does not compile"; }

API int nvrtcCreateProgram(void** handle, const char* source, const char*, int, const char* const*,
                           const char* const*) {
    *handle = new Program{source, "", ""};
    return 0;
}

API int nvrtcDestroyProgram(void** handle) {
    delete static_cast<Program*>(*handle);
    *handle = nullptr;
    return 0;
}

API int nvrtcCompileProgram(void* handle, int, const char* const*) {
    count_compiled();
    Program& own = program(handle);
    static const std::regex signature(R"(__global__ void[^(]*\(\d+\)\s*(?:__cluster_dims__\([^)]*\))?\s*(\w+) \()");
    std::smatch found;
    if (!std::regex_search(own.source, found, signature)) {
        own.log = "softcuda: no kernel in the source";
        return COMPILATION_FAILED;
    }
    char name[32];
    snprintf(name, sizeof name, "/%016zx", std::hash<std::string>()(own.source));
    std::string base = setting("SOFTCUDA_KERNELS", "/tmp") + name, library = base + ".so";
    if (access(library.c_str(), R_OK) != 0 && !compile(own, found[1], base, library)) return COMPILATION_FAILED;
    own.image = library + "\n" + found[1].str() + "\n";
    return 0;
}

API int nvrtcGetProgramLogSize(void* handle, size_t* n) {
    *n = program(handle).log.size() + 1;
    return 0;
}

API int nvrtcGetProgramLog(void* handle, char* log) {
    strcpy(log, program(handle).log.c_str());
    return 0;
}

API int nvrtcGetPTXSize(void* handle, size_t* n) {
    *n = program(handle).image.size() + 1;
    return 0;
}

API int nvrtcGetPTX(void* handle, char* image) {
    strcpy(image, program(handle).image.c_str());
    return 0;
}
