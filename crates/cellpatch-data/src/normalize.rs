//! Counts to the values the model reads: every cell scaled to the same total, then ln(1 + x).

/// What the counts of a cell are scaled to, as scanpy's `normalize_total(target_sum=1e4)`.
pub const TARGET_SUM: f64 = 1e4;

/// Counts below this are looked up: most counts of a cell are one of a few small whole numbers.
const TABLE: usize = 32;

/// Normalises one cell.
///
/// - `counts`: raw counts of the cell's genes.
/// - `total`: what they are divided by: the cell's sum over all kept genes, also those not among `counts`.
/// - `out`: cleared, then filled with `ln(1 + count * 10,000 / total)`, one per count; zeros if `total` is not positive.
///
/// Computed in double precision, so the result is the nearest `f32` to the exact value.
pub fn normalize(counts: &[f32], total: f32, out: &mut Vec<f32>) {
    let scale = if total > 0.0 { TARGET_SUM / f64::from(total) } else { 0.0 };
    let log = |count: f32| (f64::from(count) * scale).ln_1p() as f32;
    let mut known = [f32::NAN; TABLE];
    out.clear();
    out.extend(counts.iter().map(|&count| {
        let whole = count as usize;
        if whole >= TABLE || whole as f32 != count {
            return log(count);
        }
        if known[whole].is_nan() {
            known[whole] = log(count);
        }
        known[whole]
    }));
}

/// [`normalize`] of whole counts.
pub(crate) fn normalize_counts(counts: &[u16], total: f32, out: &mut Vec<f32>) {
    let scale = if total > 0.0 { TARGET_SUM / f64::from(total) } else { 0.0 };
    let log = |count: u16| (f64::from(count) * scale).ln_1p() as f32;
    let largest = usize::from(counts.iter().fold(0, |largest, &count| count.max(largest)));
    let mut known = [0.0; TABLE];
    for (count, known) in (0u16..).zip(&mut known[..TABLE.min(largest + 1)]) {
        *known = log(count);
    }
    out.clear();
    out.extend(counts.iter().map(|&count| match known.get(usize::from(count)) {
        Some(&known) => known,
        None => log(count),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn whole_counts_give_the_same_bits(
            counts in proptest::collection::vec(proptest::prop_oneof![0u16..40, proptest::prelude::any::<u16>()], 0..50),
        ) {
            let fractions: Vec<f32> = counts.iter().copied().map(f32::from).collect();
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            for total in [fractions.iter().sum(), 0.0] {
                normalize(&fractions, total, &mut expected);
                normalize_counts(&counts, total, &mut found);
                proptest::prop_assert_eq!(&found, &expected);
            }
        }
    }

    #[test]
    fn values_follow_the_formula_with_and_without_the_table() {
        let counts = [0.0, 1.0, 1.0, 31.0, 32.0, 2.5, 4000.0];
        let total: f32 = counts.iter().sum();
        let mut values = vec![9.0; 3];
        normalize(&counts, total, &mut values);
        assert_eq!(values.len(), counts.len());
        for (count, value) in counts.iter().zip(values) {
            let expected = (1.0 + f64::from(*count) * 1e4 / f64::from(total)).ln();
            assert!((f64::from(value) - expected).abs() < 1e-6, "{count}: {value} {expected}");
        }
    }

    #[test]
    fn an_empty_cell_stays_zero() {
        let mut values = Vec::new();
        normalize(&[0.0], 0.0, &mut values);
        assert_eq!(values, [0.0]);
    }
}
