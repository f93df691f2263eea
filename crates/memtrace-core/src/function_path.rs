//! The crate that a demangled function path belongs to.
//!
//! Both mangling schemes are read: `alloc::raw_vec::RawVec<T,A>::grow_one` and
//! `<alloc::vec::Vec<u8> as core::clone::Clone>::clone` of the older one,
//! `<alloc::vec::Vec<u8>>::push` and `alloc[2ab7…]::…` of the newer one.
//!
//! A method belongs to the crate of its self type, for that is where most of its code was
//! written or chosen. A self type without a crate (a primitive, a reference, a slice, a tuple, a
//! function, a generic parameter) leaves it to the trait, and without a trait to `core`.

/// How deep qualified types may be nested, as in `<<A as B>::C as D>::f`, before they are given
/// up. Names come from files that nobody vouches for, and each level is another scan.
const MAX_NESTING: usize = 16;

/// The crate of a function path, or `None` when the path is no Rust path, such as `main` or
/// `__rust_alloc`.
pub(crate) fn head_crate(path: &str) -> Option<&str> {
    let mut path = path;
    for _ in 0..MAX_NESTING {
        let Some(inside) = path.strip_prefix('<') else { return plain_head(path) };
        let (self_type, trait_path) = split_qualified(inside)?;
        let self_type = self_type.strip_prefix("dyn ").unwrap_or(self_type);
        if self_type.starts_with('<') {
            path = self_type;
            continue;
        }
        let by_trait = || trait_path.map_or(Some("core"), plain_head);
        return plain_head(self_type).or_else(by_trait);
    }
    None
}

/// The first name of a path that has at least two, without the hash in brackets that may follow
/// it.
fn plain_head(path: &str) -> Option<&str> {
    let is_name = |c: char| c == '_' || c.is_alphanumeric();
    let end = path.find(|c| !is_name(c)).filter(|&end| end > 0)?;
    let (name, mut rest) = path.split_at(end);
    if let Some((hash, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']'))
        && hash.bytes().all(|b| b.is_ascii_hexdigit())
    {
        rest = after;
    }
    rest.starts_with("::").then_some(name)
}

/// Splits what follows the first `<` of `<Type as Trait>::…` or `<Type>::…` into type and trait.
/// `None` if it never closes.
fn split_qualified(inside: &str) -> Option<(&str, Option<&str>)> {
    let bytes = inside.as_bytes();
    let mut depth = 0_usize;
    let mut as_at = None;
    for (i, &byte) in bytes.iter().enumerate() {
        match byte {
            b'<' | b'(' | b'[' => depth += 1,
            // The head of the arrow in `fn(A) -> B`.
            b'>' if i > 0 && bytes[i - 1] == b'-' => {}
            b'>' if depth == 0 => {
                return Some(match as_at {
                    Some(at) => (&inside[..at], Some(&inside[at + " as ".len()..i])),
                    None => (&inside[..i], None),
                });
            }
            b'>' | b')' | b']' => depth = depth.saturating_sub(1),
            b' ' if depth == 0 && as_at.is_none() && bytes[i..].starts_with(b" as ") => {
                as_at = Some(i);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::head_crate;

    #[test]
    fn plain_paths_belong_to_their_first_name() {
        assert_eq!(head_crate("alloc::raw_vec::RawVec<T,A>::grow_one"), Some("alloc"));
        assert_eq!(head_crate("alloc[2ab7c1]::vec::from_elem"), Some("alloc"));
        assert_eq!(head_crate("alloc::slice::<impl [T]>::to_vec"), Some("alloc"));
        assert_eq!(head_crate("my_crate::main::{{closure}}"), Some("my_crate"));
        assert_eq!(head_crate("__rustc::__rust_alloc"), Some("__rustc"));
        assert_eq!(head_crate("été::f"), Some("été"));
    }

    #[test]
    fn what_is_no_rust_path_has_no_crate() {
        for path in ["", "main", "__rust_alloc", "libfoo.so+0x12", "<", "<a::B", "::a", "a:b"] {
            assert_eq!(head_crate(path), None, "{path}");
        }
    }

    #[test]
    fn methods_belong_to_the_crate_of_their_self_type() {
        for (path, head) in [
            ("<alloc::vec::Vec<u8> as core::clone::Clone>::clone", "alloc"),
            ("<alloc::vec::Vec<u8>>::push", "alloc"),
            ("<mycrate::Foo as alloc::borrow::ToOwned>::to_owned", "mycrate"),
            ("<mycrate::Foo<fn(u8) -> u8> as alloc::borrow::ToOwned>::to_owned", "mycrate"),
            ("<mycrate::Map<<u8 as core::ops::Add>::Output> as core::ops::Drop>::drop", "mycrate"),
            ("<<mycrate::A as mycrate::B>::C as core::fmt::Debug>::fmt", "mycrate"),
            ("<dyn mycrate::Shape as core::any::Any>::type_id", "mycrate"),
            ("<mycrate::f::{closure#0} as core::ops::FnOnce<()>>::call_once", "mycrate"),
        ] {
            assert_eq!(head_crate(path), Some(head), "{path}");
        }
    }

    #[test]
    fn a_self_type_without_a_crate_leaves_it_to_the_trait() {
        for (path, head) in [
            ("<T as core::convert::Into<U>>::into", "core"),
            ("<T as mycrate::Draw>::draw", "mycrate"),
            ("<&mycrate::Foo as core::fmt::Debug>::fmt", "core"),
            ("<[T] as alloc::slice::Concat<V>>::concat", "alloc"),
            ("<[mycrate::Foo; 3] as core::clone::Clone>::clone", "core"),
            ("<(mycrate::A, mycrate::B) as core::clone::Clone>::clone", "core"),
            ("<str as alloc::string::ToString>::to_string", "alloc"),
            ("<*const mycrate::Foo as core::fmt::Debug>::fmt", "core"),
            ("<fn() -> mycrate::Foo as core::ops::FnOnce<()>>::call_once", "core"),
            ("<dyn for<'a> core::ops::Fn(&'a u8) as core::ops::FnOnce<()>>::call_once", "core"),
        ] {
            assert_eq!(head_crate(path), Some(head), "{path}");
        }
    }

    #[test]
    fn inherent_methods_of_primitives_belong_to_core() {
        for path in ["<[u8]>::to_vec", "<str>::to_owned", "<u64>::pow", "<*const T>::add"] {
            assert_eq!(head_crate(path), Some("core"), "{path}");
        }
    }

    #[test]
    fn types_are_read_to_a_limited_depth() {
        let nested = |depth| format!("{}u8{}", "<".repeat(depth), " as a::B>::c".repeat(depth));
        assert_eq!(head_crate(&nested(10)), Some("a"));
        assert_eq!(head_crate(&nested(100_000)), None);
    }
}
