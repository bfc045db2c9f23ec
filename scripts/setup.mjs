// npm run setup: everything that the tests, the demo and the checks need.
import { setUpNode, setUpPython } from "./lib/setup.mjs";
import { main } from "./lib/tools.mjs";

await main(() => {
  setUpNode();
  setUpPython("dev");
});
