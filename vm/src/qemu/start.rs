//! From a specification to a machine whose docker daemon answers; see [`super`] for the data path.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use pcocc_core::cancel::Cancel;
use pcocc_guest::protocol::{FromGuest, ToGuest, VERSION};

use super::arguments::{Forward, Memory, Options, arguments};
use super::checks::{check, no_space};
use super::instance::{Instance, InstancePlan, make_data_disk};
use super::namespace::Namespace;
use super::running::QemuMachine;
use super::snapshot::{self, Snapshot, Snapshots};
use super::watch::StartWatch;
use super::{Accelerator, Qemu, accel, migration, settings};
use crate::machine::{Hypervisor, Machine, MachineError, MachineSpec, Stage};
use crate::program;
use crate::service::EndpointClient;

/// How long docker in a resumed guest may take to answer: seconds, more where other programs have the cores.
const RESUMED: Duration = Duration::from_secs(60);

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
            watch: StartWatch::new(spec, cancel),
            on_stage,
        };
        let (instance, snapshot) = start.guest()?;
        let adopted = start.adopt(instance, snapshot.is_some(), &client);
        match (adopted, snapshot) {
            (Err(error), Some(bad)) if !is_final(&error) || start.watch.is_late() => {
                start.watch.answer_by = None;
                start.discard(&bad, &format!("does not work: {error}"));
                let (instance, snapshot) = start.guest()?;
                start.adopt(instance, snapshot.is_some(), &client)
            }
            (adopted, _) => adopted,
        }
    }
}

/// One start of a machine.
struct Start<'a> {
    qemu: &'a Qemu,
    spec: &'a MachineSpec,
    accelerator: Accelerator,
    namespace: bool,
    watch: StartWatch<'a>,
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

    /// Gets a guest whose dockerd runs: out of a snapshot, which is returned as well, or by booting it.
    fn guest(&mut self) -> Result<(Instance, Option<Snapshot>), MachineError> {
        if self.spec.plan.snapshot {
            match self.resume_or_save() {
                Ok(Some((instance, snapshot))) => return Ok((instance, Some(snapshot))),
                Ok(None) => {}
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => self.warn(format!("starting without a snapshot: {error}")),
            }
        }
        let data = self.spec.plan.scratch.join("data.qcow2");
        make_data_disk(self.spec, &data, self.watch.cancel())?;
        Ok((self.boot(Memory::Anonymous, &data, true)?, None))
    }

    /// Resumes a guest, after making its snapshot if there is none; `None` where there is no room for a snapshot.
    fn resume_or_save(&mut self) -> Result<Option<(Instance, Snapshot)>, MachineError> {
        let key = self.key()?;
        let snapshots = Snapshots::open(&self.spec.plan.cache)?;
        if let Some(resumed) = self.resume_one(&snapshots, &key)? {
            return Ok(Some(resumed));
        }
        let _lock = {
            self.watch.doing = "waiting for another VM's snapshot";
            snapshots.lock(|| self.watch.check())?
        };
        // Another VM may have made the snapshot meanwhile.
        if let Some(resumed) = self.resume_one(&snapshots, &key)? {
            return Ok(Some(resumed));
        }
        if let Some(error) = no_space(&self.spec.plan.cache, self.spec.plan.memory_mib) {
            self.warn(format!("no snapshot is made: {error}"));
            return Ok(None);
        }
        let snapshot = self.make_snapshot(&snapshots, &key)?;
        let instance = self.resume(&snapshot)?;
        Ok(Some((instance, snapshot)))
    }

    /// Resumes the snapshot of `key`, if there is a good snapshot.
    fn resume_one(
        &mut self,
        snapshots: &Snapshots,
        key: &str,
    ) -> Result<Option<(Instance, Snapshot)>, MachineError> {
        let (bad, why) = match snapshots.find(key) {
            Ok(None) => return Ok(None),
            Ok(Some(snapshot)) => match self.resume(&snapshot) {
                Ok(instance) => return Ok(Some((instance, snapshot))),
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

    fn resume(&mut self, snapshot: &Snapshot) -> Result<Instance, MachineError> {
        self.stage(Stage::Resuming, "being resumed");
        let data = self.spec.plan.scratch.join("data.qcow2");
        fs::copy(snapshot.data(), &data)
            .map_err(MachineError::io("copy the data disk to", &data))?;
        let (ram, state) = (snapshot.ram(), snapshot.state());
        let plan = InstancePlan {
            memory: Memory::Resumed(&ram),
            state: Some(&state),
            ..self.plan(&data, true)
        };
        Instance::start(self.spec, &plan, &self.watch)
    }

    /// Boots a guest without a job's identity and saves it.
    fn make_snapshot(
        &mut self,
        snapshots: &Snapshots,
        key: &str,
    ) -> Result<Snapshot, MachineError> {
        let folder = snapshots.begin()?;
        let file = |name: &str| folder.path().join(name);
        let (ram, data, state) = (file("ram"), file("data.qcow2"), file("state"));
        make_data_disk(self.spec, &data, self.watch.cancel())?;
        let mut instance = self.boot(Memory::Kept(&ram), &data, false)?;
        self.stage(Stage::SavingSnapshot, "being saved");
        instance.channel.send(&ToGuest::Quiesce)?;
        instance.expect(&self.watch, |message| {
            matches!(message, FromGuest::Quiesced).then_some(())
        })?;
        let Instance { process, qmp, .. } = &mut instance;
        let sockets = &self.spec.plan.sockets;
        migration::save(process, qmp, &state, sockets, &self.watch)?;
        drop(instance);
        snapshots.publish(folder, key)
    }

    /// Boots a guest to "dockerd answers".
    fn boot(
        &mut self,
        memory: Memory<'_>,
        data: &Path,
        job: bool,
    ) -> Result<Instance, MachineError> {
        self.stage(Stage::Booting, "booting");
        let plan = InstancePlan {
            memory,
            ..self.plan(data, job)
        };
        let mut instance = Instance::start(self.spec, &plan, &self.watch)?;
        let protocol = instance.expect(&self.watch, |message| match message {
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
        let prepare = settings::prepare(self.spec, self.namespace)?;
        instance
            .channel
            .send(&ToGuest::Prepare(Box::new(prepare)))?;
        instance.expect(&self.watch, |message| {
            matches!(message, FromGuest::Prepared).then_some(())
        })?;
        Ok(instance)
    }

    fn plan<'b>(&'b self, data: &'b Path, job: bool) -> InstancePlan<'b> {
        InstancePlan {
            program: &self.qemu.program,
            accelerator: self.accelerator,
            memory: Memory::Anonymous,
            state: None,
            data,
            job,
            namespace: self.namespace,
        }
    }

    /// Makes the guest the job's and waits until docker answers at the endpoint.
    fn adopt(
        &mut self,
        mut instance: Instance,
        resumed: bool,
        client: &EndpointClient,
    ) -> Result<Box<dyn Machine>, MachineError> {
        self.stage(Stage::Configuring, "being configured");
        let adopt = settings::adopt(self.spec)?;
        instance.channel.send(&ToGuest::Adopt(Box::new(adopt)))?;
        // A resumed guest has docker already. Damaged memory may keep the guest from answering at all.
        self.watch.answer_by = resumed.then(|| Instant::now() + RESUMED);
        let warnings = instance.expect(&self.watch, |message| match message {
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
        Ok(Box::new(QemuMachine::new(instance, self.spec)))
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
            forward: Forward::Namespace,
            shares: &[],
            nothing: anywhere,
        });
        let mut prepare = settings::prepare(self.spec, self.namespace)?;
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
}

/// Whether an error comes again when the guest is started in another way.
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

/// The processor's own description: model and abilities.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let wanted = |line: &&str| line.starts_with("model name") || line.starts_with("flags");
    text.lines().filter(wanted).take(2).collect()
}
