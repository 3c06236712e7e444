"use strict";
// Where the data comes from: the server that showed the page, or the page itself where it is a file.
(function (View) {
  const held = new Map();
  for (const node of document.querySelectorAll("script[data-path]")) held.set(node.dataset.path, node);
  const urls = new Map();

  View.source = {
    /** Whether this page is a file that holds its data. */
    isFile: held.size > 0,

    /** The answer at a path; an error has the server's reason. */
    async get(path, query) {
      if (this.isFile) {
        const node = held.get(path);
        if (!node) throw new Error("it was left out of this file");
        return JSON.parse(node.textContent);
      }
      let answer;
      try {
        answer = await fetch(query ? `${path}?${query}` : path);
      } catch (problem) {
        throw new Error(`the program view does not answer (${problem.message})`);
      }
      if (!answer.ok) throw new Error(await answer.text());
      return answer.json();
    },

    /** The address of a picture, named as in a run (`pictures/NAME.png`); null where there can be none. */
    picture(run, name) {
      const plain = /^pictures\/([A-Za-z0-9_-][A-Za-z0-9._-]*\.png)$/.exec(name);
      if (!plain) return null;
      const path = `api/runs/${run}/pictures/${plain[1]}`;
      if (!this.isFile) return path;
      if (!held.has(path)) return null;
      if (!urls.has(path)) urls.set(path, `data:image/png;base64,${JSON.parse(held.get(path).textContent)}`);
      return urls.get(path);
    },
  };
})(window.View);
