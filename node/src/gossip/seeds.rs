//! Looks seeds up, apart from the detector's loop: a name server that does not answer must not stop
//! the probes. Nothing is cached, for a node that was recreated has a new address at once.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::watch;

/// Pause between two rounds.
const ROUND: Duration = Duration::from_secs(2);

/// Looks the seeds up, again and again if any of them is a name. Ends when nobody listens.
pub(super) async fn look_up(seeds: Vec<String>, found: watch::Sender<Vec<SocketAddr>>) {
    let only_addresses = seeds.iter().all(|seed| seed.parse::<SocketAddr>().is_ok());
    let mut failed: BTreeSet<&str> = BTreeSet::new();
    loop {
        let mut addresses = BTreeSet::new();
        for seed in &seeds {
            match tokio::net::lookup_host(seed.as_str()).await {
                Ok(some) => {
                    addresses.extend(some);
                    failed.remove(seed.as_str());
                }
                // Said once until it works again: names resolve only once their node is up.
                Err(error) if failed.insert(seed) => {
                    tracing::info!(%seed, %error, "seed can't be looked up yet");
                }
                Err(_) => {}
            }
        }
        let addresses: Vec<SocketAddr> = addresses.into_iter().collect();
        found.send_if_modified(|old| {
            let news = *old != addresses;
            *old = addresses;
            news
        });
        if only_addresses || found.is_closed() {
            return;
        }
        tokio::time::sleep(ROUND).await;
    }
}
