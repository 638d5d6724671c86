// Three numbers of an operation, each as the sum or product that makes it.

import { h } from "../dom.js";
import { decimal } from "../numbers.js";

const number = (value) => decimal(value, Math.abs(value) >= 100 ? 1 : 3);
const bracketed = (value) => (value < 0 ? `(${number(value)})` : number(value));

export function sums(operation, { examples }, tokens, at) {
  return h("ol", { class: "worked", "aria-label": `Three numbers of token ${at} worked out` }, examples.map((example) => h("li", {},
    h("p", { class: "formula" }, h("b", {}, `y[${example.index}]${example.head === undefined ? "" : `, head ${example.head}`} = ${number(example.value)}`)), example.terms ? terms(example, tokens) : words(example))));
}

function terms({ terms: largest, rest, others, bias, sum, tokens: ofTokens }, tokens) {
  const listed = largest.map(({ j, w, x }) => h("span", { class: "term", title: ofTokens ? `weight on ${tokens[j].shown} × its value` : `W[…, ${j}] × x[${j}]` },
    `${number(w)}·${bracketed(x)}`, ofTokens ? h("small", {}, ` ${tokens[j].shown}`) : h("sub", {}, j)));
  return h("p", { class: "formula wrap" }, "= ", listed.map((term, index) => [index ? " + " : "", term]), others > 0 ? ` + ${number(rest)} (${others} more)` : "", bias === null ? "" : ` + ${bracketed(bias)} (bias)`, ` = ${number(sum)}`);
}

function words({ words: named, sum }) {
  return h("p", { class: "formula wrap" }, named.map(([name, value]) => h("span", { class: "term" }, `${name} ${Number.isInteger(value) ? value : number(value)}`)).flatMap((term, index) => (index ? ["  ·  ", term] : [term])),
    sum === undefined ? "" : `  →  ${number(sum)}`);
}
