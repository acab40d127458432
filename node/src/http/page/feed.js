// What a stream publishes. Windows come as server-sent events; alerts and dead letters are few and are asked for, so
// that a page holds one connection for itself: browsers open six to a node, for all its pages together.

import { ask, baseUrl, rows } from './api.js';
import { countsOf } from './stats.js';

const KEPT_WINDOWS = 600;
const KEPT_ROWS = 500;
/** After this time without rows the page starts with the newest ones again, and does not catch up. */
const CATCH_UP_MS = 60_000;
const RETRY_MS = 2000;

/** The outputs by kind. Windows are those that are nothing else. */
export function kindOf(output) {
  if (output.startsWith('alerts.')) return 'alert';
  if (output.startsWith('deadletter.')) return 'dead';
  if (output.startsWith('metrics.')) return 'metric';
  return 'window';
}

/** The output that is shown first, which `/data` has, too. */
export const firstOf = (outputs) => outputs.find((output) => kindOf(output) === 'window') ?? null;

/** The reason without the place in the text, by which each letter would have a reason of its own. */
const reasonOf = ({ reason }) => (reason ?? 'no reason').replace(/ at line \d+ column \d+$/, '');

export class Feed {
  constructor(stream, output, outputs, changed) {
    Object.assign(this, { stream, output, outputs, changed });
    this.windows = new Map();
    this.alerts = new Map();
    this.letters = new Map();
    this.reasons = new Map();
    this.totals = null;
    this.cursors = new Map();
    this.lastMs = 0;
    this.ended = false;
    this.open = false;
    this.version = 0;
  }

  path(output) {
    return `/api/v1/streams/${encodeURIComponent(this.stream)}/${encodeURIComponent(output)}`;
  }

  async enter() {
    if (this.open) return;
    this.open = true;
    try {
      const data = await ask(`/data?stream=${encodeURIComponent(this.stream)}`);
      this.totals = data.totals ?? null;
      // An output that is not the node's own choice has other windows.
      const fits = data.output ? data.output === this.output : this.output === firstOf(this.outputs);
      if (fits) for (const row of data.windows ?? []) this.window(row);
      this.changed();
    } catch {
      // There may be no window yet; the events below bring them.
    }
    if (this.open) this.listen();
  }

  after(output) {
    const cursor = this.cursors.get(output);
    return cursor && Date.now() - this.lastMs < CATCH_UP_MS ? cursor : 'latest';
  }

  listen() {
    if (this.source || this.ended || !this.output) return;
    const path = `${this.path(this.output)}?brief=true&after=${encodeURIComponent(this.after(this.output))}`;
    const source = new EventSource(baseUrl(path));
    this.source = source;
    source.onmessage = (event) => {
      if (event.lastEventId) this.cursors.set(this.output, event.lastEventId);
      this.lastMs = Date.now();
      try {
        this.window(JSON.parse(event.data));
      } catch {
        return; // A row that is no JSON is not shown.
      }
      this.changed();
    };
    source.addEventListener('ended', () => {
      this.ended = true;
      this.close();
      this.changed();
    });
    source.onerror = () => {
      // The browser tries again by itself, unless the answer was no stream of events.
      if (source.readyState !== EventSource.CLOSED || this.source !== source) return;
      this.close();
      setTimeout(() => this.open && this.listen(), RETRY_MS);
    };
  }

  close() {
    this.source?.close();
    this.source = null;
  }

  leave() {
    this.open = false;
    this.close();
  }

  /** Another node is asked from now on. */
  moved() {
    this.close();
    if (this.open) this.listen();
  }

  window(row) {
    if (!row.window_start) return;
    const known = this.windows.get(row.window_start);
    if (known && (known.row.revision > row.revision || known.row.cut === row.cut)) return;
    const counts = countsOf(row);
    // Thousands of ids belong to a window, and none is shown.
    delete row.event_ids;
    this.windows.set(row.window_start, {
      row, counts, ms: Date.parse(row.window_start), end: Date.parse(row.window_end),
      revised: known ? known.revised + 1 : 0, before: known ? known.row.total : null,
    });
    this.version += 1;
    if (this.windows.size > KEPT_WINDOWS * 1.2) {
      const old = this.sorted().slice(0, this.windows.size - KEPT_WINDOWS);
      for (const { row: { window_start: start } } of old) this.windows.delete(start);
    }
  }

  /** The windows, oldest first. */
  sorted() {
    if (this.sortedVersion !== this.version) {
      this.inOrder = [...this.windows.values()].sort((a, b) => a.ms - b.ms);
      this.sortedVersion = this.version;
    }
    return this.inOrder;
  }

  /** Asks for new alerts and dead letters. */
  async round() {
    const few = this.outputs.filter((output) => ['alert', 'dead'].includes(kindOf(output)));
    await Promise.all(few.map(async (output) => {
      try {
        const found = await rows(`${this.path(output)}?brief=true&after=${encodeURIComponent(this.after(output))}`);
        for (const row of found) this.take(output, row);
        const cursor = found.at(-1)?.cursor;
        if (cursor) this.cursors.set(output, cursor);
        this.lastMs = Date.now();
        if (found.length) this.changed();
      } catch {
        // The next round asks again.
      }
    }));
  }

  take(output, row) {
    if (row.alert_id) {
      const known = this.alerts.get(row.alert_id);
      if (!known || known.revision <= row.revision) this.alerts.set(row.alert_id, row);
      if (this.alerts.size > KEPT_ROWS) this.alerts.delete(this.alerts.keys().next().value);
    } else if (row.dead_id) {
      if (this.letters.has(row.dead_id)) return;
      this.letters.set(row.dead_id, { ...row, output, reason: reasonOf(row) });
      const { reason } = this.letters.get(row.dead_id);
      this.reasons.set(reason, (this.reasons.get(reason) ?? 0) + 1);
      if (this.letters.size > KEPT_ROWS) this.letters.delete(this.letters.keys().next().value);
    }
  }
}
