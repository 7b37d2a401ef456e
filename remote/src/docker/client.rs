//! A connection to a docker daemon: blocking methods over bollard and a small tokio runtime of its own.
//!
//! The first request negotiates the API version by `/_ping`. A request has no deadline, because a daemon may
//! work for minutes. Instead, a daemon that leaves a request unanswered is asked for a sign of life on another
//! connection, so that its loss is noticed in time. Traffic on any other connection counts as a sign of life,
//! too.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bollard::models::{ImageInspect, ImageSummary};
use bollard::query_parameters::{
    ListImagesOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use bollard::{BollardRequest, ClientVersion, Docker};
use futures_util::StreamExt;
use pcocc_core::cancel::Cancel;
use tokio::runtime::Runtime;

use super::connection::{CONNECT_TIMEOUT, Connector, Lives};
use super::endpoint::Endpoint;
use super::events::Watch;
use super::layer_service::LayerService;
use super::link::{Link, Patience, QUICK, TRANSFER, cancelled};
use pcocc_image::oci::MAX_LAYERS;
use pcocc_image::reference::DockerReference;
use pcocc_image::store::Entry;
use pcocc_image::{Error, Result};
use pcocc_layers::{ChainId, DiffId, Digest};

// The deadlines are in `link.rs`; this one must never be reached.
const NO_TIMEOUT_SECONDS: u64 = 365 * 24 * 3600;

/// Most layers of a daemon that are known when an image is sent to it.
const MOST_CHAIN_IDS: usize = 1_000_000;

/// In docker's answer, status 500, about an image that is being removed: its configuration was there, its layers no longer.
const LAYERS_REMOVED: &str = "layer does not exist";

/// How a daemon keeps its images, which decides what an image's ID is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageStore {
    /// Classic graph driver: layers unpacked, the image ID is the config's digest.
    GraphDriver,
    /// containerd's image store: blobs kept as they came, the ID is the manifest's or index's digest.
    Containerd,
}

/// Facts about a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Version of the docker engine, such as `20.10.24`.
    pub version: String,
    /// Storage driver, such as `overlay2`.
    pub driver: String,
    /// How images are kept.
    pub image_store: ImageStore,
}

/// Facts about an image of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The daemon's image ID; [`ImageStore`] says what it is a digest of.
    pub id: Digest,
    /// Diff IDs of the layers, lowest first.
    pub diff_ids: Vec<DiffId>,
    /// Size of the unpacked layers in bytes.
    pub size: u64,
    /// The image's names, with their tags.
    pub tags: Vec<String>,
}

/// A docker daemon. Clones share the connection; methods block and may be called from any thread that
/// is not a tokio worker.
#[derive(Clone)]
pub struct Daemon(Arc<Inner>, Cancel, Patience, Option<Arc<dyn LayerService>>);

struct Inner {
    link: Arc<Link>,
    docker: Docker,
    watch: OnceLock<Watch>,
    // The last field, so that nothing runs on the runtime when it is dropped.
    runtime: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // This never waits: running requests belong to transfers that were given up.
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Daemon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Daemon")
            .field(&self.0.link.endpoint.to_string())
            .finish()
    }
}

impl Daemon {
    /// Reads the certificates and verifies that a docker daemon answers at `endpoint`.
    ///
    /// Fails within about ten seconds with [`Error::Unreachable`], which says how far the connection got.
    pub fn connect(endpoint: Endpoint) -> Result<Self> {
        let daemon = Self::open(endpoint)?;
        daemon.ping()?;
        Ok(daemon)
    }

    /// Like [`Daemon::connect`], but the daemon need not be up yet.
    pub fn open(endpoint: Endpoint) -> Result<Self> {
        Self::open_while(endpoint, None)
    }

    /// Like [`Daemon::open`]. As long as `lives` says that its machine lives, a daemon that does not answer is waited for.
    pub fn open_while(endpoint: Endpoint, lives: Option<Lives>) -> Result<Self> {
        let link = Arc::new(Link {
            connector: Connector::new(endpoint.clone(), lives)?,
            endpoint,
            prefix: OnceLock::new(),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("docker")
            .enable_all()
            .build()
            .map_err(Error::io("start threads for", link.endpoint.to_string()))?;
        let transport = Arc::clone(&link);
        let docker = Docker::connect_with_custom_transport(
            move |request: BollardRequest| {
                let link = Arc::clone(&transport);
                async move {
                    link.send(request)
                        .await
                        .map_err(|error| bollard::errors::Error::IOError { err: error.into() })
                }
            },
            Some("http://docker"),
            NO_TIMEOUT_SECONDS,
            &ClientVersion {
                major_version: bollard::API_DEFAULT_VERSION.major_version,
                minor_version: bollard::API_DEFAULT_VERSION.minor_version,
            },
        )
        .map_err(|error| link.explain("connect", error))?;
        let inner = Inner {
            link,
            docker,
            watch: OnceLock::new(),
            runtime: Some(runtime),
        };
        Ok(Self(Arc::new(inner), Cancel::new(), QUICK, None))
    }

    /// The same daemon, whose VM hands out layers by `service`.
    pub fn with_layers(self, service: Arc<dyn LayerService>) -> Self {
        Self(self.0, self.1, self.2, Some(service))
    }

    /// What hands out the daemon's layers.
    pub(super) fn layer_service(&self) -> Option<&Arc<dyn LayerService>> {
        self.3.as_ref()
    }

    /// The same daemon, whose requests end with [`Error::Cancelled`] when `cancel` is raised.
    pub(super) fn until(&self, cancel: &Cancel) -> Self {
        Self(Arc::clone(&self.0), cancel.clone(), self.2, self.3.clone())
    }

    /// The same daemon, with the patience for a daemon that is busy with transfers.
    pub(super) fn in_transfer(&self) -> Self {
        Self(
            Arc::clone(&self.0),
            self.1.clone(),
            TRANSFER,
            self.3.clone(),
        )
    }

    /// The daemon's address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.0.link.endpoint
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.0.link
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.0.docker
    }

    pub(super) fn runtime(&self) -> Result<&Runtime> {
        // The runtime is there until the last clone is dropped.
        self.0
            .runtime
            .as_ref()
            .ok_or_else(|| self.0.link.connector.unreachable("was let go"))
    }

    /// Waits for an answer as long as the daemon is alive.
    pub(super) fn quick<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime()?.block_on(async {
            tokio::select! {
                answer = request => answer,
                error = self.0.link.silence(self.2) => Err(error),
                error = cancelled(&self.1) => Err(error),
            }
        })
    }

    pub(super) fn call<T>(
        &self,
        action: &str,
        request: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        self.quick(async {
            let answer = request.await;
            answer.map_err(|error| self.0.link.explain(action, error))
        })
    }

    /// Verifies that the daemon answers.
    pub fn ping(&self) -> Result<()> {
        let link = &self.0.link;
        self.runtime()?.block_on(async {
            let time = 2 * CONNECT_TIMEOUT;
            match link.connector.patiently(time, link.ping()).await {
                Some(answer) => answer,
                None => Err(link
                    .connector
                    .unreachable("takes the connection but does not answer")),
            }
        })
    }

    /// Facts about the daemon.
    pub fn info(&self) -> Result<Info> {
        let info = self.call("describe itself", self.docker().info())?;
        let containerd = info.driver_status.unwrap_or_default().iter().any(|pair| {
            pair.iter()
                .any(|s| s.starts_with("io.containerd.snapshotter"))
        });
        Ok(Info {
            version: info.server_version.unwrap_or_default(),
            driver: info.driver.unwrap_or_default(),
            image_store: if containerd {
                ImageStore::Containerd
            } else {
                ImageStore::GraphDriver
            },
        })
    }

    /// The named images, one entry for each name, sorted by name.
    pub fn list(&self) -> Result<Vec<Entry>> {
        let options = ListImagesOptionsBuilder::default().build();
        let images = self.call("list images", self.docker().list_images(Some(options)))?;
        entries(images)
    }

    /// Chain IDs of the layers of all images, unnamed and intermediate images included.
    pub(super) fn chain_ids(&self) -> Result<HashSet<ChainId>> {
        let options = ListImagesOptionsBuilder::default().all(true).build();
        let images = self.call("list images", self.docker().list_images(Some(options)))?;
        let mut inspected = Box::pin(
            futures_util::stream::iter(images)
                .map(|image| async move { self.inspect_async(&image.id).await })
                .buffer_unordered(8),
        );
        self.quick(async {
            let mut chain_ids = HashSet::new();
            while let Some(image) = inspected.next().await {
                match image {
                    Ok(image) => chain_ids.extend(ChainId::prefixes(&image.diff_ids)),
                    // The image was removed meanwhile.
                    Err(Error::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
                if chain_ids.len() > MOST_CHAIN_IDS {
                    // What is not known is sent.
                    break;
                }
            }
            Ok(chain_ids)
        })
    }

    /// ID, layers and size of the image with the name or ID `name`.
    pub fn inspect(&self, name: &str) -> Result<Inspected> {
        self.quick(self.inspect_async(name))
    }

    pub(super) async fn inspect_async(&self, name: &str) -> Result<Inspected> {
        let answer = self.docker().inspect_image(name).await;
        inspected(answer.map_err(|error| self.about(name, "inspect", error))?)
    }

    /// Converts bollard's error, for requests whose likeliest failure is a missing image.
    fn about(&self, name: &str, verb: &str, error: bollard::errors::Error) -> Error {
        let missing = match &error {
            bollard::errors::Error::DockerResponseServerError {
                status_code,
                message,
            } => *status_code == 404 || message.contains(LAYERS_REMOVED),
            _ => false,
        };
        if missing {
            let endpoint = self.endpoint();
            return Error::NotFound(format!("image {name} in the docker daemon at {endpoint}"));
        }
        self.0.link.explain(&format!("{verb} image {name}"), error)
    }

    /// Gives the image `source` the further name `repository:tag`; an existing name moves.
    pub fn tag(&self, source: &str, repository: &str, tag: &str) -> Result<()> {
        let options = TagImageOptionsBuilder::default()
            .repo(repository)
            .tag(tag)
            .build();
        let done = self.quick(async {
            let done = self.docker().tag_image(source, Some(options)).await;
            done.map_err(|error| self.about(source, "tag", error))
        });
        self.changed();
        done
    }

    /// Removes a name; an image without a name left is removed.
    pub fn remove(&self, name: &str) -> Result<()> {
        let options = RemoveImageOptionsBuilder::default().build();
        let done = self.quick(async {
            let done = self.docker().remove_image(name, Some(options), None).await;
            done.map_err(|error| self.about(name, "remove", error))
        });
        self.changed();
        done.map(|_| ())
    }

    /// A number that changes whenever [`Daemon::list`] may have changed.
    pub fn version(&self) -> Result<u64> {
        let watch = match self.0.watch.get() {
            Some(watch) => watch,
            None => {
                let watch = Watch::start(self.runtime()?, Arc::clone(&self.0.link));
                self.0.watch.get_or_init(|| watch)
            }
        };
        watch.version(|| self.list())
    }

    /// The named images. If nothing has changed since [`Daemon::version`], its list is used: a listing costs
    /// one request, not two.
    pub(super) fn known_list(&self) -> Result<Vec<Entry>> {
        match self.0.watch.get().and_then(Watch::take) {
            Some(entries) => Ok(entries),
            None => self.list(),
        }
    }

    /// Tells watchers of a change by this process, so that they need not wait for the event.
    pub(super) fn changed(&self) {
        if let Some(watch) = self.0.watch.get() {
            watch.changed();
        }
    }
}

/// One entry for each name in the daemon's list, sorted by name. What is no reference is left out: such a name would be an
/// option, a path or an escape sequence to whoever lists the tree.
pub(super) fn entries(images: Vec<ImageSummary>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for image in images {
        let id = image.id.parse::<Digest>()?;
        for name in image.repo_tags {
            if name.parse::<DockerReference>().is_err() {
                // "<none>:<none>" is docker's own.
                tracing::debug!(?name, "the docker daemon lists what is no name of an image");
                continue;
            }
            entries.push(Entry {
                name,
                id: Some(id),
                size: u64::try_from(image.size).unwrap_or(0),
                created: time(image.created),
            });
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

pub(super) fn inspected(image: ImageInspect) -> Result<Inspected> {
    let diff_ids = image.root_fs.and_then(|root_fs| root_fs.layers);
    let layers = diff_ids.as_ref().map_or(0, Vec::len);
    if layers > MAX_LAYERS {
        return Err(Error::invalid(
            "an image of the docker daemon",
            format!("has {layers} layers, more than the {MAX_LAYERS} allowed"),
        ));
    }
    Ok(Inspected {
        id: image.id.unwrap_or_default().parse()?,
        diff_ids: diff_ids
            .unwrap_or_default()
            .iter()
            .map(|diff_id| Ok(DiffId(diff_id.parse()?)))
            .collect::<Result<_>>()?,
        size: image
            .size
            .and_then(|size| u64::try_from(size).ok())
            .unwrap_or(0),
        tags: image.repo_tags.unwrap_or_default(),
    })
}

fn time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    if seconds < 0 {
        epoch.checked_sub(distance)
    } else {
        epoch.checked_add(distance)
    }
    .unwrap_or(epoch)
}
