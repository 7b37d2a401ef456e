//! The options of salloc and sbatch, as far as pcocc has to understand them. It passes them on untouched.
//!
//! Data path: the words behind `alloc` or `batch` → [`read`] separates options, their values and other words →
//! [`separate`] takes pcocc's own options out → [`check`] refuses options with which the scheduler would not run the VM →
//! the scheduler, or [`LocalRequest`] for the local backend.
//!
//! Every version of Slurm has other options with values. The short options have not changed in years, and all are known here.
//! Of the long options only those without a value are known; any other is taken to have a value.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

/// Short options of salloc or sbatch that take a value.
const SHORT_WITH_VALUE: &[u8] = b"AaBbCcDdeFGiJLMmNnopqStwx";
/// Short options whose value, if any, is part of the same word.
const SHORT_ATTACHED: &[u8] = b"IKk";
/// Long options that take no value, or only one after `=`.
const LONG_FLAGS: &[&str] = &[
    "bell",
    "contiguous",
    "exclusive",
    "get-user-env",
    "help",
    "hold",
    "ignore-pbs",
    "immediate",
    "kill-command",
    "nice",
    "no-bell",
    "no-kill",
    "no-requeue",
    "no-shell",
    "overcommit",
    "oversubscribe",
    "parsable",
    "propagate",
    "quiet",
    "reboot",
    "requeue",
    "share",
    "spread-job",
    "test-only",
    "usage",
    "use-min-nodes",
    "verbose",
    "version",
    "wait",
    "x11",
];

/// An option or another word of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An option: its name without dashes, and its value if it has one.
    Option {
        /// `c`, or `cpus-per-task`.
        name: String,
        /// Its value.
        value: Option<OsString>,
        /// How many words it takes.
        words: usize,
    },
    /// A word that belongs to no option.
    Word(OsString),
}

/// Separates the words of a command line, as salloc and sbatch do. `own` are the names of pcocc's own options with a value.
fn read(words: &[OsString], own: &[&str]) -> Vec<Item> {
    let mut items = Vec::new();
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        let bytes = word.as_bytes();
        rest = after;
        let mut option = |name: &[u8], attached: Option<&[u8]>, takes: bool| {
            let next = match (attached, takes) {
                (None, true) => rest.split_first(),
                _ => None,
            };
            if let Some((_, after)) = next {
                rest = after;
            }
            items.push(Item::Option {
                name: String::from_utf8_lossy(name).into_owned(),
                value: attached
                    .map(|value| OsStr::from_bytes(value).to_owned())
                    .or_else(|| next.map(|(value, _)| value.clone())),
                words: 1 + usize::from(next.is_some()),
            });
        };
        match bytes {
            [b'-', b'-', long @ ..] if !long.is_empty() => {
                let mut parts = long.splitn(2, |byte| *byte == b'=');
                let name = parts.next().unwrap_or_default();
                let text = String::from_utf8_lossy(name);
                let takes = own.contains(&&*text) || !is_flag(&text);
                option(name, parts.next(), takes);
            }
            [b'-', short, tail @ ..] if *short != b'-' => {
                let letter = String::from_utf8_lossy(&bytes[1..2]).into_owned();
                let takes = own.contains(&&*letter) || SHORT_WITH_VALUE.contains(short);
                match (takes, tail) {
                    (true, []) => option(&[*short], None, true),
                    (true, tail) => option(&[*short], Some(tail), true),
                    (false, []) => option(&[*short], None, false),
                    (false, tail) if SHORT_ATTACHED.contains(short) => {
                        option(&[*short], Some(tail), false);
                    }
                    // Several options in one word; the next word may be the value of the last option.
                    (false, _) => bundle(&bytes[1..], &mut option),
                }
            }
            _ => items.push(Item::Word(word.clone())),
        }
    }
    items
}

/// Reads short options that share a word: all but the last without a value.
fn bundle(letters: &[u8], option: &mut impl FnMut(&[u8], Option<&[u8]>, bool)) {
    // The result is one option, with the name of the letter that takes the rest of the word.
    for (at, letter) in letters.iter().enumerate() {
        if SHORT_WITH_VALUE.contains(letter) {
            let tail = letters.get(at + 1..).unwrap_or_default();
            return option(&[*letter], (!tail.is_empty()).then_some(tail), true);
        }
    }
    option(letters, None, false);
}

fn is_flag(name: &str) -> bool {
    LONG_FLAGS.contains(&name) || name.starts_with("no-")
}

/// One of pcocc's own options: its name without dashes, and whether it takes a value.
pub type OwnOption<'a> = (&'a str, bool);

/// Takes pcocc's own options out of the words behind a verb: `(own, scheduler's)`.
///
/// Own options stand anywhere before `--`, but not as the value of another option. The words behind `--` are the
/// scheduler's.
pub fn separate(words: &[OsString], own: &[OwnOption<'_>]) -> (Vec<OsString>, Vec<OsString>) {
    let end = words.iter().position(|word| word == "--");
    let (before, after) = match end {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => (words, &[] as &[OsString]),
    };
    let valued: Vec<&str> = own
        .iter()
        .filter_map(|(name, takes)| takes.then_some(*name))
        .collect();
    let mut parts = (Vec::new(), Vec::new());
    let mut rest = before;
    for item in read(before, &valued) {
        let (taken, is_own) = match &item {
            Item::Word(_) => (1, false),
            Item::Option { name, words, value } => {
                let known = own.iter().find(|(known, _)| known == name);
                // A flag of ours that is given a value is not ours.
                let ours = known.is_some_and(|(_, takes)| *takes || value.is_none());
                (*words, ours)
            }
        };
        let (these, others) = rest.split_at(taken.min(rest.len()));
        match is_own {
            true => parts.0.extend_from_slice(these),
            false => parts.1.extend_from_slice(these),
        }
        rest = others;
    }
    parts.1.extend_from_slice(after);
    parts
}

/// Why words are not passed to the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// A word that is no option: the scheduler would run it.
    #[error(
        "{0:?} is no option; pcocc runs the docker VM, and no other command, in the allocation"
    )]
    Command(String),
    /// An option that does not go with a docker VM.
    #[error("{option} {why}")]
    Refused {
        /// The option as it was written.
        option: String,
        /// Why not.
        why: &'static str,
    },
    /// An option's value makes no sense.
    #[error("{option} {value:?} {why}")]
    Value {
        /// The option.
        option: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Refuses words with which the scheduler would not run the VM, or run it many times.
pub fn check(words: &[OsString]) -> Result<(), OptionError> {
    for item in read(words, &[]) {
        let name = match item {
            Item::Word(word) => {
                return Err(OptionError::Command(word.to_string_lossy().into_owned()));
            }
            Item::Option { name, .. } => name,
        };
        // getopt takes any beginning of a long name that fits one option only.
        let long =
            |full: &str, shortest: usize| name.len() >= shortest && full.starts_with(name.as_str());
        let why = if name == "a" || long("array", 2) {
            "asks for many jobs, and a docker VM is one; submit them one by one"
        } else if long("wrap", 2) {
            "names a command, and the job's command is the docker VM"
        } else if long("no-shell", 4) {
            "leaves no command that could start the docker VM; use `pcocc docker batch`"
        } else if name == ":" {
            "starts a second job component, and a docker VM has one"
        } else {
            continue;
        };
        let dashes = if name.len() == 1 { "-" } else { "--" };
        return Err(OptionError::Refused {
            option: format!("{dashes}{name}"),
            why,
        });
    }
    Ok(())
}

/// The value of the first option that has one of `names`.
pub fn value_of(words: &[OsString], names: &[&str]) -> Option<String> {
    read(words, &[]).into_iter().find_map(|item| match item {
        Item::Option { name, value, .. } if names.contains(&name.as_str()) => {
            value?.into_string().ok()
        }
        _ => None,
    })
}

/// The scheduler's options, as the local backend understands them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalRequest {
    /// `-c`: number of CPUs.
    pub cpus: Option<u32>,
    /// `--mem`, or `--mem-per-cpu` times the CPUs: memory in MiB.
    pub memory_mib: Option<u64>,
    /// `-J`: the job's name.
    pub name: Option<String>,
    /// `-t`: how long it may last.
    pub time: Option<Duration>,
    /// Options that mean nothing here, as they were written.
    pub ignored: Vec<String>,
}

impl LocalRequest {
    /// Reads the scheduler's options.
    pub fn parse(words: &[OsString]) -> Result<Self, OptionError> {
        check(words)?;
        let mut request = Self::default();
        let mut per_cpu = None;
        for item in read(words, &[]) {
            let Item::Option { name, value, .. } = item else {
                continue;
            };
            let dashes = if name.len() == 1 { "-" } else { "--" };
            let option = format!("{dashes}{name}");
            let text = || -> Result<String, OptionError> {
                let value = value.clone().unwrap_or_default();
                match value.to_str() {
                    Some(text) if !text.is_empty() => Ok(text.to_owned()),
                    _ => Err(bad(&option, &value.to_string_lossy(), "is no value for it")),
                }
            };
            match name.as_str() {
                "c" | "cpus-per-task" => {
                    let text = text()?;
                    match text.parse() {
                        Ok(cpus) if cpus > 0 => request.cpus = Some(cpus),
                        _ => return Err(bad(&option, &text, "is no number of CPUs")),
                    }
                }
                "mem" | "mem-per-cpu" => {
                    let text = text()?;
                    let size = memory(&text)
                        .ok_or_else(|| bad(&option, &text, "is no size; write for example 4G"))?;
                    match name.as_str() {
                        "mem" => request.memory_mib = Some(size),
                        _ => per_cpu = Some(size),
                    }
                }
                "J" | "job-name" => request.name = Some(text()?),
                "t" | "time" => {
                    let text = text()?;
                    request.time = duration(&text).ok_or_else(|| {
                        bad(
                            &option,
                            &text,
                            "is no time; write minutes, HH:MM:SS or days-hours",
                        )
                    })?;
                }
                _ => request.ignored.push(option),
            }
        }
        if let (None, Some(size)) = (request.memory_mib, per_cpu) {
            request.memory_mib = Some(size * u64::from(request.cpus.unwrap_or(1)));
        }
        Ok(request)
    }
}

fn bad(option: &str, value: &str, why: &'static str) -> OptionError {
    OptionError::Value {
        option: option.to_owned(),
        value: value.to_owned(),
        why,
    }
}

/// A size as Slurm writes it, in MiB: megabytes unless a letter says otherwise.
fn memory(text: &str) -> Option<u64> {
    let text = text.strip_suffix(['B', 'b']).unwrap_or(text);
    let (number, unit) = match text.char_indices().next_back()? {
        (at, letter) if letter.is_ascii_alphabetic() => (text.get(..at)?, letter),
        _ => (text, 'M'),
    };
    let number: u64 = number.parse().ok()?;
    let mib = match unit.to_ascii_uppercase() {
        'K' => number / 1024,
        'M' => number,
        'G' => number.checked_mul(1024)?,
        'T' => number.checked_mul(1024 * 1024)?,
        _ => return None,
    };
    (mib > 0).then_some(mib)
}

/// A time as Slurm writes it; `Some(None)` is one without end.
///
/// Forms of sbatch(1): `MM`, `MM:SS`, `HH:MM:SS`, `DD-HH`, `DD-HH:MM`, `DD-HH:MM:SS`.
pub(crate) fn duration(text: &str) -> Option<Option<Duration>> {
    if ["infinite", "unlimited", "-1"].contains(&text.to_ascii_lowercase().as_str()) {
        return Some(None);
    }
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(number(days)?), rest),
        None => (None, text),
    };
    let parts = rest.split(':').map(number).collect::<Option<Vec<u64>>>()?;
    let (hours, minutes, seconds) = match (days, parts.as_slice()) {
        (Some(_), [hours]) => (*hours, 0, 0),
        (Some(_), [hours, minutes]) => (*hours, *minutes, 0),
        (None, [minutes]) => (0, *minutes, 0),
        (None, [minutes, seconds]) => (0, *minutes, *seconds),
        (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        _ => return None,
    };
    let hours = days.unwrap_or(0).checked_mul(24)?.checked_add(hours)?;
    let total = hours
        .checked_mul(60)?
        .checked_add(minutes)?
        .checked_mul(60)?
        .checked_add(seconds)?;
    // As for Slurm, no time at all means no limit.
    Some((total > 0).then(|| Duration::from_secs(total)))
}

/// A number of few enough digits that nothing overflows later.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
