//! The distance between two points.

/// The square of the distance between two points of the same number of coordinates.
pub(crate) fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
    // Eight sums side by side: the processor adds them at once, and always in the same order.
    let mut sums = [0.0; 8];
    let (a_parts, a_rest) = a.as_chunks::<8>();
    let (b_parts, b_rest) = b.as_chunks::<8>();
    for (a, b) in a_parts.iter().zip(b_parts) {
        for (sum, (x, y)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += (x - y) * (x - y);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| (x - y) * (x - y)).sum();
    sums.iter().sum::<f64>() + rest
}
