//! Rendered thumbnails, in a cache that is right: it has a bound.
//!
//! It fills with the first hundred or so products that are looked at, and from then on each new
//! entry pushes out the oldest one. A comparison of two snapshots taken after that shows no growth
//! here, however many thumbnails were rendered in between.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Width and height of a thumbnail, in pixels.
const SIDE: u32 = 64;

/// How many thumbnails are kept, each of about 12 KiB.
pub(crate) const N_KEPT: u32 = 128;

/// Thumbnails by product id: at most [`N_KEPT`], first in, first out.
#[derive(Debug, Default)]
pub(crate) struct Thumbnails {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    images: HashMap<u32, Arc<[u8]>>,
    oldest_first: VecDeque<u32>,
}

impl Thumbnails {
    /// The thumbnail of a product as a binary PPM image, rendered if it is not kept already.
    pub(crate) fn get(&self, product_id: u32) -> Arc<[u8]> {
        // A panic while the lock was held can at worst have lost an entry: go on with the rest.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = kept.images.get(&product_id) {
            return Arc::clone(image);
        }
        if kept.oldest_first.len() >= N_KEPT as usize
            && let Some(oldest) = kept.oldest_first.pop_front()
        {
            kept.images.remove(&oldest);
        }
        let image: Arc<[u8]> = render(product_id).into();
        kept.oldest_first.push_back(product_id);
        kept.images.insert(product_id, Arc::clone(&image));
        image
    }
}

/// Draws rings whose colour and spacing depend on the product.
fn render(product_id: u32) -> Vec<u8> {
    let mut image = format!("P6\n{SIDE} {SIDE}\n255\n").into_bytes();
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (from_x, from_y) = (x.abs_diff(SIDE / 2), y.abs_diff(SIDE / 2));
            let ring = (from_x * from_x + from_y * from_y) / (8 + product_id % 24);
            let [red, green, blue, _] = (ring * 0x1F + product_id * 0x9E37).to_le_bytes();
            image.extend_from_slice(&[red, green, blue]);
        }
    }
    image
}
