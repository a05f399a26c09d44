"""Answers that try to pass without being right."""

import pytest

from whetstone.sandbox import Limits, run_python

isolated = pytest.mark.usefixtures("isolated")
LIMITS = Limits(time_s=5)
CHECKS = "assert f(2) == 1741\nassert f([3]) == {'x': 1742}"

FORGERIES = {
    "exit": """
import sys
def f(x): sys.exit(0)
""",
    "exit before": "import os; os._exit(0)",
    "exit within": """
import os
def f(x): os._exit(0)
""",
    "exit as the checks do": """
import os
def f(x): os._exit(79)
""",
    "exit at exit": """
import atexit, os
atexit.register(os._exit, 0)
raise SystemExit
""",
    "equal to all": """
class Same:
    def __eq__(self, other): return True
    __hash__ = None
def f(x): return Same()
""",
    "equal to all, a number": """
class Same(int):
    def __eq__(self, other): return True
def f(x): return Same()
""",
    "equal to all, a dict": """
class Same(dict):
    __eq__ = lambda *_: True
    __ne__ = lambda *_: False
def f(x): return Same()
""",
    "equal by the class of the class": """
class Kind(type):
    def __eq__(self, other): return True
    __hash__ = type.__hash__
class Same(metaclass=Kind):
    __module__ = 'builtins'
    __qualname__ = 'dict'
def f(x): return Same()
""",
    "no assertion": """
import builtins
builtins.AssertionError = type('Quiet', (Exception,), {})
builtins.exec = builtins.compile = builtins.print = lambda *_, **__: None
def f(x): return 0
""",
    "no exception": """
import sys
sys.excepthook = sys.__excepthook__ = lambda *_: None
def f(x): raise SystemExit(0)
""",
    "traced past": """
import sys
def trace(frame, event, argument):
    if frame.f_code.co_filename == '<tests>':
        frame.f_lineno += 1
    return trace
sys.settrace(trace)
def f(x):
    sys._getframe(1).f_trace = trace
    return 0
""",
    "written to all descriptors": r"""
import os
def f(x):
    for token in (b'passed', b'\0\0\0\2[]', bytes(32)):
        for n in range(1024):
            try: os.write(n, token)
            except OSError: pass
    return 0
""",
    "passed on from all descriptors": """
import os
def f(x):
    seen = []
    for n in range(3, 1024):
        try: os.set_blocking(n, False); seen.append(os.read(n, 4096))
        except OSError: pass
    for n in range(3, 1024):
        for one in seen:
            try: os.write(n, one)
            except OSError: pass
    return 0
""",
    "looked up": """
import gc, sys
def f(x):
    frame, texts = sys._getframe(), [*map(str, gc.get_objects())]
    while frame:
        texts += map(str, [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts])
        frame = frame.f_back
    number = int('17') * 100 + 41
    if not any(str(number) in text for text in texts):
        return 0
    return number if x == 2 else {'x': number + 1}
""",
    "changed afterwards": """
import threading, time
def f(x): return 0
def later():
    while True:
        globals().update(f=lambda x: 1741, assertions=0); time.sleep(0)
threading.Thread(target=later, daemon=True).start()
""",
    "changed what it was given": """
def f(x):
    if isinstance(x, list): x.clear(); x.append(1742)
    return x
""",
    "its name": "f = 'f'",
    "nothing": "",
    "a message of its own": """
import os
def f(x):
    message = b'{"value":{"object":1}}'
    for n in range(3, 64):
        try: os.write(n, len(message).to_bytes(4, 'big') + message)
        except OSError: pass
    return 0
""",
    "a message that is too long": r"""
import os
def f(x):
    for n in range(3, 64):
        try: os.write(n, b'\xff' * 64)
        except OSError: pass
    return 0
""",
    "a message too deep": """
import os
def f(x):
    message = b'[' * 200_000
    for n in range(3, 64):
        try: os.write(n, len(message).to_bytes(4, 'big') + message)
        except OSError: pass
    return 0
""",
    "the checks ended": """
import os
def f(x):
    for process in range(2, 99):
        if process != os.getpid():
            try: os.kill(process, 9)
            except OSError: pass
    return 0
""",
    "an endless value": """
import itertools
def f(x): return itertools.count()
""",
    "itself in itself": """
def f(x):
    x = []
    x.append(x)
    return x
""",
    "a number that is none": "def f(x): return float('nan')",
}


@isolated
@pytest.mark.parametrize("code", FORGERIES.values(), ids=FORGERIES)
def test_no_forgery_passes_apart(code: str) -> None:
    outcome = run_python(code, CHECKS, limits=LIMITS)
    assert (outcome.status, outcome.proof) == ("failed", "apart"), outcome.output


@isolated
def test_the_right_answer_passes_apart() -> None:
    code = "def f(x):\n    return 1741 if x == 2 else {'x': 1742}"
    outcome = run_python(code, CHECKS, limits=LIMITS)
    assert (outcome.status, outcome.proof) == ("passed", "apart"), outcome.output


@isolated
@pytest.mark.parametrize(
    "checks",
    [
        "try:\n    f(2)\nexcept Exception:\n    pass\nelse:\n    raise AssertionError",
        "try:\n    f(2)\nfinally:\n    result = 3",
        "import contextlib\ntry:\n    f(2)\nexcept:\n    pass",
    ],
)
@pytest.mark.parametrize(
    "end", ["os._exit(0)", "os.kill(os.getpid(), 9)", "everywhere(os.close)", "os.abort()", "everywhere(nonsense)"]
)
def test_checks_cannot_swallow_the_end_of_the_answer(checks: str, end: str) -> None:
    everywhere = "def everywhere(do):\n    for n in range(3, 64):\n        try: do(n)\n        except OSError: pass\n"
    nonsense = "def nonsense(n): os.write(n, b'\\xff' * 99)\n"
    assert run_python(f"import os\n{everywhere}{nonsense}def f(x): {end}", checks, limits=LIMITS).status == "failed"


@isolated
@pytest.mark.parametrize(
    ("name", "body"),
    [("abs", "return 0"), ("len", "return 3"), ("all", "return True"), ("sorted", "return []"), ("set", "return 0")],
)
def test_builtins_are_those_of_the_checks(name: str, body: str) -> None:
    checks = "assert abs(f(2) - 3) < 1 and len(f([])) == 3 and all(f(3)) and sorted(f(4)) == [1] and set(f(5)) == {2}"
    assert run_python(f"def f(x): return 0\ndef {name}(*_, **__): {body}", checks, limits=LIMITS).status == "failed"


@isolated
@pytest.mark.parametrize("forgery", ["no assertion", "no exception", "exit", "exit within", "nothing", "its name"])
def test_plain_forgeries_fail_in_the_same_process_too(forgery: str) -> None:
    outcome = run_python(FORGERIES[forgery], CHECKS, limits=LIMITS, apart=False)
    assert (outcome.status, outcome.proof) == ("failed", "in-process")


TOKEN_PASSED_ON = """
import os
def f(x):
    for n in range(3, 64):
        try:
            os.set_blocking(n, False)
            token = os.read(n, 64)
        except OSError:
            continue
        if len(token) == 32:
            break
    for n in range(3, 64):
        try:
            os.write(n, token)
        except OSError:
            pass
    os._exit(0)
"""


@isolated
@pytest.mark.parametrize("code", [FORGERIES["equal to all"], TOKEN_PASSED_ON], ids=["equal to all", "token"])
def test_what_the_same_process_cannot_prove_says_so(code: str) -> None:
    """The hole that is left, on record: whoever closes it may turn this round."""
    outcome = run_python(code, "assert f(2) == 1741", limits=LIMITS, apart=False)
    assert (outcome.status, outcome.proof) == ("passed", "in-process")
    assert run_python(code, "assert f(2) == 1741", limits=LIMITS).status == "failed"
