// What a window counts, whatever the plan names it: a field with counts, nested by what they are grouped by.

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const hasCounts = (value) => Object.values(value).every((one) => Number.isFinite(one) || (isObject(one) && hasCounts(one)));

/** The name of the field that has the counts. */
export function statsField(row) {
  const fields = Object.entries(row).filter(([, value]) => isObject(value) && hasCounts(value));
  const named = fields.find(([name]) => /stats|by_/.test(name));
  return (named ?? fields[0])?.[0] ?? null;
}

/** The counts of a window as a list: the texts they are grouped by, and the number. */
export function countsOf(row) {
  const field = statsField(row);
  const found = [];
  const walk = (value, texts) => {
    for (const [name, one] of Object.entries(value)) {
      if (isObject(one)) walk(one, [...texts, name]);
      else found.push({ texts: [...texts, name], count: one });
    }
  };
  if (field) walk(row[field], []);
  return found;
}

/** Names for what windows are grouped by: the first is in the field's name, such as `stats_by_region`. */
export function dimensionNames(row) {
  const field = statsField(row);
  const depth = Math.max(1, ...countsOf(row).map(({ texts }) => texts.length));
  const first = /by_(.+)$/.exec(field ?? '')?.[1] ?? 'group';
  if (first === 'region' && depth === 2) return ['region', 'source'];
  return Array.from({ length: depth }, (_, at) => (at ? `group ${at + 1}` : first.replaceAll('_', ' ')));
}

/** The sums by one of the texts. */
export function sumsBy(counts, dimension) {
  const sums = new Map();
  for (const { texts, count } of counts) {
    const name = texts[Math.min(dimension, texts.length - 1)];
    sums.set(name, (sums.get(name) ?? 0) + count);
  }
  return sums;
}

export const totalOf = (row) => row.total ?? countsOf(row).reduce((sum, { count }) => sum + count, 0);
