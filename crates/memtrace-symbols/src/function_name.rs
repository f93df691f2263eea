//! Names of functions as people write them.

use std::fmt::Write;

/// A demangled name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FunctionName {
    pub(crate) text: String,
    /// Whether the raw name was one that rustc mangled, and so says crate and module.
    pub(crate) is_qualified: bool,
}

impl FunctionName {
    /// Demangles a name of either of rustc's schemes, leaving out the hash; other names stay as
    /// they are, but for the version that a linker appends to them (`memcpy@@GLIBC_2.14`).
    pub(crate) fn new(raw: &str) -> Self {
        if let Ok(demangled) = rustc_demangle::try_demangle(raw) {
            let mut text = String::new();
            if write!(text, "{demangled:#}").is_ok() {
                return FunctionName { text, is_qualified: true };
            }
        }
        let text = raw.split('@').next().filter(|name| !name.is_empty()).unwrap_or(raw).to_owned();
        FunctionName { text, is_qualified: false }
    }

    /// Whether the last part of this path is `bare`, the name that DWARF gives a function without
    /// its path, with generic arguments or not.
    pub(crate) fn ends_in(&self, bare: &str) -> bool {
        let bare = without_generics(bare);
        let last = without_generics(&self.text).rsplit("::").next().unwrap_or_default();
        // Legacy mangling writes `{{closure}}` for what DWARF calls `{closure#0}`.
        last == bare || (last == "{{closure}}" && bare.starts_with("{closure"))
    }

    /// Whether this is the public one of two names for a C function: `qsort` against `__GI_qsort`,
    /// `malloc` against `__libc_malloc`. Names with a dot are the compiler's, for parts of one.
    pub(crate) fn is_plainer_than(&self, other: &FunctionName) -> bool {
        !self.text.contains('.') && n_underscores(&self.text) < n_underscores(&other.text)
    }
}

fn n_underscores(name: &str) -> usize {
    name.len() - name.trim_start_matches('_').len()
}

/// Cuts generic arguments off the end: `insert<u32>` and `insert::<u32>` become `insert`.
fn without_generics(name: &str) -> &str {
    if !name.ends_with('>') {
        return name;
    }
    let mut depth = 0_usize;
    for (at, byte) in name.bytes().enumerate().rev() {
        match byte {
            // The arrow of `fn() -> T` closes nothing.
            b'>' if at > 0 && name.as_bytes()[at - 1] == b'-' => {}
            b'>' => depth += 1,
            b'<' => {
                depth -= 1;
                if depth == 0 {
                    return name[..at].trim_end_matches("::");
                }
            }
            _ => {}
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemes_are_demangled_without_their_hashes() {
        let legacy = FunctionName::new("_ZN8my_crate5cache6insert17h0123456789abcdefE");
        assert_eq!(legacy.text, "my_crate::cache::insert");
        assert!(legacy.is_qualified);
        let v0 = FunctionName::new("_RNvNtCs1234_8my_crate5cache6insert");
        assert_eq!(v0.text, "my_crate::cache::insert");
        assert!(v0.is_qualified);
    }

    #[test]
    fn names_that_rustc_did_not_mangle_stay_without_the_version() {
        for (raw, text) in [
            ("qsort", "qsort"),
            ("memcpy@@GLIBC_2.14", "memcpy"),
            ("_ZN3foo3barEv", "_ZN3foo3barEv"),
            ("@", "@"),
        ] {
            let expected = FunctionName { text: text.to_owned(), is_qualified: false };
            assert_eq!(FunctionName::new(raw), expected);
        }
    }

    #[test]
    fn the_public_name_of_a_c_function_is_the_plainer() {
        let [qsort, internal, cold] = ["qsort", "__GI_qsort", "qsort.cold"].map(FunctionName::new);
        assert!(qsort.is_plainer_than(&internal));
        assert!(!internal.is_plainer_than(&qsort));
        assert!(!qsort.is_plainer_than(&qsort));
        assert!(!cold.is_plainer_than(&internal));
    }

    #[test]
    fn the_last_part_is_compared_without_generic_arguments() {
        let named = |text: &str| FunctionName { text: text.to_owned(), is_qualified: true };
        assert!(named("hashbrown::map::HashMap<K,V,S>::insert").ends_in("insert<u32, u8>"));
        assert!(named("a::call::<fn() -> Vec<u8>, u8>").ends_in("call<fn() -> Vec<u8>, u8>"));
        assert!(named("a::main::{{closure}}").ends_in("{closure#1}"));
        assert!(named("a::main::{closure#1}").ends_in("{closure#1}"));
        assert!(named("<a::A as b::B>::c").ends_in("c"));
        assert!(!named("a::reinsert").ends_in("insert"));
        assert!(!named("a::b").ends_in(">>"));
    }
}
