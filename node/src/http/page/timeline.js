// The time line: a lane for each node with its states, marks for elections and revivals, and the list.

import { byId, el, hide, keyed, set, style, svg, text } from './dom.js';
import { duration, exactTime, list, time } from './format.js';
import { happenings, happeningsVersion, news, unreadLogs } from './happenings.js';

const LANE = 24;
/** Where marks and bars lie in a lane: a mark stands above its bar, so that it hides no short absence. */
const MARK = 6;
const BAR = 17;
const LEFT = 84;
const AXIS = 20;
const SHOWN = 200;

/** What an event makes of the state of its node. */
const STATES = {
  member_alive: 'alive', started: 'alive', member_down: 'down', member_ill: 'ill',
  member_draining: 'draining', member_left: 'left', crash_looping: 'down', reviving: 'down',
};
const MARKS = {
  elected: '★', reviving: '↻', revive_failed: '!', crash_looping: '!', disturbed: '≈', healed: '○',
};
const GLYPHS = {
  ...MARKS, revived: '↑', left_alone: '–', member_alive: '●', started: '●', member_down: '✕', member_ill: '▲', member_draining: '◐',
  member_left: '→', election: '?', ring: '◌', moving: '⇄', rebalanced: '✓',
};

let width = 0;
let drawn = '';
let parts = null;
let redraw = () => {};

export function startTimeline(changed) {
  redraw = changed;
  const lanes = byId('lanes');
  parts = ['grid', 'names', 'bars', 'marks'].map((name) => svg('g', { class: name }));
  lanes.append(...parts);
  new ResizeObserver(([entry]) => {
    width = Math.floor(entry.contentRect.width);
    drawn = '';
    redraw();
  }).observe(lanes.parentElement);
  byId('span').addEventListener('change', () => {
    drawn = '';
    redraw();
  });
  const words = ['● alive', '▲ ill', '◐ draining', '✕ down', '★ elected', '↻ reviving', '≈ disturbed', '○ healed'];
  byId('lane-legend').append(...words.map((word) => el('span', {}, word)));
}

/** The states of a node over time: from the events, and up to now from what the cluster says. */
function bars(member, from, now) {
  const own = happenings().filter(({ node, kind }) => node === member.id && (STATES[kind] || kind === 'revived'));
  const found = [];
  let state = own.length ? (STATES[own[0].kind] === 'alive' ? null : 'alive') : member.state;
  // Nothing is known of the time before the oldest event.
  let since = Math.max(from, happenings()[0]?.ms ?? from);
  let cause = null;
  for (const entry of own) {
    // A process that was started at once, before any member missed the node, is taken for alive: its own log may
    // be lost by now.
    const next = entry.kind === 'revived' ? (cause === 'reviving' ? 'alive' : state) : STATES[entry.kind];
    if (next === state) continue;
    cause = entry.kind;
    if (state && entry.ms > from) found.push({ state, from: Math.max(since, from), to: entry.ms });
    state = next;
    since = Math.max(entry.ms, from);
  }
  if (state) found.push({ state, from: since, to: now });
  return found;
}

function drawLanes(view, span) {
  const now = Date.now();
  const from = now - span;
  const lanes = byId('lanes');
  const inner = width - LEFT - 8;
  const x = (ms) => (LEFT + ((ms - from) / span) * inner).toFixed(1);
  const height = view.members.length * LANE + AXIS;
  set(lanes, 'viewBox', `0 0 ${width} ${height}`);
  set(lanes, 'width', width);
  set(lanes, 'height', height);
  const ticks = Array.from({ length: inner > 480 ? 5 : 3 }, (_, at, all = inner > 480 ? 5 : 3) => ({ at, ms: from + (span * at) / (all - 1), last: at === all - 1 }));
  keyed(parts[0], ticks, ({ at }) => at,
    () => svg('g', {}, svg('line', { y1: 0 }), svg('text')),
    (node, { at, ms, last }) => {
      const [line, word] = node.children;
      for (const name of ['x1', 'x2']) set(line, name, x(ms));
      set(line, 'y2', height - AXIS);
      set(word, 'x', x(ms));
      set(word, 'y', height - 4);
      set(word, 'text-anchor', last ? 'end' : at ? 'middle' : 'start');
      text(word, last ? 'now' : time(ms));
    });
  keyed(parts[1], view.members, ({ id }) => id,
    ({ id }) => svg('text', { x: 0, 'dominant-baseline': 'central' }, id.length > 12 ? `${id.slice(0, 11)}…` : id),
    (node, { id }) => set(node, 'y', view.members.findIndex((member) => member.id === id) * LANE + BAR));
  const all = view.members.flatMap((member, lane) => {
    return bars(member, from, now).map((bar, at) => ({ ...bar, lane, key: `${member.id} ${at}` }));
  });
  keyed(parts[2], all, ({ key }) => key,
    () => svg('rect', { rx: 2 }, svg('title')),
    (rect, bar) => {
      const tall = { alive: 6, draining: 8, ill: 10, down: 12, left: 2 }[bar.state] ?? 6;
      set(rect, 'data-state', bar.state);
      set(rect, 'x', x(bar.from));
      set(rect, 'width', Math.max(bar.state === 'alive' ? 1 : 4, x(bar.to) - x(bar.from)).toFixed(1));
      set(rect, 'y', bar.lane * LANE + BAR - tall / 2);
      set(rect, 'height', tall);
      text(rect.firstChild, `${bar.state} for ${duration(bar.to - bar.from)}`);
    });
  const lane = new Map(view.members.map(({ id }, at) => [id, at]));
  const marks = news().filter((entry) => MARKS[entry.kind] && lane.has(entry.node) && entry.ms >= from).slice(-150);
  keyed(parts[3], marks, ({ key }) => key,
    ({ kind, say }) => svg('text', { class: kind, 'text-anchor': 'middle', 'dominant-baseline': 'central' }, MARKS[kind], svg('title', {}, say)),
    (node, entry) => {
      set(node, 'x', x(entry.ms));
      set(node, 'y', lane.get(entry.node) * LANE + MARK);
    });
}

/** How long a node was away, if this entry is its return. */
function away(entry, at, all) {
  if (STATES[entry.kind] !== 'alive') return '';
  let gone = null;
  for (let back = at - 1; back >= 0; back -= 1) {
    const { kind, node, ms } = all[back];
    if (node !== entry.node) continue;
    if (STATES[kind] === 'down') gone = ms;
    else if (STATES[kind] || (kind === 'revived' && gone !== null)) break;
  }
  if (gone === null) return '';
  return entry.ms - gone < 1000 ? ', less than a second after it was found dead' : `, ${duration(entry.ms - gone)} after it was found dead`;
}

function drawList() {
  const all = news();
  const stamp = `${happeningsVersion()}`;
  if (byId('log').dataset.stamp === stamp) return;
  byId('log').dataset.stamp = stamp;
  hide(byId('no-log'), all.length > 0);
  const shown = all.slice(-SHOWN).map((entry, at) => ({ entry, say: entry.say + away(entry, at + Math.max(0, all.length - SHOWN), all) }));
  keyed(byId('log'), shown.reverse(), ({ entry }) => entry.key,
    ({ entry }) => el('li', { 'data-event': entry.kind }, el('time'), el('span', { class: 'glyph', 'aria-hidden': 'true' }, GLYPHS[entry.kind] ?? '·'), el('span', { class: 'say' }), el('span', { class: 'by' })),
    (item, { entry, say }) => {
      const [when, , what, by] = item.children;
      set(when, 'datetime', new Date(entry.ms).toISOString());
      text(when, exactTime(entry.ms));
      text(what, say);
      text(by, entry.by.length ? `seen by ${list(entry.by, 3)}` : 'seen by this page');
      if (entry.node) set(item, 'data-about', entry.node);
    });
}

export function showTimeline(view) {
  const span = Number(byId('span').value);
  const lanes = Math.min(view.members.length * LANE + AXIS + 4, 320);
  style(byId('lanes').parentElement, 'min-height', `${lanes}px`);
  // A lane moves by less than half a pixel between drawings that are left out.
  const step = Math.floor(Date.now() / Math.max(500, span / 1200));
  const stamp = `${step} ${width} ${happeningsVersion()} ${view.members.map(({ id, state }) => id + state)}`;
  if (width && stamp !== drawn) {
    drawn = stamp;
    drawLanes(view, span);
  }
  drawList();
  const unread = unreadLogs();
  text(byId('log-note'), unread.length ? `The logs of ${list(unread)} are read after the page is loaded again: they joined later.` : '');
}
