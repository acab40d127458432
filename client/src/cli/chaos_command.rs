//! `cortado chaos`.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cortado_protocol::NodeId;
use serde_json::{Value, json};

use super::args::{ChaosCommand, Group, Lasts};
use super::output::{self, Output};
use crate::chaos::{Act, Chaos, Fault, Kind, Weather};
use crate::{Cluster, Error};

pub(super) async fn run(
    cluster: Arc<Cluster>,
    profile: Option<&Path>,
    command: ChaosCommand,
    output: Output,
) -> Result<(), Error> {
    // A cluster was opened, so there is a profile.
    let chaos = Chaos::new(cluster, profile.unwrap_or(Path::new("."))).await?;
    match command {
        ChaosCommand::Kill { node } => {
            inflict(&chaos, Fault::Kill(node), Duration::ZERO, output).await
        }
        ChaosCommand::Pause { node, lasts } => {
            inflict(&chaos, Fault::Pause(node), lasts.time, output).await?;
            if interrupted_within(lasts).await {
                output::note("interrupted");
            }
            chaos.resume(node)?;
            output.show(&json!({ "node": node, "state": "resumed" }), |_| format!("{node} goes on"))
        }
        ChaosCommand::Partition { groups, lasts } => {
            let fault = Fault::Partition(parts(&chaos.nodes(), groups)?);
            inflict(&chaos, fault, lasts.time, output).await
        }
        ChaosCommand::Oneway { from, to, lasts } => {
            if from == to {
                return Err(Error::BadInput(format!("{from} always hears itself: name two nodes")));
            }
            inflict(&chaos, Fault::Oneway { from, to }, lasts.time, output).await
        }
        ChaosCommand::Delay { nodes, ms, lasts } => {
            inflict(&chaos, Fault::Delay { nodes, ms }, lasts.time, output).await
        }
        ChaosCommand::Loss { nodes, percent, lasts } => {
            inflict(&chaos, Fault::Loss { nodes, percent }, lasts.time, output).await
        }
        ChaosCommand::DiskFull { nodes, lasts } => {
            inflict(&chaos, Fault::DiskFull(nodes), lasts.time, output).await
        }
        ChaosCommand::DiskHang { nodes, lasts } => {
            inflict(&chaos, Fault::DiskHang(nodes), lasts.time, output).await
        }
        ChaosCommand::LoopStall { nodes, lasts } => {
            inflict(&chaos, Fault::LoopStall(nodes), lasts.time, output).await
        }
        ChaosCommand::DataCut { node, oneway: way, lasts } => {
            let others = chaos.nodes().into_iter().filter(|other| *other != node).collect();
            inflict(&chaos, Fault::DataCut { node, others, way }, lasts.time, output).await
        }
        ChaosCommand::Heal { nodes } => {
            let nodes = if nodes.is_empty() { chaos.nodes() } else { nodes };
            let silent = chaos.heal(&nodes).await?;
            output.show(&json!({ "healed": nodes, "unanswered": silent }), |_| {
                format!("{} healed{}", NodeId::join(&nodes, ", "), unanswered(&silent))
            })
        }
        ChaosCommand::Run { minutes, seed, only } => {
            let duration = Duration::try_from_secs_f64(minutes * 60.0).map_err(|_| {
                Error::BadInput(format!("--minutes {minutes}: expected a positive number"))
            })?;
            let kinds = if only.is_empty() { Kind::ALL.to_vec() } else { only };
            weather(&chaos, &Weather { duration, seed, kinds }, output).await
        }
    }
}

async fn inflict(
    chaos: &Chaos,
    fault: Fault,
    lasts: Duration,
    output: Output,
) -> Result<(), Error> {
    let silent = chaos.inflict(&fault, lasts).await?;
    output.show(&fault_json(&fault, lasts, &silent), |_| {
        format!("{}{}", sentence(&fault, lasts), unanswered(&silent))
    })
}

/// Makes random faults. Ctrl-C ends all of them and the command.
async fn weather(chaos: &Chaos, weather: &Weather, output: Output) -> Result<(), Error> {
    let mut closed = None;
    let tell = |act: &Act| {
        let line = if output.json { act_json(act).to_string() } else { act_text(act) };
        closed = closed.take().or(output.line(&line).err());
    };
    let acts = tokio::select! {
        acts = weather.run(chaos, tell) => acts?,
        () = interrupt() => {
            chaos.heal(&chaos.nodes()).await?;
            return Err(Error::Unreachable("interrupted; everything is healed".into()));
        }
    };
    if let Some(error) = closed {
        return Err(error);
    }
    output::note(&format!("{acts} pieces of trouble; all {} nodes are alive", chaos.nodes().len()));
    Ok(())
}

/// The given groups, and one more group with all other nodes.
fn parts(nodes: &[NodeId], groups: Vec<Group>) -> Result<Vec<Vec<NodeId>>, Error> {
    let mut parts: Vec<_> = groups.into_iter().map(|Group(nodes)| nodes).collect();
    let named = parts.concat();
    if let Some(twice) = named.iter().enumerate().find(|(at, node)| named[..*at].contains(node)) {
        return Err(Error::BadInput(format!("{} is named twice", twice.1)));
    }
    let rest: Vec<_> = nodes.iter().copied().filter(|node| !named.contains(node)).collect();
    if !rest.is_empty() {
        parts.push(rest);
    }
    if parts.len() < 2 {
        return Err(Error::BadInput(
            "all nodes are in one part: name fewer, or divide them by spaces".into(),
        ));
    }
    Ok(parts)
}

/// Whether Ctrl-C was pressed before the time was over.
async fn interrupted_within(lasts: Lasts) -> bool {
    tokio::time::timeout(lasts.time, interrupt()).await.is_ok()
}

async fn interrupt() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without the signal handler Ctrl-C can't interrupt.
        pending::<()>().await;
    }
}

fn sentence(fault: &Fault, lasts: Duration) -> String {
    match fault {
        Fault::Kill(node) => format!("{node} killed"),
        fault => format!("{fault} for {:.1} s", lasts.as_secs_f64()),
    }
}

fn act_text(act: &Act) -> String {
    let note = act.note.as_ref().map_or_else(String::new, |note| format!("  ({note})"));
    format!("{:6.1} s  {}{note}", act.at.as_secs_f64(), sentence(&act.fault, act.lasts))
}

/// A fault as JSON; see docs/cli-json.md.
fn fault_json(fault: &Fault, lasts: Duration, silent: &[NodeId]) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "unix_ms": now.as_millis() as u64,
        "fault": fault.kind().name(),
        "nodes": fault.nodes(),
        "for_ms": lasts.as_millis() as u64,
        "unanswered": silent,
        "message": sentence(fault, lasts),
    })
}

fn act_json(act: &Act) -> Value {
    let mut value = fault_json(&act.fault, act.lasts, &[]);
    value["note"] = json!(act.note);
    value
}

fn unanswered(silent: &[NodeId]) -> String {
    match silent {
        [] => String::new(),
        silent => format!(" ({} did not answer)", NodeId::join(silent, ", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(numbers: &[u32]) -> Vec<NodeId> {
        numbers.iter().map(|number| format!("node-{number}").parse().unwrap()).collect()
    }

    #[test]
    fn the_rest_is_a_part_of_its_own() {
        let all = nodes(&[1, 2, 3]);
        let group = |numbers| Group(nodes(numbers));
        assert_eq!(parts(&all, vec![group(&[2])]).unwrap(), [nodes(&[2]), nodes(&[1, 3])]);
        let whole = parts(&all, vec![group(&[1, 2]), group(&[3])]).unwrap();
        assert_eq!(whole, [nodes(&[1, 2]), nodes(&[3])]);
        for wrong in [vec![group(&[1, 2, 3])], vec![group(&[1]), group(&[1, 2])]] {
            assert_eq!(parts(&all, wrong).unwrap_err().exit_code(), 2);
        }
    }
}
