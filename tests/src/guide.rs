//! `docs/GUIDE.md` as its tests read it: commands, and what each of them shows.

/// A command of the guide, and what it prints.
#[derive(Clone, Debug)]
pub struct Step {
    /// The command, of one or several lines.
    pub command: String,
    /// The lines below it.
    pub shown: Vec<String>,
    /// Whether it is typed in the shell of a docker VM.
    pub in_vm: bool,
}

/// What begins a command in the shell of a docker VM.
const IN_VM: &str = "(pcocc/1) $ ";

/// Reads `docs/GUIDE.md`.
pub fn guide() -> String {
    std::fs::read_to_string(crate::workspace().join("docs/GUIDE.md")).expect("read the guide")
}

/// Gives the commands in the blocks of such a mark: `$ ` begins one, `> ` goes on with it.
pub fn steps(guide: &str, mark: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in guide.lines() {
        if line.starts_with("```") {
            inside = line.strip_prefix("```") == Some(mark);
        } else if !inside {
        } else if let Some(command) = line.strip_prefix("$ ").or(line.strip_prefix(IN_VM)) {
            steps.push(Step {
                command: command.to_owned(),
                shown: Vec::new(),
                in_vm: line.starts_with(IN_VM),
            });
        } else {
            let step = steps
                .last_mut()
                .unwrap_or_else(|| panic!("a block begins with {line:?}"));
            match line.strip_prefix("> ").filter(|_| step.shown.is_empty()) {
                Some(more) => step.command += &format!("\n{more}"),
                None => step.shown.push(line.to_owned()),
            }
        }
    }
    steps
}

/// A line without what is different each time: digests, IDs, dates, sizes, and the width of columns. `None` for what
/// is only said where things take long.
fn lasting(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
    match words.as_slice() {
        ["Copying", "blob" | "config", ..] => return None,
        // docker's command on a builder that every daemon has.
        ["DEPRECATED:" | "BuildKit" | "environment-variable.", ..] => return None,
        [.., last] if last.starts_with('(') && last.ends_with("s)") => return None,
        _ => {}
    }
    let words = words.iter().map(|word| {
        let digest = word.split_once("sha256:").map(|(before, _)| before);
        if let Some(before) = digest {
            let end = if word.ends_with(':') { ":" } else { "" };
            format!("{before}sha256:…{end}")
        } else if word.len() == 12 && is_hex(word) {
            "…".to_owned()
        } else if word.starts_with(|first: char| first.is_ascii_digit()) {
            "7".to_owned()
        } else {
            (*word).to_owned()
        }
    });
    Some(words.collect::<Vec<_>>().join(" "))
}

/// The lines without what is different each time, see above: to be compared.
pub fn all_lasting<'t>(lines: impl Iterator<Item = &'t str>) -> Vec<String> {
    let mut lines: Vec<String> = lines
        .filter_map(lasting)
        .filter(|line| !line.is_empty())
        .collect();
    // Layers come in the order of their digests.
    let is_layer = |line: &str| line.starts_with("Copied blob");
    for layers in lines.chunk_by_mut(|one, next| is_layer(one) && is_layer(next)) {
        layers.sort();
    }
    lines
}
