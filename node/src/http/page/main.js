// Starts the page: asks for the cluster once a second, shows the header, and wakes the open view.

import { homeName, isAway, nodes, onBase } from './api.js';
import { cluster, showCluster } from './cluster.js';
import { byId, set, soon, text } from './dom.js';
import { events } from './events.js';
import { list, number, time } from './format.js';
import { jobs } from './jobs.js';
import { startTabs } from './tabs.js';
import { startTheme } from './theme.js';

const ROUND_MS = 1000;
const views = { cluster, jobs, events };

let open = 'cluster';
let view = null;
let lastMs = 0;
let timer = 0;
let running = false;
let backUntil = 0;

/** What the cluster's state means for data, in one sentence. */
function health(of) {
  const alive = of.members.filter((member) => member.state === 'alive').length;
  const wrong = (state) => of.members.filter((member) => member.state === state).map(({ id }) => id);
  const parts = [`${number(alive)} of ${number(of.expected_nodes)} nodes alive`];
  const is = (names) => (names.length === 1 ? 'is' : 'are');
  for (const [state, word] of [['down', 'down'], ['ill', 'ill'], ['draining', 'draining']]) {
    const names = wrong(state);
    if (names.length) parts.push(`${list(names)} ${is(names)} ${word}`);
  }
  if (!of.formed) return { level: 'bad', say: `The cluster has not formed yet: ${parts.join('; ')}.` };
  const disks = of.min_copies === 1 ? '1 disk' : `${number(of.min_copies)} disks`;
  const level = alive >= of.expected_nodes ? 'good' : alive >= of.min_copies ? 'warn' : 'bad';
  parts.push(
    level === 'bad' ? 'too few to acknowledge batches' : `every batch is on ${disks} before it is acknowledged`,
  );
  return { level, say: `${parts.join('; ')}.` };
}

const GLYPHS = { good: '●', warn: '▲', bad: '✕', unknown: '○' };

function showHeader() {
  if (!view) return;
  const { level, say } = health(view);
  const line = byId('health');
  set(line, 'data-level', level);
  text(line.firstElementChild, GLYPHS[level]);
  text(byId('health-text'), say);
  text(byId('cluster-name'), view.cluster);
  text(byId('answered-by'), `${view.answered_by} answers`);
  set(document.body, 'data-answered-by', view.answered_by);
  const alive = view.members.filter((member) => member.state === 'alive').length;
  const title = `${view.cluster}: ${alive} of ${view.expected_nodes} alive – Cortado`;
  if (document.title !== title) document.title = title;
}

function showBanner(answered) {
  let say = '';
  if (!answered) {
    const last = lastMs ? ` What is shown is from ${time(lastMs)}.` : '';
    say = `No node answers; trying again.${last}`;
  } else if (isAway()) {
    say = `${homeName()} does not answer; showing what ${view.answered_by} says`;
    backUntil = Date.now() + 5000;
  } else if (Date.now() < backUntil) {
    say = `${homeName()} answers again`;
  }
  text(byId('banner'), say);
  set(document.body, 'data-stale', answered ? null : 'true');
}

async function round() {
  if (running || document.hidden) return;
  running = true;
  clearTimeout(timer);
  const began = performance.now();
  const found = await nodes();
  if (found) {
    view = found;
    lastMs = Date.now();
    soon(showHeader);
    showCluster(view);
  }
  soon(() => showBanner(found !== null));
  if (found) await views[open].round(view);
  running = false;
  // While nobody answers, asking all members each second would only fill the browser's log.
  const pause = found ? ROUND_MS : 3 * ROUND_MS;
  if (!document.hidden) timer = setTimeout(round, Math.max(100, pause - (performance.now() - began)));
}

startTheme();
for (const each of Object.values(views)) each.start();
startTabs((name) => {
  if (name !== open) views[open].leave?.();
  open = name;
  views[open].enter?.();
  round();
});
onBase(() => views[open].moved?.());
document.addEventListener('visibilitychange', () => {
  if (document.hidden) views[open].leave?.();
  else views[open].enter?.();
  round();
});
