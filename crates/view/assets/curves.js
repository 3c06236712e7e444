"use strict";
// The part "Curves": every metric of the runs, by the sections of the registry, with search, smoothing and scale.
(function (View) {
  // What is looked at first, in this order; those that the runs have are drawn once more at the top.
  const GLANCE = [
    "reward",
    "accuracy",
    "val/accuracy",
    "response_length/mean",
    "actor/loss",
    "sft/loss",
    "actor/entropy",
    "actor/kl",
    "actor/grad_norm",
    "visual_focus/mean",
  ];
  const settings = { smooth: 0.6, log: false, hidden: new Set() };
  let charts = [];
  let built = "";
  let root = null;
  let body = null;

  const keys = () => {
    const all = new Set();
    for (const log of View.logs) for (const key of log.columns.keys()) all.add(key);
    return [...all];
  };

  const touch = () => charts.forEach((chart) => chart.touch());

  function section(title, note, names, open) {
    const grid = View.h("div.grid");
    for (const key of names) {
      const chart = new View.Chart(key, settings);
      charts.push(chart);
      grid.append(chart.node);
    }
    const count = View.h("span.count", {}, String(names.length));
    const details = View.h(
      "details.section",
      { open },
      View.h("summary", {}, View.h("h2", {}, title), count),
      note && View.h("p.about", {}, note.replaceAll("`", "")),
      grid,
    );
    details.names = names;
    return details;
  }

  /** Builds the sections where the runs have other metrics than before. */
  function build() {
    const all = keys();
    if (built === all.join("\n") && body.childElementCount) return;
    built = all.join("\n");
    charts.forEach((chart) => chart.forget());
    charts = [];
    if (!all.length) {
      View.fill(
        body,
        View.empty(
          "No step has been measured yet.",
          View.source.isFile ? "" : "The page looks again every two seconds.",
        ),
      );
      return;
    }
    const glance = GLANCE.filter((key) => all.includes(key)).slice(0, 6);
    View.fill(
      body,
      glance.length ? section("At a glance", "", glance, true) : null,
      View.groupKeys(all).map((group) => section(group.title, group.note, group.keys, true)),
    );
    search(root.querySelector("input[type=search]").value);
  }

  /** Shows the charts whose name or meaning has all the words. */
  function search(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    for (const details of body.querySelectorAll("details.section")) {
      let shown = 0;
      for (const card of details.querySelectorAll(".card")) {
        const key = card.dataset.key;
        const about = `${key} ${View.declared(key)?.meaning ?? ""}`.toLowerCase();
        const fits = words.every((word) => about.includes(word));
        card.hidden = !fits;
        shown += fits ? 1 : 0;
      }
      details.hidden = shown === 0;
      details.querySelector(".count").textContent = String(shown);
    }
  }

  function runToggles() {
    return View.h(
      "div.runs",
      { role: "group", "aria-label": "Runs" },
      View.runs.map((run, index) => {
        const dot = View.h("i.dot");
        dot.style.backgroundColor = View.runColor(index);
        const box = View.h("input", {
          type: "checkbox",
          checked: !settings.hidden.has(index),
          onchange: () => {
            if (box.checked) settings.hidden.delete(index);
            else settings.hidden.add(index);
            touch();
          },
        });
        return View.h("label.run", { title: run.folder }, View.runs.length > 1 && box, dot, run.name);
      }),
    );
  }

  function toolbar() {
    const find = View.h("input", {
      type: "search",
      placeholder: "Find a metric or what it means",
      "aria-label": "Find a metric",
      oninput: () => search(find.value),
    });
    const shown = View.h("output", {}, String(settings.smooth));
    const smooth = View.h("input", {
      type: "range",
      min: 0,
      max: 0.99,
      step: 0.01,
      value: settings.smooth,
      oninput: () => {
        settings.smooth = Number(smooth.value);
        shown.textContent = smooth.value;
        touch();
      },
    });
    const log = View.h("input", {
      type: "checkbox",
      checked: settings.log,
      onchange: () => {
        settings.log = log.checked;
        touch();
      },
    });
    const all = (open) => body.querySelectorAll("details.section").forEach((details) => (details.open = open));
    return View.h(
      "div.toolbar",
      {},
      find,
      View.h("label.field", {}, View.h("span", {}, "Smoothing"), smooth, shown),
      View.h("label.field", {}, log, View.h("span", {}, "Log scale")),
      View.h("button.plain", { type: "button", onclick: () => all(true) }, "Open all"),
      View.h("button.plain", { type: "button", onclick: () => all(false) }, "Close all"),
      runToggles(),
    );
  }

  function stages() {
    const some = View.logs.map((log, index) => ({ log, index })).filter(({ log }) => log.stages.length > 1);
    return some.map(({ log, index }) =>
      View.h(
        "p.stages",
        {},
        View.runs.length > 1 && `${View.runs[index].name}: `,
        log.stages.map((stage, at) => [at > 0 && " → ", View.h("b", {}, stage.name), ` from step ${stage.step}`]),
      ),
    );
  }

  View.curves = {
    title: "Curves",
    show(main) {
      body = View.h("div");
      const about = View.h("div.about-stages");
      root = View.h("div", {}, toolbar(), about, body);
      root.about = about;
      View.fill(main, root);
      built = "";
      this.update();
    },
    /** New steps have come. */
    update() {
      View.fill(
        root.about,
        View.logs.map((log, run) => [
          View.badLines(`${View.runs[run].name}, metrics.jsonl`, log.bad),
          log.problem && View.h("p.warning", {}, `${View.runs[run].name}: its curves cannot be shown: ${log.problem}`),
          log.full &&
            View.h("p.warning", {}, `${View.runs[run].name}: there are more than 2,000 metrics; the first are shown.`),
        ]),
        stages(),
      );
      build();
      touch();
    },
    hide() {
      charts.forEach((chart) => chart.forget());
      charts = [];
    },
    resize: () => charts.forEach((chart) => chart.resize()),
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", touch);
})(window.View);
