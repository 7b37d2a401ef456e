//! From a specification to a machine whose docker daemon answers; see [`super`] for the data path.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use pcocc_core::cancel::Cancel;
use pcocc_guest::protocol::{Adopt, FromGuest, Mount, Network, Prepare, ToGuest, User, VERSION};
use serde_json::{Value, json};

use super::arguments::{GUEST_ADDRESS, GUEST_GATEWAY, Memory, Options, arguments, share_tag};
use super::launch::{Launched, Plan, Watch, early_end, launch, make_data_disk, save};
use super::network::{Forward, NAMESERVER, Namespace, check_free};
use super::running::QemuMachine;
use super::snapshot::{self, Snapshot, Snapshots};
use super::{Accelerator, Qemu, accel};
use crate::hex::hex;
use crate::machine::{
    GuestEnvironment, Hypervisor, MAX_SHARES, Machine, MachineError, MachineSpec, NetworkPolicy,
    Stage,
};
use crate::program;
use crate::service::EndpointClient;

/// Least memory docker and a small container run in, in MiB.
const MIN_MEMORY: u64 = 512;
/// Least size of the data disk: that of its template.
const MIN_DISK: u64 = 1 << 30;
/// Largest size of it: as far as the template's file system can grow.
const MAX_DISK: u64 = 1 << 40;
/// How long a guest that was resumed may take until its docker answers: seconds, some more where others have the cores.
const RESUMED: Duration = Duration::from_secs(60);
/// What a VM needs of its scratch disk to do anything at all, in MiB.
const MIN_FREE: u64 = 512;

impl Hypervisor for Qemu {
    fn start(
        &self,
        spec: &MachineSpec,
        cancel: &Cancel,
        on_stage: &mut dyn FnMut(Stage),
    ) -> Result<Box<dyn Machine>, MachineError> {
        check(spec)?;
        let client = EndpointClient::new(spec.listen, &spec.identity.ca_pem, &spec.client)
            .map_err(|error| MachineError::Spec(format!("cannot use the job's {error}")))?;
        let accelerator = match self.accelerator {
            Some(accelerator) => accelerator,
            None => {
                let probing = || on_stage(Stage::Probing);
                accel::find(
                    &self.program,
                    &spec.image,
                    &spec.plan.cache,
                    cancel,
                    probing,
                )?
            }
        };
        let namespace = match Namespace::new(spec.plan.network, &spec.plan.reachable).is_possible()
        {
            Ok(()) => true,
            Err(why) => {
                on_stage(Stage::Warning(format!(
                    "this node gives no network of its own to a VM ({why}): it reaches nothing outside"
                )));
                false
            }
        };
        let mut start = Start {
            qemu: self,
            spec,
            accelerator,
            namespace,
            watch: Watch::new(spec, cancel),
            on_stage,
        };
        let (launched, snapshot) = start.guest()?;
        let owned = start.own(launched, snapshot.is_some(), &client);
        match (owned, snapshot) {
            (Err(error), Some(bad)) if !is_final(&error) || start.watch.is_late() => {
                start.watch.answer_by = None;
                start.discard(&bad, &format!("does not work: {error}"));
                let (launched, snapshot) = start.guest()?;
                start.own(launched, snapshot.is_some(), &client)
            }
            (owned, _) => owned,
        }
    }
}

/// Refuses what cannot work before anything is started.
fn check(spec: &MachineSpec) -> Result<(), MachineError> {
    let refuse = |why: String| Err(MachineError::Spec(why));
    if spec.plan.cpus == 0 {
        return refuse("a VM needs at least one CPU".into());
    }
    if spec.plan.memory_mib < MIN_MEMORY {
        return refuse(format!(
            "{} MiB of memory are too little for docker: ask for {MIN_MEMORY} or more",
            spec.plan.memory_mib
        ));
    }
    if spec.plan.disk_bytes < MIN_DISK {
        return refuse(format!(
            "a disk of {} bytes is too small: ask for {MIN_DISK} or more",
            spec.plan.disk_bytes
        ));
    }
    if spec.plan.disk_bytes > MAX_DISK {
        return refuse(format!(
            "a disk of {} bytes is too large: ask for {MAX_DISK} (1T) or less",
            spec.plan.disk_bytes
        ));
    }
    if spec.plan.shares.len() > MAX_SHARES {
        return refuse(format!(
            "{} folders are to be shared, and a VM can have {MAX_SHARES}: share a folder that holds several",
            spec.plan.shares.len()
        ));
    }
    for share in &spec.plan.shares {
        let meta = fs::metadata(&share.source).map_err(MachineError::io("share", &share.source))?;
        if !meta.is_dir() {
            return refuse(format!(
                "{} is shared, but is no folder",
                share.source.display()
            ));
        }
    }
    for file in [
        &spec.image.kernel,
        &spec.image.initramfs,
        &spec.image.root,
        &spec.image.data,
    ] {
        fs::File::open(file).map_err(MachineError::io("read the guest's file", file))?;
    }
    fs::create_dir_all(&spec.plan.cache)
        .map_err(MachineError::io("make the folder", &spec.plan.cache))?;
    if let Some(error) = no_space(&spec.plan.scratch, MIN_FREE) {
        return Err(error);
    }
    check_free(spec.listen)
}

/// Says so when `folder` has less than `needed_mib` MiB free.
fn no_space(folder: &Path, needed_mib: u64) -> Option<MachineError> {
    let disk = match rustix::fs::statvfs(folder) {
        Ok(disk) => disk,
        Err(error) => return Some(MachineError::io("look at", folder)(error.into())),
    };
    let free_mib = disk.f_bavail.saturating_mul(disk.f_frsize) >> 20;
    (free_mib < needed_mib).then(|| MachineError::NoSpace {
        folder: folder.to_owned(),
        free_mib,
        needed_mib,
    })
}

struct Start<'a> {
    qemu: &'a Qemu,
    spec: &'a MachineSpec,
    accelerator: Accelerator,
    namespace: bool,
    watch: Watch<'a>,
    on_stage: &'a mut dyn FnMut(Stage),
}

impl<'a> Start<'a> {
    fn stage(&mut self, stage: Stage, doing: &'static str) {
        self.watch.doing = doing;
        (self.on_stage)(stage);
    }

    fn warn(&mut self, text: String) {
        (self.on_stage)(Stage::Warning(text));
    }

    /// Gets a guest whose dockerd runs: out of a snapshot, which is told, or by booting it.
    fn guest(&mut self) -> Result<(Launched, Option<Snapshot>), MachineError> {
        if self.spec.plan.snapshot {
            match self.resumed() {
                Ok(Some((launched, snapshot))) => return Ok((launched, Some(snapshot))),
                Ok(None) => {}
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => self.warn(format!("starting without a snapshot: {error}")),
            }
        }
        let data = self.spec.plan.scratch.join("data.qcow2");
        make_data_disk(self.spec, &data, self.watch.cancel())?;
        Ok((self.booted(Memory::Anonymous, &data, true)?, None))
    }

    /// Resumes a guest, after making its snapshot if there is none; `None` where there is no room for one.
    fn resumed(&mut self) -> Result<Option<(Launched, Snapshot)>, MachineError> {
        let key = self.key()?;
        let snapshots = Snapshots::open(&self.spec.plan.cache)?;
        if let Some(resumed) = self.resume_one(&snapshots, &key)? {
            return Ok(Some(resumed));
        }
        let _lock = {
            self.watch.doing = "waiting for another VM's snapshot";
            snapshots.lock(|| self.watch.check())?
        };
        // Somebody else may have made it meanwhile.
        if let Some(resumed) = self.resume_one(&snapshots, &key)? {
            return Ok(Some(resumed));
        }
        if let Some(error) = no_space(&self.spec.plan.cache, self.spec.plan.memory_mib) {
            self.warn(format!("no snapshot is made: {error}"));
            return Ok(None);
        }
        let snapshot = self.made(&snapshots, &key)?;
        let launched = self.resume(&snapshot)?;
        Ok(Some((launched, snapshot)))
    }

    /// Resumes the snapshot of `key`, if there is a good one.
    fn resume_one(
        &mut self,
        snapshots: &Snapshots,
        key: &str,
    ) -> Result<Option<(Launched, Snapshot)>, MachineError> {
        let (bad, why) = match snapshots.find(key) {
            Ok(None) => return Ok(None),
            Ok(Some(snapshot)) => match self.resume(&snapshot) {
                Ok(launched) => return Ok(Some((launched, snapshot))),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => (snapshot, error.to_string()),
            },
            Err(bad) => bad,
        };
        self.discard(&bad, &why);
        Ok(None)
    }

    /// Removes a snapshot that is of no use.
    fn discard(&mut self, bad: &Snapshot, why: &str) {
        self.warn(format!("the snapshot of the guest {why}; it is made anew"));
        bad.remove();
    }

    fn resume(&mut self, snapshot: &Snapshot) -> Result<Launched, MachineError> {
        self.stage(Stage::Resuming, "being resumed");
        let data = self.spec.plan.scratch.join("data.qcow2");
        fs::copy(snapshot.data(), &data)
            .map_err(MachineError::io("copy the data disk to", &data))?;
        let (ram, state) = (snapshot.ram(), snapshot.state());
        let plan = Plan {
            memory: Memory::Resumed(&ram),
            state: Some(&state),
            ..self.plan(&data, true)
        };
        launch(self.spec, &plan, &self.watch)
    }

    /// Boots a guest that is nobody's and saves it.
    fn made(&mut self, snapshots: &Snapshots, key: &str) -> Result<Snapshot, MachineError> {
        let folder = snapshots.begin()?;
        let file = |name: &str| folder.path().join(name);
        let (ram, data, state) = (file("ram"), file("data.qcow2"), file("state"));
        make_data_disk(self.spec, &data, self.watch.cancel())?;
        let mut launched = self.booted(Memory::Kept(&ram), &data, false)?;
        self.stage(Stage::SavingSnapshot, "being saved");
        launched.channel.say(&ToGuest::Quiesce)?;
        self.expect(&mut launched, |message| {
            matches!(message, FromGuest::Quiesced).then_some(())
        })?;
        save(&mut launched, &state, &self.spec.plan.sockets, &self.watch)?;
        drop(launched);
        snapshots.publish(folder, key)
    }

    /// Boots a guest to "dockerd answers".
    fn booted(
        &mut self,
        memory: Memory<'_>,
        data: &Path,
        job: bool,
    ) -> Result<Launched, MachineError> {
        self.stage(Stage::Booting, "booting");
        let plan = Plan {
            memory,
            ..self.plan(data, job)
        };
        let mut launched = launch(self.spec, &plan, &self.watch)?;
        let protocol = self.expect(&mut launched, |message| match message {
            FromGuest::Hello { protocol, .. } => Some(*protocol),
            _ => None,
        })?;
        if protocol != VERSION {
            return Err(MachineError::Image {
                what: self.spec.image.id.clone(),
                why: format!("speaks protocol {protocol} and not {VERSION}: build it again"),
            });
        }
        self.stage(Stage::DaemonStarting, "starting the docker daemon");
        let prepare = self.prepare()?;
        launched.channel.say(&ToGuest::Prepare(Box::new(prepare)))?;
        self.expect(&mut launched, |message| {
            matches!(message, FromGuest::Prepared).then_some(())
        })?;
        Ok(launched)
    }

    fn plan<'b>(&'b self, data: &'b Path, job: bool) -> Plan<'b> {
        Plan {
            program: &self.qemu.program,
            accelerator: self.accelerator,
            memory: Memory::Anonymous,
            state: None,
            data,
            job,
            namespace: self.namespace,
        }
    }

    fn expect<T>(
        &self,
        launched: &mut Launched,
        wanted: impl FnMut(&FromGuest) -> Option<T>,
    ) -> Result<T, MachineError> {
        let Launched {
            process, channel, ..
        } = launched;
        channel.expect(wanted, || {
            self.watch.check()?;
            match process.wait(Duration::ZERO) {
                None => Ok(()),
                Some(how) => {
                    let words = self.spec.plan.sockets.join("qemu.log");
                    Err(early_end(&self.qemu.program, how, &words))
                }
            }
        })
    }

    /// Makes the guest the job's and waits until docker answers at the endpoint.
    fn own(
        &mut self,
        mut launched: Launched,
        resumed: bool,
        client: &EndpointClient,
    ) -> Result<Box<dyn Machine>, MachineError> {
        self.stage(Stage::Configuring, "being configured");
        let adopt = self.adopt()?;
        launched.channel.say(&ToGuest::Adopt(Box::new(adopt)))?;
        // One that was resumed has docker already. Memory that is not as it was saved may keep it from saying anything.
        self.watch.answer_by = resumed.then(|| Instant::now() + RESUMED);
        let warnings = self.expect(&mut launched, |message| match message {
            FromGuest::Adopted { warnings } => Some(warnings.clone()),
            _ => None,
        })?;
        for warning in warnings {
            self.warn(warning);
        }
        self.watch.doing = "about to be ready";
        while let Err(error) = client.ping() {
            tracing::debug!(%error, "the endpoint does not answer yet");
            self.watch.check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        self.watch.answer_by = None;
        (self.on_stage)(Stage::Ready);
        Ok(Box::new(QemuMachine::new(launched, self.spec)))
    }

    /// Identifies guests that can be resumed from each other's snapshots.
    fn key(&self) -> Result<String, MachineError> {
        let version = program::run(
            Command::new(&self.qemu.program).arg("--version"),
            "qemu-system-x86",
            self.watch.cancel(),
        )?;
        let anywhere = Path::new("/");
        let line = arguments(&Options {
            cpus: self.spec.plan.cpus,
            memory_mib: self.spec.plan.memory_mib,
            accelerator: self.accelerator,
            image: &self.spec.image,
            memory: Memory::Anonymous,
            data: anywhere,
            sockets: anywhere,
            console: anywhere,
            forward: Forward::Namespace,
            shares: &[],
            nothing: anywhere,
        });
        let mut prepare = self.prepare()?;
        prepare.time_ns = 0;
        let prepare = serde_json::to_vec(&prepare)
            .map_err(|error| MachineError::Spec(format!("settings of docker: {error}")))?;
        let disk = self.spec.plan.disk_bytes.to_string();
        // KVM shows the guest the node's own processor.
        let processor = match self.accelerator {
            Accelerator::Kvm => processor(),
            Accelerator::Tcg => String::new(),
        };
        let parts = [
            version.as_slice(),
            self.spec.image.id.as_bytes(),
            disk.as_bytes(),
            &prepare,
            processor.as_bytes(),
        ];
        let line: Vec<&[u8]> = line.iter().map(|word| word.as_encoded_bytes()).collect();
        Ok(snapshot::key(parts.into_iter().chain(line)))
    }

    fn prepare(&self) -> Result<Prepare, MachineError> {
        let settings = &self.spec.plan.environment;
        let nameserver = match (self.namespace, self.spec.plan.network) {
            (true, NetworkPolicy::Public | NetworkPolicy::Open) => NAMESERVER,
            _ => GUEST_GATEWAY,
        };
        Ok(Prepare {
            time_ns: now(),
            environment: settings.proxies.clone(),
            ca_certificates: settings.ca_certificates.clone(),
            registry_certificates: settings.registry_certificates.clone(),
            daemon_json: daemon_json(settings)?,
            network: Network {
                address: format!("{GUEST_ADDRESS}/24"),
                gateway: GUEST_GATEWAY.to_owned(),
                nameserver: nameserver.to_owned(),
            },
        })
    }

    fn adopt(&self) -> Result<Adopt, MachineError> {
        let random = random()?;
        let (id, rest) = random.split_at(16);
        let (engine, entropy) = rest.split_at(16);
        let engine = hex(engine);
        let part = |range: std::ops::Range<usize>| engine.get(range).unwrap_or_default();
        let spec = self.spec;
        Ok(Adopt {
            time_ns: now(),
            entropy: BASE64_STANDARD.encode(entropy),
            hostname: spec.plan.hostname.clone(),
            machine_id: hex(id),
            engine_id: format!(
                "{}-{}-4{}-a{}-{}",
                part(0..8),
                part(8..12),
                part(13..16),
                part(17..20),
                part(20..32)
            ),
            ca_pem: spec.identity.ca_pem.clone(),
            cert_pem: spec.identity.cert_pem.clone(),
            key_pem: spec.identity.key_pem.clone(),
            user: User {
                name: spec.plan.user.name.clone(),
                uid: spec.plan.user.uid,
                gid: spec.plan.user.gid,
                home: spec.plan.user.home.clone(),
            },
            mounts: spec
                .plan
                .shares
                .iter()
                .enumerate()
                .map(|(index, share)| Mount {
                    tag: share_tag(index),
                    dest: share.dest.clone(),
                    read_only: share.read_only,
                })
                .collect(),
        })
    }
}

/// Says whether an error would only come again when the guest is started in another way.
fn is_final(error: &MachineError) -> bool {
    matches!(
        error,
        MachineError::Cancelled
            | MachineError::TimedOut { .. }
            | MachineError::PortTaken(_)
            | MachineError::ProgramMissing { .. }
            | MachineError::Spec(_)
            | MachineError::Image { .. }
            | MachineError::Guest(_)
    )
}

/// Lays the site's settings over pcocc's own; those by which pcocc reaches the daemon stay.
fn daemon_json(environment: &GuestEnvironment) -> Result<Value, MachineError> {
    const OURS: [&str; 13] = [
        "hosts",
        "tls",
        "tlsverify",
        "tlscacert",
        "tlscert",
        "tlskey",
        "data-root",
        "exec-root",
        "pidfile",
        "containerd",
        "group",
        "userland-proxy-path",
        "init-path",
    ];
    let mut settings = json!({
        "hosts": ["unix:///run/docker.sock"],
        "data-root": "/data/docker",
        "exec-root": "/run/docker",
        "pidfile": "/run/docker.pid",
        "containerd": "/run/containerd/containerd.sock",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "group": "root",
        "log-level": "warn",
    });
    for (name, list) in [
        ("registry-mirrors", &environment.registry_mirrors),
        ("insecure-registries", &environment.insecure_registries),
    ] {
        if !list.is_empty() {
            settings[name] = json!(list);
        }
    }
    let Some(own) = &environment.daemon_json else {
        return Ok(settings);
    };
    let Some(own) = own.as_object() else {
        return Err(MachineError::Spec(
            "daemon.json must be an object: {…}".into(),
        ));
    };
    for (name, value) in own {
        if OURS.contains(&name.as_str()) {
            return Err(MachineError::Spec(format!(
                "daemon.json sets {name:?}, by which pcocc reaches the docker daemon: remove it"
            )));
        }
        settings[name] = value.clone();
    }
    Ok(settings)
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}

/// The processor's own description: model and abilities.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let wanted = |line: &&str| line.starts_with("model name") || line.starts_with("flags");
    text.lines().filter(wanted).take(2).collect()
}

fn random() -> Result<[u8; 96], MachineError> {
    let mut bytes = [0; 96];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(MachineError::io("read", "/dev/urandom"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_laid_over_ours_and_cannot_cut_us_off() {
        let mut environment = GuestEnvironment {
            registry_mirrors: vec!["https://m".into()],
            insecure_registries: vec!["r:5000".into()],
            daemon_json: Some(json!({"log-level": "debug"})),
            ..GuestEnvironment::default()
        };
        let settings = daemon_json(&environment).unwrap();
        assert_eq!(settings["log-level"], "debug");
        assert_eq!(settings["insecure-registries"][0], "r:5000");
        assert_eq!(settings["registry-mirrors"][0], "https://m");
        assert_eq!(settings["data-root"], "/data/docker");
        for bad in [json!({"hosts": []}), json!({"tlsverify": false}), json!([])] {
            environment.daemon_json = Some(bad.clone());
            assert!(daemon_json(&environment).is_err(), "{bad}");
        }
    }
}
