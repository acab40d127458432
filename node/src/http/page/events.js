// The view of events: chooses a stream, asks for its state, and hands it to the parts that show it.

import { ask } from './api.js';
import { showAlerts } from './alerts.js';
import { drawChart, startChart } from './chart.js';
import { byId, el, keyed, options, soon, text } from './dom.js';
import { Feed, firstOf, kindOf } from './feed.js';
import { decimal, number } from './format.js';
import { showLetters, startLetters } from './letters.js';
import { loadMetrics, showMetrics, startMetrics } from './metrics.js';
import { showPublishers } from './publishers.js';
import { goTo, place } from './tabs.js';
import { showWindows } from './windows.js';

let streams = [];
let feed = null;
let status = null;
let problem = '';
let rate = { at: 0, received: 0, perSecond: NaN };

const TILES = [
  ['received', 'received'], ['rate', 'per second'], ['counted', 'counted'], ['duplicates', 'copies dropped'],
  ['dead', 'dead letters'], ['open', 'in open windows'], ['retired', 'too late'],
];

function measure(received) {
  const now = performance.now();
  const seconds = (now - rate.at) / 1000;
  if (seconds < 0.8) return;
  const own = (received - rate.received) / seconds;
  const smooth = Number.isFinite(rate.perSecond) ? rate.perSecond * 0.6 + own * 0.4 : own;
  rate = { at: now, received, perSecond: rate.at ? Math.max(0, smooth) : NaN };
}

function drawTiles() {
  const counts = { ...(status?.events ?? feed?.totals ?? {}), rate: rate.perSecond };
  keyed(byId('totals'), TILES, ([name]) => name,
    ([name, label]) => el('div', { 'data-count': name }, el('dt', {}, label), el('dd', {}, '–')),
    (tile, [name]) => text(tile.lastChild, name === 'rate' ? decimal(counts.rate) : number(counts[name])));
}

function state() {
  if (problem) return problem;
  if (!feed) return 'No stream yet. Start one with: cortado events start';
  if (!status) return 'Asking for its state.';
  const what = status.ended ? 'has ended' : status.stopping ? 'is to end' : 'runs';
  return `The stream ${what}; ${status.coordinator} coordinates it. `
    + `${number(status.open_windows)} windows open, ${number(status.closed_windows)} closed.`;
}

function draw() {
  if (byId('view-events').hidden) return;
  text(byId('stream-state'), state());
  drawTiles();
  if (!feed) return;
  drawChart(feed);
  showWindows(feed);
  showPublishers(feed, status);
  showAlerts(feed);
  showLetters(feed);
  showMetrics();
}

const changed = () => soon(draw);

function choose(name, output = null) {
  const stream = streams.find((one) => one.stream === name);
  if (!stream) return;
  feed?.leave();
  const outputs = stream.outputs ?? [];
  const windows = outputs.filter((one) => kindOf(one) === 'window');
  const own = output ?? firstOf(outputs);
  status = null;
  rate = { at: 0, received: 0, perSecond: NaN };
  feed = new Feed(name, own, outputs, changed);
  options(byId('output'), windows);
  if (own) byId('output').value = own;
  byId('stream').value = name;
  goTo('events', name);
  if (!byId('view-events').hidden && !document.hidden) feed.enter();
  changed();
}

async function learn() {
  streams = await ask('/api/v1/streams');
  options(byId('stream'), streams.map(({ stream }) => stream));
  const here = place();
  const wanted = here.view === 'events' ? here.what : '';
  const names = streams.map(({ stream }) => stream);
  if (feed && names.includes(feed.stream) && (!wanted || wanted === feed.stream)) return;
  const name = names.includes(wanted) ? wanted : names.includes('events') ? 'events' : names[0];
  if (name && name !== feed?.stream) choose(name);
}

export const events = {
  start() {
    startChart(changed);
    startLetters(changed);
    startMetrics(changed);
    byId('stream').addEventListener('change', (event) => choose(event.target.value));
    byId('output').addEventListener('change', (event) => choose(feed.stream, event.target.value));
    drawTiles();
  },
  enter() {
    const here = place();
    if (here.view === 'events' && feed && !here.what) goTo('events', feed.stream);
    feed?.enter();
    changed();
  },
  leave: () => feed?.leave(),
  moved: () => feed?.moved(),
  async round() {
    try {
      await learn();
      problem = '';
      const mine = feed;
      if (mine) {
        const asked = ask(`/api/v1/streams/${encodeURIComponent(mine.stream)}/status`);
        const [found] = await Promise.all([asked, mine.round(), loadMetrics(mine)]);
        if (mine === feed) {
          status = found;
          measure(found.events.received);
        }
      }
    } catch (error) {
      problem = `The state is not up to date: ${error.message}`;
    }
    changed();
  },
};
