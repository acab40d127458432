//! `cortado local`.

use std::path::Path;

use rustix::process::Signal;
use serde_json::json;

use super::args::{LocalCommand, NodeArguments, Reviver};
use super::cluster_commands::members_table;
use super::output::{self, Output};
use crate::Error;
use crate::local::{self, Folder, NodeFolder, Options, UpReport};

/// Number of nodes of a new cluster.
const DEFAULT_NODES: u16 = 5;

/// `profile` is the profile that clients use.
pub(super) async fn run(
    command: LocalCommand,
    profile: Option<&Path>,
    output: Output,
) -> Result<(), Error> {
    let open = |arguments: &NodeArguments| open(arguments, profile);
    match command {
        LocalCommand::Up { dir, nodes, replicas, min_copies, timing, reviver, allow_chaos } => {
            let dir = dir.or(profile)?;
            if let Some(nodes) = nodes {
                refuse_other_size(&dir, nodes)?;
            }
            let nodes = nodes.unwrap_or(DEFAULT_NODES);
            let revive = reviver == Reviver::Process;
            let options = Options { nodes, replicas, min_copies, timing, revive, allow_chaos };
            let report = local::up(&dir, &options).await?;
            show_up(&report, output)
        }
        LocalCommand::Add { dir, count } => {
            show_up(&local::add(&dir.or(profile)?, count).await?, output)
        }
        LocalCommand::Down { dir, wipe } => {
            let ended = local::down(&dir.or(profile)?, wipe)?;
            for end in ended.iter().filter(|end| !end.by_itself) {
                output::note(&format!("{} did not stop in time and was killed", end.node));
            }
            let stopped: Vec<_> = ended.iter().map(|end| end.node).collect();
            output.show(&json!({ "stopped": stopped, "wiped": wipe }), |_| {
                let wiped = if wipe { "; everything deleted" } else { "" };
                format!("{} stopped{wiped}", count(stopped.len()))
            })
        }
        LocalCommand::Start(arguments) => {
            let (folder, node) = open(&arguments)?;
            let started = local::start(&folder, &node).await?;
            done(output, &node, if started { "started" } else { "already running" })
        }
        LocalCommand::Stop(arguments) => {
            let (_, node) = open(&arguments)?;
            let ended = local::stop(&node)?;
            done(output, &node, if ended.by_itself { "stopped" } else { "killed" })
        }
        LocalCommand::Kill(arguments) => {
            let (_, node) = open(&arguments)?;
            node.kill()?;
            done(output, &node, "killed")
        }
        LocalCommand::Pause(arguments) => {
            let (_, node) = open(&arguments)?;
            node.signal(Signal::STOP)?;
            done(output, &node, "paused")
        }
        LocalCommand::Resume(arguments) => {
            let (_, node) = open(&arguments)?;
            node.signal(Signal::CONT)?;
            done(output, &node, "resumed")
        }
        LocalCommand::WipeDisk(arguments) => {
            let (_, node) = open(&arguments)?;
            node.wipe_disk()?;
            done(output, &node, "wiped")
        }
    }
}

fn open(arguments: &NodeArguments, profile: Option<&Path>) -> Result<(Folder, NodeFolder), Error> {
    let folder = Folder::open(&arguments.dir.or(profile)?)?;
    let node = folder.node(arguments.node)?;
    Ok((folder, node))
}

/// Refuses `up` for an existing cluster with another number of nodes.
fn refuse_other_size(dir: &Path, nodes: u16) -> Result<(), Error> {
    if !Folder::exists(dir) {
        return Ok(());
    }
    let existing = Folder::open(dir)?.nodes()?.len();
    if existing == 0 || existing == usize::from(nodes) {
        return Ok(());
    }
    Err(Error::BadInput(format!(
        "{} has {existing} nodes already, --nodes says {nodes}; leave it out, or add nodes with \
         `cortado local add`",
        dir.display()
    )))
}

fn show_up(report: &UpReport, output: Output) -> Result<(), Error> {
    let value = json!({
        "dir": report.folder,
        "started": report.started,
        "cluster": cortado_report::Cluster::from(&report.view),
        "durability": report.durability,
    });
    output.show(&value, |_| {
        format!("{}\n\n{}", members_table(&report.view), report.durability.sentence())
    })?;
    if !output.json {
        let dir = output::quoted(&report.folder);
        output::note(&format!("use it with `--cluster {dir}` or `export CORTADO_CLUSTER={dir}`"));
    }
    Ok(())
}

fn done(output: Output, node: &NodeFolder, what: &str) -> Result<(), Error> {
    let value = json!({ "node": node.name(), "state": what });
    output.show(&value, |_| format!("{} {what}", node.name()))
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }
}
