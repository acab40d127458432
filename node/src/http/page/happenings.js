// What happened, from the logs of all members that answer. The same fact told by several is one entry.

import { askMember, originOf } from './api.js';

/** Two nodes that report a fact within this time report the same one. */
const SAME_MS = 2000;
const KEPT = 2000;
const AWAY = ['member_down', 'member_ill', 'member_draining', 'member_left', 'reviving', 'crash_looping'];
/** How long a node, when it has started, reports what is no news: that members are alive, an old election. */
const START_MS = 2000;
/** A member whose log could not be read is left alone for this long. */
const PAUSE_MS = 5000;

const readers = new Map();
const all = [];
let number = 0;
let version = 0;
let unread = [];
/** The only member of the cluster, if there is but one. */
let sole = null;
let listed = { version: -1, entries: [] };

export const happenings = () => all;

/** The entries that are news: without what a node reports only because it has just started. */
export function news() {
  if (listed.version === version) return listed.entries;
  const started = new Map();
  const alive = new Map();
  const entries = all.filter((entry) => {
    const { kind, node, by, ms } = entry;
    const first = by.length === 1 && ms - (started.get(by[0]) ?? -Infinity) < START_MS;
    const known = alive.get(node);
    if (kind === 'started') started.set(node, ms);
    if (kind === 'member_alive' || (kind === 'started' && known === undefined)) alive.set(node, true);
    else if (AWAY.includes(kind)) alive.set(node, false);
    if (kind === 'member_alive' && (known || (first && (known === undefined || by[0] === node)))) return false;
    return !(first && ['election', 'elected', 'member_down'].includes(kind) && by[0] !== sole);
  });
  listed = { version, entries };
  return entries;
}

export const happeningsVersion = () => version;
/** Members whose log this page may not read, as they were not known when it was loaded. */
export const unreadLogs = () => unread;

/** What two reports of one fact have in common. */
function factOf(event) {
  if (event.event === 'election') return `election ${event.term}`;
  if (event.event === 'elected') return `elected ${event.node} ${event.term}`;
  // A node's own start, disturbance and healing are only in its own log.
  if (!event.node) return `${event.event} ${event.seen_by}`;
  return `${event.event} ${event.node} ${event.illness ?? ''}`;
}

function sentence(event) {
  if (event.event === 'started') return `${event.seen_by} started`;
  const own = ['disturbed', 'healed', 'reviving', 'left_alone', 'revive_failed'];
  return own.includes(event.event) ? `${event.seen_by}: ${event.message}` : event.message;
}

function add(event) {
  const fact = factOf(event);
  let at = all.length;
  while (at > 0 && all[at - 1].ms > event.unix_ms) at -= 1;
  const near = (entry) => entry && entry.fact === fact && Math.abs(entry.ms - event.unix_ms) <= SAME_MS;
  for (let back = at - 1; back >= 0 && event.unix_ms - all[back].ms <= SAME_MS; back -= 1) {
    if (near(all[back])) return join(all[back], event);
  }
  for (let on = at; on < all.length && all[on].ms - event.unix_ms <= SAME_MS; on += 1) {
    if (near(all[on])) return join(all[on], event);
  }
  number += 1;
  const node = event.node ?? (event.event === 'election' ? null : event.seen_by);
  const entry = { key: number, fact, ms: event.unix_ms, kind: event.event, node, say: sentence(event), by: [event.seen_by] };
  all.splice(at, 0, entry);
  if (all.length > KEPT) all.shift();
  version += 1;
}

function join(entry, event) {
  if (entry.by.includes(event.seen_by)) return;
  entry.by.push(event.seen_by);
  entry.ms = Math.min(entry.ms, event.unix_ms);
  version += 1;
}

/** Adds what this page noticed itself, such as a change of the ring. */
export function tell(kind, say) {
  number += 1;
  all.push({ key: number, fact: `page ${number}`, ms: Date.now(), kind, node: null, say, by: [] });
  version += 1;
}

async function read(id, origin, changed) {
  const reader = readers.get(id) ?? { after: null, boot: null, busy: false, notBefore: 0 };
  readers.set(id, reader);
  if (reader.busy || Date.now() < reader.notBefore) return;
  reader.busy = true;
  try {
    for (let rounds = 0; rounds < 8; rounds += 1) {
      const after = reader.after ? `?after=${encodeURIComponent(reader.after)}` : '';
      const { boot, events } = await askMember(origin, `/api/v1/log${after}`);
      for (const event of events) add({ ...event, seen_by: event.seen_by ?? id });
      const last = events.at(-1);
      if (!last) break;
      reader.after = `${last.boot ?? boot}.${last.number}`;
      changed();
      if (events.length < 64) break;
    }
  } catch {
    reader.notBefore = Date.now() + PAUSE_MS;
  }
  reader.busy = false;
}

let turn = 0;

/** Reads the logs of the members that are not down: of all, or by turns if there are many. */
export function gather(view, changed) {
  const known = view.members.filter(({ state }) => state !== 'down');
  unread = known.filter((member) => member.http_addr && !originOf(member)).map(({ id }) => id);
  sole = view.members.length === 1 ? view.members[0].id : null;
  const groups = Math.ceil(known.length / 12);
  turn += 1;
  known.forEach((member, at) => {
    const origin = originOf(member);
    const first = !readers.has(member.id);
    if (origin && (first || at % groups === turn % groups)) read(member.id, origin, changed);
  });
}
