//! What is kept live to see how much memory a tracer takes for it.

use std::fmt;
use std::str::FromStr;

/// Blocks that live at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// Blocks of 16 to 48 bytes, 32 on average.
    Blocks32,
    /// Blocks of 32 to 96 bytes, 64 on average.
    Blocks64,
    /// Blocks of 128 to 384 bytes, 256 on average.
    Blocks256,
    /// Blocks of 2048 to 6144 bytes, 4096 on average.
    Blocks4096,
    /// The values of a JSON document, many times over.
    Json,
    /// Maps of strings to vectors of strings.
    Maps,
}

impl Shape {
    /// All shapes, in the order of the table.
    pub const ALL: [Self; 6] =
        [Self::Blocks32, Self::Blocks64, Self::Blocks256, Self::Blocks4096, Self::Json, Self::Maps];

    /// Returns the name on the command line and in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blocks32 => "blocks-32",
            Self::Blocks64 => "blocks-64",
            Self::Blocks256 => "blocks-256",
            Self::Blocks4096 => "blocks-4096",
            Self::Json => "json",
            Self::Maps => "maps",
        }
    }

    /// Returns the mean number of bytes of a block; `None` where a unit is not a block.
    pub const fn mean_bytes(self) -> Option<usize> {
        match self {
            Self::Blocks32 => Some(32),
            Self::Blocks64 => Some(64),
            Self::Blocks256 => Some(256),
            Self::Blocks4096 => Some(4096),
            Self::Json | Self::Maps => None,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// There is no shape of this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no shape is named {name:?}; there are {}", Shape::ALL.map(Shape::name).join(", "))]
pub struct UnknownShape {
    /// The name that was asked for.
    pub name: String,
}

impl FromStr for Shape {
    type Err = UnknownShape;

    fn from_str(name: &str) -> Result<Self, UnknownShape> {
        let mut all = Self::ALL.into_iter();
        all.find(|shape| shape.name() == name).ok_or_else(|| UnknownShape { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_found_by_its_name_and_an_unknown_name_is_answered_with_those_there_are() {
        for shape in Shape::ALL {
            assert_eq!(shape.name().parse(), Ok(shape));
        }
        let error = "blocks".parse::<Shape>().unwrap_err().to_string();
        assert!(error.contains("\"blocks\"") && error.contains("blocks-4096, json"), "{error}");
    }
}
