//! Lists of numbers that are mostly small, a byte each; those that are not are in a list of their own.

use crate::counts::{is_whole, nearest_whole};

/// Stands for the next of the wide numbers.
const WIDE: u8 = u8::MAX;

/// A number as a byte; [`WIDE`] for one that does not fit.
fn narrowed(number: u32) -> u8 {
    number as u8 | 0_u8.wrapping_sub(u8::from(number >= u32::from(WIDE)))
}

/// Appends numbers, which mostly ascend, as what lies between each and the one before.
pub(super) fn push_gaps(numbers: &[u32], narrow: &mut Vec<u8>, wide: &mut Vec<u32>) {
    let gap = |(&before, &number): (&u32, &u32)| number.wrapping_sub(before).wrapping_sub(1);
    let next = numbers.get(1..).unwrap_or_default();
    let start = narrow.len();
    narrow.extend(numbers.first().map(|&first| narrowed(first)));
    narrow.extend(numbers.iter().zip(next).map(|pair| narrowed(gap(pair))));
    if narrow[start..].contains(&WIDE) {
        let all = numbers.first().copied().into_iter().chain(numbers.iter().zip(next).map(gap));
        wide.extend(all.filter(|&gap| gap >= u32::from(WIDE)));
    }
}

/// The numbers of [`push_gaps`].
pub(super) fn numbers(narrow: &[u8], mut wide: impl Iterator<Item = u32>) -> impl Iterator<Item = u32> {
    let mut next = 0_u32;
    narrow.iter().map(move |&gap| {
        let gap = if gap == WIDE { wide.next().unwrap_or(0) } else { u32::from(gap) };
        let number = next.wrapping_add(gap);
        next = number.wrapping_add(1);
        number
    })
}

/// Whether all values are whole numbers up to 65,535.
pub(super) fn are_counts(values: &[f32]) -> bool {
    values.iter().fold(true, |all, &value| all & is_whole(value, u16::MAX.into()))
}

/// Appends values that [are counts](are_counts).
pub(super) fn push_counts(values: &[f32], narrow: &mut Vec<u8>, wide: &mut Vec<u16>) {
    let start = narrow.len();
    narrow.extend(values.iter().map(|&value| narrowed(nearest_whole(value))));
    if narrow[start..].contains(&WIDE) {
        let all = narrow[start..].iter().zip(values).filter(|&(&byte, _)| byte == WIDE);
        wide.extend(all.map(|(_, &value)| nearest_whole(value) as u16));
    }
}

/// Appends the counts of [`push_counts`] to others.
pub(super) fn extend_by_counts(
    narrow: &[u8],
    wide: impl ExactSizeIterator<Item = u16>,
    counts: &mut Vec<u16>,
) {
    let start = counts.len();
    counts.extend(narrow.iter().map(|&count| u16::from(count)));
    if wide.len() > 0 {
        let places = counts[start..].iter_mut().filter(|count| **count == u16::from(WIDE));
        places.zip(wide).for_each(|(place, count)| *place = count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_numbers_come_back(
            lists in proptest::collection::vec(
                proptest::collection::vec(prop_oneof![4 => 0u32..3_000, 1 => any::<u32>()], 0..40),
                1..4,
            ),
        ) {
            let (mut narrow, mut wide, mut ends) = (Vec::new(), Vec::new(), vec![(0, 0)]);
            for list in &lists {
                push_gaps(list, &mut narrow, &mut wide);
                ends.push((narrow.len(), wide.len()));
            }
            for (list, ends) in lists.iter().zip(ends.windows(2)) {
                let found = numbers(&narrow[ends[0].0..ends[1].0], wide[ends[0].1..ends[1].1].iter().copied());
                prop_assert_eq!(&found.collect::<Vec<_>>(), list);
            }
        }

        #[test]
        fn any_counts_come_back(
            counts in proptest::collection::vec(prop_oneof![4 => 0u16..300, 1 => any::<u16>()], 0..80),
        ) {
            let values: Vec<f32> = counts.iter().map(|&count| f32::from(count)).collect();
            prop_assert!(are_counts(&values));
            let (mut narrow, mut wide, mut found) = (Vec::new(), Vec::new(), vec![7]);
            push_counts(&values, &mut narrow, &mut wide);
            extend_by_counts(&narrow, wide.iter().copied(), &mut found);
            prop_assert_eq!(&found[1..], &counts[..]);
        }
    }

    #[test]
    fn other_values_are_no_counts() {
        let others = [0.5, -1.0, 65_536.0, 1e9, f32::MAX, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        assert!(others.into_iter().all(|value| !are_counts(&[1.0, value, 2.0])));
        assert!(are_counts(&[]));
    }
}
