"use strict";
// Colours: of runs, of token values, of the heat over a picture. All are readable on light and dark.
(function (View) {
  const RUNS = ["#3b82f6", "#f97316", "#10b981", "#a855f7", "#ef4444", "#06b6d4", "#ca8a04", "#ec4899"];

  /** The colour of the run at a place. */
  View.runColor = (run) => RUNS[run % RUNS.length];

  /** A token value's scale: from where to where, and what is its middle (null: none). */
  const CENTERS = { advantage: 0, factor: 1 };

  /** A share of finite numbers, sorted. */
  const quantile = (sorted, share) => sorted[Math.round((sorted.length - 1) * share)];

  /**
   * The scale of a value over all tokens that are shown together, so that equal colours are equal values. The outer
   * hundredths on each side are all of the last colour.
   */
  View.scale = function (name, numbers) {
    const sorted = numbers.filter((number) => Number.isFinite(number)).sort((a, b) => a - b);
    if (!sorted.length) return null;
    let low = quantile(sorted, 0.01);
    let high = quantile(sorted, 0.99);
    const center = CENTERS[name] ?? (low < 0 && high > 0 ? 0 : null);
    if (center !== null) {
      const reach = Math.max(high - center, center - low) || 1;
      return { low: center - reach, high: center + reach, center, strong: 1 };
    }
    if (low === high) [low, high] = [Math.min(low, 0), Math.max(high, 0) || 1];
    // What lies furthest from 0 is strong: the least likely token, the most uncertain one.
    return { low, high, center: null, strong: high <= 0 ? -1 : 1 };
  };

  /** The background of a token with a value; "" for none. */
  View.valueColor = function (scale, value) {
    if (!scale || !Number.isFinite(value)) return "";
    const place = Math.min(1, Math.max(0, (value - scale.low) / (scale.high - scale.low || 1)));
    if (scale.center === null) {
      const strength = scale.strong > 0 ? place : 1 - place;
      return `rgba(13, 148, 136, ${(0.04 + 0.66 * strength).toFixed(3)})`;
    }
    const side = 2 * place - 1;
    const color = side >= 0 ? "37, 99, 235" : "234, 88, 12";
    return `rgba(${color}, ${(0.65 * Math.abs(side)).toFixed(3)})`;
  };

  // Red, green, blue, alpha at equal distances from low to high.
  const HEAT = [
    [70, 20, 140, 0],
    [130, 30, 140, 0.16],
    [225, 60, 70, 0.5],
    [255, 150, 30, 0.62],
    [255, 235, 90, 0.74],
  ];

  /** The heat of a share from 0 to 1, written to four bytes of an image at `at`. */
  View.heatColor = function (share, bytes, at) {
    const place = Math.min(1, Math.max(0, share)) * (HEAT.length - 1);
    const below = Math.min(HEAT.length - 2, Math.floor(place));
    const part = place - below;
    for (let i = 0; i < 4; i++) {
      const value = HEAT[below][i] * (1 - part) + HEAT[below + 1][i] * part;
      bytes[at + i] = Math.round(i === 3 ? value * 255 : value);
    }
  };
})(window.View);
