//! A route netlink socket: dumps, commands, and events, each datagram read into one reused buffer.
//!
//! The kernel is asked in the manner of netlink(7) and rtnetlink(7); message types are those of the
//! `rtnetlink` crate. Its connection object is not used: it puts events into an unbounded channel,
//! and a dump that the kernel marks as interrupted looks whole. Here the socket's own receive
//! buffer is the bound, and both troubles are errors that make the monitor ask again.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};

/// The kernel builds dump datagrams of up to 32 KiB (netlink_dump, net/netlink/af_netlink.c).
const BUFFER_LEN: usize = 64 * 1024;

/// Receive buffer of the event socket; about 2,500 events. The kernel cuts it to
/// net.core.rmem_max and doubles it for its own overhead.
const EVENT_BUFFER_LEN: i32 = 1024 * 1024;

/// Nothing the kernel does on a netlink request takes long; without an answer something is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// `struct nlmsghdr`: 16 bytes, the length first; messages are aligned to 4.
const HEADER_LEN: usize = 16;

/// A socket in the network namespace of the thread that opened it.
pub(super) struct Netlink {
    socket: TokioSocket,
    buffer: Vec<u8>,
    sequence: u32,
}

/// One message of a datagram, or that it could not be decoded.
pub(super) type Decoded = Result<NetlinkMessage<RouteNetlinkMessage>, Undecodable>;

/// A message that this version of the decoder does not understand.
#[derive(Debug)]
pub(super) struct Undecodable;

impl Netlink {
    /// Opens a socket that gets the events of `groups`. Must run inside a tokio runtime.
    pub(super) fn open(groups: &[MulticastGroup]) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let mask = groups
            .iter()
            .fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
        if mask != 0 {
            socket.socket_ref().set_rx_buf_sz(EVENT_BUFFER_LEN)?;
        }
        socket.socket_mut().bind(&SocketAddr::new(0, mask))?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(BUFFER_LEN),
            sequence: 0,
        })
    }

    /// Waits for one datagram and gives its messages to `each`.
    ///
    /// Cancel safe: a datagram is either given whole or still in the socket. `ENOBUFS` says that
    /// the socket overflowed and events are lost.
    pub(super) async fn receive(&mut self, mut each: impl FnMut(Decoded)) -> io::Result<()> {
        self.buffer.clear();
        let (socket, buffer) = (&self.socket, &mut self.buffer);
        let from = poll_fn(|context| socket.poll_recv_from(context, buffer)).await?;
        // Port 0 is the kernel; nobody else tells us routes.
        if from.port_number() == 0 {
            messages(&self.buffer, &mut each);
        }
        Ok(())
    }

    /// Asks for all objects of the kind of `request` and gives them to `each`.
    ///
    /// # Errors
    /// `Interrupted` if the objects changed meanwhile, so that some may be missing or doubled.
    pub(super) async fn dump(
        &mut self,
        request: RouteNetlinkMessage,
        mut each: impl FnMut(Result<RouteNetlinkMessage, Undecodable>),
    ) -> io::Result<()> {
        self.send(request, NLM_F_DUMP).await?;
        let mut interrupted = false;
        loop {
            let mut end = None;
            self.answer(|message| match message {
                Ok((header, NetlinkPayload::InnerMessage(message))) => {
                    interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                    each(Ok(message));
                }
                Ok((header, NetlinkPayload::Done(done))) => {
                    interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                    end = Some(if done.code == 0 {
                        Ok(())
                    } else {
                        Err(os_error(done.code))
                    });
                }
                Ok((_, NetlinkPayload::Error(error))) => end = Some(Err(error.to_io())),
                Ok(_) => {}
                Err(undecodable) => each(Err(undecodable)),
            })
            .await?;
            match end {
                Some(Ok(())) if interrupted => return Err(io::ErrorKind::Interrupted.into()),
                Some(end) => return end,
                None => {}
            }
        }
    }

    /// Sends a command and waits for its acknowledgement.
    pub(super) async fn command(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<()> {
        self.send(request, NLM_F_ACK | flags).await?;
        loop {
            let mut end = None;
            self.answer(|message| {
                if let Ok((_, NetlinkPayload::Error(error))) = message {
                    end = Some(if error.code.is_none() {
                        Ok(())
                    } else {
                        Err(error.to_io())
                    });
                }
            })
            .await?;
            if let Some(end) = end {
                return end;
            }
        }
    }

    async fn send(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let kernel = SocketAddr::new(0, 0);
        poll_fn(|context| self.socket.poll_send_to(context, &bytes, &kernel)).await?;
        Ok(())
    }

    /// Waits for one datagram of the answer to the last request. What is left of an answer that was
    /// given up carries an older sequence number and is passed over.
    async fn answer(
        &mut self,
        mut each: impl FnMut(Result<(NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>), Undecodable>),
    ) -> io::Result<()> {
        let sequence = self.sequence;
        let receive = self.receive(|message| match message {
            Ok(message) if message.header.sequence_number == sequence => {
                each(Ok((message.header, message.payload)));
            }
            Ok(_) => {}
            Err(undecodable) => each(Err(undecodable)),
        });
        tokio::time::timeout(ANSWER_TIMEOUT, receive).await?
    }
}

/// The messages of one datagram.
fn messages(datagram: &[u8], each: &mut impl FnMut(Decoded)) {
    let mut rest = datagram;
    while let Some(len) = rest.first_chunk::<4>() {
        let len = u32::from_ne_bytes(*len) as usize;
        let Some(message) = rest.get(..len).filter(|_| len >= HEADER_LEN) else {
            break;
        };
        each(NetlinkMessage::deserialize(message).map_err(|_| Undecodable));
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn os_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code.saturating_abs())
}
