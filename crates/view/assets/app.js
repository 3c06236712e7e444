"use strict";
// The whole page: which part is shown, as the address says (`#rollouts/0/12/3`), and what is new while a run goes on.
(function (View) {
  const PARTS = {
    curves: View.curves,
    rollouts: View.rollouts,
    validation: View.validation,
    config: View.settings,
    aside: View.setAside,
    about: View.about,
  };
  const EVERY_MS = 2000;
  let shown = null;
  let noticed = "";

  /** Goes to a part; `quiet` writes the address alone. */
  View.go = function (words, quiet) {
    const hash = `#${words.join("/")}`;
    if (location.hash === hash) return;
    if (quiet) history.replaceState(null, "", hash);
    else location.hash = hash;
  };

  function route() {
    const [name, ...rest] = location.hash.slice(1).split("/");
    // An address may name anything, and every object has a `constructor`.
    const part = Object.hasOwn(PARTS, name) ? PARTS[name] : View.curves;
    shown?.hide();
    shown = part;
    for (const link of document.querySelectorAll("#tabs a")) {
      if (PARTS[link.dataset.part] === part) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.body.dataset.part = name || "curves";
    part.show(document.getElementById("main"), rest);
  }

  /** What the reader should know of the runs before anything else. */
  function notices(answer) {
    const said = JSON.stringify([answer.left_out, answer.runs.map((run) => run.problem)]);
    if (said === noticed) return;
    noticed = said;
    const notes = [];
    if (answer.left_out?.length) {
      notes.push(
        View.h(
          "details.notice",
          {},
          View.h("summary", {}, "This file does not hold everything; the program view shows the run whole."),
          View.h(
            "ul",
            {},
            answer.left_out.map((line) => View.h("li", {}, line)),
          ),
        ),
      );
    }
    for (const run of answer.runs) {
      if (run.problem) notes.push(View.h("p.notice.warning", {}, `${run.name}: ${run.problem}`));
    }
    View.fill(document.getElementById("notices"), notes);
  }

  function state(text, kind) {
    const place = document.getElementById("live");
    place.className = `live ${kind}`;
    place.textContent = text;
  }

  /** How the runs stand, in a few words. */
  function tellState() {
    if (View.source.isFile) return state("a file", "");
    const steps = View.logs.map((log) => View.number(log.steps.at(-1) ?? 0)).join(", ");
    const running = View.runs.filter((run) => run.about?.state === "running");
    // A run that was killed could not say so.
    const silent = running.filter((run) => run.age_s > 600);
    let word = View.text(View.runs[0].about?.state) || "live";
    if (running.length) word = silent.length ? `running, silent for ${View.duration(silent[0].age_s)}` : "running";
    state(`${word} · step ${steps}`, running.length > silent.length ? "on" : "");
  }

  async function look() {
    try {
      const answer = await View.source.get("api/runs");
      View.runs = answer.runs;
      notices(answer);
      const changed = await Promise.all(View.logs.map((log) => log.update()));
      if (changed.some(Boolean)) shown.update();
      else if (shown === View.rollouts) shown.update();
      tellState();
    } catch (problem) {
      state("the program view does not answer", "off");
    }
  }

  function follow() {
    setTimeout(async () => {
      if (!document.hidden) await look();
      follow();
    }, EVERY_MS);
  }

  async function begin() {
    const started = performance.now();
    const answer = await View.source.get("api/runs");
    Object.assign(View, { runs: answer.runs, sections: answer.sections, version: answer.version });
    View.logs = View.runs.map((_, run) => new View.Log(run));
    document.title = `${View.runs.map((run) => run.name).join(", ")} – view`;
    notices(answer);
    View.fill(
      document.getElementById("tabs"),
      Object.entries(PARTS).map(([name, part]) => View.h("a", { href: `#${name}`, "data-part": name }, part.title)),
    );
    await Promise.all(View.logs.map((log) => log.update()));
    route();
    tellState();
    addEventListener("hashchange", route);
    let resized = 0;
    addEventListener("resize", () => {
      cancelAnimationFrame(resized);
      resized = requestAnimationFrame(() => shown.resize?.());
    });
    // What a test waits for, and a reader of the console may like to know.
    requestAnimationFrame(() => (document.body.dataset.ready = String(Math.round(performance.now() - started))));
    if (!View.source.isFile) follow();
  }

  begin().catch((problem) => {
    View.fill(document.getElementById("main"), View.empty("The runs cannot be shown.", problem.message));
    state("failed", "off");
  });
})(window.View);
