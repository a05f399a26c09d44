"""Checks that run in another process than the code: which can, and that they say the same there."""

import pytest

from whetstone.apart import questions
from whetstone.sandbox import Limits, run_python

isolated = pytest.mark.usefixtures("isolated")
LIMITS = Limits(time_s=10)


@pytest.mark.parametrize(
    ("checks", "names"),
    [
        ("assert f(1) == 2", ("f",)),
        ("assert f(g(1)) == [2]\nassert LIMIT == 3", ("LIMIT", "f", "g")),
        ("def check(candidate):\n    assert candidate(1) == 2\ncheck(f)", ("f",)),
        ("def check(f):\n    assert f(1) == 2\ncheck(f)", ("f",)),
        ("import math\nassert math.isclose(f(1), 0.3, abs_tol=1e-3)", ("f",)),
        ("assert math.isclose(f(1), 0.3)", ("f",)),
        ("assert sum(10, 15) == 6", ("sum",)),
        ("assert sum(f(10)) == 6", ("f",)),
        ("assert f('a').upper() == 'A' and f(1) is None", ("f",)),
        ("for x in range(3):\n    y = f(x)\n    assert y == x", ("f",)),
        ("try:\n    f(1)\nexcept ValueError as error:\n    assert str(error)", ("f",)),
        ("assert [f(x) for x in (1, 2)] == sorted([1, 2], key=lambda y: -y)", ("f",)),
        ("from collections import Counter\nassert Counter(f(1)) == Counter([1])", ("f",)),
        ("def check(candidate):\n    global x\n    x = candidate(1)\ncheck(f)\nassert x", ("f",)),
    ],
)
def test_checks_that_can_be_split_name_what_they_ask(checks: str, names: tuple[str, ...]) -> None:
    found = questions(checks)
    assert found is not None
    assert found.names == names


@pytest.mark.parametrize(
    "checks",
    [
        "",
        "assert True",
        "assert len(sum(1, 2)) == 3",  # which of them is the code's?
        "x = []\nassert f(x) is x",
        "assert f(1) is not g(1)",
        "try:\n    f(1)\nexcept Broken:\n    pass",
        "assert isinstance(f(1), Tree)",
        "class Mine(Base):\n    pass\nassert f(Mine)",
        "s = Stack()\ns.push(1)\nassert s.pop() == 1",
        "assert f.calls == 0",
        "assert f.__name__ == 'f'",
        "import sys\nassert f(1) == sys.version",
        "import os.path\nf(os.path)",
        "from io import *\nf(1)",
        "import random\nrandom.seed(1)\nassert f(1) == 0.1",
        "from random import seed\nseed(1)\nassert f(1) == 0.1",
        "import asyncio\nassert asyncio.run(f(1)) == 1",
        "async def g():\n    await f(1)",
        "assert eval('f(1)') == 2",
        "globals()['f'](1)",
        "assert f(1).__class__ is int",
        "def broken(:",
    ],
)
def test_checks_that_share_more_than_values_cannot_be_split(checks: str) -> None:
    assert questions(checks) is None


def test_whole_helpers_before_the_code_go_with_the_checks() -> None:
    helper = "import math\ndef half(x):\n    return x / 2\n"
    head = '@staticmethod\ndef f(x):\n    """Says."""\n'
    found = questions("assert half(f(1)) == 2", helper + head)
    assert found is not None
    assert (found.names, found.source) == (
        ("f",),
        "import math\ndef half(x):\n    return x / 2\nassert half(f(1)) == 2",
    )
    found = questions("assert half(f(1)) == 2", "def half(x")
    assert found is not None
    assert found.names == ("f", "half")
    assert questions("assert half(1) == 2", helper) is None  # nothing is left to ask


AGREEING = {
    "values": (
        "def f(x): return x",
        r"""
for x in (None, True, 1, -2**70, 0.1, 1j, 'ü\ud800', b'x', (1, [2]), {1, 2}, {'a': (1,)}):
    assert f(x) == x and type(f(x)) == type(x)
""",
    ),
    "types of the standard library": (
        """
from collections import *
from decimal import Decimal
from fractions import Fraction
import datetime
def f(x):
    d = defaultdict(int); d[1] = 2
    numbers = [Decimal('0.1'), Fraction(1, 3)]
    times = [datetime.date(2020, 1, 2), datetime.timedelta(1.5)]
    return [Counter('aab'), OrderedDict(a=1), d, deque([1], 3), *numbers, *times, range(3)][x]
""",
        """
from collections import deque
from decimal import Decimal
from fractions import Fraction
import datetime
assert f(0) == {'a': 2, 'b': 1} and f(0)['c'] == 0
assert f(1) == {'a': 1} and f(2) == {1: 2}
assert f(3) == deque([1]) and f(3).maxlen == 3
assert f(4) == Decimal('0.1') and f(5) == Fraction(1, 3)
assert f(6) == datetime.date(2020, 1, 2) and f(7).days == 1
assert list(f(8)) == [0, 1, 2] and f(8) == range(3)
""",
    ),
    "derived types": (
        """
from collections import namedtuple
from enum import IntEnum
P = namedtuple('P', 'x y')
class E(IntEnum):
    A = 3
class T(str): pass
def f(x): return (P(1, 2), E.A, T('t'), True)[x]
""",
        "assert f(0) == (1, 2) and f(1) == 3 and f(2) == 't' and f(3) is True",
    ),
    "iterators and views": (
        """
def f(x):
    yield from range(x)
def g(x): return {1: 2}.items()
def h(x): return map(str, x)
""",
        """
assert list(f(3)) == [0, 1, 2] and f(3) != [0, 1, 2]
assert g(0) == {(1, 2)} and list(h([1])) == ['1']
assert next(f(2)) == 0 and sum(f(4)) == 6
""",
    ),
    "changes in place": (
        """
def f(x, *, y):
    x.sort(); y['z'] = x.pop()
def g(x):
    x[0][0] = 7; return x
def h(d):
    d.rotate(1)
""",
        """
from collections import deque
x, y = [3, 1, 2], {}
assert f(x, y=y) is None
assert x == [1, 2] and y == {'z': 3}
m = [[1, 2], [3]]
assert g(m) == [[7, 2], [3]] == m
d = deque([1, 2])
h(d)
assert list(d) == [2, 1]
""",
    ),
    "exceptions": (
        r"""
class Mine(ValueError): pass
def f(x):
    if x: raise Mine('no', x)
    return {}[x]
def g(x): return b'\xff'.decode()
""",
        """
for x, kind in ((1, ValueError), (0, KeyError)):
    try:
        f(x)
        assert False, 'nothing'
    except kind as error:
        assert error.args == (('no', 1) if x else (0,))
try:
    g(1)
except UnicodeError:
    pass
except ValueError:
    pass
""",
    ),
    "wrong arguments": (
        "def f(x): return x",
        """
try:
    f(1, 2)
except TypeError:
    ok = True
assert ok
""",
    ),
    "state between calls": (
        """
n = 0
def f():
    global n
    n += 1
    return n
""",
        """
assert f() == 1
assert f() == 2
""",
    ),
    "constants": (
        """
TABLE = {'a': [1]}
def f(): return TABLE
""",
        """
assert TABLE['a'] == [1]
assert f() == TABLE
""",
    ),
    "a function that is named like a builtin": ("def sum(a, b): return a * b", "assert sum(2, 3) == 6"),
    "printing": (
        """
print('first')
def f(x):
    print('called')
    return x
""",
        "assert f(1) == 1",
    ),
    "no output": (
        """
import sys
sys.stdout = None
def f(x): return x
""",
        "assert f(1) == 1",
    ),
    "threads": (
        """
from concurrent.futures import ThreadPoolExecutor
def f(x):
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda y: y + 1, x))
""",
        "assert f([1, 2]) == [2, 3]",
    ),
    "asynchronous inside": (
        """
import asyncio
async def g(x):
    await asyncio.sleep(0)
    return x
def f(x): return asyncio.run(g(x))
""",
        "assert f(1) == 1",
    ),
}


@isolated
@pytest.mark.parametrize(("code", "checks"), AGREEING.values(), ids=AGREEING)
def test_right_code_passes_in_both_ways(code: str, checks: str) -> None:
    apart = run_python(code, checks, limits=LIMITS)
    assert (apart.status, apart.proof) == ("passed", "apart"), apart.output
    beside = run_python(code, checks, limits=LIMITS, apart=False)
    assert (beside.status, beside.proof) == ("passed", "in-process"), beside.output
    assert beside.output == apart.output


@isolated
@pytest.mark.parametrize(
    ("code", "checks"),
    [
        ("def f(g, x): return g(g(x))", "assert f(lambda x: x + 1, 1) == 3"),
        ("def f(x): return x.name", "class Named:\n    name = 'n'\nassert f(Named()) == 'n'"),
        ("def f(x): return next(x)", "assert f(iter([1])) == 1"),
        ("def f(x): return x['new']", "from collections import defaultdict\nassert f(defaultdict(list)) == []"),
    ],
)
def test_checks_that_give_more_than_values_run_in_the_process_of_the_code(code: str, checks: str) -> None:
    outcome = run_python(code, checks, limits=LIMITS)
    assert (outcome.status, outcome.proof) == ("passed", "in-process"), outcome.output


@isolated
def test_what_failed_apart_is_shown_without_the_machinery() -> None:
    outcome = run_python("def f(x):\n    return x", "assert f(1) == 1\nassert f(2) == 3, 'too small'", limits=LIMITS)
    assert outcome.output == (
        'Traceback (most recent call last):\n  File "<tests>", line 2, in <module>\nAssertionError: too small\n'
    )
    outcome = run_python("x = 1\nx.y", "assert f(1) == 1", limits=LIMITS)
    assert outcome.output.startswith('Traceback (most recent call last):\n  File "<answer>", line 2, in <module>\nAttr')
    assert run_python("", "assert f(1) == 1", limits=LIMITS).output.endswith("NameError: name 'f' is not defined\n")
