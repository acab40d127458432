//! Runs this node's supervisor: the reviver carries out the inspections and starts that it
//! requests.

use std::sync::Arc;
use std::time::Instant;

use cortado_membership::{Evidence, Lead, Step, Supervisor, Trouble, View};
use cortado_protocol::NodeId;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::history::History;
use crate::revive::Reviver;

/// The inputs and outputs of a supervisor.
pub struct Surroundings<T> {
    /// The membership.
    pub views: watch::Receiver<View>,
    /// The elected leader.
    pub leaders: watch::Receiver<Lead>,
    /// Records the events.
    pub history: History,
    /// Reports the nodes that this node had to revive to the other nodes.
    pub troubles: T,
}

/// A running supervisor. Dropping it ends it; actions that a reviver has begun still complete.
#[derive(Debug)]
pub struct Supervision(Option<JoinHandle<()>>);

impl Supervision {
    /// Starts to supervise, unless the reviver is `none`. Must be called within a tokio runtime.
    #[must_use]
    pub fn start<T: Fn(Vec<Trouble>) + Send + 'static>(
        me: NodeId,
        reviver: Arc<dyn Reviver>,
        surroundings: Surroundings<T>,
    ) -> Self {
        let able = reviver.is_able();
        Self(able.then(|| tokio::spawn(run(me, reviver, surroundings))))
    }
}

impl Drop for Supervision {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// A completed action of the reviver.
enum Done {
    Inspected(NodeId, Evidence),
    Revived(NodeId, Result<(), String>),
}

async fn run<T: Fn(Vec<Trouble>)>(
    me: NodeId,
    reviver: Arc<dyn Reviver>,
    mut surroundings: Surroundings<T>,
) {
    let started = Instant::now();
    let mut supervisor = Supervisor::new(me, reviver.name());
    let mut ends = Some(Arc::clone(&reviver).ends());
    let mut work: JoinSet<Done> = JoinSet::new();
    surroundings.views.mark_changed();
    surroundings.leaders.mark_changed();
    loop {
        let due = supervisor.next_deadline().map(|at| started + at);
        let due = async {
            match due {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = surroundings.views.changed() => {
                if changed.is_err() {
                    return;
                }
                let view = surroundings.views.borrow_and_update().clone();
                supervisor.set_view(started.elapsed(), &view);
            }
            changed = surroundings.leaders.changed() => {
                if changed.is_err() {
                    return;
                }
                let lead = surroundings.leaders.borrow_and_update().clone();
                let leads = lead.leader == Some(me);
                supervisor.set_leading(started.elapsed(), leads, &lead.troubles);
            }
            ended = next_end(&mut ends) => supervisor.ended(started.elapsed(), ended),
            Some(done) = work.join_next() => match done {
                Ok(Done::Inspected(node, evidence)) => {
                    supervisor.inspected(started.elapsed(), node, evidence);
                }
                Ok(Done::Revived(node, result)) => {
                    supervisor.revived(started.elapsed(), node, result);
                }
                Err(error) => tracing::error!(%error, "a reviver failed"),
            },
            () = due => supervisor.tick(started.elapsed()),
        }
        while let Some(step) = supervisor.poll_step() {
            match step {
                Step::Inspect(node) => {
                    let reviver = Arc::clone(&reviver);
                    work.spawn(async move { Done::Inspected(node, reviver.inspect(node).await) });
                }
                Step::Revive { node, kill } => {
                    let reviver = Arc::clone(&reviver);
                    work.spawn(async move {
                        let revived =
                            if kill { reviver.restart(node) } else { reviver.start(node) };
                        Done::Revived(node, revived.await)
                    });
                }
                Step::Record(what) => surroundings.history.record(what),
                Step::Tell(troubles) => (surroundings.troubles)(troubles),
            }
        }
    }
}

/// The next node that the reviver saw end. Waits for ever once the reviver reports no more ends.
async fn next_end(ends: &mut Option<mpsc::Receiver<NodeId>>) -> NodeId {
    if let Some(receiver) = ends {
        if let Some(node) = receiver.recv().await {
            return node;
        }
        *ends = None;
    }
    std::future::pending().await
}
