// Alerts, newest first, each with the numbers that caused it.

import { byId, el, hide, keyed, set, text } from './dom.js';
import { decimal, number, probability, time } from './format.js';

const SHOWN = 100;
/** Fields of every alert; the others name its group, such as region and source. */
const OWN = new Set(['alert_id', 'state', 'window_start', 'window_end', 'count', 'history', 'probability', 'threshold', 'revision', 'cut', 'cursor']);

const groupOf = (alert) => Object.entries(alert).filter(([name, value]) => !OWN.has(name) && typeof value === 'string').map(([, value]) => value).join(', ');

function cause(alert) {
  const { windows, sum } = alert.history ?? {};
  const usual = windows ? `; the ${number(windows)} windows before had ${decimal(sum / windows)} each` : '';
  const chance = Number.isFinite(alert.probability) ? `. Chance of that many: ${probability(alert.probability)} (limit ${probability(alert.threshold)})` : '';
  return `${number(alert.count)} events${usual}${chance}.`;
}

export function showAlerts(feed) {
  const newest = [...feed.alerts.values()].sort((a, b) => (a.window_start < b.window_start ? 1 : -1)).slice(0, SHOWN);
  hide(byId('no-alerts'), newest.length > 0);
  keyed(byId('alerts'), newest, ({ alert_id: id }) => `${feed.stream} ${id}`,
    ({ alert_id: id }) => el('li', { 'data-alert': id },
      el('p', {}, el('span', { class: 'badge' }), ' ', el('strong', {}), ' ', el('span', { class: 'soft' })), el('p', { class: 'cause' })),
    (item, alert) => {
      const [badge, group, when] = item.firstChild.children;
      set(item, 'data-state', alert.state);
      set(badge, 'data-state', alert.state);
      text(badge, alert.state === 'withdrawn' ? '– withdrawn' : '▲ raised');
      text(group, groupOf(alert) || alert.alert_id);
      text(when, `${time(alert.window_start)} – ${time(alert.window_end)}`);
      text(item.lastChild, cause(alert));
    });
}
