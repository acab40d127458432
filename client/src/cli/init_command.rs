//! `cortado init`.

use serde_json::json;

use super::args::InitArguments;
use super::output::Output;
use crate::Error;
use crate::init::{Options, init};

pub(super) fn run(arguments: InitArguments, output: Output) -> Result<(), Error> {
    let InitArguments { dir, name, nodes, hosts, published, data, replicas, min_copies, .. } =
        arguments;
    let hosts = match hosts.is_empty() {
        true => (1..=nodes).map(|number| format!("node-{number}")).collect(),
        false => hosts,
    };
    let (timing, reviver) = (arguments.timing, arguments.reviver);
    let options =
        Options { cluster: name, hosts, published, data, replicas, min_copies, timing, reviver };
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
