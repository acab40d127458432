//! The module tree of a crate, as its files declare it, without the modules for tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use syn::{Attribute, Item, Meta, UseTree};

/// A module with its own file.
pub(crate) struct File {
    /// Path of the file.
    pub(crate) path: PathBuf,
    /// The module that contains it; `None` for the crate's root.
    pub(crate) parent: Option<usize>,
    /// The modules it declares.
    pub(crate) children: BTreeMap<String, usize>,
    /// Names that it imports or re-exports, and the paths that they stand for.
    pub(crate) aliases: BTreeMap<String, Vec<String>>,
    /// Its items.
    pub(crate) items: Vec<Item>,
}

/// All files of a crate; the first is its root.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
    root: PathBuf,
}

/// Name and root file of every crate of a workspace. A program beside a library counts as another
/// crate.
///
/// # Errors
/// If a manifest can't be read.
pub(crate) fn crates(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).context("no workspace")?;
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ["));
    let members = members.context("the workspace names no members in one line")?;
    let mut all = Vec::new();
    for member in members.split('"').skip(1).step_by(2) {
        let folder = root.join(member);
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))?;
        let name = manifest.lines().find_map(|line| line.strip_prefix("name = "));
        let name = name.with_context(|| format!("{member} has no name"))?.trim_matches('"');
        for source in ["src/lib.rs", "src/main.rs"] {
            let source = folder.join(source);
            if source.exists() {
                all.push((name.to_owned(), source));
            }
        }
    }
    if all.is_empty() {
        bail!("the workspace has no crates");
    }
    Ok(all)
}

impl Tree {
    /// Reads a crate, beginning with its root file.
    ///
    /// # Errors
    /// If a file is missing or is not valid Rust.
    pub(crate) fn read(source: &Path) -> Result<Self> {
        let folder = source.parent().context("a crate has a folder")?.to_owned();
        let mut tree = Self { files: Vec::new(), root: folder.clone() };
        tree.add(source, &folder, None)?;
        Ok(tree)
    }

    /// A file's name in its crate.
    pub(crate) fn name(&self, file: usize) -> String {
        let path = &self.files[file].path;
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    /// Adds a file and the modules that it declares, whose files are in `folder`.
    fn add(&mut self, path: &Path, folder: &Path, parent: Option<usize>) -> Result<usize> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let parsed = syn::parse_file(&text).with_context(|| path.display().to_string())?;
        let mut items = parsed.items;
        items.retain(|item| !only_for_tests(attributes(item)));
        let mut aliases = BTreeMap::new();
        for item in &items {
            if let Item::Use(used) = item {
                let named = imported(&used.tree).into_iter();
                aliases.extend(named.filter_map(|import| Some((import.name?, import.path))));
            }
        }
        let declared: Vec<_> = items.iter().filter_map(declaration).collect();
        let (path, children) = (path.to_owned(), BTreeMap::new());
        self.files.push(File { path, parent, children, aliases, items });
        let this = self.files.len() - 1;
        for name in declared {
            let flat = folder.join(format!("{name}.rs"));
            let file = if flat.exists() { flat } else { folder.join(&name).join("mod.rs") };
            let child = self.add(&file, &folder.join(&name), Some(this))?;
            self.files[this].children.insert(name, child);
        }
        Ok(this)
    }
}

/// The name of a module declaration without a body: the module has its own file.
fn declaration(item: &Item) -> Option<String> {
    match item {
        Item::Mod(module) if module.content.is_none() => Some(module.ident.to_string()),
        _ => None,
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn only_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    })
}

/// A name that an import brings in.
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    /// Its name in this file; `None` for all names of the path.
    pub(crate) name: Option<String>,
}

/// The names that an import brings in, with all its branches.
pub(crate) fn imported(tree: &UseTree) -> Vec<Import> {
    let mut all = Vec::new();
    add_imported(tree, &mut Vec::new(), &mut all);
    all
}

fn add_imported(tree: &UseTree, prefix: &mut Vec<String>, all: &mut Vec<Import>) {
    let (last, name) = match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            add_imported(&path.tree, prefix, all);
            prefix.pop();
            return;
        }
        UseTree::Group(group) => {
            return group.items.iter().for_each(|tree| add_imported(tree, prefix, all));
        }
        UseTree::Name(name) => (Some(name.ident.to_string()), None),
        UseTree::Rename(renamed) => {
            (Some(renamed.ident.to_string()), Some(renamed.rename.to_string()))
        }
        UseTree::Glob(_) => (None, None),
    };
    let mut path = prefix.clone();
    path.extend(last.clone().filter(|last| last != "self"));
    let name = name.or_else(|| last.and(path.last().cloned()));
    all.push(Import { path, name });
}
