//! Every tool that copies images, as it is used: a table, and how a tool of it is run in a mount.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use pcocc_tests::{Outcome, Window, wait_until};

use crate::hello::Site;

/// A tool.
pub struct Tool {
    /// A name for messages and for the images it makes.
    pub name: &'static str,
    /// The folder in the home in which its source lies alone, under the name of the image: for tools that give the copy
    /// the name of the source, or take the source away.
    folder: Option<&'static str>,
    how: How,
}

enum How {
    /// A line of shell that copies the layout `$from` to `$to`, which is `$name` in its folder.
    Line(&'static str),
    /// Midnight Commander, its keys pressed in a terminal.
    Keys,
}

const fn line(name: &'static str, line: &'static str) -> Tool {
    Tool {
        name,
        folder: None,
        how: How::Line(line),
    }
}

const fn named(name: &'static str, folder: &'static str, line: &'static str) -> Tool {
    Tool {
        name,
        folder: Some(folder),
        how: How::Line(line),
    }
}

/// All of them. Each works again after it failed.
pub const TOOLS: &[Tool] = &[
    line("cp-r", "cp -r $from $to"),
    line("cp-a", "cp -a $from $to"),
    line("cp-t", "cp -rT $from $to"),
    line("cp-reflink", "cp -r --reflink=auto $from $to"),
    line("cp-bytes", "cp -r --reflink=never --sparse=never $from $to"),
    named("cp-into", "in", "cp -r $from ${to%/*}"),
    named("mv", "mv", "mv $from ${to%/*}/"),
    line("busybox", "busybox cp -r $from $to"),
    line("rsync-a", "rsync -a $from/ $to/"),
    line("rsync-r", "rsync -r $from/ $to"),
    line("rsync-inplace", "rsync -a --inplace $from/ $to/"),
    line("rsync-delayed", "rsync -a --delay-updates $from/ $to/"),
    named("rsync-into", "in", "rsync -a $from ${to%/*}/"),
    line(
        "tar",
        "mkdir -p $to; tar -C $from -cf - . | tar -C $to -xf -",
    ),
    line("copytree", "python3 -c \"$python\" copytree $from $to"),
    line("copy2", "python3 -c \"$python\" copy2 $from $to"),
    line("rename", "python3 -c \"$python\" rename $from $to"),
    line(
        "install",
        "rm -rf $to; mkdir $to; cd $from; find . -type f ! -name index.json | while read -r f; do \
         install -D $f $to/$f; done; install index.json $to/index.json",
    ),
    line(
        "dd",
        "mkdir -p $to/blobs/sha256; cd $from; for f in oci-layout blobs/sha256/* index.json; do \
         dd status=none if=$f of=$to/$f || exit; done",
    ),
    line(
        "cat",
        "mkdir -p $to/blobs/sha256; cd $from; for f in index.json blobs/sha256/* oci-layout; do \
         cat $f > $to/$f; done",
    ),
    line("skopeo", "skopeo copy -q oci:$from oci:$to"),
    Tool {
        name: "mc",
        folder: Some("left"),
        how: How::Keys,
    },
];

impl Tool {
    /// Whether it copies from where it is told to, not from a folder that was made for it.
    pub fn reads_its_source(&self) -> bool {
        self.folder.is_none()
    }

    /// Gives the path of the source the tool takes, which is `from` or a copy of it.
    pub fn source(&self, site: &Site, from: &str, image: &str) -> String {
        let Some(folder) = self.folder else {
            return from.to_owned();
        };
        let source = format!("$home/{folder}/{image}");
        site.shell(&format!(
            "rm -rf $home/{folder}; mkdir $home/{folder}; cp -rT {from} {source}"
        ))
        .ok();
        source
    }

    /// Copies `source` (see [`Tool::source`]) to `image` in the folder `to` of the mount.
    pub fn run(&self, site: &Site, source: &str, to: &str, image: &str) -> Outcome {
        match self.how {
            How::Line(line) => site.copy(line, source, to, image),
            How::Keys => press_keys(site, source, to, image),
        }
    }
}

/// F5 copies the folder under the cursor to the other panel.
///
/// There is no exit code to look at, only what a user sees: the copy in the other panel, or the text of an error.
fn press_keys(site: &Site, source: &str, to: &str, image: &str) -> Outcome {
    if site.id_of(to, image).is_none() {
        // It would ask about files that are there from another try.
        wait_until("the last try is gone", Duration::from_secs(10), || {
            !site.shell(&format!("ls {to}/{image}")).status.success()
        });
    }
    let home = site.pcocc.home().display().to_string();
    let (left, _) = source.rsplit_once('/').expect("the source is in a folder");
    let mut mc = site.pcocc.any("mc");
    mc.args(["--nosubshell", "--nomouse", "--nocolor"]);
    mc.arg(left.replace("$home", &home));
    mc.arg(site.mount.join(to));
    let window = Window::start(&mc);
    // At the left edge of a list, and below it when the cursor is on it.
    let folder = format!("│/{image} ");
    let shown = |screen: &str| screen.matches(&folder).count();
    let screen = window.wait("the panels are there", |screen| {
        screen.contains("10Quit") && shown(screen) > 0
    });
    let before = shown(&screen);
    window.key("Down");
    let screen = window.wait("the cursor is on the folder", |screen| {
        shown(screen) > before
    });
    let before = shown(&screen);
    window.key("F5");
    window.wait("it asks what to copy", |screen| {
        screen.contains("Copy directory")
    });
    window.key("Enter");
    let is_error = |screen: &str| screen.contains("─ Error ─");
    let screen = window.wait("the copy ends", |screen| {
        let dialogs = ["─ Copy ─", "Directory scanning"];
        let busy = dialogs.iter().any(|title| screen.contains(title));
        is_error(screen) || (!busy && shown(screen) > before)
    });
    if !is_error(&screen) {
        window.key("F10");
        wait_until("mc ends", Duration::from_secs(10), || window.is_over());
    }
    Outcome {
        command: format!("mc, F5: {source} to {to}/{image}"),
        status: ExitStatus::from_raw(i32::from(is_error(&screen)) << 8),
        stdout: String::new(),
        stderr: screen,
    }
}
