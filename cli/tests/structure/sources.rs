//! Which file of a crate names which: modules by their `mod` lines, paths through `use` lines and re-exports.
//!
//! A module may name those that it is a part of, so this does not count, nor does code for tests alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

/// What is no code, a `mod` line, a `use` line, a group of paths in one, and a path.
static PATTERNS: LazyLock<[Regex; 5]> = LazyLock::new(|| {
    let strings = r##"b?r"[^"]*"|b?r#".*?"#|b?"(?:\\.|[^"\\])*"|b?'(?:\\'|\\[^']+|[^\\'])'"##;
    let no_code = format!(r"(?s)//[^\n]*|{strings}");
    let (below, import) = (r"\bmod (\w+);", r"\buse ([^;]+);");
    let (group, path) = (r"([\w:]*)\{([^{}]*)\}", r"\b\w+(?:\s*::\s*\w+)+");
    [&no_code, below, import, group, path].map(|text| Regex::new(text).unwrap())
});

/// A path of names: `["a", "b"]` is `crate::a::b`.
type Name = Vec<String>;

/// A module's file, the paths of its `use` lines by the names they get, and all paths.
struct Module {
    file: PathBuf,
    imports: BTreeMap<String, Name>,
    paths: Vec<Name>,
}

/// The files below the crate root `root`, each with those that it names.
pub fn graph(root: &Path) -> BTreeMap<PathBuf, Vec<PathBuf>> {
    let mut modules = BTreeMap::new();
    read(root, root.parent().unwrap(), Name::new(), &mut modules);
    let mut graph = BTreeMap::new();
    for (name, module) in &modules {
        let paths = module.paths.iter().chain(module.imports.values());
        let named = paths.filter_map(|path| target(&modules, name, path));
        let others = named.filter(|other| !name.starts_with(other));
        let files = others.map(|other| modules[other].file.clone());
        graph.insert(module.file.clone(), files.collect());
    }
    graph
}

/// The files that name themselves by way of others.
pub fn circular(graph: &BTreeMap<PathBuf, Vec<PathBuf>>) -> Vec<PathBuf> {
    let reaches_itself = |file: &&PathBuf| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![*file]);
        while let Some(file) = open.pop() {
            let new = graph.get(file).into_iter().flatten();
            open.extend(new.filter(|file| reached.insert(*file)));
        }
        reached.contains(file)
    };
    graph.keys().filter(reaches_itself).cloned().collect()
}

/// Reads the module `name` in `file`, and those below it, whose files lie in `folder`.
fn read(file: &Path, folder: &Path, name: Name, modules: &mut BTreeMap<Name, Module>) {
    let [_, below, import, group, path] = &*PATTERNS;
    let text = product(&fs::read_to_string(file).unwrap());
    for found in below.captures_iter(&text) {
        let folder = folder.join(&found[1]);
        let (beside, inside) = (folder.with_extension("rs"), folder.join("mod.rs"));
        let below = [&name[..], &[found[1].to_owned()]].concat();
        let file = if beside.exists() { beside } else { inside };
        read(&file, &folder, below, modules);
    }
    let names = |path: &str| {
        path.split("::")
            .map(|name| name.trim().to_owned())
            .collect()
    };
    let mut imports = BTreeMap::new();
    for found in import.captures_iter(&text) {
        let mut list = found[1].to_owned();
        while let Some(group) = group.captures(&list) {
            let paths = group[2]
                .split(',')
                .map(|path| format!("{}{}", &group[1], path.trim()));
            list = list.replace(&group[0], &paths.collect::<Vec<_>>().join(","));
        }
        for path in list.split(',') {
            let (path, alias) = path.split_once(" as ").unwrap_or((path, ""));
            let path = path
                .trim()
                .trim_end_matches("::self")
                .trim_end_matches("::*");
            let alias = if alias.is_empty() {
                path.rsplit("::").next().unwrap()
            } else {
                alias
            };
            imports.insert(alias.trim().to_owned(), names(path));
        }
    }
    let paths = path
        .find_iter(&text)
        .map(|path| names(path.as_str()))
        .collect();
    let file = file.to_owned();
    modules.insert(
        name,
        Module {
            file,
            imports,
            paths,
        },
    );
}

/// The module to which `path` leads from the module `from`; `None` for other crates.
fn target<'m>(
    modules: &'m BTreeMap<Name, Module>,
    from: &Name,
    path: &[String],
) -> Option<&'m Name> {
    let (mut at, mut found) = (from.clone(), false);
    for (index, name) in path.iter().enumerate() {
        let below = [&at[..], std::slice::from_ref(name)].concat();
        match name.as_str() {
            "crate" => at.clear(),
            "super" => drop(at.pop()),
            "self" => {}
            _ if modules.contains_key(&below) => at = below,
            _ => {
                let import = modules.get(&at)?.imports.get(name);
                let import = import.filter(|import| import[0] != *name);
                let whole = import.map(|import| [import, &path[index + 1..]].concat());
                if let Some(source) = whole.and_then(|whole| target(modules, &at, &whole)) {
                    return Some(source);
                }
                break;
            }
        }
        found = true;
    }
    modules
        .get_key_value(&at)
        .filter(|_| found)
        .map(|(name, _)| name)
}

/// Cuts comments, strings and characters, and the items behind `#[cfg(test)]`.
fn product(text: &str) -> String {
    let mut text = PATTERNS[0].replace_all(text, "").into_owned();
    while let Some(start) = text.find("#[cfg(test)]") {
        let mut depth = 0;
        let end = text[start..].find(|sign| {
            depth += i32::from(sign == '{') - i32::from(sign == '}');
            depth == 0 && [';', '}'].contains(&sign)
        });
        text.replace_range(start..=start + end.unwrap(), "");
    }
    text
}

#[test]
fn a_circle_is_found() {
    // How many files stand in a circle, and what is in `a.rs`, `b.rs` and `b/c.rs`.
    let cases = r##"
        0 | use crate::b::B; | pub struct B; |
        2 | use crate::b::B; | use super::a; |
        2 | use crate::{x, b::{self, C}}; | fn f() { crate::a::f() } |
        2 | use crate::B; | use crate::a; |
        2 | use crate as c; fn f() { c::b::f() } | use crate::a; |
        0 | use crate::b; | const A: &str = "crate::a"; const B: char = '"'; // crate::a |
        0 | use crate::b; | #[cfg(test)] mod tests { use crate::a; } |
        0 | use crate::b; | #[cfg(test)] use crate::a; fn f<'a>() { r#"crate::a"#; } |
        0 | | mod c; use c::C; #[cfg(test)] mod tests; | use super::B;
        3 | use crate::b; | mod c; use c::C; | use super::super::a;"##;
    for case in cases.lines().skip(1) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(
            folder.path().join("lib.rs"),
            "mod a; /// x\n pub mod b;\n pub use b::B;",
        )
        .unwrap();
        let (count, texts) = case.split_once('|').unwrap();
        for (name, text) in ["a.rs", "b.rs", "b/c.rs"].iter().zip(texts.split('|')) {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let found = circular(&graph(&folder.path().join("lib.rs"))).len();
        assert_eq!(found.to_string(), count.trim(), "{case}");
    }
}
