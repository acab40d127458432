//! What simulated clients send to nodes.

use cortado_core::Input;
use rand::RngExt;

use super::client::Sent;
use super::event::Event;
use super::node::node_index;
use super::world::World;

impl World {
    pub(super) fn client_soon(&mut self, client: usize) {
        let delay = self.delay(10, 500);
        self.plan(delay, Event::Client(client));
    }

    pub(super) fn client(&mut self, client: usize) {
        let running: Vec<_> =
            (0..self.nodes.len()).filter(|n| self.nodes[*n].process.is_some()).collect();
        let live: Vec<_> = running.iter().map(|n| self.nodes[*n].id).collect();
        for (to, sent) in self.clients[client].poll(self.now, &live) {
            let any = running.get(self.rng.random_range(0..running.len().max(1))).copied();
            if let Some(node) = to.and_then(node_index).or(any) {
                self.ask_soon(client, node, sent);
            }
        }
    }

    pub(super) fn ask(&mut self, client: usize, node: usize, sent: Sent) {
        let ticket = self.number;
        self.number += 1;
        if self.nodes[node].process.is_none() {
            return;
        }
        self.tickets.insert(ticket, client);
        let input = match sent {
            Sent::Request(request) => Input::Request(ticket, request),
            Sent::Batch { table, number } => {
                let actor = &self.clients[client];
                let Some((header, payload)) = actor.batch(table, number) else { return };
                let (job, client) = (actor.job(), 1 + client as u64);
                Input::Batch { ticket, job, client, header, payload }
            }
        };
        self.input(node, input);
    }

    fn ask_soon(&mut self, client: usize, node: usize, sent: Sent) {
        let life = self.clients[client].life();
        // Whoever is impatient sends a batch again, to the same node or to another one.
        if let (Sent::Batch { .. }, true) = (&sent, self.rng.random_bool(self.dials.repeats)) {
            let delay = self.delay(100, 1_000_000);
            let other = self.rng.random_range(0..self.nodes.len());
            self.plan(delay, Event::Ask { client, life, node: other, sent: sent.clone() });
        }
        if let Sent::Batch { table, .. } = sent
            && let Some(number) = self.clients[client].beyond_end(table)
            && self.dials.beyond_end > 0.0
            && self.rng.random_bool(self.dials.beyond_end)
        {
            let (delay, node) =
                (self.delay(100, 1_000_000), self.rng.random_range(0..self.nodes.len()));
            let sent = Sent::Batch { table, number };
            self.plan(delay, Event::Ask { client, life, node, sent });
        }
        let delay = self.delay(100, 2_000);
        self.plan(delay, Event::Ask { client, life, node, sent });
    }

    /// The client dies; another one has nothing but the dataset and the job's id.
    pub(super) fn resume_client(&mut self, client: usize) -> bool {
        let resumed = self.clients[client].resume();
        if resumed {
            self.tickets.retain(|_, asker| *asker != client);
            self.client_soon(client);
        }
        resumed
    }
}
