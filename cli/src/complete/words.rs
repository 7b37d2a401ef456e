//! Which words an argument can be.
//!
//! A shell puts a candidate on the command line as it is, where `$(…)` in the name of a daemon's image would be code. So a
//! word of others is offered only if the argument could be it: no reference, name or number has a character in it that
//! means anything to a shell.

use pcocc_image::reference::{DockerReference, ImageUri};
use pcocc_vm::job::JobId;

/// Stands for files, which the shell completes itself. No candidate of ours begins with a slash.
pub(super) const FILES: &str = "/files";
/// Stands for folders.
pub(super) const DIRECTORIES: &str = "/directories";

/// What an argument names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A job.
    Job,
    /// An image of a repository, or the repository.
    Image,
    /// A repository.
    Repository,
    /// An image that is not there yet: its repository.
    NewImage,
    /// An image of docker.
    DockerImage,
    /// An image anywhere.
    Location,
    /// What a VM can be made of.
    Template,
    /// A module of containers.yaml.
    Module,
    /// A partition, or several.
    Partition,
    /// A mounted folder.
    MountPoint,
    /// A file, which the shell completes.
    File,
    /// A folder, which the shell completes.
    Folder,
}

impl Kind {
    /// Whether `word` can be such an argument.
    pub(super) fn allows(self, word: &str) -> bool {
        match self {
            Self::Job => word.parse::<JobId>().is_ok(),
            Self::Image => {
                is_repository(word) || !word.starts_with('-') && word.parse::<ImageUri>().is_ok()
            }
            Self::Repository | Self::Template | Self::Module => is_name(word),
            Self::NewImage => is_repository(word),
            Self::DockerImage => word.parse::<DockerReference>().is_ok(),
            Self::Location => match word.split_once(':') {
                Some((_, "" | "//")) => true,
                Some((_, name)) => Self::DockerImage.allows(name),
                None => word == FILES,
            },
            Self::Partition => word.split(',').all(is_name),
            Self::MountPoint => {
                word == DIRECTORIES
                    || word.starts_with(['/', '~']) && word.split('/').skip(1).all(is_path_name)
            }
            Self::File => word == FILES,
            Self::Folder => word == DIRECTORIES,
        }
    }
}

/// Whether `word` can be the value of one of the scheduler's options, which stands in front of it if it does in `typed`.
pub(super) fn is_scheduler_value(word: &str, typed: &str) -> bool {
    let option = match typed.strip_prefix('-') {
        None => Some(0),
        Some(long) if long.starts_with('-') => typed.find('=').map(|end| end + 1),
        Some(_) => Some(2),
    };
    let value = option.and_then(|end| word.get(end..));
    value.is_some_and(|value| Kind::Partition.allows(value))
}

fn is_repository(word: &str) -> bool {
    word.strip_suffix(':').is_some_and(is_name)
}

/// Whether a text is one word to every shell, and no option.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && is_path_name(text)
}

fn is_path_name(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_alphanumeric() || "_.-+@%:,=".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_they_are_to_name() {
        let all = [
            Kind::Job,
            Kind::Image,
            Kind::Repository,
            Kind::NewImage,
            Kind::DockerImage,
            Kind::Location,
            Kind::Template,
            Kind::Module,
            Kind::Partition,
            Kind::MountPoint,
            Kind::File,
            Kind::Folder,
        ];
        for word in [
            "",
            "$(id)",
            "`id`",
            "a;b",
            "a b",
            "a\tb",
            "a\nb",
            "a|b",
            "a&b",
            "a>b",
            "a\\b",
            "a'b",
            "a\"b",
            "-rf",
            "--x",
            "a*",
            "a?",
            "!x",
            "#x",
            "{a,b}",
            "a\u{1b}b",
            "a\u{202e}b",
            "$a",
        ] {
            for kind in all {
                assert!(!kind.allows(word), "{kind:?} {word:?}");
            }
            for typed in ["", "-p", "--partition="] {
                let whole = format!("{typed}{word}");
                assert!(!is_scheduler_value(&whole, typed), "{whole:?}");
            }
        }
        for (kind, word) in [
            (Kind::Job, "7"),
            (Kind::Image, "centos-gcc@12"),
            (Kind::Image, "site:centos"),
            (Kind::Image, "site:"),
            (Kind::Repository, "user"),
            (Kind::NewImage, "user:"),
            (Kind::DockerImage, "ghcr.io:5000/org/app:1.2"),
            (Kind::Location, "docker-daemon:bb"),
            (Kind::Location, "docker-archive:"),
            (Kind::Location, "docker://"),
            (Kind::Location, FILES),
            (Kind::Partition, "sandy,skylake"),
            (Kind::MountPoint, "/run/user/1000/pcocc"),
            (Kind::MountPoint, "~/mnt"),
            (Kind::MountPoint, DIRECTORIES),
        ] {
            assert!(kind.allows(word), "{kind:?} {word:?}");
        }
        assert!(is_scheduler_value("-psandy", "-p"));
        assert!(is_scheduler_value("--partition=sandy", "--partition=s"));
        assert!(!is_scheduler_value("-psandy", ""));
    }
}
