//! Sizes as text, and the averages that go into them.
//!
//! The unit grows until the figure has at most five digits before the point. Rounding is half to
//! even on the double, as C's `printf` and Rust's formatting both do.

use std::fmt::Write;

const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

/// Writes a size in bytes for people: `1023 B`, `10.0 KiB`, `100 KiB`, `1024 TiB`.
///
/// Below 10,240 of a unit that unit is used, with one decimal below 100 (except for plain
/// bytes). Nothing is above TiB.
///
/// ```
/// assert_eq!(memtrace_core::format_size(102_399), "100.0 KiB");
/// assert_eq!(memtrace_core::format_size(102_400), "100 KiB");
/// ```
pub fn format_size(size: u64) -> String {
    scaled(size as f64, false)
}

/// Writes a difference of sizes in bytes like [`format_size`], always with a sign: `+0 B`,
/// `-29.3 KiB`.
pub fn format_size_diff(size_diff: i64) -> String {
    scaled(size_diff as f64, true)
}

/// Writes a rate, in bytes for each of something, like [`format_size_diff`].
pub(crate) fn format_size_rate(rate: f64) -> String {
    scaled(rate, true)
}

/// Writes the mean size in bytes of `count` blocks. `count` is not zero.
pub(crate) fn format_average(size: u64, count: u64) -> String {
    scaled(quotient(size, count), false)
}

fn scaled(mut size: f64, is_signed: bool) -> String {
    let mut text = String::new();
    for (i, unit) in UNITS.into_iter().enumerate() {
        let is_last = i + 1 == UNITS.len();
        let n_decimals = if i > 0 && size.abs() < 100.0 {
            1
        } else if is_last || size.abs() < 10.0 * 1024.0 {
            0
        } else {
            size /= 1024.0;
            continue;
        };
        let written = if is_signed {
            write!(text, "{size:+.n_decimals$} {unit}")
        } else {
            write!(text, "{size:.n_decimals$} {unit}")
        };
        written.expect("writing to a String cannot fail");
        break;
    }
    text
}

/// The double nearest to `size / count`, rounded once. Dividing two doubles would round large
/// sizes twice.
fn quotient(size: u64, count: u64) -> f64 {
    const EXACT: u64 = 1 << f64::MANTISSA_DIGITS;
    if size == 0 || (size <= EXACT && count <= EXACT) {
        return size as f64 / count as f64;
    }
    // The quotient with at least 63 significant bits. Its last bit is set when anything was cut
    // off, which is all that rounding needs to know.
    let shift = u128::from(size).leading_zeros();
    let (numerator, denominator) = (u128::from(size) << shift, u128::from(count));
    let sticky = u128::from(!numerator.is_multiple_of(denominator));
    let scaled = ((numerator / denominator) | sticky) as f64;
    scaled / 2f64.powi(shift as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_round_to_the_even_neighbour() {
        let average = |size| format_average(size, 2);
        assert_eq!([1, 3, 5, 7, 199].map(average), ["0 B", "2 B", "2 B", "4 B", "100 B"]);
    }

    #[test]
    fn the_unit_changes_where_tracemalloc_changes_it() {
        assert_eq!(format_size(0), "0 B");
        assert_eq!(format_size(10_239), "10239 B");
        assert_eq!(format_size(10_240), "10.0 KiB");
        assert_eq!(format_size(1 << 20), "1024 KiB");
        assert_eq!(format_size(u64::MAX), "16777216 TiB");
        assert_eq!(format_size_diff(0), "+0 B");
        assert_eq!(format_size_diff(-29_953), "-29.3 KiB");
        assert_eq!(format_size_diff(i64::MIN), "-8388608 TiB");
    }

    #[test]
    fn a_quotient_of_large_numbers_is_rounded_once() {
        // 2^53 + 1 is no double. It divides by 3 evenly; the nearest double does not.
        assert_eq!(quotient((1 << 53) + 1, 3), 3_002_399_751_580_331.0);
        assert_eq!(quotient(u64::MAX, 1), u64::MAX as f64);
        assert_eq!(quotient(1, u64::MAX), 1.0 / u64::MAX as f64);
        assert_eq!(quotient(u64::MAX, u64::MAX), 1.0);
        assert_eq!(quotient(0, u64::MAX), 0.0);
    }
}
