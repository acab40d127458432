//! `cortado init`.

use serde_json::json;

use super::args::InitArguments;
use super::output::Output;
use crate::Error;
use crate::init::{Options, init};

pub(super) fn run(arguments: InitArguments, output: Output) -> Result<(), Error> {
    let InitArguments { dir, name: cluster, nodes, mut hosts, published, data, .. } = arguments;
    let InitArguments { replicas, min_copies, timing, reviver, allow_chaos, .. } = arguments;
    if hosts.is_empty() {
        hosts = (1..=nodes).map(|number| format!("node-{number}")).collect();
    }
    let options = Options {
        cluster,
        hosts,
        published,
        data,
        replicas,
        min_copies,
        timing,
        reviver,
        allow_chaos,
    };
    let nodes = init(&dir, &options)?;
    let value = json!({ "dir": dir, "cluster": options.cluster, "nodes": nodes });
    output.show(&value, |_| {
        format!(
            "{} nodes in {}: copy each node-N to its host and start `cortado-node --config \
             node.toml` there;\nkeep authority/ away from them",
            nodes.len(),
            dir.display()
        )
    })
}
