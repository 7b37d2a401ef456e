//! Command lines whose verb passes options to the scheduler, brought into an order that clap understands.
//!
//! `pcocc docker alloc -p sandy -T 60 -c 16 --mount img` becomes
//! `pcocc docker alloc -T 60 --mount img -- -p sandy -c 16`: pcocc's own options first, the scheduler's after `--`, each
//! word as it was. Other command lines stay as they are.

use std::ffi::OsString;

use pcocc_vm::options::{OwnOption, separate};

/// Options of the program itself, which may precede the verb, and whether they take a value.
const GLOBAL: &[OwnOption<'_>] = &[
    ("--progress", true),
    ("--quiet", false),
    ("-q", false),
    ("--debug", false),
];

/// Own options of the verbs that pass options on. `-q`, `--quiet` and `-V` behind such a verb are the
/// scheduler's.
const OWN: &[OwnOption<'_>] = &[
    ("E", true),
    ("script", true),
    ("T", true),
    ("timeout", true),
    ("template", true),
    ("mount", true),
    ("disk", true),
    ("docker-daemon-json", true),
    ("no-snapshot", false),
    ("progress", true),
    ("debug", false),
    ("help", false),
    ("h", false),
];

/// Brings a command line into order; the first argument is the program.
pub(crate) fn arranged(arguments: Vec<OsString>) -> Vec<OsString> {
    let Some(verb_ends) = end_of_verb(&arguments) else {
        return arguments;
    };
    let (head, words) = arguments.split_at(verb_ends);
    let (own, scheduler) = separate(words, OWN);
    let mut arranged = [head, &own].concat();
    if !scheduler.is_empty() {
        arranged.push("--".into());
        arranged.extend(scheduler);
    }
    arranged
}

/// The words in front of the unfinished last word of `docker alloc` or `docker batch`.
#[derive(Debug)]
pub(crate) struct Typed {
    /// Number of words up to the end of the verb.
    pub(crate) verb_ends: usize,
    /// The verb's words, and pcocc's own words behind the verb.
    pub(crate) own: Vec<OsString>,
    /// Whether the last word is an option of the scheduler, which may take the unfinished word as its value.
    pub(crate) schedulers_turn: bool,
}

/// Splits an unfinished command line; `None` when its verb passes nothing on.
pub(crate) fn typed(arguments: &[OsString]) -> Option<Typed> {
    let verb_ends = end_of_verb(arguments)?;
    let (head, words) = arguments.split_at(verb_ends);
    let (_, before) = words.split_last()?;
    let (own, scheduler) = separate(before, OWN);
    let dashed = |word: &OsString| word.as_encoded_bytes().starts_with(b"-");
    let last = |words: &[OsString]| words.last().cloned();
    Some(Typed {
        verb_ends,
        own: [head, &own].concat(),
        schedulers_turn: before.last().is_some_and(dashed) && last(&scheduler) == last(before),
    })
}

/// Number of words up to the end of `docker alloc` or `docker batch`.
fn end_of_verb(arguments: &[OsString]) -> Option<usize> {
    let mut verb = Vec::new();
    let mut at = 1;
    while verb.len() < 2 {
        let word = arguments.get(at)?.to_str()?;
        let global = GLOBAL.iter().find(|(name, _)| *name == word);
        match global {
            Some((_, true)) => at += 1,
            None if !word.starts_with("--progress=") => verb.push(word),
            _ => {}
        }
        at += 1;
    }
    matches!(verb.as_slice(), ["docker", "alloc" | "batch"]).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arranged(line: &str) -> String {
        let words = line.split(' ').map(OsString::from).collect();
        let words: Vec<_> = super::arranged(words)
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect();
        words.join(" ")
    }

    #[test]
    fn all_options_of_these_verbs_are_known() {
        let program = crate::app::command();
        for verb in ["alloc", "batch"] {
            let docker = program.find_subcommand("docker").unwrap();
            let verb = docker.find_subcommand(verb).unwrap();
            let own = verb.get_arguments().filter(|one| !one.is_global_set());
            for argument in own {
                let long = argument.get_long().map(str::to_owned);
                let names = long
                    .into_iter()
                    .chain(argument.get_short().map(String::from));
                for name in names {
                    let takes = argument.get_action().takes_values();
                    assert!(
                        OWN.contains(&(&name, takes)),
                        "{name} of {}",
                        verb.get_name()
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_typed_belongs_to_the_option_before_it() {
        for (line, own, schedulers_turn) in [
            ("pcocc docker alloc ", "pcocc docker alloc", false),
            ("pcocc docker alloc -p ", "pcocc docker alloc", true),
            (
                "pcocc -q docker batch -c 4 --template ",
                "pcocc -q docker batch --template",
                false,
            ),
            (
                "pcocc docker alloc -T 60 --exclusive --m",
                "pcocc docker alloc -T 60",
                true,
            ),
        ] {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            let typed = typed(&words).unwrap();
            let found: Vec<_> = typed
                .own
                .iter()
                .map(|word| word.to_str().unwrap())
                .collect();
            assert_eq!(
                (&*found.join(" "), typed.schedulers_turn),
                (own, schedulers_turn),
                "{line}"
            );
        }
        for line in ["pcocc docker alloc", "pcocc docker import -p "] {
            let words: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert!(typed(&words).is_none(), "{line}");
        }
    }

    #[test]
    fn the_schedulers_options_go_behind() {
        for (line, expected) in [
            (
                "pcocc docker alloc -p sandy -c 16 --mount img",
                "pcocc docker alloc --mount img -- -p sandy -c 16",
            ),
            (
                "pcocc -q docker batch -q high",
                "pcocc -q docker batch -- -q high",
            ),
            (
                "pcocc --progress plain docker alloc -E true",
                "pcocc --progress plain docker alloc -E true",
            ),
            ("pcocc docker alloc -- -E x", "pcocc docker alloc -- -E x"),
            ("pcocc docker alloc --help", "pcocc docker alloc --help"),
            (
                "pcocc docker alloc -p x -h",
                "pcocc docker alloc -h -- -p x",
            ),
            // The word belongs to the scheduler.
            (
                "pcocc docker import -c alloc",
                "pcocc docker import -c alloc",
            ),
            ("pcocc image alloc", "pcocc image alloc"),
            ("pcocc docker", "pcocc docker"),
        ] {
            assert_eq!(arranged(line), expected);
        }
    }
}
