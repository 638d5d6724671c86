"""SIMD intrinsics in LLVM IR, for what Numba cannot express: dot products in registers, and prefetching.

Compilers vectorise one row's dot product by themselves. Dot products of many rows and vectors at a time, which share
loads, they keep in memory instead of registers. And the processor prefetches only within a page of 4 KiB; with
explicit prefetching, reading a matrix is faster than a plain sum over it. LLVM IR compiles for every processor:
sixteen floats are one register of AVX-512, two of AVX and four of NEON. Addresses are integers, as
``array.ctypes.data`` gives them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from underhood.kernels.jit import HAS_NUMBA, cgutils, intrinsic, ir, target_features, types

LANES = 16
"""float32 or int32 numbers per vector; int16 vectors have twice as many."""

_FEATURES = target_features()
"""Processor features that Numba compiles for."""

_MANY_REGISTERS = "+avx512f" in _FEATURES

ROWS = 8 if _MANY_REGISTERS else 4
"""Rows whose accumulators fit into registers, for one vector or a tile of `LANES` vectors."""

ROWS_FOR_FOUR_VECTORS = 4 if _MANY_REGISTERS else 1
"""Rows whose accumulators fit into registers for four vectors at once."""

LINE = 64
"""Bytes per cache line."""

GROUP = 64
"""4-bit weights that share a scale; the lower halves of their bytes hold the first 32."""

if HAS_NUMBA:
    _I8, _I16, _I32, _I64, _F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
    _FLOATS, _INTEGERS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
    _PAIRS, _BYTES = ir.VectorType(_I16, 2 * LANES), ir.VectorType(_I8, 2 * LANES)


@intrinsic
def prefetch(_: Any, address: Any) -> Any:
    """Prefetches the cache line at an address; any address is safe."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _prefetch(builder, arguments[0])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def dots(
    _: Any,
    like: Any,
    first: Any,
    stride: Any,
    scales: Any,
    scale_stride: Any,
    x: Any,
    x_stride: Any,
    count: Any,
    y: Any,
    rows: Any,
    vectors: Any,
) -> Any:
    """Dot products of several rows of weights with several vectors; the rows after them are prefetched.

    Args:
        like: an array, for its type: of weights in float32, in int8, or in uint8 for two weights of 4 bits.
        first: address of the first row; the next begins `stride` bytes later.
        scales: address of a scale for each `GROUP` of 4-bit weights, in bfloat16, and from one row to the next; nothing
            for the others.
        x: address of the first vector, and from one to the next: in float32 for weights in float32, else in int16.
        count: how many products: a multiple of `LANES` for float32, of 64 for the others.
        y: address of float32 (vectors, rows).
        rows, vectors: numbers written out.
    """
    if not (isinstance(rows, types.IntegerLiteral) and isinstance(vectors, types.IntegerLiteral)):
        return None
    sums = {types.float32: _float_sums, types.int8: _byte_sums, types.uint8: _half_byte_sums}[like.dtype]
    many, others = rows.literal_value, vectors.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, first, stride, scales, scale_stride, x, x_stride, count, y, _, _ = arguments
        block = _Rows(
            builder,
            count,
            starts=_from(builder, first, stride, many),
            ahead=builder.mul(stride, _I64(many)),
            scales=_from(builder, scales, scale_stride, many),
            xs=_from(builder, x, x_stride, others),
        )
        places = builder.inttoptr(y, _F32.as_pointer())
        for number, vector in enumerate(sums(block)):
            builder.store(_total(builder, vector), builder.gep(places, [_I64(number)]))
        return context.get_dummy_value()

    return types.void(like, *[types.intp] * 8, rows, vectors), generate


class _Rows(NamedTuple):
    """Addresses for `dots`: rows, the distance to prefetch, scales, vectors."""

    builder: Any
    count: Any
    starts: list[Any]
    ahead: Any
    scales: list[Any]
    xs: list[Any]

    def rooms(self, kind: Any) -> list[list[Any]]:
        """An accumulator for each vector and row."""
        return [[_room(self.builder, kind) for _ in self.starts] for _ in self.xs]

    def fetch(self, byte: Any) -> None:
        for start in self.starts:
            _prefetch(self.builder, self.builder.add(self.builder.add(start, self.ahead), byte))


def _from(builder: Any, first: Any, stride: Any, count: int) -> list[Any]:
    """`count` addresses, `stride` bytes apart."""
    return [builder.add(first, builder.mul(stride, _I64(number))) for number in range(count)]


def _float_sums(block: _Rows) -> list[Any]:
    builder, sums = block.builder, block.rooms(_FLOATS)
    rows, xs = ([builder.inttoptr(address, _F32.as_pointer()) for address in some] for some in (block.starts, block.xs))
    with _for(builder, _I64(0), block.count, LANES) as (at, _):
        block.fetch(builder.mul(at, _I64(4)))
        weights = [_load(builder, row, at, _FLOATS) for row in rows]
        for x, of_x in zip(xs, sums, strict=True):
            loaded = _load(builder, x, at, _FLOATS)
            for weight, sum in zip(weights, of_x, strict=True):
                _add_product(builder, weight, loaded, sum)
    return [builder.load(sum) for of_x in sums for sum in of_x]


def _byte_sums(block: _Rows) -> list[Any]:
    builder, sums = block.builder, block.rooms(_INTEGERS)
    rows = [builder.inttoptr(start, _I8.as_pointer()) for start in block.starts]
    xs = [builder.inttoptr(x, _I16.as_pointer()) for x in block.xs]
    with _for(builder, _I64(0), block.count, LINE) as (at, _):
        block.fetch(at)
        for here in (at, builder.add(at, _I64(LINE // 2))):
            weights = [builder.sext(_load(builder, row, here, _BYTES), _PAIRS) for row in rows]
            for x, of_x in zip(xs, sums, strict=True):
                loaded = _load(builder, x, here, _PAIRS)
                for weight, sum in zip(weights, of_x, strict=True):
                    _add_pairs(builder, weight, loaded, sum)
    return [builder.sitofp(builder.load(sum), _FLOATS) for of_x in sums for sum in of_x]


def _half_byte_sums(block: _Rows) -> list[Any]:
    builder, totals = block.builder, block.rooms(_FLOATS)
    rows = [builder.inttoptr(start, _I8.as_pointer()) for start in block.starts]
    xs, scales = ([builder.inttoptr(at, _I16.as_pointer()) for at in some] for some in (block.xs, block.scales))
    with cgutils.for_range(builder, builder.sdiv(block.count, _I64(GROUP)), intp=_I64) as group:
        byte, first = builder.mul(group.index, _I64(GROUP // 2)), builder.mul(group.index, _I64(GROUP))
        block.fetch(byte)
        halves = [[_load(builder, x, builder.add(first, _I64(off)), _PAIRS) for off in (0, GROUP // 2)] for x in xs]
        for number, (row, scale_of_row) in enumerate(zip(rows, scales, strict=True)):
            bits = builder.zext(builder.load(builder.gep(scale_of_row, [group.index])), _I32)
            scale = _spread(builder, builder.bitcast(builder.shl(bits, _I32(16)), _F32), _FLOATS)
            weights = _halves(builder, row, byte)
            for loaded, of_x in zip(halves, totals, strict=True):
                sum = _room(builder, _INTEGERS)
                for weight, half in zip(weights, loaded, strict=True):
                    _add_pairs(builder, weight, half, sum)
                _add_product(builder, scale, builder.sitofp(builder.load(sum), _FLOATS), of_x[number])
    return [builder.load(total) for of_x in totals for total in of_x]


def _halves(builder: Any, weights: Any, at: Any) -> tuple[Any, Any]:
    """A group of 4-bit weights as int16."""
    both = _load(builder, weights, at, _BYTES)
    low = builder.and_(both, ir.Constant(_BYTES, [15] * (GROUP // 2)))
    high = builder.lshr(both, ir.Constant(_BYTES, [4] * (GROUP // 2)))
    return builder.zext(low, _PAIRS), builder.zext(high, _PAIRS)


@intrinsic
def widen_half_bytes(_: Any, row: Any, count: Any, y: Any) -> Any:
    """Unpacks `count` 4-bit weights (0 to 15) into int16."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, count, y = arguments
        weights, places = builder.inttoptr(row, _I8.as_pointer()), builder.inttoptr(y, _PAIRS.as_pointer())
        with cgutils.for_range(builder, builder.sdiv(count, _I64(GROUP)), intp=_I64) as group:
            halves = _halves(builder, weights, builder.mul(group.index, _I64(GROUP // 2)))
            for number, half in enumerate(halves):
                index = builder.add(builder.mul(group.index, _I64(2)), _I64(number))
                builder.store(half, builder.gep(places, [index])).align = 2
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), generate


@intrinsic
def float_tile(_: Any, rows: Any, stride: Any, x: Any, count: Any, y: Any) -> Any:
    """``Y = W X`` for `ROWS` rows of weights and `LANES` columns; the next `ROWS` rows are prefetched.

    Args:
        rows: address of the first row's float32; the next begins `stride` bytes later.
        x: address of float32 (count, LANES).
        y: address of float32 (ROWS, LANES).
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, stride, x, count, y = arguments
        sums = [_room(builder, _FLOATS) for _ in range(ROWS)]
        starts = _from(builder, rows, stride, ROWS)
        weights = [builder.inttoptr(start, _F32.as_pointer()) for start in starts]
        columns = builder.inttoptr(x, _F32.as_pointer())

        def add(at: Any) -> None:
            loaded = _load(builder, columns, builder.mul(at, _I64(LANES)), _FLOATS)
            for row, sum in zip(weights, sums, strict=True):
                weight = _spread(builder, builder.load(builder.gep(row, [at])), _FLOATS)
                _add_product(builder, weight, loaded, sum)

        each = LINE // 4
        whole = builder.mul(builder.sdiv(count, _I64(each)), _I64(each))
        block = builder.mul(stride, _I64(ROWS))
        with _for(builder, _I64(0), whole, each) as (at, _):
            for start in starts:
                _prefetch(builder, builder.add(builder.add(start, block), builder.mul(at, _I64(4))))
            for off in range(each):
                add(builder.add(at, _I64(off)))
        with _for(builder, whole, count, 1) as (at, _):
            add(at)
        _store(builder, y, [builder.load(sum) for sum in sums])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), generate


@intrinsic
def integer_tile(_: Any, rows: Any, scales: Any, bases: Any, sums: Any, x: Any, count: Any, block: Any, y: Any) -> Any:
    """``Y = W X`` for `ROWS` rows of int16 and `LANES` columns.

    In blocks along the rows: a block's int32 sum times its scale, plus its base times the sum of the block's x, is
    added as a float.

    Args:
        rows: address of int16 (ROWS, count).
        scales, bases: addresses of float32 (ROWS, blocks).
        sums: address of float32 (blocks, LANES).
        x: address of int16 (count / 2, LANES, 2).
        count, block: length of the rows, even, and of a block, a multiple of 16; the last may be shorter.
        y: address of float32 (ROWS, LANES).
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, scales, bases, sums, x, count, block, y = arguments
        totals = [_room(builder, _FLOATS) for _ in range(ROWS)]
        starts = _from(builder, rows, builder.mul(count, _I64(2)), ROWS)
        weights = [builder.inttoptr(start, _I32.as_pointer()) for start in starts]  # two at a time
        columns = builder.inttoptr(x, _I16.as_pointer())
        scales, bases, sums = (builder.inttoptr(address, _F32.as_pointer()) for address in (scales, bases, sums))
        blocks = builder.sdiv(builder.add(count, builder.sub(block, _I64(1))), block)
        pairs, most = builder.sdiv(count, _I64(2)), builder.sdiv(block, _I64(2))
        with cgutils.for_range(builder, blocks, intp=_I64) as each:
            lanes = [_room(builder, _INTEGERS) for _ in range(ROWS)]
            first = builder.mul(each.index, most)
            end = builder.add(first, most)
            end = builder.select(builder.icmp_signed("<", end, pairs), end, pairs)
            # Not unrolled: unrolled, LLVM would split each step into two.
            with _for(builder, first, end, 1) as (at, _):
                loaded = _load(builder, columns, builder.mul(at, _I64(2 * LANES)), _PAIRS)
                for row, sum in zip(weights, lanes, strict=True):
                    pair = builder.load(builder.gep(row, [at]))
                    pair.align = 2
                    _add_pairs(builder, builder.bitcast(_spread(builder, pair, _INTEGERS), _PAIRS), loaded, sum)
            of_x = _load(builder, sums, builder.mul(each.index, _I64(LANES)), _FLOATS)
            for number, (sum, total) in enumerate(zip(lanes, totals, strict=True)):
                index = builder.add(builder.mul(blocks, _I64(number)), each.index)
                scale, base = (
                    _spread(builder, builder.load(builder.gep(table, [index])), _FLOATS) for table in (scales, bases)
                )
                _add_product(builder, scale, builder.sitofp(builder.load(sum), _FLOATS), total)
                _add_product(builder, base, of_x, total)
        _store(builder, y, [builder.load(total) for total in totals])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 8), generate


def _for(builder: Any, start: Any, stop: Any, step: int) -> Any:
    """``for at, _ in range(start, stop, step)``."""
    return cgutils.for_range_slice(builder, start, stop, _I64(step), intp=_I64)


def _room(builder: Any, kind: Any) -> Any:
    """A vector accumulator, zero at first; LLVM keeps it in a register."""
    room = cgutils.alloca_once(builder, kind)
    builder.store(ir.Constant(kind, None), room)
    return room


def _load(builder: Any, pointer: Any, at: Any, kind: Any) -> Any:
    """Loads a vector from an index on."""
    loaded = builder.load(builder.bitcast(builder.gep(pointer, [at]), kind.as_pointer()))
    loaded.align = 4 if kind is _FLOATS else kind.element.width // 8
    return loaded


def _store(builder: Any, address: Any, vectors: list[Any]) -> None:
    """Stores vectors one after the other."""
    places = builder.inttoptr(address, _FLOATS.as_pointer())
    for number, vector in enumerate(vectors):
        builder.store(vector, builder.gep(places, [_I64(number)])).align = 4


def _spread(builder: Any, number: Any, kind: Any) -> Any:
    """Broadcasts a number to all lanes of a vector."""
    vector = builder.insert_element(ir.Constant(kind, ir.Undefined), number, _I32(0))
    return builder.shuffle_vector(vector, ir.Constant(kind, ir.Undefined), ir.Constant(_INTEGERS, None))


def _add_product(builder: Any, a: Any, b: Any, room: Any) -> None:
    multiply_add = _function(builder, _FLOATS, [_FLOATS] * 3, f"llvm.fmuladd.v{LANES}f32")
    builder.store(builder.call(multiply_add, [a, b, builder.load(room)]), room)


def _add_pairs(builder: Any, a: Any, b: Any, room: Any) -> None:
    """Multiplies int16 pairs and adds each pair's two products to an int32 accumulator."""
    if "+avx512bw" in _FEATURES:
        # LLVM does not always find this instruction by itself. With the addition it becomes one of VNNI.
        multiply = _function(builder, _INTEGERS, [_PAIRS] * 2, "llvm.x86.avx512.pmaddw.d.512")
        products = builder.call(multiply, [a, b])
    else:
        products = pair_products(builder, a, b)
    builder.store(builder.add(builder.load(room), products), room)


def pair_products(builder: Any, a: Any, b: Any) -> Any:
    """Sums of the two products of each int16 pair, for any processor."""
    size = a.type.count
    wide, half = ir.VectorType(_I32, size), ir.VectorType(_I32, size // 2)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    even, odd = (
        builder.shuffle_vector(products, ir.Constant(wide, ir.Undefined), ir.Constant(half, [*range(first, size, 2)]))
        for first in (0, 1)
    )
    return builder.add(even, odd)


def _total(builder: Any, vector: Any) -> Any:
    """Horizontal sum of a vector, halving it each time."""
    width = LANES
    while width > 1:
        width //= 2
        mask = ir.Constant(_INTEGERS, [*range(width, 2 * width), *[0] * (LANES - width)])
        vector = builder.fadd(vector, builder.shuffle_vector(vector, ir.Constant(_FLOATS, ir.Undefined), mask))
    return builder.extract_element(vector, _I32(0))


def _prefetch(builder: Any, address: Any) -> None:
    pointer = _I8.as_pointer()
    ask = _function(builder, ir.VoidType(), [pointer, _I32, _I32, _I32], "llvm.prefetch.p0")
    read, keep_near, data = _I32(0), _I32(3), _I32(1)
    builder.call(ask, [builder.inttoptr(address, pointer), read, keep_near, data])


def _function(builder: Any, returned: Any, arguments: list[Any], name: str) -> Any:
    return cgutils.get_or_insert_function(builder.module, ir.FunctionType(returned, arguments), name)
