"""The lint of docstrings finds each kind of them."""

from __future__ import annotations

from scripts.docstrings import REFUSED, docstrings

SOURCE = '''
"""What a module is."""
LIMIT = 1
"""How much, in seconds."""
class A:
    """Who asks."""
    field: int
    """Whose it is."""
    def method(self):
        """Returns what is asked."""
        def inner():
            """Where it is."""
async def function():
    """That's it."""
    text = "What is no docstring"
'''


def test_relative_clauses_are_found() -> None:
    refused = sorted(line for line, text in docstrings(SOURCE) if REFUSED.match(text))
    assert refused == [2, 4, 6, 8, 12, 14]


def test_words_that_begin_alike_are_allowed() -> None:
    assert not REFUSED.match("However long it takes.")
    assert not REFUSED.match("Whatever.")
