"""Numbers as people read them."""

from pipeline.report.markup import visible


def count(value: int) -> str:
    """ "1,234,567"."""
    return f"{value:,}"


def counted(value: int, one: str, many: str | None = None) -> str:
    """ "1 image", "1,234 images"."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """A share 0..1 with the digits that matter: "34 %", "3.4 %", "0.02 %", "< 0.01 %"."""
    value = 100 * share
    if value == 0 or value >= 99.95:
        return f"{value:.0f} %"
    if value < 0.01:
        return "< 0.01 %"
    return f"{value:.0f} %" if 9.95 <= value < 99 else f"{value:.1f} %" if value >= 0.995 else f"{value:.2g} %"


def large(value: float) -> str:
    """ "812", "3.4 thousand", "12 million", "5.1 billion"."""
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"), (1e4, "thousand")):
        if value >= size:
            shown = value / (1e3 if name == "thousand" else size)
            return f"{shown:.3g} {name}" if shown < 1000 else f"{shown:,.0f} {name}"
    return f"{value:,.0f}"


def size(value: float) -> str:
    """Bytes: "512 bytes", "3.4 MB"."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value:,.0f} bytes"


def rate(value: float) -> str:
    """Images a second: "0.034", "4.2", "1,234"."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2g}"


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


def shortened(key: str, length: int) -> str:
    """A key of at most `length` characters, its middle left out: the ends tell more."""
    key = visible(key)
    if len(key) <= length:
        return key
    tail = (length - 3) * 2 // 3
    return f"{key[: length - 3 - tail]}...{key[-tail:]}"
