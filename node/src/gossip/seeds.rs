//! Looks up the seeds and this host's own address, outside the detector's loop: a name server that
//! does not answer must not stop the probes. Nothing is cached, because a recreated node has a new
//! address at once.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::watch;

use crate::config::own_addresses;

/// Pause between two rounds.
const ROUND: Duration = Duration::from_secs(2);

/// Looks up the seeds, repeatedly if any of them is a name. Ends when the receiver is gone.
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
                // Logged once until the lookup works again: a name resolves only while its node
                // runs.
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

/// Looks up this host's own name repeatedly: a container that is reconnected to its network gets
/// another address, and so may a host. Ends when the receiver is gone.
pub(super) async fn follow_own_name(bind: IpAddr, mine: watch::Sender<IpAddr>) {
    while !mine.is_closed() {
        tokio::time::sleep(ROUND).await;
        let looking = tokio::task::spawn_blocking(move || own_addresses(bind).unwrap_or_default());
        // The result is empty while the host is cut off; it may get the same address again.
        let found = looking.await.unwrap_or_default();
        mine.send_if_modified(|mine| move_to(mine, &found));
    }
}

/// Takes another address only if the present one is gone. Returns whether it did.
fn move_to(mine: &mut IpAddr, found: &[IpAddr]) -> bool {
    match found.first() {
        Some(other) if !found.contains(mine) => {
            *mine = *other;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_kept_while_it_is_good() {
        let [old, new, other] = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|ip| ip.parse().unwrap());
        for (found, expected) in
            [(&[][..], old), (&[old], old), (&[new, old], old), (&[new, other], new)]
        {
            let mut mine = old;
            assert_eq!(move_to(&mut mine, found), expected != old);
            assert_eq!(mine, expected);
        }
    }
}
