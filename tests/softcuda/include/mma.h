// Tensor cores by CUDA's `wmma`: each lane holds whole matrices, in row-major order.
#pragma once
#include "soft_half.h"

namespace nvcuda {
namespace wmma {

struct row_major {};
struct col_major {};
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
enum layout_t { mem_row_major, mem_col_major };

namespace precision {
struct tf32 {};
}

template <class T>
struct Held {
    using type = T;
};
template <>
struct Held<precision::tf32> {
    using type = float;
};

template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
    static constexpr int rows = std::is_same<Use, matrix_b>::value ? K : M;
    static constexpr int columns = std::is_same<Use, matrix_a>::value ? K : N;
    static constexpr int num_elements = rows * columns;
    typename Held<T>::type x[num_elements];
};

template <class F, class V>
void fill_fragment(F& fragment, V value) {
    for (auto& element : fragment.x) element = value;
}

template <class F, class P>
void soft_load(F& fragment, const P* from, unsigned stride, bool by_rows) {
    soft->sync_warp();
    for (int i = 0; i < F::rows; i++)
        for (int j = 0; j < F::columns; j++)
            fragment.x[i * F::columns + j] = by_rows ? from[i * stride + j] : from[j * stride + i];
    soft->sync_warp();
}

template <class U, int M, int N, int K, class T, class L, class P>
void load_matrix_sync(fragment<U, M, N, K, T, L>& fragment, const P* from, unsigned stride) {
    soft_load(fragment, from, stride, std::is_same<L, row_major>::value);
}

template <int M, int N, int K, class T, class P>
void load_matrix_sync(fragment<accumulator, M, N, K, T>& fragment, const P* from, unsigned stride, layout_t layout) {
    soft_load(fragment, from, stride, layout == mem_row_major);
}

template <int M, int N, int K, class T, class P>
void store_matrix_sync(P* to, const fragment<accumulator, M, N, K, T>& fragment, unsigned stride, layout_t layout) {
    soft->sync_warp();
    for (int i = 0; i < M && soft->lane == 0; i++)
        for (int j = 0; j < N; j++) to[layout == mem_row_major ? i * stride + j : j * stride + i] = fragment.x[i * N + j];
    soft->sync_warp();
}

template <int M, int N, int K, class T, class LA, class LB, class C, class D>
void mma_sync(fragment<accumulator, M, N, K, D>& sum, const fragment<matrix_a, M, N, K, T, LA>& a,
              const fragment<matrix_b, M, N, K, T, LB>& b, const fragment<accumulator, M, N, K, C>& c) {
    fragment<accumulator, M, N, K, D> result;
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float element = c.x[i * N + j];
            for (int k = 0; k < K; k++) element += float(a.x[i * K + k]) * float(b.x[k * N + j]);
            result.x[i * N + j] = element;
        }
    sum = result;
    soft->sync_warp();
}

/// Keeps 11 of 24 binary digits.
static inline float __float_to_tf32(float number) {
    uint32_t bits;
    memcpy(&bits, &number, 4);
    bits = (bits + 0x1000) & ~0x1fffu;
    memcpy(&number, &bits, 4);
    return number;
}

}  // namespace wmma
}  // namespace nvcuda
