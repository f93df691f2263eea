//! A Rust source parsed into a syntax tree by `syn`, cloned and visited: boxes, vectors and strings
//! from a recursive parser, from so many different stacks that hardly any comes again before the next batch.

use syn::visit::{self, Visit};
use syn::{Ident, Lit};

/// **Panics**: if the source is not Rust, since there is nothing to measure then.
pub(super) fn run_batch(source: &str) -> u64 {
    let file = syn::parse_file(source);
    let file = file.unwrap_or_else(|error| panic!("the source is not Rust: {error}"));
    let clone = file.clone();
    let mut tally = Tally(file.items.len() as u64);
    drop(file);
    tally.visit_file(&clone);
    tally.0
}

/// Counts literals and bytes of names.
struct Tally(u64);

impl<'ast> Visit<'ast> for Tally {
    fn visit_ident(&mut self, ident: &'ast Ident) {
        self.0 += ident.to_string().len() as u64;
    }

    fn visit_lit(&mut self, literal: &'ast Lit) {
        self.0 += 1;
        visit::visit_lit(self, literal);
    }
}
