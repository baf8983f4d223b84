"""Names of files as text: a name that is no valid UTF-8 gets an id that is, and that leads back to the name.

Python holds a byte that does not decode as half of a surrogate pair (PEP 383), which no JSON document, terminal or
database takes. In an id such a byte is `\\xe9`, as a shell prints it. A backslash is itself escaped, as `\\x5c`, only
where it would be read as such an escape, so that all other names are ids as they are.
"""

import re

_HALVES = re.compile("[\udc80-\udcff]")
_ESCAPE = re.compile(r"\\x([89a-f][0-9a-f]|5c)")
_READ_AS_ESCAPE = re.compile(rf"\\(?={_ESCAPE.pattern[2:]})")


def escaped(name: str) -> str:
    """A name as Python gives it, as text that every encoding of Unicode takes."""
    return _HALVES.sub(lambda half: f"\\x{ord(half[0]) - 0xDC00:02x}", _READ_AS_ESCAPE.sub(r"\\x5c", name))


def unescaped(text: str) -> str:
    """The name that `escaped` made the text of."""
    return _ESCAPE.sub(lambda found: "\\" if found[1] == "5c" else chr(0xDC00 + int(found[1], 16)), text)


def as_id(typed: str) -> str:
    """The id that a user means, who types either it or the name of the file."""
    return escaped(typed) if _HALVES.search(typed) else typed
