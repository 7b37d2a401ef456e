//! What the agent hands out of docker's images, beside what docker itself says of them.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::time::Duration;

use pcocc_layers::{ChainId, DiffId, Digest};
use pcocc_tests::{TestVm, run, scratch, vm_spec, wait_until};
use pcocc_vm::service::{Service, ServiceStream};
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;

use crate::ends::in_guest;

/// A VM, and what asks its agent.
struct Guest {
    vm: TestVm,
    runtime: Runtime,
}

impl Guest {
    fn open(&self, service: &Service) -> io::Result<(u64, ServiceStream)> {
        let client = self.vm.client();
        self.runtime.block_on(client.content(service))
    }

    fn whole(&self, service: &Service) -> io::Result<Vec<u8>> {
        let (bytes, mut stream) = self.open(service)?;
        let mut content = Vec::new();
        self.runtime.block_on(stream.read_to_end(&mut content))?;
        assert_eq!(content.len() as u64, bytes);
        Ok(content)
    }

    /// The rest of what was announced, or less.
    fn rest(&self, (bytes, mut stream): (u64, ServiceStream)) -> (u64, u64) {
        let mut content = Vec::new();
        let read = stream.read_to_end(&mut content);
        let read = self
            .runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(300), read).await });
        if let Err(error) = read.expect("an end in time") {
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
        }
        (content.len() as u64, bytes)
    }

    fn id(&self, name: &str) -> pcocc_vm::service::Digest {
        let id = self.vm.run(&["image", "inspect", "-f", "{{.Id}}", name]);
        id.trim().to_owned().try_into().expect("an image ID")
    }
}

fn layer(chain_id: ChainId) -> Service {
    Service::Layer {
        chain_id: chain_id.to_string().try_into().expect("a chain ID"),
    }
}

fn chain_ids(config: &[u8]) -> (Vec<DiffId>, Vec<ChainId>) {
    let config: serde_json::Value = serde_json::from_slice(config).expect("a config");
    let diff_ids: Vec<DiffId> =
        serde_json::from_value(config["rootfs"]["diff_ids"].clone()).expect("diff IDs");
    let chain_ids = ChainId::prefixes(&diff_ids);
    (diff_ids, chain_ids)
}

/// What `docker save` has of an image: blobs by their digests.
fn saved(vm: &TestVm, name: &str) -> BTreeMap<Digest, Vec<u8>> {
    let output = vm.docker(&["save", name]).output().expect("docker");
    let mut archive = tar::Archive::new(output.stdout.as_slice());
    let mut blobs = BTreeMap::new();
    for entry in archive.entries().expect("an archive") {
        let mut entry = entry.expect("an entry");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("its content");
        blobs.insert(Digest::of(&content), content);
    }
    blobs
}

#[test]
fn layers_are_what_docker_saves() {
    let folder = scratch();
    let guest = Guest {
        vm: TestVm::start(vm_spec(folder.path())),
        runtime: Runtime::new().expect("a runtime"),
    };
    let vm = &guest.vm;
    vm.load_busybox();
    // What a layer can hold, in one made by a commit.
    let script = r#"mkdir -p /d/deep; cd /d; echo text >file; ln file hard; ln -s /nowhere link; mkfifo pipe
        mknod device c 1 3; : >empty; dd if=/dev/zero of=sparse bs=1 seek=5000000 count=1 2>/dev/null
        printf x >"$(printf 'not-utf8-\377')"; echo y >'<&>"\'; chmod 4755 file; chown 12:34 empty
        dd if=/dev/urandom of=deep/random bs=1000 count=700 2>/dev/null; rm /bin/wget; mkdir -p /tmp/x; rm -r /tmp; mkdir /tmp"#;
    vm.run(&["run", "--name", "changed", "bb", "sh", "-ec", script]);
    vm.run(&["commit", "changed", "odd"]);
    vm.run(&["rm", "changed"]);
    // And one that docker's builder makes.
    let context = folder.path().join("context");
    std::fs::create_dir(&context).expect("a folder");
    std::fs::write(
        context.join("Dockerfile"),
        "FROM odd\nCOPY Dockerfile /a\nRUN rm /d/file\n",
    )
    .expect("a file");
    let mut build = vm.docker(&["build", "-q", "-t", "built"]);
    run(build.env("DOCKER_BUILDKIT", "0").arg(&context)).ok();

    let config = guest.whole(&Service::Image {
        id: guest.id("built"),
    });
    let config = config.expect("a config");
    let blobs = saved(vm, "built");
    let id = guest.id("built").to_string();
    assert_eq!(Digest::of(&config).to_string(), id);
    assert_eq!(blobs.get(&Digest::of(&config)), Some(&config));
    let (diff_ids, chain_ids) = chain_ids(&config);
    assert_eq!(diff_ids.len(), 4);
    let mut parts = 0;
    for (DiffId(diff_id), chain_id) in diff_ids.into_iter().zip(chain_ids) {
        let tar = guest.whole(&layer(chain_id)).expect("a layer");
        assert_eq!(Digest::of(&tar), diff_id);
        assert_eq!(blobs.get(&diff_id), Some(&tar), "not what docker saves");
        let chain_id: pcocc_vm::service::Digest =
            chain_id.to_string().try_into().expect("a digest");
        let entries = Service::Entries {
            chain_id: chain_id.clone(),
        };
        let entries = guest.whole(&entries).expect("its entries");
        assert!(entries.len() <= tar.len() && entries[..512] == tar[..512]);
        // `deep/random` of the committed layer.
        let file = Service::File {
            chain_id,
            path: "ZC9kZWVwL3JhbmRvbQ==".into(),
            offset: 100,
            length: 600_000,
        };
        if let Ok(part) = guest.whole(&file) {
            assert_eq!(part.len(), 600_000);
            let mut places = tar.windows(part.len());
            assert!(places.any(|place| place == part), "not in the layer");
            parts += 1;
        }
    }
    assert_eq!(parts, 1, "the file is in one layer");
    // What is not there is refused, with the reason.
    let nothing = ChainId(Digest::of(b"nothing"));
    for (service, what) in [
        (layer(nothing), "layer"),
        (
            Service::Image {
                id: nothing.to_string().try_into().expect("a digest"),
            },
            "image",
        ),
    ] {
        let error = guest.open(&service).map(|_| ()).expect_err("nothing there");
        let error = error.to_string();
        assert!(
            error.contains(&format!("the guest has no {what} {nothing}")),
            "{error}"
        );
    }
}

#[test]
fn layers_end_with_their_image_and_not_with_dockerd() {
    let folder = scratch();
    let guest = Guest {
        vm: TestVm::start(vm_spec(folder.path())),
        runtime: Runtime::new().expect("a runtime"),
    };
    let vm = &guest.vm;
    // Files that do not fit into the buffers on the way, of no size on the disk.
    let tar = folder.path().join("base.tar");
    let script = r#"mkdir "$1.d"; for n in $(seq 24); do truncate -s 2M "$1.d/$n"; done; tar -C "$1.d" -cf "$1" ."#;
    run(std::process::Command::new("bash")
        .args(["-ec", script, "make"])
        .arg(&tar))
    .ok();
    vm.run(&["import", &tar.to_string_lossy(), "large"]);
    let config = guest.whole(&Service::Image {
        id: guest.id("large"),
    });
    let (diff_ids, chain_ids) = chain_ids(&config.expect("a config"));

    // dockerd dies while the layer comes: it is whole in spite of that.
    let (bytes, mut stream) = guest.open(&layer(chain_ids[0])).expect("a layer");
    let mut content = vec![0; 512];
    guest
        .runtime
        .block_on(stream.read_exact(&mut content))
        .expect("the start");
    in_guest(vm, "kill -9 $(pidof dockerd)");
    guest
        .runtime
        .block_on(stream.read_to_end(&mut content))
        .expect("the rest");
    assert_eq!(content.len() as u64, bytes);
    assert_eq!(Digest::of(&content), diff_ids[0].0);

    // The image goes while its layer comes: the layer ends too early, which the client sees.
    wait_until("dockerd is back", Duration::from_secs(120), || {
        vm.client().ping().is_ok()
    });
    let open = guest.open(&layer(chain_ids[0])).expect("a layer");
    vm.run(&["rmi", "large"]);
    let (came, announced) = guest.rest(open);
    assert!(
        came < announced,
        "{came} of {announced} bytes of a layer that is gone"
    );
    // So does the VM.
    vm.run(&["import", &tar.to_string_lossy(), "large"]);
    let open = guest.open(&layer(chain_ids[0])).expect("a layer");
    let Guest { mut vm, runtime } = guest;
    vm.machine.stop(Duration::from_secs(10)).expect("stop");
    let guest = Guest { vm, runtime };
    let (bytes, mut stream) = open;
    let read = guest.runtime.block_on(stream.read_to_end(&mut Vec::new()));
    assert!(read.map_or(true, |read| (read as u64) < bytes));
}
