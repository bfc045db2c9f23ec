/** Ascending positions as text that a person can read and diff: [0,1,2,3,7] -> "0-3,7". */
export function formatRanges(positions: readonly number[]): string {
  const parts: string[] = [];
  for (let start = 0; start < positions.length; ) {
    let end = start;
    while (positions[end + 1] === (positions[end] ?? 0) + 1) end += 1;
    parts.push(end === start ? `${positions[start]}` : `${positions[start]}-${positions[end]}`);
    start = end + 1;
  }
  return parts.join(",");
}

const RANGE = /^(\d{1,9})(?:-(\d{1,9}))?$/;

/** A first and a last position. */
export type Range = readonly [number, number];

/** Reads ranges, ascending and apart; undefined where the text is malformed, or names a position of `limit` or beyond. */
export function parseRanges(text: string, limit: number): Range[] | undefined {
  const ranges: Range[] = [];
  for (const part of text.split(",")) {
    const match = RANGE.exec(part);
    if (!match) return undefined;
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    if (last < first || last >= limit || first <= (ranges.at(-1)?.[1] ?? -1)) return undefined;
    ranges.push([first, last]);
  }
  return ranges;
}

/** How many positions ranges name. */
export function countPositions(ranges: readonly Range[]): number {
  return ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0);
}

/** The positions that ranges name, ascending. */
export function positionsOf(ranges: readonly Range[]): number[] {
  const positions: number[] = [];
  for (const [first, last] of ranges) for (let position = first; position <= last; position++) positions.push(position);
  return positions;
}
