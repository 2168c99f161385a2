"""Rounded numbers do not say what is not so."""

import pytest

from pipeline.numbers import differing, differing_percent, fixed, large, percent, rate, score, size, three_digits


@pytest.mark.parametrize(
    ("share", "shown"),
    [(2999 / 3000, "> 99.9 %"), (1.0, "100 %"), (0.999, "99.9 %"), (0.0, "0 %"),
     (1e-6, "< 0.01 %"), (0.216, "22 %"), (0.034, "3.4 %")],
)  # fmt: skip
def test_all_is_100_percent_and_nothing_else_is(share: float, shown: str) -> None:
    assert percent(share) == shown


def test_a_column_of_shares_has_one_number_of_decimals_and_keeps_its_ends_apart() -> None:
    shares = [percent(share, 1) for share in (1.0, 0.99999, 0.216, 0.0004, 0.0)]
    assert shares == ["100.0 %", "> 99.9 %", "21.6 %", "< 0.1 %", "0.0 %"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(999_700, "1 million"), (999_499, "999 thousand"), (10_000, "10 thousand"), (9_999, "9,999"),
     (12_345_678, "12.3 million"),
     (999_999_999, "1 billion"), (5e15, "5,000 trillion")],
)  # fmt: skip
def test_a_thousand_thousands_are_a_million_and_never_1e3(value: float, shown: str) -> None:
    assert large(value) == shown


def test_sizes_round_up_to_the_next_unit() -> None:
    assert [size(value) for value in (1, 999, 999.7, 999_600, 1e12)] == ["1 byte", "999 bytes", "1 kB", "1 MB", "1 TB"]


def test_rates_have_the_digits_that_matter() -> None:
    assert [rate(value) for value in (0.0341, 9.96, 99.96, 1234.5)] == ["0.034", "10.0", "100", "1,234"]


def test_a_score_is_1_only_where_all_is_right_and_0_only_where_nothing_is() -> None:
    assert [score(value) for value in (1.0, 0.9996, 0.931, 0.0, 0.0004)] == [
        "1.000",
        "> 0.999",
        "0.931",
        "0.000",
        "0.00040",
    ]
    assert [score(value, 2) for value in (0.996, 0.99)] == ["> 0.99", "0.99"]


def test_three_digits_of_a_thousand_are_four() -> None:
    assert [three_digits(value) for value in (0.0341, 1.98, 999.4, 999.6, 1234.5)] == [
        "0.0341",
        "1.98",
        "999",
        "1,000",
        "1,234",
    ]


def test_a_slow_run_has_a_speed() -> None:
    assert [fixed(value, 1) for value in (0.034, 1.98, 0.0)] == ["0.034", "2.0", "0.0"]


def test_a_difference_is_nought_only_where_there_is_none() -> None:
    assert fixed(1.23e-34) == "1.2e-34"
    assert fixed(0.00000012, sign="+") == "+0.00000012"
    assert fixed(-0.00004, sign="+") == "-0.000040"
    assert fixed(0.0, sign="+") == "+0.0000"
    assert fixed(0.25, sign="+") == "+0.2500"


def test_what_is_over_a_limit_looks_larger_than_the_limit() -> None:
    assert differing(0.020001, 0.02, fixed) == ("0.020001", "0.02")
    assert differing_percent(0.03004, 0.03) == ("3.004 %", "3 %")
    assert differing_percent(1.0, 1.0) == ("100 %", "100 %")
    assert differing_percent(0.4, 0.05) == ("40 %", "5.0 %")
