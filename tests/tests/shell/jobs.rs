//! Records of jobs that no VM stands behind.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use pcocc_tests::Pcocc;
use pcocc_vm::job::{Backend, Here, JobId, Jobs, Record, State};

/// Writes the record of a job of Slurm into a home's configuration.
pub fn write(conf: &Path, number: u32, state: State, seconds_left: Option<u64>) {
    let id = JobId::new(number).expect("a job number");
    let folder = Jobs::open(conf).unwrap().folder(id);
    if !folder.path().exists() {
        folder.create().unwrap();
        let client = folder.client_certificates();
        fs::create_dir_all(&client).unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            fs::write(client.join(name), "").unwrap();
        }
    }
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut record = Record::new(id, "docker", Backend::Slurm, "doe", now);
    record.state = state;
    record.endpoint = Some(format!("tcp://127.0.0.{number}:2376"));
    record.deadline = seconds_left.map(|left| now + left);
    // Somebody has to stand for it, or Slurm would be asked.
    let here = Here::look().unwrap();
    record.launcher = Some(here.holder(std::process::id()).unwrap());
    folder.write(&record).unwrap();
}

/// A home with job 7 ready in it.
pub fn home() -> Pcocc {
    let home = Pcocc::new();
    write(&conf(&home), 7, State::Ready, None);
    home
}

/// The configuration folder of a home.
pub fn conf(home: &Pcocc) -> std::path::PathBuf {
    home.home().join(".pcocc")
}
