/** JSON as it is written, not as it is read: an object may have a name twice, and a literal may be any text. */
export type Written =
  | { readonly kind: "object"; readonly fields: [name: string, value: Written][] }
  | { readonly kind: "array"; readonly items: Written[] }
  | { readonly kind: "literal"; readonly text: string };

/** A change to one place of a document. `at` and `from` pick places, `text` is a literal or a name as it is written. */
export interface Edit {
  readonly kind: "replace" | "drop" | "repeat" | "rename" | "nest" | "graft" | "swap";
  readonly at: number;
  readonly from: number;
  readonly text: string;
}

interface Place {
  readonly value: Written;
  readonly put: (value: Written) => void;
  readonly drop: () => void;
  readonly repeat: () => void;
  readonly rename: (name: string) => void;
}

/** How a value is written. */
export function write(value: unknown): Written {
  if (Array.isArray(value)) return { kind: "array", items: value.map(write) };
  if (typeof value !== "object" || value === null) return literal(JSON.stringify(value));
  const fields = Object.entries(value).filter(([, field]) => field !== undefined);
  return { kind: "object", fields: fields.map(([name, field]) => [JSON.stringify(name), write(field)]) };
}

export function print(written: Written): string {
  switch (written.kind) {
    case "literal":
      return written.text;
    case "array":
      return `[${written.items.map(print).join(",")}]`;
    case "object":
      return `{${written.fields.map(([name, value]) => `${name}:${print(value)}`).join(",")}}`;
  }
}

/** Writes a value with changes. */
export function writeEdited(value: unknown, edits: readonly Edit[]): string {
  const root: Written[] = [write(value)];
  for (const edit of edits) {
    const places = placesOf({ kind: "array", items: root });
    const [place, other] = [places[edit.at % places.length], places[edit.from % places.length]];
    if (place && other) apply(edit, place, other);
  }
  return root.map(print).join("");
}

function apply({ kind, text }: Edit, place: Place, other: Place): void {
  if (kind === "replace") place.put(literal(text));
  if (kind === "drop") place.drop();
  if (kind === "repeat") place.repeat();
  if (kind === "rename") place.rename(text);
  if (kind === "nest") place.put({ kind: "array", items: [place.value] });
  if (kind === "graft") place.put(literal(print(other.value)));
  if (kind !== "swap") return;
  const [here, there] = [print(place.value), print(other.value)];
  place.put(literal(there));
  other.put(literal(here));
}

function literal(text: string): Written {
  return { kind: "literal", text };
}

function placesOf(within: Written): Place[] {
  if (within.kind === "literal") return [];
  const { kind } = within;
  if (kind === "array") {
    const { items } = within;
    return items.flatMap((value, i) => [
      {
        value,
        put: (next) => void items.splice(i, 1, next),
        drop: () => void items.splice(i, 1),
        repeat: () => void items.splice(i, 0, value),
        rename: () => {},
      },
      ...placesOf(value),
    ]);
  }
  const { fields } = within;
  return fields.flatMap(([name, value], i) => [
    {
      value,
      put: (next) => void fields.splice(i, 1, [name, next]),
      drop: () => void fields.splice(i, 1),
      repeat: () => void fields.splice(i, 0, [name, value]),
      rename: (next) => void fields.splice(i, 1, [next, value]),
    },
    ...placesOf(value),
  ]);
}
