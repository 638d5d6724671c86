"""HTML pages as Markdown: structure kept, decoration dropped, every line traced to the page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underhood.data.html_text import html_to_markdown

PAGE = """<!doctype html>
<html><head><title>Guide &mdash; Site</title><style>p {color: red}</style></head>
<body>
<nav><a href="/">Home</a><nav>inner</nav>still menu</nav>
<h1>The
  guide<a href="#top">¶</a></h1>
<p>Read <b>this</b> first: <code>--flag</code>.
<p>Closed by nobody &amp; fine.
<ul><li>one<li><p>two</p><ol><li>inner</li><li>more</li></ol></li></ul>
After the list.
<dl><dt><code>--quiet</code></dt><dd>Prints nothing.</dd>
<dt>-v</dt><dt>--verbose</dt><dd>Prints more.</dd></dl>
<pre><code>weave run
  --x &lt;y&gt;</code></pre>
<table><tr><th>Name<th>Price
<tr><td>A</td><td></td></tr>
<tr><td>B</td><td>4|5</td></tr></table>
<script>var x = "<p>no</p>";</script>
<div hidden>no<div>no</div>no</div>
<p>End.</p><footer>Imprint</footer>
</body></html>
"""

MARKDOWN = """# The guide

Read this first: `--flag`.

Closed by nobody & fine.

- one
- two
  1. inner
  2. more

After the list.

- `--quiet`: Prints nothing.
- -v, --verbose: Prints more.

```
weave run
  --x <y>
```

| Name | Price |
| --- | --- |
| A |  |
| B | 4\\|5 |

End.
"""


def test_page_becomes_markdown_without_scripts_and_navigation():
    text, _ = html_to_markdown(PAGE)
    assert text == MARKDOWN


def test_every_line_names_the_line_of_the_page_that_has_its_words():
    text, lines = html_to_markdown(PAGE)
    page = PAGE.splitlines()
    assert len(lines) == len(text.split("\n"))
    for line, number in zip(text.split("\n"), lines, strict=True):
        words = line.replace("`", "").replace("&", "&amp;").replace("<y>", "&lt;y&gt;").strip("#-| ").split()
        word = words[-1].strip(".") if words else ""
        if word not in ("", "4\\|5", "---"):
            assert any(word in page[at] for at in (number - 1, number) if at < len(page)), (line, number)


def test_title_is_the_heading_only_where_the_page_has_none():
    assert html_to_markdown("<title>A &amp; B</title><p>text")[0].startswith("# A & B\n\ntext")
    assert "Site" not in html_to_markdown(PAGE)[0]


@pytest.mark.parametrize("tag", ["script", "style", "nav", "template", "footer"])
def test_dropped_elements_leave_nothing(tag):
    assert html_to_markdown(f"<p>a</p><{tag}>secret</{tag}><p>b</p>")[0].split() == ["a", "b"]


@given(st.text(alphabet="<>/ahpliuotdrbe1\"'&= \n-!", max_size=200))
def test_any_markup_gives_as_many_line_numbers_as_lines(html):
    text, lines = html_to_markdown(html)
    assert not lines or len(lines) == len(text.split("\n"))
    assert all(1 <= number <= html.count("\n") + 1 for number in lines)
