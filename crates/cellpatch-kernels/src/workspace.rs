//! Memory that a thread uses again for one cell after the other.

use std::cell::RefCell;

/// A thread's scratch memory; each buffer grows to what the largest cell needed.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// Queries by head: [heads, queries, H].
    pub(crate) queries: Vec<f32>,
    /// Keys by head, then values by head: [2 heads, keys, H].
    pub(crate) memory: Vec<f32>,
    /// What attention gathered, where the caller does not keep it: [queries, d].
    pub(crate) gathered: Vec<f32>,
    /// [heads, queries]
    pub(crate) log_sum_exp: Vec<f32>,
    /// What attention gathered, by head: [heads, queries, H].
    pub(crate) gathered_by_head: Vec<f32>,
    /// Its gradient by row, [queries, d], and by head.
    pub(crate) for_gathered: Vec<f32>,
    pub(crate) for_gathered_by_head: Vec<f32>,
    /// Gradient of the queries by head: [heads, queries, H].
    pub(crate) for_queries: Vec<f32>,
    /// Gradient of keys by head, then values by head: [2 heads, keys, H].
    pub(crate) for_memory: Vec<f32>,
    pub(crate) feedforward: FeedforwardRows,
}

/// Rows on their way through what comes after attention.
#[derive(Debug, Default)]
pub(crate) struct FeedforwardRows {
    pub(crate) sums: Vec<f32>,
    pub(crate) attended: Vec<f32>,
    pub(crate) hidden: Vec<f32>,
    pub(crate) activated: Vec<f32>,
    pub(crate) results: Vec<f32>,
    pub(crate) for_attended: Vec<f32>,
    pub(crate) for_hidden: Vec<f32>,
}

/// A buffer of `n` elements, whatever they are.
pub(crate) fn sized(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}

/// A buffer of `n` zeros.
pub(crate) fn zeroed(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    let buffer = sized(buffer, n);
    buffer.fill(0.0);
    buffer
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Lends this thread's workspace. The work must not wait for the thread pool: another task of it could want the same.
pub(crate) fn with_workspace<R>(work: impl FnOnce(&mut Workspace) -> R) -> R {
    WORKSPACE.with_borrow_mut(work)
}

/// [rows, width] to [heads, rows, H].
#[inline(always)]
pub(crate) fn split_heads<const H: usize>(rows: &[f32], width: usize, by_head: &mut [f32]) {
    let n_rows = rows.len() / width;
    for (head, by_head) in by_head.chunks_exact_mut(n_rows * H).enumerate() {
        for (row, slot) in rows.chunks_exact(width).zip(by_head.chunks_exact_mut(H)) {
            slot.copy_from_slice(&row[head * H..][..H]);
        }
    }
}

/// [heads, rows, H] to [rows, width].
#[inline(always)]
pub(crate) fn merge_heads<const H: usize>(by_head: &[f32], rows: &mut [f32], width: usize) {
    let n_rows = rows.len() / width;
    for (head, by_head) in by_head.chunks_exact(n_rows * H).enumerate() {
        for (row, slot) in rows.chunks_exact_mut(width).zip(by_head.chunks_exact(H)) {
            row[head * H..][..H].copy_from_slice(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_split_row_by_row_and_merged_again() {
        let rows: Vec<f32> = (0..3 * 32).map(|index| index as f32).collect();
        let mut by_head = vec![0.0; rows.len()];
        split_heads::<16>(&rows, 32, &mut by_head);
        assert_eq!(by_head[16..32], rows[32..48]);
        assert_eq!(by_head[3 * 16..4 * 16], rows[16..32]);
        let mut merged = vec![0.0; rows.len()];
        merge_heads::<16>(&by_head, &mut merged, 32);
        assert_eq!(merged, rows);
    }
}
