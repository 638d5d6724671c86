"""Data sets of the Hub, with the Hub's two calls answered from local Parquet files."""

from types import SimpleNamespace

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import errors

from underhood.core.errors import UserError
from underhood.data.records import hub_records
from underhood.data.sources import load_corpus


class Hub:
    """A Hub with one data set: branch → {file: rows of text}."""

    def __init__(self, folder, branches):
        self.folder, self.branches, self.downloads = folder, branches, []

    def dataset_info(self, repo, revision=None):
        if repo != "owner/name":
            raise errors.RepositoryNotFoundError("404", response=_response(404))
        if revision not in self.branches:
            raise errors.RevisionNotFoundError("404", response=_response(404))
        files = [SimpleNamespace(rfilename=name) for name in self.branches[revision]]
        return SimpleNamespace(sha=f"commit-of-{revision}", siblings=files)

    def download(self, repo, file, *, repo_type, revision):
        assert repo_type == "dataset"
        branch = {f"commit-of-{name}": files for name, files in self.branches.items()}[revision]
        self.downloads.append(file)
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".parquet"):
            pq.write_table(pa.table({"text": branch[file]}), path)
        else:
            path.write_text("\n<|endoftext|>\n".join(branch[file]))
        return str(path)


def _response(status):
    """As much of a response as the client's errors look at (its HTTP library differs from version to version)."""
    return SimpleNamespace(status_code=status, headers={}, request=SimpleNamespace(method="GET", url="hub"), text="")


ConnectError = type("ConnectError", (Exception,), {"__module__": "httpx2"})


@pytest.fixture
def hub(tmp_path, monkeypatch):
    def make(branches):
        hub = Hub(tmp_path, branches)
        api = SimpleNamespace(dataset_info=hub.dataset_info)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
        return hub

    return make


def texts(corpus):
    return [document.text for document in corpus.documents]


def test_uploaded_parquet_of_the_split_is_read_in_order(hub):
    made = hub(
        {
            None: {
                "README.md": [],
                "data/train-00001-of-00002.parquet": ["c"],
                "data/train-00000-of-00002.parquet": ["a", "b"],
                "data/test-00000-of-00001.parquet": ["t"],
            }
        }
    )
    corpus = load_corpus("hf:owner/name")
    assert texts(corpus) == ["a", "b", "c"]
    assert corpus.facts["revision"] == "commit-of-None"
    assert texts(load_corpus("hf:owner/name", split="test")) == ["t"]
    made.downloads.clear()
    assert texts(load_corpus("hf:owner/name", limit=1)) == ["a"]
    assert made.downloads == ["data/train-00000-of-00002.parquet"]  # the rest is never fetched


def test_converted_branch_is_used_when_nothing_else_can_be_read(hub):
    hub(
        {
            None: {"script.py": [], "README.md": []},
            "refs/convert/parquet": {"default/train/0000.parquet": ["a"], "default/validation/0000.parquet": ["v"]},
        }
    )
    assert texts(load_corpus("hf:owner/name")) == ["a"]
    assert texts(load_corpus("hf:owner/name", split="val")) == ["v"]


def test_config_chooses_a_folder_and_must_be_given_where_there_are_several(hub):
    hub({None: {"en/train-0.parquet": ["hello"], "fr/train-0.parquet": ["salut"]}})
    assert texts(load_corpus("hf:owner/name:fr")) == ["salut"]
    with pytest.raises(UserError, match=r"several configs; expected en \| fr. Write hf:owner/name:en"):
        load_corpus("hf:owner/name")
    with pytest.raises(UserError, match=r"no config 'de'; expected en \| fr"):
        load_corpus("hf:owner/name:de")


def test_text_files_are_read_where_there_is_no_parquet(hub):
    hub({None: {"README.md": ["no"], "stories-train.txt": ["one", "two"], "stories-valid.txt": ["three"]}})
    assert texts(load_corpus("hf:owner/name")) == ["one\n", "two"]


def test_missing_split_lists_those_there_are(hub):
    hub({None: {"data/train-0.parquet": ["a"], "data/test-0.parquet": ["b"]}})
    with pytest.raises(UserError, match=r"no split 'dev'; expected test \| train"):
        load_corpus("hf:owner/name", split="dev")


@pytest.mark.parametrize("spec", ["hf:", "hf:a b", "hf:a/b/c"])
def test_malformed_name_is_explained(spec):
    with pytest.raises(UserError, match="hf:OWNER/NAME"):
        load_corpus(spec)


def test_unknown_data_set_and_unreadable_files_are_explained(hub):
    hub({None: {"image.png": []}})
    with pytest.raises(UserError, match="no data set 'other/one'"):
        load_corpus("hf:other/one")
    with pytest.raises(UserError, match=r"no files of a type.*\.parquet"):
        load_corpus("hf:owner/name")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ConnectError("name not known"), "can't reach"),
        (errors.OfflineModeIsEnabled("offline"), "can't reach"),
        (errors.GatedRepoError("403", response=_response(403)), "permission"),
        (errors.HfHubHTTPError("500 server", response=_response(500)), "refused"),
    ],
)
def test_network_trouble_is_one_line(monkeypatch, error, told):
    def fail(repo, revision=None):
        raise error

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(dataset_info=fail))
    with pytest.raises(UserError, match=told) as caught:
        load_corpus("hf:owner/name")
    assert "\n" not in str(caught.value)


def test_records_keep_every_column_and_only_what_is_asked_for_is_downloaded(hub):
    made = hub({None: {"data/test-00000-of-00002.parquet": ["a", "b"], "data/test-00001-of-00002.parquet": ["c"]}})
    assert hub_records("owner/name", split="test", limit=2) == [{"text": "a"}, {"text": "b"}]
    assert made.downloads == ["data/test-00000-of-00002.parquet"]
    assert [record["text"] for record in hub_records("hf:owner/name", split="test")] == ["a", "b", "c"]
    with pytest.raises(UserError, match="no split 'train'"):
        hub_records("owner/name", split="train")
