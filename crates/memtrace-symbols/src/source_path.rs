//! How a source file is spelled: relative to the workspace for its own crates, else absolute.
//!
//! rustc is given the sources of the workspace being built by relative paths, from the workspace
//! root, and all others (registry, git and path dependencies outside, the standard library) by
//! absolute ones. The name of the compilation unit keeps that: `src/main.rs/@/main.5a86-cgu.0` with
//! the workspace root as compilation directory, against `/…/registry/src/…/lib.rs/@/…`. DWARF
//! readers join directory and file, so that the difference must be recovered here.
//!
//! A unit also holds code of other crates: generic functions that were instantiated in it and
//! functions that were inlined into it. Those come from files outside the compilation directory,
//! or, if cargo's home lies inside it, from a registry or git checkout, which is told by its path.

/// What is known of a compilation unit for spelling its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct UnitOrigin {
    /// The directory the compiler ran in.
    pub(crate) directory: Option<String>,
    /// Whether the unit was compiled by rustc from a relative path.
    pub(crate) is_workspace_crate: bool,
}

/// A source file as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourcePath {
    pub(crate) file: String,
    /// The compilation directory, for a file of the workspace. A path that is relative for other
    /// reasons was joined to a relative directory already, so that nobody knows where it lies.
    pub(crate) directory: Option<String>,
}

impl UnitOrigin {
    /// Spells a path that was found in this unit and joined to its compilation directory.
    pub(crate) fn spell(&self, path: &str) -> SourcePath {
        let file = normalized(path);
        let directory = self.directory.as_deref().map(normalized).filter(|dir| !dir.is_empty());
        let Some(directory) = directory else {
            return SourcePath { file, directory: None };
        };
        if self.is_workspace_crate
            && !is_foreign_checkout(&file)
            && let Some(relative) = below(&directory, &file)
        {
            return SourcePath { file: relative.to_owned(), directory: Some(directory) };
        }
        SourcePath { file, directory: None }
    }
}

/// Whether the path is inside cargo's copies of registry or git packages.
fn is_foreign_checkout(path: &str) -> bool {
    path.contains("/registry/src/") || path.contains("/git/checkouts/")
}

/// The rest of `path` below `directory`, unless its `..` pieces lead out again.
fn below<'a>(directory: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(directory)?;
    let rest = if directory.ends_with('/') { rest } else { rest.strip_prefix('/')? };
    let mut n_levels = 0_i64;
    for piece in rest.split('/') {
        n_levels += if piece == ".." { -1 } else { 1 };
        if n_levels < 0 {
            return None;
        }
    }
    (!rest.is_empty()).then_some(rest)
}

/// The path without `.` pieces and repeated slashes. `..` stays: without the file system at hand a
/// symbolic link before it would be lost.
fn normalized(path: &str) -> String {
    let mut clean = String::with_capacity(path.len());
    if path.starts_with('/') {
        clean.push('/');
    }
    for piece in path.split('/').filter(|piece| !piece.is_empty() && *piece != ".") {
        if !clean.is_empty() && !clean.ends_with('/') {
            clean.push('/');
        }
        clean.push_str(piece);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(origin: &UnitOrigin, path: &str) -> (String, Option<String>) {
        let SourcePath { file, directory } = origin.spell(path);
        (file, directory)
    }

    fn workspace_crate() -> UnitOrigin {
        UnitOrigin { directory: Some("/home/me/ws".into()), is_workspace_crate: true }
    }

    #[test]
    fn a_file_of_the_workspace_is_relative_to_it() {
        let expected = ("crates/a/src/lib.rs".to_owned(), Some("/home/me/ws".to_owned()));
        assert_eq!(spelled(&workspace_crate(), "/home/me/ws/crates/a/src/lib.rs"), expected);
        assert_eq!(spelled(&workspace_crate(), "/home/me/ws/./crates//a/src/./lib.rs"), expected);
    }

    #[test]
    fn a_directory_whose_name_only_begins_alike_is_outside() {
        let outside = ("/home/me/ws2/src/lib.rs".to_owned(), None);
        assert_eq!(spelled(&workspace_crate(), "/home/me/ws2/src/lib.rs"), outside);
    }

    #[test]
    fn parent_pieces_may_stay_inside_but_not_lead_out() {
        let inside = ("src/../gen/a.rs".to_owned(), Some("/home/me/ws".to_owned()));
        assert_eq!(spelled(&workspace_crate(), "/home/me/ws/src/../gen/a.rs"), inside);
        let outside = ("/home/me/ws/../other/a.rs".to_owned(), None);
        assert_eq!(spelled(&workspace_crate(), "/home/me/ws/../other/a.rs"), outside);
    }

    #[test]
    fn the_library_and_registry_crates_stay_absolute_in_a_workspace_unit() {
        for path in [
            "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/alloc/src/vec/mod.rs",
            "/home/me/ws/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/a-1.0.0/src/lib.rs",
            "/home/me/ws/.cargo/git/checkouts/a-0123456789abcdef/0123456/src/lib.rs",
        ] {
            assert_eq!(spelled(&workspace_crate(), path), (path.to_owned(), None));
        }
    }

    #[test]
    fn every_file_of_other_units_stays_absolute() {
        let origin = UnitOrigin { is_workspace_crate: false, ..workspace_crate() };
        let expected = ("/home/me/ws/src/lib.rs".to_owned(), None);
        assert_eq!(spelled(&origin, "/home/me/ws/src/lib.rs"), expected);
    }

    #[test]
    fn a_path_in_a_relative_directory_is_not_joined_to_it_twice() {
        let origin = UnitOrigin { directory: Some("../csu".into()), is_workspace_crate: false };
        assert_eq!(
            spelled(&origin, "../csu/../stdlib/a.c"),
            ("../csu/../stdlib/a.c".to_owned(), None)
        );
        let unknown = UnitOrigin::default();
        assert_eq!(spelled(&unknown, "./src/a.c"), ("src/a.c".to_owned(), None));
    }

    #[test]
    fn the_root_directory_as_workspace_works() {
        let origin = UnitOrigin { directory: Some("/".into()), is_workspace_crate: true };
        assert_eq!(
            spelled(&origin, "/src/main.rs"),
            ("src/main.rs".to_owned(), Some("/".to_owned()))
        );
    }
}
