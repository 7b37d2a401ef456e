//! A real registry (Debian's `docker-registry`) on the loopback interface.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::children::{Guarded, read_log, wait_until};
use crate::{certificates_for, scratch};

/// A running registry. It is stopped, and its folder removed, on drop.
#[derive(Debug)]
pub struct Registry {
    // Declared first: the registry must be gone before its folder goes.
    guard: Guarded,
    address: String,
    folder: tempfile::TempDir,
}

impl Registry {
    /// The user a registry with a password lets in.
    pub const USER: &'static str = "tester";
    /// The password of [`USER`](Self::USER).
    pub const PASSWORD: &'static str = "let me in";
    /// Its bcrypt hash, the only kind the registry takes.
    const HASH: &'static str = "$2b$04$CDczkbNBxOFdRC9QU74SxOEqp3tIRlZ38oHRvodITph6XWe5lyLoW";

    /// Starts a registry that anybody may read and write.
    pub fn start() -> Self {
        Self::launch("127.0.0.1", false, false)
    }

    /// Starts a registry that lets in [`USER`](Self::USER) only.
    pub fn with_password() -> Self {
        Self::launch("127.0.0.1", true, false)
    }

    /// Starts a registry that speaks TLS only, with a certificate of an authority of its own.
    pub fn with_tls() -> Self {
        Self::with_tls_at("127.0.0.1")
    }

    /// The same at another address of a namespace of the test's own.
    pub fn with_tls_at(host: &str) -> Self {
        Self::launch(host, false, true)
    }

    fn launch(host: &str, password: bool, tls: bool) -> Self {
        let folder = scratch();
        let top = folder.path();
        let address = free_address(host);
        let mut http = format!("addr: '{address}'");
        if tls {
            certificates_for(host, top);
            http += &format!(
                ", tls: {{certificate: '{0}/cert.pem', key: '{0}/key.pem'}}",
                top.display()
            );
        }
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nhttp: {{{http}}}\nstorage:\n  \
             delete: {{enabled: true}}\n  filesystem: {{rootdirectory: '{}'}}\n",
            top.join("data").display()
        );
        if password {
            let file = top.join("htpasswd");
            fs::write(&file, format!("{}:{}\n", Self::USER, Self::HASH)).expect("write htpasswd");
            config += &format!(
                "auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n",
                file.display()
            );
        }
        let file = top.join("config.yml");
        fs::write(&file, config).expect("write the registry's configuration");
        let log = top.join("log");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file);
        let guard = Guarded::watch(&command, &log);
        wait_until(
            &format!("docker-registry listens on {address}; {}", read_log(&log)),
            Duration::from_secs(20),
            || TcpStream::connect(&address).is_ok(),
        );
        Self {
            guard,
            address,
            folder,
        }
    }

    /// The registry's `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The certificate of the authority of a registry [`with_tls`](Self::with_tls).
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What the registry wrote to its log so far: one line for each request.
    pub fn log(&self) -> String {
        read_log(&self.folder.path().join("log"))
    }

    /// Stops the registry, as if it had failed.
    pub fn stop(&mut self) {
        self.guard.stop();
    }
}

/// Finds a free port. Another process could take it before it is used; that has to be seen yet.
fn free_address(host: &str) -> String {
    let listener = TcpListener::bind((host, 0)).expect("bind to a port");
    listener
        .local_addr()
        .expect("the port's address")
        .to_string()
}
