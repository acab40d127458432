//! What can happen in a simulated world.

use bytes::Bytes;
use cortado_core::StateFile;
use cortado_core::task::TaskOutput;
use cortado_protocol::client::{BatchReply, ClientResponse};
use cortado_protocol::peer::{Hello, LinkFrame};
use cortado_protocol::{JobId, frame};

use super::client::Sent;
use super::dials::Fault;

pub(super) enum Event {
    Tick { node: usize, boot: u64 },
    Probe { node: usize, boot: u64 },
    Sync { node: usize, boot: u64 },
    Refused { node: usize, boot: u64, ticket: u64 },
    Delivered { node: usize, boot: u64, ticket: u64, job: JobId, result: Result<(), String> },
    Saved { node: usize, boot: u64, ticket: u64, file: StateFile, bytes: Bytes },
    Task { node: usize, boot: u64, id: u64, output: TaskOutput },
    Datagram { from: usize, to: usize, data: Bytes },
    Dial { from: usize, to: usize, boot: u64 },
    Hello { from: usize, to: usize, conn: u64 },
    Welcome { from: usize, to: usize, conn: u64, hello: Hello },
    Frame { from: usize, to: usize, conn: u64, bytes: Bytes },
    Ack { from: usize, to: usize, conn: u64, next: u64 },
    Broken { from: usize, to: usize, boot: u64 },
    Client(usize),
    ClientTick(usize),
    Ask { client: usize, life: u64, node: usize, sent: Sent },
    Answer { client: usize, life: u64, response: ClientResponse, tail: Bytes },
    BatchAnswer { client: usize, life: u64, reply: BatchReply },
    Fault(Fault),
    Heal,
    Unclog { from: usize, to: usize },
    HealData(usize),
    JudgeDisk(usize),
    GoOn(usize),
    CrashAgain { node: usize, left: u32 },
    SpaceBack(usize),
    ClockBack(usize),
    DrainLimit { node: usize, boot: u64 },
    Start(usize),
}

impl Event {
    /// For the trace of a run.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Fault(fault) => format!("fault: {fault:?}"),
            Self::Heal => "heal".to_owned(),
            Self::Start(node) => format!("start node-{}", node + 1),
            Self::Broken { from, to, .. } => format!("link {} to {} broke", from + 1, to + 1),
            Self::Frame { from, to, bytes, .. } => {
                let message = frame::decode::<LinkFrame>(&bytes.slice(frame::PREFIX_BYTES..));
                let text = message.map_or_else(|e| e.to_string(), |(head, _)| format!("{head:?}"));
                format!("{} to {}: {:.300}", from + 1, to + 1, text)
            }
            Self::HealData(node) => format!("node-{} has data links again", node + 1),
            Self::JudgeDisk(node) => format!("node-{} looks at its disk", node + 1),
            Self::Unclog { from, to } => format!("{} to {} flows again", from + 1, to + 1),
            Self::CrashAgain { node, .. } => format!("node-{} crashes again", node + 1),
            Self::SpaceBack(node) => format!("node-{} has space again", node + 1),
            Self::ClockBack(node) => format!("node-{} has its clock set right", node + 1),
            Self::Answer { client, response, .. } => {
                format!("answer to client {client}: {:.200}", format!("{response:?}"))
            }
            Self::BatchAnswer { client, reply, .. } => {
                format!("answer to client {client}: {reply:?}")
            }
            Self::Ask { client, node, sent, .. } => {
                format!("client {client} asks node-{}: {:.100}", node + 1, format!("{sent:?}"))
            }
            _ => String::new(),
        }
    }

    /// The node it happens to, if that node may be paused.
    pub(super) fn node(&self) -> Option<usize> {
        match self {
            Self::Tick { node, .. }
            | Self::Probe { node, .. }
            | Self::Sync { node, .. }
            | Self::Refused { node, .. }
            | Self::Delivered { node, .. }
            | Self::Saved { node, .. }
            | Self::Task { node, .. }
            | Self::Ask { node, .. } => Some(*node),
            Self::Datagram { to, .. } | Self::Hello { to, .. } | Self::Frame { to, .. } => {
                Some(*to)
            }
            Self::Welcome { from, .. }
            | Self::Ack { from, .. }
            | Self::Dial { from, .. }
            | Self::Broken { from, .. } => Some(*from),
            _ => None,
        }
    }
}
