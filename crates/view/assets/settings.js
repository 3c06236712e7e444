"use strict";
// The part "Configuration": a run's keys with their meaning, and where another run has other values. And "About".
(function (View) {
  const at = { run: 0, other: null, only: false, text: "" };
  let parts = null;
  let ticket = 0;

  async function load() {
    const mine = ++ticket;
    try {
      const own = await View.source.get(`api/runs/${at.run}/config`);
      const other = at.other === null ? null : await View.source.get(`api/runs/${at.other}/config`);
      if (mine === ticket && parts) draw(own, other);
    } catch (problem) {
      if (mine === ticket && parts) View.fill(parts.body, View.empty(problem.message));
    }
  }

  /** Keys of one or both, each with both values. */
  function merged(own, other) {
    const keys = new Map(own.keys.map(({ key, value, meaning }) => [key, { key, meaning, own: value, other: null }]));
    for (const { key, value, meaning } of other?.keys ?? []) {
      if (!keys.has(key)) keys.set(key, { key, meaning, own: null, other: null });
      keys.get(key).other = value;
    }
    return [...keys.values()];
  }

  function draw(own, other) {
    const all = merged(own, other);
    const differs = (entry) => other !== null && entry.own !== entry.other;
    const words = at.text.toLowerCase();
    const shown = all.filter(
      (entry) => (!at.only || differs(entry)) && `${entry.key} ${entry.meaning}`.toLowerCase().includes(words),
    );
    const value = (text) =>
      View.h("td", {}, text === null ? View.h("span.small", {}, "not there") : View.h("code", {}, text));
    const rows = shown.map((entry) =>
      View.h(
        `tr${differs(entry) ? ".differs" : ""}`,
        {},
        View.h("th", { scope: "row" }, View.h("code", {}, entry.key)),
        value(entry.own),
        other && value(entry.other),
        View.h("td.meaning", {}, entry.meaning),
      ),
    );
    const heads = ["Key", View.runs[at.run].name, other && View.runs[at.other].name, "Meaning"].filter(Boolean);
    View.fill(
      parts.body,
      [own.problem, other?.problem].filter(Boolean).map((problem) => View.h("p.warning", {}, problem)),
      other && View.h("p.small", {}, View.count(all.filter(differs).length, "difference")),
      shown.length
        ? View.h(
            "div.scroll",
            {},
            View.h(
              "table",
              {},
              View.h(
                "thead",
                {},
                View.h(
                  "tr",
                  {},
                  heads.map((text) => View.h("th", { scope: "col" }, text)),
                ),
              ),
              View.h("tbody", {}, rows),
            ),
          )
        : View.empty(at.only ? "The two runs have the same configuration." : "There is no such key."),
    );
  }

  View.settings = {
    title: "Configuration",
    show(main) {
      parts = { bar: View.h("div.toolbar"), body: View.h("div") };
      const runs = View.runs.map((run, index) => [index, run.name]);
      if (runs.length > 1 && at.other === null) Object.assign(at, { other: 1, only: true });
      const text = View.h("input", {
        type: "search",
        placeholder: "Find a key or what it means",
        "aria-label": "Find a key",
        value: at.text,
        oninput: () => {
          at.text = text.value;
          load();
        },
      });
      const only = View.h("input", {
        type: "checkbox",
        checked: at.only,
        onchange: () => {
          at.only = only.checked;
          load();
        },
      });
      View.fill(
        parts.bar,
        runs.length > 1 && [
          View.select("Run", runs, at.run, (run) => {
            at.run = Number(run);
            load();
          }),
          View.select("Beside", [["", "none"], ...runs], at.other ?? "", (run) => {
            at.other = run === "" ? null : Number(run);
            load();
          }),
          View.h("label.field", {}, only, View.h("span", {}, "Differences only")),
        ],
        text,
      );
      View.fill(main, parts.bar, parts.body);
      load();
    },
    update() {},
    hide() {
      parts = null;
    },
  };

  const LABELS = {
    version: "Version",
    commit: "Commit",
    state: "State",
    reason: "Reason",
    started: "Started",
    ended: "Ended",
    wall_clock_s: "Wall clock",
    steps: "Complete steps",
    starts: "Starts",
    backend: "Backend",
    device: "Device",
    dtype: "Numbers",
    host: "Host",
    pid: "Process",
    command: "Command",
    seed: "Seed",
    init_seed: "Seed of weights",
    data_seed: "Seed of rows",
    ranks: "Ranks",
    algorithm: "Algorithm",
    model: "Model",
  };

  function about(run, log) {
    const known = run.about ?? {};
    const lines = Object.entries(known)
      .filter(([, value]) => value !== null)
      .map(([key, value]) => {
        let text = Array.isArray(value) ? value.map(View.text).join(" ") : View.text(value);
        if (key === "wall_clock_s" && typeof value === "number") text = View.duration(value);
        return [LABELS[key] ?? key, text];
      });
    lines.push(["Folder", run.folder], ["Steps", View.number(log.steps.at(-1) ?? 0)]);
    if (run.age_s !== null) lines.push(["Last measured", `${View.duration(run.age_s)} before this page was made`]);
    return View.h(
      "section.about-run",
      {},
      View.h("h2", {}, run.name),
      run.problem && View.h("p.warning", {}, run.problem),
      known.version &&
        known.version !== View.version &&
        View.h(
          "p.warning",
          {},
          `The run was written by version ${View.text(known.version)}, this page is of ${View.version}: ` +
            "what it does not know is left out.",
        ),
      View.h(
        "dl",
        {},
        lines.map(([key, text]) => [View.h("dt", {}, key), View.h("dd", {}, text)]),
      ),
    );
  }

  View.about = {
    title: "About",
    show(main) {
      View.fill(
        main,
        View.h(
          "div.about-runs",
          {},
          View.runs.map((run, index) => about(run, View.logs[index])),
        ),
        View.h("p.small", {}, `view ${View.version}. Charts are drawn by uPlot (MIT, Leon Sorokin).`),
      );
    },
    update() {},
    hide() {},
  };
})(window.View);
