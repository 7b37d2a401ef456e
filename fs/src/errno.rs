//! The one table that turns an image error into an errno.

use pcocc_image::Error;
pub use rustix::io::Errno;

/// Result of a request of the kernel.
pub type Result<T, E = Errno> = std::result::Result<T, E>;

/// The errno for `error`; the text goes to the status file and the log.
pub fn errno_of(error: &Error) -> Errno {
    match error {
        Error::Invalid { .. } => Errno::INVAL,
        Error::Corrupt { .. } => Errno::IO,
        Error::NotFound(_) => Errno::NOENT,
        Error::Exists(_) => Errno::EXIST,
        Error::Denied { .. } => Errno::ACCESS,
        Error::Unreachable { .. } | Error::Registry { .. } => Errno::NOTCONN,
        Error::Daemon { message, .. } => daemon(message),
        Error::Io { source, .. } | Error::SpoolFull { source, .. } => source
            .raw_os_error()
            .map_or(Errno::IO, Errno::from_raw_os_error),
        Error::Cancelled => Errno::INTR,
        _ => Errno::IO,
    }
}

/// [`errno_of`] for `map_err`.
pub(crate) fn to_errno(error: impl Into<Error>) -> Errno {
    errno_of(&error.into())
}

/// [`errno_of_io`] for `map_err`.
pub(crate) fn io_to_errno(error: std::io::Error) -> Errno {
    errno_of_io(&error)
}

/// The errno of an I/O error, which may carry an image error.
pub fn errno_of_io(error: &std::io::Error) -> Errno {
    if let Some(inner) = error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
        return errno_of(inner);
    }
    error
        .raw_os_error()
        .map_or(Errno::IO, Errno::from_raw_os_error)
}

/// A daemon reports its own full disk only as text.
fn daemon(message: &str) -> Errno {
    if message.contains("no space left") {
        Errno::NOSPC
    } else if message.contains("quota exceeded") {
        Errno::DQUOT
    } else if message.starts_with("conflict: ") {
        // A container uses the image.
        Errno::BUSY
    } else {
        Errno::IO
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn every_kind_of_error_has_its_errno() {
        let os = |errno: Errno| {
            Error::io("write", "/x")(io::Error::from_raw_os_error(errno.raw_os_error()))
        };
        let daemon = |message: &str| Error::Daemon {
            action: "load".into(),
            message: message.into(),
        };
        for (error, errno) in [
            (Error::NotFound("a".into()), Errno::NOENT),
            (Error::Exists("a".into()), Errno::EXIST),
            (Error::invalid("a", "b"), Errno::INVAL),
            (Error::Cancelled, Errno::INTR),
            (os(Errno::NOSPC), Errno::NOSPC),
            (os(Errno::DQUOT), Errno::DQUOT),
            (os(Errno::ROFS), Errno::ROFS),
            (
                Error::SpoolFull {
                    folder: "/spool".into(),
                    source: Errno::NOSPC.into(),
                },
                Errno::NOSPC,
            ),
            (daemon("write /x: no space left on device"), Errno::NOSPC),
            (daemon("conflict: unable to remove"), Errno::BUSY),
            (daemon("boom"), Errno::IO),
        ] {
            assert_eq!(errno_of(&error), errno, "{error}");
            assert_eq!(errno_of_io(&io::Error::from(error)), errno);
        }
    }
}
