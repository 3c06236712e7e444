"use strict";
// What every part of the page uses: elements, numbers as text, small controls. Text of a run becomes text nodes and
// nothing else; there is no way from a string to HTML in this page.
window.View = {};
(function (View) {
  /** An element: `h("p.note", {title: "x"}, "text", node)`. Attributes that are null or false are left out. */
  View.h = function (tag, attributes, ...children) {
    const [name, ...classes] = tag.split(".");
    const node = document.createElement(name);
    if (classes.length) node.className = classes.join(" ");
    for (const [key, value] of Object.entries(attributes ?? {})) {
      if (value === undefined || value === null || value === false) continue;
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (key === "value" || key === "checked") node[key] = value;
      else node.setAttribute(key, value === true ? "" : String(value));
    }
    for (const child of children.flat(Infinity)) {
      if (child !== undefined && child !== null && child !== false) node.append(child);
    }
    return node;
  };

  /** Empties an element and fills it anew. */
  View.fill = function (node, ...children) {
    node.replaceChildren(
      ...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false),
    );
    return node;
  };

  /** A number with the digits that a reader needs; "–" for none. */
  View.number = function (value) {
    if (typeof value !== "number" || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (value === 0) return "0";
    if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en");
    if (size >= 1e5 || size < 1e-3) return value.toExponential(2).replace("e+", "e");
    return String(Number(value.toPrecision(4)));
  };

  /** A text of a JSON value: texts as they are, everything else as JSON. */
  View.text = function (value) {
    if (value === null || value === undefined) return "";
    return typeof value === "string" ? value : JSON.stringify(value);
  };

  /** A count with its noun: "1 group", "3 groups". */
  View.count = function (n, noun) {
    return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
  };

  /** Seconds in words. */
  View.duration = function (seconds) {
    if (seconds < 90) return `${Math.round(seconds)} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
    return `${Math.round(seconds / 86400)} d`;
  };

  /** A labelled choice. `options` are `[value, text]`; `change` gets the value as a text. */
  View.select = function (label, options, value, change) {
    const items = options.map(([key, text]) => View.h("option", { value: key }, text));
    const box = View.h("select", { onchange: () => change(box.value), "aria-label": label }, items);
    box.value = String(value);
    return View.h("label.field", {}, View.h("span", {}, label), box);
  };

  /** Buttons of which one is pressed. */
  View.chips = function (label, options, value, change) {
    const group = View.h("div.chips", { role: "group", "aria-label": label });
    for (const [key, text, title] of options) {
      const press = () => {
        for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
        change(key);
      };
      const button = View.h(
        "button.chip",
        { type: "button", "aria-pressed": String(key === value), title, onclick: press },
        text,
      );
      group.append(button);
    }
    return group;
  };

  /** A small label; `kind` colours it. */
  View.badge = (text, kind, title) => View.h(`span.badge${kind ? `.${kind}` : ""}`, { title }, text);

  /** What stands where there is nothing to show. */
  View.empty = (...lines) =>
    View.h(
      "div.empty",
      {},
      lines.map((line) => View.h("p", {}, line)),
    );

  /** What is wrong with a file of the run, where lines of it were bad. */
  View.badLines = function (file, bad) {
    if (!bad?.count) return null;
    return View.h(
      "p.warning",
      {},
      `${file}: ${View.count(bad.count, "line")} cannot be read; the first is ${bad.first}`,
    );
  };
})(window.View);
