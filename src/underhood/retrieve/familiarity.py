"""Prior weights of the names of Python's standard library: the likelihood that somebody asks about them."""

from __future__ import annotations

BUILTIN, COMMON, OTHER, SPECIAL, PRIVATE = 1.7, 1.4, 1.0, 0.6, 0.5
EXCEPTION = 0.6
"""Further factor of exceptions and warnings: who asks how to do something doesn't ask for them."""

COMMON_MODULES = frozenset(
    """
    argparse ast asyncio base64 bisect calendar collections configparser contextlib copy csv dataclasses datetime
    difflib enum filecmp fnmatch fractions functools getpass glob gzip hashlib heapq html http.server inspect io
    itertools json logging math operator os os.path pathlib pickle platform pprint queue random re secrets shlex
    shutil signal smtplib socket sqlite3 statistics string struct subprocess sys tarfile tempfile textwrap threading
    time timeit traceback typing unicodedata urllib.parse urllib.request uuid warnings webbrowser
    xml.etree.ElementTree zipfile zlib
    """.split()  # noqa: SIM905
)
"""Modules of a first year with Python."""

SPECIAL_MODULES = frozenset(
    """
    _pyio abc aifc array asynchat asyncore audioop bdb cgi chunk cmd code codecs codeop compileall copyreg crypt
    ctypes curses decimal dis distutils email encodings ensurepip fileinput ftplib gettext http.cookiejar http.cookies
    idlelib imaplib imghdr imp importlib lib2to3 linecache locale mailbox mailcap mimetypes mmap modulefinder msilib
    multiprocessing netrc nntplib ntpath nturl2path numbers opcode optparse parser pdb pickletools pipes pkgutil
    plistlib poplib posixpath pstats pty pwd py_compile pyclbr pydoc quopri readline resource rlcompleter runpy sched
    selectors site sndhdr socketserver sre_compile sre_parse ssl stat stringprep sunau symtable sysconfig tabnanny
    telnetlib termios test tkinter token tokenize trace tracemalloc tty turtle types unittest uu venv wave weakref
    wsgiref xdrlib xml.dom xml.sax xmlrpc zipapp zipimport zoneinfo
    """.split()  # noqa: SIM905
)
"""Packages and modules for special work, and those that Python keeps for old programs only."""

SPECIAL_TYPES = ("bytearray", "bytes", "memoryview")
"""Built-in types whose methods have the names of those of ``str`` and ``list``, which are asked for more."""


KINDS = {"function": 1.0, "class": 1.0, "method": 0.85, "module": 0.7, "property": 0.7}
"""Further factor of what a name is: who asks how to do something wants to call something."""


def familiarity(name: str, owner: str, kind: str = "function") -> float:
    """Factor of the score of a documented name: 1.7 for built-in functions and types, less than 0.5 for private names.

    Args:
        name: dotted name, e.g. ``os.path.join``.
        owner: the module that it is imported from, ``builtins`` for built-in names.
        kind: function, class, method, property or module.
    """
    segments = name.split(".")
    packages = owner.split(".")
    if any(segment.startswith("_") for segment in segments):
        factor = PRIVATE
    elif owner == "builtins":
        factor = OTHER if segments[0] in SPECIAL_TYPES else BUILTIN
        kind = "function" if kind == "method" else kind  # methods of str and list are as well known as functions
    elif owner in COMMON_MODULES:
        factor = COMMON
    elif any(".".join(packages[:length]) in SPECIAL_MODULES for length in range(1, len(packages) + 1)):
        factor = SPECIAL
    else:
        factor = OTHER
    exceptional = any(segment.endswith(("Error", "Exception", "Warning", "Exit")) for segment in segments)
    return factor * KINDS[kind] * (EXCEPTION if exceptional else 1)
