//! Resolves paths to files, and so finds the files that a file imports.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

use crate::modules::{Tree, imported};

/// The imports of each file.
pub(crate) fn imports(tree: &Tree) -> Vec<BTreeSet<usize>> {
    let of = |file: usize| {
        let mut found = Found::default();
        tree.files[file].items.iter().for_each(|item| found.visit_item(item));
        let mut imported: BTreeSet<_> =
            found.paths.iter().filter_map(|path| target(tree, file, path, 0)).collect();
        imported.remove(&file);
        imported
    };
    (0..tree.files.len()).map(of).collect()
}

/// The file that defines a path used in this file, if it is in the same crate.
fn target(tree: &Tree, from: usize, path: &[String], depth: usize) -> Option<usize> {
    // Aliases of each other would never end.
    if depth > 16 {
        return None;
    }
    let (first, mut rest) = path.split_first()?;
    let mut at = match first.as_str() {
        "crate" => 0,
        "self" => from,
        "super" => tree.files[from].parent?,
        name => {
            let known = tree.files[from].children.contains_key(name)
                || tree.files[from].aliases.contains_key(name) && depth > 0;
            rest = path;
            if known { from } else { return None }
        }
    };
    while let Some((name, after)) = rest.split_first() {
        if name == "super" {
            at = tree.files[at].parent?;
        } else if let Some(child) = tree.files[at].children.get(name) {
            at = *child;
        } else if let Some(alias) = tree.files[at].aliases.get(name) {
            let mut path = alias.clone();
            path.extend_from_slice(after);
            // A name that is re-exported from another crate belongs to that crate.
            return target(tree, at, &path, depth + 1);
        } else {
            break;
        }
        rest = after;
    }
    Some(at)
}

/// Collects the paths of a file that may lead to another file.
#[derive(Default)]
struct Found {
    paths: Vec<Vec<String>>,
}

impl Found {
    /// Collects the paths in the arguments of a macro.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) if path.is_empty() || colons == 2 => {
                    path.push(ident.to_string());
                    colons = 0;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => self.tokens(group.stream()),
                _ => {}
            }
            self.end(&mut path);
            colons = 0;
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.paths.push(path);
        }
    }
}

impl<'ast> Visit<'ast> for Found {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.paths.extend(imported(&item.tree).into_iter().map(|import| import.path));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string());
            self.paths.push(segments.collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }

    /// A visibility is not an import.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}
