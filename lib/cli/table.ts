/** A table in plain text: the first column to the left, all others to the right. */
export function formatTable(header: string[], rows: string[][]): string {
  const widths = header.map((name, column) => Math.max(name.length, ...rows.map((row) => row[column]!.length)));
  const line = (cells: string[]): string =>
    cells
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)))
      .join('  ')
      .trimEnd();
  return `${[line(header), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n')}\n`;
}

/** Bytes with a decimal unit, as disks and bandwidths are counted. */
export function formatBytes(bytes: number): string {
  const unit = bytes > 0 ? Math.min(Math.floor(Math.log10(bytes) / 3), 4) : 0;
  return `${(bytes / 1000 ** unit).toFixed(unit === 0 ? 0 : 2)} ${['B', 'kB', 'MB', 'GB', 'TB'][unit]}`;
}
