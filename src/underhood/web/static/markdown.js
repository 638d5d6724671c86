// Markdown as models write it, turned into elements. Nothing in a text can become markup of its own: every letter goes
// into the page as text, and only http(s) links become links. Line breaks stay where the model put them.

import { copyText, h, iconButton } from "./dom.js";

export function markdown(text) {
  const blocks = [];
  const lines = text.split("\n");
  let at = 0;
  let plain = [];
  const flush = () => {
    while (plain.length && !plain[0].trim()) plain.shift();
    while (plain.length && !plain.at(-1).trim()) plain.pop();
    if (plain.length) blocks.push(h("p", {}, inline(plain.join("\n"))));
    plain = [];
  };
  while (at < lines.length) {
    const line = lines[at];
    const fence = line.match(/^ {0,3}(`{3,}|~{3,})\s*([\w+-]*)\s*$/);
    const heading = line.match(/^(#{1,6})\s+(.+?)\s*#*$/);
    if (fence) {
      flush();
      const end = lines.findIndex((row, index) => index > at && row.trim().startsWith(fence[1]) && !row.trim().replace(/^[`~]+/, ""));
      const stop = end < 0 ? lines.length : end;
      blocks.push(codeBlock(lines.slice(at + 1, stop).join("\n"), fence[2]));
      at = stop + 1;
    } else if (heading) {
      flush();
      blocks.push(h("p", { class: `heading level-${heading[1].length}` }, inline(heading[2])));
      at += 1;
    } else if (/^ {0,3}([-*_])( *\1){2,} *$/.test(line)) {
      flush();
      blocks.push(h("hr", {}));
      at += 1;
    } else if (/^\s*([-*+]|\d{1,9}[.)])\s+\S/.test(line)) {
      flush();
      const [element, next] = list(lines, at);
      blocks.push(element);
      at = next;
    } else if (/^ {0,3}>/.test(line)) {
      flush();
      let stop = at;
      while (stop < lines.length && /^ {0,3}>/.test(lines[stop])) stop += 1;
      blocks.push(h("blockquote", {}, markdown(lines.slice(at, stop).map((row) => row.replace(/^ {0,3}> ?/, "")).join("\n"))));
      at = stop;
    } else if (line.includes("|") && /^\s*\|?\s*:?-{2,}:?\s*(\|\s*:?-{2,}:?\s*)*\|?\s*$/.test(lines[at + 1] ?? "")) {
      flush();
      let stop = at + 2;
      while (stop < lines.length && lines[stop].includes("|")) stop += 1;
      blocks.push(table(lines.slice(at, stop)));
      at = stop;
    } else if (!line.trim()) {
      flush();
      at += 1;
    } else {
      plain.push(line);
      at += 1;
    }
  }
  flush();
  return blocks;
}

function codeBlock(code, language) {
  return h("figure", { class: "code-block" },
    h("figcaption", {}, h("span", {}, language), iconButton("copy", "Copy this code", () => copyText(code))),
    h("pre", { tabindex: "0" }, h("code", {}, code)));
}

function list(lines, begin) {
  const indent = lines[begin].match(/^\s*/)[0].length;
  const ordered = /^\s*\d/.test(lines[begin]);
  const items = [];
  let at = begin;
  while (at < lines.length) {
    const match = lines[at].match(/^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/);
    if (match && match[1].length <= indent + 1 && /\d/.test(match[2]) === ordered) {
      items.push([match[3]]);
    } else if (items.length && (/^\s{2,}\S/.test(lines[at]) || (!lines[at].trim() && /^\s{2,}\S/.test(lines[at + 1] ?? "")))) {
      items.at(-1).push(lines[at].slice(Math.min(indent + 2, lines[at].match(/^\s*/)[0].length)));
    } else {
      break;
    }
    at += 1;
  }
  const start = ordered ? Number.parseInt(lines[begin].trim(), 10) : 1;
  const made = items.map(([first, ...rest]) => h("li", {}, inline(first), rest.length ? markdown(rest.join("\n")) : null));
  return [h(ordered ? "ol" : "ul", { start: start === 1 ? null : start }, made), at];
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const [head, , ...rows] = lines.map(cells);
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" }, h("table", { class: "grid" },
    h("thead", {}, h("tr", {}, head.map((cell) => h("th", { scope: "col" }, inline(cell))))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, inline(cell))))))));
}

// Code, bold, italic and links. An asterisk is emphasis only where it hugs a word, so *args and **kwargs stay theirs.
function inline(text) {
  const nodes = [];
  const pattern = /(`+)([^`](?:.*?[^`])??)\1(?!`)|\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*(?!\w)|(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/gs;
  let last = 0;
  for (const match of text.matchAll(pattern)) {
    nodes.push(text.slice(last, match.index));
    const [whole, , code, bold, italic, label, address] = match;
    if (code !== undefined) nodes.push(h("code", {}, code));
    else if (bold !== undefined) nodes.push(h("strong", {}, inline(bold)));
    else if (italic !== undefined) nodes.push(h("em", {}, inline(italic)));
    else nodes.push(h("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, label));
    last = match.index + whole.length;
  }
  nodes.push(text.slice(last));
  return nodes;
}
