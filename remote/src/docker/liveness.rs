//! When a daemon gave its last sign of life, on any connection.
//!
//! A daemon that is busy with many transfers may leave a ping unanswered for long. Bytes that it sends, and
//! bytes that it accepts after a full buffer, show that it lives.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::bounds::Allowance;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Time of the last sign of life. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Liveness(Arc<AtomicU64>);

impl Liveness {
    fn note(&self) {
        let now = START.elapsed().as_millis();
        // One is added, so that zero means never.
        let now = u64::try_from(now).unwrap_or(u64::MAX).saturating_add(1);
        self.0.fetch_max(now, Ordering::Relaxed);
    }

    /// Whether there was a sign of life after `moment`.
    pub(super) fn since(&self, moment: Instant) -> bool {
        let moment = moment.saturating_duration_since(*START).as_millis();
        u128::from(self.0.load(Ordering::Relaxed)) > moment + 1
    }
}

/// A connection whose traffic counts as a sign of life, and which breaks when more comes than is allowed.
pub(super) struct Monitored<S> {
    stream: S,
    liveness: Liveness,
    allowance: Allowance,
    /// The last write had to wait: the next successful write shows that the daemon has made room.
    blocked: bool,
}

impl<S> Monitored<S> {
    pub(super) fn new(stream: S, liveness: &Liveness, allowance: &Allowance) -> Self {
        Self {
            stream,
            liveness: liveness.clone(),
            allowance: allowance.clone(),
            blocked: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Monitored<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let came = buffer.filled().len() - before;
        if came > 0 {
            self.liveness.note();
        }
        Poll::Ready(self.allowance.spend(came))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Monitored<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if self.blocked && matches!(written, Poll::Ready(Ok(_))) {
            self.liveness.note();
        }
        self.blocked = written.is_pending();
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::bounds::LastOverrun;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[test]
    fn what_comes_and_what_is_taken_is_heard_and_what_is_only_sent_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        runtime.block_on(async {
            let liveness = Liveness::default();
            let (ours, mut daemon) = tokio::io::duplex(8);
            let allowance = Allowance::new(&LastOverrun::default());
            let mut ours = Monitored::new(ours, &liveness, &allowance);
            let pause = || tokio::time::sleep(Duration::from_millis(10));
            let start = Instant::now();
            pause().await;
            assert!(!liveness.since(start));
            ours.write_all(b"8 bytes.").await.unwrap();
            assert!(!liveness.since(start), "it fits into a buffer");
            let mut eight = [0; 8];
            let (sent, taken) = tokio::join!(ours.write_all(b"and more"), async {
                pause().await;
                daemon.read_exact(&mut eight).await
            });
            sent.unwrap();
            taken.unwrap();
            assert!(liveness.since(start));
            pause().await;
            let later = Instant::now();
            assert!(!liveness.since(later));
            pause().await;
            daemon.write_all(b"x").await.unwrap();
            ours.read_u8().await.unwrap();
            assert!(liveness.since(later));
        });
    }
}
