// A game of Othello beside what a probe reads in the model that has only seen its moves.

interactive((kit, data) => {
  const SIZE = data.size;
  const CELLS = SIZE * SIZE;
  const turn = kit.slider({ name: "turn", label: "After move", min: 1, max: data.moves.length, step: 1, value: Math.min(9, data.moves.length), words: String });
  const set = kit.readings({ discs: "discs on the board", wrong: "discs that the probe reads wrongly", legal: "legal moves now", named: "of the model's likeliest as many, legal" });
  const drawing = kit.drawing({ height: 330 });
  const DIRECTIONS = [-1, 0, 1].flatMap((down) => [-1, 0, 1].map((right) => [down, right])).filter(([down, right]) => down || right);

  // The discs that a move would turn over: +1 is the first player, −1 the second.
  function flips(board, cell, side) {
    if (board[cell]) return [];
    const [row, column] = [Math.floor(cell / SIZE), cell % SIZE];
    return DIRECTIONS.flatMap(([down, right]) => {
      const line = [];
      for (let step = 1; ; step++) {
        const [r, c] = [row + step * down, column + step * right];
        if (r < 0 || c < 0 || r >= SIZE || c >= SIZE || !board[r * SIZE + c]) return [];
        if (board[r * SIZE + c] === side) return line;
        line.push(r * SIZE + c);
      }
    });
  }
  const moves = (board, side) => board.map((_, cell) => cell).filter((cell) => flips(board, cell, side).length);

  // The board after some moves of the game, and the side that moves next.
  function after(count) {
    const middle = SIZE / 2;
    const board = new Array(CELLS).fill(0);
    board[(middle - 1) * SIZE + middle] = board[middle * SIZE + middle - 1] = 1;
    board[(middle - 1) * SIZE + middle - 1] = board[middle * SIZE + middle] = -1;
    let side = 1;
    for (const cell of data.moves.slice(0, count)) {
      for (const turned of [...flips(board, cell, side), cell]) board[turned] = side;
      side = moves(board, -side).length || !moves(board, side).length ? -side : side;
    }
    return { board, side };
  }

  return () => {
    const { board, side } = after(turn.value);
    const legal = moves(board, side);
    const read = data.read[turn.value - 1].map((state) => [0, side, -side][state]);
    const named = data.ranked[turn.value - 1].slice(0, legal.length);
    const discs = board.map((_, cell) => cell).filter((cell) => board[cell]);
    const wrong = discs.filter((cell) => read[cell] !== board[cell]);
    set("discs", discs.length, String(discs.length));
    set("wrong", wrong.length, String(wrong.length));
    set("legal", legal.length, String(legal.length));
    const right = named.filter((cell) => legal.includes(cell)).length;
    set("named", right, `${right} of ${legal.length}`);
    const width = drawing.clear();
    const edge = Math.min(300, width - 8) / SIZE;
    const hue = (player) => (player === 1 ? 0 : 1);
    for (let cell = 0; cell < CELLS; cell++) {
      const [x, y] = [(cell % SIZE) * edge, 4 + Math.floor(cell / SIZE) * edge];
      const center = { cx: x + edge / 2, cy: y + edge / 2 };
      drawing.add("rect", { class: cell === data.moves[turn.value - 1] ? "box now" : "box", x, y, width: edge, height: edge });
      if (board[cell]) drawing.add("circle", { class: `fill hue-${hue(board[cell])}`, ...center, r: edge * 0.4 });
      if (board[cell] && read[cell] !== board[cell]) {
        drawing.add("path", { class: "axis", "stroke-width": 2.5, d: `M${x + 8} ${y + 8}l${edge - 16} ${edge - 16}m0 ${16 - edge}l${16 - edge} ${edge - 16}` });
      }
      if (legal.includes(cell)) drawing.add("circle", { class: "ink", ...center, r: 3.5 });
      if (named.includes(cell)) drawing.add("circle", { class: "hollow hue-2", "fill-opacity": 0, ...center, r: edge * 0.28 });
    }
    const left = SIZE * edge + 18;
    if (width - left > 190) {
      const lines = ["dot: a legal move", "ring: a move that the model names", "cross: a disc that the probe misreads"];
      lines.forEach((words, row) => drawing.add("text", { x: left, y: 22 + 22 * row }, words));
      drawing.add("text", { x: left, y: 104, class: `hue-text hue-${hue(side)}` }, "this side moves next");
    }
  };
});
