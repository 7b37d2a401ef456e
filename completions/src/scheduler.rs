//! Partitions, accounts and QOS for Slurm's own options of `alloc` and `batch`.

use std::process::Command;

use crate::{Candidate, Recent};

/// What an option of the scheduler names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OptionValue {
    /// `-p`.
    Partition,
    /// `-A`.
    Account,
    /// `-q`.
    Qos,
}

/// Options as salloc(1) spells them, and what they take.
const OPTIONS: [(&str, &str, OptionValue); 3] = [
    ("-p", "--partition", OptionValue::Partition),
    ("-A", "--account", OptionValue::Account),
    ("-q", "--qos", OptionValue::Qos),
];

/// Other long options that are common, with what they are for.
const OTHERS: [(&str, &str); 12] = [
    ("--time=", "longest time of the job"),
    ("--cpus-per-task=", "cores"),
    ("--mem=", "memory of the node"),
    ("--mem-per-cpu=", "memory for each core"),
    ("--job-name=", "name of the job"),
    ("--nodelist=", "nodes to run on"),
    ("--exclude=", "nodes not to run on"),
    ("--constraint=", "features of the node"),
    ("--reservation=", "reservation to run in"),
    ("--gres=", "generic resources"),
    ("--exclusive", "the whole node"),
    ("--begin=", "when to start"),
];

/// Gives the candidates for the last of `words`, the arguments of `alloc` or `batch`; `None` when that word is no value of
/// a scheduler's option.
pub fn options(recent: &Recent, user: &str, words: &[&str]) -> Option<Vec<Candidate>> {
    let (typed, before) = words.split_last()?;
    // What follows a -- is the scheduler's as well.
    let known = |option: &str| {
        let mut all = OPTIONS.into_iter();
        all.find(|(short, long, _)| option == *short || option == *long)
    };
    if let Some((_, _, kind)) = before.last().and_then(|option| known(option)) {
        return Some(values(recent, user, kind, "", typed));
    }
    if let Some((option, value)) = typed.split_once('=') {
        let (_, long, kind) = known(option)?;
        return (option == long).then(|| values(recent, user, kind, &format!("{option}="), value));
    }
    let attached = OPTIONS.into_iter().find_map(|(short, _, kind)| {
        let value = typed.strip_prefix(short)?;
        Some((short, value, kind))
    });
    attached.map(|(short, value, kind)| values(recent, user, kind, short, value))
}

/// Gives the partitions that `typed`, one or several with commas between them, may become.
pub fn partitions(recent: &Recent, user: &str, typed: &str) -> Vec<Candidate> {
    values(recent, user, OptionValue::Partition, "", typed)
}

/// Gives the names of the scheduler's long options that begin with `typed`.
pub fn names(typed: &str) -> Vec<Candidate> {
    let ours = OPTIONS.into_iter().map(|(_, long, kind)| {
        let what = match kind {
            OptionValue::Partition => "partition to run in",
            OptionValue::Account => "account to charge",
            OptionValue::Qos => "quality of service",
        };
        Candidate::new(format!("{long}="), what)
    });
    let others = OTHERS
        .into_iter()
        .map(|(name, what)| Candidate::new(name, what));
    ours.chain(others)
        .filter(|candidate| candidate.value.starts_with(typed))
        .collect()
}

fn values(
    recent: &Recent,
    user: &str,
    kind: OptionValue,
    prefix: &str,
    typed: &str,
) -> Vec<Candidate> {
    let mut query;
    match kind {
        OptionValue::Partition => {
            query = Command::new("sinfo");
            query.args(["--noheader", "--format=%R"]);
        }
        OptionValue::Account | OptionValue::Qos => {
            let what = if kind == OptionValue::Qos {
                "qos"
            } else {
                "account"
            };
            query = Command::new("sacctmgr");
            query.args(["--noheader", "--parsable2", "show", "associations", "where"]);
            query
                .arg(format!("user={user}"))
                .arg(format!("format={what}"));
        }
    }
    // Several partitions may be named, and a user has several QOS in one line.
    let (done, typed) = typed.rsplit_once(',').map_or(("", typed), |(_, last)| {
        typed
            .split_at_checked(typed.len() - last.len())
            .unwrap_or(("", typed))
    });
    let lines = recent.lines(&format!("slurm {kind:?} {user}"), query);
    let mut names: Vec<&str> = lines
        .iter()
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty() && name.starts_with(typed))
        .collect();
    names.sort_unstable();
    names.dedup();
    let whole = |name| Candidate::plain(format!("{prefix}{done}{name}"));
    names.into_iter().map(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_options_of_slurm_are_completed() {
        let folder = tempfile::tempdir().unwrap();
        let recent = Recent::new(folder.path());
        // An answer as sinfo gives it.
        let mut query = Command::new("printf");
        query.args(["%s\\n", "sandy", "skylake", "sandy"]);
        recent.lines("slurm Partition doe", query);
        let values = |words: &[&str]| {
            let found = options(&recent, "doe", words)?;
            Some(
                found
                    .into_iter()
                    .map(|candidate| candidate.value)
                    .collect::<Vec<_>>(),
            )
        };
        let some = |values: &[&str]| {
            Some(
                values
                    .iter()
                    .map(|&value| value.to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(values(&["-p", ""]), some(&["sandy", "skylake"]));
        assert_eq!(
            values(&["-c", "2", "--partition", "sk"]),
            some(&["skylake"])
        );
        assert_eq!(values(&["--partition=sa"]), some(&["--partition=sandy"]));
        assert_eq!(values(&["-psa"]), some(&["-psandy"]));
        assert_eq!(
            values(&["-p", "sandy,s"]),
            some(&["sandy,sandy", "sandy,skylake"])
        );
        assert_eq!(values(&["-c", ""]), None);
        assert_eq!(values(&["--mem=1"]), None);
        assert_eq!(values(&[]), None);
        let names = names("--part");
        assert_eq!(names[0].value, "--partition=");
        assert_eq!(names.len(), 1);
    }
}
