//! A disturbed network for tests: packets between nodes are dropped, lost or delayed below QUIC,
//! which sees only a bad network. Only nodes that were started with fault injection have such
//! sockets.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use cortado_protocol::NodeId;
use cortado_protocol::chaos::Disturbance;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;

/// The present faults of a node's network. Clones share them.
#[derive(Clone)]
pub struct NetworkFaults(Arc<Mutex<State>>);

struct State {
    /// The node at each address, and whether that address carries data.
    nodes: HashMap<SocketAddr, (NodeId, bool)>,
    faults: Vec<Fault>,
    random: StdRng,
}

struct Fault {
    until: Instant,
    what: Disturbance,
}

/// What happens to the packets to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// They are sent unchanged.
    Sent,
    /// They are dropped.
    Dropped,
    /// Each is lost with this probability; otherwise it is sent after the delay.
    Disturbed { percent: u8, delay: Duration },
}

impl NetworkFaults {
    /// A network without faults. The seed decides which packets are lost later.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let (nodes, faults) = (HashMap::new(), Vec::new());
        Self(Arc::new(Mutex::new(State { nodes, faults, random: StdRng::seed_from_u64(seed) })))
    }

    /// Records the node at this address, and whether its connections carry data. Packets from and
    /// to unknown addresses are never cut off.
    pub fn locate(&self, node: NodeId, address: SocketAddr, data: bool) {
        self.state().nodes.insert(address, (node, data));
    }

    /// Adds a disturbance until the given time. Disturbances of disks and event loops have no
    /// effect here.
    pub fn begin(&self, what: Disturbance, until: Instant) {
        self.state().faults.push(Fault { until, what });
    }

    /// Ends all disturbances. Delayed packets are still sent when they are due.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    fn fate(&self, to: SocketAddr) -> Fate {
        let mut state = self.state();
        let node = state.nodes.get(&to).copied();
        let (mut percent, mut delay) = (0, Duration::ZERO);
        for what in state.now() {
            match what {
                Disturbance::Cut(nodes) | Disturbance::Mute(nodes)
                    if node.is_some_and(|(node, _)| nodes.contains(&node)) =>
                {
                    return Fate::Dropped;
                }
                Disturbance::CutData(nodes) | Disturbance::MuteData(nodes)
                    if node.is_some_and(|(node, data)| data && nodes.contains(&node)) =>
                {
                    return Fate::Dropped;
                }
                Disturbance::Delay { ms } => delay = delay.max(Duration::from_millis((*ms).into())),
                Disturbance::Loss { percent: share } => percent = percent.max(*share),
                Disturbance::Cut(_)
                | Disturbance::Mute(_)
                | Disturbance::Deaf(_)
                | Disturbance::CutData(_)
                | Disturbance::MuteData(_)
                | Disturbance::DeafData(_)
                | Disturbance::DiskHang
                | Disturbance::LoopStall
                | Disturbance::DiskFull => {}
            }
        }
        if percent == 0 && delay.is_zero() {
            Fate::Sent
        } else {
            Fate::Disturbed { percent, delay }
        }
    }

    fn hears(&self, from: SocketAddr) -> bool {
        let mut state = self.state();
        let Some((node, data)) = state.nodes.get(&from).copied() else { return true };
        !state.now().any(|what| match what {
            Disturbance::Cut(nodes) | Disturbance::Deaf(nodes) => nodes.contains(&node),
            Disturbance::CutData(nodes) | Disturbance::DeafData(nodes) => {
                data && nodes.contains(&node)
            }
            _ => false,
        })
    }

    fn is_lost(&self, percent: u8) -> bool {
        self.state().random.random_range(0..100) < percent
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The disturbances that have not ended.
    fn now(&mut self) -> impl Iterator<Item = &Disturbance> {
        if !self.faults.is_empty() {
            let now = Instant::now();
            self.faults.retain(|fault| now < fault.until);
        }
        self.faults.iter().map(|fault| &fault.what)
    }
}

impl fmt::Debug for NetworkFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.state().faults.iter().map(|fault| &fault.what)).finish()
    }
}

/// A packet that is sent later.
struct Late {
    at: Instant,
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    contents: Box<[u8]>,
    src_ip: Option<IpAddr>,
}

/// A socket with such faults. Create it within a tokio runtime.
#[derive(Debug)]
pub(crate) struct FaultySocket {
    inner: Arc<dyn AsyncUdpSocket>,
    faults: NetworkFaults,
    late: mpsc::UnboundedSender<Late>,
}

impl FaultySocket {
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, faults: NetworkFaults) -> Self {
        // QUIC's windows limit how much can wait here.
        let (late, waiting) = mpsc::unbounded_channel();
        tokio::spawn(send_late(Arc::clone(&inner), waiting));
        Self { inner, faults, late }
    }
}

/// Sends the delayed packets in order, until the socket is gone.
async fn send_late(socket: Arc<dyn AsyncUdpSocket>, mut waiting: mpsc::UnboundedReceiver<Late>) {
    let mut writable = Arc::clone(&socket).create_io_poller();
    while let Some(Late { at, destination, ecn, contents, src_ip }) = waiting.recv().await {
        tokio::time::sleep_until(at.into()).await;
        let contents = &contents;
        let packet = Transmit { destination, ecn, contents, segment_size: None, src_ip };
        // A packet that can't be sent is lost, as on any network.
        while let Err(error) = socket.try_send(&packet)
            && error.kind() == io::ErrorKind::WouldBlock
        {
            if poll_fn(|context| writable.as_mut().poll_writable(context)).await.is_err() {
                break;
            }
        }
    }
}

impl AsyncUdpSocket for FaultySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let (percent, delay) = match self.faults.fate(transmit.destination) {
            Fate::Sent => return self.inner.try_send(transmit),
            Fate::Dropped => return Ok(()),
            Fate::Disturbed { percent, delay } => (percent, delay),
        };
        let at = Instant::now() + delay;
        let bytes = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for contents in transmit.contents.chunks(bytes) {
            if !self.faults.is_lost(percent) {
                let &Transmit { destination, ecn, src_ip, .. } = transmit;
                let contents = contents.into();
                // Fails only when the runtime ends, and with it the task that would send the
                // packet.
                let _ = self.late.send(Late { at, destination, ecn, contents, src_ip });
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.inner.poll_recv(context, buffers, meta))?;
        for packet in &mut meta[..received] {
            if !self.faults.hears(packet.addr) {
                // A packet of length 0 is ignored.
                packet.len = 0;
            }
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests;
