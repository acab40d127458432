//! A client's access to the cluster: the addresses to try, the members once one of them has
//! answered, one connection to each, and requests that move on to the next node when one does not
//! answer. All commands use it.

mod address;
mod causes;
mod connections;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cortado_protocol::client::{
    ANSWER_TIMEOUT, ClientError, ClientRequest, ClientResponse, ClusterView, ErrorKind,
    MemberState, MemberView,
};
use cortado_protocol::{NodeId, frame, limits};
use cortado_transport::{FrameReader, FrameWriter, Profile};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::Error;
use causes::Causes;
use connections::Connections;
pub(crate) use connections::NoAnswer;

/// How long a node has to answer a request that it can answer alone: a short time, so that a dead
/// node is noticed soon.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a node has to take a connection before the next one is tried.
const HEAD_START: Duration = Duration::from_millis(300);
/// Pause after no node answered, or after all answers were "not now".
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// How long the client tolerates refusals before it gives up: certificates may be about to change.
const REFUSED_FOR: Duration = Duration::from_secs(3);
/// How long a cluster may be silent before it counts as unreachable.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(30);

/// How to reach the cluster.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// Profile directory.
    pub profile: Option<PathBuf>,
    /// Addresses instead of the profile's.
    pub addresses: Vec<String>,
    /// Whether nodes are reached at their own addresses, although the profile names others.
    pub own_addresses: bool,
    /// How long the cluster may be silent; `None` means [`DEFAULT_PATIENCE`].
    pub patience: Option<Duration>,
    /// Most bytes per second of an upload; `None` means no limit.
    pub upload_rate: Option<NonZeroU64>,
}

/// The nodes of a cluster, reached over QUIC with the profile's certificate. It opens connections
/// when needed and keeps them.
pub struct Cluster {
    name: String,
    seeds: Vec<String>,
    /// Addresses at which clients reach nodes, where they differ from the nodes' own.
    published: BTreeMap<NodeId, SocketAddr>,
    /// Whether the user gave no addresses, so that any node may be asked.
    any_node: bool,
    patience: Duration,
    upload_rate: Option<NonZeroU64>,
    connections: Connections,
    known: Mutex<Known>,
}

/// What is known about the members.
#[derive(Default)]
struct Known {
    view: Option<ClusterView>,
    /// The node that answered last.
    last: Option<SocketAddr>,
}

impl Cluster {
    /// Reads the profile. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::BadInput`] if no profile is given or it can't be used.
    pub fn new(target: &Target) -> Result<Self, Error> {
        let dir = target.profile.as_deref().ok_or_else(|| {
            Error::BadInput(
                "which cluster? Give its profile directory with --cluster or in CORTADO_CLUSTER \
                 (`cortado local up --dir DIR` makes one)"
                    .into(),
            )
        })?;
        let bad = |error: &dyn std::error::Error| Error::BadInput(error.to_string());
        let profile = Profile::load(dir).map_err(|error| bad(&error))?;
        let tls = profile.tls().map_err(|error| bad(&error))?;
        let seeds =
            if target.addresses.is_empty() { profile.addresses } else { target.addresses.clone() };
        if let Some(wrong) = seeds.iter().find(|seed| !address::is_address(seed)) {
            return Err(Error::BadInput(format!("'{wrong}' is not host:port")));
        }
        Ok(Self {
            name: profile.cluster,
            seeds,
            published: if target.own_addresses { BTreeMap::new() } else { profile.published },
            any_node: target.addresses.is_empty(),
            patience: target.patience.unwrap_or(DEFAULT_PATIENCE),
            upload_rate: target.upload_rate,
            connections: Connections::new(tls),
            known: Mutex::default(),
        })
    }

    /// The cluster of a local folder.
    ///
    /// # Errors
    /// Like [`Cluster::new`].
    pub fn from_folder(dir: &Path) -> Result<Self, Error> {
        Self::new(&Target { profile: Some(dir.to_owned()), ..Target::default() })
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long the cluster may be silent before it counts as unreachable.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// Most bytes per second of an upload.
    pub(crate) fn upload_rate(&self) -> Option<NonZeroU64> {
        self.upload_rate
    }

    /// The members in the view of any node, remembered for later requests. If that node does not
    /// see half of them or more, the others are asked too: the network may be cut, and that node
    /// may be on the smaller side.
    ///
    /// # Errors
    /// Like [`Cluster::request`].
    pub async fn view(&self) -> Result<ClusterView, Error> {
        let mut view = match self.request(&ClientRequest::Cluster).await? {
            (ClientResponse::Cluster(view), _) => self.with_published(view),
            (other, _) => return Err(unexpected(&other)),
        };
        if self.any_node && 2 * alive(&view).count() <= view.members.len() {
            view = self.widest_view(view).await;
        }
        self.known().view = Some(view.clone());
        Ok(view)
    }

    /// The view of a node that `view` shows as down, if it has more live members than `view`; later
    /// requests go to that node first.
    async fn widest_view(&self, view: ClusterView) -> ClusterView {
        let missed = view.members.iter().filter(|member| member.state == MemberState::Down);
        let asked = join_all(missed.map(|member| async {
            let addr = member.client_addr;
            match self.ask(addr, &ClientRequest::Cluster, HEAD_START).await {
                Ok((ClientResponse::Cluster(view), _)) => Some((addr, self.with_published(view))),
                _ => None,
            }
        }));
        let answers = asked.await.into_iter().flatten();
        match answers.max_by_key(|(_, other)| alive(other).count()) {
            Some((addr, other)) if alive(&other).count() > alive(&view).count() => {
                self.known().last = Some(addr);
                other
            }
            _ => view,
        }
    }

    /// The view, with the addresses at which clients reach the nodes.
    fn with_published(&self, mut view: ClusterView) -> ClusterView {
        for member in &mut view.members {
            if let Some(published) = self.published.get(&member.id) {
                member.client_addr = *published;
            }
        }
        view
    }

    /// The members that take work, in the last [`Cluster::view`].
    #[must_use]
    pub fn live_members(&self) -> Vec<(NodeId, SocketAddr)> {
        self.members(MemberState::Alive)
    }

    /// The members in a state, in the last [`Cluster::view`].
    #[must_use]
    pub fn members(&self, state: MemberState) -> Vec<(NodeId, SocketAddr)> {
        let known = self.known();
        let members = known.view.iter().flat_map(|view| &view.members);
        members
            .filter(|member| member.state == state)
            .map(|member| (member.id, member.client_addr))
            .collect()
    }

    /// Sends a request to any node. It tries the next node when one does not answer, and asks again
    /// while the answer is "not now".
    ///
    /// # Errors
    /// The error that a node answers; [`Error::Unreachable`] if there was no other answer within
    /// the cluster's patience.
    pub async fn request(&self, request: &ClientRequest) -> Result<(ClientResponse, Bytes), Error> {
        let deadline = Instant::now() + self.patience;
        let timeout = answer_timeout(request);
        let mut silence = Causes::default();
        // An earlier answer of a node is a better reason than a later silence.
        let mut said = None;
        loop {
            // A dead node does not answer a dial. So nodes that take a connection at once are asked
            // first; the others get more time only if none of these answers.
            let candidates = self.candidates(&mut silence).await;
            let mut turns: VecDeque<_> = candidates.into_iter().map(|addr| (addr, true)).collect();
            let mut heard = false;
            while let Some((addr, at_once)) = turns.pop_front() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || (heard && !at_once) {
                    break;
                }
                let asks_view = matches!(request, ClientRequest::Cluster);
                if at_once && !self.is_awake(addr, left, asks_view).await {
                    turns.push_back((addr, false));
                    continue;
                }
                match self.ask(addr, request, timeout.min(left)).await {
                    Ok((ClientResponse::Error(error), _)) => {
                        self.known().last = Some(addr);
                        if error.kind != ErrorKind::Unavailable {
                            return Err(error.into());
                        }
                        heard = true;
                        said = Some(error.message);
                    }
                    Ok(answer) => {
                        self.known().last = Some(addr);
                        return Ok(answer);
                    }
                    Err(error) => silence.add(addr, &error),
                }
            }
            if heard {
                silence = Causes::default();
            }
            if let Some(refusal) = silence.refused_for(REFUSED_FOR) {
                return Err(Error::Unreachable(format!(
                    "cluster '{}' refuses this client, or this client it: {refusal}",
                    self.name
                )));
            }
            if Instant::now() + ROUND_PAUSE >= deadline {
                return Err(self.unreachable(&said.unwrap_or_else(|| silence.to_string())));
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
    }

    /// Asks one node, once.
    ///
    /// # Errors
    /// If it does not answer within `timeout`.
    pub(crate) async fn ask(
        &self,
        addr: SocketAddr,
        request: &ClientRequest,
        timeout: Duration,
    ) -> Result<(ClientResponse, Bytes), NoAnswer> {
        let exchange = async {
            let (mut writer, mut reader) = self.open(addr).await?;
            writer.write(frame::encode(request, &[])).await.map_err(NoAnswer::new)?;
            writer.finish();
            let answer = reader.message::<ClientResponse>().await.map_err(NoAnswer::new)?;
            answer.ok_or_else(|| NoAnswer::new("the node closed the stream without an answer"))
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let error = self.connections.refusal(addr).unwrap_or(error);
                // The next request uses a new connection.
                self.connections.drop(addr);
                Err(error)
            }
            Err(_) => {
                self.connections.drop(addr);
                Err(NoAnswer::silence(format!("no answer within {:.1} s", timeout.as_secs_f32())))
            }
        }
    }

    /// Opens a stream to a node.
    pub(crate) async fn open(
        &self,
        addr: SocketAddr,
    ) -> Result<(FrameWriter, FrameReader), NoAnswer> {
        let connection = self.connections.get(addr).await?;
        let (send, receive) = connection.open_bi().await.map_err(NoAnswer::new)?;
        Ok((FrameWriter::new(send), FrameReader::new(receive, limits::CLIENT_FRAME_BYTES)))
    }

    /// Closes the connection to a node, if there is one.
    pub(crate) fn disconnect(&self, addr: SocketAddr) {
        self.connections.drop(addr);
    }

    /// Whether there is a connection to the node, or the node takes one at once. A node that did
    /// not give the last answer must also answer with its view: a node whose event loop stands
    /// still takes connections too, and an ill node would wait for other nodes in vain.
    async fn is_awake(&self, addr: SocketAddr, left: Duration, asks_view: bool) -> bool {
        let dial = self.connections.get(addr);
        if !matches!(tokio::time::timeout(HEAD_START.min(left), dial).await, Ok(Ok(_))) {
            return false;
        }
        if asks_view || self.known().last == Some(addr) {
            return true;
        }
        match self.ask(addr, &ClientRequest::Cluster, VIEW_TIMEOUT.min(left)).await {
            Ok((ClientResponse::Cluster(view), _)) => !view
                .members
                .iter()
                .any(|member| member.id == view.answered_by && member.state == MemberState::Ill),
            answer => answer.is_ok(),
        }
    }

    /// The error for a cluster that was silent for too long.
    pub(crate) fn unreachable(&self, reason: &str) -> Error {
        Error::Unreachable(format!(
            "cluster '{}' can't be reached ({} s without success): {reason}. It is safe to try \
             again",
            self.name,
            self.patience.as_secs()
        ))
    }

    /// The nodes to ask, in order: the one that answered last unless it is ill, live members, the
    /// others, the given addresses. An ill node may answer, but would wait for other nodes in vain.
    async fn candidates(&self, causes: &mut Causes) -> Vec<SocketAddr> {
        let mut candidates: Vec<SocketAddr> = Vec::new();
        {
            let known = self.known();
            let mut members: Vec<_> = known.view.iter().flat_map(|view| &view.members).collect();
            let is_ill = |addr: &SocketAddr| {
                let mut ill = members.iter().filter(|member| member.state == MemberState::Ill);
                ill.any(|member| member.client_addr == *addr)
            };
            candidates.extend(known.last.filter(|last| !is_ill(last)));
            members.sort_by_key(|member| match member.state {
                MemberState::Alive | MemberState::Draining => 0,
                MemberState::Ill => 1,
                MemberState::Down => 2,
            });
            candidates.extend(members.into_iter().map(|member| member.client_addr));
        }
        for seed in &self.seeds {
            match address::resolve(seed).await {
                Ok(found) => candidates.extend(found),
                Err(error) => causes.add(seed, &NoAnswer::new(error)),
            }
        }
        let mut seen = std::collections::HashSet::new();
        candidates.retain(|addr| seen.insert(*addr));
        candidates
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The members that a view shows as alive.
fn alive(view: &ClusterView) -> impl Iterator<Item = &MemberView> {
    view.members.iter().filter(|member| member.state == MemberState::Alive)
}

/// How long a node has to answer a request.
fn answer_timeout(request: &ClientRequest) -> Duration {
    match request {
        ClientRequest::Cluster => VIEW_TIMEOUT,
        ClientRequest::Status { wait_ms, .. } => {
            ANSWER_TIMEOUT + Duration::from_millis(u64::from(*wait_ms))
        }
        _ => ANSWER_TIMEOUT,
    }
}

/// The error for an answer that does not fit the request: the node has another version, or is
/// broken.
pub(crate) fn unexpected(response: &ClientResponse) -> Error {
    match response {
        ClientResponse::Error(ClientError { kind, message }) => {
            ClientError::new(*kind, message.clone()).into()
        }
        _ => Error::Unreachable(
            "a node's answer does not fit the question; is it another version?".into(),
        ),
    }
}
