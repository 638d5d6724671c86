"""Numbers as a reader wants them: few digits, a unit, a space between the two that never breaks."""

from __future__ import annotations

import math

NBSP = "\u00a0"
MINUS = "\u2212"


def count(number: float) -> str:
    """A count in three digits: ``950``, ``41.2 k``, ``3.34 M``, ``7.24 B``."""
    return _scaled(number, ("", "k", "M", "B", "T"))


def size(number: float) -> str:
    """Bytes in decimal units: ``950 B``, ``2.30 MB``."""
    return _scaled(number, ("B", "kB", "MB", "GB", "TB"))


def flops(number: float) -> str:
    """Floating-point operations: ``21.4 TFLOP``, ``3.05 PFLOP``."""
    return _scaled(number, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"))


def whole(number: float) -> str:
    """All digits, in groups of three: ``1,234,567``."""
    return f"{round(number):,}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``0.4 s``, ``12 s``, ``4 min 56 s``, ``1 h 04 min``."""
    if seconds < 9.95:
        return f"{seconds:.2g}{NBSP}s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded}{NBSP}s"
    if rounded < 3600:
        return f"{rounded // 60}{NBSP}min{NBSP}{rounded % 60:02d}{NBSP}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,}{NBSP}h{NBSP}{minutes % 60:02d}{NBSP}min"


def percent(share: float, digits: int = 0) -> str:
    """A share as a percentage; never rounded to 0 or 100 unless it is exactly that."""
    text = f"{100 * share:.{digits}f}"
    if digits == 0 and ((text == "100" and share < 1) or (text == "0" and share > 0)):
        text = f"{100 * share:.1f}"
        if text == "100.0" or text == "0.0":
            text = "> 99.9" if share > 0.5 else "< 0.1"
    return f"{text}{NBSP}%"


def decimal(number: float, digits: int = 3) -> str:
    """A plain number with a true minus sign, `digits` after the point."""
    text = f"{abs(number):,.{digits}f}"
    return (MINUS if number < 0 and float(text.replace(",", "")) != 0 else "") + text


def signed(number: float, digits: int = 3) -> str:
    """As `decimal`, with a plus sign where it is positive."""
    text = decimal(number, digits)
    return text if text.startswith(MINUS) or number == 0 else f"+{text}"


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten) that lie within [low, high], about `about` of them."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / max(about, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick(value: float, step: float) -> str:
    """A tick's label, with as many decimals as the distance between ticks needs."""
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    if step > 0 and abs(step * 10**digits - round(step * 10**digits)) > 1e-6:
        digits += 1  # 0.25 needs two
    return decimal(value, digits)


def _scaled(number: float, units: tuple[str, ...]) -> str:
    value, unit = float(number), 0
    while abs(value) >= 999.5 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    digits = 0 if unit == 0 or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}" + (f"{NBSP}{units[unit]}" if units[unit] else "")
