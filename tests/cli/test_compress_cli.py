"""``underhood compress`` and ``decompress`` as they are typed: files, tables, and mistakes in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinyrun import underhood
from underhood.cli.main import main
from underhood.evals.compression import compressors_bytes

TEXT = "The list is a mutable sequence, and so the items of a list can be changed by whoever holds the list. " * 12


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "notes.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def complaint(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a mistake says: one line, exit code 2."""
    assert main([str(word) for word in words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_compress_shows_itself_beside_others_and_decompress_gives_the_file_back(
    file: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["compress", str(file), "--check"]) == 0
    shown, _ = capsys.readouterr()
    for name in ("n-gram, 5 bytes back", "gzip", "bz2", "xz", "zstd", "bits per byte", f"{len(TEXT):,} bytes"):
        assert name in shown
    packed = file.with_name("notes.txt.uh")
    assert packed.stat().st_size < 0.3 * len(TEXT)
    file.rename(file.with_name("original.txt"))
    assert main(["decompress", str(packed)]) == 0
    assert file.read_text(encoding="utf-8") == TEXT
    assert f"{len(TEXT):,} bytes" in capsys.readouterr()[0]


def test_compress_json_counts_the_model_in(tiny_run: Path, file: Path):
    out = file.with_suffix(".small")
    done = underhood("compress", str(file), "--model", str(tiny_run), "--out", str(out), "--json", cwd=file.parent)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    ours = report["compressed"][0]
    assert ours["bytes"] == out.stat().st_size
    assert ours["model_bytes"] > 10_000
    assert ours["adjusted_rate"] == pytest.approx((ours["bytes"] + ours["model_bytes"]) / len(TEXT))
    assert {row["name"] for row in report["compressed"][1:]} == {"gzip", "bz2", "xz", "zstd"}
    back = file.with_name("back.txt")
    done = underhood("decompress", str(out), "--model", str(tiny_run), "--out", str(back), cwd=file.parent)
    assert done.returncode == 0, done.stderr
    assert back.read_bytes() == file.read_bytes()


def test_mistakes_are_one_line_and_write_nothing(file: Path, capsys: pytest.CaptureFixture[str]):
    assert "can't be read" in complaint(capsys, "compress", file.with_name("none.txt"))
    assert "does not end in .uh" in complaint(capsys, "decompress", file)
    plain = file.with_name("plain.uh")
    plain.write_bytes(b"hello")
    assert "plain.uh: this is not a file that underhood compress wrote" in complaint(capsys, "decompress", plain)
    assert main(["compress", str(file), "--no-compare"]) == 0
    capsys.readouterr()
    assert "there already" in complaint(capsys, "compress", file)
    packed = file.with_name("notes.txt.uh")
    assert "there already" in complaint(capsys, "decompress", packed)
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-9])
    assert "notes.txt.uh: " in complaint(capsys, "decompress", packed, "--out", file.with_name("never.txt"))
    packed.write_bytes(whole[:-3] + b"abc")
    assert "checksum" in complaint(capsys, "decompress", packed, "--out", file.with_name("never.txt"))
    assert sorted(path.name for path in file.parent.iterdir()) == ["notes.txt", "notes.txt.uh", "plain.uh"]
    packed.write_bytes(whole + b"tail")
    line = complaint(capsys, "decompress", packed, "--out", file.with_name("never.txt"))
    assert f"4 bytes follow the end of what was packed, at offset {len(whole):,}" in line
    assert sorted(path.name for path in file.parent.iterdir()) == ["notes.txt", "notes.txt.uh", "plain.uh"]
    packed.write_bytes(whole + whole)
    assert main(["decompress", str(packed), "--force"]) == 0
    assert file.read_text(encoding="utf-8") == TEXT * 2


def test_compressors_write_what_their_programs_would():
    import bz2
    import gzip
    import lzma

    data = TEXT.encode()
    sizes = compressors_bytes(data)
    assert sizes["bz2"] == len(bz2.compress(data, 9))
    assert sizes["xz"] == len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    assert sizes["gzip"] == len(gzip.compress(data, 9))
    assert 20 < sizes["zstd"] < len(data)
