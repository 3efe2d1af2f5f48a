/** Numbers, durations and times are as people read them. */

import assert from "node:assert/strict";
import { test } from "node:test";
import * as format from "../../../airflow_provider_mljobs/ui/static/format.js";

test("a metric reported as NaN is not finite, one that was not reported is unknown", () => {
  assert.deepEqual([0.91, null, undefined].map(format.formatMetric), ["0.91", "not finite", "–"]);
});

test("numbers have four digits, counts all of theirs", () => {
  assert.equal(format.formatNumber(0.912345), "0.9123");
  assert.equal(format.formatNumber(0), "0");
  assert.equal(format.formatNumber(-12.3456), "-12.35");
  assert.equal(format.formatNumber(1234567), "1,234,567");
  assert.equal(format.formatNumber(0.0000123), "1.230e-5");
  assert.equal(format.formatNumber(null), "–");
});

test("numbers on an axis can be told apart", () => {
  const read = [0.94512, 0.94514].map((value) => format.formatTick(value, 0.00002));

  assert.deepEqual(read, ["0.94512", "0.94514"]);
  assert.equal(format.formatTick(0.25, 0.25), "0.25");
  assert.equal(format.formatTick(1200000, 100000), "1,200,000");
});

test("durations have two units at most", () => {
  const read = [0, 59.6, 200, 600, 3720, 90000, 86400, null, -1].map(format.formatDuration);

  assert.deepEqual(read, ["0 s", "1 min", "3 min 20 s", "10 min", "1 h 2 min", "1 d 1 h", "1 d", "–", "–"]);
});

test("sizes are in powers of 1024", () => {
  const read = [0, 0.5, 1023, 1024, 123456, 8e9, null].map(format.formatBytes);

  assert.deepEqual(read, ["0 B", "0.5 B", "1,020 B", "1 KiB", "121 KiB", "7.45 GiB", "–"]);
});

test("measurements have their units", () => {
  assert.equal(format.formatMeasure(1.5, "cores"), "1.5 cores");
  assert.equal(format.formatMeasure(1024, "bytes"), "1 KiB");
  assert.equal(format.formatMeasure(70, "percent"), "70 %");
  assert.equal(format.formatMeasure(3, ""), "3");
});

test("times are in the zone that is chosen", () => {
  const moment = Date.UTC(2026, 10, 21, 20, 0, 5) / 1000;

  assert.equal(format.formatTime(moment, "UTC"), "2026-11-21 20:00:05");
  assert.equal(format.formatTime(moment, "Europe/Zurich"), "2026-11-21 21:00:05");
  assert.equal(format.formatTime(null, "UTC"), "–");
});

test("how long ago something was is in its largest unit", () => {
  const read = [990, 700, -6200, -172000, 1005].map((moment) => format.formatAgo(moment, 1000));

  assert.deepEqual(read, ["just now", "5 minutes ago", "2 hours ago", "2 days ago", "just now"]);
});

test("a difference says up or down, and how much", () => {
  assert.equal(format.formatDifference(0.92, 0.9), "▲ 0.02 (+2.22 %)");
  assert.equal(format.formatDifference(50, 100), "▼ 50 (−50 %)");
  assert.equal(format.formatDifference(1, 0), "▲ 1");
  assert.equal(format.formatDifference(1, 1), "= 0");
  assert.equal(format.formatDifference(1, null), "–");
});

test("progress is rounded down: 100 % is the end", () => {
  assert.equal(format.formatPercent(0.999), "99 %");
  assert.equal(format.formatPercent(1), "100 %");
});
