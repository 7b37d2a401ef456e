//! A daemon behind ssh: `ssh HOST docker system dial-stdio`, as docker's own command does it.
//!
//! ssh asks for passwords on the terminal itself, and reads its own configuration and keys. Its last words on standard error
//! are kept: they say why there is no connection.

use std::fmt;
use std::io;
use std::process::Stdio;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::process::{Child, Command};

/// Bytes of ssh's words that are kept.
const MOST_WORDS: usize = 1000;

/// Where ssh leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshHost {
    user: Option<String>,
    /// Host name or address, IPv6 addresses without brackets.
    host: String,
    port: Option<u16>,
    /// Path of the daemon's socket there; docker's default when `None`.
    socket: Option<String>,
}

impl SshHost {
    /// Parses `[USER@]HOST[:PORT][/SOCKET]`.
    pub(super) fn parse(address: &str) -> Option<Self> {
        let (login, socket) = match address.find('/') {
            Some(slash) => address.split_at(slash),
            None => (address, ""),
        };
        let (user, place) = match login.rsplit_once('@') {
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, login),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']')?,
            None => place
                .find(':')
                .map_or((place, ""), |colon| place.split_at(colon)),
        };
        let port = match port {
            "" => None,
            port => Some(
                port.strip_prefix(':')?
                    .parse()
                    .ok()
                    .filter(|port| *port != 0)?,
            ),
        };
        // A word that begins with a dash would be an option of ssh, a shell there would run the rest.
        let is_plain = |text: &str| {
            let legal = |c: char| c.is_ascii_alphanumeric() || "._-:%".contains(c);
            !text.is_empty() && !text.starts_with('-') && text.chars().all(legal)
        };
        let is_path = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        let legal = is_plain(host)
            && user
                .as_deref()
                .is_none_or(|user| is_plain(user) && !user.contains(':'))
            && socket.chars().all(is_path);
        legal.then(|| Self {
            user,
            host: host.to_owned(),
            port,
            socket: (socket.len() > 1).then(|| socket.to_owned()),
        })
    }

    /// The arguments of ssh.
    fn arguments(&self) -> Vec<String> {
        let mut words = vec!["-T".to_owned(), "-oConnectTimeout=30".to_owned()];
        words.extend(self.user.iter().map(|user| format!("-l{user}")));
        words.extend(self.port.iter().map(|port| format!("-p{port}")));
        words.extend(["--".to_owned(), self.host.clone(), "docker".to_owned()]);
        let socket = self.socket.iter();
        words.extend(socket.map(|socket| format!("--host=unix://{socket}")));
        words.extend(["system", "dial-stdio"].map(str::to_owned));
        words
    }
}

impl fmt::Display for SshHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match self.host.contains(':') {
            true => write!(f, "[{}]", self.host)?,
            false => f.write_str(&self.host)?,
        }
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        f.write_str(self.socket.as_deref().unwrap_or_default())
    }
}

/// What ssh said last on standard error.
#[derive(Clone, Debug, Default)]
pub(super) struct SshWords(Arc<Mutex<String>>);

impl SshWords {
    /// The words, if there are any; they are of the connection that has just failed.
    pub(super) fn take(&self) -> Option<String> {
        let words = std::mem::take(&mut *self.0.lock());
        let words = words.trim();
        (!words.is_empty()).then(|| words.to_owned())
    }
}

/// Starts ssh; the connection is its standard input and output. ssh ends with the connection.
pub(super) fn connect(
    host: &SshHost,
    words: &SshWords,
) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
    let mut child = Command::new("ssh")
        .args(host.arguments())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(input), Some(output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let kept = words.clone();
    tokio::spawn(async move {
        let mut text = Vec::new();
        let most = u64::try_from(MOST_WORDS).unwrap_or(u64::MAX);
        let mut errors = errors;
        let _ = (&mut errors).take(most).read_to_end(&mut text).await;
        *kept.0.lock() = String::from_utf8_lossy(&text).into_owned();
        // ssh must not wait for a reader.
        let _ = tokio::io::copy(&mut errors, &mut tokio::io::sink()).await;
    });
    Ok(Connection {
        stream: tokio::io::join(output, input),
        _ssh: child,
    })
}

/// The two pipes, and the process that ends with them.
struct Connection<S> {
    stream: S,
    _ssh: Child,
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_called_as_docker_calls_it() {
        for (address, arguments) in [
            (
                "there",
                "-T -oConnectTimeout=30 -- there docker system dial-stdio",
            ),
            (
                "me@there:2222",
                "-T -oConnectTimeout=30 -lme -p2222 -- there docker system dial-stdio",
            ),
            (
                "me@[::1]:22/run/user/7/docker.sock",
                "-T -oConnectTimeout=30 -lme -p22 -- ::1 docker \
                 --host=unix:///run/user/7/docker.sock system dial-stdio",
            ),
            (
                "there/",
                "-T -oConnectTimeout=30 -- there docker system dial-stdio",
            ),
        ] {
            let host = SshHost::parse(address).unwrap();
            assert_eq!(host.arguments().join(" "), arguments);
            assert_eq!(SshHost::parse(&host.to_string()), Some(host));
        }
        for address in [
            "",
            "@there",
            "me@",
            "me:secret@there",
            "-oProxyCommand=x",
            "me@-x",
            "-x@there",
            "a b",
            "there:",
            "there:0",
            "there:x",
            "[::1",
            "there/$(id)",
            "there;id",
            "th\nere",
        ] {
            assert_eq!(SshHost::parse(address), None, "{address:?}");
        }
    }
}
