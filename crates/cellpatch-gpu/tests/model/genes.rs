//! Sums of gradients by gene.

use cellpatch_gpu::genes::{SlotIndex, gather_rows, sum_by_row};
use cellpatch_gpu::memory::Floats;
use cellpatch_kernels::block::PaddedRows;
use cellpatch_kernels::genes::{GeneIndex, sum_by_gene};
use cubecl::prelude::*;

use crate::device::{apart, client, numbers, read};

const WIDTH: usize = 32;

/// Tokens of a padded batch in which gene 3 is everywhere, gene 0 stands in padding only and most genes never occur.
fn tokens(n_cells: usize, padded: usize) -> Vec<u32> {
    let drawn = numbers(n_cells * padded, 5, 1.0);
    let token = |(slot, draw): (usize, f32)| match slot % padded {
        0 => 3,
        _ => 4 + (draw.abs() * 60.0) as u32,
    };
    drawn.into_iter().enumerate().map(token).collect()
}

#[test]
fn every_row_of_the_table_gets_the_sum_of_its_slots() {
    let Some(client) = client() else { return };
    let (capacity, padded) = (101, 40);
    for lengths in [&[40, 1, 0, 33, 17, 40, 2, 39, 40][..], &[1], &[40; 40], &[40; 1100]] {
        let mut tokens = tokens(lengths.len(), padded);
        for (cell, &n) in lengths.iter().enumerate() {
            tokens[cell * padded + n.max(1)..(cell + 1) * padded].fill(0);
        }
        let rows = PaddedRows { padded, lengths: Some(lengths) };
        let index = GeneIndex::new(&tokens, rows, capacity);
        let slots = numbers(tokens.len() * WIDTH, 6, 1.0);
        let by_gene = sum_by_gene(&index, &slots, WIDTH);
        let mut expected = vec![0.0; capacity * WIDTH];
        for (&gene, sum) in index.genes().iter().zip(by_gene.chunks_exact(WIDTH)) {
            expected[gene as usize * WIDTH..][..WIDTH].copy_from_slice(sum);
        }
        let on_device = Floats::from_slice(&client, &slots);
        let sum = |index: &SlotIndex| {
            read(&client, &sum_by_row(&client, index, &on_device, tokens.len(), WIDTH, on_device.storage))
        };
        let table = sum(&SlotIndex::of_table(&client, &index, capacity));
        assert!(apart(&table, &expected) < 1e-6);
        assert!(table[..3 * WIDTH].iter().all(|&element| element == 0.0), "padding gives nothing");
        assert!(apart(&sum(&SlotIndex::of_batch(&client, &index)), &by_gene) < 1e-6);
    }
}

#[test]
fn tokens_gather_their_rows() {
    let Some(client) = client() else { return };
    let (capacity, n) = (50, 133);
    let table = numbers(capacity * WIDTH, 1, 1.0);
    let tokens: Vec<u32> = (0..n as u32).map(|slot| slot * 7 % capacity as u32).collect();
    let expected: Vec<f32> =
        tokens.iter().flat_map(|&token| &table[token as usize * WIDTH..][..WIDTH]).copied().collect();
    let handle = client.create_from_slice(u32::as_bytes(&tokens));
    let table = Floats::from_slice(&client, &table);
    assert_eq!(read(&client, &gather_rows(&client, (&table, capacity), WIDTH, (&handle, n), None)), expected);
}
