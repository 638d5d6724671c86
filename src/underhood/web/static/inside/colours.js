// Colour scales of the canvas: one for magnitude, one for signed values, light and dark (dark is little in the dark).

const SEQUENTIAL = {
  light: ["#f3f3f0", "#cfe8d2", "#8fd0bd", "#3fa3a5", "#1f6f8b", "#2c2f6b"],
  dark: ["#1c1c20", "#2b3358", "#1f5f6b", "#1f9a8a", "#7bcf63", "#f5e34a"],
};
const DIVERGING = {
  light: ["#8f3a00", "#d9863f", "#f6d7b8", "#f3f3f0", "#bcd9ec", "#4f93c4", "#12406b"],
  dark: ["#ffb070", "#c8722c", "#5e3817", "#1c1c20", "#17405e", "#3784bd", "#8fd0ff"],
};
const STEPS = 255;
const listeners = new Set();
const tables = new Map();

const EVEN = 0.179; // the luminance on which black and white are read equally well (WCAG 2)
const luminance = (rgb) => rgb.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4))
  .reduce((sum, value, channel) => sum + value * [0.2126, 0.7152, 0.0722][channel], 0);
const parsed = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

// A table of colours with the ink that is read on each.
function table(name, stops) {
  if (!tables.has(name)) {
    const corners = stops.map(parsed);
    tables.set(name, Array.from({ length: STEPS + 1 }, (_, index) => {
      const at = (index / STEPS) * (corners.length - 1);
      const left = Math.min(Math.floor(at), corners.length - 2);
      const rgb = corners[left].map((value, channel) => Math.round(value + (at - left) * (corners[left + 1][channel] - value)));
      return { fill: `rgb(${rgb.join(" ")})`, ink: luminance(rgb) > EVEN ? "#000000" : "#ffffff" };
    }));
  }
  return tables.get(name);
}

const entry = (kind, scales, share) => {
  const scheme = isDark() ? "dark" : "light";
  return table(`${kind} ${scheme}`, scales[scheme])[Math.round(STEPS * Math.min(Math.max(share, 0), 1))];
};

// Of a number from 0 to 1.
export const magnitude = (share) => entry("magnitude", SEQUENTIAL, Number.isFinite(share) ? share : 0);
// Of a number from −1 to 1.
export const signed = (share) => entry("signed", DIVERGING, Number.isFinite(share) ? (share + 1) / 2 : 0.5);

// Calls `redraw` whenever light and dark change; the answer ends that.
export function onTheme(redraw) {
  listeners.add(redraw);
  return () => listeners.delete(redraw);
}

const changed = () => listeners.forEach((redraw) => redraw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
new MutationObserver(changed).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
