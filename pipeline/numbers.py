"""Numbers as people read them. A rounded number never says what is not so: what is not nought is not shown as nought,
what is not all is not 100 %, and two that differ do not look equal where that is the point.
"""

import math
from collections.abc import Callable


def count(value: int) -> str:
    """ "1,234,567"."""
    return f"{value:,}"


def counted(value: int, one: str, many: str | None = None) -> str:
    """ "1 image", "1,234 images"."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def percent(share: float, decimals: int | None = None) -> str:
    """A share 0..1 with the digits that matter: "34 %", "3.4 %", "0.02 %", "< 0.01 %", "> 99.9 %"; or with so many
    decimals, for a column."""
    value = 100 * share
    if value in (0, 100):
        return f"{value:.0f} %" if decimals is None else f"{value:.{decimals}f} %"
    if decimals is None:
        if value < 0.01:
            return "< 0.01 %"
        if 99.9 < value < 100:
            return "> 99.9 %"
        return f"{value:.0f} %" if 9.95 <= value < 99 else f"{value:.1f} %" if value >= 0.995 else f"{value:.2g} %"
    text, step = f"{value:.{decimals}f}", 10**-decimals
    if float(text) == 0 and value > 0:
        return f"< {step:.{decimals}f} %"
    if float(text) == 100 and value < 100:
        return f"> {100 - step:.{decimals}f} %"
    return f"{text} %"


def fixed(value: float, decimals: int = 4, sign: str = "") -> str:
    """ "0.6218", with `sign` "+" "+0.0012"; with more decimals where it would be nought and is not: "+0.00000012";
    "1.2e-34" where those would be more than anybody counts.
    """
    if value and math.isfinite(value) and round(value, decimals) == 0:
        if abs(value) < 1e-9:
            return f"{value:{sign}.1e}"
        decimals = 1 - math.floor(math.log10(abs(value)))
    return f"{value:{sign}.{decimals}f}"


def score(value: float | None, decimals: int = 3) -> str:
    """A share 0..1 as a decimal number: "0.931"; "> 0.999" for nearly all, more digits for nearly none; "-" if None."""
    if value is None:
        return "-"
    text = fixed(value, decimals)
    return f"> {1 - 10**-decimals:.{decimals}f}" if value < 1 <= float(text) else text


def three_digits(value: float) -> str:
    """ "1.23", "123", "1,234": never "1e+03"."""
    return f"{value:,.0f}" if value >= 999.5 else f"{value:.3g}"


def differing(value: float, other: float, shown: Callable[[float], str]) -> tuple[str, str]:
    """Both as `shown` has them, or with more digits where that would make two that differ look equal."""
    texts = shown(value), shown(other)
    digits = 3
    while texts[0] == texts[1] and value != other and digits < 18:
        texts = f"{value:.{digits}g}", f"{other:.{digits}g}"
        digits += 1
    return texts


def differing_percent(share: float, limit: float) -> tuple[str, str]:
    """A share and its limit as percentages that look equal only if they are."""
    texts = percent(share), percent(limit)
    if texts[0] != texts[1] or share == limit:
        return texts
    numbers = differing(100 * share, 100 * limit, lambda value: f"{value:.3g}")
    return f"{numbers[0]} %", f"{numbers[1]} %"


def large(value: float) -> str:
    """ "812", "3.4 thousand", "12 million", "5.1 billion"."""
    if value < 1e4:
        return f"{value:,.0f}"
    return _with_unit(value, ("thousand", "million", "billion", "trillion"))


def size(value: float) -> str:
    """Bytes: "512 bytes", "3.4 MB"."""
    if value < 999.5:
        return f"{value:,.0f} {'byte' if round(value) == 1 else 'bytes'}"
    return _with_unit(value, ("kB", "MB", "GB", "TB"))


def rate(value: float) -> str:
    """Images per second: "0.034", "4.2", "1,234"."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.95 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """ "8 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"; without the part that is nought."""
    whole = round(seconds)
    for large_name, large_unit, small_name, small_unit in (
        ("d", 86400, "h", 3600),
        ("h", 3600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if whole >= large_unit:
            rest = whole % large_unit // small_unit
            return f"{whole // large_unit} {large_name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s" if seconds >= 9.5 or seconds == whole else f"{seconds:.1f} s"


def _with_unit(value: float, units: tuple[str, ...]) -> str:
    """Three digits in the largest of `units`, each a thousand of the one before, in which that is at least 1."""
    for power, unit in enumerate(units, 1):
        shown = value / 1e3**power
        # 999.6 has four digits once it is rounded to whole ones.
        if shown < 999.5:
            return f"{shown:.3g} {unit}"
    return f"{value / 1e3 ** len(units):,.0f} {units[-1]}"
