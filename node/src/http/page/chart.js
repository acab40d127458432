// The chart of a stream: a stacked bar for each window, by region or source, and the counts of one window.

import { byId, cells, el, keyed, row, set, style, svg, text } from './dom.js';
import { compact, number, time } from './format.js';
import { dimensionNames, sumsBy, totalOf } from './stats.js';

const HEIGHT = 240;
const LEFT = 46;
const BOTTOM = 22;
const TOP = 8;
/** Windows that the chart shows, on a wide screen and on a narrow one. */
const SHOWN = [120, 40];
/** Names with a colour of their own; the others are one. */
const COLOURS = 8;
const OTHERS = 'all others';

let width = 0;
let dimension = 0;
let lit = null;
/** The chosen window, or null: then the newest one. */
let chosen = null;
let shown = [];
let places = [];
let top = 0;
let parts = null;
let names = [];
let of = null;
let redraw = () => {};

export function startChart(changed) {
  redraw = changed;
  const chart = byId('chart');
  parts = Object.fromEntries(['grid', 'bars', 'cursor', 'axis'].map((name) => [name, svg('g', { class: name })]));
  chart.append(...Object.values(parts));
  parts.cursor.append(svg('rect', { y: TOP, height: HEIGHT - TOP - BOTTOM }));
  set(chart, 'height', HEIGHT);
  new ResizeObserver(([entry]) => {
    width = Math.floor(entry.contentRect.width);
    redraw();
  }).observe(chart.parentElement);
  const range = byId('chart-cursor');
  range.addEventListener('input', () => {
    const at = Number(range.value);
    chosen = at >= shown.length - 1 ? null : shown[at]?.ms ?? null;
    redraw();
  });
  chart.addEventListener('pointermove', (event) => pick(event.clientX));
  chart.addEventListener('pointerleave', () => {
    chosen = null;
    redraw();
  });
}

function pick(clientX) {
  const x = clientX - byId('chart').getBoundingClientRect().left;
  let best = null;
  places.forEach((place, at) => {
    const far = Math.abs(place.x + place.wide / 2 - x);
    if (best === null || far < best.far) best = { at, far };
  });
  if (best) chosen = shown[best.at].ms;
  redraw();
}

/** A round number above the highest bar. It shrinks only when much room is left, so that the scale rests. */
function scale(highest) {
  const power = 10 ** Math.floor(Math.log10(Math.max(highest, 4)));
  const round = [1, 1.5, 2, 3, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= highest);
  if (round > top || round < top / 2) top = round;
  return top;
}

/** The names in the order of the stack: the largest ones, in alphabetical order, keep their colours. */
function choose(sums) {
  const all = new Map();
  for (const each of sums) for (const [name, count] of each) all.set(name, (all.get(name) ?? 0) + count);
  const largest = [...all].sort((a, b) => b[1] - a[1]).slice(0, COLOURS).map(([name]) => name).sort();
  if (all.size > COLOURS) largest.push(OTHERS);
  return { largest, all };
}

function drawDimensions(feed) {
  const newest = shown.at(-1);
  const titles = newest ? dimensionNames(newest.row) : [];
  if (dimension >= titles.length) dimension = 0;
  keyed(byId('dimensions'), titles.map((title, at) => ({ title, at })), ({ title, at }) => `${feed.stream} ${feed.output} ${title} ${at}`,
    ({ title, at }) => {
      const input = el('input', { type: 'radio', name: 'dimension', value: String(at) });
      input.addEventListener('change', () => {
        dimension = at;
        lit = null;
        redraw();
      });
      return el('label', {}, input, el('span', {}, `by ${title}`));
    },
    (node, { at }) => {
      if (node.firstChild.checked !== (at === dimension)) node.firstChild.checked = at === dimension;
    });
  return titles;
}

function drawGrid(y) {
  const steps = [0, 0.25, 0.5, 0.75, 1].map((part) => part * top).filter((value) => Number.isInteger(value));
  keyed(parts.grid, steps, (value) => value / top,
    () => svg('g', {}, svg('line', { x1: LEFT }), svg('text', { x: LEFT - 8, 'text-anchor': 'end', 'dominant-baseline': 'central' })),
    (node, value) => {
      const [line, word] = node.children;
      set(line, 'x2', width);
      for (const name of ['y1', 'y2']) set(line, name, y(value).toFixed(1));
      set(word, 'y', y(value).toFixed(1));
      text(word, value < 10_000 ? number(value) : compact(value));
    });
}

function drawAxis(distance) {
  const step = Math.max(1, Math.ceil(110 / distance));
  const ticks = shown.map((window, at) => ({ window, at })).filter(({ at }) => (shown.length - 1 - at) % step === 0);
  keyed(parts.axis, ticks, ({ window }) => window.ms,
    () => svg('text', { y: HEIGHT - 5 }),
    (node, { window, at }) => {
      const middle = places[at].x + places[at].wide / 2;
      const end = middle > width - 40 ? 'end' : middle < LEFT + 30 ? 'start' : 'middle';
      set(node, 'x', (end === 'end' ? width : middle).toFixed(1));
      set(node, 'text-anchor', end);
      text(node, time(window.ms));
    });
}

function drawBars(sums, y) {
  const paths = new Map(names.map((name) => [name, '']));
  places.forEach(({ x, wide }, at) => {
    let base = 0;
    let rest = 0;
    const bar = (name, count) => {
      if (!count) return;
      const low = y(base).toFixed(1);
      base += count;
      paths.set(name, `${paths.get(name)}M${x.toFixed(1)} ${low}V${y(base).toFixed(1)}h${wide.toFixed(1)}V${low}z`);
    };
    for (const [name, count] of sums[at]) if (!paths.has(name)) rest += count;
    for (const name of names) bar(name, name === OTHERS ? rest : sums[at].get(name));
  });
  keyed(parts.bars, names, (name) => name, () => svg('path'), (path, name) => {
    set(path, 'd', paths.get(name));
    set(path, 'data-colour', names.indexOf(name));
    set(path, 'class', lit !== null && lit !== name ? 'dim' : null);
  });
}

function drawLegend(all) {
  keyed(byId('chart-legend'), names, (name) => name,
    (name) => {
      const button = el('button', { type: 'button', class: 'series' }, el('span', { class: 'swatch', 'aria-hidden': 'true' }), el('span', {}, name), el('span', { class: 'n soft' }));
      const light = (one) => () => {
        lit = one;
        redraw();
      };
      for (const [event, one] of [['pointerenter', name], ['focus', name], ['pointerleave', null], ['blur', null]]) {
        button.addEventListener(event, light(one));
      }
      return el('li', {}, button);
    },
    (item, name) => {
      const [swatch, , sum] = item.firstChild.children;
      set(swatch, 'data-colour', names.indexOf(name));
      text(sum, name === OTHERS ? '' : number(all.get(name)));
    });
}

function drawMatrix(window, titles) {
  const outer = [...sumsBy(window.counts, 0).keys()].sort();
  const inner = titles.length > 1 ? [...sumsBy(window.counts, titles.length - 1).keys()].sort().slice(0, 12) : [];
  const table = byId('matrix');
  const when = `${time(window.ms)} to ${time(window.end)}`;
  text(byId('matrix-title'), `${when}: ${number(totalOf(window.row))} events${window.revised ? ', revised' : ''}`);
  const heads = [titles[0], ...inner, 'events'];
  const stamp = heads.join('\n');
  if (table.stamp !== stamp) {
    table.stamp = stamp;
    table.tHead.replaceChildren(el('tr', {}, ...heads.map((head, at) => el('th', { scope: 'col', class: at ? 'n' : null }, head))));
  }
  keyed(table.tBodies[0], outer.slice(0, 40), (name) => `${stamp} ${name}`, () => row(['head', ...inner.map(() => 'n'), 'n']), (tr, name) => {
    const own = window.counts.filter(({ texts }) => texts[0] === name);
    const by = sumsBy(own, titles.length - 1);
    const sum = own.reduce((total, { count }) => total + count, 0);
    cells(tr, [name, ...inner.map((one) => number(by.get(one) ?? 0)), number(sum)]);
  });
}

export function drawChart(feed) {
  if (of !== feed) {
    of = feed;
    [top, chosen, lit] = [0, null, null];
  }
  if (!width) return;
  shown = feed.sorted().slice(-SHOWN[width < 560 ? 1 : 0]);
  const titles = drawDimensions(feed);
  const sums = shown.map(({ counts }) => sumsBy(counts, dimension));
  const { largest, all } = choose(sums);
  names = largest;
  set(byId('chart'), 'viewBox', `0 0 ${width} ${HEIGHT}`);
  set(byId('chart'), 'width', width);
  scale(Math.max(1, ...shown.map(({ row: one }) => totalOf(one))));
  const y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP);
  // Windows stand at equal distances; a gap in time is as wide as one window at least.
  const slots = [];
  let slot = 0;
  shown.forEach((window, at) => {
    if (at) slot += window.ms > shown[at - 1].end ? 2 : 1;
    slots.push(slot);
  });
  const wide = (width - LEFT) / Math.max(SHOWN[width < 560 ? 1 : 0], slot + 1);
  places = slots.map((place) => ({ x: width - (slot - place + 1) * wide, wide: Math.max(1, wide - (wide > 5 ? 2 : 0.5)) }));
  drawGrid(y);
  drawBars(sums, y);
  drawAxis(wide);
  drawLegend(all);
  drawCursor(titles);
}

function drawCursor(titles) {
  const found = shown.findIndex(({ ms }) => ms === chosen);
  const at = found < 0 ? shown.length - 1 : found;
  const window = shown[at];
  const range = byId('chart-cursor');
  set(range, 'max', Math.max(0, shown.length - 1));
  if (range.value !== String(Math.max(0, at))) range.value = String(Math.max(0, at));
  const rect = parts.cursor.firstChild;
  set(rect, 'visibility', window ? null : 'hidden');
  if (!window) return text(byId('chart-text'), 'No window has been closed yet.');
  set(rect, 'x', (places[at].x - 1).toFixed(1));
  set(rect, 'width', (places[at].wide + 2).toFixed(1));
  style(rect, 'opacity', found < 0 ? '0' : '1');
  const say = `${time(window.ms)}: ${number(totalOf(window.row))} events`;
  set(range, 'aria-valuetext', say);
  text(byId('chart-text'), `A bar for each of ${number(shown.length)} windows from ${time(shown[0].ms)} to ${time(shown.at(-1).end)}. The slider below chooses a window, and the table shows its counts.`);
  drawMatrix(window, titles);
}
