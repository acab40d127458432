// The windows of a stream as they close, newest first, with their revisions.

import { byId, cells, keyed, row, set } from './dom.js';
import { number, time } from './format.js';
import { totalOf } from './stats.js';

const SHOWN = 100;
/** Rows move down at most this often, however fast windows close: faster ones can't be read. */
const EVERY_MS = 1000;

let drawn = '';
let drawnMs = 0;

export function showWindows(feed) {
  const stamp = `${feed.stream} ${feed.output} ${feed.version}`;
  if (stamp === drawn) return;
  const wait = drawnMs + EVERY_MS - performance.now();
  if (wait > 0) {
    setTimeout(feed.changed, wait);
    return;
  }
  drawnMs = performance.now();
  drawn = stamp;
  keyed(
    byId('windows'), feed.sorted().slice(-SHOWN).reverse(), ({ row: { window_start: start } }) => `${feed.stream} ${feed.output} ${start}`,
    ({ row: { window_start: start } }) => row(['head', 'n', 'n', 'n', 'n', 'wide mono'], { 'data-window': start }),
    (tr, { row: window, ms, end, revised, before }) => {
      const total = totalOf(window);
      set(tr, 'data-total', total);
      set(tr, 'data-revised', revised ? 'true' : null);
      const change = Number.isFinite(before) && before !== total ? ` (was ${number(before)})` : '';
      cells(tr, [
        `${time(ms)} – ${time(end)}`, `${number(total)}${change}`, number(window.duplicates), number(window.conflicts),
        `${revised ? '↻ ' : ''}${number(window.revision)}`, String(window.cut ?? '').slice(0, 8),
      ]);
      set(tr.cells[4], 'title', revised ? `revised ${revised} times while this page was open` : null);
    },
  );
}
