import type { PickleMachine } from "./pickle.js";
import type { PickleBytes } from "./pickleBytes.js";
import { MARK, PERSISTENT, PickledObject } from "./pickled.js";

/** What each opcode does that data has need of; pickletools.py documents them all. */
export const STEPS: Readonly<Record<string, (machine: PickleMachine, input: PickleBytes) => void>> = {
  "\x80": (_, input) => input.protocol(),
  "\x95": (_, input) => void input.unsigned(8),
  "(": (machine) => machine.push(MARK),
  N: (machine) => machine.push(null),
  "\x88": (machine) => machine.push(true),
  "\x89": (machine) => machine.push(false),
  K: (machine, input) => machine.push(input.unsigned(1)),
  M: (machine, input) => machine.push(input.unsigned(2)),
  J: (machine, input) => machine.push(input.signed32()),
  "\x8a": (machine, input) => machine.push(input.integer(input.unsigned(1))),
  G: (machine, input) => machine.push(input.float()),
  "\x8c": (machine, input) => machine.push(input.text(input.unsigned(1))),
  X: (machine, input) => machine.push(input.text(input.unsigned(4))),
  C: (machine, input) => machine.push(input.bytes(input.unsigned(1))),
  B: (machine, input) => machine.push(input.bytes(input.unsigned(4))),
  "]": (machine) => machine.push([]),
  ")": (machine) => machine.push([]),
  "}": (machine) => machine.push(new Map()),
  "\x8f": (machine) => machine.push([]),
  a: (machine) => machine.append([machine.pop()]),
  e: (machine) => machine.append(machine.popToMark()),
  "\x90": (machine) => machine.append(machine.popToMark()),
  t: (machine) => machine.push(machine.popToMark()),
  "\x85": (machine) => machine.push(machine.popMany(1)),
  "\x86": (machine) => machine.push(machine.popMany(2)),
  "\x87": (machine) => machine.push(machine.popMany(3)),
  s: (machine) => machine.setItems(machine.popMany(2)),
  u: (machine) => machine.setItems(machine.popToMark()),
  c: (machine, input) => machine.named(input.line(), input.line()),
  "\x93": (machine) => {
    const [module = null, name = null] = machine.popMany(2);
    machine.named(module, name);
  },
  R: (machine) => {
    const [named = null, args = null] = machine.popMany(2);
    machine.made(named, args);
  },
  "\x81": (machine) => {
    const [named = null, args = null] = machine.popMany(2);
    machine.made(named, args);
  },
  b: (machine) => machine.build(),
  Q: (machine) => machine.push(new PickledObject(PERSISTENT, [machine.pop()])),
  q: (machine, input) => machine.memoize(input.unsigned(1)),
  r: (machine, input) => machine.memoize(input.unsigned(4)),
  "\x94": (machine) => machine.memoize(),
  h: (machine, input) => machine.recall(input.unsigned(1)),
  j: (machine, input) => machine.recall(input.unsigned(4)),
};
