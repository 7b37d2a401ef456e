//! Between the threads of one layer's pass: bounded channels of pieces, and the first error.

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};

use crate::error::{Error, Result};
use crate::transfer::Context;
use pcocc_layers::compression::Buffer;

/// Pieces under way between two threads.
pub(super) const DEPTH: usize = 4;

/// A piece, or `None` for the end of a stream that is complete and verified.
pub(super) type Piece = Option<Buffer>;

/// State shared by the stages of a pass; each stage checks it at every piece.
#[derive(Debug)]
pub(super) struct Run<'a> {
    context: &'a Context,
    failed: AtomicBool,
    fault: Mutex<Option<Error>>,
}

impl<'a> Run<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        Self {
            context,
            failed: AtomicBool::new(false),
            fault: Mutex::new(None),
        }
    }

    /// Fails when the transfer was cancelled or another stage failed.
    pub(super) fn check(&self) -> Result<()> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Error::Cancelled);
        }
        self.context.check()
    }

    /// Runs a stage and keeps its error if it is the first: later errors follow from the first one, because the
    /// other stages lose their neighbour. The stage must still hold its channels.
    pub(super) fn stage<T>(&self, stage: impl FnOnce() -> Result<T>) -> Option<T> {
        match stage() {
            Ok(value) => Some(value),
            Err(error) => {
                if let Ok(mut fault) = self.fault.lock()
                    && fault.is_none()
                {
                    *fault = Some(error);
                }
                self.failed.store(true, Ordering::Release);
                None
            }
        }
    }

    /// The result of all stages: `value`, or the first error.
    pub(super) fn result<T>(self, value: Option<T>) -> Result<T> {
        match (self.fault.into_inner(), value) {
            (Ok(None), Some(value)) => Ok(value),
            (Ok(Some(fault)), _) => Err(fault),
            _ => Err(Error::Cancelled),
        }
    }
}

/// Hands a piece to the next stage.
pub(super) fn send(to: &Sender<Piece>, piece: Piece) -> Result<()> {
    // The next stage drops its receiver only after an error, which says more.
    to.send(piece).map_err(|_| Error::Cancelled)
}

/// The pieces of a channel as a stream.
pub(super) struct Pieces<'a> {
    from: Receiver<Piece>,
    run: &'a Run<'a>,
    piece: Option<Buffer>,
    at: usize,
    is_complete: bool,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(from: Receiver<Piece>, run: &'a Run<'a>) -> Self {
        Self {
            from,
            run,
            piece: None,
            at: 0,
            is_complete: false,
        }
    }

    /// Reads what the stage left unread, up to the verified end.
    pub(super) fn drain(&mut self) -> Result<()> {
        while !self.is_complete {
            self.next()?;
        }
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.run.check()?;
        self.at = 0;
        self.piece = self.from.recv().map_err(|_| Error::Cancelled)?;
        self.is_complete = self.piece.is_none();
        Ok(())
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while !self.is_complete && !buf.is_empty() {
            let rest = self.piece.as_ref().and_then(|piece| piece.get(self.at..));
            if let Some(rest) = rest.filter(|rest| !rest.is_empty()) {
                let n = rest.len().min(buf.len());
                buf[..n].copy_from_slice(&rest[..n]);
                self.at += n;
                return Ok(n);
            }
            self.next()?;
        }
        Ok(0)
    }
}
