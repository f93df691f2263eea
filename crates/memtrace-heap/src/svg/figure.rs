//! Figures as a reader wants them: counts, sizes and shares.

use core::fmt::{self, Formatter};

use crate::stats::Thousands;

/// A number of things, with the thing in the right form.
pub(super) struct Count(pub(super) usize, pub(super) &'static str);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} {}{plural}", Thousands(self.0 as u64), self.1)
    }
}

/// A number of bytes in the largest unit that leaves one or more, to three digits, rounded down.
pub(super) struct Bytes(pub(super) usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (unit, shift) = match self.0 {
            0..1024 => return write!(f, "{} B", self.0),
            1024..0x10_0000 => ("KiB", 10),
            0x10_0000..0x4000_0000 => ("MiB", 20),
            _ => ("GiB", 30),
        };
        let hundredths = (self.0 as u128).saturating_mul(100).wrapping_shr(shift);
        let whole = Thousands((hundredths / 100) as u64);
        match (whole.0, hundredths % 100) {
            (100.., _) | (_, 0) => write!(f, "{whole} {unit}"),
            (10.., rest) if rest < 10 => write!(f, "{whole} {unit}"),
            (10.., rest) => write!(f, "{whole}.{} {unit}", rest / 10),
            (_, rest) if rest % 10 == 0 => write!(f, "{whole}.{} {unit}", rest / 10),
            (_, rest) => write!(f, "{whole}.{rest:02} {unit}"),
        }
    }
}

/// The first as a share of the second.
pub(super) struct Share(pub(super) usize, pub(super) usize);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let of_all = (self.0 as u128).saturating_mul(100).checked_div(self.1 as u128).unwrap_or(0);
        match of_all {
            0 if self.0 != 0 => f.write_str("&lt; 1 %"),
            percent => write!(f, "{percent} %"),
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn bytes_are_told_in_the_unit_that_suits_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1280, "1.25 KiB"),
            (1536, "1.5 KiB"),
            (4 << 20, "4 MiB"),
            ((11 << 20) + (50 << 10), "11 MiB"),
            ((11 << 20) + (800 << 10), "11.7 MiB"),
            (290 << 20, "290 MiB"),
            (usize::MAX, "17,179,869,183 GiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_share_that_is_not_zero_is_not_told_as_zero() {
        assert_eq!(Share(0, 10).to_string(), "0 %");
        assert_eq!(Share(1, 1000).to_string(), "&lt; 1 %");
        assert_eq!(Share(1000, 1000).to_string(), "100 %");
        assert_eq!(Share(0, 0).to_string(), "0 %");
    }

    #[test]
    fn one_thing_is_singular() {
        assert_eq!(Count(1, "arena").to_string(), "1 arena");
        assert_eq!(Count(1200, "arena").to_string(), "1,200 arenas");
    }
}
