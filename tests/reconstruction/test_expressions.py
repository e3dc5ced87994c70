"""The grammar of features and filters: equal to NumPy's arithmetic, and closed to all else."""

import ast
import operator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from astri_gpu.errors import AstriError, UsageError
from astri_gpu.reconstruction.expressions import FUNCTIONS, parse

NAMES = ("hillas_width", "hillas_length", "hillas_intensity", "astri_num_core")
NUMPY_OF = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
}


def columns(n=64, seed=1):
    rng = np.random.default_rng(seed)
    found = {name: rng.normal(size=n).astype(np.float32) for name in NAMES[:3]}
    found["hillas_width"][:3] = [0, np.nan, np.inf]
    found["astri_num_core"] = rng.integers(0, 5, n).astype(np.int32)
    found["stereo_is_valid"] = rng.random(n) < 0.5
    return found


COLUMNS = columns()
# As an expression sees them.
SINGLE = {name: values.astype(np.float32) for name, values in COLUMNS.items()}
SINGLE["stereo_is_valid"] = COLUMNS["stereo_is_valid"]

# Trees of text and of the value that NumPy has for it.
names = st.sampled_from(NAMES).map(lambda name: (name, SINGLE[name]))
literals = st.floats(0, 1e4, allow_subnormal=False).map(lambda x: (repr(x), np.float32(x)))


def _number(part):
    def binary(symbol, left, right):
        return f"({left[0]} {symbol} {right[0]})", NUMPY_OF[symbol](left[1], right[1])

    def call(name, arguments):
        ours = ", ".join(text for text, _ in arguments)
        return f"{name}({ours})", getattr(np, name)(*(value for _, value in arguments))

    def power(base, exponent):
        return f"({base[0]})**{exponent}", base[1] ** np.float32(exponent)

    calls = [
        st.tuples(*[part] * count).map(lambda parts, name=name: call(name, parts))
        for name, count in FUNCTIONS.items()
    ]
    return st.one_of(
        st.builds(binary, st.sampled_from("+-*/"), part, part),
        st.builds(power, part, st.integers(-3, 3)),
        part.map(lambda x: (f"-{x[0]}", -x[1])),
        *calls,
    )


with np.errstate(all="ignore"):
    numbers = st.recursive(names, _number, max_leaves=6)


def _comparison(left, symbol, right):
    return f"{left[0]} {symbol} {right[0]}", NUMPY_OF[symbol](left[1], right[1])


def _truth(part):
    def joined(left, symbol, right):
        return f"({left[0]}) {symbol} ({right[0]})", NUMPY_OF[symbol](left[1], right[1])

    return st.one_of(
        st.builds(joined, part, st.sampled_from(["and", "or"]), part),
        part.map(lambda x: (f"not ({x[0]})", ~x[1])),
    )


comparisons = st.builds(
    _comparison,
    names,
    st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
    st.one_of(names, literals),
)
flags = st.just(("stereo_is_valid", SINGLE["stereo_is_valid"]))
truths = st.recursive(st.one_of(comparisons, flags), _truth, max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_values_are_those_of_numpy(data):
    with np.errstate(all="ignore"):
        text, expected = data.draw(numbers)
    found = parse(text)(COLUMNS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(truths)
def test_conditions_are_those_of_numpy(pair):
    text, expected = pair
    found = parse(text, condition=True)(COLUMNS)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, expected)


# Words that mean something to Python or to the grammar, put together at random.
WORDS = st.sampled_from(
    [
        *NAMES,
        *FUNCTIONS,
        *"+-*/(),.:=<>!&|^~@%'\"[]{}\\;#`$?\t\n\x00",
        *("**", "==", "<=", " and ", " or ", "not ", " is ", " in ", " if ", " else ", ":="),
        *(
            "1",
            "2.5",
            "1e5",
            "9**9**9",
            "0x1",
            "1_0",
            "1j",
            "True",
            "None",
            "...",
            "**{}",
            "f'{x}'",
        ),
        *("lambda x: ", "await ", "yield ", "__import__", "x.__class__", "é", "１", "\u2028"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=12).map("".join)),
    st.booleans(),
)
@example("-" * 999 + "x", False)
@example("(" * 600, True)
@example("~" * 999, True)
@example("not " * 240 + "x > 1", True)
@example("x" + "+x" * 499, False)
@example("x" * 100_000, False)
@example("x" + "**x" * 300, False)
def test_no_text_does_more_than_to_be_refused(text, condition):
    try:
        expression = parse(text, condition=condition)
    except UsageError as error:
        told = str(error)
    else:
        assert expression.names
        # Only what Python's own grammar takes as well is ever taken.
        ast.parse(f"({text}\n)", mode="eval")
        return
    assert "cannot be used" in told
    assert len(told) < 600


@pytest.mark.parametrize(
    ("text", "condition", "told"),
    [
        ("", False, "it is empty"),
        ("hillas_width[0]", False, r"'\[' is not understood here \(character 13\)"),
        ("hillas_width.real", False, "a name has no parts here"),
        ("SIZE > 50 && WIDTH > 0", True, "write 'and' instead of '&&'"),
        ("SIZE > 50 || WIDTH > 0", True, "write 'or' instead of '||'".replace("|", r"\|")),
        ("!stereo_is_valid", True, "write 'not' instead of '!'"),
        ("WIDTH^2", False, r"write '\*\*' for a power"),
        ("SIZE = 5", True, "write '==' to compare"),
        ("eval('1')", False, "is not understood"),
        ("eval(SIZE)", False, "there is no function 'eval'"),
        ("log1O(SIZE)", False, "did you mean 'log10'"),
        ("log10", False, "log10 is a function: give it a value"),
        ("log10(SIZE, 2)", False, "log10 takes 1 value, not 2"),
        ("hypot(SIZE)", False, "hypot takes 2 values, not 1"),
        ("log10(*SIZE)", False, "not part of the grammar"),
        ("SIZE if SIZE else WIDTH", False, "not part of the grammar"),
        ("9**9**9 * SIZE", False, r"an exponent has to be a number from -10 to 10 \(character 4\)"),
        ("2**SIZE", False, "an exponent has to be a number"),
        ("SIZE**11", False, "an exponent has to be a number"),
        ("1e39 * SIZE", False, "not finite in single precision"),
        ("1" + 400 * "0" + " * SIZE", False, "not finite in single precision"),
        ("SIZE + 1/0", False, "not finite in single precision"),
        ("True * SIZE", False, "True is not a number"),
        ("0x10 + SIZE", False, "'0' is not understood"),
        ("1 + 1", False, "it has no column"),
        ("SIZE > 50", False, "cannot stand in a feature"),
        ("(SIZE > 50) * 2 > 1", True, "cannot stand inside a number"),
        ("SIZE", True, "this is a number: compare it"),
        (
            "SIZE > 50 and WIDTH",
            True,
            r"this is a number: compare it with another \(character 15\)",
        ),
        ("SIZE in WIDTH", True, "this comparison is not part of the grammar"),
        ("1 < 2 and SIZE > 1", True, "two numbers are compared"),
        ("SIZE +", False, r"invalid syntax \(character 7\)"),
        ("(" * 101 + "SIZE" + ")" * 101 + "-" * 150 + "SIZE", False, "more than 100 operations"),
        ("SIZE" * 300, False, r"it has 1200 characters and may have 1000"),
    ],
)
def test_refusals_say_what_where_and_what_is_allowed(text, condition, told):
    with pytest.raises(UsageError, match=told) as caught:
        parse(text, condition=condition)
    assert "Allowed are names of columns" in str(caught.value)
    assert ("and or not" in str(caught.value)) == condition


def test_only_text_is_parsed():
    with pytest.raises(UsageError, match="has to be text, not int 5"):
        parse(5)


def test_names_of_a_scisoft_are_ours():
    expression = parse("log10(SIZE / (WIDTH * LENGTH)) + M3LONG * sign(COSDELTAALPHA) - SIZE")
    assert expression.names == (
        "hillas_intensity",
        "hillas_width",
        "hillas_length",
        "astri_m3long",
        "astri_cos_delta_alpha",
    )
    assert parse("size").names == ("size",)  # no alias: case counts


@pytest.mark.parametrize(
    ("text", "rank"),
    [("-hillas_width**2", operator.neg), ("2 - 3 - hillas_width", lambda x: -1 - np.sqrt(x))],
)
def test_precedence_is_that_of_python(text, rank):
    width = np.array([0.5, 2.0])
    np.testing.assert_allclose(parse(text)({"hillas_width": width}), rank(width**2), rtol=1e-6)


def test_comparisons_chain_and_nan_compares_false():
    width = np.array([0.5, 2.0, np.nan, 5.0])
    found = parse("1 < hillas_width <= 5", condition=True)({"hillas_width": width})
    np.testing.assert_array_equal(found, [False, True, False, True])
    same = parse("hillas_width == hillas_width", condition=True)({"hillas_width": width})
    np.testing.assert_array_equal(same, [True, True, False, True])


def test_every_namespace_gives_the_same(xp):
    texts = [f"{name}({', '.join(['hillas_width'] * n)})" for name, n in FUNCTIONS.items()]
    texts += ["minimum(hillas_width, 0.5)", "arctan2(1, hillas_width)", "-hillas_width**-2 / 3"]
    texts += ["hillas_width + astri_num_core * stereo_is_valid"]
    conditions = ["stereo_is_valid and not hillas_width > 1 or 1 <= astri_num_core != 3"]
    here = {name: xp.asarray(values) for name, values in COLUMNS.items()}
    for text in texts + conditions:
        expression = parse(text, condition=text in conditions)
        found = expression(here)
        assert found.dtype == (xp.bool if expression.condition else xp.float32), text
        expected = expression(COLUMNS)
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, err_msg=text)


def test_columns_stay_as_they_are():
    before = columns()
    now = columns()
    parse("log10(abs(hillas_width) + 1) * astri_num_core - hillas_length")(now)
    for name, values in before.items():
        np.testing.assert_array_equal(now[name], values)


def test_a_missing_column_is_named():
    with pytest.raises(AstriError, match="needs astri_conc: there is no such column"):
        parse("hillas_width * astri_conc")({"hillas_width": np.ones(3)})
