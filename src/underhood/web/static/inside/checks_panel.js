// Self-checks: what must hold for anything on the page to be true of the model.

import { h } from "../dom.js";

export const checksPanel = {
  id: "checks",
  title: "Self-checks",
  words: "Made for this model and this prompt; nothing on the page is worth more than they are.",
  needs: ["model"],
  open({ source, subject }) {
    const rows = h("tbody", {});
    const element = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Self-checks" }, h("table", { class: "grid" },
      h("thead", {}, h("tr", {}, ["", "What must hold", "Difference", "Allowed"].map((name) => h("th", { scope: "col" }, name)))), rows));

    async function update(current) {
      const { facts } = await source.view(subject(), "checks");
      if (!current()) return;
      rows.replaceChildren(...facts.checks.map(({ name, difference, limit, holds }) => h("tr", {}, h("td", { class: holds ? "holds" : "fails" }, holds ? "✓ holds" : "✗ fails"),
        h("th", { scope: "row", class: "plain-head" }, name), h("td", { class: "number" }, difference ? difference.toExponential(1) : "0"), h("td", { class: "number" }, limit ? limit.toExponential(0) : "0"))));
    }

    return { element, update };
  },
};
