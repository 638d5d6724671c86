// Numbers as people read them, worded as in report.html.

const MINUS = "\u2212";
const NBSP = "\u00a0";

function scaled(number, units) {
  let value = number;
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1];
  const digits = unit === 0 || Math.abs(value) >= 99.95 ? 0 : Math.abs(value) >= 9.995 ? 1 : 2;
  return grouped(value, digits) + (units[unit] ? NBSP + units[unit] : "");
}

function grouped(number, digits) {
  return number.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export const count = (number) => scaled(number, ["", "k", "M", "B", "T"]);
export const size = (bytes) => scaled(bytes, ["B", "kB", "MB", "GB", "TB"]);
export const whole = (number) => decimal(number, 0);

export function decimal(number, digits = 3) {
  const text = grouped(Math.abs(number), digits);
  return (number < 0 && Number(text.replaceAll(",", "")) !== 0 ? MINUS : "") + text;
}

// A setting of any kind, without the digits that nobody chose.
export function plain(value) {
  return typeof value === "number" && !Number.isInteger(value) ? String(Number(value.toPrecision(5))) : String(value);
}

// A share as a percentage; never rounded to 0 or 100 unless it is exactly that.
export function percent(share, digits = 0) {
  let text = (100 * share).toFixed(digits);
  if (digits === 0 && ((text === "100" && share < 1) || (text === "0" && share > 0))) {
    text = (100 * share).toFixed(1);
    if (text === "100.0" || text === "0.0") text = share > 0.5 ? "> 99.9" : "< 0.1";
  }
  return text + NBSP + "%";
}

// A probability, exact enough to tell 99.9 % from certain and 0.02 % from never.
export function chance(probability) {
  const share = 100 * probability;
  if (share >= 99.95) return `100${NBSP}%`;
  if (share >= 99) return share.toFixed(1) + NBSP + "%";
  if (share >= 10) return share.toFixed(0) + NBSP + "%";
  if (share >= 0.095) return share.toFixed(1) + NBSP + "%";
  return share >= 0.01 ? share.toFixed(2) + NBSP + "%" : `<${NBSP}0.01${NBSP}%`;
}

export function duration(seconds) {
  if (seconds < 9.95) return Number(seconds.toPrecision(2)) + NBSP + "s";
  const rounded = Math.round(seconds);
  const two = (number) => String(number).padStart(2, "0");
  if (rounded < 60) return `${rounded}${NBSP}s`;
  if (rounded < 3600) return `${Math.floor(rounded / 60)}${NBSP}min${NBSP}${two(rounded % 60)}${NBSP}s`;
  const minutes = Math.round(seconds / 60);
  return `${grouped(Math.floor(minutes / 60), 0)}${NBSP}h${NBSP}${two(minutes % 60)}${NBSP}min`;
}

// How long ago, in words that stay true for a while.
export function ago(unixSeconds) {
  const passed = Math.max(0, Date.now() / 1000 - unixSeconds);
  if (passed < 10) return "just now";
  if (passed < 60) return `${10 * Math.floor(passed / 10)} s ago`;
  if (passed < 3600) return `${Math.floor(passed / 60)} min ago`;
  if (passed < 86_400) return `${Math.floor(passed / 3600)} h ago`;
  return new Date(unixSeconds * 1000).toISOString().slice(0, 10);
}

// Round numbers within [low, high], about `about` of them: 1, 2, 2.5 or 5 times a power of ten apart.
export function niceTicks(low, high, about = 5) {
  if (!(Number.isFinite(low) && Number.isFinite(high)) || high <= low) return [low];
  const rough = (high - low) / Math.max(about, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const ticks = [];
  for (let index = Math.ceil(low / step - 1e-9); index <= Math.floor(high / step + 1e-9); index++) {
    ticks.push(Number((index * step).toPrecision(12)));
  }
  return ticks;
}

export function tick(value, step) {
  let digits = step > 0 ? Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) : 0;
  if (step > 0 && Math.abs(step * 10 ** digits - Math.round(step * 10 ** digits)) > 1e-6) digits += 1;
  return decimal(value, digits);
}
