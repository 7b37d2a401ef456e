//! What a terminal shows while an image moves, read back through a terminal emulator.

mod sandbox;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::num::NonZero;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use pcocc_image::Digest;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use sandbox::Sandbox;

/// A registry with one image, whose layer stops half-way until [`Registry::go_on`].
struct Registry {
    address: String,
    go_on: Sender<()>,
}

impl Registry {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (go_on, waiting) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let blobs = Arc::new(blobs());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (blobs, waiting) = (Arc::clone(&blobs), Arc::clone(&waiting));
                thread::spawn(move || answer(stream.unwrap(), &blobs, &waiting));
            }
        });
        Self { address, go_on }
    }

    fn go_on(&self) {
        self.go_on.send(()).unwrap();
    }
}

/// Layer, config and manifest, each with its media type.
fn blobs() -> [(Vec<u8>, &'static str); 3] {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), vec![7; 4 << 20]).unwrap();
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder.path()).args(["-c", "file"]);
    let layer = tar.output().unwrap().stdout;
    let digest = Digest::of(&layer).to_string();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    })
    .to_string();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(config.as_bytes()).to_string(), "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest, "size": layer.len(),
        }],
    })
    .to_string();
    [
        (layer, "application/octet-stream"),
        (config.into(), "application/octet-stream"),
        (
            manifest.into(),
            "application/vnd.oci.image.manifest.v1+json",
        ),
    ]
}

fn answer(stream: TcpStream, blobs: &[(Vec<u8>, &str); 3], waiting: &Mutex<Receiver<()>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut stream = stream;
    while let Some(Ok(request)) = lines.next() {
        while lines
            .next()
            .is_some_and(|line| !line.unwrap_or_default().is_empty())
        {}
        let path = request.split(' ').nth(1).unwrap();
        let found = match path {
            "/v2/" => Some((b"{}".to_vec(), "application/json")),
            "/v2/slow/manifests/1" => Some(blobs[2].clone()),
            _ => blobs
                .iter()
                .find(|(blob, _)| path.ends_with(&Digest::of(blob).to_string()))
                .cloned(),
        };
        let (body, kind) = found.unwrap_or_else(|| panic!("{request}"));
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\
             docker-content-digest: {}\r\n\r\n",
            body.len(),
            Digest::of(&body)
        );
        // A client that was interrupted is gone: that is what some of these tests are about.
        if stream.write_all(head.as_bytes()).is_err() || request.starts_with("HEAD") {
            continue;
        }
        let (first, second) = body.split_at(body.len() / 2);
        let _ = stream.write_all(first);
        if body.len() > 100_000 {
            let _ = waiting.lock().unwrap().recv();
        }
        let _ = stream.write_all(second);
    }
}

/// `pcocc` on a terminal of its own.
struct Terminal {
    keys: File,
    output: Receiver<Vec<u8>>,
    raw: Vec<u8>,
    screen: vt100::Parser,
    child: Child,
}

impl Terminal {
    fn run(rows: u16, columns: u16, mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let side = File::options().read(true).write(true).open(name).unwrap();
        tcsetwinsize(&side, size).unwrap();
        // A session of its own, whose terminal this is: keys make signals.
        let mut session = Command::new("setsid");
        session
            .args(["--ctty", "--wait"])
            .arg(command.get_program());
        session
            .args(command.get_args())
            .env_clear()
            .env("TERM", "xterm");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        let child = session
            .stdin(side.try_clone().unwrap())
            .stdout(side.try_clone().unwrap())
            .stderr(side)
            .spawn()
            .expect("setsid of util-linux");
        command.stdin(Stdio::null());
        let keys = File::from(master);
        let mut reader = keys.try_clone().unwrap();
        let (sender, output) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end is an error (EIO), once nobody has the other side open.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            keys,
            output,
            raw: Vec::new(),
            screen: vt100::Parser::new(
                NonZero::new(rows).unwrap(),
                NonZero::new(columns).unwrap(),
                0,
            ),
            child,
        }
    }

    fn text(&self) -> String {
        // Row by row: a bar fills its row to the end, which an emulator takes for a line that goes on.
        let rows: Vec<String> = self.screen.screen().rows(0, 500).collect();
        rows.iter()
            .map(|row| format!("{}\n", row.trim_end()))
            .collect::<String>()
            .trim_end()
            .to_owned()
    }

    /// Reads on until the screen is as wanted.
    #[track_caller]
    fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !wanted(&self.text()) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => {
                    self.screen.process(&bytes);
                    self.raw.extend(bytes);
                }
                Err(error) => panic!("no {what} ({error}):\n{}", self.text()),
            }
        }
    }

    /// Reads to the end; gives the exit code.
    fn end(&mut self) -> Option<i32> {
        while let Ok(bytes) = self.output.recv_timeout(Duration::from_secs(30)) {
            self.screen.process(&bytes);
            self.raw.extend(bytes);
        }
        self.child.wait().unwrap().code()
    }

    /// The terminal is as a shell wants it: cursor shown, at the beginning of a line with nothing on it.
    #[track_caller]
    fn assert_clean(&self) {
        let screen = self.screen.screen();
        let (row, column) = screen.cursor_position();
        assert_eq!(column, 0, "{}", self.text());
        assert!(!screen.hide_cursor());
        let below: String = screen.rows(0, 500).skip(usize::from(row)).collect();
        assert_eq!(below.trim(), "", "{}", self.text());
    }
}

fn import(registry: &Registry, sandbox: &Sandbox) -> Command {
    let config = format!(
        "runtime: {{insecure_registries: ['{}']}}\n",
        registry.address
    );
    sandbox.write(".pcocc/containers.yaml", config);
    sandbox.command(&[
        "image",
        "import",
        &format!("docker://{}/slow:1", registry.address),
        "slow",
    ])
}

#[test]
fn a_bar_is_drawn_and_becomes_an_ordinary_line() {
    let (registry, sandbox) = (Registry::start(), Sandbox::new());
    let mut terminal = Terminal::run(24, 100, import(&registry, &sandbox));
    terminal.until("bar", |text| text.contains("[==="));
    let text = terminal.text();
    assert!(text.contains("Copying blob sha256:"), "{text}");
    assert!(text.contains(" / 4.00 MB ["), "{text}");
    registry.go_on();
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    terminal.assert_clean();
    let text = terminal.text();
    let bars = text.lines().filter(|line| line.contains('[')).count();
    // One for the layer and one for the config, both full.
    assert_eq!(text.matches("=] 0s").count(), bars, "{text}");
    assert!(
        text.trim_end()
            .lines()
            .last()
            .unwrap()
            .starts_with("Imported image: user:slow"),
        "{text}"
    );
}

#[test]
fn nothing_wraps_on_a_narrow_terminal() {
    let (registry, sandbox) = (Registry::start(), Sandbox::new());
    let mut terminal = Terminal::run(24, 36, import(&registry, &sandbox));
    terminal.until("progress", |text| {
        text.contains("Copying blob") && text.contains(" / ")
    });
    // Several redraws: one that wrapped would leave its lines behind.
    thread::sleep(Duration::from_millis(900));
    terminal.until("progress", |text| text.contains(" / "));
    let text = terminal.text();
    assert_eq!(text.matches("Copying blob").count(), 1, "{text}");
    assert_eq!(
        text.lines().filter(|line| !line.is_empty()).count(),
        2,
        "{text}"
    );
    registry.go_on();
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    terminal.assert_clean();
}

#[test]
fn ctrl_c_leaves_a_clean_line_and_the_cursor() {
    let (registry, sandbox) = (Registry::start(), Sandbox::new());
    let mut terminal = Terminal::run(24, 80, import(&registry, &sandbox));
    terminal.until("bar", |text| text.contains("[==="));
    terminal.keys.write_all(b"\x03").unwrap();
    assert_eq!(terminal.end(), Some(130), "{}", terminal.text());
    terminal.assert_clean();
    let text = terminal.text();
    assert!(text.contains("pcocc: failed to import"), "{text}");
    assert!(!text.contains("^C") && !text.contains('['), "{text}");
}

#[test]
fn a_dumb_terminal_gets_lines_and_no_escapes() {
    let (registry, sandbox) = (Registry::start(), Sandbox::new());
    let mut command = import(&registry, &sandbox);
    command.env("TERM", "dumb");
    let mut terminal = Terminal::run(24, 100, command);
    terminal.until("line", |text| text.contains("Copying blob"));
    registry.go_on();
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    assert!(!terminal.raw.contains(&0x1b), "{}", terminal.text());
    assert!(
        terminal.text().contains("Copied blob"),
        "{}",
        terminal.text()
    );
}

#[test]
fn colors_are_for_those_who_want_them() {
    for (variable, colored) in [
        (("SOMETHING", "else"), true),
        (("NO_COLOR", "1"), false),
        (("CLICOLOR", "0"), false),
        (("TERM", "dumb"), false),
    ] {
        let sandbox = Sandbox::new();
        for args in [
            &["--debug", "image", "show", "nothing"] as &[&str],
            &["image", "frobnicate"],
        ] {
            let mut command = sandbox.command(args);
            command
                .env(variable.0, variable.1)
                .env("PCOCC_LOG", "trace");
            let mut terminal = Terminal::run(24, 100, command);
            assert_ne!(terminal.end(), Some(0));
            let raw = String::from_utf8_lossy(&terminal.raw).into_owned();
            if args[0] == "image" || !colored {
                assert_eq!(
                    raw.contains('\x1b'),
                    colored,
                    "{variable:?} {args:?}: {raw:?}"
                );
            }
        }
    }
}
