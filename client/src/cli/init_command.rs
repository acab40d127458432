//! `cortado init`.

use std::path::Path;

use serde_json::json;

use super::args::InitArguments;
use super::output::{self, Output};
use crate::Error;
use crate::init::{Made, Options, init};

pub(super) fn run(arguments: InitArguments, output: Output) -> Result<(), Error> {
    let InitArguments { dir, name: cluster, nodes, mut hosts, data, .. } = arguments;
    let InitArguments { published, published_http, .. } = arguments;
    let InitArguments { replicas, min_copies, timing, reviver, allow_chaos, .. } = arguments;
    let InitArguments { once, node_group, seen_as, .. } = arguments;
    if hosts.is_empty() {
        hosts = (1..=nodes).map(|number| format!("node-{number}")).collect();
    }
    let options = Options {
        cluster,
        hosts,
        published,
        published_http,
        data,
        replicas,
        min_copies,
        timing,
        reviver,
        allow_chaos,
        once,
        node_group,
    };
    let made = init(&dir, &options)?;
    let value = json!({ "dir": dir, "cluster": options.cluster, "nodes": made.nodes });
    output.show(&value, |_| match &seen_as {
        Some(profile) => next_steps(&made, profile),
        None => format!(
            "{} nodes in {}: copy each node-N to its host and start `cortado-node --config \
             node.toml` there;\nkeep authority/ away from them",
            made.nodes.len(),
            dir.display()
        ),
    })
}

/// The next commands for a new cluster.
fn next_steps(made: &Made, profile: &Path) -> String {
    let (nodes, profile) = (made.nodes.len(), output::quoted(profile));
    let note = if made.before { "there already, left as it is" } else { "new" };
    format!(
        "{nodes} nodes; the profile for clients is {profile} ({note})\n\
         cortado --cluster {profile} nodes\n\
         cortado --cluster {profile} run coffee --data DATA --out RESULTS"
    )
}
