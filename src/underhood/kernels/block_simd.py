"""SIMD intrinsics in LLVM IR for block-quantised weights: a panel of sixteen rows times a few vectors.

The rows of a panel are interleaved in memory, so each lane of a register belongs to a row: no sum goes across lanes,
the scales of a block are one load, and all is read in order. Weights are multiplied as 16-bit integers in pairs. The
same code, with one vector or with four, serves decoding, which is limited by reading, and prompts, by arithmetic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from underhood.kernels.jit import HAS_NUMBA, cgutils, intrinsic, ir, target_features, types
from underhood.kernels.simd import LINE, pair_products

PANEL = 16
"""Rows that are interleaved: one register of AVX-512, two of AVX2, four of NEON."""

BLOCK = 32
"""Weights of a row that share a scale, as in GGUF's Q4_0, Q4_1 and Q8_0."""

PREFETCH_BYTES = 2_048
"""How far ahead codes are prefetched: what memory delivers during its own latency."""

_FEATURES = target_features()
_WIDE = "+avx512bw" in _FEATURES
_LANES = 16 if _WIDE else 8
_PARTS = PANEL // _LANES

if HAS_NUMBA:
    _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
    _F32, _HALF = ir.FloatType(), ir.HalfType()
    _FLOATS, _INTEGERS = ir.VectorType(_F32, _LANES), ir.VectorType(_I32, _LANES)
    _PAIRS, _BYTES = ir.VectorType(_I16, 2 * _LANES), ir.VectorType(_I8, 2 * _LANES)
    _HALVES, _WORDS = ir.VectorType(_HALF, _LANES), ir.VectorType(_I16, _LANES)


@intrinsic
def panel_dots(
    _: Any,
    like: Any,
    like_offset: Any,
    codes: Any,
    scales: Any,
    offsets: Any,
    blocks: Any,
    x: Any,
    x_stride: Any,
    sums: Any,
    sums_stride: Any,
    y: Any,
    vectors: Any,
) -> Any:
    """Products of a panel's `PANEL` rows with several vectors; the codes after it are prefetched.

    Args:
        like: the array of codes, for its type: int8, or uint8 for two codes of 4 bits per byte.
        like_offset: the array of offsets, for its type: uint16 if there are some. 4-bit codes without are q − 8.
        codes, scales, offsets: addresses of the panel's own; see `block_matmul.BlockWeights`.
        blocks: how many blocks a row has.
        x, sums: addresses of the first vector's int16 numbers, in the order of `block_matmul.pair_order`, and of the
            sum of each of its blocks as float32; the next vector begins `x_stride` and `sums_stride` bytes later.
        y: address of float32 (vectors, PANEL).
        vectors: a number written out.
    """
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    nibbles, has_offset = like.dtype == types.uint8, like_offset.dtype == types.uint16
    count = vectors.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, codes, scales, offsets, blocks, x, x_stride, sums, sums_stride, y, _ = arguments
        panel = _Panel(
            builder,
            pairs=_nibble_pairs if nibbles else _byte_pairs,
            codes=builder.inttoptr(codes, _I8.as_pointer()),
            scales=scales,
            offsets=offsets if has_offset else None,
            centred=nibbles and not has_offset,
            xs=[
                builder.inttoptr(builder.add(x, builder.mul(x_stride, _I64(v))), _I32.as_pointer())
                for v in range(count)
            ],
            sums=[
                builder.inttoptr(builder.add(sums, builder.mul(sums_stride, _I64(v))), _F32.as_pointer())
                for v in range(count)
            ],
        )
        totals = [[_accumulator(builder, _FLOATS) for _ in range(_PARTS)] for _ in range(count)]
        with cgutils.for_range(builder, blocks, intp=_I64) as loop:
            panel.add_block(loop.index, totals)
        results = builder.inttoptr(y, _FLOATS.as_pointer())
        for v, of_vector in enumerate(totals):
            for slice_index, total in enumerate(of_vector):
                builder.store(builder.load(total), builder.gep(results, [_I64(v * _PARTS + slice_index)])).align = 4
        return context.get_dummy_value()

    return types.void(like, like_offset, *[types.intp] * 9, vectors), generate


class _Panel(NamedTuple):
    """Addresses for `panel_dots`."""

    builder: Any
    pairs: Any
    codes: Any
    scales: Any
    offsets: Any
    centred: bool
    xs: list[Any]
    sums: list[Any]

    def add_block(self, block: Any, totals: list[list[Any]]) -> None:
        """Adds the products of a block to each vector's totals."""
        builder = self.builder
        integers = [[_accumulator(builder, _INTEGERS) for _ in range(_PARTS)] for _ in totals]
        block_sums = [builder.load(builder.gep(sums, [block])) for sums in self.sums]
        for of_vector, block_sum in zip(integers, block_sums, strict=True):
            start = ir.Constant(_INTEGERS, None)
            if self.centred:  # Σ (q − 8) x = Σ q x − 8 Σ x, exactly
                start = _spread(builder, builder.mul(builder.fptosi(block_sum, _I32), _I32(-8)), _INTEGERS)
            for integer in of_vector:
                builder.store(start, integer)
        for pair, weights in self.pairs(builder, self.codes, block):
            for x, of_vector in zip(self.xs, integers, strict=True):
                index = builder.add(builder.mul(block, _I64(BLOCK // 2)), _I64(pair))
                number = builder.load(builder.gep(x, [index]))
                number.align = 2
                both = builder.bitcast(_spread(builder, number, _INTEGERS), _PAIRS)
                for weight, integer in zip(weights, of_vector, strict=True):
                    builder.store(builder.add(builder.load(integer), _multiply_pairs(builder, weight, both)), integer)
        for slice_index in range(_PARTS):
            scale = _widened(builder, self.scales, block, slice_index)
            for of_vector, of_total in zip(integers, totals, strict=True):
                _add_product(
                    builder, scale, builder.sitofp(builder.load(of_vector[slice_index]), _FLOATS), of_total[slice_index]
                )
            if self.offsets is not None:
                offset = _widened(builder, self.offsets, block, slice_index)
                for block_sum, of_total in zip(block_sums, totals, strict=True):
                    _add_product(builder, offset, _spread(builder, block_sum, _FLOATS), of_total[slice_index])


def _nibble_pairs(builder: Any, codes: Any, block: Any) -> Any:
    """The 4-bit codes of a block: each pair's number and its registers of int16."""
    size = PANEL * BLOCK // 2
    first = builder.mul(block, _I64(size))
    _prefetch_lines(builder, codes, first, size)
    mask = ir.Constant(_PAIRS, [15] * 2 * _LANES)
    for step in range(4):
        words = [
            _load(builder, codes, first, 4 * PANEL * step + 4 * _LANES * slice_index, _PAIRS)
            for slice_index in range(_PARTS)
        ]
        for nibble in range(4):
            shift = ir.Constant(_PAIRS, [4 * nibble] * 2 * _LANES)
            moved = [builder.lshr(word, shift) if nibble else word for word in words]
            yield 4 * step + nibble, [builder.and_(word, mask) if nibble < 3 else word for word in moved]


def _byte_pairs(builder: Any, codes: Any, block: Any) -> Any:
    """The same of 8-bit codes."""
    size = PANEL * BLOCK
    first = builder.mul(block, _I64(size))
    _prefetch_lines(builder, codes, first, size)
    for pair in range(BLOCK // 2):
        offsets = [2 * PANEL * pair + 2 * _LANES * slice_index for slice_index in range(_PARTS)]
        yield pair, [builder.sext(_load(builder, codes, first, offset, _BYTES), _PAIRS) for offset in offsets]


def _prefetch_lines(builder: Any, codes: Any, first: Any, size: int) -> None:
    pointer = _I8.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    for line in range(0, size, LINE):
        address = builder.gep(codes, [builder.add(first, _I64(PREFETCH_BYTES + line))])
        builder.call(prefetch, [address, _I32(0), _I32(3), _I32(1)])


def _load(builder: Any, codes: Any, first: Any, offset: int, kind: Any) -> Any:
    pointer = builder.gep(codes, [builder.add(first, _I64(offset))])
    loaded = builder.load(builder.bitcast(pointer, kind.as_pointer()))
    loaded.align = 1
    return loaded


def _widened(builder: Any, address: Any, block: Any, slice_index: int) -> Any:
    """The scales or offsets of a block's rows, from float16."""
    bytes_before = builder.add(builder.mul(block, _I64(2 * PANEL)), _I64(2 * _LANES * slice_index))
    pointer = builder.inttoptr(builder.add(address, bytes_before), _WORDS.as_pointer())
    bits = builder.load(pointer)
    bits.align = 2
    return float16_to_float32(builder, bits)


def float16_to_float32(builder: Any, bits: Any, *, native: bool | None = None) -> Any:
    """A register of float16 bits as float32; for processors without that instruction, of finite numbers."""
    lanes = bits.type.count
    floats, integers = ir.VectorType(_F32, lanes), ir.VectorType(_I32, lanes)
    if native is None:
        native = "+f16c" in _FEATURES or _WIDE
    if native:
        return builder.fpext(builder.bitcast(bits, ir.VectorType(_HALF, lanes)), floats)
    wide = builder.zext(bits, integers)

    def constant(number: int) -> Any:
        return ir.Constant(integers, [number] * lanes)

    magnitude = builder.shl(builder.and_(wide, constant(0x7FFF)), constant(13))
    # The exponent's bias is 15 there and 127 here; the product is exact, for subnormal numbers too.
    number = builder.fmul(builder.bitcast(magnitude, floats), ir.Constant(floats, [2.0**112] * lanes))
    sign = builder.shl(builder.and_(wide, constant(0x8000)), constant(16))
    return builder.bitcast(builder.or_(builder.bitcast(number, integers), sign), floats)


def _accumulator(builder: Any, kind: Any) -> Any:
    """A vector accumulator, zero at first; LLVM keeps it in a register."""
    room = cgutils.alloca_once(builder, kind)
    builder.store(ir.Constant(kind, None), room)
    return room


def _spread(builder: Any, number: Any, kind: Any) -> Any:
    """Broadcasts a number to all lanes."""
    vector = builder.insert_element(ir.Constant(kind, ir.Undefined), number, _I32(0))
    return builder.shuffle_vector(vector, ir.Constant(kind, ir.Undefined), ir.Constant(_INTEGERS, None))


def _add_product(builder: Any, a: Any, b: Any, total: Any) -> None:
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * 3)
    multiply_add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{_LANES}f32")
    builder.store(builder.call(multiply_add, [a, b, builder.load(total)]), total)


def _multiply_pairs(builder: Any, a: Any, b: Any) -> Any:
    """Sums of the two products of each int16 pair, as int32."""
    if _WIDE or "+avx2" in _FEATURES:
        name = "llvm.x86.avx512.pmaddw.d.512" if _WIDE else "llvm.x86.avx2.pmadd.wd"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_INTEGERS, [_PAIRS] * 2), name)
        return builder.call(function, [a, b])
    return pair_products(builder, a, b)
