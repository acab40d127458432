//! Disturbs this node's network and disk when a client asks for it, if the node was started with
//! `--allow-chaos`. A disturbance ends after its time, even if the node can't be reached any more.

mod disk;
mod switch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cortado_log::Storage;
use cortado_membership::View;
use cortado_protocol::chaos::{Disturbance, Order};
use cortado_protocol::client::{ClientError, ClientResponse, ErrorKind};
use cortado_protocol::event::Happening;
use cortado_transport::NetworkFaults;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::history::History;
use disk::FaultyDisk;
pub use switch::Switch;

/// The switches of all disturbances. Clones share them.
#[derive(Clone, Debug)]
pub struct Chaos {
    network: NetworkFaults,
    disk_full: Switch,
    disk_hangs: Switch,
    stall: Switch,
    reserve_bytes: u64,
}

impl Chaos {
    /// Nothing is disturbed at first. The seed decides which packets are lost; a full disk has half
    /// of its reserve left.
    #[must_use]
    pub fn new(seed: u64, reserve_bytes: u64) -> Self {
        Self {
            network: NetworkFaults::new(seed),
            disk_full: Switch::default(),
            disk_hangs: Switch::default(),
            stall: Switch::default(),
            reserve_bytes,
        }
    }

    /// The network of the ports for peers and membership.
    #[must_use]
    pub fn network(&self) -> &NetworkFaults {
        &self.network
    }

    /// Wraps a disk, so that it can become full or hang.
    #[must_use]
    pub fn disk(&self, disk: Arc<dyn Storage>) -> Arc<dyn Storage> {
        let (full, hangs) = (self.disk_full.clone(), self.disk_hangs.clone());
        Arc::new(FaultyDisk::new(disk, full, hangs, self.reserve_bytes / 2))
    }

    /// The switch that blocks the node's event loop while it is on.
    #[must_use]
    pub fn stall(&self) -> &Switch {
        &self.stall
    }

    /// Passes the nodes' addresses to the network, until the membership ends.
    pub fn follow(&self, mut views: watch::Receiver<View>) -> JoinHandle<()> {
        let network = self.network.clone();
        tokio::spawn(async move {
            loop {
                for member in &views.borrow_and_update().members {
                    let node = member.identity;
                    network.locate(node.id, node.gossip_addr(), false);
                    network.locate(node.id, node.peer_addr(), true);
                }
                if views.changed().await.is_err() {
                    return;
                }
            }
        })
    }

    fn begin(&self, what: &Disturbance, duration: Duration) {
        let until = Instant::now() + duration;
        match what {
            Disturbance::DiskFull => self.disk_full.set(Some(until)),
            Disturbance::DiskHang => self.disk_hangs.set(Some(until)),
            Disturbance::LoopStall => self.stall.set(Some(until)),
            what => self.network.begin(what.clone(), until),
        }
    }

    fn heal(&self) {
        self.network.heal();
        for switch in [&self.disk_full, &self.disk_hangs, &self.stall] {
            switch.set(None);
        }
    }
}

/// Carries out an order, or answers why it is refused.
pub(crate) fn obey(chaos: Option<&Chaos>, order: Order, history: &History) -> ClientResponse {
    let Some(chaos) = chaos else {
        let message = "this node refuses to be disturbed: start it with --allow-chaos, or all of a \
                       local cluster with `cortado local up --allow-chaos`";
        return ClientResponse::Error(ClientError::new(ErrorKind::BadInput, message));
    };
    if !order.is_sensible() {
        let message = "the disturbance is out of range; see `cortado chaos --help`";
        return ClientResponse::Error(ClientError::new(ErrorKind::BadInput, message));
    }
    match order {
        Order::Begin { what, for_ms } => {
            chaos.begin(&what, Duration::from_millis(for_ms.into()));
            history.record(Happening::Disturbed { what, for_ms });
        }
        Order::Heal => {
            chaos.heal();
            history.record(Happening::Healed);
        }
    }
    ClientResponse::Accepted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_not_started_for_it_is_not_disturbed() {
        let history = History::new(1);
        let order = Order::Begin { what: Disturbance::DiskFull, for_ms: 1_000 };
        match obey(None, order.clone(), &history) {
            ClientResponse::Error(error) => assert!(error.message.contains("--allow-chaos")),
            other => panic!("{other:?}"),
        }
        let chaos = Chaos::new(1, 0);
        assert_eq!(obey(Some(&chaos), order, &history), ClientResponse::Accepted);
        let endless = Order::Begin { what: Disturbance::DiskFull, for_ms: u32::MAX };
        assert!(matches!(obey(Some(&chaos), endless, &history), ClientResponse::Error(_)));
    }
}
