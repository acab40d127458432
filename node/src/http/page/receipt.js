// The receipt of a job: the sentence, and the numbers of its tables and queries.

import { byId, cells, el, hide, keyed, row, text } from './dom.js';
import { number } from './format.js';

function sentence(job, receipt) {
  if (job.state === 'failed' || job.state === 'cancelled') return 'There is no receipt: the job gave no result.';
  if (job.state !== 'done') return 'There is a receipt when the job is done.';
  if (!receipt) return 'Asking for the receipt.';
  if (receipt.error) return `The receipt can not be read now: ${receipt.error}`;
  return receipt.summary ?? 'The receipt is among the files.';
}

function table(title, heads) {
  const line = el('tr', {}, ...heads.map((head, at) => el('th', { scope: 'col', class: at ? 'n' : null }, head)));
  return el('div', { class: 'scroll across', tabindex: '0', role: 'group', 'aria-label': title },
    el('table', {}, el('caption', {}, title), el('thead', {}, line), el('tbody')));
}

const PARTS = [
  { of: 'tables', name: 'name', title: 'Rows of each table', heads: ['Table', 'In', 'Accepted', 'Rejected'], fields: ['rows_in', 'rows_accepted', 'rows_rejected'] },
  { of: 'queries', name: 'output', title: 'Rows of each query', heads: ['Query', 'In', 'Passed', 'Filtered', 'Rejected'], fields: ['rows_in', 'rows_passed', 'rows_filtered', 'rows_rejected'] },
];

export function showReceipt(job, receipt) {
  text(byId('job-receipt'), sentence(job, receipt));
  const box = byId('receipt-parts');
  const known = job.state === 'done' && receipt && !receipt.error;
  hide(box, !known);
  if (!known) return;
  keyed(box, PARTS.filter(({ of }) => Array.isArray(receipt[of]) && receipt[of].length), ({ of }) => of,
    ({ title, heads }) => table(title, heads),
    (node, part) => {
      keyed(node.querySelector('tbody'), receipt[part.of], (line) => line[part.name],
        () => row(['head', ...part.fields.map(() => 'n')]),
        (tr, line) => cells(tr, [line[part.name], ...part.fields.map((field) => number(line[field]))]));
    });
}
