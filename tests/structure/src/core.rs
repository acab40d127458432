//! Checks the rules of the core: a component names only facts and the outbox, and only the router
//! changes facts.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};

use crate::modules::Tree;

/// The components, as in the documentation of the core's root.
const COMPONENTS: [&str; 14] = [
    "admission",
    "answers",
    "completion",
    "coordination",
    "expiry",
    "forwarding",
    "handoff",
    "link",
    "mapper",
    "replicate",
    "saving",
    "slot_tasks",
    "streams",
    "transfer",
];

/// Lists the violations of the rules.
pub(crate) fn wrong(tree: &Tree, imports: &[BTreeSet<usize>]) -> Vec<String> {
    let part = |file: usize| {
        let name = tree.name(file);
        name.split(['/', '.']).next().unwrap_or_default().to_owned()
    };
    let parts: Vec<_> = (0..tree.files.len()).map(part).collect();
    let mut wrong = Vec::new();
    for name in COMPONENTS.iter().filter(|name| !parts.iter().any(|part| part == *name)) {
        wrong.push(format!("cortado-core: there is no component {name}"));
    }
    let mut named: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (file, of) in imports.iter().enumerate() {
        let from = parts[file].as_str();
        if !COMPONENTS.contains(&from) {
            continue;
        }
        let others = of.iter().map(|other| parts[*other].as_str());
        let others = others.filter(|other| *other != from);
        let wrong = others.filter(|other| COMPONENTS.contains(other) || *other == "router");
        named.entry(from).or_default().extend(wrong.map(str::to_owned));
    }
    for (from, others) in named.into_iter().filter(|(_, others)| !others.is_empty()) {
        let others: Vec<_> = others.into_iter().collect();
        wrong.push(format!("cortado-core: the component {from} names {}", others.join(", ")));
    }
    for (file, part) in parts.iter().enumerate().filter(|(_, part)| *part != "router") {
        let mut found = Found::default();
        tree.files[file].items.iter().for_each(|item| found.visit_item(item));
        if found.changes_facts {
            wrong.push(format!(
                "cortado-core: {} takes &mut Facts, as only the router may",
                tree.name(file)
            ));
        }
        if found.names_core && part != "lib" {
            wrong.push(format!(
                "cortado-core: {} names Core, as only the router may",
                tree.name(file)
            ));
        }
    }
    wrong
}

#[derive(Default)]
struct Found {
    changes_facts: bool,
    names_core: bool,
}

impl<'ast> Visit<'ast> for Found {
    fn visit_type_reference(&mut self, reference: &'ast syn::TypeReference) {
        if let syn::Type::Path(path) = &*reference.elem {
            let is_facts = path.path.segments.last().is_some_and(|last| last.ident == "Facts");
            self.changes_facts |= is_facts && reference.mutability.is_some();
        }
        visit::visit_type_reference(self, reference);
    }

    fn visit_ident(&mut self, ident: &'ast proc_macro2::Ident) {
        self.names_core |= ident == "Core";
    }
}
