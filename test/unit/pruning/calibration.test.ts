import { describe, expect, it } from "vitest";
import { type CalibrationOptions, calibrationSource } from "../../../src/pruning/calibration.js";
import { checkAllowed, checkAllowName, python } from "../../../src/pythonRef.js";

const here = (): void => {};

describe("calibrationSource", () => {
  it("is a loop, Python functions, or batches", () => {
    const [loop, loader, collect] = [python("a:loop"), python("a:loader"), python("a:collect")];
    expect(calibrationSource({})).toBeUndefined();
    expect(calibrationSource({ forwardLoop: here })).toBe(here);
    expect(calibrationSource({ forwardLoop: loop })).toEqual({ forwardLoop: loop });
    expect(calibrationSource({ dataLoader: loader, collectFunc: collect, maxIterDataLoader: 3 })).toEqual({
      dataLoader: loader,
      collectFunc: collect,
      maxBatches: 3,
    });
    expect(calibrationSource({ dataLoader: [[[1]], [[2]]], maxIterDataLoader: 1 })).toMatchObject({ size: 1 });
  });

  it.each<[CalibrationOptions<number[][]>, RegExp]>([
    [{ forwardLoop: here, dataLoader: [] }, /forwardLoop excludes dataLoader/],
    [{ forwardLoop: here, collectFunc: (batch) => batch, maxIterDataLoader: 2 }, /excludes collectFunc and maxIterDataLoader/],
    [{ collectFunc: (batch) => batch }, /^collectFunc without a dataLoader/],
    [{ maxIterDataLoader: 2 }, /^maxIterDataLoader without a dataLoader/],
    [{ collectFunc: (batch) => batch, maxIterDataLoader: 2 }, /^collectFunc and maxIterDataLoader without a dataLoader/],
    [{ dataLoader: python("a:b"), collectFunc: (batch) => batch }, /dataLoader is a Python function and collectFunc is not/],
    [{ dataLoader: [], collectFunc: python("a:b") }, /collectFunc is a Python function and dataLoader is not/],
  ])("refuses %o", (options, message) => {
    expect(() => calibrationSource(options)).toThrow(
      expect.objectContaining({ code: "BAD_OPTION", detail: expect.stringMatching(message) }),
    );
  });
});

describe("python", () => {
  it.each(["calibration", "a b:c", "a:b:c", ":f", "a:", "a..b:c", "../x:y", "a:b()", "1a:b"])("refuses %s", (name) => {
    expect(() => python(name)).toThrow(/names no Python function/);
  });

  it("names what is allowed by itself or by its module, and nothing else", () => {
    const allowed = ["my_project.calibration", "pkg.data:loader"];
    for (const name of ["my_project.calibration:f", "my_project.calibration:C.f", "pkg.data:loader"]) checkAllowed(python(name), allowed);
    for (const name of ["my_project:f", "my_project.calibration.sub:f", "pkg.data:other", "pkg.data:loader.x"])
      expect(() => checkAllowed(python(name), allowed)).toThrow(expect.objectContaining({ code: "PYTHON_DENIED" }));
  });

  it("may lie in an allowed folder, which the shim looks into", () => {
    checkAllowed(python("digits:build"), ["./models"]);
  });

  it("can be allowed by modules, functions and folders", () => {
    checkAllowName("a.b");
    checkAllowName("a.b:c");
    for (const folder of ["/srv/models", "./models", "../models", "."]) checkAllowName(folder);
    expect(() => checkAllowName("a/b")).toThrow(expect.objectContaining({ code: "BAD_OPTION" }));
  });
});
