//! Messages from the processes of a container to their starter, until the command runs.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Longest message.
const MOST: usize = 8 << 10;

/// One message.
#[derive(Debug)]
pub(super) enum Message {
    /// The FUSE device the root file system is mounted from.
    Device(OwnedFd),
    /// The near end of the container's pseudo terminal.
    Terminal(OwnedFd),
    /// Something the user should know.
    Warning(String),
    /// The end, with its exit code.
    Failed(u8, String),
}

/// One end of the channel.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    /// Both ends: the starter's and the container's.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (near, far) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(near), Self(far)))
    }

    /// Sends a message; fails when the other end is gone.
    pub(super) fn send(&self, message: &Message) -> io::Result<()> {
        let (head, text, file) = match message {
            Message::Device(file) => ([b'D', 0], "", Some(file)),
            Message::Terminal(file) => ([b'T', 0], "", Some(file)),
            Message::Warning(text) => ([b'W', 0], text.as_str(), None),
            Message::Failed(code, text) => ([b'F', *code], text.as_str(), None),
        };
        let text = text.as_bytes();
        let text = text.get(..MOST - 2).unwrap_or(text);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = file.map(AsFd::as_fd);
        if let Some(file) = &files {
            control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(file)));
        }
        let parts = [IoSlice::new(&head), IoSlice::new(text)];
        sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for the next message; `None` when nobody is left to send one.
    pub(super) fn receive(&self) -> io::Result<Option<Message>> {
        let mut bytes = vec![0; MOST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                // What an end that was killed leaves unread comes out as a reset.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                result => break result?,
            }
        };
        let file = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let message = bytes.get(..received.bytes).unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(match (message, file) {
            ([], _) => None,
            ([b'D', ..], Some(file)) => Some(Message::Device(file)),
            ([b'T', ..], Some(file)) => Some(Message::Terminal(file)),
            ([b'W', _, rest @ ..], _) => Some(Message::Warning(text(rest))),
            ([b'F', code, rest @ ..], _) => Some(Message::Failed(*code, text(rest))),
            _ => {
                return Err(io::Error::other(
                    "a message of the container makes no sense",
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_as_they_were_sent() {
        let (near, far) = Channel::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        far.send(&Message::Device(file.into())).unwrap();
        far.send(&Message::Warning("w".repeat(MOST * 2))).unwrap();
        far.send(&Message::Failed(126, "no".into())).unwrap();
        drop(far);
        assert!(matches!(near.receive().unwrap(), Some(Message::Device(_))));
        let Some(Message::Warning(text)) = near.receive().unwrap() else {
            panic!("no warning");
        };
        assert_eq!(text.len(), MOST - 2);
        let Some(Message::Failed(126, text)) = near.receive().unwrap() else {
            panic!("no failure");
        };
        assert_eq!(text, "no");
        assert!(near.receive().unwrap().is_none());
        assert!(near.send(&Message::Warning(String::new())).is_err());
    }
}
