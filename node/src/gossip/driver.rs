//! The loop of detector and election: reads datagrams, runs timers, carries out effects. Runs on
//! the gossip thread.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cortado_membership::{DetectorConfig, Effect, Lead, Membership, Output, View};
use cortado_protocol::event::Happening;
use cortado_transport::{Endpoint, EndpointError, Kind};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::links::{Arrival, Links};
use super::saving::Saving;
use super::seeds;
use super::types::{Command, GossipConfig, GossipError, Memory, Refused};
use crate::clock::unix_ms;
use crate::history::History;

/// Time limit for sending the announcement of a departure.
const GOODBYE: Duration = Duration::from_millis(200);
/// How often the reactor runs before timers do. A datagram passes three tasks before it arrives
/// here: the socket's, its connection's and its reader's.
const TURNS: usize = 4;

/// Channels to the rest of the node.
pub(super) struct News {
    pub(super) views: watch::Sender<View>,
    pub(super) leaders: watch::Sender<Lead>,
    pub(super) refused: watch::Sender<Refused>,
}

pub(super) struct Driver {
    membership: Membership,
    endpoint: Endpoint,
    local: SocketAddr,
    links: Links,
    arriving: mpsc::Receiver<Arrival>,
    seeds: watch::Receiver<Vec<SocketAddr>>,
    address: watch::Receiver<IpAddr>,
    memory: Arc<dyn Memory>,
    saving: Saving,
    news: News,
    history: History,
    started: Instant,
    /// Name lookups; they end with the driver.
    _look_up: JoinSet<()>,
}

impl Driver {
    pub(super) fn bind(
        config: GossipConfig,
        memory: Arc<dyn Memory>,
        news: News,
    ) -> Result<Self, GossipError> {
        let endpoint =
            Endpoint::faulty_node(Kind::Gossip, config.bind, &config.tls, config.faults.as_ref())?;
        let local = endpoint
            .local_addr()
            .map_err(|source| EndpointError::Bind { address: config.bind, source })?;
        let mut me = config.me;
        if me.gossip_port == 0 {
            me.gossip_port = local.port();
        }
        // Seeds that are addresses are usable from the beginning.
        let addresses: Vec<_> = config.seeds.iter().filter_map(|seed| seed.parse().ok()).collect();
        let started = Instant::now();
        let membership = Membership::new(
            DetectorConfig { profile: config.profile, seed: config.seed, seeds: addresses.clone() },
            me,
            config.known,
            Duration::ZERO,
            unix_ms(),
        );
        let (found, seeds) = watch::channel(addresses);
        let mut look_up = JoinSet::new();
        look_up.spawn(seeds::look_up(config.seeds, found));
        let (moved, address) = watch::channel(me.ip);
        if config.follow_own_name {
            look_up.spawn(seeds::follow_own_name(config.bind.ip(), moved));
        }
        let (links, arriving) = Links::new(endpoint.clone(), config.tls.cluster());
        Ok(Self {
            membership,
            endpoint,
            local,
            links,
            arriving,
            seeds,
            address,
            saving: Saving::new(Arc::clone(&memory)),
            memory,
            news,
            history: config.history,
            started,
            _look_up: look_up,
        })
    }

    pub(super) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), GossipError> {
        let (mut looking_up, mut following) = (true, true);
        self.carry_out();
        loop {
            let deadline = self.membership.next_deadline().map(|at| self.started + at);
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(arrival) = self.arriving.recv() => self.take(arrival),
                handshake = self.endpoint.accept() => match handshake {
                    Some(handshake) => self.links.accept(handshake),
                    None => return Err(GossipError::Failed),
                },
                command = commands.recv() => match command {
                    Some(Command::Draining(draining)) => {
                        self.membership.set_draining(self.now(), draining);
                    }
                    Some(Command::Troubles(troubles)) => {
                        self.membership.add_troubles(self.now(), &troubles);
                    }
                    Some(Command::Ill(illness, is_bad)) => {
                        self.membership.set_ill(self.now(), illness, is_bad);
                    }
                    Some(Command::Unreached(nodes, cut_off)) => {
                        self.membership.set_unreached(self.now(), nodes, cut_off);
                    }
                    Some(Command::Forget(nodes)) => {
                        self.membership.forget(self.now(), &nodes);
                    }
                    Some(Command::Leave(said)) => {
                        self.membership.leave(self.now());
                        self.carry_out();
                        self.say_goodbye().await;
                        // The caller may wait no more.
                        let _ = said.send(());
                    }
                    Some(Command::Stop) | None => {
                        self.links.close().await;
                        return Ok(());
                    }
                },
                changed = self.seeds.changed(), if looking_up => {
                    looking_up = changed.is_ok();
                    self.membership.set_seeds(self.seeds.borrow_and_update().clone());
                }
                changed = self.address.changed(), if following => {
                    following = changed.is_ok();
                    let address = *self.address.borrow_and_update();
                    self.move_to(address);
                }
                written = self.saving.written() => {
                    written.map_err(GossipError::Persist)?;
                    self.send_held();
                }
                () = due => self.tick().await,
            }
            while let Ok(arrival) = self.arriving.try_recv() {
                self.take(arrival);
            }
            self.carry_out();
        }
    }

    /// Runs the timers, but first handles the datagrams that wait in the socket: after a stall of
    /// this node, the answers of other nodes are among them.
    async fn tick(&mut self) {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
            while let Ok(arrival) = self.arriving.try_recv() {
                self.take(arrival);
            }
        }
        self.membership.tick(self.now(), unix_ms());
        self.links.reap();
        let refused = (self.endpoint.refusals().counts().collect(), self.membership.counters());
        self.news.refused.send_if_modified(|old| {
            let news = *old != refused;
            *old = refused;
            news
        });
    }

    fn move_to(&mut self, address: IpAddr) {
        if self.membership.me().ip != address {
            tracing::info!(%address, "this host has another address now; telling the others");
            self.membership.set_address(self.now(), address);
        }
    }

    fn take(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Datagram(from, data) => {
                self.membership.handle_packet(self.now(), unix_ms(), from, &data);
            }
            Arrival::Accepted(node, connection) => self.links.add(node, connection),
            Arrival::Dialled(to, dialled) => self.links.dialled(to, dialled),
        }
    }

    /// Carries the effects out, in order.
    fn carry_out(&mut self) {
        while let Some(effect) = self.membership.poll_effect() {
            let output = match effect {
                Effect::Membership(output) => output,
                Effect::Leader(lead) => {
                    let (leader, term) = (lead.leader, lead.term);
                    let before = self.news.leaders.send_replace(lead);
                    match leader {
                        _ if (leader, term) == (before.leader, before.term) => {}
                        Some(leader) => self.history.record(Happening::Elected { leader, term }),
                        None => self.history.record(Happening::Election { term: before.term }),
                    }
                    continue;
                }
            };
            match output {
                Output::Send { to, node, data } if self.saving.is_busy() => {
                    self.saving.hold((to, node, data));
                }
                Output::Send { to, node, data } => self.links.send(to, node, data),
                Output::View(view) => {
                    let changes = view.changes_since(&self.news.views.borrow());
                    self.news.views.send_replace(view);
                    changes.into_iter().for_each(|change| self.history.record(change));
                }
                Output::Persist { generation } => self.saving.save(generation),
                Output::Known(peers) => self.memory.known(peers),
                Output::Twin(at) => tracing::error!(
                    "another process runs with this node's name and certificate, at {at}: end one of \
                     the two, or give it a name and a certificate of its own; until then neither is \
                     of use"
                ),
            }
        }
    }

    fn send_held(&mut self) {
        for (to, node, data) in self.saving.released() {
            self.links.send(to, node, data);
        }
    }

    async fn say_goodbye(&mut self) {
        let until = Instant::now() + GOODBYE;
        while self.saving.is_busy()
            && let Ok(Ok(())) = tokio::time::timeout_at(until.into(), self.saving.written()).await
        {
        }
        self.send_held();
        while self.links.busy() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}
