// The three views. Which one is open stands in the address, so that a reload and a link keep it.

import { byId, hide, set } from './dom.js';

const VIEWS = ['cluster', 'jobs', 'events'];

/** The view of the address, and what stands behind it: a job or a stream. */
export function place() {
  const [view, ...rest] = location.hash.slice(1).split('/');
  let what = rest.join('/');
  try {
    what = decodeURIComponent(what);
  } catch {
    what = '';
  }
  return VIEWS.includes(view) ? { view, what } : { view: 'cluster', what: '' };
}

/** Changes the address without a new entry in the history for each click. */
export function goTo(view, what = '') {
  const hash = what ? `#${view}/${encodeURIComponent(what)}` : `#${view}`;
  if (location.hash !== hash) history.replaceState(null, '', hash);
}

export function startTabs(opened) {
  const tabs = VIEWS.map((view) => byId(`tab-${view}`));
  const open = (view) => {
    VIEWS.forEach((name, at) => {
      const chosen = name === view;
      set(tabs[at], 'aria-selected', chosen ? 'true' : 'false');
      set(tabs[at], 'tabindex', chosen ? null : '-1');
      // Not the name alone: the browser would scroll to it, past the head of the page.
      hide(byId(`view-${name}`), !chosen);
    });
    opened(view);
  };
  tabs.forEach((tab, at) => {
    tab.addEventListener('click', () => {
      goTo(VIEWS[at]);
      open(VIEWS[at]);
    });
    tab.addEventListener('keydown', (event) => {
      const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -at, End: tabs.length - 1 - at };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const next = (at + steps[event.key] + tabs.length) % tabs.length;
      goTo(VIEWS[next]);
      open(VIEWS[next]);
      tabs[next].focus();
    });
  });
  addEventListener('hashchange', () => {
    if (location.hash !== '#main') open(place().view);
  });
  open(place().view);
}
