// How far a job and its tables are.

export const GLYPHS = {
  queued: '◌', uploading: '↑', running: '▶', finishing: '◔', done: '✓', failed: '✕', cancelled: '–',
};

/** How much of what a job does now is done: of its upload by bytes, then of its stages. */
export function progress(job) {
  if (job.state === 'done') return 1;
  const total = job.stages.reduce((sum, stage) => sum + stage.total, 0);
  if (total) return job.stages.reduce((sum, stage) => sum + stage.complete, 0) / total;
  const bytes = job.tables.reduce((sum, table) => sum + table.total_bytes, 0);
  const sent = job.tables.reduce((sum, table) => sum + share(table) * table.total_bytes, 0);
  return bytes ? sent / bytes : 0;
}

/** The share of a table that has arrived. Headers belong to no batch, so bytes alone never reach all. */
export function share(table) {
  if (table.declared !== null && table.declared === table.batches) return 1;
  return table.total_bytes ? Math.min(0.99, table.bytes / table.total_bytes) : 0;
}
