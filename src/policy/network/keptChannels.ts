import { topPositions } from "../rank.js";
import type { ChannelGroup, NetworkAxis } from "./facts.js";

/** The channels that each group keeps, ascending; undefined where it keeps all. */
export type KeptChannels = readonly (readonly number[] | undefined)[];

/** The most important channels of a group, as many of each section; ties to the lower channel. */
export function keepChannels({ channels, sections, importance }: ChannelGroup, count: number): readonly number[] | undefined {
  if (count === channels) return undefined;
  const length = channels / sections;
  return Array.from({ length: sections }, (_, section) => {
    const begin = section * length;
    return topPositions(importance.subarray(begin, begin + length), count / sections).map((channel) => begin + channel);
  }).flat();
}

/** The positions that stay of an axis, ascending; undefined where all do. */
export function keptPositions(axis: NetworkAxis, kept: KeptChannels): number[] | undefined {
  const positions: number[] = [];
  let at = 0;
  for (const part of axis) {
    const all = partLength(part);
    if ("fixed" in part) positions.push(...range(at, all));
    else {
      for (const channel of channelsWithin(part, kept)) positions.push(...range(at + (channel - part.begin) * part.repeat, part.repeat));
    }
    at += all;
  }
  return positions.length === at ? undefined : positions;
}

/** Positions of an axis that stay. */
export function keptLength(axis: NetworkAxis, kept: KeptChannels): number {
  return axis.reduce((sum, part) => {
    if ("fixed" in part) return sum + part.fixed;
    const channels = kept[part.group];
    const count = channels ? lowerBound(channels, part.end) - lowerBound(channels, part.begin) : part.end - part.begin;
    return sum + count * part.repeat;
  }, 0);
}

/** Positions of an axis of the whole network. */
export function axisLength(axis: NetworkAxis): number {
  return axis.reduce((sum, part) => sum + partLength(part), 0);
}

type GroupPart = Exclude<NetworkAxis[number], { fixed: number }>;

function channelsWithin({ group, begin, end }: GroupPart, kept: KeptChannels): readonly number[] {
  const channels = kept[group];
  return channels ? channels.slice(lowerBound(channels, begin), lowerBound(channels, end)) : range(begin, end - begin);
}

function partLength(part: NetworkAxis[number]): number {
  return "fixed" in part ? part.fixed : (part.end - part.begin) * part.repeat;
}

function range(begin: number, length: number): number[] {
  return Array.from({ length }, (_, i) => begin + i);
}

/** How many of ascending numbers are below another. */
function lowerBound(ascending: readonly number[], value: number): number {
  let [low, high] = [0, ascending.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((ascending[middle] ?? 0) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}
