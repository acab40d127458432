// Publishers with their watermarks, and which of them each open window waits for.

import { byId, cells, el, keyed, row, set, text } from './dom.js';
import { count, dateTime, duration, list, millis, number, time } from './format.js';

const SHOWN_OPEN = 12;
const SHOWN = 200;

function stateOf(publisher) {
  if (publisher.sealed) return 'sealed';
  if (publisher.ended) return 'ended';
  if (publisher.beyond_gap > 0) return 'has a gap';
  return publisher.idle ? 'idle' : 'open';
}

const GLYPHS = { sealed: '■', ended: '–', 'has a gap': '▲', idle: '◌', open: '●' };

/** Whether windows wait for it. */
const holds = (publisher) => !publisher.ended && !publisher.idle && !publisher.sealed && !publisher.backfill;

const nameOf = ({ name, generation }) => (generation ? `${name} (${number(generation)})` : name);

function drawPublishers(status) {
  // Those that hold windows open come first, the slowest at the top.
  const order = (one) => (holds(one) ? 0 : 1);
  const all = [...status.publishers].sort((a, b) => {
    return order(a) - order(b) || (millis(a.watermark) || 0) - (millis(b.watermark) || 0) || (a.name < b.name ? -1 : 1);
  });
  const now = Date.now();
  keyed(byId('publishers'), all.slice(0, SHOWN), (one) => `${status.stream} ${one.name} ${one.generation}`,
    (one) => row(['head', '', 'n', 'n', '', 'n'], { 'data-publisher': one.name }),
    (tr, one) => {
      const state = stateOf(one);
      set(tr, 'data-state', state.replaceAll(' ', '-'));
      const gap = one.beyond_gap ? ` + ${number(one.beyond_gap)}` : '';
      cells(tr, [
        nameOf(one), `${GLYPHS[state]} ${state}${one.backfill ? ', backfill' : ''}`, `${number(one.prefix)}${gap}`,
        number(one.events), one.watermark ? time(one.watermark) : '–',
        one.watermark && holds(one) ? duration(now - millis(one.watermark)) : '–',
      ]);
      set(tr.cells[2], 'title', one.beyond_gap ? `${count(one.beyond_gap, 'batch', 'batches')} behind a gap` : null);
      set(tr.cells[3], 'title', one.dead ? `${count(one.dead, 'dead letter')}` : null);
    });
}

/** The open windows: from the end of the newest closed one up to the latest watermark. */
function openWindows(feed, status) {
  const newest = feed.sorted().at(-1);
  const marks = status.publishers.map(({ watermark }) => millis(watermark)).filter(Number.isFinite);
  if (!newest || !status.open_windows || !marks.length) return [];
  const every = newest.end - newest.ms;
  const found = [];
  for (let at = 0; at < Math.min(status.open_windows, SHOWN_OPEN); at += 1) {
    const start = newest.end + at * every;
    const late = status.publishers.filter((one) => holds(one) && !(millis(one.watermark) >= start + every));
    const names = late.map((one) => {
      const behind = start + every - millis(one.watermark);
      return Number.isFinite(behind) ? `${nameOf(one)} (${duration(behind)} before its end)` : `${nameOf(one)} (no watermark yet)`;
    });
    const say = names.length ? `waits for ${list(names, 4)}` : 'all have passed its end; it waits for late events';
    found.push({ start, end: start + every, say });
  }
  return found;
}

export function showPublishers(feed, status) {
  if (!status) return;
  drawPublishers(status);
  const lag = status.watermark ? `; it is ${duration(Date.now() - millis(status.watermark))} behind this clock` : '';
  text(byId('watermark'), status.watermark ? `The watermark is ${dateTime(status.watermark)}${lag}.`
    : status.publishers.length ? 'No publisher holds windows back.' : 'No publisher has come yet.');
  text(byId('stream-waits'), status.waits_for ? `The stream ${status.waits_for.replace(/^(is|waits?) /, (word) => word)}.` : '');
  const open = openWindows(feed, status);
  const say = open.length ? open : [{ start: 0, say: status.open_windows ? `${count(status.open_windows, 'window')} open.` : 'No window is open.' }];
  const more = status.open_windows - open.length;
  if (open.length && more > 0) say.push({ start: 1, say: `${count(more, 'later window')} open.` });
  keyed(byId('open-windows'), say, ({ start }) => start, () => el('li', {}, el('strong', {}), el('span', {})),
    (item, { start, end, say: words }) => {
      text(item.firstChild, start > 1 ? `${time(start)} – ${time(end)} ` : '');
      text(item.lastChild, words);
    });
}
