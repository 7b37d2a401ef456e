//! Images that a docker VM hands out layer by layer, and VMs that do it badly.

use std::collections::{HashMap, HashSet};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::super::{Answer, Content, DaemonSource, LayerService};
use super::Memory;
use super::archive::{Sample, layer, pack};
use super::fake::Fake;
use super::faults::{is_get, send_archive};
use pcocc_image::oci::{Image, Layer};
use pcocc_image::transfer::{Context, Offer, Receiver, Sink, copy};
use pcocc_image::{Error, Result};
use pcocc_layers::{ChainId, DiffId, Digest};

/// Changes an answer before it is sent.
type Tamper = dyn Fn(Asked, Vec<u8>) -> io::Result<Content> + Send + Sync;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Config,
    /// The place of the layer in the image.
    Layer(usize),
}

/// A VM with one image.
struct Vm {
    config: Vec<u8>,
    chain: Vec<ChainId>,
    layers: Vec<Vec<u8>>,
    asked: Mutex<Vec<Asked>>,
    open: Arc<AtomicUsize>,
    most_open: AtomicUsize,
    tamper: Box<Tamper>,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vm")
    }
}

/// Counts itself for as long as it is open.
struct Counted(Pin<Box<dyn AsyncRead + Send>>, Arc<AtomicUsize>);

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.as_mut().poll_read(context, buffer)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) fn content(bytes: Vec<u8>) -> Content {
    Content {
        bytes: bytes.len() as u64,
        stream: Box::new(io::Cursor::new(bytes)),
    }
}

impl Vm {
    fn new(
        sample: &Sample,
        tamper: impl Fn(Asked, Vec<u8>) -> io::Result<Content> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            config: sample.config.clone(),
            chain: ChainId::prefixes(&sample.inspected.diff_ids),
            layers: sample.layers.clone(),
            asked: Mutex::default(),
            open: Arc::default(),
            most_open: AtomicUsize::new(0),
            tamper: Box::new(tamper),
        })
    }

    fn good(sample: &Sample) -> Arc<Self> {
        Self::new(sample, |_, bytes| Ok(content(bytes)))
    }

    fn answer(&self, asked: Asked, bytes: Vec<u8>) -> Answer<'_> {
        self.asked.lock().unwrap().push(asked);
        Box::pin(async move {
            let content = (self.tamper)(asked, bytes)?;
            let open = 1 + self.open.fetch_add(1, Ordering::SeqCst);
            self.most_open.fetch_max(open, Ordering::SeqCst);
            Ok(Content {
                bytes: content.bytes,
                stream: Box::new(Counted(Box::pin(content.stream), Arc::clone(&self.open))),
            })
        })
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl LayerService for Vm {
    fn config(&self, id: Digest) -> Answer<'_> {
        assert_eq!(id, Digest::of(&self.config));
        self.answer(Asked::Config, self.config.clone())
    }

    fn blob(&self, digest: Digest) -> Answer<'_> {
        panic!("a graph driver has no blob {digest}")
    }

    fn layer(&self, chain_id: ChainId) -> Answer<'_> {
        let place = self.chain.iter().position(|chain| *chain == chain_id);
        let place = place.expect("a layer of the image");
        self.answer(Asked::Layer(place), self.layers[place].clone())
    }
}

/// Copies the image to `sink`; returns how often docker was asked to save it as well.
fn import(sample: &Sample, vm: &Arc<Vm>, sink: &dyn Sink) -> (Result<Image>, usize) {
    let saves = Arc::new(AtomicUsize::new(0));
    let (archive, counted) = (pack(&sample.new_layout()), Arc::clone(&saves));
    let fake = Fake::start(sample.inspected.clone(), move |path, exchange| {
        if is_get(path) {
            counted.fetch_add(1, Ordering::SeqCst);
            send_archive(exchange, &archive);
            exchange.raw(b"0\r\n\r\n");
        }
        is_get(path)
    });
    let daemon = fake
        .daemon()
        .with_layers(Arc::clone(vm) as Arc<dyn LayerService>);
    let image = copy(&DaemonSource::new(daemon, "bb"), sink, &Context::silent());
    (image, saves.load(Ordering::SeqCst))
}

#[test]
fn an_image_comes_layer_by_layer_and_nothing_is_saved() {
    let sample = Sample::of(["a", "b", "c", "d", "e"].map(layer).to_vec());
    let vm = Vm::good(&sample);
    let memory = Memory::default();
    let (image, saves) = import(&sample, &vm, &memory);
    assert_eq!(image.unwrap().config(), sample.config);
    assert_eq!(saves, 0);
    let announced = memory.announced.lock().unwrap().clone();
    let diff_ids: Vec<_> = sample
        .inspected
        .diff_ids
        .iter()
        .copied()
        .map(Some)
        .collect();
    assert_eq!(announced, diff_ids);
    let mut asked = vm.asked();
    asked.sort_by_key(|asked| matches!(asked, Asked::Layer(place) if *place > 0));
    assert_eq!(asked.len(), 6, "{asked:?}");
    let most = vm.most_open.load(Ordering::SeqCst);
    assert!((1..=4).contains(&most), "{most} connections at once");
    assert!(memory.committed.lock().unwrap().is_some());
}

#[test]
fn layers_that_the_receiver_has_do_not_move() {
    let sample = Sample::of(["base", "more", "new"].map(layer).to_vec());
    let vm = Vm::good(&sample);
    let memory = Memory {
        known: sample.inspected.diff_ids[..2]
            .iter()
            .copied()
            .collect::<HashSet<_>>(),
        ..Memory::default()
    };
    let (image, saves) = import(&sample, &vm, &memory);
    assert_eq!(image.unwrap().diff_ids(), sample.inspected.diff_ids);
    assert_eq!(saves, 0);
    assert_eq!(vm.asked(), [Asked::Config, Asked::Layer(2)]);
}

#[test]
fn what_is_wrong_is_found_out_and_docker_saves_the_image_once() {
    type Fault = (&'static str, fn(Asked, Vec<u8>) -> io::Result<Content>);
    fn only(asked: Asked, wanted: Asked, bytes: Vec<u8>, bad: Content) -> io::Result<Content> {
        Ok(if asked == wanted { bad } else { content(bytes) })
    }
    let faults: [Fault; 10] = [
        ("an older agent", |_, _| {
            Err(io::Error::other("the guest does not know this service"))
        }),
        ("an image that was removed", |asked, bytes| match asked {
            Asked::Config => Ok(content(bytes)),
            Asked::Layer(_) => Err(io::Error::other("the guest has no layer")),
        }),
        ("another image's config", |asked, bytes| {
            let other = Sample::of(vec![layer("x")]).config;
            only(asked, Asked::Config, bytes, content(other))
        }),
        ("a config with a million layers", |asked, bytes| {
            let diff_ids = vec!["sha256:x"; 1_000_000];
            let config = serde_json::json!({"rootfs": {"diff_ids": diff_ids}});
            only(
                asked,
                Asked::Config,
                bytes,
                content(config.to_string().into_bytes()),
            )
        }),
        ("a config without end", |asked, bytes| {
            let endless = Content {
                bytes: u64::MAX,
                stream: Box::new(tokio::io::repeat(b' ')),
            };
            only(asked, Asked::Config, bytes, endless)
        }),
        ("a layer with other content", |asked, bytes| {
            let mut other = bytes.clone();
            let last = other.len() - 1;
            other[last] ^= 1;
            only(asked, Asked::Layer(1), bytes, content(other))
        }),
        ("another layer", |asked, bytes| {
            only(asked, Asked::Layer(1), bytes, content(layer("x")))
        }),
        ("a layer that is cut off", |asked, bytes| {
            let mut cut = content(bytes[..bytes.len() / 2].to_vec());
            cut.bytes = bytes.len() as u64;
            only(asked, Asked::Layer(1), bytes, cut)
        }),
        ("a connection that breaks", |asked, bytes| {
            let broken = breaking(bytes[..bytes.len() / 2].to_vec());
            let bad = Content {
                bytes: bytes.len() as u64,
                stream: broken,
            };
            only(asked, Asked::Layer(1), bytes, bad)
        }),
        ("no bytes at all", |asked, bytes| {
            only(asked, Asked::Layer(0), bytes, content(Vec::new()))
        }),
    ];
    let sample = Sample::of(["a", "b", "c"].map(layer).to_vec());
    for (fault, tamper) in faults {
        let vm = Vm::new(&sample, tamper);
        let memory = Memory::default();
        let (image, saves) = import(&sample, &vm, &memory);
        let image = image.unwrap_or_else(|error| panic!("{fault}: {error}"));
        assert_eq!(image.config(), sample.config, "{fault}");
        assert_eq!(saves, 1, "{fault}");
        assert!(memory.committed.lock().unwrap().is_some(), "{fault}");
    }
}

/// Bytes, and then an error.
fn breaking(bytes: Vec<u8>) -> Box<dyn AsyncRead + Send + Unpin> {
    struct Broken;
    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut TaskContext<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }
    Box::new(io::Cursor::new(bytes).chain(Broken))
}

#[test]
fn a_layer_never_has_more_bytes_than_were_announced() {
    // A good layer, after which the VM goes on for ever.
    let sample = Sample::of(vec![layer("a")]);
    let vm = Vm::new(&sample, |asked, bytes| {
        Ok(match asked {
            Asked::Config => content(bytes),
            Asked::Layer(_) => Content {
                bytes: bytes.len() as u64,
                stream: Box::new(io::Cursor::new(bytes).chain(tokio::io::repeat(7))),
            },
        })
    });
    let (image, saves) = import(&sample, &vm, &Memory::default());
    image.unwrap();
    assert_eq!(saves, 0);
}

#[test]
fn what_the_destination_cannot_do_is_not_tried_again() {
    struct Full;
    impl Sink for Full {
        fn open(&self, _: &Context) -> Result<Box<dyn Receiver + '_>> {
            Ok(Box::new(Full))
        }
    }
    impl Receiver for Full {
        fn has_layer(&mut self, _: DiffId) -> Result<bool> {
            Ok(false)
        }
        fn layer(&mut self, _: &Offer<'_>, _: &Context) -> Result<Layer> {
            Err(Error::io("write", "x")(io::ErrorKind::StorageFull.into()))
        }
        fn commit(self: Box<Self>, _: &Image, _: &Context) -> Result<()> {
            Ok(())
        }
    }
    let sample = Sample::of(vec![layer("a")]);
    let (image, saves) = import(&sample, &Vm::good(&sample), &Full);
    assert!(matches!(image, Err(Error::Io { .. })), "{image:?}");
    assert_eq!(saves, 0);
}

/// A squashfs can begin with another image's only if the diff IDs are known before the first layer is written.
#[test]
fn the_store_learns_all_diff_ids_before_a_layer_comes() {
    #[derive(Default)]
    struct Learner(Mutex<Vec<DiffId>>);
    struct Learning<'a>(&'a Learner);
    impl Sink for Learner {
        fn open(&self, _: &Context) -> Result<Box<dyn Receiver + '_>> {
            Ok(Box::new(Learning(self)))
        }
    }
    impl Receiver for Learning<'_> {
        fn expect_layers(&mut self, lowest: &[DiffId], _: &Context) -> Result<()> {
            self.0.0.lock().unwrap().extend(lowest);
            Ok(())
        }
        fn has_layer(&mut self, _: DiffId) -> Result<bool> {
            Ok(false)
        }
        fn layer(&mut self, _: &Offer<'_>, _: &Context) -> Result<Layer> {
            Err(Error::io("write", "x")(io::ErrorKind::StorageFull.into()))
        }
        fn commit(self: Box<Self>, _: &Image, _: &Context) -> Result<()> {
            Ok(())
        }
    }
    let sample = Sample::of(["a", "b", "c"].map(layer).to_vec());
    let (from_vm, from_docker) = (Learner::default(), Learner::default());
    let (image, saves) = import(&sample, &Vm::good(&sample), &from_vm);
    assert!(matches!(image, Err(Error::Io { .. })), "{image:?}");
    assert_eq!(saves, 0);
    let archive = pack(&sample.new_layout());
    let fake = Fake::start(sample.inspected.clone(), move |path, exchange| {
        if is_get(path) {
            send_archive(exchange, &archive);
            exchange.raw(b"0\r\n\r\n");
        }
        is_get(path)
    });
    let source = DaemonSource::new(fake.daemon(), "bb");
    copy(&source, &from_docker, &Context::silent()).unwrap_err();
    for learner in [from_vm, from_docker] {
        assert_eq!(*learner.0.lock().unwrap(), sample.inspected.diff_ids);
    }
}

#[test]
fn a_transfer_that_is_given_up_does_not_wait_for_the_vm() {
    /// Grants everything and never answers.
    #[derive(Debug)]
    struct Silent;
    impl LayerService for Silent {
        fn config(&self, _: Digest) -> Answer<'_> {
            Box::pin(std::future::pending())
        }
        fn layer(&self, _: ChainId) -> Answer<'_> {
            Box::pin(std::future::pending())
        }
        fn blob(&self, _: Digest) -> Answer<'_> {
            Box::pin(std::future::pending())
        }
    }
    let sample = Sample::new();
    let fake = Fake::start(sample.inspected.clone(), |_, _| false);
    let daemon = fake.daemon().with_layers(Arc::new(Silent));
    let context = Context::silent();
    let cancel = context.cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        cancel.cancel();
    });
    let begun = std::time::Instant::now();
    let outcome = copy(
        &DaemonSource::new(daemon, "bb"),
        &Memory::default(),
        &context,
    );
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn the_chain_leads_to_the_right_layers() {
    let sample = Sample::of(["a", "b", "a"].map(layer).to_vec());
    let vm = Vm::good(&sample);
    let by_chain: HashMap<_, _> = vm.chain.iter().zip(&vm.layers).collect();
    assert_eq!(
        by_chain.len(),
        3,
        "equal layers at other places have other chain IDs"
    );
    let (image, saves) = import(&sample, &vm, &Memory::default());
    assert_eq!(image.unwrap().diff_ids(), sample.inspected.diff_ids);
    assert_eq!(saves, 0);
}
