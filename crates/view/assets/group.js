"use strict";
// One group: its picture with the heat of a token over it, the question, and its responses side by side.
(function (View) {
  // Kept while one goes from group to group.
  const chosen = { value: "visual_focus", own: false };

  /** The picture of a prompt with a canvas over it. */
  function picture(run, name, grid, place) {
    const url = View.source.picture(run, name);
    const frame = View.h("figure.picture");
    if (!url) {
      frame.append(
        View.h(
          "p.lost",
          {},
          View.source.isFile ? "This picture was left out of the file." : `${name} is no picture of this run.`,
        ),
      );
      return { frame, canvas: null, cells: grid ? grid[0] * grid[1] : 0 };
    }
    const image = View.h("img", { src: url, alt: `Picture ${place + 1} of the question`, decoding: "async" });
    image.addEventListener("load", () => {
      // What is small is shown large, dot by dot; what is wide keeps its shape.
      image.classList.toggle("small", image.naturalHeight < 120);
      image.classList.toggle("broad", image.naturalWidth > 1.75 * image.naturalHeight);
    });
    image.addEventListener("error", () => frame.replaceChildren(View.h("p.lost", {}, `${name} cannot be read.`)));
    const canvas = View.h("canvas.heat", { "aria-hidden": "true" });
    if (grid) [canvas.height, canvas.width] = grid;
    frame.append(image, grid ? canvas : "");
    return { frame, canvas: grid ? canvas : null, cells: grid ? grid[0] * grid[1] : 0 };
  }

  /** The pictures of a group and the heat over them. */
  class Pictures {
    constructor(run, stream) {
      this.parts = stream.pictures.map((name, place) => picture(run, name, stream.grids[place], place));
      this.node = View.h(
        "div.pictures",
        {},
        this.parts.map((part) => part.frame),
      );
    }

    /** Draws the heat of a response's token; of all its tokens' mean where `index` is null. */
    draw(stream, index, own) {
      const heat = stream?.heat;
      let from = 0;
      for (const part of this.parts) {
        if (part.canvas) part.canvas.dataset.token = heat ? String(index ?? "mean") : "";
        if (part.canvas) this.paint(part, heat, stream, index, from, own);
        from += part.cells;
      }
    }

    paint(part, heat, stream, index, from, own) {
      const context = part.canvas.getContext("2d");
      context.clearRect(0, 0, part.canvas.width, part.canvas.height);
      if (!heat) return;
      const shares = cells(heat, stream.pieces.length, index);
      const [low, high] = own || index === null ? [Math.min(...shares), Math.max(...shares)] : [0, 255];
      const image = context.createImageData(part.canvas.width, part.canvas.height);
      for (let cell = 0; cell < part.cells; cell++) {
        View.heatColor((shares[from + cell] - low) / (high - low || 1), image.data, 4 * cell);
      }
      context.putImageData(image, 0, 0);
    }
  }

  /** A token's numbers over all image tokens; the mean over the response for null. */
  function cells(heat, count, index) {
    if (index !== null) return heat.bytes.subarray(index * heat.cells, (index + 1) * heat.cells);
    const sums = new Float64Array(heat.cells);
    for (let i = 0; i < heat.bytes.length; i++) sums[i % heat.cells] += heat.bytes[i];
    return sums.map((sum) => sum / count);
  }

  /** What the graders say of an answer on which they disagree. */
  function disagreement(found) {
    const says = (right) => (right ? "right" : "wrong");
    const parts = [`mathruler: ${says(found.mathruler)}`, `math: ${says(found.math)}`];
    if (found.choice !== null) parts.push(`multiple choice: ${says(found.choice)}`);
    return `${parts.join(", ")} (${View.text(found.kind).replaceAll("_", " ")})`;
  }

  function head(row, number, disagree) {
    const right = typeof row.accuracy === "number" ? row.accuracy >= 0.5 : null;
    const numbers = Object.entries(row).filter(([key]) => key.startsWith("reward/") || key === "format");
    return View.h(
      "header",
      {},
      View.h(
        "div.line",
        {},
        View.h("b", {}, `#${number + 1}`),
        View.h("span.reward", { title: "reward" }, View.number(row.reward)),
        right !== null && View.badge(right ? "right" : "wrong", right ? "good" : "bad"),
        row.finish === "length" && View.badge("cut off", "warn", "it reached data.max_response_length"),
        disagree && View.badge("graders disagree", "warn", disagreement(disagree)),
      ),
      View.h(
        "div.line.small",
        {},
        View.h("span", {}, View.count(row.tokens ?? 0, "token")),
        typeof row.advantage_mean === "number" && View.h("span", {}, `advantage ${View.number(row.advantage_mean)}`),
        numbers.map(([key, value]) => View.h("span", {}, `${key.replace("reward/", "")} ${View.number(value)}`)),
        View.h("span", {}, "answer ", View.h("code", {}, row.extracted === null ? "none" : View.text(row.extracted))),
      ),
    );
  }

  /** The whole group as an element. `answer` is the server's. */
  View.showGroup = function (run, answer) {
    const rows = answer.responses.map((response) => ({ ...response, stream: View.stream(response.stream) }));
    const first = rows[0].row;
    const withTokens = rows.find((entry) => entry.stream);
    const pictured = rows.find((entry) => entry.stream?.pictures.length);
    const pictures = pictured ? new Pictures(run, pictured.stream) : null;
    const info = View.h("div.token-info", { "aria-live": "polite" });
    const texts = [];
    let pointed = [withTokens?.stream ?? null, null];

    const point = (entry, index) => {
      pointed = [entry.stream, index];
      pictures?.draw(entry.stream, index, chosen.own);
      tell(info, entry, index, rows.indexOf(entry));
    };
    const members = rows.map((entry, number) => {
      let body = View.h("div.response", {}, View.text(entry.row.response));
      if (entry.stream) {
        const text = new View.TokenText(entry.stream, `Response ${number + 1}`, (index) => point(entry, index));
        texts.push(text);
        body = text.node;
      }
      const problems = entry.stream?.problems.map((problem) => View.h("p.warning", {}, problem));
      return View.h(
        "article.member",
        { "aria-label": `Response ${number + 1}` },
        head(entry.row, number, entry.disagree),
        problems,
        body,
      );
    });

    const names = View.valueOrder(new Set(rows.flatMap((entry) => Object.keys(entry.stream?.values ?? {}))));
    const tools =
      withTokens && names.length
        ? colorTools(rows, names, texts, () => pictures?.draw(...pointed, chosen.own), pictures)
        : null;
    if (withTokens) {
      pictures?.draw(...pointed, chosen.own);
      tell(info, null, null, 0);
    } else View.fill(info, "This run kept no tokens of this group (trainer.log_tokens), so the text stands alone.");
    const question = View.h(
      "div.question",
      {},
      View.h("p.problem", {}, View.text(first.problem)),
      View.h("p", {}, "Right answer ", View.h("code.truth", {}, View.text(first.answer))),
      withTokens?.stream.prompt &&
        View.h(
          "details.prompt",
          {},
          View.h("summary", {}, "The whole prompt"),
          View.h("pre", {}, View.text(withTokens.stream.prompt)),
        ),
      tools,
      info,
    );
    return View.h(
      "div.group",
      {},
      View.h(`div.head${withTokens ? ".steady" : ""}`, {}, pictures?.node, question),
      View.h("div.members", {}, members),
    );
  };

  /** What colours the tokens. */
  function colorTools(rows, names, texts, redraw, pictures) {
    const legend = View.h("span");
    const apply = () => {
      const name = names.includes(chosen.value) ? chosen.value : names[0];
      const scale = View.scale(
        name,
        rows.flatMap((entry) => entry.stream?.values[name] ?? []),
      );
      texts.forEach((text) => text.color(name, scale));
      View.fill(legend, View.legend(name, scale));
    };
    const options = names.map((name) => [name, View.valueName(name)]);
    const value = names.includes(chosen.value) ? chosen.value : names[0];
    const select = View.select("Colour by", options, value, (name) => {
      chosen.value = name;
      apply();
    });
    const own = View.h("input", {
      type: "checkbox",
      checked: chosen.own,
      onchange: () => {
        chosen.own = own.checked;
        redraw();
      },
    });
    apply();
    const stretch =
      pictures &&
      View.h(
        "label.field",
        { title: "The weakest and the strongest place of each token have the end colours" },
        own,
        View.h("span", {}, "Stretch heat per token"),
      );
    return View.h("div.tools", {}, select, legend, stretch);
  }

  /** The numbers of a token in words. */
  function tell(info, entry, index, number) {
    if (!entry || index === null) {
      const hint =
        "Point at a token, or focus a response and use the arrow keys: its numbers stand here, and where it looked " +
        "is drawn over the picture. Until then the picture shows the mean of the response.";
      View.fill(info, View.h("span.hint", {}, hint));
      return;
    }
    const { pieces, ids, values, heat } = entry.stream;
    const numbers = View.valueOrder(Object.keys(values)).map((name) =>
      View.h(
        "span.value",
        { title: View.valueMeaning(name) },
        View.h("span", {}, View.valueName(name)),
        View.h("b", {}, View.number(values[name][index])),
      ),
    );
    View.fill(
      info,
      View.h(
        "span.value",
        {},
        View.h("span", {}, `response ${number + 1}, token ${index + 1} of ${pieces.length}`),
        View.h("code", {}, JSON.stringify(pieces[index]).slice(1, -1) || "(part of a character)"),
        View.h("span", {}, `id ${ids[index] ?? "–"}`),
      ),
      numbers,
      heat ? View.heatLegend(heat) : View.h("span.hint", {}, "no heat was kept"),
    );
  }
})(window.View);
