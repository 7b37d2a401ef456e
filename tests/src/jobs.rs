//! Records of jobs that no VM stands behind.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use pcocc_vm::job::{Backend, Here, JobId, Jobs, Record, State};

use crate::pcocc::Pcocc;

/// Writes the record of a job of Slurm into a home's configuration; its daemon is at 127.0.0.`number`, where none is.
pub fn write(conf: &Path, number: u32, state: State, seconds_left: Option<u64>) {
    let id = JobId::new(number).expect("a job number");
    let folder = Jobs::open(conf).expect("a record of a job").folder(id);
    if !folder.path().exists() {
        folder.create().expect("a record of a job");
        let client = folder.client_certificates();
        fs::create_dir_all(&client).expect("a record of a job");
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            fs::write(client.join(name), "").expect("a record of a job");
        }
    }
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a record of a job")
        .as_secs();
    let mut record = Record::new(id, "docker", Backend::Slurm, "doe", now);
    record.state = state;
    record.endpoint = Some(format!("tcp://127.0.0.{number}:2376"));
    record.deadline = seconds_left.map(|left| now + left);
    // Somebody has to stand for it, or Slurm would be asked.
    let here = Here::read().expect("a record of a job");
    record.launcher = Some(here.holder(std::process::id()).expect("a record of a job"));
    folder.write(&record).expect("a record of a job");
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
