"""Number formats: few digits, a unit, and between them a space that does not break (a terminal passes a plain one)."""

from __future__ import annotations

import math

NBSP = "\u00a0"
MINUS = "\u2212"


def count(number: float, space: str = NBSP) -> str:
    """A count in three digits: ``950``, ``41.2 k``, ``3.34 M``, ``7.24 B``."""
    return _scaled(number, ("", "k", "M", "B", "T"), space)


def size(number: float, space: str = NBSP) -> str:
    """Bytes in decimal units: ``950 B``, ``2.30 MB``."""
    return _scaled(number, ("B", "kB", "MB", "GB", "TB"), space)


def flops(number: float) -> str:
    """Floating-point operations: ``21.4 TFLOP``, ``3.05 PFLOP``."""
    return _scaled(number, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP", "ZFLOP"), NBSP)


def whole(number: float) -> str:
    """All digits, in groups of three: ``1,234,567``."""
    return f"{round(number):,}"


def duration(seconds: float, space: str = NBSP) -> str:
    """Seconds as a person says them: ``0.4 s``, ``12 s``, ``4 min 56 s``, ``1 h 04 min``."""
    if seconds < 9.95:
        return f"{seconds:.2g}{space}s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded}{space}s"
    if rounded < 3600:
        return f"{rounded // 60}{space}min{space}{rounded % 60:02d}{space}s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,}{space}h{space}{minutes % 60:02d}{space}min"


def minutes(number: float, space: str = NBSP) -> str:
    """Minutes, rounded as an estimate deserves: ``40 s``, ``6 min``, ``1 h 35 min``."""
    return f"{number:.0f}{space}min" if 1 <= number < 59.5 else duration(60 * number, space)


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


def tick_label(value: float, step: float) -> str:
    """A tick's label, with as many decimals as the distance between ticks needs."""
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    if step > 0 and abs(step * 10**digits - round(step * 10**digits)) > 1e-6:
        digits += 1  # 0.25 needs two
    return decimal(value, digits)


def compact(value: float) -> str:
    """Any number in at most three digits, or as a power of ten: ``0.125``, ``12,500``, ``2·10⁶``; "–" if not finite."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    if abs(value) >= 1e5 or abs(value) < 1e-3:
        power = math.floor(math.log10(abs(value)))
        base = value / 10**power
        digits = "" if abs(base - 1) < 1e-9 else f"{base:.3g}·"
        return f"{digits}10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    if value == int(value):
        return decimal(value, 0)
    return decimal(value, min(max(0, 2 - math.floor(math.log10(abs(value)))), 4))


def exact(value: float | str) -> str:
    """As `compact`, but with all digits of a whole number; text stays as it is."""
    if isinstance(value, str):
        return value
    return decimal(value, 0) if value == int(value) and abs(value) < 1e15 else compact(value)


def _scaled(number: float, units: tuple[str, ...], space: str) -> str:
    value, unit = float(number), 0
    while abs(value) >= 999.5 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    digits = 0 if unit == 0 or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{digits}f}" + (f"{space}{units[unit]}" if units[unit] else "")
