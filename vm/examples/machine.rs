//! Starts a docker VM from an unpacked guest image and keeps it until its input ends: `machine IMAGE WORK PORT [HOME]`.
//!
//! Prints each stage with its time, and writes the client's certificates to `WORK/client` for docker's own command.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pcocc_core::cancel::Cancel;
use pcocc_vm::job::JobId;
use pcocc_vm::machine::{
    GuestEnvironment, GuestFiles, GuestUser, Hypervisor, MachinePlan, MachineSpec, NetworkPolicy,
    Share,
};
use pcocc_vm::qemu::{Accelerator, Qemu};
use pcocc_vm::tls::{Identities, Validity, endpoint_names};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().map(PathBuf::from);
    let (Some(image), Some(work), Some(port)) = (next(), next(), next()) else {
        return Err("usage: machine IMAGE WORK PORT [HOME]".into());
    };
    let home = next();
    let port: u16 = port.to_string_lossy().parse()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let address = [127, 0, 0, 1].into();
    let names = endpoint_names("node", address, None);
    let id: JobId = "1".parse()?;
    let identities = Identities::issue(id, &names, Validity::of_job(now, None))?;
    let folder = |name: &str| -> std::io::Result<PathBuf> {
        let folder = work.join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    };
    let client = folder("client")?;
    fs::write(client.join("ca.pem"), &identities.server.ca_pem)?;
    fs::write(client.join("cert.pem"), &identities.client.cert_pem)?;
    fs::write(client.join("key.pem"), &identities.client.key_pem)?;
    let own = folder(&format!("vm{port}"))?;
    let plan = MachinePlan {
        hostname: format!("docker-{port}"),
        cpus: 2,
        memory_mib: 1024,
        disk_bytes: 20 << 30,
        scratch: own.clone(),
        sockets: own.clone(),
        console_log: own.join("console.log"),
        user: GuestUser {
            name: "doe".into(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            home: home.clone().unwrap_or_else(|| "/home/doe".into()),
        },
        shares: home
            .iter()
            .map(|home| Share {
                source: home.clone(),
                dest: home.clone(),
                read_only: false,
            })
            .collect(),
        environment: GuestEnvironment::default(),
        network: NetworkPolicy::Public,
        reachable: Vec::new(),
        snapshot: std::env::var_os("NO_SNAPSHOT").is_none(),
        cache: folder("cache")?,
        deadline: Duration::from_secs(600),
    };
    let spec = MachineSpec {
        plan,
        image: GuestFiles {
            kernel: image.join("kernel"),
            initramfs: image.join("initramfs"),
            root: image.join("root.squashfs"),
            data: image.join("data.qcow2"),
            id: "example".into(),
        },
        listen: (address, port).into(),
        identity: identities.server,
        client: identities.client,
    };
    let qemu = Qemu {
        accelerator: Some(Accelerator::Tcg),
        ..Qemu::default()
    };
    let begun = Instant::now();
    let stage = |text: &str| eprintln!("{:7.3} {text}", begun.elapsed().as_secs_f64());
    let mut machine = qemu.start(&spec, &Cancel::new(), &mut |new| stage(&new.to_string()))?;
    println!("{:?}", machine.processes());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    stage("stopping");
    machine.stop(Duration::from_secs(10))?;
    stage("stopped");
    Ok(())
}
