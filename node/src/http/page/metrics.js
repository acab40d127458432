// The daily metrics as they stand, filtered by date, region and source.

import { ask } from './api.js';
import { byId, cells, hide, keyed, options, row } from './dom.js';
import { number, percent } from './format.js';

const FILTERS = ['date', 'region', 'source'];
const SHOWN = 300;
const EVERY_MS = 2000;

let found = [];
let of = null;
let lastMs = 0;
const seen = { date: new Set(), region: new Set(), source: new Set() };
let redraw = () => {};

export function startMetrics(changed) {
  redraw = changed;
  for (const name of FILTERS) {
    byId(`metric-${name}`).addEventListener('change', () => {
      lastMs = 0;
      redraw();
      if (of) loadMetrics(of).then(redraw);
    });
  }
}

const dateOf = (metric) => metric.date ?? metric.start ?? '';
/** What the metric is of: behind the name of the output and the date in its id. */
const regionOf = (metric) => metric.region ?? metric.metric_id.split('/').slice(2).join(', ');

/** Asks for what the filters leave. */
export async function loadMetrics(feed) {
  if (of !== feed) {
    of = feed;
    [found, lastMs] = [[], 0];
    FILTERS.forEach((name) => seen[name].clear());
  }
  if (Date.now() - lastMs < EVERY_MS) return;
  lastMs = Date.now();
  const query = new URLSearchParams();
  for (const name of FILTERS) {
    const value = byId(`metric-${name}`).value;
    if (value) query.set(name, value);
  }
  const all = query.size ? `?${query}` : '';
  try {
    const answer = await ask(`/api/v1/streams/${encodeURIComponent(feed.stream)}/metrics${all}`);
    if (of === feed) found = answer;
  } catch {
    return; // A plan may have no metrics. What is shown stays.
  }
  for (const metric of found) {
    seen.date.add(dateOf(metric));
    seen.region.add(regionOf(metric));
    Object.keys(metric.metrics ?? {}).forEach((source) => seen.source.add(source));
  }
}

/** "by severity: high 3, low 5; reported rate 42 %". */
function parts(metric) {
  return Object.entries(metric).filter(([name]) => name !== 'count').map(([name, value]) => {
    const title = name.replaceAll('_', ' ');
    if (value === null || typeof value !== 'object') {
      return `${title} ${/rate|share/.test(name) ? percent(value) : number(value)}`;
    }
    const counts = Object.entries(value).sort((a, b) => b[1] - a[1]);
    const shown = counts.slice(0, 8).map(([text, count]) => `${text} ${number(count)}`).join(', ');
    return `${title}: ${shown}${counts.length > 8 ? ', …' : ''}`;
  }).join('; ');
}

export function showMetrics() {
  for (const name of FILTERS) {
    const all = [...seen[name]].sort();
    options(byId(`metric-${name}`), name === 'date' ? all.reverse() : all, 'all');
  }
  const source = byId('metric-source').value;
  const lines = found.flatMap((metric) => {
    return Object.entries(metric.metrics ?? {}).filter(([name]) => !source || name === source)
      .map(([name, value]) => ({ metric, name, value }));
  });
  lines.sort((a, b) => {
    const [one, other] = [a, b].map(({ metric, name }) => `${regionOf(metric)}\n${name}`);
    const [first, second] = [dateOf(a.metric), dateOf(b.metric)];
    return first !== second ? (first < second ? 1 : -1) : one < other ? -1 : 1;
  });
  hide(byId('no-metrics'), lines.length > 0);
  keyed(byId('metrics'), lines.slice(0, SHOWN), ({ metric, name }) => `${metric.metric_id} ${name}`,
    ({ metric }) => row(['', 'head', '', 'n', 'parts', 'n'], { 'data-metric': metric.metric_id }),
    (tr, { metric, name, value }) => cells(tr, [dateOf(metric), regionOf(metric), name, number(value.count), parts(value), number(metric.revision)]));
}
