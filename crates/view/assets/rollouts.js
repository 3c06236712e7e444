"use strict";
// The part "Rollouts": a step's groups as a list that can be filtered, and the group that is chosen.
(function (View) {
  const FILTERS = [
    ["all", "All", ""],
    ["wrong", "Wrong", "groups with a wrong answer"],
    ["cut", "Cut off", "groups with a response that reached the longest length"],
    ["flat", "Flat group", "groups whose rewards are all equal: they teach nothing"],
    [
      "disagree",
      "Graders disagree",
      "groups with an answer that mathruler, math and multiple choice judge differently",
    ],
    ["tokens", "With tokens", "groups whose tokens and pictures were kept"],
  ];
  const wrong = (response) => typeof response.accuracy === "number" && response.accuracy < 0.5;
  const fits = {
    all: () => true,
    wrong: (group) => group.responses.some(wrong),
    cut: (group) => group.responses.some((response) => response.finish === "length"),
    flat: (group) => group.flat,
    disagree: (group) => group.responses.some((response) => response.disagree),
    tokens: (group) => group.tokens,
  };
  const at = { run: 0, step: null, group: null, filter: "all", text: "" };
  let steps = null;
  let listed = null;
  let parts = null;
  let ticket = 0;

  const isNow = (mine) => mine === ticket && parts !== null;
  const say = (place, problem) => View.fill(place, View.empty(problem.message));

  /** The run keeps the heat of each so many steps; 1 where it does not say. */
  async function heatEvery(run) {
    try {
      const { keys } = await View.source.get(`api/runs/${run}/config`);
      return Number(keys.find(({ key }) => key === "trainer.log_heat_freq")?.value) || 1;
    } catch {
      return 1;
    }
  }

  async function loadSteps() {
    const mine = ++ticket;
    try {
      const found = await View.source.get(`api/runs/${at.run}/steps`);
      if (!isNow(mine)) return;
      steps = found;
    } catch (problem) {
      if (isNow(mine)) say(parts.list, problem);
      return;
    }
    if (!steps.training.includes(at.step)) {
      // The newest step whose tokens and heat were kept shows most.
      const every = await heatEvery(at.run);
      if (!isNow(mine)) return;
      const kept = steps.training.filter((step) => steps.tokens.includes(step));
      at.step = kept.findLast((step) => (step - 1) % every === 0) ?? kept.at(-1) ?? steps.training.at(-1) ?? null;
      at.group = null;
    }
    drawBar();
    await loadList();
  }

  async function loadList() {
    const mine = ++ticket;
    if (at.step === null) {
      View.fill(
        parts.list,
        View.empty(
          "No responses were logged so far.",
          "A run with trainer.log_rollouts = true logs them; supervised stages have none.",
        ),
      );
      View.fill(parts.detail);
      return;
    }
    try {
      const found = await View.source.get(`api/runs/${at.run}/rollouts/${at.step}`);
      if (!isNow(mine)) return;
      listed = found;
      drawList();
    } catch (problem) {
      if (parts !== null) say(parts.list, problem);
    }
  }

  async function loadGroup() {
    const mine = ++ticket;
    View.go(["rollouts", at.run, at.step, at.group], true);
    for (const button of parts.list.querySelectorAll(".entry")) {
      button.setAttribute("aria-current", String(Number(button.dataset.group) === at.group));
    }
    try {
      const answer = await View.source.get(`api/runs/${at.run}/rollouts/${at.step}/${at.group}`);
      if (isNow(mine)) View.fill(parts.detail, View.showGroup(at.run, answer));
    } catch (problem) {
      if (isNow(mine)) say(parts.detail, problem);
    }
  }

  const matching = () =>
    listed.groups
      .map((group, number) => ({ group, number }))
      .filter(
        ({ group }) =>
          fits[at.filter](group) &&
          `${View.text(group.problem)} ${View.text(group.answer)} ${View.text(group.id)} ${View.text(group.task)}`
            .toLowerCase()
            .includes(at.text),
      );

  function drawList() {
    const found = matching();
    if (!found.some(({ number }) => number === at.group)) at.group = found[0]?.number ?? null;
    const all = listed.groups.length + listed.left_out;
    View.fill(
      parts.list,
      View.badLines(`rollouts/step_${at.step}.jsonl`, listed.bad),
      View.badLines(`tokens/step_${at.step}.jsonl`, listed.bad_tokens),
      View.h(
        "p.small",
        {},
        `${found.length} of ${View.count(all, "group")}`,
        listed.left_out > 0 && `, ${listed.left_out} left out of this file`,
      ),
      found.length
        ? found.map(({ group, number }) => entry(group, number))
        : View.empty("No group of this step is like that."),
    );
    if (at.group === null) View.fill(parts.detail);
    else loadGroup();
  }

  function entry(group, number) {
    const marks = group.responses.map((response) => {
      const kind = wrong(response) ? "bad" : response.accuracy === null ? "" : "good";
      return View.h(
        `i.mark${kind ? `.${kind}` : ""}`,
        { title: `reward ${View.number(response.reward)}` },
        kind === "bad" ? "×" : kind === "good" ? "✓" : "",
      );
    });
    const mean = group.responses.reduce((sum, response) => sum + (response.reward ?? 0), 0) / group.responses.length;
    return View.h(
      "button.entry",
      {
        type: "button",
        "data-group": number,
        "aria-current": String(number === at.group),
        onclick: () => {
          at.group = number;
          loadGroup();
        },
      },
      View.h("b", {}, View.text(group.id) || `group ${number + 1}`),
      View.h("span.problem", {}, View.text(group.problem)),
      View.h(
        "span.line",
        {},
        View.h("span.marks", {}, marks),
        View.h("span.small", { title: "mean reward" }, View.number(mean)),
        group.flat && View.badge("flat", "warn"),
        fits.cut(group) && View.badge("cut off", "warn"),
        fits.disagree(group) && View.badge("disagree", "warn"),
        group.tokens && View.badge("tokens", "unit"),
      ),
    );
  }

  /** Goes `by` steps or groups on. */
  function move(what, by) {
    const list = what === "step" ? steps?.training : listed && matching().map(({ number }) => number);
    const place = list?.indexOf(at[what]) ?? -1;
    const next = list?.[place + by];
    if (place < 0 || next === undefined) return;
    at[what] = next;
    if (what === "step") {
      drawBar();
      loadList();
    } else {
      loadGroup();
      parts.list.querySelector(`[data-group="${next}"]`)?.scrollIntoView({ block: "nearest" });
    }
  }

  function drawBar() {
    const runs = View.runs.map((run, index) => [index, run.name]);
    const named = steps.training.map((step) => [step, `${step}${steps.tokens.includes(step) ? " with tokens" : ""}`]);
    const text = View.h("input", {
      type: "search",
      placeholder: "Find a question",
      "aria-label": "Find a question",
      value: at.text,
      oninput: () => {
        at.text = text.value.toLowerCase();
        if (listed) drawList();
      },
    });
    View.fill(
      parts.bar,
      runs.length > 1 &&
        View.select("Run", runs, at.run, (run) => {
          Object.assign(at, { run: Number(run), group: null });
          loadSteps();
        }),
      View.h(
        "span.field",
        {},
        View.h(
          "button.icon",
          { type: "button", title: "Step before ([)", "aria-label": "Step before", onclick: () => move("step", -1) },
          "‹",
        ),
        View.select("Step", named, at.step, (step) => {
          at.step = Number(step);
          loadList();
        }),
        View.h(
          "button.icon",
          { type: "button", title: "Step after (])", "aria-label": "Step after", onclick: () => move("step", 1) },
          "›",
        ),
      ),
      View.chips("Which groups", FILTERS, at.filter, (filter) => {
        at.filter = filter;
        if (listed) drawList();
      }),
      text,
    );
  }

  const KEYS = { "[": ["step", -1], "]": ["step", 1], k: ["group", -1], j: ["group", 1] };

  function key(event) {
    if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in KEYS) move(...KEYS[event.key]);
  }

  View.rollouts = {
    title: "Rollouts",
    show(main, [run, step, group]) {
      if (View.runs[Number(run)]) at.run = Number(run);
      if (step !== undefined) at.step = Number(step);
      if (group !== undefined) at.group = Number(group);
      parts = {
        bar: View.h("div.toolbar"),
        list: View.h("div.list", { "aria-label": "Groups" }),
        detail: View.h("div.detail"),
      };
      View.fill(main, parts.bar, View.h("div.split", {}, parts.list, parts.detail));
      document.addEventListener("keydown", key);
      loadSteps();
    },
    /** New steps have come: they can be chosen, what is shown stays. */
    async update() {
      if (!parts || !steps) return;
      try {
        const found = await View.source.get(`api/runs/${at.run}/steps`);
        // The tokens of a step are written behind its responses, and older ones are thinned out.
        if (!parts || JSON.stringify(found) === JSON.stringify(steps)) return;
        const first = steps.training.length === 0;
        steps = found;
        if (first) loadSteps();
        else drawBar();
      } catch {
        // The head of the page says that the server is away.
      }
    },
    hide() {
      document.removeEventListener("keydown", key);
      parts = null;
    },
  };
})(window.View);
