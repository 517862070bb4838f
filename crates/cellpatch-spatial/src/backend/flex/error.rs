//! The squared error of a linear decoder.
//!
//! The sum of `(X - H W^T - 1 b^T)^2` is `|X|^2 - 2 <X W, H> + <H^T H, W^T W> + 2 (H^T 1) . (W^T b) - 2 b . (X^T 1) + n |b|^2`: products
//! of the decoder's width, never of spots and genes. Terms of both signs are summed in double precision.

use burn::backend::Flex;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use cellpatch_model::backend::flex::{Elements, dimensions, like, tensor as flex_tensor};
use cellpatch_model::operation::{Computed, Kernel, primitive, tensor};
use rayon::prelude::*;

use crate::operation::SquaredError;

/// Elements that one task sums.
const CHUNK: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct FlexSquaredError(pub(super) SquaredError);

/// What the bias brings in.
struct Biased {
    bias: Elements,
    /// Sum of the hidden rows: `[d]`.
    hidden_sum: Vec<f32>,
    /// W^T b: `[d]`.
    product: Vec<f32>,
}

impl Biased {
    fn new(bias: &FlexTensor, hidden: &[f32], weight: &[f32], d: usize) -> Self {
        let bias = Elements::of(bias);
        let hidden_sum = weighted_rows(hidden, |_| 1.0, d);
        let product = weighted_rows(weight, |gene| bias.slice()[gene], d);
        Self { bias, hidden_sum, product }
    }
}

/// Sum of rows, each times its factor, in double precision and in the order of rows.
fn weighted_rows(rows: &[f32], factor: impl Fn(usize) -> f32, d: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; d];
    for (index, row) in rows.chunks_exact(d).enumerate() {
        let factor = f64::from(factor(index));
        for (sum, element) in sums.iter_mut().zip(row) {
            *sum += factor * f64::from(*element);
        }
    }
    sums.into_iter().map(|sum| sum as f32).collect()
}

/// In double precision and in the order of elements.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let chunk = |(a, b): (&[f32], &[f32])| -> f64 {
        let mut sums = [0.0_f64; 8];
        let (a, a_rest) = a.as_chunks::<8>();
        let (b, b_rest) = b.as_chunks::<8>();
        for (a, b) in a.iter().zip(b) {
            for lane in 0..8 {
                sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
            }
        }
        let rest = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(a) * f64::from(b));
        sums.iter().sum::<f64>() + rest.sum::<f64>()
    };
    let chunks: Vec<f64> = a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK)).map(chunk).collect();
    chunks.iter().sum()
}

fn of_flex(primitive: &FlexTensor) -> Tensor<Flex, 2> {
    tensor(primitive.clone())
}

/// A vector and the factor it has in each row.
type ScaledByRow<'a> = (&'a [f32], &'a (dyn Fn(usize) -> f32 + Sync));

/// `scale (rows - other + factor vector)`, the factor being each row's own.
fn combined(
    rows: &FlexTensor,
    other: Option<&[f32]>,
    vector: Option<ScaledByRow<'_>>,
    (scale, d): (f32, usize),
) -> Vec<f32> {
    let rows = Elements::of(rows);
    let mut output = vec![0.0; rows.slice().len()];
    let chunks = output.par_chunks_exact_mut(d).zip(rows.slice().par_chunks_exact(d));
    chunks.enumerate().for_each(|(index, (output, row))| {
        for (output, element) in output.iter_mut().zip(row) {
            *output = scale * element;
        }
        if let Some(other) = other {
            for (output, element) in output.iter_mut().zip(&other[index * d..]) {
                *output -= scale * element;
            }
        }
        if let Some((vector, factor)) = vector {
            let factor = scale * factor(index);
            for (output, element) in output.iter_mut().zip(vector) {
                *output += factor * element;
            }
        }
    });
    output
}

impl Kernel<Flex> for FlexSquaredError {
    fn forward(&self, inputs: &[FlexTensor], _seed: u64, _keep: bool) -> Computed<Flex> {
        let [n_spots, d] = dimensions(&inputs[1]);
        let [n_genes, _] = dimensions(&inputs[2]);
        let gram = |rows: &FlexTensor| primitive(of_flex(rows).transpose().matmul(of_flex(rows)));
        let kept = vec![gram(&inputs[1]), gram(&inputs[2])];
        let [product, hidden, weight] = [0, 1, 2].map(|index| Elements::of(&inputs[index]));
        let grams = [&kept[0], &kept[1]].map(Elements::of);
        let mut sum = self.0.sum_of_squares - 2.0 * dot(product.slice(), hidden.slice())
            + dot(grams[0].slice(), grams[1].slice());
        if let Some(bias) = inputs.get(3) {
            let biased = Biased::new(bias, hidden.slice(), weight.slice(), d);
            let bias = biased.bias.slice();
            sum += 2.0 * dot(&biased.hidden_sum, &biased.product) - 2.0 * dot(bias, &self.0.sums_by_gene)
                + n_spots as f64 * dot(bias, bias);
        }
        let mean = sum / (n_spots * n_genes) as f64;
        Computed { output: flex_tensor(vec![mean as f32], [1]), kept }
    }

    fn backward(
        &self,
        inputs: &[FlexTensor],
        computed: &Computed<Flex>,
        gradient: FlexTensor,
        _seed: u64,
        _wanted: &[bool],
    ) -> Vec<FlexTensor> {
        let [n_spots, d] = dimensions(&inputs[1]);
        let [n_genes, _] = dimensions(&inputs[2]);
        let gradient = Elements::of(&gradient).slice().iter().copied().sum::<f32>();
        let scale = (2.0 * f64::from(gradient) / (n_spots * n_genes) as f64) as f32;
        let [product, hidden, weight] = [0, 1, 2].map(|index| Elements::of(&inputs[index]));
        let biased = inputs.get(3).map(|bias| Biased::new(bias, hidden.slice(), weight.slice(), d));
        let by_gram = |rows: usize, gram: usize| {
            primitive(of_flex(&inputs[rows]).matmul(of_flex(&computed.kept[gram])))
        };
        let for_product = combined(&inputs[1], None, None, (-scale, d));
        let one = |_: usize| 1.0_f32;
        let vector =
            biased.as_ref().map(|biased| (&biased.product[..], &one as &(dyn Fn(usize) -> f32 + Sync)));
        let for_hidden = combined(&by_gram(1, 1), Some(product.slice()), vector, (scale, d));
        let of_gene = |gene: usize| biased.as_ref().map_or(0.0, |biased| biased.bias.slice()[gene]);
        let vector = biased
            .as_ref()
            .map(|biased| (&biased.hidden_sum[..], &of_gene as &(dyn Fn(usize) -> f32 + Sync)));
        let for_weight = combined(&by_gram(2, 0), None, vector, (scale, d));
        let mut gradients =
            vec![like(for_product, &inputs[0]), like(for_hidden, &inputs[1]), like(for_weight, &inputs[2])];
        if let Some(biased) = &biased {
            let genes =
                weight.slice().chunks_exact(d).zip(biased.bias.slice()).zip(self.0.sums_by_gene.iter());
            let for_bias = genes.map(|((weight, &bias), &sum)| {
                let decoded = dot(weight, &biased.hidden_sum);
                (f64::from(scale) * (decoded - f64::from(sum) + n_spots as f64 * f64::from(bias))) as f32
            });
            gradients.push(like(for_bias.collect(), &inputs[3]));
        }
        gradients
    }
}
