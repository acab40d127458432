// Numbers, sizes and times in the reader's own format. The formatters are made once: they are slow to make.

const whole = new Intl.NumberFormat(undefined, { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const short = new Intl.NumberFormat(undefined, { notation: 'compact', maximumFractionDigits: 1 });
const percents = new Intl.NumberFormat(undefined, { style: 'percent', minimumFractionDigits: 1, maximumFractionDigits: 1 });
const tiny = new Intl.NumberFormat(undefined, { notation: 'scientific', maximumFractionDigits: 1 });
const digits = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 2 });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' });
const exact = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 1,
});
const dated = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium' });

export const number = (value) => (Number.isFinite(value) ? whole.format(value) : '–');
export const compact = (value) => (Number.isFinite(value) ? short.format(value) : '–');
export const decimal = (value) => (Number.isFinite(value) ? tenth.format(value) : '–');
export const percent = (value) => (Number.isFinite(value) ? percents.format(value) : '–');

export function probability(value) {
  if (!Number.isFinite(value)) return '–';
  if (value < 1e-300) return `< ${tiny.format(1e-300)}`;
  return value < 0.001 ? tiny.format(value) : digits.format(value);
}

const SIZES = ['B', 'kB', 'MB', 'GB', 'TB'];

export function bytes(value) {
  if (!Number.isFinite(value)) return '–';
  let size = value;
  let at = 0;
  while (size >= 1000 && at < SIZES.length - 1) {
    size /= 1000;
    at += 1;
  }
  return `${at === 0 ? whole.format(size) : tenth.format(size)} ${SIZES[at]}`;
}

export const millis = (value) => (typeof value === 'number' ? value : Date.parse(value));

const shown = (format, value) => {
  const ms = millis(value);
  return Number.isFinite(ms) ? format.format(ms) : '–';
};

export const time = (value) => shown(clock, value);
export const exactTime = (value) => shown(exact, value);
export const dateTime = (value) => shown(dated, value);

/** A duration in its largest sensible unit. */
export function duration(ms) {
  if (!Number.isFinite(ms)) return '–';
  const seconds = Math.abs(ms) / 1000;
  const sign = ms < 0 ? '−' : '';
  if (seconds < 60) return `${sign}${tenth.format(seconds)} s`;
  if (seconds < 3600) return `${sign}${tenth.format(seconds / 60)} min`;
  if (seconds < 172800) return `${sign}${tenth.format(seconds / 3600)} h`;
  return `${sign}${tenth.format(seconds / 86400)} days`;
}

/** "1 node", "2 nodes". */
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

/** "a, b and c", shortened when there are many. */
export function list(names, most = 6) {
  const first = names.slice(0, most);
  if (names.length > most) return `${first.join(', ')} and ${number(names.length - most)} more`;
  return first.length < 2 ? first.join('') : `${first.slice(0, -1).join(', ')} and ${first.at(-1)}`;
}
