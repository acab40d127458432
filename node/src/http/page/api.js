// Asks the cluster. Knows which node is asked, and goes on with another one when it does not answer.

const TIMEOUT_MS = 1500;
const RETURN_MS = 10_000;
const KEPT = 'cortado-members';

const home = location.origin;
let base = home;
let failures = 0;
let triedHome = 0;
/** Members by id: the address of their pages, and whether they were alive. */
let members = new Map();
/** Origins that the page's policy allows: those of its first answer. Others would be refused. */
let allowed = null;
const names = new Map();
const answers = new Map();
const listeners = [];

try {
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? 'null');
  if (Array.isArray(kept)) members = new Map(kept.map(([id, origin]) => [id, { origin, alive: true }]));
} catch {
  // Without storage the page learns the addresses again.
}

addEventListener('securitypolicyviolation', (event) => {
  allowed?.delete(new URL(event.blockedURI, location.href).origin);
});

export const baseUrl = (path) => (base === home ? path : base + path);
export const isAway = () => base !== home;
export const nameOf = (origin) => names.get(origin) ?? null;
export const homeName = () => names.get(home) ?? 'the node of this page';

/** Calls `listener` when another node is asked from now on. */
export const onBase = (listener) => listeners.push(listener);

async function fetched(origin, path, accept, signal) {
  const url = origin === home ? path : origin + path;
  const limit = AbortSignal.timeout(path.includes('/results/') || path.endsWith('/rejects') ? 10_000 : TIMEOUT_MS);
  const either = signal && AbortSignal.any ? AbortSignal.any([signal, limit]) : limit;
  const answer = await fetch(url, { headers: { Accept: accept }, cache: 'no-cache', signal: either });
  const body = await answer.text();
  if (answer.ok) return body;
  let why = `${answer.status} ${answer.statusText}`;
  try {
    why = JSON.parse(body).error ?? why;
  } catch {
    // The answer was not the node's own.
  }
  throw Object.assign(new Error(why), { status: answer.status });
}

/** The JSON of a path. While the answer is the same text, it is the same object. */
async function json(origin, path) {
  const body = await fetched(origin, path, 'application/json');
  const known = answers.get(path);
  if (known && known.body === body) return known.value;
  const value = JSON.parse(body);
  if (answers.size > 60) answers.clear();
  answers.set(path, { body, value });
  return value;
}

export const ask = (path) => json(base, path);

/** The rows of an answer in NDJSON. */
export async function rows(path) {
  const body = await fetched(base, path, 'application/x-ndjson');
  return body.split('\n').filter((line) => line.trim()).map((line) => JSON.parse(line));
}

/** What a member says itself, whichever node is asked otherwise. */
export async function askMember(origin, path) {
  return JSON.parse(await fetched(origin, path, 'application/json'));
}

/** Where a member's own log can be read, or null if the page may not ask there. */
export function originOf(member) {
  if (names.get(home) === member.id) return home;
  if (!member.http_addr || location.protocol !== 'http:') return null;
  const origin = `http://${member.http_addr}`;
  return allowed?.has(origin) ? origin : null;
}

function learn(view, origin) {
  names.set(origin, view.answered_by);
  const addressed = view.members.filter((member) => member.http_addr);
  const now = addressed.map(({ id, http_addr, state }) => [id, { origin: `http://${http_addr}`, alive: state !== 'down' }]);
  members = new Map(now);
  if (!allowed) allowed = new Set(now.map(([, member]) => member.origin));
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(now.map(([id, member]) => [id, member.origin])));
  } catch {
    // The page works without.
  }
}

async function cluster(origin) {
  const view = await json(origin, '/api/v1/nodes');
  learn(view, origin);
  return view;
}

function move(origin) {
  base = origin;
  failures = 0;
  answers.clear();
  listeners.forEach((listener) => listener());
}

/** The first of the other known members that answers, those that were alive first. */
async function elsewhere() {
  const own = names.get(base);
  const known = [...members].filter(([id, { origin }]) => {
    return id !== own && origin !== base && (!allowed || allowed.has(origin));
  });
  known.sort((a, b) => Number(b[1].alive) - Number(a[1].alive));
  const origins = known.map(([, member]) => member.origin);
  if (base !== home) origins.unshift(home);
  for (let at = 0; at < origins.length; at += 4) {
    const some = origins.slice(at, at + 4).map(async (origin) => ({ origin, view: await cluster(origin) }));
    try {
      return await Promise.any(some);
    } catch {
      // None of these; the next ones may.
    }
  }
  return null;
}

/** The cluster, as the asked node or, after two failures, another one sees it. Null if none answers. */
export async function nodes() {
  if (base !== home && Date.now() - triedHome > RETURN_MS) {
    triedHome = Date.now();
    try {
      const view = await cluster(home);
      if (view.formed) {
        move(home);
        return view;
      }
    } catch {
      // It is still away.
    }
  }
  while (failures < 2) {
    try {
      const view = await cluster(base);
      failures = 0;
      return view;
    } catch {
      failures += 1;
      if (failures < 2) await new Promise((wake) => setTimeout(wake, 250));
    }
  }
  const found = await elsewhere();
  if (!found) {
    failures = 1; // One more attempt here each time before the others are asked.
    return null;
  }
  triedHome = Date.now();
  move(found.origin);
  return found.view;
}
