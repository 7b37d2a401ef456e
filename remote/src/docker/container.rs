//! Containers in which images are changed: requests to make, start, look at, commit and remove them.
//!
//! One method is one request, with the waiting and the words of errors of [`Daemon`]; what belongs
//! together to an edit is in [`super::edit`].

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::errors::Error as Bollard;
use bollard::models::{ContainerConfig, ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, ContainerArchiveInfoOptionsBuilder,
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder, ResizeContainerTTYOptionsBuilder,
};
use futures_util::StreamExt;
use jiff::Timestamp;

use super::client::Daemon;
use pcocc_image::{Error, Result};

/// What a container shall be like.
#[derive(Clone, Debug)]
pub(super) struct ContainerSpec {
    pub(super) image: String,
    /// Program and arguments; the image's own are not used.
    pub(super) command: Vec<String>,
    /// Whether it runs on a terminal.
    pub(super) terminal: bool,
    pub(super) user: String,
    /// Variables besides the image's own, as `NAME=VALUE`.
    pub(super) environment: Vec<String>,
    pub(super) labels: Vec<(String, String)>,
    /// Docker's name of the network; its default one otherwise.
    pub(super) network: Option<String>,
    /// Folder on the daemon's machine, and where it is seen, read only.
    pub(super) mount: Option<(PathBuf, String)>,
}

/// A container of a list.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) labels: HashMap<String, String>,
    pub(super) is_running: bool,
}

/// How a path of a container changed against its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// It is another than the image's, if only in its metadata.
    Modified,
    /// The image does not have it.
    Added,
    /// The image has it, the container not.
    Deleted,
}

impl Daemon {
    /// Makes a container, not running yet.
    pub(super) fn create_container(&self, name: &str, spec: ContainerSpec) -> Result<()> {
        let mounts = spec.mount.map(|(source, target)| {
            vec![Mount {
                target: Some(target),
                source: Some(source.to_string_lossy().into_owned()),
                typ: Some(MountType::BIND),
                read_only: Some(true),
                ..Mount::default()
            }]
        });
        let body = ContainerCreateBody {
            image: Some(spec.image),
            entrypoint: Some(spec.command),
            cmd: Some(Vec::new()),
            env: Some(spec.environment),
            user: Some(spec.user),
            labels: Some(spec.labels.into_iter().collect()),
            tty: Some(spec.terminal),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            open_stdin: Some(true),
            stdin_once: Some(true),
            host_config: Some(HostConfig {
                network_mode: spec.network,
                mounts,
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        self.call(
            &format!("make container {name}"),
            self.docker().create_container(Some(options), body),
        )
        .map(|_| ())
    }

    /// Starts a container.
    pub(super) fn start_container(&self, name: &str) -> Result<()> {
        // It may take a slow machine a while, during which the daemon answers others.
        self.patient(async {
            let started = self.docker().start_container(name, None).await;
            started.map_err(|error| {
                self.link()
                    .explain(&format!("start container {name}"), error)
            })
        })
    }

    /// Waits until a container ends, and gives its exit status.
    pub(super) fn wait_container(&self, name: &str) -> Result<i64> {
        self.patient(async {
            let mut answers = Box::pin(self.docker().wait_container(name, None));
            match answers.next().await {
                Some(Ok(answer)) => Ok(answer.status_code),
                Some(Err(Bollard::DockerContainerWaitError { code, .. })) => Ok(code),
                Some(Err(error)) => Err(self
                    .link()
                    .explain(&format!("wait for container {name}"), error)),
                None => Err(Error::Daemon {
                    action: format!("wait for container {name}"),
                    message: "it gave no answer".to_owned(),
                }),
            }
        })
    }

    /// Kills a container; one that has ended meanwhile is stopped, too.
    pub(super) fn kill_container(&self, name: &str) -> Result<()> {
        self.quick(async {
            match self.docker().kill_container(name, None).await {
                Ok(())
                | Err(Bollard::DockerResponseServerError {
                    status_code: 409, ..
                }) => Ok(()),
                Err(error) => Err(self
                    .link()
                    .explain(&format!("stop container {name}"), error)),
            }
        })
    }

    /// Tells a container's terminal its size.
    pub(super) fn resize_container(&self, name: &str, columns: u16, rows: u16) -> Result<()> {
        let options = ResizeContainerTTYOptionsBuilder::default()
            .w(columns.into())
            .h(rows.into())
            .build();
        self.call(
            &format!("resize the terminal of container {name}"),
            self.docker().resize_container_tty(name, options),
        )
    }

    /// Removes a container, also when it runs, and its volumes without a name.
    pub(super) fn remove_container(&self, name: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        self.quick(async {
            match self.docker().remove_container(name, Some(options)).await {
                Ok(()) => Ok(()),
                // Somebody was faster, or still is at it.
                Err(Bollard::DockerResponseServerError {
                    status_code: 404 | 409,
                    ..
                }) => Ok(()),
                Err(error) => Err(self
                    .link()
                    .explain(&format!("remove container {name}"), error)),
            }
        })
    }

    /// Removes a name of an image, and the image when that was its last; its parents stay when `parents`
    /// says so.
    pub fn forget_image(&self, name: &str, parents: Parents) -> Result<()> {
        let options = RemoveImageOptionsBuilder::default()
            .force(true)
            .noprune(parents == Parents::Stay)
            .build();
        let done = self.quick(async {
            match self.docker().remove_image(name, Some(options), None).await {
                Ok(_) => Ok(()),
                Err(Bollard::DockerResponseServerError {
                    status_code: 404, ..
                }) => Ok(()),
                Err(error) => Err(self.link().explain(&format!("remove image {name}"), error)),
            }
        });
        self.changed();
        done
    }

    /// Makes an image `repository:tag` of what a container has on top of its own.
    pub(super) fn commit_container(&self, name: &str, repository: &str, tag: &str) -> Result<()> {
        let options = CommitContainerOptionsBuilder::default()
            .container(name)
            .repo(repository)
            .tag(tag)
            .build();
        self.patient(async {
            let docker = self.docker();
            let made = docker.commit_container(options, ContainerConfig::default());
            made.await.map_err(|error| {
                self.link()
                    .explain(&format!("commit container {name}"), error)
            })
        })?;
        self.changed();
        Ok(())
    }

    /// When a container was made, by its daemon's clock.
    pub(super) fn container_created(&self, name: &str) -> Result<Option<Timestamp>> {
        let inspected = self.call(
            &format!("inspect container {name}"),
            self.docker().inspect_container(name, None),
        )?;
        Ok(inspected.created.and_then(|time| time.parse().ok()))
    }

    /// What a container changed.
    pub(super) fn container_changes(&self, name: &str) -> Result<Vec<(String, Change)>> {
        let changes = self.patient(async {
            let changes = self.docker().container_changes(name).await;
            changes.map_err(|error| {
                self.link()
                    .explain(&format!("compare container {name} with its image"), error)
            })
        })?;
        let kind = |kind| match kind {
            bollard::models::ChangeType::_0 => Change::Modified,
            bollard::models::ChangeType::_1 => Change::Added,
            bollard::models::ChangeType::_2 => Change::Deleted,
        };
        let changes = changes.unwrap_or_default().into_iter();
        Ok(changes
            .map(|change| (change.path, kind(change.kind)))
            .collect())
    }

    /// Whether something is at `path` in a container; what a link leads to is not looked at.
    pub(super) fn container_has(&self, name: &str, path: &str) -> Result<bool> {
        let options = ContainerArchiveInfoOptionsBuilder::default()
            .path(path)
            .build();
        self.quick(async {
            let docker = self.docker();
            match docker.get_container_archive_info(name, Some(options)).await {
                Ok(_) => Ok(true),
                Err(Bollard::DockerResponseServerError {
                    status_code: 404, ..
                }) => Ok(false),
                Err(error) => Err(self
                    .link()
                    .explain(&format!("look for {path} in container {name}"), error)),
            }
        })
    }

    /// A container's labels and state; `None` when there is no such container.
    pub(super) fn container(&self, name: &str) -> Result<Option<Listed>> {
        // The name is matched as a regular expression, with a slash in front.
        let filter = HashMap::from([("name", vec![format!("^/{name}$")])]);
        Ok(self.listed(&filter)?.into_iter().next())
    }

    /// All containers with the label `label`.
    pub(super) fn containers_labelled(&self, label: &str) -> Result<Vec<Listed>> {
        self.listed(&HashMap::from([("label", vec![label.to_owned()])]))
    }

    fn listed(&self, filter: &HashMap<&str, Vec<String>>) -> Result<Vec<Listed>> {
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(filter)
            .build();
        let containers = self.call(
            "list containers",
            self.docker().list_containers(Some(options)),
        )?;
        let listed = containers.into_iter().filter_map(|container| {
            use bollard::models::ContainerSummaryStateEnum as State;
            let name = container.names?.into_iter().next()?;
            Some(Listed {
                name: name.trim_start_matches('/').to_owned(),
                labels: container.labels.unwrap_or_default(),
                is_running: matches!(
                    container.state,
                    Some(State::RUNNING | State::PAUSED | State::RESTARTING)
                ),
            })
        });
        Ok(listed.collect())
    }

    /// IDs and labels of all images with the label `label`, which may be `KEY=VALUE`.
    pub(super) fn images_labelled(
        &self,
        label: &str,
    ) -> Result<Vec<(String, HashMap<String, String>)>> {
        let filter = HashMap::from([("label", vec![label.to_owned()])]);
        let options = ListImagesOptionsBuilder::default().filters(&filter).build();
        let images = self.call("list images", self.docker().list_images(Some(options)))?;
        let images = images.into_iter();
        Ok(images.map(|image| (image.id, image.labels)).collect())
    }

    /// Waits for an answer that takes a busy daemon long.
    pub(super) fn patient<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        self.in_transfer().quick(request)
    }
}

/// What becomes of the images below one that is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parents {
    /// They stay, for builds that begin with the same steps.
    Stay,
    /// Those without a name go too.
    Go,
}
