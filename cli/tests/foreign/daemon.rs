//! A docker daemon on a unix socket that answers with fixed documents.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Listens at `socket` until the test's process ends; `answer` gives status and body for a path without its version.
pub(crate) fn start(
    socket: &Path,
    answer: impl Fn(&str) -> Option<(u16, String)> + Send + Sync + Clone + 'static,
) {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || serve(stream, &answer));
        }
    });
}

fn serve(stream: UnixStream, answer: &dyn Fn(&str) -> Option<(u16, String)>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let mut line = String::new();
    while reader.read_line(&mut line).ok()? > 2 {
        line.clear();
    }
    let path = request.split(' ').nth(1)?;
    let path = path.strip_prefix("/v1.41").unwrap_or(path);
    let (status, body) = match path {
        "/_ping" => (200, "OK".to_owned()),
        path => answer(path).unwrap_or((404, r#"{"message":"page not found"}"#.to_owned())),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    reader.get_mut().write_all(head.as_bytes()).ok()?;
    reader.get_mut().write_all(body.as_bytes()).ok()
}
