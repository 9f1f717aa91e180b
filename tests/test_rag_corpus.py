from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from pypdf import PdfWriter

from models.errors import BadImageError
from rag.corpus import MOST_CHARACTERS, CorpusError, Read, list_corpus
from rag.documents import read_html, read_markdown


def write_pdf(pages: list[str]) -> bytes:
    """A PDF of one line of text a page, written by hand: no library here can draw text into one."""
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    kids = []
    for text in pages:
        stream = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET" if text else ""
        kids.append(f"{len(objects) + 1} 0 R")
        font = "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Resources {font} "
            f"/Contents {len(objects) + 2} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    out, places = "%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size = len(objects) + 1
    out += (
        f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer << /Size {size} /Root 1 0 R >>\nstartxref\n{len(out)}\n"
    )
    return (out + "%%EOF").encode()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    (root / "notes").mkdir(parents=True)
    Image.new("RGB", (900, 60), "red").save(root / "car.jpg")
    (root / "car.txt").write_text("A red car.\n\nA car on a street.\nA red car.\n", encoding="utf-8")
    Image.new("RGB", (20, 20), "blue").save(root / "plain.png")
    (root / "notes" / "lab.md").write_text("# Lab\n\nFirst.\n\n## Samples\n\nThe powder is white.\n", encoding="utf-8")
    (root / "notes" / "plain.txt").write_text("Zażółć gęślą jaźń. 빨간 차.", encoding="utf-8")
    (root / "page.html").write_text("<title>T</title><h1>H</h1><p>Hello <b>there</b>.</p>", encoding="utf-8")
    (root / "report.pdf").write_bytes(write_pdf(["The first page", "", "The third page"]))
    (root / "data.bin").write_bytes(b"\0\1")
    (root / ".hidden.txt").write_text("no", encoding="utf-8")
    return root


def read(root: Path, name: str) -> Read:
    return next(file for file in list_corpus(root).files if file.id == name).load().parse()


def test_files_are_listed_by_kind_captions_with_their_picture(corpus: Path) -> None:
    listing = list_corpus(corpus)
    assert [(file.id, file.kind) for file in listing.files] == [
        ("car.jpg", "image"),
        ("notes/lab.md", "markdown"),
        ("notes/plain.txt", "text"),
        ("page.html", "html"),
        ("plain.png", "image"),
        ("report.pdf", "pdf"),
    ]
    assert listing.files[0].captions == (corpus / "car.txt",)
    assert listing.ignored == ("data.bin",)


def test_links_out_of_the_folder_do_not_count(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (corpus / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert "link.txt" not in [file.id for file in list_corpus(corpus).files]


def test_an_index_within_the_corpus_is_no_part_of_it(corpus: Path) -> None:
    (corpus / "index" / "chunks.lance").mkdir(parents=True)
    (corpus / "index" / "chunks.lance" / "a.txt").write_text("x", encoding="utf-8")
    assert not [file for file in list_corpus(corpus).files if "lance" in file.id]


def test_a_picture_is_one_chunk_with_its_captions_and_a_preview(corpus: Path) -> None:
    found = read(corpus, "car.jpg")
    (chunk,) = found.chunks
    assert (chunk.id, chunk.text) == ("car.jpg#0", "A red car.\nA car on a street.")
    assert found.rgb is not None
    assert found.rgb.size == (900, 60)
    assert chunk.picture is not None
    assert Image.open(io.BytesIO(chunk.picture)).size == (640, 43)


def test_documents_become_passages_with_their_headings_and_pages(corpus: Path) -> None:
    assert [(c.id, c.heading, c.text) for c in read(corpus, "notes/lab.md").chunks] == [
        ("notes/lab.md#0", "Lab", "First."),
        ("notes/lab.md#1", "Lab › Samples", "The powder is white."),
    ]
    assert [(c.page, c.text) for c in read(corpus, "report.pdf").chunks] == [
        (1, "The first page"),
        (3, "The third page"),
    ]
    assert [(c.heading, c.text) for c in read(corpus, "page.html").chunks] == [("T › H", "Hello there.")]
    assert read(corpus, "notes/plain.txt").chunks[0].text == "Zażółć gęślą jaźń. 빨간 차."


def test_long_passages_are_cut_between_sentences_and_lose_no_word(tmp_path: Path) -> None:
    sentences = [f"Sentence number {at} weighs approx. {at}.5 kg." for at in range(60)]
    monster = "x" * (MOST_CHARACTERS + 100)
    (tmp_path / "long.txt").write_text(" ".join(sentences) + " " + monster, encoding="utf-8")
    chunks = read(tmp_path, "long.txt").chunks
    assert max(len(chunk.text) for chunk in chunks) <= MOST_CHARACTERS
    assert "".join(chunk.text for chunk in chunks).replace(" ", "") == ("".join(sentences) + monster).replace(" ", "")
    assert all(chunk.text.startswith("Sentence") for chunk in chunks[:-2])
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))


def test_the_hash_changes_with_the_file_and_with_its_captions(corpus: Path) -> None:
    def hashes() -> dict[str, str]:
        return {file.id: file.load().source.sha256 for file in list_corpus(corpus).files}

    before = hashes()
    (corpus / "car.txt").write_text("A blue car.", encoding="utf-8")
    (corpus / "page.html").write_text("<p>Other</p>", encoding="utf-8")
    changed = {name for name, digest in hashes().items() if digest != before[name]}
    assert changed == {"car.jpg", "page.html"}


def locked_pdf() -> bytes:
    writer = PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt("secret", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"\xff\xfe\xfa", "UTF-8"),
        ("a.txt", b"\xb3\xa1", "UTF-8"),
        ("a.txt", b"ab\0c", "binary"),
        ("a.txt", b" \n", "no text"),
        ("a.md", b"# Only a heading", "no text"),
        ("a.html", b"<script>alert(1)</script>", "no text"),
        ("a.pdf", b"%PDF-1.4 nonsense", "damaged"),
        ("a.pdf", write_pdf([""]), "OCR"),
        ("a.pdf", locked_pdf(), "password"),
    ],
)
def test_a_bad_document_is_named_with_what_to_do(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CorpusError, match=rf"^{name}: .*{message}"):
        read(tmp_path, name)


def test_a_bad_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadImageError, match=r"a\.png"):
        read(tmp_path, "a.png")


def test_no_folder_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such folder"):
        list_corpus(tmp_path / "absent")
    with pytest.raises(CorpusError, match="holds no picture"):
        list_corpus(tmp_path)


def test_markdown_headings_in_code_and_front_matter_are_none() -> None:
    text = "---\ntitle: x\n---\nTitle\n=====\nOne.\n```\n# code\n```\nUnder\n-----\nTwo.\n# New\nThree."
    assert [(one.heading, one.text.split()) for one in read_markdown(text)] == [
        ("Title", ["One.", "#", "code", "Under", "-----", "Two."]),
        ("New", ["Three."]),
    ]


def test_html_shows_what_a_reader_sees() -> None:
    page = b"<h2>A</h2><!-- no --><div>one<br>two</div><ul><li>x\n  y</li><li>z</li></ul>"
    page += b"<style>p{}</style><h3>B</h3>t &lt;b&gt;"
    assert [(one.heading, one.text.split()) for one in read_html(page)] == [
        ("A", ["one", "two", "-", "x", "y", "-", "z"]),
        ("A › B", ["t", "<b>"]),
    ]
