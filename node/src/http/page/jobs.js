// The view of jobs: the list, newest first, and the chosen job beside it.

import { ask } from './api.js';
import { byId, el, hide, keyed, set, soon, style, text } from './dom.js';
import { count, number, percent, time } from './format.js';
import { forget, loadJob, measure, showJob } from './job.js';
import { GLYPHS, progress } from './progress.js';
import { goTo, place } from './tabs.js';

const PAGE = 100;

let all = [];
let source = null;
let shown = PAGE;
let chosen = null;
let problem = '';

/** A stream is a job without tables that runs; it has a view of its own. */
const isStream = (job) => job.tables.length === 0 && job.state === 'running';

/** When a job was made: its id begins with the time (UUID version 7). */
function made(id) {
  if (id[14] !== '7') return '';
  const ms = parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
  return new Date(ms).toDateString() === new Date().toDateString() ? time(ms) : new Date(ms).toLocaleDateString();
}

function make(job) {
  const button = el('button', { type: 'button', class: 'job' },
    el('span', { class: 'glyph', 'aria-hidden': 'true' }), el('span', { class: 'plan' }), el('span', { class: 'word' }),
    el('span', { class: 'when' }), el('span', { class: 'mono id' }, job.job), el('span', { class: 'track' }, el('span', { class: 'fillbar' })));
  button.addEventListener('click', () => choose(job.job, true));
  return el('li', { 'data-job': job.job }, button);
}

function update(item, job) {
  set(item, 'data-state', job.state);
  const button = item.firstChild;
  set(button, 'aria-current', job.job === chosen ? 'true' : null);
  const [glyph, plan, word, when, , track] = button.children;
  const done = progress(job);
  text(glyph, GLYPHS[job.state] ?? '·');
  text(plan, job.plan);
  const at = job.state === 'queued' ? `queued at place ${number(job.queue_position)}` : job.state;
  const ends = ['done', 'failed', 'cancelled', 'queued'].includes(job.state);
  text(word, ends ? at : `${job.state} ${percent(done)}`);
  text(when, made(job.job));
  style(track.firstChild, 'transform', `scaleX(${done.toFixed(4)})`);
}

function wanted() {
  const words = byId('job-filter').value.toLowerCase().split(/\s+/).filter(Boolean);
  const state = byId('job-state').value;
  return all.filter((job) => {
    if (state && job.state !== state) return false;
    const said = `${job.job} ${job.plan} ${job.coordinator} ${job.state}`.toLowerCase();
    return words.every((word) => said.includes(word));
  });
}

function draw() {
  if (byId('view-jobs').hidden) return;
  const found = wanted();
  const some = found.slice(0, shown);
  keyed(byId('job-list'), some, (job) => job.job, make, update);
  hide(byId('no-jobs'), all.length > 0);
  const more = byId('more-jobs');
  hide(more, found.length <= shown);
  text(more, `Show more (${number(found.length - some.length)} left)`);
  const whole = found.length === all.length ? count(all.length, 'job') : `${number(found.length)} of ${count(all.length, 'job')}`;
  text(byId('jobs-count'), problem || whole);
  showJob(all.find((job) => job.job === chosen) ?? null, chosen);
}

function choose(id, byHand) {
  if (chosen !== id) forget();
  chosen = id;
  goTo('jobs', id);
  soon(draw);
  const job = all.find((one) => one.job === id);
  if (job) loadJob(job, () => soon(draw));
  // On a phone the chosen job stands below the list.
  if (byHand && matchMedia('(max-width: 900px)').matches) {
    byId('job').scrollIntoView({ block: 'start' });
    byId('job-title').focus({ preventScroll: true });
  }
}

export const jobs = {
  start() {
    for (const [id, name] of [['job-filter', 'input'], ['job-state', 'change']]) {
      byId(id).addEventListener(name, () => {
        shown = PAGE;
        soon(draw);
      });
    }
    byId('more-jobs').addEventListener('click', () => {
      shown += PAGE;
      soon(draw);
    });
    byId('job-rejects').addEventListener('toggle', () => {
      const job = all.find((one) => one.job === chosen);
      if (job) loadJob(job, () => soon(draw));
    });
  },
  enter() {
    const { view, what } = place();
    if (view === 'jobs' && what) choose(what, false);
    else if (view === 'jobs' && chosen) goTo('jobs', chosen);
    soon(draw);
  },
  moved: forget,
  async round() {
    try {
      const found = await ask('/api/v1/jobs');
      problem = '';
      if (found !== source) {
        source = found;
        // Ids begin with the time, so the newest job has the largest.
        all = found.filter((job) => !isStream(job)).sort((a, b) => (a.job < b.job ? 1 : -1));
      }
      if (!chosen && all.length) chosen = all[0].job;
      const job = all.find((one) => one.job === chosen);
      if (job) {
        measure(job);
        loadJob(job, () => soon(draw));
      }
    } catch (error) {
      problem = `The list is not up to date: ${error.message}`;
    }
    soon(draw);
  },
};
