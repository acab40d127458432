//! A small job and every message about it.

use std::sync::LazyLock;

use bytes::Bytes;
use cortado_engine::{COFFEE, Plan, map_batch};
use cortado_protocol::chaos::Order;
use cortado_protocol::client::{
    BatchOutcome, BatchReply, ClientError, ClientRequest, ClientResponse, ClusterView, ErrorKind,
    MemberState, MemberView, Overdue, Reject, RingView, TableCoverage,
};
use cortado_protocol::entry::{Entry, Source};
use cortado_protocol::expiry::{ExpireAnswer, Forgotten, Reason};
use cortado_protocol::frame::to_postcard;
use cortado_protocol::job::{
    BatchHeader, FileSpec, JobEntry, JobSpec, JobState, JobStatus, Manifest, ResultFile,
    StageStatus, TableFiles, TableStatus, TableTotal,
};
use cortado_protocol::peer::{
    Admission, EdgeCoverage, Hello, NotStored, PeerMessage, PlaceWish, Work,
};
use cortado_protocol::stream::{
    Cursor, Floors, Place, Publisher, PublisherStatus, SchemaFile, Seal, StreamRequest,
    StreamResponse, StreamStatus, WebhookStatus,
};
use cortado_protocol::{
    Coverage, Edge, EntryKey, JobId, LogId, META_SLOT, NodeId, PROTOCOL_VERSION, Slot, SlotSet,
    content_hash,
};
use cortado_stream::{IdSpan, Wanted, WantedWindow};

pub(crate) const JOB: JobId = JobId((7 << 76) | (2 << 62) | 7);
pub(crate) const SLOTS: u8 = 4;

/// The files of the job: table, header and rows.
pub(crate) const FILES: [(&str, &str, &str); 5] = [
    (
        "transactions",
        "transaction_id,store_id,payment_method_id,voucher_id,user_id,original_amount,discount_applied,final_amount,created_at",
        "t-1,1,1,,7.0,80.5,0.0,80.5,2024-01-01 10:06:50\nt-2,1,1,,,9.25,0,9.25,2024-07-02 23:00:00\nt-3,2,x\n",
    ),
    (
        "transaction_items",
        "transaction_id,item_id,quantity,unit_price,subtotal,created_at",
        "t-1,3,2,40.25,80.5,2024-01-01 10:06:50\n\"t-2\",4,1,9.25,9.25,2024-07-02 23:00:00\n",
    ),
    (
        "users",
        "user_id,gender,birthdate,registered_at",
        "7,female,1990-05-01,2023-01-01 00:00:00\n",
    ),
    (
        "stores",
        "store_id,store_name,street,postal_code,city,state,latitude,longitude",
        "1,\"North, \"\"old\"\"\",a,1,b,c,1.5,2.5\n2,South,a,1,b,c,1.5,2.5\n",
    ),
    (
        "menu_items",
        "item_id,item_name,category,price,is_seasonal,available_from,available_to",
        "3,Latte,coffee,40.25,False,,\n4,Tea,tea,9.25,False,,\n",
    ),
];

pub(crate) fn node(name: &str) -> NodeId {
    name.parse().expect("a node's name")
}

pub(crate) fn hello(name: &str) -> Hello {
    let (version, cluster, node) = (PROTOCOL_VERSION, "c".to_owned(), node(name));
    Hello { version, cluster, node, boot: 1, log: LogId(1), seq: 0 }
}

/// A plan with what the built-in one has not: texts as keys, nulls, other aggregates and joins.
pub(crate) const RIDES: &str = include_str!("../../../plans/rides.toml");

/// The built-in plan, or another one.
pub(crate) fn plan(choice: u8) -> &'static Plan {
    static PLANS: LazyLock<[Plan; 2]> =
        LazyLock::new(|| [COFFEE, RIDES].map(|text| Plan::parse(text).expect("the plan is right")));
    &PLANS[usize::from(choice & 1)]
}

pub(crate) fn spec() -> JobSpec {
    let table = |(name, header, rows): (&str, &str, &str)| TableFiles {
        name: name.to_owned(),
        files: vec![FileSpec {
            name: format!("{name}/a.csv"),
            bytes: (header.len() + 1 + rows.len()) as u64,
            header: header.split(',').map(str::to_owned).collect(),
        }],
    };
    JobSpec {
        job: JOB,
        plan_name: "coffee".to_owned(),
        plan_toml: COFFEE.to_owned(),
        slots: SLOTS,
        tables: FILES.map(table).into(),
    }
}

/// Header of a table's only batch, which begins where its file does.
#[must_use]
pub fn only_batch(table: usize) -> BatchHeader {
    let table = table as u16;
    BatchHeader {
        table,
        number: 0,
        file: 0,
        offset: 0,
        first_line: 1,
        content: 0,
        trace: 0,
        stream: None,
    }
}

/// The only batch of each table.
pub(crate) fn batches() -> Vec<(BatchHeader, Bytes)> {
    let batch = |(table, (_, header, rows)): (usize, (&str, &str, &'static str))| {
        let header = BatchHeader {
            offset: header.len() as u64 + 1,
            first_line: 2,
            content: content_hash(rows.as_bytes()),
            trace: 1,
            stream: None,
            ..only_batch(table)
        };
        (header, Bytes::from_static(rows.as_bytes()))
    };
    FILES.into_iter().enumerate().map(batch).collect()
}

/// The deltas of each table's batch.
pub(crate) fn deltas() -> Vec<Vec<(Slot, Bytes)>> {
    let (plan, spec) = (plan(0), spec());
    let map = |(header, payload): (BatchHeader, Bytes)| {
        let table = usize::from(header.table);
        let layout = plan.bind_header(table, &spec.tables[table].files[0].header);
        let layout = layout.expect("the sample's headers are right");
        map_batch(plan, usize::from(SLOTS), &layout, &header, &payload).expect("few rows").deltas
    };
    batches().into_iter().map(map).collect()
}

fn meta(entry: JobEntry) -> Entry {
    let key = EntryKey { job: JOB, edge: Edge::JOB, number: entry.number() };
    Entry::meta(key, to_postcard(&entry))
}

/// The last words on the job, of which it can have only one.
fn log_entries() -> Vec<Entry> {
    let failed = Manifest::Failed { message: "no".to_owned() };
    let of_stream = [
        JobEntry::Stop,
        JobEntry::Schemas { set: 0, files: schemas() },
        JobEntry::Publisher(publisher()),
        JobEntry::Seal {
            edge: Edge::publisher("p", 1),
            seal: Seal { end: 9, void: Coverage::range(7, 8) },
        },
    ];
    let last = [JobEntry::Cancel, JobEntry::Manifest(failed)];
    of_stream.into_iter().chain(last).map(meta).collect()
}

fn schemas() -> Vec<SchemaFile> {
    vec![SchemaFile { name: "envelope.json".to_owned(), text: "{}".to_owned() }]
}

fn publisher() -> Publisher {
    Publisher { name: "p".to_owned(), generation: 1, opened_ms: 5, backfill: true }
}

/// Every request about a stream.
fn stream_requests() -> Vec<ClientRequest> {
    let (edge, output) = (Edge::publisher("p", 1), "analytics.window".to_owned());
    let mut after = Cursor::default();
    after.advance(Edge::output(node("a"), 1), 2, 3);
    let all = [
        StreamRequest::Status,
        StreamRequest::PutSchemas { set: 0, files: schemas() },
        StreamRequest::Open(publisher()),
        StreamRequest::Stop,
        StreamRequest::Coverage { edge, from: 1, whole: true },
        StreamRequest::Rows { output, after },
        StreamRequest::Dead(Place { edge, batch: 1, position: 2 }),
        StreamRequest::Events { edge, from: 1, batches: 4 },
        StreamRequest::Cut { edge: Edge::output(node("a"), 1), batch: 2 },
        StreamRequest::Latest { windows: 120 },
        StreamRequest::Deliver(Place { edge: Edge::output(node("a"), 1), batch: 2, position: 3 }),
    ];
    all.map(|request| ClientRequest::Stream(JOB, request)).into()
}

fn done() -> Manifest {
    let file = ResultFile { name: "q1.csv".to_owned(), bytes: 10, rows: 1 };
    let total = TableTotal { batches: 1, rows: 3, bytes: 100, rejects: 1 };
    Manifest::Done { files: vec![file], chunks: 1, hash: 5, tables: vec![total; 5] }
}

/// The entries of the job's log and of its tables.
pub(crate) fn entries() -> Vec<Entry> {
    let end = |table| JobEntry::TableEnd { table, batches: 1 };
    let log = [JobEntry::Spec(spec())].into_iter().chain((0..5).map(end));
    let all = SlotSet::first(usize::from(SLOTS)).or(SlotSet::META);
    let batch = |(table, deltas): (usize, Vec<(Slot, Bytes)>)| {
        let key = EntryKey { job: JOB, edge: Edge::table(table), number: 0 };
        let source = Source { content: 1, bytes: 100, rows: 3 };
        Entry::new(key, source, all, &deltas)
    };
    log.map(meta).chain(deltas().into_iter().enumerate().map(batch)).collect()
}

fn held() -> Vec<EdgeCoverage> {
    let slots = SlotSet::first(usize::from(SLOTS)).or(SlotSet::META);
    let mut coverage = Coverage::range(0, 3);
    coverage.insert(9);
    vec![EdgeCoverage { edge: Edge::table(1), slots, coverage }]
}

pub(crate) fn error() -> ClientError {
    ClientError::new(ErrorKind::Unavailable, "not now")
}

/// Every message between nodes, with its tail.
pub(crate) fn messages() -> Vec<(PeerMessage, Bytes)> {
    let (job, log, slots) = (JOB, LogId(1), SlotSet::first(usize::from(SLOTS)));
    let key = EntryKey { job, edge: Edge::table(0), number: 0 };
    let keys = vec![(Slot(0), vec![vec![0, 2]]), (Slot(1), vec![vec![0, 4], Vec::new()])];
    let batches = vec![(Edge::publisher("p", 1), Coverage::range(0, 2))];
    let near = vec![IdSpan { start_ms: 0, batches: batches.clone() }];
    let window = WantedWindow { key: (0, 5_000), batches, valid: 3, before: None };
    let windows = Wanted { windows: vec![window], near };
    let ends = vec![1; 5];
    let (fold, lookup) = (Work::Fold, Work::Lookup { table: 2 });
    let work = |work| PeerMessage::Work { job, attempt: 4, slots, ends: ends.clone(), work };
    let wish = PlaceWish { job, client: 1, submitted_ms: 1_000, running: false };
    let message = "no".to_owned();
    let empty = |message| (message, Bytes::new());
    let proof = Forgotten {
        by: node("a"),
        number: 4,
        accepted: vec![node("a")],
        known: 1,
        min_copies: 1,
        reason: Reason::Deleted,
    };
    let mut all: Vec<_> =
        entries().iter().map(|entry| (PeerMessage::Store, entry.encode())).collect();
    all.extend(log_entries().iter().map(|entry| (PeerMessage::Moved, entry.encode())));
    all.extend([
        empty(PeerMessage::Stored { log, entries: vec![(key, slots), (key, SlotSet::META)] }),
        empty(PeerMessage::NotStored { key, reason: NotStored::Full }),
        empty(PeerMessage::NotStored { key, reason: NotStored::Conflict }),
        empty(PeerMessage::NotStored { key, reason: NotStored::Ended }),
        empty(PeerMessage::NotStored { key, reason: NotStored::Retired }),
        empty(PeerMessage::Offer { job, round: 5, held: held() }),
        empty(PeerMessage::Have { job, round: 5, done: true, log, held: held() }),
        empty(PeerMessage::Fetch { job, round: 3, wanted: held() }),
        empty(PeerMessage::Fetched { job, round: 3, idle_ms: Some(4) }),
        empty(PeerMessage::Expire { job, number: 4, reason: Reason::Expired }),
        empty(PeerMessage::Expiring {
            job,
            number: 4,
            answer: ExpireAnswer::Accepted { known: vec![node("a"), node("b")], min_copies: 2 },
        }),
        empty(PeerMessage::Expiring {
            job,
            number: 4,
            answer: ExpireAnswer::Active { idle_ms: 9 },
        }),
        empty(PeerMessage::Withdrawn { job, number: 4 }),
        empty(PeerMessage::Forgotten { job: JobId(8), proof }),
        (PeerMessage::Ended { job }, meta(JobEntry::Manifest(done())).encode()),
        empty(PeerMessage::HaveEnded { jobs: vec![job, JobId(8)] }),
        empty(PeerMessage::NotStored { key, reason: NotStored::Frozen }),
        empty(PeerMessage::Freeze { job, edge: Edge::publisher("p", 1), from: 2, round: 4 }),
        empty(PeerMessage::Frozen { job, edge: Edge::publisher("p", 1), round: 4, held: held() }),
        empty(PeerMessage::Retire { job, before_ms: 7 }),
        empty(PeerMessage::Retiring {
            job,
            before_ms: 7,
            outputs: vec![(Edge::output(node("a"), 1), 3)],
        }),
        empty(PeerMessage::Retired {
            job,
            floors: Floors {
                before_ms: 7,
                checkpoint: (Edge::output(node("a"), 1), 2),
                floors: vec![(Edge::publisher("p", 1), 2), (Edge::output(node("a"), 1), 1)],
            },
        }),
        empty(PeerMessage::Departed { members: vec![(node("c"), 3)], barred: vec![5] }),
        empty(work(fold)),
        (work(lookup), to_postcard(&keys)),
        (work(Work::Windows), to_postcard(&windows)),
        (work(Work::Complete), to_postcard(&(Edge::publisher("p", 1), Coverage::range(0, 3)))),
        (work(Work::Events), to_postcard(&(Edge::publisher("p", 1), Coverage::range(0, 3)))),
        (
            PeerMessage::Output { job, attempt: 4, slot: Slot(1), part: 0, parts: 2 },
            Bytes::from_static(&[0, 0]),
        ),
        empty(PeerMessage::Incomplete { job, attempt: 4, missing: held() }),
        empty(PeerMessage::WorkFailed { job, attempt: 4, message }),
        empty(PeerMessage::JobWanted { job, client: 1 }),
        (
            PeerMessage::JobIs { job, admission: Admission::Running },
            to_postcard(&(spec(), vec![(0_u32, schemas())])),
        ),
        empty(PeerMessage::JobIs { job, admission: Admission::Queued { position: 3 } }),
        empty(PeerMessage::JobIs { job, admission: Admission::Ended(error()) }),
        empty(PeerMessage::Admit { jobs: vec![wish] }),
        empty(PeerMessage::Admitted { jobs: vec![(job, 0), (JobId(8), 1)] }),
        empty(PeerMessage::Ping),
    ]);
    let ask = |(id, request)| empty(PeerMessage::Ask { id, request });
    all.extend((0..).zip(requests()).map(ask));
    let answer = |(id, response)| empty(PeerMessage::Answer { id, response });
    all.extend((0..).zip(responses()).map(answer));
    all
}

/// Every request of a client.
pub(crate) fn requests() -> Vec<ClientRequest> {
    let job = JOB;
    vec![
        ClientRequest::Submit(spec()),
        ClientRequest::Cluster,
        ClientRequest::Spec(job),
        ClientRequest::Coverage { job, table: 1, from: 1 },
        ClientRequest::Upload(job),
        ClientRequest::EndTable { job, table: 0, batches: 1 },
        ClientRequest::Status { job, wait_ms: 100 },
        ClientRequest::Jobs { after: None },
        ClientRequest::Cancel(job),
        ClientRequest::Result { job, chunk: 0 },
        ClientRequest::Rejects { job, table: 0 },
        ClientRequest::Ring,
        ClientRequest::Drain(node("b")),
        ClientRequest::Forget(node("b")),
        ClientRequest::Delete(job),
        ClientRequest::Chaos(Order::Heal),
        ClientRequest::Log { boot: 3, after: 9, wait_ms: 100 },
    ]
    .into_iter()
    .chain(stream_requests())
    .collect()
}

pub(crate) fn responses() -> Vec<ClientResponse> {
    let status = JobStatus {
        job: JOB,
        plan: "coffee".to_owned(),
        state: JobState::Failed { message: "no".to_owned() },
        coordinator: node("a"),
        tables: vec![TableStatus { missing: Coverage::range(1, 2), ..TableStatus::default() }],
        stages: vec![StageStatus { name: "fold".to_owned(), complete: 1, total: 4 }],
        waits_for: Some("replicas".to_owned()),
        manifest: Some(done()),
    };
    let member = MemberView {
        id: node("b"),
        state: MemberState::Draining,
        client_addr: "[::1]:7003".parse().expect("an address"),
        http_addr: Some("[::1]:7004".parse().expect("an address")),
        generation: 9,
        jobs: Some(1),
        reason: Some("its disk".to_owned()),
    };
    let cluster = ClusterView {
        cluster: "c".to_owned(),
        answered_by: node("a"),
        replicas: 3,
        min_copies: 2,
        slots: SLOTS,
        expected_nodes: 3,
        formed: true,
        members: vec![member],
        supervisor: Some((node("c"), 2)),
        overdue: Some(Overdue { jobs: 2, away: vec![node("b")] }),
        crash_looping: vec![node("b")],
    };
    let reject = Reject {
        file: "a.csv".to_owned(),
        line: 4,
        reason: "too short".to_owned(),
        row: "t-3".to_owned(),
    };
    let slots = vec![(Slot(0), vec![node("a"), node("b")]), (META_SLOT, vec![node("c")])];
    vec![
        ClientResponse::Cluster(cluster),
        ClientResponse::Status(status.clone()),
        ClientResponse::Spec(spec()),
        ClientResponse::Coverage(TableCoverage {
            batches: vec![(0, 1)],
            declared: Some(1),
            next: Some(2),
            floor: 0,
        }),
        ClientResponse::Jobs(vec![status]),
        ClientResponse::Chunk,
        ClientResponse::Rejects(vec![reject]),
        ClientResponse::Ring(RingView { version: 1, slots, moves: vec![(JOB, node("b"), 3)] }),
        ClientResponse::Accepted,
        ClientResponse::Error(error()),
        ClientResponse::Stream(StreamResponse::Status(Box::new(StreamStatus {
            webhooks: vec![WebhookStatus {
                output: "w".to_owned(),
                webhook: "http://h".to_owned(),
                delivered: 1,
                failed: 2,
                waiting: 3,
                error: Some("no".to_owned()),
            }],
            publishers: vec![PublisherStatus {
                publisher: publisher(),
                prefix: 3,
                beyond_gap: 1,
                watermark_ms: Some(9),
                events: 4,
                dead: 1,
                ended: false,
                idle: true,
                sealed: Some(Seal { end: 9, void: Coverage::range(7, 8) }),
            }],
            ..StreamStatus::default()
        }))),
        ClientResponse::Stream(StreamResponse::Dead {
            reason: "no".to_owned(),
            path: "/a".to_owned(),
        }),
        ClientResponse::Stream(StreamResponse::Events { next: 3, prefix: 5, lost: 1, gone: 2 }),
        ClientResponse::Stream(StreamResponse::Cut(vec![(Edge::publisher("p", 1), 3)])),
        ClientResponse::Stream(StreamResponse::Sending),
        ClientResponse::Stream(StreamResponse::Rows {
            ended: true,
            cursor: Cursor::default(),
            gone: 1,
        }),
    ]
}

pub(crate) fn replies() -> Vec<BatchReply> {
    let outcomes = [
        BatchOutcome::Durable { copies: 2, replicas: 3, rejected: 1 },
        BatchOutcome::Retry { reason: "later".to_owned() },
        BatchOutcome::Refused(error()),
    ];
    outcomes.map(|outcome| BatchReply { table: 0, number: 0, outcome }).into()
}
