// The ring: a circle with a segment for each slot. The outer circle has first owners, the inner ones copies.

import { byId, keyed, set, style, svg, text } from './dom.js';
import { list, number } from './format.js';

const CENTRE = 200;
/** Radii of the outer circle, and how wide the inner ones are. */
const OUTER = [146, 190];
const INNER_WIDTH = 17;
const GAP = 3;
/** Numbers are written on segments if there are no more slots than this. */
const LABELS = 96;
/** How long a slot is marked after its owners have changed. */
const MARK_MS = 8000;

const before = new Map();
const changed = new Map();
const layers = [];
let middle = null;

const point = (angle, radius) => {
  const turn = angle * 2 * Math.PI;
  return `${(CENTRE + radius * Math.sin(turn)).toFixed(2)} ${(CENTRE - radius * Math.cos(turn)).toFixed(2)}`;
};

function arc(from, to, inner, outer) {
  const large = to - from > 0.5 ? 1 : 0;
  return `M${point(from, outer)}A${outer} ${outer} 0 ${large} 1 ${point(to, outer)}`
    + `L${point(to, inner)}A${inner} ${inner} 0 ${large} 0 ${point(from, inner)}Z`;
}

/** The hue of the node that came at a place: by the golden angle any number of hues stay apart. */
export const hue = (place) => `${Math.round(place * 137.5 + 40) % 360}`;

/** What stands on a segment: the number of the node, or the start of its name. */
const label = (node) => /\d+$/.exec(node)?.[0].slice(-3) ?? node.slice(0, 2);

export function startRing() {
  for (const name of ['marks', 'segments', 'labels']) {
    const layer = svg('g', { class: name, 'aria-hidden': 'true' });
    layers.push(layer);
    byId('ring').append(layer);
  }
  middle = [186, 214].map((y, at) => {
    return svg('text', { x: CENTRE, y, 'text-anchor': 'middle', class: at ? 'small' : 'big' });
  });
  byId('ring').append(svg('g', { 'aria-hidden': 'true' }, ...middle));
}

/** Which slots have other owners than before; how many of them. */
export function compare(ring) {
  let differ = 0;
  const first = before.size === 0;
  for (const { slot, owners } of ring.slots) {
    const now = owners.join(' ');
    if (!first && before.get(slot) !== now) {
      differ += 1;
      changed.set(slot, Date.now());
    }
    before.set(slot, now);
  }
  return differ;
}

export function showRing(ring, hues, chosen, unreachable) {
  const total = ring.slots.length || 1;
  const thin = total > 200 ? 0 : 0.0009;
  const pieces = [];
  ring.slots.forEach(({ slot, owners }, at) => {
    const span = [at / total + thin, (at + 1) / total - thin];
    owners.forEach((node, copy) => {
      const outer = copy === 0 ? OUTER[1] : OUTER[0] - GAP - (copy - 1) * (INNER_WIDTH + GAP);
      const inner = copy === 0 ? OUTER[0] : outer - INNER_WIDTH;
      if (inner > 60) pieces.push({ key: `${slot} ${copy}`, slot, owners, node, copy, span, inner, outer });
    });
  });
  keyed(
    layers[1], pieces, (piece) => piece.key,
    () => svg('path', {}, svg('title')),
    (path, piece) => {
      const shape = arc(...piece.span, piece.inner, piece.outer);
      set(path, 'd', shape);
      style(path, '--hue', hues.get(piece.node) ?? '0');
      const owns = piece.node === chosen;
      set(path, 'class', chosen && !owns ? 'dim' : unreachable.has(piece.node) ? 'gone' : piece.copy ? 'copy' : null);
      text(path.firstChild, `slot ${piece.slot}: ${piece.owners.join(', ')}`);
    },
  );
  const firsts = total > LABELS ? [] : pieces.filter((piece) => piece.copy === 0);
  keyed(
    layers[2], firsts, (piece) => piece.key,
    () => svg('text', { 'text-anchor': 'middle', 'dominant-baseline': 'central' }),
    (node, piece) => {
      const [x, y] = point((piece.span[0] + piece.span[1]) / 2, (piece.inner + piece.outer) / 2).split(' ');
      set(node, 'x', x);
      set(node, 'y', y);
      set(node, 'class', chosen && piece.node !== chosen ? 'dim' : null);
      text(node, label(piece.node));
    },
  );
  const now = Date.now();
  const marked = pieces.filter((piece) => piece.copy === 0 && now - (changed.get(piece.slot) ?? 0) < MARK_MS);
  keyed(
    layers[0], marked, (piece) => piece.key,
    () => svg('path'),
    (path, piece) => set(path, 'd', arc(...piece.span, 193, 198)),
  );
  describe(ring, chosen);
}

function describe(ring, chosen) {
  const own = ring.slots.filter(({ owners }) => owners[0] === chosen).length;
  const copies = ring.slots.filter(({ owners }) => owners.indexOf(chosen) > 0).length;
  text(middle[0], chosen ? chosen : number(ring.slots.length));
  text(middle[1], chosen ? `first of ${number(own)}, copies of ${number(copies)}` : 'slots');
  const marked = [...changed].filter(([, at]) => Date.now() - at < MARK_MS).map(([slot]) => slot);
  const news = marked.length ? `The owners of ${number(marked.length)} slots have just changed (marked outside).` : '';
  text(byId('ring-text'), news || `View ${number(ring.version)} of the ring. No slot has just changed its owners.`);
}

/** What would move if a node left, from the owners that each slot has. */
export function ifLeft(ring, node) {
  const held = ring.slots.filter(({ owners }) => owners.includes(node));
  const first = held.filter(({ owners }) => owners[0] === node);
  const heirs = new Map();
  for (const { owners } of first) {
    if (owners.length > 1) heirs.set(owners[1], (heirs.get(owners[1]) ?? 0) + 1);
  }
  const names = [...heirs].sort((a, b) => b[1] - a[1]).map(([name, slots]) => `${name} (${number(slots)})`);
  const to = names.length ? `: ${list(names, 5)}` : '';
  return `If ${node} left: ${number(held.length)} of ${number(ring.slots.length)} slots would be copied elsewhere, `
    + `${number(first.length)} would get another first owner${to}.`;
}
