//! Rectangles, texts and colours.

use core::fmt::{self, Formatter};

use crate::class::N_CLASSES;

/// A small square in a colour of the legend, with its text's base line at `y`.
pub(super) fn swatch(
    f: &mut Formatter<'_>,
    (x, y): (f32, f32),
    class: fmt::Arguments<'_>,
) -> fmt::Result {
    let square = Rect { x: x + 0.5, y: y - 9.5, width: 11.0, height: 11.0 };
    writeln!(f, "<g class=\"{class}\">{square}</g>")
}

/// A text at the base line `y`, with an attribute `class` of these words.
pub(super) fn text(
    f: &mut Formatter<'_>,
    (x, y): (f32, f32),
    class: &str,
    text: fmt::Arguments<'_>,
) -> fmt::Result {
    writeln!(f, "<text x=\"{}\" y=\"{}\" class=\"{class}\">{text}</text>", Px(x), Px(y))
}

/// A number of pixels, to a tenth.
pub(super) struct Px(pub(super) f32);

impl fmt::Display for Px {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tenths = (self.0 * 10.0) as i32;
        write!(f, "{}", tenths as f32 / 10.0)
    }
}

/// A rectangle, in pixels.
#[derive(Clone, Copy)]
pub(super) struct Rect {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) width: f32,
    pub(super) height: f32,
}

impl Rect {
    fn write(self, f: &mut Formatter<'_>, attribute: &str) -> fmt::Result {
        let Rect { x, y, width, height } = self;
        let [x, y, width, height] = [x, y, width, height].map(Px);
        write!(f, "<rect{attribute} x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>")
    }
}

impl fmt::Display for Rect {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.write(f, "")
    }
}

/// The part of a cell that is not filled.
pub(super) struct Faint(pub(super) Rect);

impl fmt::Display for Faint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.write(f, " class=\"b\"")
    }
}

/// The colour of a size class, from blue for small blocks to red for large ones; every second is
/// lighter, so that neighbours differ.
pub(super) fn colour(class: usize) -> [u8; 3] {
    const SCALE: [[f32; 3]; 9] = [
        [52.0, 84.0, 148.0],
        [44.0, 127.0, 184.0],
        [38.0, 160.0, 158.0],
        [74.0, 172.0, 105.0],
        [150.0, 182.0, 62.0],
        [222.0, 176.0, 52.0],
        [231.0, 132.0, 50.0],
        [212.0, 80.0, 62.0],
        [160.0, 48.0, 104.0],
    ];
    /// Where the steps of 16 bytes end, and how far up the scale: those are what most blocks have.
    const N_SMALL: f32 = 32.0;
    const SMALL_END: f32 = 5.5;
    let (class_f, last) = (class as f32, SCALE.len().saturating_sub(1) as f32);
    let above = (class_f - N_SMALL) / (N_CLASSES as f32 - N_SMALL);
    let at = if class_f < N_SMALL {
        class_f / N_SMALL * SMALL_END
    } else {
        (SMALL_END + above * (last - SMALL_END)).min(last)
    };
    let (below, share) = (at as usize, at % 1.0);
    let low = SCALE.get(below).copied().unwrap_or_default();
    let high = SCALE.get(below.saturating_add(1)).copied().unwrap_or(low);
    let towards_white = if class % 2 == 1 { 0.26 } else { 0.0 };
    let mut channels = low.into_iter().zip(high).map(|(low, high)| {
        let mixed = low + (high - low) * share;
        (mixed + (255.0 - mixed) * towards_white) as u8
    });
    [(); 3].map(|()| channels.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_classes_have_different_colours() {
        for class in 1..N_CLASSES {
            assert_ne!(colour(class), colour(class - 1));
        }
    }
}
