// One job: progress by table and stage, what it waits for, its result and its rejected rows.

import { ask, baseUrl } from './api.js';
import { byId, cells, el, hide, keyed, row, set, style, text } from './dom.js';
import { bytes, count, number, percent } from './format.js';
import { GLYPHS, share } from './progress.js';
import { showReceipt } from './receipt.js';

const ENDED = ['done', 'failed', 'cancelled'];
/** How much of an old rate is kept at each measurement. */
const KEEP = 0.7;

/** What was fetched of the chosen job; another choice forgets it. */
let loaded = { job: null };
let rates = new Map();
let measured = { job: null, at: 0, seen: null };

export function forget() {
  loaded = { job: null };
  rates = new Map();
  measured = { job: null, at: 0, seen: null };
}

/** Takes the difference to the last measurement as the rate. */
export function measure(job) {
  if (measured.seen === job) {
    // The answer has not changed: nothing has arrived meanwhile, if that is not only a moment ago.
    if (performance.now() - measured.at > 3000) rates.clear();
    return;
  }
  const now = performance.now();
  const seconds = (now - measured.at) / 1000;
  if (measured.job === job.job && seconds > 0.2) {
    for (const table of job.tables) {
      const before = measured.seen.tables.find(({ name }) => name === table.name);
      const own = before ? Math.max(0, table.bytes - before.bytes) / seconds : 0;
      const old = rates.get(table.name);
      rates.set(table.name, old === undefined ? own : old * KEEP + own * (1 - KEEP));
    }
  }
  measured = { job: job.job, at: now, seen: job };
}

async function load(job, path, name, changed) {
  if (loaded[name] !== undefined) return;
  const mine = loaded;
  mine[name] = null;
  try {
    mine[name] = await ask(`/api/v1/jobs/${encodeURIComponent(job.job)}/${path}`);
  } catch (error) {
    mine[name] = { error: error.message };
    // A node may be away for the moment.
    setTimeout(() => delete mine[name], 5000);
  }
  changed();
}

/** Fetches what the list does not have: the receipt and, if they are asked for, the rejected rows. */
export function loadJob(job, changed) {
  if (loaded.job !== job.job) loaded = { job: job.job };
  if (job.state !== 'done') return;
  load(job, 'results/receipt.json', 'receipt', changed);
  if (byId('job-rejects').open) load(job, 'rejects', 'rejects', changed);
}

function waiting(job) {
  switch (job.state) {
    case 'done': return 'It is done and waits for nothing.';
    case 'failed': return `It failed: ${job.message ?? 'no reason is known'}`;
    case 'cancelled': return 'It was cancelled.';
    case 'queued': return `It is queued at place ${number(job.queue_position)}. ${job.waits_for ?? ''}`;
    default: return job.waits_for ? `It ${job.waits_for.replace(/^waits? /, 'waits ')}.` : 'It waits for nothing in particular.';
  }
}

const bar = () => el('span', { class: 'track' }, el('span', { class: 'fillbar' }));

function setBar(track, part) {
  style(track.firstChild, 'transform', `scaleX(${part.toFixed(4)})`);
}

function makeTable({ name }) {
  const tr = row(['head', 'n', 'n', 'n', 'n', 'bar'], { 'data-table': name });
  tr.cells[5].append(bar(), el('span', { class: 'n percent' }));
  return tr;
}

function updateTable(tr, [table, job]) {
  const rate = rates.get(table.name);
  const moving = !ENDED.includes(job.state) && rate > 0;
  cells(tr, [
    table.name, `${number(table.batches)} of ${table.declared === null ? '?' : number(table.declared)}`,
    number(table.rows), bytes(table.bytes), moving ? `${bytes(rate)}/s` : '–',
  ]);
  const done = share(table);
  setBar(tr.cells[5].firstChild, done);
  text(tr.cells[5].lastChild, percent(done));
  const holes = table.missing.length;
  set(tr, 'title', holes ? `${count(holes, 'gap')} in its batches: ${table.missing.slice(0, 5).map(([from, to]) => `${from} to ${to - 1}`).join(', ')}` : null);
}

function updateStage(item, stage) {
  const [name, track, say] = item.children;
  text(name, stage.name);
  setBar(track, stage.total ? stage.complete / stage.total : 0);
  text(say, `${number(stage.complete)} of ${number(stage.total)} slots`);
  set(item, 'data-complete', stage.complete === stage.total ? 'true' : 'false');
}

function updateFile(item, [file, job]) {
  const [link, say] = item.children;
  set(link, 'href', baseUrl(`/api/v1/jobs/${encodeURIComponent(job.job)}/results/${encodeURIComponent(file.name)}`));
  const rows = Number.isFinite(file.rows) && file.name !== 'receipt.json' ? `, ${count(file.rows, 'row')}` : '';
  text(say, `${bytes(file.bytes)}${rows}`);
}

function showRejects(job) {
  const found = Array.isArray(loaded.rejects) ? loaded.rejects : [];
  const open = byId('job-rejects').open;
  const why = loaded.rejects?.error;
  text(byId('rejects-note'), !open ? '' : why ?? (job.state !== 'done' ? 'They are known when the job is done.'
    : loaded.rejects === null ? 'Asking for them.' : found.length ? `${count(found.length, 'row')} kept.` : 'No row was rejected.'));
  const body = byId('job-rejects').querySelector('tbody');
  keyed(body, found.slice(0, 300).map((reject, at) => ({ ...reject, at })), ({ at }) => `${job.job} ${at}`,
    () => row(['', '', 'n', '', 'mono']),
    (tr, { table, file, line, reason, row: raw }) => cells(tr, [table, file, number(line), reason, raw]));
}

export function showJob(job, id) {
  hide(byId('job-badge'), !job);
  set(byId('job'), 'data-state', job?.state);
  if (!job) {
    text(byId('job-title'), 'Job');
    text(byId('job-id'), id ? `${id}: this job is not known.` : 'Choose a job.');
    text(byId('job-waits'), '');
  } else {
    text(byId('job-title'), job.plan);
    text(byId('job-badge'), `${GLYPHS[job.state] ?? ''} ${job.state}`);
    set(byId('job-badge'), 'data-state', job.state);
    text(byId('job-id'), `${job.job} · coordinated by ${job.coordinator}`);
    text(byId('job-waits'), waiting(job));
  }
  const of = job ?? { tables: [], stages: [], files: [], state: '' };
  const body = byId('job-tables').tBodies[0];
  keyed(body, of.tables.map((table) => [table, of]), ([table]) => table.name, ([table]) => makeTable(table), updateTable);
  keyed(byId('job-stages'), of.stages, ({ name }) => name, () => el('li', {}, el('span', {}), bar(), el('span', { class: 'n' })), updateStage);
  hide(byId('no-stages'), of.stages.length > 0);
  text(byId('no-stages'), of.state === 'done' ? 'All stages are complete.' : 'No stage has begun.');
  const files = (of.files ?? []).map((file) => [file, of]);
  keyed(byId('job-files'), files, ([file]) => `${of.job} ${file.name}`,
    ([file]) => el('li', {}, el('a', { download: file.name }, file.name), el('span', { class: 'soft' })), updateFile);
  showReceipt(of, loaded.receipt);
  showRejects(of);
}
