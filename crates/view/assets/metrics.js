"use strict";
// The curves of the runs in memory, and what each metric means. New lines of a log are asked for from where the last
// ended.
(function (View) {
  /** Metrics of a run that are shown, as many as one answer has: a log in which each line has others has no end. */
  const MOST_METRICS = 2000;

  /** The log of one run as columns; a value that a step lacks is null. */
  View.Log = class {
    constructor(run) {
      this.run = run;
      this.clear();
    }

    clear() {
      this.next = 0;
      this.steps = [];
      this.columns = new Map();
      this.stages = [];
      this.notFinite = new Map();
      this.bad = { count: 0, first: null };
      // Whether there are more metrics than are shown, and why the log cannot be read.
      this.full = false;
      this.problem = null;
    }

    /** Reads what is new; whether there was anything. What cannot be read is said and costs the other runs nothing. */
    async update() {
      let changed = false;
      try {
        for (;;) {
          const part = await View.source.get(`api/runs/${this.run}/metrics`, `from=${this.next}`);
          changed = this.take(part) || changed;
          if (this.problem) changed = true;
          this.problem = null;
          if (!part.more) return changed;
        }
      } catch (problem) {
        changed ||= this.problem !== problem.message;
        this.problem = problem.message;
        return changed;
      }
    }

    take(part) {
      if (part.restart) this.clear();
      this.next = part.next;
      this.bad.count += part.bad.count;
      this.bad.first ??= part.bad.first;
      if (!part.steps.length) return part.restart || part.bad.count > 0;
      // A run that was resumed writes some of its steps again.
      while (this.steps.length && this.steps.at(-1) >= part.steps[0]) this.drop();
      while (this.stages.length && this.stages.at(-1).step >= part.steps[0]) this.stages.pop();
      this.full ||= part.full;
      const before = this.steps.length;
      for (const step of part.steps) this.steps.push(step);
      for (const [name, values] of Object.entries(part.columns)) {
        if (!this.columns.has(name)) {
          if (this.columns.size >= MOST_METRICS) {
            this.full = true;
            continue;
          }
          this.columns.set(name, new Array(before).fill(null));
        }
        const column = this.columns.get(name);
        for (const value of values) column.push(value);
      }
      for (const column of this.columns.values()) {
        while (column.length < this.steps.length) column.push(null);
      }
      for (const [at, stage] of part.stages) {
        if (this.stages.at(-1)?.name !== stage) this.stages.push({ step: part.steps[at], name: stage });
      }
      for (const [name, lines] of Object.entries(part.not_finite)) {
        this.notFinite.set(name, (this.notFinite.get(name) ?? 0) + lines);
      }
      return true;
    }

    drop() {
      this.steps.pop();
      for (const column of this.columns.values()) column.pop();
    }

    /** The last value of a metric, or null. */
    last(name) {
      return this.columns.get(name)?.findLast((value) => value !== null) ?? null;
    }
  };

  /** What is declared about a key: the very name, else the pattern that it fits; null for a foreign one. */
  View.declared = function (key) {
    let pattern = null;
    for (const section of View.sections) {
      for (const metric of section.metrics) {
        if (metric.name === key) return metric;
        const brace = metric.name.indexOf("{");
        if (brace >= 0 && !pattern && key.length > brace && key.startsWith(metric.name.slice(0, brace)))
          pattern = metric;
      }
    }
    return pattern;
  };

  /** The keys of all runs by the sections of the registry: `[{title, note, keys}]`, foreign ones by their prefix. */
  View.groupKeys = function (keys) {
    const places = new Map();
    View.sections.forEach((section, index) => section.metrics.forEach((metric, at) => places.set(metric, [index, at])));
    const found = new Map();
    for (const key of keys) {
      const metric = View.declared(key);
      const place = metric ? places.get(metric) : null;
      const title = place ? View.sections[place[0]].title : `Others: ${key.split("/")[0]}`;
      if (!found.has(title)) {
        const section = place ? View.sections[place[0]] : null;
        found.set(title, { title, note: section?.note ?? "", order: place ? place[0] : 1e6, keys: [] });
      }
      found.get(title).keys.push({ key, at: place ? place[1] : 0 });
    }
    const sections = [...found.values()].sort((a, b) => a.order - b.order || a.title.localeCompare(b.title));
    for (const section of sections) {
      section.keys.sort((a, b) => a.at - b.at || a.key.localeCompare(b.key, "en", { numeric: true }));
      section.keys = section.keys.map((entry) => entry.key);
    }
    return sections;
  };

  /** An exponential mean without the pull to 0 at its start; nulls stay. */
  View.smooth = function (values, weight) {
    if (!weight) return values;
    let mean = 0;
    let total = 0;
    return values.map((value) => {
      if (value === null || value === undefined) return value;
      mean = weight * mean + (1 - weight) * value;
      total = weight * total + (1 - weight);
      return mean / total;
    });
  };
})(window.View);
