// A plot that is read by a place on it: the pointer or the arrow keys choose, `show(index)` draws.

function slider(area, x, position, show) {
  area.setAttribute("role", "slider");
  area.setAttribute("aria-valuemin", 1);
  area.setAttribute("aria-valuemax", x.length);
  area.tabIndex = 0;
  show(position());
  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect();
    const pointed = (100 * (event.clientX - box.left)) / box.width;
    let best = 0;
    for (let index = 1; index < x.length; index++) {
      if (Math.abs(x[index] - pointed) < Math.abs(x[best] - pointed)) best = index;
    }
    show(best);
  });
  area.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
    if (event.key in moves) show(position() + moves[event.key]);
    else if (event.key === "Home") show(0);
    else if (event.key === "End") show(x.length - 1);
    else return;
    event.preventDefault();
  });
}
