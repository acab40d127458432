use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cortado_protocol::client::{BatchOutcome, ClientError, ClientRequest, ErrorKind};
use cortado_protocol::frame::encode;
use cortado_protocol::job::BatchHeader;
use cortado_protocol::limits::CLIENT_FRAME_BYTES;
use cortado_protocol::{JobId, content_hash};
use cortado_transport::{FrameReader, FrameWriter};
use quinn::Connection;
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::peers::certificates::{Certificates, node};

const DEADLINE: Duration = Duration::from_secs(20);

/// The port of a node, with the test as its core, and an endpoint to connect to it.
struct Port {
    clients: Clients,
    events: Receiver<ClientEvent>,
    certificates: Certificates,
    endpoints: Vec<Endpoint>,
}

impl Port {
    fn open() -> Self {
        let certificates = Certificates::new();
        let (to_core, events) = mpsc::channel(EVENTS);
        let bind = (Ipv4Addr::LOCALHOST, 0).into();
        let clients = Clients::start(
            bind,
            &certificates.node(node(1)),
            (History::new(1), None),
            Arc::default(),
            to_core,
        )
        .unwrap();
        Self { clients, events, certificates, endpoints: Vec::new() }
    }

    async fn connect(&mut self) -> Connection {
        let address = self.clients.local_addr().unwrap();
        let endpoint = Endpoint::client(address, &self.certificates.client("alice")).unwrap();
        let connection = endpoint.dial(address, None).await.unwrap();
        self.endpoints.push(endpoint);
        connection
    }

    async fn event(&mut self) -> ClientEvent {
        tokio::time::timeout(DEADLINE, self.events.recv()).await.unwrap().unwrap()
    }

    async fn batch(&mut self) -> (u64, BatchHeader, Bytes) {
        match self.event().await {
            ClientEvent::Batch { ticket, header, payload, .. } => (ticket, header, payload),
            other => panic!("not a batch: {other:?}"),
        }
    }

    /// Waits until all room has been given back.
    async fn until_free(&self) {
        let deadline = Instant::now() + DEADLINE;
        let all = [(BATCHES, BATCH_BYTES), (REQUESTS, REQUEST_BYTES)];
        while [self.clients.shared.batches.free(), self.clients.shared.requests.free()] != all {
            assert!(Instant::now() < deadline, "room was not given back");
            tokio::task::yield_now().await;
        }
        assert!(lock(&self.clients.shared.waiting).is_empty());
    }
}

async fn open(connection: &Connection) -> (FrameWriter, FrameReader) {
    let (send, recv) = connection.open_bi().await.unwrap();
    (FrameWriter::new(send), FrameReader::new(recv, CLIENT_FRAME_BYTES))
}

async fn upload(connection: &Connection) -> (FrameWriter, FrameReader) {
    let (mut writer, reader) = open(connection).await;
    writer.write(encode(&ClientRequest::Upload(JobId(7)), b"")).await.unwrap();
    (writer, reader)
}

fn batch(number: u64, payload: &[u8]) -> Bytes {
    let content = content_hash(payload);
    let header = BatchHeader {
        table: 1,
        number,
        file: 0,
        offset: 0,
        first_line: 2,
        content,
        trace: 0,
        stream: None,
    };
    encode(&header, payload)
}

fn durable(header: &BatchHeader) -> BatchReply {
    let outcome = BatchOutcome::Durable { copies: 2, replicas: 3, rejected: 0 };
    BatchReply { table: header.table, number: header.number, outcome }
}

#[tokio::test]
async fn requests_are_answered_in_any_order() {
    let mut port = Port::open();
    let connection = port.connect().await;
    let (mut one, mut answer_one) = open(&connection).await;
    let (mut two, mut answer_two) = open(&connection).await;
    one.write(encode(&ClientRequest::Jobs { after: None }, b"")).await.unwrap();
    let ClientEvent::Request { ticket: first, request } = port.event().await else { panic!() };
    assert_eq!(request, ClientRequest::Jobs { after: None });
    let chunk = ClientRequest::Result { job: JobId(7), chunk: 3 };
    two.write(encode(&chunk, b"")).await.unwrap();
    let ClientEvent::Request { ticket: second, request } = port.event().await else { panic!() };
    assert_eq!(request, chunk);

    port.clients.reply(second, &ClientResponse::Chunk, &[5; 1 << 20]);
    let (response, tail) = answer_two.message::<ClientResponse>().await.unwrap().unwrap();
    assert_eq!((response, tail.len()), (ClientResponse::Chunk, 1 << 20));
    port.clients.reply(first, &ClientResponse::Jobs(vec![]), b"");
    port.clients.reply(first, &ClientResponse::Accepted, b"twice is harmless");
    let (response, _) = answer_one.message::<ClientResponse>().await.unwrap().unwrap();
    assert_eq!(response, ClientResponse::Jobs(vec![]));
    assert!(answer_one.next().await.unwrap().is_none());
    port.until_free().await;
}

#[tokio::test]
async fn batches_are_answered_in_any_order_and_damaged_ones_refused() {
    let mut port = Port::open();
    let connection = port.connect().await;
    let (mut writer, mut reader) = upload(&connection).await;
    let damaged = {
        let mut bytes = batch(1, b"id,amount").to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        Bytes::from(bytes)
    };
    writer.write_many(&mut [batch(0, b"zero"), damaged, batch(2, b"two")]).await.unwrap();
    writer.finish();
    let (zero, two) = (port.batch().await, port.batch().await);
    assert_eq!((zero.1.number, &zero.2[..], two.1.number), (0, &b"zero"[..], 2));
    port.clients.batch_reply(two.0, &durable(&two.1));
    port.clients.batch_reply(zero.0, &durable(&zero.1));
    let mut outcomes = Vec::new();
    while let Some((reply, _)) = reader.message::<BatchReply>().await.unwrap() {
        outcomes.push((reply.number, reply.outcome));
    }
    outcomes.sort_by_key(|(number, _)| *number);
    assert_eq!(outcomes[0], (0, durable(&zero.1).outcome));
    assert_eq!(outcomes[2], (2, durable(&two.1).outcome));
    let BatchOutcome::Refused(ClientError { kind, message }) = &outcomes[1].1 else { panic!() };
    assert_eq!(*kind, ErrorKind::BadInput);
    assert!(message.contains("does not match its hash"), "{message}");
    port.until_free().await;
}

#[tokio::test]
async fn a_slow_cluster_makes_its_clients_wait() {
    let mut port = Port::open();
    let connection = port.connect().await;
    let (mut writer, mut reader) = upload(&connection).await;
    let total = 3 * BATCHES as u64;
    let sending = tokio::spawn(async move {
        for number in 0..total {
            writer.write(batch(number, &[1; 100_000])).await.unwrap();
        }
        writer.finish();
    });
    let mut held = Vec::new();
    while held.len() < BATCHES {
        held.push(port.batch().await);
    }
    // The gate is full: no further batch is read, however often the connection's task runs.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(port.events.try_recv().is_err());
    assert_eq!(port.clients.shared.batches.free().0, 0);
    assert!(!sending.is_finished(), "the client must feel it");

    // Each answer makes room for one more batch.
    let mut replied = 0;
    while replied < total {
        let (ticket, header, _) = held.remove(0);
        port.clients.batch_reply(ticket, &durable(&header));
        assert!(reader.message::<BatchReply>().await.unwrap().is_some());
        replied += 1;
        if replied + held.len() as u64 != total {
            held.push(port.batch().await);
        }
    }
    sending.await.unwrap();
    assert!(reader.next().await.unwrap().is_none());
    port.until_free().await;
}

#[tokio::test]
async fn a_client_that_vanishes_frees_everything() {
    let mut port = Port::open();
    let connection = port.connect().await;
    let (mut asking, _answer) = open(&connection).await;
    asking.write(encode(&ClientRequest::Cluster, b"")).await.unwrap();
    let ClientEvent::Request { ticket: asked, .. } = port.event().await else { panic!() };
    let (mut writer, _reader) = upload(&connection).await;
    writer.write_many(&mut [batch(0, b"a"), batch(1, b"b"), batch(2, b"c")]).await.unwrap();
    let batches = [port.batch().await, port.batch().await, port.batch().await];
    port.clients.batch_reply(batches[1].0, &durable(&batches[1].1));

    connection.close(0u32.into(), b"bye");
    let mut gone = Vec::new();
    while gone.len() < 3 {
        let ClientEvent::ClientLeft { ticket } = port.event().await else { panic!() };
        gone.push(ticket);
    }
    gone.sort_unstable();
    assert_eq!(gone, [asked, batches[0].0, batches[2].0]);
    port.clients.batch_reply(batches[0].0, &durable(&batches[0].1));
    port.until_free().await;
}

#[tokio::test]
async fn a_request_given_up_is_reported_and_others_go_on() {
    let mut port = Port::open();
    let connection = port.connect().await;
    let (mut writer, mut reader) = open(&connection).await;
    writer.write(encode(&ClientRequest::Ring, b"")).await.unwrap();
    let ClientEvent::Request { ticket, .. } = port.event().await else { panic!() };
    reader.stop(0);
    let ClientEvent::ClientLeft { ticket: gone } = port.event().await else { panic!() };
    assert_eq!(gone, ticket);
    let (mut writer, mut reader) = open(&connection).await;
    writer.write(encode(&ClientRequest::Jobs { after: None }, b"")).await.unwrap();
    let ClientEvent::Request { ticket, .. } = port.event().await else { panic!() };
    port.clients.reply(ticket, &ClientResponse::Accepted, b"");
    assert!(reader.next().await.unwrap().is_some());
}

#[tokio::test]
async fn hostile_bytes_cost_the_connection_and_a_counter() {
    let mut port = Port::open();
    let oversized = (CLIENT_FRAME_BYTES as u32 + 1).to_le_bytes();
    for bytes in [&oversized[..], &[5, 0, 0, 0, 1, 0, 0, 0, 200][..]] {
        let connection = port.connect().await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        tokio::time::timeout(DEADLINE, connection.closed()).await.unwrap();
    }
    assert_eq!(port.clients.refusals(), [(Refusal::Misbehaved, 2)]);
    port.until_free().await;
    // Other connections are served as before.
    let connection = port.connect().await;
    let (mut writer, mut reader) = open(&connection).await;
    writer.write(encode(&ClientRequest::Jobs { after: None }, b"")).await.unwrap();
    assert!(matches!(port.event().await, ClientEvent::Request { .. }));
    port.clients.stop().await;
    assert!(reader.next().await.is_err());
}
