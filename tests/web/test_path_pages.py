"""The path in the app: the same pages as the export, under a policy that lets nothing else run."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.testclient import TestClient

from underhood.curriculum import results
from underhood.curriculum.pages.site import page
from underhood.web.path_pages import path_router


def client() -> TestClient:
    app = FastAPI()
    app.include_router(path_router())
    return TestClient(app)


def test_path_pages_are_those_of_the_export_with_a_way_back():
    actual = client().get("/path/", headers={"accept": "text/html"})
    assert actual.status_code == 200
    assert actual.url.path == "/path/index.html"
    assert 'href="/runs"' in actual.text
    exported = page("p1913_markov", results.places(None))
    assert client().get("/path/p1913_markov.html").text == page("p1913_markov", results.places(None), app=True)
    assert 'href="/runs"' not in exported
    assert "frame-ancestors 'none'" in actual.headers["content-security-policy"]


def test_other_spellings_of_a_milestone_lead_to_its_page_and_reference_pages_are_there():
    for name in ("markov-1913", "1913_markov", "p1913-markov"):
        assert client().get(f"/path/{name}.html").url.path == "/path/p1913_markov.html"
    for name, says in (("docs-glossary", "Divides the logits"), ("commands", "--temperature"), ("code", "nn/rope.py")):
        actual = client().get(f"/path/{name}.html")
        assert actual.status_code == 200
        assert says in actual.text


def test_path_page_that_does_not_exist_is_not_found():
    assert client().get("/path/p2099_nothing.html").status_code == 404
    assert client().get("/path/p1913_markov.html").status_code == 200
