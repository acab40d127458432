//! The arguments of `cortado chaos`.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};
use cortado_protocol::chaos::{LONGEST_DELAY_MS, LONGEST_MS};
use cortado_protocol::{IdError, NodeId};

use crate::chaos::{Kind, Way};

/// `cortado chaos …`
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  cortado local up --dir demo --allow-chaos
  cortado --cluster demo chaos partition node-1,node-2 --for 10s
  cortado --cluster demo chaos run --minutes 3 --seed 7")]
pub(in crate::cli) enum ChaosCommand {
    /// Kill a node's process (SIGKILL)
    Kill {
        /// The node
        node: NodeId,
    },
    /// Let a node's process stand still (SIGSTOP); waits until it goes on
    Pause {
        /// The node
        node: NodeId,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// Cut the network into parts that do not hear each other
    ///
    /// Nodes that are not named are one part of their own.
    Partition {
        /// Nodes of one part
        #[arg(required = true, value_name = "NODE,NODE…")]
        groups: Vec<Group>,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// Let nothing that one node sends arrive at another
    Oneway {
        /// Who is not heard
        from: NodeId,
        /// By whom
        to: NodeId,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// Hold back what nodes send to other nodes
    Delay {
        /// Whose packets
        #[arg(required = true, value_name = "NODE,NODE…", value_delimiter = ',')]
        nodes: Vec<NodeId>,
        /// By how many milliseconds
        #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=LONGEST_DELAY_MS.into()))]
        ms: u32,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// Lose some of what nodes send to other nodes
    Loss {
        /// Whose packets
        #[arg(required = true, value_name = "NODE,NODE…", value_delimiter = ',')]
        nodes: Vec<NodeId>,
        /// How many of a hundred
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=100))]
        percent: u8,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// Let nodes' disks be full
    DiskFull {
        /// Whose disks
        #[arg(required = true, value_name = "NODE,NODE…", value_delimiter = ',')]
        nodes: Vec<NodeId>,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// Let nodes' disks hang: no write and no sync returns
    DiskHang {
        /// Whose disks
        #[arg(required = true, value_name = "NODE,NODE…", value_delimiter = ',')]
        nodes: Vec<NodeId>,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// Let no data pass between a node and the others, while its membership goes on
    DataCut {
        /// Whose data port
        node: NodeId,
        /// Only what it gets, or only what it sends
        #[arg(long, value_enum, value_name = "WAY")]
        oneway: Option<Way>,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// Let nodes' event loops stand still, while their membership goes on
    LoopStall {
        /// Whose loops
        #[arg(required = true, value_name = "NODE,NODE…", value_delimiter = ',')]
        nodes: Vec<NodeId>,
        #[command(flatten)]
        lasts: Lasts,
    },
    /// End all that lasts
    Heal {
        /// Of these nodes; of all if none is given
        #[arg(value_name = "NODE,NODE…", value_delimiter = ',')]
        nodes: Vec<NodeId>,
    },
    /// Make trouble at random, then heal everything and wait until all nodes are back
    Run {
        /// For how long
        #[arg(long, default_value_t = 1.0)]
        minutes: f64,
        /// Decides what happens to whom, and when
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only these kinds of trouble
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<Kind>,
    },
}

/// For how long.
#[derive(Clone, Copy, Debug, Args)]
pub(in crate::cli) struct Lasts {
    /// For how long: 500ms, 30s or 2m, an hour at most
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = lasting)]
    pub(in crate::cli) time: Duration,
}

/// Nodes, separated by commas.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Group(pub(in crate::cli) Vec<NodeId>);

impl FromStr for Group {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

fn lasting(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| EXPECTED_TIME.to_owned())?;
    let millis = match &text[digits.len()..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    let millis = millis.filter(|millis| (1..=LONGEST_MS.into()).contains(millis));
    millis.map(Duration::from_millis).ok_or_else(|| EXPECTED_TIME.to_owned())
}

const EXPECTED_TIME: &str = "expected a time like 500ms, 30s or 2m, an hour at most";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(lasting("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(lasting("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "3", "s", "0s", "61m", "-1s", "1h", "99999999999999999999s", "9é"] {
            assert!(lasting(wrong).is_err(), "{wrong}");
        }
    }
}
