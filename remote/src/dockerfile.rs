//! The images that a Dockerfile is built from. The parser knows just enough of the language to list them.
//!
//! Follows Docker's "Dockerfile reference": FROM with its stages and platform, `COPY --from`, `RUN --mount`,
//! global ARGs with their defaults, comments, continued lines, the escape directive, here-documents. Unknown
//! images, such as a variable without a value, are left out; docker itself decides.

use std::collections::BTreeMap;

/// Longest value of a variable. Variables that name each other double a value with every line.
const LONGEST_VALUE: usize = 64 << 10;

/// The images in a Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dockerfile {
    stages: Vec<Stage>,
    others: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stage {
    /// The name in small letters.
    name: Option<String>,
    base: String,
}

impl Dockerfile {
    /// Reads a Dockerfile; `arguments` are values of ARGs, which override the defaults.
    pub fn parse(text: &str, arguments: &BTreeMap<String, String>) -> Self {
        let mut variables = BTreeMap::new();
        let mut file = Self::default();
        for instruction in instructions(text) {
            let mut words = instruction.split_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            let words: Vec<&str> = words.collect();
            match keyword.as_str() {
                "ARG" if file.stages.is_empty() => {
                    for word in words {
                        let (name, default) = match word.split_once('=') {
                            Some((name, default)) => (name, Some(unquoted(default))),
                            None => (word, None),
                        };
                        let default = default.and_then(|text| expand(text, &variables));
                        if let Some(value) = arguments.get(name).cloned().or(default) {
                            variables.insert(name.to_owned(), value);
                        }
                    }
                }
                "FROM" => file.from(&words, &variables),
                "COPY" | "ADD" => {
                    let from = words.iter().filter_map(|word| word.strip_prefix("--from="));
                    file.others
                        .extend(from.map(|name| unquoted(name).to_owned()));
                }
                "RUN" => {
                    let mounts = words
                        .iter()
                        .filter_map(|word| word.strip_prefix("--mount="));
                    let from = mounts
                        .flat_map(|mount| mount.split(','))
                        .filter_map(|option| option.strip_prefix("from="));
                    file.others
                        .extend(from.map(|name| unquoted(name).to_owned()));
                }
                _ => {}
            }
        }
        file
    }

    fn from(&mut self, words: &[&str], variables: &BTreeMap<String, String>) {
        let words: Vec<&str> = words
            .iter()
            .copied()
            .filter(|word| !word.starts_with("--"))
            .collect();
        let Some(base) = words.first() else {
            return;
        };
        let name = match words.get(1..3) {
            Some([keyword, name]) if keyword.eq_ignore_ascii_case("as") => {
                Some(name.to_ascii_lowercase())
            }
            _ => None,
        };
        self.stages.push(Stage {
            name,
            base: expand(unquoted(base), variables).unwrap_or_default(),
        });
    }

    /// The images needed for the build, each once, in the order of the file.
    pub fn images(&self) -> Vec<&str> {
        let mut images: Vec<&str> = Vec::new();
        let bases = self
            .stages
            .iter()
            .enumerate()
            .map(|(n, stage)| (n, &stage.base));
        let others = self.others.iter().map(|name| (self.stages.len(), name));
        for (before, name) in bases.chain(others) {
            let is_number = name.parse::<usize>().is_ok() && before == self.stages.len();
            let is_image = !name.is_empty()
                && !name.contains('$')
                && name != "scratch"
                && !is_number
                && self.stage(name, before).is_none();
            if is_image && !images.contains(&name.as_str()) {
                images.push(name);
            }
        }
        images
    }

    /// The base image of the stage `target`, or of the last stage.
    pub fn parent(&self, target: Option<&str>) -> Option<&str> {
        let mut at = match target {
            Some(target) => match self.stage(target, self.stages.len()) {
                Some(stage) => stage,
                None => target.parse().ok()?,
            },
            None => self.stages.len().checked_sub(1)?,
        };
        loop {
            let base = &self.stages.get(at)?.base;
            match self.stage(base, at) {
                Some(below) => at = below,
                None => return Some(base.as_str()).filter(|base| !base.is_empty()),
            }
        }
    }

    /// The last stage with this name among the first `before`.
    fn stage(&self, name: &str, before: usize) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        let stages = self.stages.get(..before)?;
        stages
            .iter()
            .rposition(|stage| stage.name.as_ref() == Some(&name))
    }
}

/// The instructions, each on one line, without comments and here-documents.
fn instructions(text: &str) -> Vec<String> {
    let mut escape = '\\';
    let mut instructions = Vec::new();
    let mut lines = text.lines();
    let mut current = String::new();
    let mut may_be_directive = true;
    while let Some(line) = lines.next() {
        let line = line.trim_start_matches('\u{feff}').trim();
        if let Some(comment) = line.strip_prefix('#') {
            let directive = comment.split_once('=').filter(|_| may_be_directive);
            match directive {
                Some((key, value)) if key.trim().eq_ignore_ascii_case("escape") => {
                    escape = value.trim().chars().next().unwrap_or(escape);
                }
                Some(_) => {}
                None => may_be_directive = false,
            }
            continue;
        }
        may_be_directive = false;
        if line.is_empty() {
            continue;
        }
        if let Some(start) = line.strip_suffix(escape) {
            current.push_str(start);
            continue;
        }
        current.push_str(line);
        let instruction = std::mem::take(&mut current);
        for end in here_documents(&instruction) {
            for line in lines.by_ref() {
                if line.trim_start_matches('\t') == end {
                    break;
                }
            }
        }
        instructions.push(instruction);
    }
    if !current.is_empty() {
        instructions.push(current);
    }
    instructions
}

/// The end words of an instruction's here-documents.
fn here_documents(instruction: &str) -> Vec<String> {
    let keyword = instruction.split_whitespace().next().unwrap_or_default();
    if !["RUN", "COPY", "ADD"]
        .iter()
        .any(|known| keyword.eq_ignore_ascii_case(known))
    {
        return Vec::new();
    }
    instruction
        .split_whitespace()
        .filter_map(|word| word.split_once("<<"))
        .filter(|(before, _)| before.chars().all(|c| c.is_ascii_digit()))
        .map(|(_, word)| unquoted(word.trim_start_matches('-')).to_owned())
        .filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_'))
        .collect()
}

fn unquoted(text: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inside) = text
            .strip_prefix(quote)
            .and_then(|text| text.strip_suffix(quote))
        {
            return inside;
        }
    }
    text
}

/// Replaces variables by their values; `None` when a variable has no value, or the text becomes too long.
fn expand(text: &str, variables: &BTreeMap<String, String>) -> Option<String> {
    let mut made = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        made.push_str(before);
        let (value, left) = match after.strip_prefix('{') {
            Some(braced) => {
                let (inside, left) = braced.split_once('}')?;
                (braced_value(inside, variables)?, left)
            }
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                let (name, left) = after.split_at(end);
                (variables.get(name)?.clone(), left)
            }
        };
        made.push_str(&value);
        if made.len() > LONGEST_VALUE {
            return None;
        }
        rest = left;
    }
    made.push_str(rest);
    Some(made)
}

fn braced_value(inside: &str, variables: &BTreeMap<String, String>) -> Option<String> {
    let set = |name: &str| variables.get(name).filter(|value| !value.is_empty());
    if let Some((name, other)) = inside.split_once(":-") {
        return Some(set(name).cloned().unwrap_or_else(|| other.to_owned()));
    }
    if let Some((name, other)) = inside.split_once(":+") {
        return Some(set(name).map(|_| other.to_owned()).unwrap_or_default());
    }
    variables.get(inside).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Dockerfile {
        let arguments = BTreeMap::from([("GIVEN".to_owned(), "given".to_owned())]);
        Dockerfile::parse(text, &arguments)
    }

    #[test]
    fn images_of_dockerfiles() {
        for (text, images, parent) in [
            (
                "from busybox\nCMD [\"echo\"]",
                vec!["busybox"],
                Some("busybox"),
            ),
            ("FROM scratch\nADD x /", vec![], Some("scratch")),
            (
                "# comment\n\nARG V=1 T\nFROM --platform=linux/amd64 \"a:$V\" AS Build\nRUN x\n\
                 FROM b\nCOPY --from=build /x /\nCOPY --from=0 /y /\nADD --from=c:2 /z /\n",
                vec!["a:1", "b", "c:2"],
                Some("b"),
            ),
            ("FROM a AS x\nFROM x AS y\nFROM Y", vec!["a"], Some("a")),
            // A stage is known only below its own line.
            ("FROM x AS x\nFROM x", vec!["x"], Some("x")),
            (
                "ARG GIVEN=no\nFROM r/${GIVEN}:${N:-7}",
                vec!["r/given:7"],
                Some("r/given:7"),
            ),
            ("ARG U\nFROM $U", vec![], None),
            ("FROM a\\\nb\\\n# comment\n  c", vec!["abc"], Some("abc")),
            ("# escape=`\nFROM a`\nb", vec!["ab"], Some("ab")),
            ("# syntax=x\n# escape=`\nFROM a`\nb", vec!["ab"], Some("ab")),
            (
                "RUN <<EOF\nFROM no\nEOF\nFROM yes",
                vec!["yes"],
                Some("yes"),
            ),
            (
                "FROM a\nRUN 3<<-\"E O\" cat <<'F'\nFROM no\nF\nFROM b",
                vec!["a", "b"],
                Some("b"),
            ),
            (
                "FROM a\nRUN --mount=type=bind,from=t,target=/t x",
                vec!["a", "t"],
                Some("a"),
            ),
            ("FROM", vec![], None),
            ("", vec![], None),
            ("FROM $", vec![], None),
            ("FROM ${", vec![], None),
        ] {
            let file = parse(text);
            assert_eq!(file.images(), images, "{text}");
            assert_eq!(file.parent(None), parent, "{text}");
        }
    }

    #[test]
    fn a_target_has_its_own_parent() {
        let file = parse("FROM a AS one\nFROM b AS two\nFROM one AS three");
        assert_eq!(file.parent(Some("TWO")), Some("b"));
        assert_eq!(file.parent(Some("0")), Some("a"));
        assert_eq!(file.parent(None), Some("a"));
        assert_eq!(file.parent(Some("none")), None);
    }

    #[test]
    fn endless_and_odd_texts_are_read() {
        let doubled = format!("ARG a=xxxxxxxx\n{}FROM $a", "ARG a=$a$a\n".repeat(60));
        assert!(parse(&doubled).images()[0].len() <= LONGEST_VALUE);
        for text in [
            "\\",
            "FROM a\\",
            "RUN <<EOF\nnever",
            "\u{feff}FROM a",
            "FROM 名前",
        ] {
            parse(text).images();
        }
        let line = "x".repeat(1 << 20);
        assert!(parse(&format!("FROM {line}")).images()[0].len() == 1 << 20);
    }
}
