// How far a job and its tables are.

export const GLYPHS = {
  queued: '◌', uploading: '↑', running: '▶', finishing: '◔', done: '✓', failed: '✕', cancelled: '–',
};

/** How much of a job is done: half of it is the upload, half the stages. */
export function progress(job) {
  if (job.state === 'done') return 1;
  const sent = job.tables.reduce((sum, table) => sum + share(table), 0) / (job.tables.length || 1);
  const total = job.stages.reduce((sum, stage) => sum + stage.total, 0);
  const complete = job.stages.reduce((sum, stage) => sum + stage.complete, 0);
  return total ? sent / 2 + complete / total / 2 : sent / 2;
}

/** The share of a table that has arrived. Headers belong to no batch, so bytes alone never reach all. */
export function share(table) {
  if (table.declared !== null && table.declared === table.batches) return 1;
  return table.total_bytes ? Math.min(0.99, table.bytes / table.total_bytes) : 0;
}
