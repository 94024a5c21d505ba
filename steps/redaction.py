"""Takes contact details and identity numbers out of free text.

CVs and job texts are where personal data hides once the personal fields are left behind. What is
removed carries no information about skills, so the model loses nothing by it.
"""

import unicodedata

import polars as pl

_B = r"(?-u:\b)"
_GAP = r"[ \t]*"
_NO_YEAR = r"(?:[03-9][0-9]{3}|1[0-8][0-9]{2}|2[1-9][0-9]{2})"
_COUNTRY = r"(?:55[ ().+-]*)?"
_AREA = r"(?:0(?:[x*]{2}|[0-9]{2})?[ .-]*)?"  # with the trunk prefix: 0, 0xx, 0**, 015
_CELL = r"9[ .-]?[0-9]{4}[ .-]*[0-9]{4}"
# where no label tells that it is one; any word would make blanking a quarter slower on real CVs
_MONTH = (
    r"(?:jan|ene|fev|feb|mar|abr|apr|mai|may|jun|jul|ago|aug|set|sep|out|oct|nov|dez|dec|dic)"
    r"[a-zç]{0,7}"
)


def _day(month: str) -> str:
    return (
        r"[0-9]{1,2}[ \t]*[/.-][ \t]*[0-9]{1,2}[ \t]*[/.-][ \t]*[0-9]{2,4}"
        rf"|[0-9]{{1,2}}[º°o]? (?:de )?{month}\.?(?: de|,)? [0-9]{{4}}"
    )


_DAY, _BIRTHDAY = _day(_MONTH), _day("[a-zç]{3,10}")
_EITHER = r"(?: ?(?:\( ?[ao] ?\)|/[ao]" + _B + "))"  # casado(a), casado/a
_MARITAL = (
    _B + r"(?:(?:solteir|casad|divorciad|vi[úu]v|desquitad)[ao]" + _B + _EITHER
    + r"?|uni[ãa]o est[áa]vel" + _B + "|married" + _B + ")"
)
_NATIONALITY = _B + r"brasileir[ao]" + _B
_AGE = r"[1-9][0-9] (?:anos|years old)"
_CHILDREN = (
    r"(?:[0-9]{1,2}|uma?|dois|duas|tr[êe]s|quatro|sem|nenhum|tenho|possui|possuo)"
    r"[ \t]+filh[ao]s?" + _B
)
# Word's bullets among them, but no full stop: `há 10 anos. Casado` tells no age
_MARK = r"[ \t]*[,;|/–▪•·\x{f0a0}\x{f0a7}\x{f0b7}-][ \t]*"
_COMMA = rf"(?:{_MARK}|[ \t]*(?:\.[ \t]*|\n))"
_END = r"[ \t]*(?:[,;.|/)–\n-]|$)"
_NAME = r"(?:[a-zà-ú.'ªº]+[ \t]+){1,6}"
_HOUSE = r"(?:[1-9][0-9]{0,2}|" + _NO_YEAR + r")" + _B

PERSONAL = "(?i)" + "|".join((
    r"[a-z0-9_.+-]+@[a-z0-9_-]+(?:\.[a-z0-9_-]+)+",  # e-mail
    # personal pages and messengers
    r"(?:https?://|www\.)[^ \n\t]+",
    r"(?:linkedin|facebook|instagram)\.com[^ \n\t]*",
    _B + r"(?:(?:github|gitlab|behance|twitter|medium|youtube|fb|about)\.(?:com|net|me)"
    r"|bitbucket\.org|lattes\.cnpq\.br|t\.me|wa\.me)/[^ \n\t]+",
    r"[a-z0-9-]+\.(?:github\.io|(?:blogspot|wordpress|wixsite)\.com)[^ \n\t]*",
    _B + r"(?:skype|msn|icq|discord|telegram|whats ?app|linkedin)(?:[ \t]+id)?" + _GAP
    + r":[ \t]*[^ \n\t]+",
    _B + r"(?:instagram|facebook|twitter|github|telegram)[ \t]*:?[ \t]*@[^ \n\t]+",
    # CPF, RG and CNPJ, postcode, and any number as long as one of them
    _B + r"[0-9]{3}[. ]?[0-9]{3}[. ]?[0-9]{3} ?[-/.] ?[0-9]{2}" + _B,
    _B + r"[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}(?:-?[0-9x]|/[0-9]{4}-[0-9]{2})" + _B,
    _B + r"(?:rg|cpf|cnh)(?:[ \t]*n[º°o.]+)?[ \t]*[:.-]?[ \t]*[0-9][0-9.-]{5,}(?:x" + _B + ")?",
    _B + r"(?:[0-9]{5}|[0-9]{2}\.[0-9]{3})-[0-9]{3}" + _B,
    _B + r"cep[ \t]*[:.]?[ \t]*[0-9]{2}\.?[0-9]{3}[ -]?[0-9]{3}" + _B,
    # phones: from abroad, with an area code in brackets, with a bare one, without one
    r"\+[0-9]{1,3}[ .()-]+(?:[0-9]{1,5}[ .()-]+){1,3}(?:[0-9]{3}|" + _NO_YEAR + ")" + _B,
    r"\+?" + _COUNTRY + r"\(" + _GAP + r"\+?" + _COUNTRY + _AREA + r"[0-9]{2}" + _GAP + r"\)[ .-]*"
    r"9?[ .-]?[0-9]{4}[ .-]*[0-9]{4}" + _B,
    r"\+?" + _B + _COUNTRY + _AREA + r"[0-9]{2}[ .-]*(?:" + _CELL + "|" + _NO_YEAR
    + r"[ .-]?[0-9]{4}|[0-9]{4}[ .-]?" + _NO_YEAR + ")" + _B,
    _B + r"9[0-9]{4}[ .-][0-9]{4}" + _B,
    _B + r"[2-9][0-9]{3}[.-]" + _NO_YEAR + _B,
    r"\+?[0-9]{8,}",
    # birth date, age, sex, marital status, nationality, children
    rf"{_B}(?:data (?:de )?)?(?:nascid[ao]|nascimento|nasc{_B}|nascto)[^0-9\n]{{0,20}}\n?[ \t]*"
    rf"(?:{_BIRTHDAY}|(?:19|20)[0-9]{{2}}){_B}",
    rf"{_B}d\.?n{_B}[ \t.:-]*(?:{_BIRTHDAY}){_B}",
    _B + r"(?:estado civil|marital status|sexo|gender|g[êe]nero|nacionalidade)[ \t]*:[ \t]*[^ \n]+",
    _B + r"sexo[ \t.–-]*(?:masc|fem)[a-z]*\.?",
    _B + r"idade[ \t]*[:.–-]?[ \t]*\n?[ \t]*[1-9][0-9]" + _B + r"(?: anos" + _B + ")?",
    rf"{_B}[1-9][0-9] (?:anos de idade|years old){_B}",
    rf"{_B}(?:{_DAY}){_MARK}{_AGE}{_END}",
    rf"\A[\s,;|–-]*{_AGE}[ \t]*(?:[|–\n-]|$)",  # the first words of a CV, behind the name
    rf"(?:{_NATIONALITY}{_EITHER}?{_COMMA}|{_B}{_AGE}{_MARK}|{_NATIONALITY}[ \t]+)?{_MARITAL}"
    rf"(?:{_COMMA}(?:{_AGE}{_END}|{_NATIONALITY}))?",
    rf"{_NATIONALITY}{_EITHER}?{_COMMA}{_AGE}{_END}",
    rf"{_B}{_AGE}{_MARK}{_NATIONALITY}{_EITHER}?",
    rf"{_NATIONALITY} ?\([ao]\)",
    rf"(?m:^)[ \t]*{_NATIONALITY}{_GAP}(?:[,;]|(?m:$))",
    _B + _CHILDREN,
    _B + r"filh[ao]s?[ \t]*:[ \t]*[^ \n,]+",
    # address
    _B + r"bairro[ \t]*:[^\n,;.|–-]{0,30}",
    _B + r"(?:rua|avenida|alameda|travessa|pra[çc]a|rodovia|estrada|(?:r|av|al|tv)\.|av)[ \t]+"
    rf"(?:[0-9a-zà-ú.'ªº \t]{{2,50}}(?:,[ \t]*(?:n[º°o.]{{0,2}}[ \t]*)?|[ \t]n[º°o.]{{1,2}}[ \t]*)"
    rf"[0-9]{{1,5}}{_B}|{_NAME}{_HOUSE}{_END})"
    r"(?:[ \t,–-]*(?:ap(?:to|t|artamento)?|bl(?:oco)?|casa)[ \t.:]*[0-9]+[a-z]?)*",
))
"""One pattern, in the syntax of Rust's regex. Word borders and digits are ASCII ones: with Unicode
ones that engine leaves its automaton at the first accent and takes a hundred times as long. It has
no look-around either: what must stand beside a detail is taken with it.

A number that could be two years (`2010-2014`) is a phone only behind an area code in brackets, and
an age is one only beside another personal detail: `10 anos de experiência` stays."""


ADDRESS = "(?i)" + _B + r"(?:endere[çc]o|resid[êe]ncia)[ \t]*:[^\n]{0,120}"
"""An address behind its label, cut short as some CVs are one line. Apart from the others: counting
so far makes the automaton that looks for where a match began many times as large."""


def redact(text: pl.Expr) -> pl.Expr:
    """The column with every e-mail, address, phone, CPF, RG, birth date and the like blanked."""
    return text.str.replace_all(ADDRESS, " ").str.replace_all(PERSONAL, " ")


def without_name(text: str, name: str | None) -> str:
    """`text` without the person's full name, whatever its case and the white space in it, and with
    or without its accents."""
    sought = _fold(unicodedata.normalize("NFC", " ".join((name or "").split())))
    words = sought.split(b" ")
    if not text or len(sought) < 5 or len(words) < 2:
        return text
    try:
        folded = text.encode("latin-1").translate(_FOLDED)  # all of it is in normal form
    except UnicodeEncodeError:
        text = unicodedata.normalize("NFC", text)
        folded = _fold(text)
    kept, done, at = [], 0, 0
    first = words[0] + b" "
    while (begin := folded.find(first, at)) >= 0:
        at = begin + 1
        end = _end_of(words, folded, begin)
        if end:
            kept += [text[done:begin], " "]
            done = at = end
    return "".join([*kept, text[done:]])


def _end_of(words: list[bytes], folded: bytes, begin: int) -> int:
    """Where the words end that stand from `begin` on, with any spaces between them; 0 where other
    words stand there."""
    end = begin + len(words[0])
    for word in words[1:]:
        while folded.startswith(b" ", end):
            end += 1
        if not folded.startswith(word, end):
            return 0
        end += len(word)
    return end


def _fold(text: str) -> bytes:
    """One byte a character: lower case, no accents. All of Portuguese is in Latin-1."""
    return text.encode("latin-1", "replace").translate(_FOLDED)


def _folded(sign: str) -> str:
    if sign.isspace():
        return " "
    bare = unicodedata.normalize("NFKD", sign.lower())[0]
    return bare if bare.isascii() else sign


_FOLDED = "".join(_folded(chr(i)) for i in range(256)).encode("latin-1")
