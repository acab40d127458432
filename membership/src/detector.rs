//! The failure detector: SWIM through the crate foca, and the parts that foca leaves to its user.
//!
//! Owns this node's identity and the members it knows, and reports every change as a [`View`].
//! Sans-IO; driven by [`Membership`](crate::Membership). The caller hands in datagrams and the
//! time:
//!
//! 1. it reads *all* datagrams that have arrived ([`Detector::handle_packet`]),
//! 2. then it runs what is due ([`Detector::tick`]): an answer that has arrived must be read before
//!    its absence is judged,
//! 3. then it drains [`Detector::poll_output`], in order, and sleeps until
//!    [`Detector::next_deadline`].
//!
//! What is added to SWIM (A. Das, I. Gupta, A. Motivala, "SWIM: scalable weakly-consistent
//! infection-style process group membership protocol", DSN 2002), and why:
//! - an announce loop: without it isolated nodes, and nodes that renew their identities at the same
//!   time, never find each other again (`announce`);
//! - renewal with a disk: a node that was declared down returns under a higher generation, which is
//!   persisted first;
//! - a lag guard: a node that has stalled must not declare others down because of it (after
//!   Lifeguard, A. Dadgar, J. Phillips, J. Currey, arXiv 1707.00788);
//! - checks of every datagram against the sender's certificate, the clock and limits (`packet`,
//!   `rumour`, `screen`).

mod announce;
mod config;
mod packet;
mod rumour;
mod screen;
#[cfg(test)]
mod tests;
mod timers;
mod twin;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::NodeId;
use foca::{AccumulatingRuntime, Foca, OwnedNotification, PostcardCodec, State};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::{Identity, KnownPeer, Member, MemberState, View};
use announce::Announcer;
pub use config::{DetectorConfig, Profile};
use packet::{ANYONE, Packet, Refusal};
use rumour::Rumours;
use timers::Timers;
use twin::Twins;

type Swim = Foca<Identity, PostcardCodec, StdRng, foca::NoCustomBroadcast>;
type Runtime = AccumulatingRuntime<Identity>;

/// If a tick is later than this, this node has stalled.
const STALL: Duration = Duration::from_millis(100);
/// Shortest time between two renewals. Without it, two nodes with one name would declare each other
/// down as fast as the network carries it.
const RENEWAL_PAUSE: Duration = Duration::from_millis(100);
/// How far a generation may lie ahead of our clock, in milliseconds: one day.
const GENERATION_AHEAD: u64 = 24 * 60 * 60 * 1000;
/// The same for generations that others report of this node: its clock may have been far ahead
/// before its disk was lost.
const OWN_GENERATION_AHEAD: u64 = 3650 * GENERATION_AHEAD;

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send a datagram, once, without waiting for anything.
    Send {
        /// The address.
        to: SocketAddr,
        /// The node that must be there, by its certificate; `None` if its name is not known yet.
        node: Option<NodeId>,
        /// At most [`cortado_protocol::limits::GOSSIP_BYTES`].
        data: Bytes,
    },
    /// The membership as it is now.
    View(View),
    /// Write this generation and sync it *before* any later output is carried out.
    Persist {
        /// To be given to [`next_generation`](crate::next_generation) at the next start.
        generation: u64,
    },
    /// All nodes ever seen that did not leave. Keep the list for the next start.
    Known(Vec<KnownPeer>),
    /// Another process with this node's name runs at this address.
    Twin(SocketAddr),
}

/// Counts of errors since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams that could not be read, or were too long.
    pub malformed: u64,
    /// Datagrams whose sender was not the node in its certificate, or that claimed to come from
    /// this node.
    pub forged: u64,
    /// Datagrams that named a generation more than a day ahead of our clock for a node other than
    /// the sender.
    pub future: u64,
    /// Datagrams that would have made the cluster larger than its limit.
    pub crowded: u64,
    /// Datagrams whose reports of down nodes were ignored, because the sender declared too many
    /// down.
    pub rumours: u64,
    /// Errors of the protocol's state machine. They need no action.
    pub errors: u64,
    /// Times the protocol's state machine failed and was built anew.
    pub rebuilt: u64,
    /// Times this node was declared down while it lived, and renewed its identity.
    pub renewed: u64,
    /// Ticks that came so late that suspected nodes were given more time.
    pub stalls: u64,
}

/// The failure detector of one node. The module's description says how to drive it.
pub struct Detector {
    config: DetectorConfig,
    swim: Swim,
    runtime: Runtime,
    timers: Timers,
    announcer: Announcer,
    rumours: Rumours,
    twins: Twins,
    rng: StdRng,
    outbox: VecDeque<Output>,
    view: View,
    counters: Counters,
    /// A member has confirmed that it knows this node's present identity.
    confirmed: bool,
    /// The view may be out of date.
    stale: bool,
    /// Number of identities that foca held when the view was made.
    shown: usize,
    /// This node was declared down: renew its identity at this time.
    renew_at: Option<Duration>,
    /// The earliest time for the next renewal.
    renewable_from: Duration,
    /// foca panicked in the middle of a step.
    broken: bool,
    left: bool,
    /// Forgotten nodes. Each is no member up to the given generation, whichever node names it.
    gone: BTreeMap<NodeId, u64>,
    /// Highest generation of this node that a datagram has named.
    own_generation_seen: u64,
    /// Latest wall clock seen. With a clock that is set back, other nodes must not seem to be
    /// ahead.
    latest_unix_ms: u64,
    /// The generation that each sender gave for itself.
    heard: BTreeMap<NodeId, u64>,
}

impl Detector {
    /// A node that is about to join.
    ///
    /// `me.generation` comes from [`next_generation`](crate::next_generation) and is on disk
    /// already. `known` is the last [`Output::Known`] of the previous run.
    #[must_use]
    pub fn new(
        config: DetectorConfig,
        me: Identity,
        known: Vec<KnownPeer>,
        now: Duration,
        unix_ms: u64,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(config.seed);
        let mut announcer = Announcer::new(config.seeds.clone(), known, now);
        announcer.schedule(now, 0, 50, &mut rng);
        let swim = Foca::new(me, config.profile.foca(), StdRng::from_rng(&mut rng), PostcardCodec);
        let mut detector = Self {
            config,
            swim,
            runtime: Runtime::new(),
            timers: Timers::default(),
            announcer,
            rumours: Rumours::default(),
            twins: Twins::default(),
            rng,
            outbox: VecDeque::new(),
            view: View::default(),
            counters: Counters::default(),
            confirmed: false,
            stale: true,
            shown: 0,
            renew_at: None,
            renewable_from: now,
            broken: false,
            left: false,
            gone: BTreeMap::new(),
            own_generation_seen: 0,
            latest_unix_ms: unix_ms.max(me.generation),
            heard: BTreeMap::new(),
        };
        detector.settle(now);
        detector
    }

    /// Handles a datagram. `from` is the sender's name, proved by its certificate.
    pub fn handle_packet(&mut self, now: Duration, unix_ms: u64, from: NodeId, data: &[u8]) {
        if self.left {
            return;
        }
        self.latest_unix_ms = self.latest_unix_ms.max(unix_ms);
        let mut packet = match Packet::decode(from, data) {
            Ok(packet) if from != self.me().id => packet,
            refused => return self.refuse(from, refused.err().unwrap_or(Refusal::Forged)),
        };
        let mut changed = match self.leave_future_out(&mut packet) {
            Ok(changed) => changed,
            Err(refusal) => return self.refuse(from, refusal),
        };
        if !self.has_room_for(&packet) {
            self.counters.crowded += 1;
            return;
        }
        self.heard.insert(from, packet.header.src.generation);
        let me = self.me();
        let own = packet.named().filter(|identity| identity.id == me.id);
        let own = own.map(|identity| identity.generation).max();
        self.own_generation_seen = self.own_generation_seen.max(own.unwrap_or(0));
        if let Some(twin) = self.twins.look(now, &me, packet.named()) {
            self.outbox.push_back(Output::Twin(twin));
        }

        self.remind(&packet);
        changed |= packet.readdress(&me);
        changed |= self.leave_rumours_out(now, from, &mut packet);
        if changed {
            match packet.encode() {
                Ok(bytes) => self.drive(now, |swim, runtime| swim.handle_data(&bytes, runtime)),
                Err(_) => self.counters.errors += 1,
            }
        } else {
            self.drive(now, |swim, runtime| swim.handle_data(data, runtime));
        }
        self.settle(now);
    }

    /// Runs what is due. Call it at [`Self::next_deadline`], and only after all datagrams that have
    /// arrived were handed in.
    pub fn tick(&mut self, now: Duration, unix_ms: u64) {
        if self.left {
            return;
        }
        self.latest_unix_ms = self.latest_unix_ms.max(unix_ms);
        let lag = self.timers.next().map_or(Duration::ZERO, |due| now.saturating_sub(due));
        if lag > STALL {
            self.counters.stalls += 1;
            // However long the stall was, one full suspicion period is enough for a live node to
            // refute.
            let grace = lag.min(self.config.profile.suspicion());
            self.timers.put_off_condemnations(now, now + grace);
        }
        while let Some(timer) = self.timers.pop_due(now) {
            if self.is_refuted(&timer) {
                continue;
            }
            self.drive(now, |swim, runtime| swim.handle_timer(timer, runtime));
        }
        self.settle(now);
        if self.announcer.next <= now {
            self.announce(now);
            self.announcer.schedule(now, 1_000, 2_000, &mut self.rng);
        }
    }

    /// When [`Self::tick`] is due; `None` once this node has left.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        if self.left {
            return None;
        }
        [self.timers.next(), self.renew_at, Some(self.announcer.next)].into_iter().flatten().min()
    }

    /// The next output. Drain all outputs after every call of any other method.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// Replaces the addresses for the first contact, for example after a look-up of a DNS name.
    pub fn set_seeds(&mut self, seeds: Vec<SocketAddr>) {
        self.announcer.set_seeds(seeds);
    }

    /// Announces that this node starts or stops draining: a draining node serves, but gets no new
    /// roles.
    pub fn set_draining(&mut self, now: Duration, draining: bool) {
        if !self.left && self.me().draining != draining {
            let me = Identity { draining, ..self.me() };
            self.change_identity(now, me);
            self.settle(now);
        }
    }

    /// Announces this node's new address.
    pub fn set_address(&mut self, now: Duration, ip: IpAddr) {
        if !self.left && self.me().ip != ip {
            let me = Identity { ip, ..self.me() };
            self.change_identity(now, me);
            self.settle(now);
        }
    }

    /// Leaves for good: the other nodes drop this node at once instead of declaring it down later.
    /// Send what [`Self::poll_output`] yields, then stop; there are no later outputs.
    pub fn leave(&mut self, now: Duration) {
        if self.left {
            return;
        }
        let me = Identity { leaving: true, ..self.me() };
        self.drive(now, |swim, runtime| swim.change_identity(me, runtime));
        self.drive(now, |swim, runtime| swim.leave_cluster(runtime));
        // Each round reaches three random nodes, which pass the news on.
        for _ in 0..2 {
            self.drive(now, |swim, runtime| swim.gossip(runtime));
        }
        self.left = true;
        self.timers.clear();
        self.refresh();
    }

    /// The membership as of the last call.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Counts of errors so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// This node's present identity.
    #[must_use]
    pub fn me(&self) -> Identity {
        *self.swim.identity()
    }

    /// Runs one step of the state machine and takes over its effects. Neither an error nor a panic
    /// in it may end the node.
    fn drive(
        &mut self,
        now: Duration,
        step: impl FnOnce(&mut Swim, &mut Runtime) -> Result<(), foca::Error>,
    ) {
        // Unwind safety: after a panic only a copy of the members is taken out of these two.
        let (swim, runtime) = (&mut self.swim, &mut self.runtime);
        match catch_unwind(AssertUnwindSafe(|| step(swim, runtime))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.counters.errors += 1;
                tracing::debug!(%error, "membership protocol");
            }
            Err(_) => self.broken = true,
        }
        while let Some(notification) = self.runtime.to_notify() {
            self.stale = true;
            match notification {
                OwnedNotification::Active => self.confirmed = true,
                OwnedNotification::Idle => self.confirmed = false,
                OwnedNotification::Defunct => {
                    self.confirmed = false;
                    self.renew_at = Some(self.renewable_from.max(now));
                }
                _ => {}
            }
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            let after = timers::jittered(&timer, after, &mut self.rng);
            self.timers.submit(now + after, timer);
        }
        let me = self.me().id;
        while let Some((to, data)) = self.runtime.to_send() {
            // Nothing listens at a node that has left, or at a former identity of this node.
            if !to.leaving && to.id != me {
                let node = (to.id.as_str() != ANYONE).then_some(to.id);
                self.outbox.push_back(Output::Send { to: to.gossip_addr(), node, data });
            }
        }
    }

    /// Rebuilds the state machine and renews the identity if that is due, then updates the view.
    fn settle(&mut self, now: Duration) {
        if self.broken {
            self.rebuild(now);
        }
        if self.renew_at.is_some_and(|at| at <= now) {
            self.counters.renewed += 1;
            let me = self.me();
            self.change_identity(now, me);
        }
        self.refresh();
    }

    /// Adopts `me` with a generation above all known ones of this node, and announces it to all
    /// nodes at once. foca would send it to three, perhaps under identities that they have just
    /// renewed.
    fn change_identity(&mut self, now: Duration, me: Identity) {
        let me = self.next_identity(me);
        self.confirmed = false;
        self.renew_at = None;
        self.renewable_from = now + RENEWAL_PAUSE;
        self.drive(now, |swim, runtime| swim.change_identity(me, runtime));
        self.announce(now);
        self.announcer.schedule(now, 250, 500, &mut self.rng);
        self.stale = true;
    }

    fn next_identity(&mut self, me: Identity) -> Identity {
        // The previous generation is known, so no clock is needed, and clocks jump.
        let generation = self.me().generation.max(self.own_generation_seen).saturating_add(1);
        self.outbox.push_back(Output::Persist { generation });
        Identity { generation, ..me }
    }

    /// Builds a new state machine with the known members, under a new identity.
    fn rebuild(&mut self, now: Duration) {
        self.broken = false;
        self.counters.rebuilt += 1;
        let me = self.me();
        let me = self.next_identity(me);
        let members: Vec<_> = self.swim.iter_membership_state().cloned().collect();
        let rng = StdRng::from_rng(&mut self.rng);
        self.swim = Foca::new(me, self.config.profile.foca(), rng, PostcardCodec);
        self.runtime = Runtime::new();
        self.timers.clear();
        self.confirmed = false;
        self.renew_at = None;
        self.drive(now, |swim, runtime| swim.apply_many(members.into_iter(), false, runtime));
        // To have members is no confirmation: they know the previous identity of this node.
        self.confirmed = false;
        self.announce(now);
        self.stale = true;
    }

    fn announce(&mut self, now: Duration) {
        let me = self.me();
        let targets = self.announcer.targets(&me, &self.view, !self.confirmed, &mut self.rng);
        for target in targets {
            self.drive(now, |swim, runtime| swim.announce(target, runtime));
        }
    }

    /// Removes these nodes from the membership for good, each up to a generation, whichever node
    /// still names them. A node with a higher generation is a new member.
    pub fn forget(&mut self, now: Duration, nodes: &[(NodeId, u64)]) {
        let me = self.me().id;
        for (node, generation) in nodes.iter().filter(|(node, _)| *node != me) {
            let gone = self.gone.entry(*node).or_default();
            *gone = (*gone).max(*generation);
            let back = self.view.get(*node).is_some_and(|m| m.identity.generation > *generation);
            if !back && self.announcer.forget(*node) {
                self.outbox.push_back(Output::Known(self.announcer.known()));
            }
        }
        self.stale = true;
        self.settle(now);
    }

    fn is_gone(&self, identity: &Identity) -> bool {
        self.gone.get(&identity.id).is_some_and(|gone| identity.generation <= *gone)
    }

    /// Brings the view up to date and reports it if it changed.
    fn refresh(&mut self) {
        let held = self.swim.iter_membership_state();
        // foca does not report a member that was already down when it was first named.
        if !std::mem::take(&mut self.stale) && held.len() == self.shown {
            return;
        }
        self.shown = held.len();
        let me = *self.swim.identity();
        let mut members: Vec<Member> = Vec::with_capacity(held.len() + 1);
        let mut news = false;
        for member in held {
            let identity = *member.id();
            if identity.id == me.id {
                // A former identity of this node.
            } else if identity.leaving || self.is_gone(&identity) {
                news |= self.announcer.forget(identity.id);
            } else {
                news |= self.announcer.learn(&identity);
                members.push(Member { identity, state: state(&identity, member.state()) });
            }
        }
        if !self.left {
            members.push(Member { identity: me, state: state(&me, State::Alive) });
        }
        let heard: BTreeSet<NodeId> = members.iter().map(|m| m.identity.id).collect();
        let silent = self.announcer.known().into_iter().filter(|peer| !heard.contains(&peer.id));
        members.extend(silent.filter(|peer| peer.id != me.id).map(|peer| Member {
            identity: Identity::addressee(peer.id, peer.gossip),
            state: MemberState::Down,
        }));
        members.sort_unstable_by_key(|member| member.identity.id);
        if members != self.view.members {
            self.view = View { version: self.view.version + 1, members, ..View::default() };
            self.outbox.push_back(Output::View(self.view.clone()));
        }
        if news {
            self.outbox.push_back(Output::Known(self.announcer.known()));
        }
    }
}

fn state(identity: &Identity, state: State) -> MemberState {
    match state {
        State::Down => MemberState::Down,
        State::Alive | State::Suspect if identity.draining => MemberState::Draining,
        State::Alive | State::Suspect => MemberState::Alive,
    }
}
