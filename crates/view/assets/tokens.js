"use strict";
// The tokens of responses: what a run kept of them, checked, and drawn as coloured text.
(function (View) {
  /** What the values of a token are called, and say. */
  const NAMES = {
    visual_focus: ["visual focus", "how close the token's last hidden state is to the picture's"],
    advantage: ["advantage", "what the loss weighs the token with"],
    factor: ["factor", "what the response's advantage is multiplied by here; 1 leaves it"],
    entropy: ["entropy", "of the next-token distribution, nats"],
    log_prob: ["log-prob", "of the token under the policy that sampled it, nats; strong is unlikely"],
    dependency: ["dependency", "how much the prediction changes without the picture"],
    old_log_prob: ["old log-prob", "of the token under the policy before the step, as the loss takes it, nats"],
    ref_log_prob: ["reference log-prob", "of the token under the reference policy, nats"],
    perturbed_log_prob: ["log-prob, perturbed picture", "of the token where the picture is perturbed, nats"],
    masked_log_prob: ["log-prob, masked picture", "of the token where parts of the picture are masked, nats"],
    unperceived_log_prob: ["log-prob, no picture", "of the token where the picture is not perceived, nats"],
    policy_mask: ["learned from", "1 where the token is in the policy's loss, 0 where it is left out"],
  };

  const named = (name) => (Object.hasOwn(NAMES, name) ? NAMES[name] : []);
  View.valueName = (name) => named(name)[0] ?? name;
  View.valueMeaning = (name) => named(name)[1] ?? "";
  View.valueOrder = (names) => [...names].sort((a, b) => order(a) - order(b) || a.localeCompare(b));
  const order = (name) => (Object.hasOwn(NAMES, name) ? Object.keys(NAMES).indexOf(name) : 99);

  /** The heat of each token over each image token; null where there is none, a text where it does not fit. */
  function heat(stream, count) {
    const grids = Array.isArray(stream.grids) ? stream.grids : [];
    const cells = grids.reduce((sum, grid) => sum + grid[0] * grid[1], 0);
    if (!stream.heat || !cells) return null;
    let bytes;
    try {
      bytes = Uint8Array.from(atob(stream.heat.data), (c) => c.charCodeAt(0));
    } catch {
      return "the heat of this response is no base64";
    }
    if (bytes.length !== cells * count)
      return `the heat of this response has ${bytes.length} numbers in the place of ${cells * count}`;
    return { bytes, cells, low: stream.heat.low, high: stream.heat.high };
  }

  /** A response's tokens, checked: `{pieces, ids, values, prompt, pictures, grids, heat, problems}`, or null. */
  View.stream = function (stream) {
    if (!stream || !Array.isArray(stream.pieces)) return null;
    const count = stream.pieces.length;
    const problems = [];
    // A name of a run may be that of something every object has.
    const values = Object.create(null);
    for (const [name, numbers] of Object.entries(stream.values ?? {})) {
      if (Array.isArray(numbers) && numbers.length === count) values[name] = numbers;
      else problems.push(`${name} has ${numbers?.length ?? "no"} values for ${count} tokens`);
    }
    const hot = heat(stream, count);
    if (typeof hot === "string") problems.push(hot);
    return {
      pieces: stream.pieces.map(String),
      ids: stream.ids ?? [],
      values,
      prompt: stream.prompt ?? null,
      pictures: Array.isArray(stream.pictures) ? stream.pictures.map(String) : [],
      grids: stream.grids ?? [],
      heat: hot && typeof hot !== "string" ? hot : null,
      problems,
    };
  };

  /**
   * A response as coloured tokens. `point(index)` is called with the token under the pointer or the keyboard's, null
   * for none. The box takes the arrow keys, Home and End; a click or Enter keeps a token, Escape lets it go.
   */
  View.TokenText = class {
    constructor(stream, label, point) {
      this.stream = stream;
      this.point = point;
      this.kept = null;
      this.current = null;
      this.spans = stream.pieces.map((piece, index) => {
        // A token that ends inside a character has no text of its own.
        const text = piece === "" ? "·" : piece.replaceAll("\n", "↵\n");
        return View.h(`span.token${piece === "" ? ".part" : ""}`, { "data-index": index }, text);
      });
      this.node = View.h(
        "div.response.tokens",
        {
          tabindex: 0,
          role: "group",
          "aria-label": `${label}: ${View.count(this.spans.length, "token")}, arrow keys move over them`,
        },
        this.spans,
      );
      const at = (event) => event.target.closest(".token")?.dataset.index;
      this.node.addEventListener("pointerover", (event) => this.hover(at(event)));
      this.node.addEventListener("pointerleave", () => this.show(this.kept));
      this.node.addEventListener("click", (event) => this.keep(at(event)));
      this.node.addEventListener("keydown", (event) => this.key(event));
    }

    hover(index) {
      if (index !== undefined) this.show(Number(index));
    }

    keep(index) {
      const next = index === undefined ? null : Number(index);
      this.spans[this.kept]?.classList.remove("kept");
      this.kept = next === this.kept ? null : next;
      this.spans[this.kept]?.classList.add("kept");
      this.show(this.kept ?? next);
    }

    show(index) {
      this.spans[this.current]?.classList.remove("current");
      this.current = index;
      this.spans[index]?.classList.add("current");
      this.point(index);
    }

    key(event) {
      const last = this.spans.length - 1;
      const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -last - 1, End: last + 1 };
      if (event.key in moves) {
        const from = this.current ?? (moves[event.key] > 0 ? -1 : last + 1);
        this.show(Math.min(last, Math.max(0, from + moves[event.key])));
        this.spans[this.current]?.scrollIntoView({ block: "nearest" });
      } else if (event.key === "Enter") this.keep(this.current ?? undefined);
      else if (event.key === "Escape") this.keep(undefined);
      else return;
      event.preventDefault();
      event.stopPropagation();
    }

    color(name, scale) {
      const values = this.stream.values[name];
      this.spans.forEach((span, index) => {
        span.style.backgroundColor = values ? View.valueColor(scale, values[index]) : "";
      });
    }
  };

  /** The heat's colours with the cosines that they stand for. */
  View.heatLegend = function (heat) {
    const strip = View.h("span.strip");
    const bytes = new Array(4);
    const stops = Array.from({ length: 9 }, (_, i) => {
      View.heatColor(i / 8, bytes, 0);
      return `rgba(${bytes[0]}, ${bytes[1]}, ${bytes[2]}, ${bytes[3] / 255})`;
    });
    strip.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
    const ends = [heat.low, heat.high].map((end) => View.h("span", {}, View.number(end)));
    const title = "cosine of the token's last hidden state to each image token's";
    return View.h("span.legend", { title }, "cosine", ends[0], strip, ends[1]);
  };

  /** A scale as a strip of colours with its numbers. */
  View.legend = function (name, scale) {
    if (!scale) return View.h("span.legend", {}, View.h("span", {}, "no values"));
    const strip = View.h("span.strip");
    const stops = Array.from({ length: 9 }, (_, i) =>
      View.valueColor(scale, scale.low + ((scale.high - scale.low) * i) / 8),
    );
    strip.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
    return View.h(
      "span.legend",
      { title: View.valueMeaning(name) },
      View.h("span", {}, View.number(scale.low)),
      strip,
      View.h("span", {}, View.number(scale.high)),
    );
  };
})(window.View);
