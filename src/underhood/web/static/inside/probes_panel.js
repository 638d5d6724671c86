// Linear probes: what a linear classifier can read from each layer, beside what tells a real answer from a memorised one.

import { h } from "../dom.js";
import { chance, percent, whole } from "../numbers.js";
import { signed } from "./colours.js";
import { fitting } from "./fitting.js";
import { heatMap } from "./heat.js";
import { lineChart } from "./line.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";

const TASKS = [["previous", "Which token came before?"], ["word", "Does the word end here?"], ["line", "How far is the line's beginning?"]];
const NAMES = ["probe", "control", "untrained", "majority"];

export const probesPanel = {
  id: "probes",
  title: "Linear probes",
  words: "A linear classifier is trained on each layer's residual stream to answer a question about the token, and tested on text that it has not seen. On the control task every token has a random answer, which can only be memorised; the untrained model has the same weights in random order; the majority is the commonest answer. A probe tells about the layer as far as it is above all of them.",
  needs: ["token", "layer", "model", "task"],
  open({ source, subject, overview, redraw }) {
    const { tokens } = overview();
    let view = null;
    const gate = fitting({ source, subject, kind: "probes", redraw });
    const task = () => (TASKS.some(([name]) => name === selected().task) ? selected().task : TASKS[0][0]);
    const choice = h("select", { onchange: (event) => select({ task: event.target.value }) }, TASKS.map(([name, words]) => h("option", { value: name }, words)));
    const chart = lineChart("Accuracy by layer", "layer");
    const rows = () => view.facts.layers.length;
    const indexOf = (row) => rows() - 1 - row;
    const last = () => overview().layers;
    const name = (index) => (view.facts.layers[index] === last() ? "end" : String(view.facts.layers[index]));
    const at = () => view.facts.layers.reduce((best, layer, index) => (layer <= selected().layer ? index : best), 0);
    const says = (row, column) => {
      const [index, label] = [indexOf(row), view.facts.labels[column]];
      const answer = pick(view.arrays.classes, index)[column];
      return { answer: view.facts.classes[answer], share: pick(view.arrays.shares, index)[column], label, right: label === answer };
    };
    const onLayer = (index) => select({ layer: Math.min(view.facts.layers[index], last() - 1) });
    const map = heatMap({
      name: "Answers of the probes by layer and token", rows: 0, columns: tokens.length, width: 44, height: 20, fit: true, widest: 128, most: 420, head: 40, top: 84,
      rowName: (row) => name(indexOf(row)), columnName: (column) => tokens[column].shown,
      paint(row, column) {
        if (!view) return null;
        const { label, right, share } = says(row, column);
        return signed(label === null ? 0 : right ? share : -share);
      },
      text(row, column) {
        const { answer, label, right } = says(row, column);
        return label === null ? "" : `${right ? "" : "✗ "}${answer}`;
      },
      read(row, column) {
        if (!view) return "";
        const { answer, share, label, right } = says(row, column);
        const truth = label === null ? "the question does not apply to this token" : right ? "which is right" : `the answer is ${view.facts.classes[label]}`;
        return `Layer ${name(indexOf(row))}, ${tokens[column].shown}: ${answer} (${chance(share)}); ${truth}`;
      },
      selected: () => ({ row: view ? indexOf(at()) : 0, column: selected().token }),
      onPick: (row, column) => select({ token: column, layer: Math.min(view.facts.layers[indexOf(row)], last() - 1) }),
    });
    const told = h("p", { class: "formula" });
    const shown = h("div", { hidden: true }, chart.element, told, h("h3", { class: "below" }, "What the probes say of this prompt"), h("p", { class: "small soft" }, "Blue is right, orange with ✗ is wrong; the stronger the colour, the surer the probe. Cells without a word: the question does not apply."), map.element);
    const element = h("div", {}, h("label", { class: "field-inline" }, "Question ", choice), gate.element, shown);

    async function update(current) {
      choice.value = task();
      const trained = await gate.ready(current, task());
      if (!current()) return;
      shown.hidden = !trained;
      if (!trained) return;
      const got = await source.view(subject(), "probes", { task: task() });
      if (!current()) return;
      view = got;
      const { facts, arrays } = view;
      const series = [arrays.accuracy, arrays.control, arrays.untrained].map(({ data }) => Array.from(data, (share) => 100 * share));
      series.push(facts.layers.map(() => 100 * facts.majority));
      chart.update(series, { low: 0, high: 100, names: NAMES, name, at: at(), onPick: onLayer,
        read: (index) => `layer ${name(index)}: ${NAMES.map((words, each) => `${words} ${percent(series[each][index] / 100)}`).join(", ")}` });
      told.replaceChildren(`${facts.classes.length} answers: `, ...facts.classes.flatMap((words) => [h("code", { class: "answer" }, words), " "]), `· accuracy in %, on three in ten of ${whole(facts.labelled)} tokens.`);
      map.update({ rows: rows() });
    }

    return { element, update };
  },
};
