// Measures the layout faults of the page that is open; see page_layout.py.
() => {
  const faults = [];
  const width = document.documentElement.clientWidth;
  const shown = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest(".visually-hidden, .skip");
  const name = (element) => {
    const classes = typeof element.className === "string" ? element.className : element.className.baseVal;
    const words = element.textContent.trim().replace(/\s+/g, " ").slice(0, 40);
    return `${element.localName}${classes ? "." + classes.trim().replace(/\s+/g, ".") : ""} "${words}"`;
  };
  // The nearest ancestor (or the element itself) that scrolls or cuts what is too wide.
  const clips = (element) => {
    for (let box = element; box && box !== document.body; box = box.parentElement) {
      if (/auto|scroll|hidden|clip/.test(getComputedStyle(box).overflowX)) return box;
    }
    return null;
  };
  for (const element of document.body.querySelectorAll("*")) {
    if (!shown(element)) continue;
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    const clip = element.parentElement && clips(element.parentElement);
    if (!clip && (box.right > width + 1 || box.left < -1)) faults.push(["wider than the window", name(element)]);
    const style = getComputedStyle(element);
    if (element.localName !== "input" && /hidden|clip/.test(style.overflowX) && style.textOverflow !== "ellipsis" && element.scrollWidth > element.clientWidth + 1
      && element.clientWidth) faults.push(["cut off at the side", name(element)]);
    if (/auto|scroll/.test(style.overflowX) && !/auto|scroll/.test(element.style.overflowY) && element.matches(".equation, .scroll, pre")
      && element.scrollHeight > element.clientHeight + 1) faults.push(["cut off at the bottom", name(element)]);
    if (element.localName === "math" && !clip) {
      const holder = element.parentElement.closest("p, li, dd, div, td, h1, h2, h3, article").getBoundingClientRect();
      if (box.right > holder.right + 1.5) faults.push(["wider than its paragraph", name(element)]);
    }
    if (element.matches(".verdict")) {
      const mark = element.querySelector(".mark").getBoundingClientRect();
      const words = document.createRange();
      words.setStart(element, [...element.childNodes].indexOf(element.querySelector(".mark")) + 1);
      words.setEnd(element, element.childNodes.length);
      for (const line of words.getClientRects()) {
        if (line.left < mark.right && line.right > mark.left && line.top < mark.bottom && line.bottom > mark.top) {
          faults.push(["mark on its word", name(element)]);
        }
      }
    }
  }
  // Words on words: the boxes of text, without the room above and below the letters, cut by what scrolls.
  const boxes = [];
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { currentNode: node } = walker;
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest("script, style, math, .canvas, .passage, [data-overlay]") || !shown(parent)) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const clip = clips(parent)?.getBoundingClientRect();
    for (const line of range.getClientRects()) {
      const inner = 0.2 * line.height;
      const box = { left: line.left + 1, right: line.right - 1, top: line.top + inner, bottom: line.bottom - inner, parent };
      if (clip) {
        box.left = Math.max(box.left, clip.left);
        box.right = Math.min(box.right, clip.right);
      }
      if (box.right - box.left > 1) boxes.push(box);
    }
  }
  for (const math of document.querySelectorAll("main math")) {
    if (!shown(math)) continue;
    const line = math.getBoundingClientRect();
    const clip = clips(math.parentElement)?.getBoundingClientRect();
    boxes.push({ left: line.left + 1, right: Math.min(line.right, clip?.right ?? Infinity) - 1, top: line.top + 0.25 * line.height, bottom: line.bottom - 0.25 * line.height, parent: math });
  }
  boxes.sort((one, other) => one.top - other.top);
  boxes.forEach((one, index) => {
    for (let next = index + 1; next < boxes.length && boxes[next].top < one.bottom; next += 1) {
      const other = boxes[next];
      if (other.parent === one.parent || other.left >= one.right || other.right <= one.left) continue;
      faults.push(["words on words", `${name(one.parent)} and ${name(other.parent)}`]);
    }
  });
  return faults;
}
