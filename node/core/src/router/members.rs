//! Members: who is there, who is who, and who is gone for good.

use bytes::Bytes;
use cortado_protocol::NodeId;
use cortado_protocol::client::ClientResponse;
use cortado_protocol::peer::{Hello, PeerMessage};

use super::Core;
use crate::effect::{Effect, StateFile};
use crate::link::Pushed;
use crate::peers::IdentityChange;
use crate::placement::Members;
use crate::reach::Link;
use crate::saving::Then;
use crate::views;

impl Core {
    pub(super) fn on_members(&mut self, told: Members) {
        self.facts.told = told;
        if self.facts.roster.see(&self.facts.told) {
            self.saving.save(StateFile::Members, None);
        }
        self.take_members();
        for (conn, hello) in self.links.take_early(&self.facts.told.reachable) {
            self.welcome(conn, &hello);
        }
    }

    /// Tries idle links, and passes members over whose links do not work.
    pub(super) fn look_at_links(&mut self) {
        let (links, peers) = (&self.links, &self.facts.peers);
        let link =
            |node| Link { is_up: peers.is_linked(node), oldest: links.oldest_unacknowledged(node) };
        let (now, me) = (self.facts.now, self.facts.config.node);
        let looked = self.facts.reach.look(now, me, &self.facts.told, link);
        for peer in looked.ping {
            if let Pushed::Write(frame) = self.links.push(peer, PeerMessage::Ping, &[], false) {
                self.out.effect(Effect::Send(peer, frame));
            }
        }
        // A member that is down is judged no more, which may change the judgement, too.
        if let Some((nodes, cut_off)) = looked.news {
            tracing::info!(?nodes, cut_off, "other data links work or fail");
            self.out.effect(Effect::Unreached { nodes, cut_off });
            self.take_members();
        }
    }

    /// The members changed, or what this node thinks of them. Facts come first, so that everybody sees
    /// the same owners; queues to lost peers are dropped before anything else is sent.
    fn take_members(&mut self) {
        let (me, min_copies) = (self.facts.config.node, self.facts.config.min_copies);
        let members = self.facts.reach.effective(me, &self.facts.told, usize::from(min_copies));
        let before = self.facts.set_members(members);
        let members = &self.facts.members;
        for peer in before.reachable.iter().filter(|peer| !members.is_reachable(**peer)) {
            self.links.give_up(*peer);
        }
        // A new generation of its own: the others had given this node up for a while.
        let renewed = before.generation(me) != members.generation(me);
        let same = before.live == members.live && before.reachable == members.reachable;
        if same && !renewed {
            return;
        }
        tracing::info!(live = ?members.live, "the ring changed");
        self.replicator.after_change(&self.facts, &mut self.out);
        self.forwarding.after_change(&self.facts, &mut self.out);
        self.answers.after_change(&self.facts);
        self.answers.not_fresh();
        let jobs: Vec<_> = self.facts.jobs.iter().map(|(job, _)| job).collect();
        for job in jobs {
            let next = self.coordination.after_change(&self.facts, &mut self.out, job);
            self.lead_coordination(next);
            let next = self.streams.after_change(&self.facts, &mut self.out, job);
            self.lead_streams(next);
        }
        self.slot_tasks.after_change(&self.facts, &mut self.out);
        self.handoff.after_change(&self.facts);
        self.completion.after_change(&self.facts);
        let new_keeper = self.queue.after_change(&self.facts);
        self.coordination.report_after_change(&self.facts, &mut self.out, new_keeper);
    }

    /// A peer may hear of this node before this node hears of it. What it said until then could not
    /// be answered, so it is not let speak yet.
    pub(super) fn on_inbound(&mut self, conn: u64, hello: Hello) {
        self.on_identity(&hello);
        if self.facts.told.is_reachable(hello.node) {
            self.welcome(conn, &hello);
        } else {
            self.links.keep_early(conn, hello);
        }
    }

    fn welcome(&mut self, conn: u64, hello: &Hello) {
        let next = self.links.accept(conn, hello);
        self.out.effect(Effect::Welcome(conn, next));
    }

    pub(super) fn on_link_up(&mut self, hello: &Hello) {
        self.facts.peers.set_linked(hello.node, true);
        let (frames, refused) = self.links.up(hello.node, hello.seq);
        for frame in frames {
            self.out.effect(Effect::Send(hello.node, frame));
        }
        if let Some(message) = refused {
            let why = format!("was taken for misbehaviour by {} twice", hello.node);
            self.undeliverable(hello.node, message, &why);
        }
        self.on_identity(hello);
        self.handoff.offer_to(&self.facts, hello.node);
        let (members, barred) = self.departed();
        if !members.is_empty() {
            self.out.send(hello.node, PeerMessage::Departed { members, barred });
        }
    }

    /// A peer said who it is. What it forgot is asked and sent again; what it had in a log that it lost
    /// counts no more before that.
    fn on_identity(&mut self, hello: &Hello) {
        match self.facts.peers.identify(hello) {
            IdentityChange::Same | IdentityChange::New => return,
            IdentityChange::Restarted => {
                self.coordination.after_restart(hello.node);
                self.streams.after_restart(hello.node);
            }
            IdentityChange::OtherLog => {
                tracing::warn!(peer = %hello.node, "returned with another log: its copies count no more");
                self.coordination.after_restart(hello.node);
                self.streams.after_restart(hello.node);
                self.replicator.void(&self.facts, hello.node);
                self.handoff.void(hello.node);
            }
        }
        self.replicator.resend_to(&self.facts, &mut self.out, hello.node);
        self.handoff.offer_again(&self.facts, hello.node);
    }

    /// Members handed everything over and left.
    pub(super) fn on_departed(&mut self, members: Vec<(NodeId, u64)>, barred: &[u64]) {
        let me = self.facts.config.node;
        let mut news = false;
        for (node, generation) in members.into_iter().filter(|(node, _)| *node != me) {
            news |= self.facts.roster.depart(node, generation);
        }
        news |= self.facts.roster.bar(barred);
        if news {
            self.saving.save(StateFile::Members, None);
            self.tell_departed();
        }
    }

    /// Tells the shell who is gone for good.
    fn tell_departed(&mut self) {
        let (members, barred) = self.departed();
        self.out.effect(Effect::Departed { members, barred });
    }

    /// A client wants a dead member to be forgotten for good.
    pub(super) fn forget_member(&mut self, ticket: u64, node: NodeId) {
        if self.facts.roster.has_left(node) {
            return self.out.reply(ticket, ClientResponse::Accepted, Bytes::new());
        }
        if let Err(refused) = views::may_forget(&self.facts, node) {
            return self.out.reply(ticket, ClientResponse::Error(refused), Bytes::new());
        }
        tracing::warn!(%node, "forgotten: it counts no more, and its certificate opens nothing");
        self.facts.roster.forget(node);
        self.tell_departed();
        self.saving.save(StateFile::Members, Some(Then::TellDeparted { ticket }));
    }

    /// The roster without the forgotten member is on disk.
    pub(super) fn member_forgotten(&mut self, ticket: u64) {
        let (members, barred) = self.departed();
        let told = PeerMessage::Departed { members, barred };
        self.out.send_to_all(self.facts.others(), &told);
        self.out.reply(ticket, ClientResponse::Accepted, Bytes::new());
    }
}
