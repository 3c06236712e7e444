"use strict";
// One chart: a metric of the runs that are shown, over each other, with its meaning and unit. Drawn by uPlot.
(function (View) {
  const HEIGHT = 190;
  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Steps are whole numbers.
  const STEP_TICKS = Array.from({ length: 15 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

  /** From where to where the values are drawn: a constant lies in the middle, at a scale of its own size. */
  const valueRange = (_, min, max) => {
    if (min === null || max === null) return [0, 1];
    // The mean of a constant differs from it in the last digits.
    const size = Math.max(Math.abs(min), Math.abs(max));
    if (max - min > 1e-6 * size) return uPlot.rangeNum(min, max, 0.1, true);
    const middle = (min + max) / 2;
    return [middle - (size / 2 || 1), middle + (size / 2 || 1)];
  };
  const logRange = (_, min, max) => {
    if (min === null || max === null) return [0.1, 1];
    const [low, high] = uPlot.rangeLog(min, max, 10, true);
    return low < high ? [low, high] : [low / 10, high * 10];
  };
  // One step alone is between its neighbours: uPlot has widened the ends to their own size.
  const stepRange = (plot, min, max) => {
    const steps = plot.data[0];
    if (min === null || max === null) return [0, 1];
    return steps.length === 1 ? [steps[0] - 1, steps[0] + 1] : [min, max];
  };

  /** Charts are drawn when they come into sight, and drawn anew then where data has come. */
  const sight = new IntersectionObserver(
    (entries) => entries.forEach((entry) => entry.target.chart?.seen(entry.isIntersecting)),
    { rootMargin: "200px" },
  );

  View.Chart = class {
    /** `settings` are those of the curves: `{smooth, log, hidden: Set of runs}`. */
    constructor(key, settings) {
      this.key = key;
      this.settings = settings;
      this.stale = true;
      this.visible = false;
      this.plot = null;
      const metric = View.declared(key);
      this.unit = metric && metric.unit !== "-" ? metric.unit : "";
      this.readout = View.h("div.readout");
      this.note = View.h("span.note");
      this.place = View.h("div.plot");
      const meaning = metric
        ? `${metric.meaning} (${metric.reduction})`
        : "not declared by this program: what a reward, a shaping or a loss of yours writes";
      const wide = View.h(
        "button.icon",
        {
          type: "button",
          title: "Wider or narrower",
          "aria-label": `${key}: wider or narrower`,
          onclick: () => this.widen(),
        },
        "⤢",
      );
      this.node = View.h(
        "article.card",
        { "aria-label": key, "data-key": key },
        View.h("header", {}, View.h("h3", {}, key), this.unit && View.badge(this.unit, "unit"), this.note, wide),
        View.h("p.meaning", { title: meaning }, meaning),
        this.place,
        this.readout,
      );
      this.node.chart = this;
      sight.observe(this.node);
    }

    widen() {
      this.node.classList.toggle("wide");
      this.resize();
    }

    seen(visible) {
      this.visible = visible;
      if (visible && this.stale) this.draw();
    }

    /** Says that data or settings changed. */
    touch() {
      this.stale = true;
      if (this.visible) this.draw();
    }

    resize() {
      if (this.plot && this.place.clientWidth) {
        this.plot.setSize({
          width: this.place.clientWidth,
          height: this.node.classList.contains("wide") ? 340 : HEIGHT,
        });
      }
    }

    forget() {
      sight.unobserve(this.node);
      this.plot?.destroy();
    }

    /** What is drawn: uPlot's data, of which run each line is, and how many values a log scale has no place for. */
    gather() {
      const { smooth, log, hidden } = this.settings;
      const tables = [];
      const lines = [];
      let unplaced = 0;
      View.logs.forEach((run, index) => {
        const whole = run.columns.get(this.key);
        if (!whole || hidden.has(index)) return;
        // A metric of one stage is drawn over the steps of that stage.
        const from = whole.findIndex((value) => value !== null);
        const to = whole.findLastIndex((value) => value !== null) + 1;
        if (from < 0) return;
        const values = whole.slice(from, to);
        const placed = !log
          ? values
          : values.map((value) => (value === null || value > 0 ? value : (unplaced++, null)));
        const sparse = placed.filter((value) => value !== null).length < 40;
        const color = View.runColor(index);
        const table = [run.steps.slice(from, to), placed];
        lines.push({ run: index, raw: true, color, faint: smooth > 0 && !sparse, sparse });
        if (smooth > 0 && !sparse) {
          table.push(View.smooth(placed, smooth));
          lines.push({ run: index, raw: false, color, faint: false, sparse });
        }
        tables.push(table);
      });
      const some = tables.some((table) => table[1].some((value) => value !== null));
      return { data: some ? uPlot.join(tables) : null, lines: some ? lines : [], unplaced };
    }

    draw() {
      this.stale = false;
      const width = this.place.clientWidth;
      if (!width) {
        this.stale = true;
        return;
      }
      const { data, lines, unplaced } = this.gather();
      this.lines = lines;
      const lost = View.logs.reduce((sum, log) => sum + (log.notFinite.get(this.key) ?? 0), 0);
      const notes = [lost && `${View.count(lost, "step")} not finite`, unplaced && `${unplaced} ≤ 0 not drawn`];
      this.note.textContent = notes.filter(Boolean).join(", ");
      const shape = JSON.stringify([lines, this.settings.log, css("--grid")]);
      if (this.plot && shape === this.shape && data) {
        this.plot.setData(data);
      } else {
        this.plot?.destroy();
        this.place.replaceChildren();
        if (!data) this.place.append(View.h("p.none", {}, "No value can be drawn."));
        this.plot = data ? new uPlot(this.options(width), data, this.place) : null;
        this.shape = shape;
      }
      this.node.dataset.points = data ? String(data[0].length) : "0";
      this.read(null);
    }

    options(width) {
      const axis = {
        stroke: css("--muted"),
        grid: { stroke: css("--grid"), width: 1 },
        ticks: { show: false },
        font: "11px system-ui, sans-serif",
      };
      const series = this.lines.map((line) => ({
        stroke: line.faint ? `${line.color}55` : line.color,
        width: line.faint ? 1 : 1.75,
        spanGaps: true,
        points: { show: line.sparse, size: 5, fill: line.color },
      }));
      return {
        width,
        height: this.node.classList.contains("wide") ? 340 : HEIGHT,
        padding: [10, 10, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: "step" }, points: { size: 6 }, y: false },
        scales: {
          x: { time: false, range: stepRange },
          y: { distr: this.settings.log ? 3 : 1, range: this.settings.log ? logRange : valueRange },
        },
        axes: [
          {
            ...axis,
            size: 26,
            incrs: STEP_TICKS,
            space: 60,
            values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : View.number(tick))),
          },
          { ...axis, size: 54, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : View.number(tick))) },
        ],
        series: [{}, ...series],
        hooks: { setCursor: [(plot) => this.read(plot.cursor.idx)] },
      };
    }

    /** The values at a place of the cursor, or the last ones. */
    read(index) {
      const shown = new Map();
      this.lines.forEach((line, at) => {
        if (!line.faint) shown.set(line.run, [line, at + 1]);
      });
      const parts = [...shown.values()].map(([line, at]) => {
        const values = this.plot?.data[at] ?? [];
        const place = index ?? values.findLastIndex((value) => value !== null && value !== undefined);
        const value = place >= 0 ? values[place] : null;
        const dot = View.h("i.dot");
        dot.style.backgroundColor = line.color;
        const name = shown.size > 1 ? View.runs[line.run].name : "";
        return View.h(
          "span",
          { title: View.runs[line.run].name },
          dot,
          View.h("b", {}, View.number(value)),
          name && ` ${name}`,
        );
      });
      const step = index === null || index === undefined ? "last" : `step ${View.number(this.plot?.data[0][index])}`;
      View.fill(this.readout, View.h("span.step", {}, step), parts);
    }
  };
})(window.View);
