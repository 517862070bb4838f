//! How far two groupings of the same cells agree, whatever the groups are called.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// The adjusted Rand index of two groupings, `[n_cells]` group numbers each (Hubert and Arabie 1985, equation 5).
///
/// 1 for the same groups, 0 on average for groups drawn at random, negative for worse than that. Two groupings
/// that cannot differ (one group, or one cell each) score 1, as in scikit-learn.
///
/// # Errors
/// [`Error::LengthMismatch`] where the two differ in length.
pub fn adjusted_rand_index(a: &[usize], b: &[usize]) -> Result<f64> {
    let overlap = Overlap::of(a, b)?;
    let pairs = |n: &u64| (*n as f64) * (*n as f64 - 1.0) / 2.0;
    let both: f64 = overlap.joint.values().map(pairs).sum();
    let [in_a, in_b] = [&overlap.a, &overlap.b].map(|groups| groups.values().map(pairs).sum::<f64>());
    if in_a == both && in_b == both {
        return Ok(1.0);
    }
    let expected = in_a * in_b / pairs(&(a.len() as u64));
    Ok((both - expected) / (in_a.midpoint(in_b) - expected))
}

/// The mutual information of two groupings, `[n_cells]` group numbers each, over the arithmetic mean of their
/// entropies: 0 for independent groups to 1 for the same ones (scikit-learn's `normalized_mutual_info_score`).
///
/// Two groupings of one group each score 1, of no cells too.
///
/// # Errors
/// [`Error::LengthMismatch`] where the two differ in length.
pub fn normalized_mutual_information(a: &[usize], b: &[usize]) -> Result<f64> {
    let overlap = Overlap::of(a, b)?;
    if overlap.a.len() <= 1 && overlap.b.len() <= 1 {
        return Ok(1.0);
    }
    let n = a.len() as f64;
    let entropy = |groups: &BTreeMap<usize, u64>| -> f64 {
        groups.values().map(|&count| -(count as f64 / n) * (count as f64 / n).ln()).sum()
    };
    let information: f64 = overlap
        .joint
        .iter()
        .map(|(&(group_a, group_b), &count)| {
            let (in_a, in_b) = (overlap.a[&group_a] as f64, overlap.b[&group_b] as f64);
            count as f64 / n * (n * count as f64 / (in_a * in_b)).ln()
        })
        .sum();
    // Independent groups leave rounding of either sign.
    if information <= f64::EPSILON {
        return Ok(0.0);
    }
    Ok((information / entropy(&overlap.a).midpoint(entropy(&overlap.b))).min(1.0))
}

/// How far groups agree with labels that some cells lack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelAgreement {
    /// Cells with a label, on which alone the rest is computed.
    pub n_labelled: usize,
    /// See [`adjusted_rand_index`].
    pub adjusted_rand_index: f64,
    /// See [`normalized_mutual_information`].
    pub normalized_mutual_information: f64,
}

impl LabelAgreement {
    /// Holds groups against labels, `[n_cells]` each. Cells without a label are left out of both.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] where the two differ in length, [`Error::Nothing`] where no cell has a label.
    pub fn of(groups: &[usize], labels: &[Option<usize>]) -> Result<Self> {
        if groups.len() != labels.len() {
            let (n_found, n_expected) = (labels.len(), groups.len());
            return Err(Error::LengthMismatch { what: "labels", n_found, n_expected });
        }
        let labelled = groups.iter().zip(labels).filter_map(|(&group, label)| Some((group, (*label)?)));
        let (groups, labels): (Vec<usize>, Vec<usize>) = labelled.unzip();
        if labels.is_empty() {
            return Err(Error::Nothing { what: "labels" });
        }
        Ok(Self {
            n_labelled: labels.len(),
            adjusted_rand_index: adjusted_rand_index(&groups, &labels)?,
            normalized_mutual_information: normalized_mutual_information(&groups, &labels)?,
        })
    }
}

/// Sizes of the groups and of what each two share.
struct Overlap {
    a: BTreeMap<usize, u64>,
    b: BTreeMap<usize, u64>,
    joint: BTreeMap<(usize, usize), u64>,
}

impl Overlap {
    fn of(a: &[usize], b: &[usize]) -> Result<Self> {
        if a.len() != b.len() {
            return Err(Error::LengthMismatch {
                what: "group numbers",
                n_found: b.len(),
                n_expected: a.len(),
            });
        }
        let mut overlap = Self { a: BTreeMap::new(), b: BTreeMap::new(), joint: BTreeMap::new() };
        for (&a, &b) in a.iter().zip(b) {
            *overlap.a.entry(a).or_default() += 1;
            *overlap.b.entry(b).or_default() += 1;
            *overlap.joint.entry((a, b)).or_default() += 1;
        }
        Ok(overlap)
    }
}
