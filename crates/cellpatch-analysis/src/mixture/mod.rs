//! Gaussian mixtures whose components share one covariance.

mod expectation;
mod hierarchy;
mod k_means;
mod space;
mod start;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use self::expectation::{Components, Outcome, Patience, Points};
use self::space::Space;
use self::start::Starts;
use crate::cells::Cells;
use crate::error::{Error, Result};

/// Where a mixture starts from, which decides what it ends at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MixtureStart {
    /// The groups of a model-based agglomeration, as mclust starts: nothing about it is left to chance unless there are
    /// more cells than are agglomerated.
    Hierarchical {
        /// How many cells are agglomerated at most, which takes time in the order of the square of their number. Of more
        /// cells an even sample of so many is taken.
        most_cells: usize,
        /// What the sample is drawn by.
        seed: u64,
    },
    /// The groups of k-means from centres drawn far apart, several times: the likeliest mixture counts.
    KMeans {
        /// How many times.
        n_starts: usize,
        /// What the centres are drawn by.
        seed: u64,
    },
    /// Both: the groups of the agglomeration, then those of k-means, of which the likeliest mixture counts. A single
    /// start often ends at a mixture that is far less likely than the best.
    Likeliest {
        /// How many cells are agglomerated at most. Of more cells an even sample of so many is taken, the likeliest
        /// start is searched within it, and only the mixture from that one is fitted to all.
        most_cells: usize,
        /// How many times k-means is run.
        n_starts: usize,
        /// What the sample and the centres are drawn by.
        seed: u64,
    },
}

impl Default for MixtureStart {
    /// Agglomeration of up to 5,000 cells: all spots of a Visium slice.
    fn default() -> Self {
        Self::Hierarchical { most_cells: 5_000, seed: 0 }
    }
}

/// How a mixture is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MixtureOptions {
    /// Where it starts from.
    pub start: MixtureStart,
    /// It ends when an iteration raises the log-likelihood by no more than this share of its magnitude, which depends on
    /// the unit of the features.
    pub tolerance: f64,
    /// After so many iterations it ends in any case.
    pub most_iterations: usize,
}

impl Default for MixtureOptions {
    /// mclust's tolerance of 1e-5, and patience that it hardly ever needs.
    fn default() -> Self {
        Self { start: MixtureStart::default(), tolerance: 1e-5, most_iterations: 1_000 }
    }
}

/// A Gaussian mixture of which all components have the same full covariance (mclust's model "EEE": equal volume, shape
/// and orientation), as domains of tissue are commonly taken from an embedding.
///
/// Fitted by expectation and maximisation (Fraley and Raftery 2002). Features that are constant or follow from others
/// are left out of the fit, where a covariance would have no inverse. The result is the same on any number of threads.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianMixture {
    space: Space,
    components: Components,
    labels: Vec<usize>,
    log_likelihood: f64,
    n_iterations: usize,
    has_converged: bool,
}

/// How good a number of components is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredComponents {
    /// How many components.
    pub n_components: usize,
    /// The mixture's [`GaussianMixture::bic`]; nothing where there is no such mixture, since cells do not differ within
    /// so many components.
    pub bic: Option<f64>,
}

/// The mixture of the best number of components.
#[derive(Debug, Clone, PartialEq)]
pub struct MixtureChoice {
    /// The one of the highest criterion, of equal ones that of the fewest components.
    pub best: GaussianMixture,
    /// All that were tried, in ascending order of their number.
    pub scores: Vec<ScoredComponents>,
}

impl GaussianMixture {
    /// Fits a mixture of `n_components` to cells, `[n_cells, n_features]`.
    ///
    /// An iteration takes time in the order of `n_cells · n_features · (n_features + n_components)`, the default start
    /// in the order of the square of up to 5,000 cells.
    ///
    /// # Errors
    /// [`Error::BadOption`] for no components, more than cells, a tolerance that is no number from 0 up, or no
    /// iterations or starts; [`Error::TooFewCells`] below two cells; [`Error::NoVariance`] where all are the same;
    /// [`Error::SingularMixture`] where cells do not differ within components; [`Error::NoConvergence`] of the
    /// coordinates' eigendecomposition, which finite values do not cause.
    pub fn fit(cells: Cells<'_>, n_components: usize, options: &MixtureOptions) -> Result<Self> {
        Fitter::new(cells, n_components, options)?.fit(n_components)
    }

    /// Fits mixtures of each number of components and takes the one of the highest [`GaussianMixture::bic`].
    ///
    /// Cells are agglomerated once for all of them.
    ///
    /// # Errors
    /// As [`GaussianMixture::fit`]; [`Error::SingularMixture`] only where no number of components has a mixture.
    pub fn choose(
        cells: Cells<'_>,
        n_components: RangeInclusive<usize>,
        options: &MixtureOptions,
    ) -> Result<MixtureChoice> {
        if n_components.is_empty() {
            return Err(Error::Nothing { what: "number of components" });
        }
        let fitter = Fitter::new(cells, *n_components.end(), options)?;
        let mut best: Option<Self> = None;
        let mut scores = Vec::new();
        let mut last = Error::Nothing { what: "number of components" };
        for n_components in n_components {
            let bic = match fitter.fit(n_components) {
                Ok(fit) => {
                    let bic = fit.bic();
                    if best.as_ref().is_none_or(|best| bic > best.bic()) {
                        best = Some(fit);
                    }
                    Some(bic)
                }
                Err(error @ Error::SingularMixture { .. }) => {
                    last = error;
                    None
                }
                Err(error) => return Err(error),
            };
            scores.push(ScoredComponents { n_components, bic });
        }
        best.map(|best| MixtureChoice { best, scores }).ok_or(last)
    }

    /// How many components there are.
    pub fn n_components(&self) -> usize {
        self.components.weights.len()
    }

    /// The component each cell most likely is from, `[n_cells]`. Components are numbered from the one of the highest
    /// weight down.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }

    /// The share of cells from each component, `[n_components]`, adding up to 1.
    pub fn weights(&self) -> &[f64] {
        &self.components.weights
    }

    /// The components' means, `[n_components, n_features]`, row-major, in the unit of the features.
    pub fn means(&self) -> Vec<f64> {
        let n = self.space.n_coordinates();
        self.components.means.chunks(n).flat_map(|mean| self.space.point(mean)).collect()
    }

    /// The covariance within each component, `[n_features, n_features]`, row-major.
    pub fn covariance(&self) -> Vec<f64> {
        self.space.covariance(self.components.covariance.as_ref())
    }

    /// The natural logarithm of the likelihood of all cells, of the density per unit of each feature. Directions that were
    /// left out, in which cells do not vary, count as 1.
    pub fn log_likelihood(&self) -> f64 {
        self.log_likelihood
    }

    /// The Bayesian information criterion with the sign of mclust, the higher the better: twice the log-likelihood less the
    /// logarithm of the number of cells for each number that was fitted (Fraley and Raftery 2002, equation 8).
    pub fn bic(&self) -> f64 {
        let (n, k) = (self.space.n_coordinates(), self.n_components());
        let n_fitted = (k - 1) + k * n + n * (n + 1) / 2;
        2.0 * self.log_likelihood - n_fitted as f64 * (self.labels.len() as f64).ln()
    }

    /// Expectations taken before it ended.
    pub fn n_iterations(&self) -> usize {
        self.n_iterations
    }

    /// Whether it ended because the likelihood hardly rose, not for want of iterations.
    pub fn has_converged(&self) -> bool {
        self.has_converged
    }

    /// How likely each cell is from each component, those it was fitted to or others: `[n_cells, n_components]`,
    /// row-major, adding up to 1 in each cell.
    ///
    /// # Errors
    /// [`Error::OtherFeatures`].
    pub fn memberships(&self, cells: Cells<'_>) -> Result<Vec<f64>> {
        if cells.n_features() != self.space.n_features() {
            let (expected, found) = (self.space.n_features(), cells.n_features());
            return Err(Error::OtherFeatures { expected, found });
        }
        let values = self.space.coordinates(cells);
        let points = Points { values: &values, n: self.space.n_coordinates() };
        Ok(self.components.expect(points).0.values)
    }
}

/// What mixtures of several numbers of components have in common.
struct Fitter {
    space: Space,
    coordinates: Vec<f64>,
    starts: Starts,
    patience: Patience,
}

impl Fitter {
    fn new(cells: Cells<'_>, most_components: usize, options: &MixtureOptions) -> Result<Self> {
        let &MixtureOptions { start, tolerance, most_iterations } = options;
        if !(tolerance.is_finite() && tolerance >= 0.0) {
            return Err(Error::bad_option("tolerance", tolerance, "a number from 0 up"));
        }
        if most_iterations == 0 {
            return Err(Error::bad_option("most_iterations", most_iterations, "at least 1"));
        }
        let space = Space::of(cells)?;
        let coordinates = space.coordinates(cells);
        let starts = Starts::new(cells, &space, &coordinates, most_components, start)?;
        let offset = -(cells.n_cells() as f64) * space.log_volume();
        Ok(Self { space, coordinates, starts, patience: Patience { tolerance, most_iterations, offset } })
    }

    fn points(&self) -> Points<'_> {
        Points { values: &self.coordinates, n: self.space.n_coordinates() }
    }

    fn fit(&self, n_components: usize) -> Result<GaussianMixture> {
        if n_components == 0 {
            return Err(Error::bad_option("n_components", n_components, "at least 1"));
        }
        let points = self.points();
        let outcome = match self.starts.searched(points.n) {
            None => self.likeliest(points, n_components, self.patience)?,
            Some(sample) => {
                let share = sample.n_cells() as f64 / points.n_cells() as f64;
                let patience = Patience { offset: share * self.patience.offset, ..self.patience };
                let found = self.likeliest(sample, n_components, patience)?;
                expectation::run(points, found.components, self.patience)?
            }
        };
        Ok(self.finish(outcome))
    }

    /// Of the mixtures of some points that all starts lead to, the likeliest.
    fn likeliest(&self, points: Points<'_>, n_components: usize, patience: Patience) -> Result<Outcome> {
        let mut best: Option<Outcome> = None;
        let mut singular = Error::SingularMixture { n_components };
        for start in self.starts.of(self.points(), n_components) {
            match start.and_then(|start| expectation::run(points, start, patience)) {
                Ok(outcome) => {
                    if best.as_ref().is_none_or(|best| outcome.log_likelihood > best.log_likelihood) {
                        best = Some(outcome);
                    }
                }
                Err(error @ Error::SingularMixture { .. }) => singular = error,
                Err(error) => return Err(error),
            }
        }
        best.ok_or(singular)
    }

    fn finish(&self, outcome: Outcome) -> GaussianMixture {
        let Outcome { components, memberships, log_likelihood, n_iterations, has_converged } = outcome;
        let order = components.by_weight();
        let mut numbers = vec![0; order.len()];
        for (number, &component) in order.iter().enumerate() {
            numbers[component] = number;
        }
        let labels = memberships.values.chunks(order.len()).map(|shares| numbers[largest(shares)]).collect();
        GaussianMixture {
            space: self.space.clone(),
            components: components.reordered(&order),
            labels,
            log_likelihood: log_likelihood + self.patience.offset,
            n_iterations,
            has_converged,
        }
    }
}

/// Where the first of the largest values is.
fn largest(values: &[f64]) -> usize {
    (1..values.len()).fold(0, |largest, at| if values[at] > values[largest] { at } else { largest })
}
