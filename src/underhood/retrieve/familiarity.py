"""How likely it is that somebody asks about a name of Python's standard library, as a factor of its score."""

from __future__ import annotations

BUILTIN, COMMON, OTHER, REMOTE, PRIVATE = 1.25, 1.15, 1.0, 0.8, 0.6

COMMON_MODULES = frozenset(
    """
    argparse array ast asyncio base64 bisect calendar collections configparser contextlib copy csv dataclasses datetime
    decimal difflib enum filecmp fnmatch fractions functools getpass glob gzip hashlib heapq html http.server inspect io
    itertools json logging math operator os os.path pathlib pickle platform pprint queue random re secrets shlex shutil
    signal socket sqlite3 statistics string struct subprocess sys tarfile tempfile textwrap threading time timeit
    traceback typing unittest urllib.parse urllib.request uuid warnings webbrowser xml.etree.ElementTree zipfile zlib
    """.split()  # noqa: SIM905
)
"""Modules of a first year with Python."""

REMOTE_MODULES = (
    *(
        "_pyio",
        "aifc",
        "asynchat",
        "asyncore",
        "bdb",
        "cgi",
        "chunk",
        "codeop",
        "compileall",
        "concurrent.futures.process",
    ),
    *("copyreg", "crypt", "ctypes", "curses", "distutils", "dis", "email", "encodings", "gettext", "http.cookiejar"),
    *("idlelib", "imaplib", "importlib", "lib2to3", "mailbox", "modulefinder", "msilib", "multiprocessing", "nntplib"),
    *("ntpath", "nturl2path", "opcode", "optparse", "pdb", "pickletools", "pipes", "pkgutil", "posixpath", "pstats"),
    *("pyclbr", "pydoc", "plistlib", "sndhdr", "sre_parse", "sunau", "symtable", "sysconfig", "tabnanny", "telnetlib"),
    *(
        "test",
        "tkinter",
        "tokenize",
        "trace",
        "turtle",
        "unittest.mock",
        "uu",
        "wsgiref",
        "xdrlib",
        "xml.dom",
        "xml.sax",
    ),
    *("xmlrpc", "zipapp", "zipimport"),
)
"""Packages and modules for special work, and those that Python keeps for old programs only."""


def familiarity(name: str, owner: str) -> float:
    """Factor of the score of a documented name: 1.25 for built-in functions and types down to 0.6 for private names.

    Args:
        name: dotted name, e.g. ``os.path.join``.
        owner: the module that it is imported from, ``builtins`` for built-in names.
    """
    if any(segment.startswith("_") for segment in name.split(".")):
        return PRIVATE
    if owner == "builtins":
        return BUILTIN
    if any(owner == module or owner.startswith(module + ".") for module in REMOTE_MODULES):
        return REMOTE
    return COMMON if owner in COMMON_MODULES else OTHER
