//! The state of a machine's devices, saved to a file and loaded from it by QEMU's migration.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::process::Process;
use super::qmp::Qmp;
use super::watch::StartWatch;
use crate::machine::MachineError;

/// Longest time that moving the state of the devices may take.
const STATE: Duration = Duration::from_secs(120);

/// Leaves the memory out of the stream of the state: it is a file of its own.
fn leave_memory_out(qmp: &mut Qmp) -> Result<(), MachineError> {
    let capability = json!({"capability": "x-ignore-shared", "state": true});
    qmp.execute(
        "migrate-set-capabilities",
        json!({"capabilities": [capability]}),
    )?;
    Ok(())
}

/// Loads the state of the devices from a file.
pub(super) fn load(
    qmp: &mut Qmp,
    state: &Path,
    sockets: &Path,
    check: impl FnMut() -> Result<(), MachineError>,
) -> Result<(), MachineError> {
    let socket = sockets.join("state");
    leave_memory_out(qmp)?;
    let uri = format!("unix:{}", socket.display());
    qmp.execute("migrate-incoming", json!({"uri": uri}))?;
    let feed = || -> io::Result<()> {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket)?;
        io::copy(&mut File::open(state)?, &mut stream)?;
        Ok(())
    };
    feed().map_err(MachineError::io("load the state", state))?;
    qmp.wait_migrated(STATE, check)
}

/// Stops the guest and saves the state of its devices to the new file `state`; its memory is in its file.
pub(crate) fn save(
    process: &mut Process,
    qmp: &mut Qmp,
    state: &Path,
    sockets: &Path,
    watch: &StartWatch<'_>,
) -> Result<(), MachineError> {
    let socket = sockets.join("state");
    let listener = UnixListener::bind(&socket).map_err(MachineError::io("listen at", &socket))?;
    let mut file = File::create_new(state).map_err(MachineError::io("make", state))?;
    qmp.execute("stop", json!({}))?;
    leave_memory_out(qmp)?;
    let receiver = std::thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        io::copy(&mut stream, &mut file)?;
        Ok(())
    });
    let uri = format!("unix:{}", socket.display());
    qmp.execute("migrate", json!({"uri": uri}))?;
    qmp.wait_migrated(STATE, || watch.check())?;
    qmp.execute("quit", json!({}))?;
    // QEMU has ended or is about to: its end of the stream is closed.
    match receiver.join() {
        Ok(result) => result.map_err(MachineError::io("save the state in", state))?,
        Err(_) => return Err(MachineError::Guest("state was not saved".into())),
    }
    if process.wait(Duration::from_secs(30)).is_none() {
        process.kill();
    }
    let _ = fs::remove_file(&socket);
    Ok(())
}
