"use strict";
// The parts "Validation": the same rows answered before and after, and "Set aside": the rows that were not used.
(function (View) {
  const at = { run: 0, before: null, after: null, filter: "all" };
  let parts = null;
  let ticket = 0;

  const right = (row) => (typeof row?.accuracy === "number" ? row.accuracy >= 0.5 : null);
  const KINDS = {
    gained: ["gained", "good"],
    lost: ["lost", "bad"],
    both: ["right twice", "good"],
    neither: ["wrong twice", ""],
    alone: ["only once", "warn"],
  };

  function kind(before, after) {
    if (right(before) === null || right(after) === null) return "alone";
    if (right(before)) return right(after) ? "both" : "lost";
    return right(after) ? "gained" : "neither";
  }

  /** Rows of two steps by their id, or by their text where they have none. */
  function pairs(before, after) {
    const name = (row) => View.text(row.id) + "\n" + View.text(row.problem);
    const rest = new Map(after.rows.map((row) => [name(row), row]));
    const found = before.rows.map((row) => {
      const later = rest.get(name(row));
      rest.delete(name(row));
      return { before: row, after: later };
    });
    for (const row of rest.values()) found.push({ before: undefined, after: row });
    return found.map((pair) => ({ ...pair, kind: kind(pair.before, pair.after) }));
  }

  const answerOf = (row) =>
    View.h(
      "div.answer",
      {},
      row
        ? [
            View.badge(
              right(row) === null ? "not graded" : right(row) ? "right" : "wrong",
              right(row) ? "good" : "bad",
            ),
            View.h("div.response", {}, View.text(row.response)),
          ]
        : View.h("p.small", {}, "not logged after this step"),
    );

  function draw(before, after) {
    const all = pairs(before, after);
    const counts = Object.fromEntries(
      Object.keys(KINDS).map((key) => [key, all.filter((pair) => pair.kind === key).length]),
    );
    const body = View.h("div.pairs");
    const show = () =>
      View.fill(
        body,
        all
          .filter((pair) => at.filter === "all" || pair.kind === at.filter)
          .map((pair) => {
            const row = pair.before ?? pair.after;
            const [text, color] = KINDS[pair.kind];
            return View.h(
              "details.pair",
              {},
              View.h(
                "summary",
                {},
                View.badge(text, color),
                View.h("b", {}, View.text(row.id)),
                " ",
                View.h("span.problem", {}, View.text(row.problem)),
              ),
              View.h("p", {}, "Right answer ", View.h("code.truth", {}, View.text(row.answer))),
              View.h(
                "div.two",
                {},
                View.h("div", {}, View.h("h3", {}, `After step ${at.before}`), answerOf(pair.before)),
                View.h("div", {}, View.h("h3", {}, `After step ${at.after}`), answerOf(pair.after)),
              ),
            );
          }),
      );
    const chips = [
      ["all", `All ${all.length}`],
      ...Object.entries(KINDS).map(([key, [text]]) => [key, `${text} ${counts[key]}`]),
    ];
    View.fill(
      parts.body,
      View.badLines("before", before.bad),
      View.badLines("after", after.bad),
      (before.left_out > 0 || after.left_out > 0) &&
        View.h("p.small", {}, `${before.left_out + after.left_out} rows are left out of this file.`),
      View.chips("Which rows", chips, at.filter, (filter) => {
        at.filter = filter;
        show();
      }),
      body,
    );
    show();
  }

  async function load() {
    const mine = ++ticket;
    const isNow = () => mine === ticket && parts !== null;
    try {
      const { validation } = await View.source.get(`api/runs/${at.run}/steps`);
      if (!isNow()) return;
      if (!validation.length) {
        View.fill(parts.bar, runChoice());
        View.fill(
          parts.body,
          View.empty(
            "No validation answers were logged.",
            "trainer.val_generations_to_log says how many are; data.val_files names the rows.",
          ),
        );
        return;
      }
      if (!validation.includes(at.before)) at.before = validation[0];
      if (!validation.includes(at.after)) at.after = validation.at(-1);
      const options = validation.map((step) => [step, `after step ${step}`]);
      View.fill(
        parts.bar,
        runChoice(),
        View.select("Before", options, at.before, (step) => {
          at.before = Number(step);
          load();
        }),
        View.select("After", options, at.after, (step) => {
          at.after = Number(step);
          load();
        }),
      );
      const [before, after] = await Promise.all(
        [at.before, at.after].map((step) => View.source.get(`api/runs/${at.run}/validation/${step}`)),
      );
      if (isNow()) draw(before, after);
    } catch (problem) {
      if (isNow()) View.fill(parts.body, View.empty(problem.message));
    }
  }

  const runChoice = () =>
    View.runs.length > 1 &&
    View.select(
      "Run",
      View.runs.map((run, index) => [index, run.name]),
      at.run,
      (run) => {
        Object.assign(at, { run: Number(run), before: null, after: null });
        load();
      },
    );

  View.validation = {
    title: "Validation",
    show(main) {
      parts = { bar: View.h("div.toolbar"), body: View.h("div") };
      View.fill(main, parts.bar, parts.body);
      load();
    },
    update() {},
    hide() {
      parts = null;
    },
  };

  View.setAside = {
    title: "Set aside",
    async show(main) {
      const place = View.fill(main, View.h("div")).firstChild;
      for (const [index, run] of View.runs.entries()) {
        const section = View.h("section");
        place.append(section);
        try {
          const found = await View.source.get(`api/runs/${index}/set_aside`);
          View.fill(section, View.h("h2", {}, run.name), setAside(found, View.logs[index].last("data/set_aside")));
        } catch (problem) {
          View.fill(section, View.h("h2", {}, run.name), View.empty(problem.message));
        }
      }
    },
    update() {},
    hide() {},
  };

  const COLUMNS = { step: "Step", file: "File", row: "Row", id: "Id", reason: "Why" };

  function setAside(found, count) {
    const bad = View.badLines("set_aside.jsonl", found?.bad);
    if (!found?.rows.length) {
      if (bad) return bad;
      const some =
        count > 0
          ? `${View.count(count, "row")} were set aside; the run kept no list of them.`
          : "No row was set aside.";
      return View.empty(some);
    }
    const columns = Object.keys(COLUMNS).filter((name) => found.rows.some((row) => row[name] !== undefined));
    const heads = columns.map((name) => View.h("th", { scope: "col" }, COLUMNS[name]));
    const rows = found.rows.map((row) =>
      View.h(
        "tr",
        {},
        columns.map((name) => View.h("td", {}, View.text(row[name]))),
      ),
    );
    return [
      bad,
      found.left_out > 0 && View.h("p.small", {}, `${found.left_out} more are left out of this file.`),
      View.h(
        "div.scroll",
        {},
        View.h("table", {}, View.h("thead", {}, View.h("tr", {}, heads)), View.h("tbody", {}, rows)),
      ),
    ];
  }
})(window.View);
