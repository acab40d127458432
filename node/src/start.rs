//! Puts a node together, runs it, and takes it apart again.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use cortado_core::{Budget, Config, Core};
use cortado_local::Place;
use cortado_log::{Committer, LogConfig};
use cortado_membership::{Identity, KnownPeer};
use cortado_protocol::event::Happening;
use cortado_protocol::{LogId, NodeId};
use cortado_transport::NodeTls;
use tokio::sync::{mpsc, watch};

use crate::chaos::Chaos;
use crate::clients::{self, Clients};
use crate::clock::unix_ms;
use crate::config::{Settings, TlsFiles};
use crate::disk::{Disk, NodeState};
use crate::driver::{Driver, Ended, Inputs, Stop};
use crate::gossip::{Gossip, GossipConfig, Memory};
use crate::health::HealthPort;
use crate::history::History;
use crate::http::{self, Http, HttpConfig, Known};
use crate::keeper::Keeper;
use crate::meters::Meters;
use crate::peers::{self, Peers, PeersConfig};
use crate::scrub::{Pace, Scrub};
use crate::seldom::Seldom;
use crate::supervision::{Supervision, Surroundings};
use crate::watch::{Beat, Watch};
use crate::webhooks::Webhooks;
use crate::words::sentence;
use crate::workers::{Workers, long_tasks};

/// Appends the log's thread may be behind before the driver waits for it.
const LOG_QUEUE: usize = 4096;

/// The detector's memory is on the node's disk.
struct OnDisk(NodeState, Keeper);

impl Memory for OnDisk {
    fn persist(&self, generation: u64) -> io::Result<()> {
        self.0.save_generation(generation).map_err(io::Error::other)
    }

    fn known(&self, peers: Vec<KnownPeer>) {
        let bytes = cortado_protocol::frame::to_postcard(&peers);
        self.1.write(crate::disk::PEERS, None, bytes);
    }
}

/// Runs a node until the operator stops it or it has handed everything over.
///
/// # Errors
/// If it can't start, with a sentence that says what to do.
pub async fn run(
    settings: Settings,
    stop: watch::Receiver<Stop>,
    reloads: watch::Receiver<Option<TlsFiles>>,
) -> anyhow::Result<()> {
    let tls = load_certificates(&settings.cluster, settings.node, &settings.tls)?;
    // Ends with the sender, which the caller has.
    tokio::spawn(follow_files(tls.clone(), reloads));
    let certificate = tokio::spawn(look_at_certificate(tls.clone()));
    let seed = uuid::Uuid::new_v4().as_u128();
    let chaos =
        settings.allow_chaos.then(|| Chaos::new(seed as u64, settings.disk_reserve_mib << 20));
    let faults = chaos.as_ref().map(|chaos| chaos.network().clone());
    let disk = Disk::open(&settings.data, &settings.cluster, settings.node, chaos.as_ref())?;
    Place::new(&settings.folder).claim().context("can't write down this node's process")?;
    let health = HealthPort::open(&settings.data, disk.state.clone())
        .context("can't answer for this node's health")?;
    let reviver = settings.reviver()?;
    let generation = disk.state.next_generation(unix_ms())?;
    let known = disk.state.peers()?;

    let history = History::new(generation);
    let meters = Arc::new(Meters::default());
    let http = match HttpConfig::of(&settings) {
        None => None,
        Some(config) => {
            let bind = config.bind;
            let (doctor, history, meters) = (health.doctor(), history.clone(), Arc::clone(&meters));
            let open = Http::open(config, Known { doctor, history, meters });
            Some(open.with_context(|| format!("can't listen on {bind} for HTTP"))?)
        }
    };
    let mut core = Core::new(core_config(&settings, generation));
    let log_config =
        LogConfig { reserve_bytes: settings.disk_reserve_mib << 20, ..LogConfig::default() };
    let log = disk.open_log(log_config, seed, &mut core)?;
    let log_id = LogId(log.log_id());

    let (done, tasks) = mpsc::unbounded_channel();
    let workers = Workers::start(settings.threads(), &log.reader(), &done)?;
    let (webhooks, delivered) = Webhooks::new();
    let (saved, state_events) = mpsc::unbounded_channel();
    let keeper = Keeper::start(disk.state.clone(), saved)?;
    let (found, damaged) = mpsc::unbounded_channel();
    let scrub = Scrub::start(log.reader(), Pace::default(), move |record, head| {
        // Fails only while the process ends.
        let _ = found.send((record, head));
    })?;
    let (committed, log_events) = mpsc::unbounded_channel();
    let committer = Committer::spawn(log, LOG_QUEUE, move |done| {
        // Fails only while the process ends.
        let _ = committed.send(done);
    })?;

    let (departed, barred) = core.departed();
    let register = tls.register().clone();
    register.bar(barred);
    let core = Arc::new(Mutex::new(core));
    let bind = |port| SocketAddr::new(settings.bind, port);
    let (to_peers, peer_events) = mpsc::channel(peers::EVENTS);
    let resume = {
        let core = Arc::clone(&core);
        let ask = move |peer| core.lock().unwrap_or_else(PoisonError::into_inner).resume(peer);
        // The core may be busy for a while: whatever else this thread has to do goes to another one.
        Arc::new(move |peer| tokio::task::block_in_place(|| ask(peer)))
    };
    let config = PeersConfig {
        bind: bind(settings.peer_port),
        tls: tls.clone(),
        boot: generation,
        log: log_id,
        faults: faults.clone(),
    };
    let peers = Peers::start(config, resume, to_peers)?;
    let (to_clients, client_events) = mpsc::channel(clients::EVENTS);
    let (client_bind, events) = (bind(settings.client_port), (history.clone(), chaos.clone()));
    let clients = Clients::start(client_bind, &tls, events, meters, to_clients)?;

    let http_addr = http.as_ref().and_then(|http| settings.http_addr(http.local_addr().port()));
    let me = Identity {
        generation,
        leaving: false,
        draining: false,
        id: settings.node,
        ip: settings.advertised(),
        gossip_port: settings.gossip_port,
        peer_port: peers.local_addr()?.port(),
        client_port: clients.local_addr()?.port(),
        http_addr,
    };
    history.record(Happening::Started { generation });
    let config = GossipConfig {
        bind: bind(settings.gossip_port),
        tls,
        profile: settings.detector_profile()?,
        me,
        follow_own_name: settings.follow_own_name,
        seeds: settings.join.clone(),
        known,
        seed: seed as u64,
        history: history.clone(),
        faults,
    };
    let gossip = Gossip::start(config, OnDisk(disk.state.clone(), keeper.keeper()))?;
    gossip.forget(departed);
    let stall = chaos.as_ref().map(|chaos| chaos.stall().clone());
    if let Some(chaos) = chaos {
        tracing::warn!("clients may disturb this node on purpose (--allow-chaos)");
        chaos.follow(gossip.views());
    }
    let (wanted, snapshots) = mpsc::channel(1);
    if let Some(http) = &http {
        http.started(http::Started {
            inside: clients.inside(),
            views: gossip.views(),
            leaders: gossip.leaders(),
            snapshots: wanted,
            log: committer.meter(),
            data: settings.data.clone(),
        });
        tracing::info!(page = %format_args!("http://{}/", http.local_addr()), "answers over HTTP");
    }
    tracing::info!(node = %settings.node, cluster = %settings.cluster, generation, "started");

    let surroundings = Surroundings {
        views: gossip.views(),
        leaders: gossip.leaders(),
        history,
        troubles: gossip.troubles(),
    };
    let supervision = Supervision::start(settings.node, Arc::clone(&reviver), surroundings);

    let inputs = Inputs {
        peers: peer_events,
        clients: client_events,
        views: gossip.views(),
        log: log_events,
        saved: state_events,
        delivered,
        damaged,
        tasks,
        stop: stop.clone(),
        pings: health.started(),
        snapshots,
    };
    let beat = Beat::new();
    let watch = Watch::start(beat.clone(), committer.busy(), gossip.health())
        .context("can't watch this node's health")?;
    let mut driver = Driver {
        core,
        leaders: gossip.leaders(),
        me: settings.node,
        peers,
        clients,
        gossip,
        log: committer.queue(),
        keeper: keeper.keeper(),
        register,
        workers,
        webhooks,
        beat,
        stall,
        refused: Vec::new(),
        full: Seldom::default(),
        forgotten: VecDeque::new(),
        released: VecDeque::new(),
    };
    let ended = run_bounded(&mut driver, inputs, stop, &settings).await;
    drop(supervision);
    drop(watch);
    drop(scrub);
    if ended != Ended::Deaf {
        // Before the others can see that it ends.
        reviver.retire(settings.node);
    }
    certificate.abort();
    // Its thread ends at once: no connection is waited for.
    drop(http);
    let done = shut_down(driver, committer, ended).await;
    drop(keeper);
    done
}

/// Runs the driver; a hand-over that takes too long is cut short.
async fn run_bounded(
    driver: &mut Driver,
    inputs: Inputs,
    mut stop: watch::Receiver<Stop>,
    settings: &Settings,
) -> Ended {
    let limit = settings.drain_limit();
    let overdue = async {
        // An error means that nobody can ask for a drain any more.
        if stop.wait_for(|stop| *stop == Stop::Drain).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(limit).await;
    };
    tokio::select! {
        ended = driver.run(inputs) => ended,
        () = overdue => {
            tracing::warn!(?limit, "leaving before everything was handed over; the data stays here");
            Ended::Drained
        }
    }
}

async fn shut_down(driver: Driver, committer: Committer<u64>, ended: Ended) -> anyhow::Result<()> {
    let Driver { peers, clients, gossip, log, workers, .. } = driver;
    if ended != Ended::Deaf {
        gossip.leave().await;
    }
    clients.stop().await;
    peers.stop().await;
    drop(log);
    drop(workers);
    // Waits for the last sync; what nobody acknowledged may still be in it.
    if committer.close().is_err() {
        bail!("the log's thread failed");
    }
    match ended {
        Ended::Drained => tracing::info!("handed over and left"),
        Ended::Stopped => tracing::info!("stopped"),
        Ended::Deaf => {
            gossip.stop().context("the failure detector ended")?;
            bail!("the failure detector ended");
        }
    }
    Ok(())
}

fn core_config(settings: &Settings, generation: u64) -> Config {
    Config {
        node: settings.node,
        cluster: settings.cluster.clone(),
        boot: generation,
        log: LogId::default(),
        replicas: settings.replicas,
        min_copies: settings.min_copies,
        slots: settings.slots,
        expected_nodes: settings.expected_nodes,
        max_running_jobs: settings.max_running_jobs,
        upload_idle: settings.upload_idle(),
        memory: Budget::of(settings.memory(), long_tasks(settings.threads())),
        job_ttl: settings.job_ttl(),
        planted: None,
    }
}

/// Takes certificates and authorities over from their files whenever that is wanted.
async fn follow_files(tls: NodeTls, mut reloads: watch::Receiver<Option<TlsFiles>>) {
    while reloads.changed().await.is_ok() {
        let Some(files) = reloads.borrow_and_update().clone() else { continue };
        let newer = load_certificates(tls.cluster(), tls.node(), &files);
        match newer.and_then(|newer| Ok(tls.renew(&newer)?)) {
            Ok(()) => tracing::info!("read certificates, authorities and what to log again"),
            Err(error) => {
                tracing::error!("certificates stay as they were: {}", sentence(&error));
            }
        }
    }
}

/// Days before its end from which on a certificate is talked about.
const TELL_DAYS: u64 = 30;

/// How many days are left, if they are few.
fn days_left(valid_until: u64, now: u64) -> Option<u64> {
    let days = valid_until.saturating_sub(now) / 86_400;
    (days < TELL_DAYS).then_some(days)
}

/// Says every day that the certificate ends soon. Nobody looks into one before it is too late.
async fn look_at_certificate(tls: NodeTls) {
    let mut day = tokio::time::interval(Duration::from_secs(86_400));
    loop {
        day.tick().await;
        if let Some(days) = days_left(tls.valid_until(), unix_ms() / 1000) {
            tracing::warn!(
                days,
                "this node's certificate is not valid for much longer: issue another one, then SIGHUP"
            );
        }
    }
}

fn load_certificates(cluster: &str, node: NodeId, files: &TlsFiles) -> anyhow::Result<NodeTls> {
    let tls = NodeTls::load(cluster, &files.cert, &files.key, &files.peer_ca, &files.client_ca)?;
    if tls.node() != node {
        bail!(
            "node = \"{}\", but the certificate {} is for '{}'",
            node,
            files.cert.display(),
            tls.node()
        );
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_talked_about_in_its_last_month() {
        let day = 86_400;
        assert_eq!(days_left(100 * day, 70 * day), None);
        assert_eq!(days_left(100 * day, 70 * day + 1), Some(29));
        assert_eq!(days_left(100 * day, 101 * day), Some(0));
    }
}
