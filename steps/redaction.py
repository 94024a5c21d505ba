"""Takes contact details and identity numbers out of free text.

CVs and job texts are where personal data hides once the personal fields are left behind. What is
removed carries no information about skills, so the model loses nothing by it.
"""

import unicodedata

import polars as pl

PERSONAL = (
    r"[A-Za-z0-9_.+-]+@[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)+"  # e-mail
    r"|(?:https?://|www\.)[^ \n\t]+|(?:linkedin|facebook|instagram)\.com[^ \n\t]*"  # pages
    r"|(?-u:\b)[0-9]{3}\.?[0-9]{3}\.?[0-9]{3}-[0-9]{2}(?-u:\b)"  # CPF
    r"|(?-u:\b)[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}-?[0-9xX](?-u:\b)"  # RG
    r"|(?-u:\b)[0-9]{5}-[0-9]{3}(?-u:\b)"  # postcode
    r"|(?:\+?[0-9]{2}[ .-]*)?\(?(?-u:\b)[0-9]{2}\)?[ .-]*9?[ .-]?[0-9]{4}[ .-]?[0-9]{4}(?-u:\b)"
    r"|(?i:nascid[oa]|nascimento)[^0-9]{0,20}[0-9]{1,2}[/.-][0-9]{1,2}[/.-][0-9]{2,4}"
    r"|(?i:estado civil|sexo|g[êe]nero)[ \t]*:[ \t]*[^ \n]+"
    r"|(?i:endere[çc]o|resid[êe]ncia)[ \t]*:[ \t]*[^\n]*"
)
"""One pattern, in the syntax of Rust's regex. Word borders and digits are ASCII ones: with Unicode
ones that engine leaves its automaton at the first accent and takes a hundred times as long."""


def redact(text: pl.Expr) -> pl.Expr:
    """The column with every e-mail, address, phone, CPF, RG, birth date and the like blanked."""
    return text.str.replace_all(PERSONAL, " ")


def without_name(text: str, name: str | None) -> str:
    """`text` without the person's full name, whatever its case and with or without its accents."""
    sought = _fold(" ".join((name or "").split()))
    if not text or len(sought) < 5 or b" " not in sought:
        return text
    text = unicodedata.normalize("NFC", text)
    folded = _fold(text)
    kept, done = [], 0
    while (begin := folded.find(sought, done)) >= 0:
        end = begin + len(sought)
        kept += [text[done:begin], " "]
        done = end
    return "".join([*kept, text[done:]])


def _fold(text: str) -> bytes:
    """One byte a character: lower case, no accents. All of Portuguese is in Latin-1."""
    return text.encode("latin-1", "replace").translate(_FOLDED)


def _folded(sign: str) -> str:
    if sign.isspace():
        return " "
    bare = unicodedata.normalize("NFKD", sign.lower())[0]
    return bare if bare.isascii() else sign


_FOLDED = "".join(_folded(chr(i)) for i in range(256)).encode("latin-1")
