// The view of the cluster: members, ring, moves, and what happened.

import { ask } from './api.js';
import { byId, cells, el, hide, keyed, row, set, soon, style, text } from './dom.js';
import { count, list, number } from './format.js';
import { gather, tell } from './happenings.js';
import { compare, hue, ifLeft, showRing, startRing } from './ring.js';
import { showTimeline, startTimeline } from './timeline.js';

const GLYPHS = { alive: '●', ill: '▲', draining: '◐', down: '✕', 'crash-looping': '✕' };

let view = null;
let ring = null;
/** The answer that the ring was made of. */
let taken = null;
/** The member that was clicked, and the one under the pointer or the focus. */
let pinned = null;
let near = null;
let moving = 0;
const hues = new Map();

const hueOf = (node) => hues.get(node) ?? '0';

function stateOf(member) {
  return view.crash_looping?.includes(member.id) ? 'crash-looping' : member.state;
}

function makeMember({ id }) {
  const tr = row(['head', '', 'n', 'n', 'n', 'wide'], { 'data-node': id });
  const button = el('button', { type: 'button', class: 'member', 'aria-pressed': 'false' },
    el('span', { class: 'swatch', 'aria-hidden': 'true' }), el('span', {}, id));
  tr.cells[0].append(button, el('span', { class: 'role' }));
  tr.cells[1].append(
    el('span', { class: 'state' }, el('span', { class: 'glyph', 'aria-hidden': 'true' }), el('span')),
    el('span', { class: 'reason' }),
  );
  tr.cells[5].append(el('a', { hidden: true }));
  const touch = (node) => () => {
    near = node;
    soon(draw);
  };
  tr.addEventListener('pointerenter', touch(id));
  tr.addEventListener('pointerleave', touch(null));
  button.addEventListener('focus', touch(id));
  button.addEventListener('blur', touch(null));
  button.addEventListener('click', () => {
    pinned = pinned === id ? null : id;
    soon(draw);
  });
  return tr;
}

function updateMember(tr, member) {
  const state = stateOf(member);
  set(tr, 'data-state', state);
  const [button, role] = tr.cells[0].children;
  style(button.firstChild, '--hue', hueOf(member.id));
  set(button, 'aria-pressed', pinned === member.id ? 'true' : 'false');
  const supervises = view.supervisor?.node === member.id;
  text(role, supervises ? `supervisor, term ${number(view.supervisor.term)}` : '');
  const [word, reason] = tr.cells[1].children;
  text(word.firstChild, GLYPHS[state] ?? '?');
  text(word.lastChild, state);
  text(reason, member.reason ?? (state === 'crash-looping' ? 'revived too often; start it yourself' : ''));
  const slots = ring?.slots ?? [];
  const first = slots.filter(({ owners }) => owners[0] === member.id).length;
  const copies = slots.filter(({ owners }) => owners.indexOf(member.id) > 0).length;
  cells(tr, [undefined, undefined, ring ? number(first) : '–', ring ? number(copies) : '–', number(member.jobs ?? NaN)]);
  const link = tr.cells[5].firstChild;
  hide(link, !member.http_addr);
  if (member.http_addr) {
    set(link, 'href', `http://${member.http_addr}/`);
    text(link, member.http_addr);
  }
}

function attention() {
  const say = [];
  if (view.crash_looping?.length) say.push(`${list(view.crash_looping)} was revived too often: look at its log, then start it yourself.`);
  if (view.overdue) {
    say.push(`${count(view.overdue.jobs, 'job')} past the time to live cannot be dropped while ${list(view.overdue.away)} is away.`);
  }
  if (!view.supervisor) say.push('There is no supervisor now: dead nodes are revived after an election.');
  text(byId('attention'), say.join(' ') || `Each slot has ${count(view.replicas, 'owner')}. ${view.supervisor.node} revives members that die.`);
}

function drawMoves() {
  const moves = ring?.moves ?? [];
  hide(byId('no-moves'), moves.length > 0);
  keyed(
    byId('moves'), moves.slice(0, 100), ({ job, to }) => `${job} ${to}`,
    ({ job, to }) => el('li', {}, el('strong', {}, to), ' gets ', el('span', { class: 'count' }), ' of ', el('span', { class: 'mono' }, job)),
    (item, { entries }) => text(item.children[1], count(entries, 'entry', 'entries')),
  );
}

function drawSlots() {
  if (!byId('slots').closest('details').open) return;
  keyed(
    byId('slots'), ring?.all ?? [], ({ slot }) => slot,
    () => row(['n', '', '']),
    (tr, { slot, owners }) => cells(tr, [slot < view.slots ? number(slot) : 'records', owners[0] ?? '–', owners.slice(1).join(', ')]),
  );
}

function draw() {
  if (!view || byId('view-cluster').hidden) return;
  keyed(byId('members'), view.members, ({ id }) => id, makeMember, updateMember);
  attention();
  drawMoves();
  showTimeline(view);
  if (!ring) return;
  const chosen = near ?? pinned;
  const gone = new Set(view.members.filter(({ state }) => state === 'down').map(({ id }) => id));
  showRing(ring, hues, chosen, gone);
  drawSlots();
  const about = chosen ?? null;
  text(byId('if-left'), about ? ifLeft(ring, about) : 'Choose a member to see what would move if it left.');
}

/** Takes a new view of the cluster, whichever view of the page is open. */
export function showCluster(found) {
  view = found;
  // A node keeps its hue, also when others leave.
  for (const { id } of view.members) if (!hues.has(id)) hues.set(id, hue(hues.size));
  const here = (id) => view.members.some((member) => member.id === id);
  if (!here(pinned)) pinned = null;
  if (!here(near)) near = null;
  soon(draw);
}

function take(answer) {
  if (answer === taken) return;
  taken = answer;
  const before = ring;
  // Behind the slots of data stands that of the cluster's own records: it is in the table only.
  const slots = answer.slots.filter(({ slot }) => slot < view.slots);
  const found = { ...answer, slots, all: answer.slots };
  ring = found;
  const differ = compare(found);
  if (before && differ) tell('ring', `${count(differ, 'slot')} of ${number(found.slots.length)} got other owners, view ${number(found.version)}`);
  const now = found.moves.reduce((sum, { entries }) => sum + entries, 0);
  if (before && moving && !found.moves.length) tell('rebalanced', 'rebalanced: nothing moves any more');
  if (before && !moving && found.moves.length) tell('moving', `copies move to ${list([...new Set(found.moves.map(({ to }) => to))])}`);
  moving = now || found.moves.length;
}

export const cluster = {
  start() {
    startRing();
    startTimeline(() => soon(draw));
    byId('slots').closest('details').addEventListener('toggle', () => soon(draw));
  },
  async round(found) {
    const asked = ask('/api/v1/ring').then(take, () => {});
    gather(found, () => soon(draw));
    await asked;
    soon(draw);
  },
};
