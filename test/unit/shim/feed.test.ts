import { expect, it } from "vitest";
import { BulkConnection } from "../../../src/shim/bulkConnection.js";
import { Drawing } from "../../../src/shim/drawing.js";
import { socketEndpoint } from "../../../src/shim/endpoint.js";
import { type Ask, sendFeed } from "../../../src/shim/feed.js";
import { TIMEOUTS } from "../../../src/shim/options.js";
import { Token } from "../../../src/shim/token.js";

async function* noBatches(): AsyncGenerator<Ask> {}

it("a feed over a connection that was closed fails as one of which the call was cancelled", async () => {
  const bulk = new BulkConnection(socketEndpoint("/nowhere", new Token("a-token-for-the-tests", "token")), TIMEOUTS);
  bulk.close();
  const feeding = sendFeed(bulk, { id: "feed", asks: noBatches() }, new Drawing({}), new AbortController().signal);
  await expect(feeding).rejects.toMatchObject({ name: "PruneError", code: "CANCELLED" });
});
