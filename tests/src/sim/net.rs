//! Links of the simulated network: in order, and cut short when they break.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cortado_protocol::peer::Hello;

/// A connection that `from` dialled to `to`.
#[derive(Debug)]
pub(crate) struct Link {
    /// Its number; a link dialled again has another one.
    pub(crate) conn: u64,
    /// The listener has welcomed it and the dialler knows.
    pub(crate) up: bool,
    /// The dialler's hello, kept for the answer.
    pub(crate) hello: Hello,
    /// When the last frame in each direction arrives: nothing overtakes it.
    pub(crate) forward: Duration,
    pub(crate) backward: Duration,
}

/// All links, by dialler and listener.
#[derive(Debug, Default)]
pub(crate) struct Net {
    pub(crate) links: BTreeMap<(usize, usize), Link>,
    pub(crate) next_conn: u64,
    /// Links that broke and whose dialler has not noticed yet; it dials again only then.
    pub(crate) unnoticed: BTreeSet<(usize, usize)>,
    /// Directions in which nothing passes.
    pub(crate) cut: BTreeSet<(usize, usize)>,
    /// Nodes whose data ports are cut off; datagrams pass.
    pub(crate) cut_data: BTreeSet<usize>,
    /// Directions in which everything waits until then.
    pub(crate) clogged: BTreeMap<(usize, usize), Duration>,
}

impl Net {
    /// Whether packets pass from one node to another.
    pub(crate) fn passes(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Whether a link can be made from one node to another.
    pub(crate) fn links(&self, from: usize, to: usize) -> bool {
        let cut = self.cut_data.contains(&from) || self.cut_data.contains(&to);
        !cut && self.passes(from, to) && self.passes(to, from)
    }

    /// The link with this number, if it still is the one between its nodes.
    pub(crate) fn link(&mut self, from: usize, to: usize, conn: u64) -> Option<&mut Link> {
        self.links.get_mut(&(from, to)).filter(|link| link.conn == conn)
    }
}
