//! `cortado log`.

use std::sync::Arc;
use std::time::Duration;

use cortado_report::time_of;

use super::output::Output;
use crate::events::{Events, Seen};
use crate::{Cluster, Error};

/// How long a request waits for events. A node that has just joined is asked after this time at
/// most.
const ROUND: Duration = Duration::from_secs(1);

pub(super) async fn log(cluster: Arc<Cluster>, follow: bool, output: Output) -> Result<(), Error> {
    let mut events = Events::new(cluster);
    print(&events.next(Duration::ZERO).await?, output)?;
    if !follow {
        return Ok(());
    }
    loop {
        match events.next(ROUND).await {
            Ok(news) => print(&news, output)?,
            // `--follow` continues until the cluster returns.
            Err(Error::Unreachable(reason)) => super::output::note(&reason),
            Err(error) => return Err(error),
        }
    }
}

fn print(events: &[Seen], output: Output) -> Result<(), Error> {
    for seen in events {
        if output.json {
            let event = cortado_report::Event::new(seen.by, seen.boot, &seen.event);
            output.value(&event)?;
        } else {
            let Seen { by, event, .. } = seen;
            output.line(&format!("{}  {by}: {}", time_of(event.unix_ms), event.what))?;
        }
    }
    Ok(())
}
