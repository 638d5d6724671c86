// Making elements. Text goes in as text, never as markup; styles go through the object model, which the policy allows.

import { markOf } from "./stages.js";

const SVG = "http://www.w3.org/2000/svg";

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, setting] of Object.entries(value)) element.style.setProperty(key, setting);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (["value", "checked", "selected", "disabled", "indeterminate"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// An HTML element: h("a", { href: "/", class: "quiet", onclick: act }, "text", child, …).
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

// An SVG element.
export function s(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

const ICONS = {
  send: "M3 8h9M8.5 4 12.5 8l-4 4",
  stop: "M4.5 4.5h7v7h-7z",
  again: "M12.5 6.5A5 5 0 1 0 13 9M12.8 3v3.6H9.2",
  edit: "M3 13l.7-2.8L10.600 3.300a1.300 1.300 0 0 1 1.900 0l.2.2a1.300 1.300 0 0 1 0 1.900L5.800 12.300z",
  copy: "M6 6h7v7H6zM10 6V3H3v7h3",
  up: "M3 7.500h2.300V13H3zM5.300 7.800 8 3c1 0 1.600.7 1.400 1.700L9 6.700h3.200c.8 0 1.300.7 1.100 1.500l-.9 3.700c-.2.700-.7 1.100-1.400 1.100H5.300",
  down: "M3 8.500h2.300V3H3zM5.300 8.200 8 13c1 0 1.600-.7 1.400-1.700L9 9.300h3.200c.8 0 1.300-.7 1.100-1.500l-.9-3.700c-.2-.7-.7-1.100-1.400-1.100H5.300",
  tokens: "M2 4h4v3H2zM8 4h6v3H8zM2 9.500h7v3H2zM11 9.500h3v3h-3z",
  close: "M4 4l8 8M12 4l-8 8",
  menu: "M2.500 4.500h11M2.500 8h11M2.500 11.500h11",
  tune: "M2.500 5h6M12 5h1.500M2.500 11H5M8.500 11h5M10.200 3.500v3M6.800 9.500v3",
  plus: "M8 3v10M3 8h10",
  left: "M10 3.500 5.500 8l4.500 4.500",
  right: "M6 3.500 10.500 8 6 12.500",
  differ: "M3 5.500h10M3 10.500h10M10.500 2.500l-5 11",
  down2: "M8 2.500v7.500M4.800 7 8 10.200 11.200 7M3 13.500h10",
};

export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: ICONS[name] }));
}

// A button that is only a picture; its name is read out and shown on hover.
export function iconButton(name, label, act, properties) {
  return h("button", { type: "button", class: "icon-button", title: label, "aria-label": label, onclick: act, ...properties },
    icon(name));
}

// The mark of a stage: colour and shape, with its name beside it.
export function stageName(name, hue) {
  const path = hue === "imported" ? "M6 0 12 6 6 12 0 6Z" : markOf(hue);
  return h("span", { class: `stage-name ${hue}` },
    s("svg", { class: `shape ${hue}`, viewBox: "0 0 12 12", "aria-hidden": "true" }, path ? s("path", { d: path }) : s("circle", { cx: 6, cy: 6, r: 5.25 })), name);
}

// Says something to those who do not see it happen.
export function say(words) {
  document.getElementById("said").textContent = words;
}

export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Over plain HTTP from another machine there is no clipboard to ask for.
    const area = h("textarea", { class: "visually-hidden", value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say("Copied");
}

// Hands a file to the reader.
export function download(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

export function typing(event) {
  const { target } = event;
  return target instanceof HTMLElement && (target.isContentEditable || /^(TEXTAREA|SELECT)$/.test(target.tagName) ||
    (target.tagName === "INPUT" && !/^(checkbox|radio|range|button)$/.test(target.type)));
}

// A modal box with a heading; closed by its button, Escape, or what `build` is given.
export function box(title, build) {
  const close = () => dialog.close();
  const dialog = h("dialog", { class: "box", "aria-labelledby": "box-title", onclose: () => dialog.remove() },
    h("header", {}, h("h2", { id: "box-title" }, title), iconButton("close", "Close", close)));
  dialog.append(...[build(close)].flat());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
