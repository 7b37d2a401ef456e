//! Containers in which images are changed: requests to make, start, inspect, commit and remove containers.
//!
//! Each method is one request. [`Daemon`] waits and words the errors; [`super::edit`] combines the requests of
//! an edit.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::errors::Error as Bollard;
use bollard::models::{ContainerConfig, ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, ContainerArchiveInfoOptionsBuilder,
    CreateContainerOptionsBuilder, ListImagesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, ResizeContainerTTYOptionsBuilder,
};
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Deserialize;

use super::bounds::List;
use super::client::Daemon;
use pcocc_image::{Error, Result};

/// The properties of a new container.
#[derive(Clone, Debug)]
pub(super) struct ContainerSpec {
    pub(super) image: String,
    /// Program and arguments, instead of the image's own.
    pub(super) command: Vec<String>,
    /// Whether the container has a terminal.
    pub(super) terminal: bool,
    pub(super) user: String,
    /// Variables beside the image's own, as `NAME=VALUE`.
    pub(super) environment: Vec<String>,
    pub(super) labels: Vec<(String, String)>,
    /// Docker's name of the network; `None` for the default network.
    pub(super) network: Option<String>,
    /// Folder on the daemon's machine, and its read-only mount point.
    pub(super) mount: Option<(PathBuf, String)>,
}

/// A container of a list.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) labels: HashMap<String, String>,
    pub(super) is_running: bool,
}

/// How a path of a container differs from its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// The container's file differs from the image's, perhaps only in its metadata.
    Modified,
    /// Only the container has the path.
    Added,
    /// Only the image has the path.
    Deleted,
}

impl Daemon {
    /// Makes a container without starting it.
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
        // A start may take a while on a slow machine; the daemon answers other requests meanwhile.
        self.patient(async {
            let started = self.docker().start_container(name, None).await;
            started.map_err(|error| {
                self.link()
                    .explain(&format!("start container {name}"), error)
            })
        })
    }

    /// Waits until a container ends; returns its exit status.
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

    /// Kills a container. A container that has ended meanwhile is no error.
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

    /// Sets the size of a container's terminal.
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

    /// Removes a container, even a running one, and its unnamed volumes.
    pub(super) fn remove_container(&self, name: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        self.quick(async {
            match self.docker().remove_container(name, Some(options)).await {
                Ok(()) => Ok(()),
                // Another process has removed the container, or is removing it.
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

    /// Removes a name of an image; an image without a name left is removed. `parents` says whether its parents
    /// stay.
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

    /// Makes the image `repository:tag` out of a container's changes.
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

    /// The creation time of a container, by the daemon's clock.
    pub(super) fn container_created(&self, name: &str) -> Result<Option<Timestamp>> {
        let inspected = self.call(
            &format!("inspect container {name}"),
            self.docker().inspect_container(name, None),
        )?;
        Ok(inspected.created.and_then(|time| time.parse().ok()))
    }

    /// The changes of a container.
    pub(super) fn container_changes(&self, name: &str) -> Result<Vec<(String, Change)>> {
        let changes = self.patient(async {
            let changes = self.docker().container_changes(name).await;
            changes.map_err(|error| {
                self.link()
                    .explain(&format!("compare container {name} with its image"), error)
            })
        })?;
        Ok(listed_changes(changes.unwrap_or_default()))
    }

    /// Whether a container has a file at `path`; links are not followed.
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
        // Docker takes the name for a regular expression, and puts a slash in front of names.
        let filter = HashMap::from([("name", vec![format!("^/{name}$")])]);
        Ok(self.listed(&filter)?.into_iter().next())
    }

    /// All containers with the label `label`.
    pub(super) fn containers_labelled(&self, label: &str) -> Result<Vec<Listed>> {
        self.listed(&HashMap::from([("label", vec![label.to_owned()])]))
    }

    fn listed(&self, filter: &HashMap<&str, Vec<String>>) -> Result<Vec<Listed>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Item {
            names: Option<Vec<String>>,
            labels: Option<HashMap<String, String>>,
            state: Option<String>,
        }
        let action = "list containers";
        let bad = |error: &dyn std::fmt::Display| {
            Error::invalid(format!("docker request to {action}"), error.to_string())
        };
        let filter = serde_json::to_string(filter).map_err(|error| bad(&error))?;
        let mut url =
            reqwest::Url::parse("http://docker/containers/json").map_err(|error| bad(&error))?;
        url.query_pairs_mut()
            .append_pair("all", "true")
            .append_pair("filters", &filter);
        let path = url.as_str().trim_start_matches("http://docker");
        let List(items): List<Item> = self.quick(self.link().json(path, action))?;
        let listed = items.into_iter().filter_map(|item| {
            let name = item.names?.into_iter().next()?;
            let state = item.state.unwrap_or_default();
            Some(Listed {
                name: name.trim_start_matches('/').to_owned(),
                labels: item.labels.unwrap_or_default(),
                is_running: ["running", "paused", "restarting"].contains(&state.as_str()),
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

    /// Waits for an answer that a busy daemon may delay for long.
    pub(super) fn patient<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        self.in_transfer().quick(request)
    }
}

/// The changes in the daemon's list.
pub(super) fn listed_changes(
    list: Vec<bollard::models::FilesystemChange>,
) -> Vec<(String, Change)> {
    let kind = |kind| match kind {
        bollard::models::ChangeType::_0 => Change::Modified,
        bollard::models::ChangeType::_1 => Change::Added,
        bollard::models::ChangeType::_2 => Change::Deleted,
    };
    let list = list.into_iter();
    list.map(|change| (change.path, kind(change.kind)))
        .collect()
}

/// The fate of the parents of a removed image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parents {
    /// They stay, for builds with the same first steps.
    Stay,
    /// Unnamed parents are removed.
    Go,
}
