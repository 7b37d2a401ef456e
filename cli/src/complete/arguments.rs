//! Which argument is completed with what: one table for all verbs.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Command;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use pcocc_completions::{Candidate, Recent, images, jobs, scheduler};
use pcocc_core::containers;
use pcocc_core::templates::Templates;

use super::docker_images_query;
use super::words::{DIRECTORIES, FILES, Kind};
use crate::environment::Environment;
use crate::host::Host;

/// Verb, argument, what it names. An argument that has the same meaning everywhere has the verb `*`.
const TABLE: &[(&str, &str, Kind)] = &[
    ("*", "job", Kind::Job),
    ("*", "repo", Kind::Repository),
    ("docker alloc", "template", Kind::Template),
    ("docker alloc", "mount", Kind::Folder),
    ("docker batch", "template", Kind::Template),
    ("docker build", "path", Kind::Folder),
    ("docker build", "dest", Kind::NewImage),
    ("docker build", "file", Kind::File),
    ("docker edit", "source", Kind::Image),
    ("docker edit", "dest", Kind::NewImage),
    ("docker guest show", "image", Kind::Image),
    ("docker export", "source", Kind::Image),
    ("docker export", "dest", Kind::DockerImage),
    ("docker import", "source", Kind::DockerImage),
    ("docker import", "dest", Kind::NewImage),
    ("docker mount", "mount_point", Kind::Folder),
    ("docker shell", "mount", Kind::Folder),
    ("docker stop", "jobs", Kind::Job),
    ("docker umount", "mount_point", Kind::MountPoint),
    ("run", "image", Kind::Image),
    ("run", "module", Kind::Module),
    ("run", "mount", Kind::File),
    ("run", "partition", Kind::Partition),
    ("run", "script", Kind::File),
    ("image show", "image", Kind::Image),
    ("image delete", "image", Kind::Image),
    ("image copy", "source", Kind::Image),
    ("image copy", "dest", Kind::NewImage),
    ("image export", "source", Kind::Image),
    ("image export", "dest", Kind::Location),
    ("image import", "source", Kind::Location),
    ("image import", "dest", Kind::NewImage),
];

/// Where answers of outside systems are kept.
pub(super) fn answers(environment: &Environment) -> PathBuf {
    environment.user_conf.join("completion")
}

/// The command with a source of candidates at every argument of the table.
pub(super) fn completed(command: Command) -> Command {
    visit(command, "")
}

fn visit(command: Command, verb: &str) -> Command {
    let place = verb.to_owned();
    let command = command.mut_args(move |argument| {
        let id = argument.get_id().as_str();
        let row = TABLE
            .iter()
            .find(|row| (row.0 == place || row.0 == "*") && row.1 == id);
        match row {
            Some((_, _, kind)) => {
                let kind = *kind;
                argument.add(ArgValueCompleter::new(move |typed: &OsStr| {
                    ask(kind, typed)
                }))
            }
            None => argument,
        }
    });
    let verb = verb.to_owned();
    command.mut_subcommands(move |sub| {
        let name = format!("{verb} {}", sub.get_name());
        visit(sub, name.trim_start())
    })
}

fn ask(kind: Kind, typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some((environment, typed)) = Environment::read().ok().zip(typed.to_str()) else {
        return Vec::new();
    };
    let mut found = candidates(kind, &Host::new(Arc::new(environment)), typed);
    found.retain(|candidate| kind.allows(&candidate.value));
    offered(found)
}

/// What there is of a kind that `typed` may become, whatever it is called.
fn candidates(kind: Kind, host: &Host, typed: &str) -> Vec<Candidate> {
    match kind {
        Kind::Job => jobs::living(&host.environment().user_conf, typed),
        Kind::Image => image(host, typed),
        Kind::Repository => repository(host, typed),
        Kind::NewImage => new_image(host, typed),
        Kind::DockerImage => docker_image(host, typed),
        Kind::Location => location(host, typed),
        Kind::Template => template(host, typed),
        Kind::Module => module(host, typed),
        Kind::Partition => partition(host, typed),
        Kind::MountPoint => mount_point(host, typed),
        Kind::File => vec![Candidate::plain(FILES)],
        Kind::Folder => vec![Candidate::plain(DIRECTORIES)],
    }
}

/// Candidates as clap's engine takes them, in their own order.
pub(super) fn offered(candidates: Vec<Candidate>) -> Vec<CompletionCandidate> {
    candidates
        .into_iter()
        .map(|candidate| {
            CompletionCandidate::new(candidate.value).help(candidate.help.map(Into::into))
        })
        .collect()
}

fn image(host: &Host, typed: &str) -> Vec<Candidate> {
    let repositories = host.repositories();
    repositories.map_or_else(|_| Vec::new(), |all| images::in_repositories(all, typed))
}

fn repository(host: &Host, typed: &str) -> Vec<Candidate> {
    let repositories = host.repositories();
    repositories.map_or_else(|_| Vec::new(), |all| images::repositories(all, typed))
}

/// An image that is not there yet can only be in one of the repositories.
fn new_image(host: &Host, typed: &str) -> Vec<Candidate> {
    let repositories = repository(host, typed);
    let whole = |repository: Candidate| Candidate::new(repository.value + ":", "repository");
    repositories.into_iter().map(whole).collect()
}

fn docker_image(host: &Host, typed: &str) -> Vec<Candidate> {
    let recent = Recent::new(&answers(host.environment()));
    let daemon = host
        .environment()
        .docker
        .host
        .as_deref()
        .unwrap_or_default();
    images::in_docker(&recent, daemon, docker_images_query(), typed)
}

/// Formats of images outside of repositories, and files of them.
fn location(host: &Host, typed: &str) -> Vec<Candidate> {
    const FORMATS: [(&str, &str); 4] = [
        ("docker-archive:", "file of docker save"),
        ("oci:", "folder with an OCI image layout"),
        ("docker-daemon:", "image in docker"),
        ("docker://", "image in a registry"),
    ];
    match typed.split_once(':') {
        Some(("docker-daemon", name)) => docker_image(host, name)
            .into_iter()
            .map(|image| Candidate::plain(format!("docker-daemon:{}", image.value)))
            .collect(),
        Some(("docker", _)) => Vec::new(),
        Some(_) => vec![Candidate::plain(FILES)],
        None => {
            let formats = FORMATS
                .into_iter()
                .filter(|(name, _)| name.starts_with(typed));
            let formats: Vec<_> = formats
                .map(|(name, what)| Candidate::new(name, what))
                .collect();
            match formats.is_empty() || typed.is_empty() {
                true => vec![Candidate::plain(FILES)],
                false => formats,
            }
        }
    }
}

/// What a VM can be made of.
fn template(host: &Host, typed: &str) -> Vec<Candidate> {
    let templates = Templates::load(
        &host.environment().user_conf,
        &host.environment().system_conf,
    );
    let templates = templates.unwrap_or_default();
    named(templates.names(), typed)
}

/// Modules of containers.yaml.
fn module(host: &Host, typed: &str) -> Vec<Candidate> {
    let [system, user] = host.containers_files();
    let templates = containers::ContainerTemplates::load(&system, &user).unwrap_or_default();
    named(templates.module_names(), typed)
}

fn named<'a>(names: impl Iterator<Item = &'a str>, typed: &str) -> Vec<Candidate> {
    names
        .filter(|name| name.starts_with(typed))
        .map(Candidate::plain)
        .collect()
}

fn partition(host: &Host, typed: &str) -> Vec<Candidate> {
    let recent = Recent::new(&answers(host.environment()));
    scheduler::partitions(&recent, &host.environment().user, typed)
}

fn mount_point(host: &Host, typed: &str) -> Vec<Candidate> {
    let home = host.environment().home.to_string_lossy();
    let points = pcocc_fs::mount_points().unwrap_or_default();
    let typed_full = typed.strip_prefix('~').map(|rest| format!("{home}{rest}"));
    let found: Vec<_> = points
        .iter()
        .filter_map(|point| point.to_str())
        .filter(|point| point.starts_with(typed_full.as_deref().unwrap_or(typed)))
        .map(|point| match (&typed_full, point.strip_prefix(&*home)) {
            (Some(_), Some(rest)) => Candidate::plain(format!("~{rest}")),
            _ => Candidate::plain(point),
        })
        .collect();
    match found.is_empty() {
        // A path from here is none in the table of mounts.
        true => vec![Candidate::plain(DIRECTORIES)],
        false => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::CommandLine;
    use clap::CommandFactory as _;

    fn every_argument(command: &Command, verb: &str, found: &mut Vec<String>) {
        for argument in command.get_arguments() {
            let values = argument
                .get_num_args()
                .is_some_and(|range| range.takes_values());
            if values {
                found.push(format!("{verb} {}", argument.get_id()).trim().to_owned());
            }
        }
        for sub in command.get_subcommands() {
            every_argument(sub, format!("{verb} {}", sub.get_name()).trim(), found);
        }
    }

    #[test]
    fn table_and_command_line_agree() {
        let mut command = CommandLine::command();
        command.build();
        let mut arguments = Vec::new();
        every_argument(&command, "", &mut arguments);
        let matches = |row: &(&str, &str, Kind), argument: &str| match row.0 {
            "*" => argument.ends_with(&format!(" {}", row.1)),
            verb => argument == format!("{verb} {}", row.1),
        };
        for row in TABLE {
            let there = arguments.iter().any(|argument| matches(row, argument));
            assert!(there, "no argument {} {}", row.0, row.1);
        }
    }
}
