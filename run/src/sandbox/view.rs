//! Shows an image to generators: they run on the host, and look into the image's root folder.
//!
//! A copy of this process, in a user and a mount namespace of its own, mounts the image on a folder, serves the
//! image, and runs one command after the other on request. The copy ends when the view is dropped.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pcocc_core::cancel::Cancel;
use pcocc_core::process::die_with_parent;
use pcocc_fs::root::{RootTree, serve};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions};

use super::namespace::{self, Ids};
use super::{RunError, refusal, servers, sys, wait_for_threads};

/// Longest answer, in bytes.
const MOST: u64 = 1 << 20;

/// How often a wait checks for cancellation.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Folders for the image: the first empty one is used. Only generators see the image there.
const FOLDERS: [&str; 4] = ["/mnt", "/media", "/srv", "/tmp"];

/// Where the image's root folder and the container's configuration are below that.
const ROOT: &str = "rootfs";
const CONFIG: &str = "config.json";

/// An image that generators can read. Dropping the view unmounts it.
#[derive(Debug)]
pub struct View {
    process: Pid,
    stream: Option<UnixStream>,
}

impl View {
    /// Shows `tree`, which has the folder `rootfs`, with `config` as its `config.json`.
    pub fn open(mut tree: RootTree, config: Vec<u8>, program: &Path) -> Result<Self, RunError> {
        let put = tree.put_file(&Path::new("/").join(CONFIG), config, 0o644);
        put.map_err(|error| RunError::Refused(format!("cannot show the image: {error}")))?;
        let (near, far) = UnixStream::pair().map_err(RunError::io("make a socket"))?;
        let ids = namespace::ids();
        wait_for_threads();
        match sys::clone_into(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) {
            Ok(Some(process)) => {
                drop(far);
                let view = Self {
                    process,
                    stream: Some(near),
                };
                view.expect_ready()?;
                Ok(view)
            }
            Ok(None) => {
                drop(near);
                let code = match show(tree, ids, far) {
                    Ok(()) => 0,
                    Err(_) => super::FAILED,
                };
                sys::exit_now(code)
            }
            Err(error) => {
                let why = refusal::Knobs::read().explain(&error, program);
                Err(RunError::Refused(why))
            }
        }
    }

    /// Runs a command with the two paths as its last arguments; gives its output. The command is abandoned when
    /// `cancel` is raised, and ends with the view at the latest.
    pub fn run(&mut self, words: &[String], cancel: &Cancel) -> Result<String, String> {
        let answer = self
            .stream
            .as_mut()
            .map(|stream| ask(stream, words, cancel));
        match answer {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => Err(format!("could not be run: {error}")),
            None => Err("could not be run: the image is not shown any more".to_owned()),
        }
    }

    fn expect_ready(&self) -> Result<(), RunError> {
        let Some(mut stream) = self.stream.as_ref() else {
            return Ok(());
        };
        match receive(&mut stream) {
            Ok((true, _)) => Ok(()),
            Ok((false, text)) => Err(RunError::Refused(text)),
            Err(source) => Err(RunError::Io {
                action: "show the image to generators",
                source,
            }),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        drop(self.stream.take());
        // A generator that goes on in the background is none of ours any more.
        let _ = rustix::process::kill_process(self.process, Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.process), WaitOptions::empty());
    }
}

fn ask(
    stream: &mut UnixStream,
    words: &[String],
    cancel: &Cancel,
) -> io::Result<Result<String, String>> {
    send(stream, true, &words.join("\0"))?;
    while poll(&mut [PollFd::new(&*stream, PollFlags::IN)], Some(&TICK))
        .is_ok_and(|ready| ready == 0)
        && !cancel.is_cancelled()
    {}
    if cancel.is_cancelled() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let (done, text) = receive(stream)?;
    Ok(if done { Ok(text) } else { Err(text) })
}

/// A message: one byte for success, the length, the text.
fn send(stream: &mut impl Write, good: bool, text: &str) -> io::Result<()> {
    let mut message = vec![u8::from(good)];
    message.extend((text.len() as u64).to_le_bytes());
    message.extend(text.as_bytes());
    stream.write_all(&message)
}

fn receive(stream: &mut impl Read) -> io::Result<(bool, String)> {
    let (mut good, mut length) = ([0], [0; 8]);
    stream.read_exact(&mut good)?;
    stream.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let mut text = Vec::new();
    stream.take(length).read_to_end(&mut text)?;
    if text.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((good == [1], String::from_utf8_lossy(&text).into_owned()))
}

/// Serves the image and its commands, in the copy.
fn show(tree: RootTree, ids: Ids, mut stream: UnixStream) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let place = match mount(tree, ids) {
        Ok(place) => place,
        Err(error) => {
            let text = format!("cannot show the image to generators: {error}");
            return send(&mut stream, false, &text);
        }
    };
    send(&mut stream, true, "")?;
    while let Ok((_, words)) = receive(&mut stream) {
        let mut words = words.split('\0').map(OsString::from);
        let program = words.next().unwrap_or_default();
        let mut command = Command::new(&program);
        command
            .args(words)
            .arg(place.join(CONFIG))
            .arg(place.join(ROOT));
        die_with_parent(&mut command, Signal::KILL);
        match command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
        {
            Err(error) => send(&mut stream, false, &format!("could not be run: {error}"))?,
            Ok(output) if !output.status.success() => {
                send(&mut stream, false, &format!("failed ({})", output.status))?;
            }
            Ok(output) if output.stdout.len() as u64 > MOST => {
                send(
                    &mut stream,
                    false,
                    &format!("printed more than {MOST} bytes"),
                )?;
            }
            Ok(output) => send(&mut stream, true, &String::from_utf8_lossy(&output.stdout))?,
        }
    }
    Ok(())
}

fn mount(tree: RootTree, ids: Ids) -> io::Result<PathBuf> {
    namespace::set_up(ids)?;
    let is_empty =
        |place: &&Path| fs::read_dir(place).is_ok_and(|mut names| names.next().is_none());
    let place = FOLDERS.iter().map(Path::new).find(is_empty);
    let place = place.ok_or_else(|| {
        io::Error::other(format!("none of {} is an empty folder", FOLDERS.join(", ")))
    })?;
    let device = namespace::open_device()?;
    namespace::mount_image(&device, place, ids)?;
    serve(tree, device, servers())?;
    Ok(place.to_owned())
}
