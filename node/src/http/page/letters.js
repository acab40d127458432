// Dead letters by reason, and one of them as it was sent.

import { ask } from './api.js';
import { byId, el, hide, keyed, set, text } from './dom.js';
import { count, number } from './format.js';

const SHOWN = 50;

let feed = null;
let reason = null;
let chosen = null;
let fetched = { id: null };
let redraw = () => {};

/** The kept letters with the chosen reason, newest first. */
const letters = () => [...feed.letters.values()].filter((one) => one.reason === reason).reverse();

function step(by) {
  const all = letters();
  const at = all.findIndex(({ dead_id: id }) => id === chosen);
  const next = all[Math.min(all.length - 1, Math.max(0, at + by))];
  if (next) look(next);
}

async function look(letter) {
  chosen = letter.dead_id;
  fetched = { id: chosen, row: letter };
  redraw();
  try {
    const found = await ask(`/api/v1/streams/${encodeURIComponent(feed.stream)}/dead/${encodeURIComponent(letter.dead_id)}`);
    if (fetched.id === letter.dead_id) fetched.found = found;
  } catch (error) {
    if (fetched.id === letter.dead_id) fetched.why = error.message;
  }
  redraw();
}

export function startLetters(changed) {
  redraw = changed;
  byId('letter-newer').addEventListener('click', () => step(-1));
  byId('letter-older').addEventListener('click', () => step(1));
}

function drawOne() {
  const all = reason === null ? [] : letters();
  const at = all.findIndex(({ dead_id: id }) => id === chosen);
  set(byId('letter-newer'), 'disabled', at <= 0);
  set(byId('letter-older'), 'disabled', at < 0 || at >= all.length - 1);
  if (!fetched.id) {
    text(byId('letter-title'), 'Choose a reason to look at one.');
    return text(byId('letter-raw'), '');
  }
  const { row, found, why } = fetched;
  const path = (found?.path ?? row.path) ? ` At ${found?.path ?? row.path}.` : '';
  const from = row.publisher ? ` From ${row.publisher}, batch ${number(row.batch)}.` : '';
  const short = why && row.raw ? ' Only its beginning can be shown now.' : '';
  text(byId('letter-title'), `${found?.reason ?? row.reason}.${path}${from}${short}`);
  text(byId('letter-raw'), found?.raw ?? row.raw ?? why ?? '');
}

export function showLetters(of) {
  if (feed !== of) {
    feed = of;
    [reason, chosen, fetched] = [null, null, { id: null }];
  }
  const all = [...of.reasons].sort((a, b) => b[1] - a[1]).slice(0, SHOWN);
  hide(byId('no-letters'), all.length > 0);
  keyed(byId('reasons'), all, ([name]) => `${of.stream} ${name}`,
    ([name]) => {
      const button = el('button', { type: 'button', class: 'reason-row' }, el('span', {}, name), el('span', { class: 'n' }));
      button.addEventListener('click', () => {
        reason = name;
        const [newest] = letters();
        if (newest) look(newest);
      });
      return el('li', { 'data-reason': name }, button);
    },
    (item, [name, times]) => {
      const button = item.firstChild;
      set(button, 'aria-pressed', name === reason ? 'true' : 'false');
      text(button.lastChild, number(times));
      set(button, 'title', `${count(times, 'dead letter')} since this page looks`);
    });
  drawOne();
}
