"""What a file really is, told from its first bytes: most broken downloads are whole files of another kind."""

SIGNATURES = (
    (b"version https://git-lfs", "a Git-LFS pointer, not the file itself; run `git lfs pull`"),
    (b"<!doctype html", "an HTML page, saved instead of the file (a login page? log in and download again)"),
    (b"<html", "an HTML page, saved instead of the file (a login page? log in and download again)"),
    (b"<svg", "an SVG drawing"),
    (b"%!ps", "PostScript (EPS)"),
    (b"%pdf", "a PDF"),
    (b"simple  =", "a FITS file"),
    (b"8bps", "a Photoshop file (PSD)"),
    (b"ii*\0", "a TIFF"),
    (b"mm\0*", "a TIFF"),
    (b"pk\x03\x04", "a zip archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x93numpy", "a NumPy array (.npy)"),
    (b"gguf", "a GGUF file"),
    (b"\x89png", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
)


def describe(head: bytes) -> str | None:
    """Name the kind of file that begins with ``head``, or None where no signature fits."""
    if not head:
        return "an empty file (0 bytes); the download did not finish"
    start = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, kind in SIGNATURES:
        if start.startswith(signature):
            return kind
    if head[4:8] == b"ftyp":
        return "a HEIC/AVIF/MP4 container"
    if start.startswith(b"<?xml") and b"<svg" in start:
        return "an SVG drawing"
    return None


def is_text(head: bytes) -> bool:
    """Tell whether a file begins as text: what UTF-8 has for people to read, and no byte else."""
    text = head.decode("utf-8", "replace")[:-1]  # the last character may be cut
    return len(text) > 8 and "".join(text.split()).isprintable() and "\ufffd" not in text
