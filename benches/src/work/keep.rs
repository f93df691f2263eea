//! What is kept live while a program looks at its memory.

use super::maps_of_strings::{self, Index};
use super::{Sequence, json};
use crate::shape::Shape;
use serde_json::Value;

/// What is kept.
pub(super) enum Keep {
    Blocks(Vec<Vec<u8>>),
    Documents(Vec<Value>),
    Maps(Vec<Index>),
}

impl Keep {
    /// Builds so many blocks, documents or maps.
    pub(super) fn build(shape: Shape, n_units: usize, document: &[u8]) -> Self {
        match (shape, shape.mean_bytes()) {
            (_, Some(mean_bytes)) => Self::Blocks(blocks(mean_bytes, n_units)),
            (Shape::Maps, _) => {
                Self::Maps((0..n_units).map(|_| maps_of_strings::build()).collect())
            }
            _ => Self::Documents((0..n_units).map(|_| json::parse(document)).collect()),
        }
    }

    pub(super) fn checksum(&self) -> u64 {
        match self {
            Self::Blocks(blocks) => {
                blocks.iter().map(|block| block.capacity() as u64 + u64::from(block[0])).sum()
            }
            Self::Documents(documents) => documents.iter().map(json::checksum).sum(),
            Self::Maps(maps) => maps.iter().map(maps_of_strings::checksum).sum(),
        }
    }
}

/// Blocks of half the mean size to half more than that, of which only the first byte is written.
fn blocks(mean_bytes: usize, n_blocks: usize) -> Vec<Vec<u8>> {
    let mut sizes = Sequence::new();
    let mut blocks = Vec::with_capacity(n_blocks);
    for i in 0..n_blocks {
        let mut block = Vec::with_capacity(mean_bytes / 2 + sizes.below(mean_bytes + 1));
        block.push(i as u8);
        blocks.push(block);
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_have_the_size_that_the_shape_says_on_average() {
        for mean_bytes in Shape::ALL.into_iter().filter_map(Shape::mean_bytes) {
            let blocks = blocks(mean_bytes, 10_000);
            let total: usize = blocks.iter().map(Vec::capacity).sum();
            let mean = total as f64 / blocks.len() as f64;
            assert!((mean / mean_bytes as f64 - 1.0).abs() < 0.02, "{mean_bytes}: {mean}");
        }
    }

    #[test]
    fn as_many_documents_and_maps_are_kept_as_asked_for() {
        let n_kept = |shape| match Keep::build(shape, 3, b"[1, 2]") {
            Keep::Blocks(blocks) => blocks.len(),
            Keep::Documents(documents) => documents.len(),
            Keep::Maps(maps) => maps.len(),
        };
        assert_eq!(Shape::ALL.map(n_kept), [3; 6]);
        let twice = Keep::build(Shape::Json, 2, b"[1, 2]").checksum();
        assert_eq!(twice, 2 * Keep::build(Shape::Json, 1, b"[1, 2]").checksum());
    }
}
