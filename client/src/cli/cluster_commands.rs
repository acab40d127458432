//! `cortado nodes`, `ring`, `drain` and `forget`.

use cortado_protocol::NodeId;
use cortado_protocol::client::{ClientRequest, ClientResponse, ClusterView, Overdue, RingView};
use serde_json::json;

use super::output::{Output, grouped, table};
use crate::cluster::unexpected;
use crate::{Cluster, Error};

pub(super) async fn nodes(cluster: &Cluster, output: Output) -> Result<(), Error> {
    let view = cluster.view().await?;
    output.show(&cortado_report::Cluster::from(&view), |_| {
        let supervisor = match &view.supervisor {
            Some((node, term)) => format!("{node} (term {term})"),
            None => "none, an election is on".into(),
        };
        let formed = if view.formed {
            String::new()
        } else {
            format!("\nstill forming: waits for {} nodes", view.expected_nodes)
        };
        let overdue = view.overdue.as_ref().map(overdue_text).unwrap_or_default();
        format!(
            "{}\n{}\ncluster {}, {} slots, fsync on {} of {}; seen by {}\nsupervisor: {supervisor}{formed}{overdue}",
            members_table(&view),
            reasons(&view),
            view.cluster,
            view.slots,
            view.min_copies,
            view.replicas,
            view.answered_by,
        )
    })
}

pub(super) async fn ring(cluster: &Cluster, output: Output) -> Result<(), Error> {
    let view = match cluster.request(&ClientRequest::Ring).await? {
        (ClientResponse::Ring(view), _) => view,
        (other, _) => return Err(unexpected(&other)),
    };
    output.show(&cortado_report::Ring::from(&view), |_| ring_text(&view))
}

pub(super) async fn drain(cluster: &Cluster, node: NodeId, output: Output) -> Result<(), Error> {
    match cluster.request(&ClientRequest::Drain(node)).await? {
        (ClientResponse::Accepted, _) => {
            output.show(&json!({ "node": node, "state": "draining" }), |_| {
                format!("{node} drains: it moves its records away and leaves; watch `cortado ring`")
            })
        }
        (other, _) => Err(unexpected(&other)),
    }
}

pub(super) async fn forget(cluster: &Cluster, node: NodeId, output: Output) -> Result<(), Error> {
    match cluster.request(&ClientRequest::Forget(node)).await? {
        (ClientResponse::Accepted, _) => {
            output.show(&json!({ "node": node, "state": "forgotten" }), |_| {
                format!(
                    "{node} is forgotten: it counts no more, and its certificate opens nothing. A node of \
                     that name may join again with a new certificate and an empty data folder"
                )
            })
        }
        (other, _) => Err(unexpected(&other)),
    }
}

/// Why jobs are still there although their time is over.
fn overdue_text(overdue: &Overdue) -> String {
    let (jobs, them) = match overdue.jobs {
        1 => ("1 job is".to_owned(), "it"),
        jobs => (format!("{jobs} jobs are"), "them"),
    };
    let away = if overdue.away.is_empty() {
        "members that were never seen".to_owned()
    } else {
        NodeId::join(&overdue.away, ", ")
    };
    format!(
        "\n{jobs} past the time to live; to let go of {them}, too many members are away: start {away}, or \
         `cortado forget` who will not come back"
    )
}

/// The members as a table.
pub(super) fn members_table(view: &ClusterView) -> String {
    let rows = view
        .members
        .iter()
        .map(|member| {
            vec![
                member.id.to_string(),
                if view.crash_looping.contains(&member.id) {
                    "crash-looping".into()
                } else {
                    member.state.name().into()
                },
                member.client_addr.to_string(),
                member.jobs.map_or_else(String::new, |jobs| jobs.to_string()),
            ]
        })
        .collect();
    table(&["NODE", "STATE", "CLIENTS", "JOBS"], &[3], rows)
}

/// The reasons why members are ill, one per line.
fn reasons(view: &ClusterView) -> String {
    let ill = view.members.iter().filter_map(|member| Some((member.id, member.reason.as_ref()?)));
    ill.map(|(node, reason)| format!("{node} is ill: {reason}\n")).collect()
}

fn ring_text(view: &RingView) -> String {
    let rows = view
        .slots
        .iter()
        .map(|(slot, owners)| vec![slot.0.to_string(), NodeId::join(owners, " ")])
        .collect();
    let slots = table(&["SLOT", "OWNERS"], &[0], rows);
    let moves = if view.moves.is_empty() {
        "no moves in progress".into()
    } else {
        let rows = view
            .moves
            .iter()
            .map(|(job, node, entries)| vec![job.to_string(), node.to_string(), grouped(*entries)])
            .collect();
        table(&["JOB", "TO", "ENTRIES"], &[2], rows)
    };
    format!("{slots}\n\n{moves}\nview {}", view.version)
}
