r"""``report.tex``: one booktabs table for each group.

The file compiles by itself, and ``\input{report}`` in a paper (which needs booktabs and graphicx) gives its tables. A
table that is wider than the page is scaled down to it.
"""

import re
from collections.abc import Iterator

from harness.report.formats.markdown import baseline_notes, captions
from harness.report.model import Group, Report
from harness.report.overview import OverviewColumn, overview_columns, published_caption, published_table, shares_best

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_\allowbreak{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": r"-{}",  # no ligature of two into a dash
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\rightarrow$",
    "×": r"$\times$",
    "…": r"\ldots{}",
    "–": "--",
}
_SPECIAL = re.compile("|".join(map(re.escape, _ESCAPES)))

_LONGEST = 24  # characters of a cell on one line
_LEFT_OUT = ("number", "runs")  # columns that serve to find a run

_HEAD = r"""% Tables of a report. In a paper: \usepackage{booktabs,graphicx} and \input{report}. It also compiles alone.
\makeatletter
\newif\ifreportalone
\ifx\@nodocument\relax\reportalonefalse\else\reportalonetrue\fi
\makeatother
\ifreportalone
\documentclass{article}
\ifdefined\pdftexversion\usepackage[T1]{fontenc}\usepackage{textcomp}\fi
\usepackage{booktabs,graphicx}
\usepackage[landscape,margin=1.5cm]{geometry}
%(unicode)s\begin{document}
\fi
"""
_FOOT = "\\ifreportalone\n\\expandafter\\end{document}\n\\fi\n"


def to_latex(report: Report) -> str:
    """The tables, with captions; findings stand in the caption's notes below."""
    body = "\n".join(line for group in report.groups for line in (*_table(group), *_published(group)))
    return _HEAD.replace("%(unicode)s", _declared(body)) + body + "\n" + _FOOT


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return _SPECIAL.sub(lambda match: _ESCAPES[match[0]], " ".join(text.split()))


def _declared(body: str) -> str:
    """For pdfTeX, which stops at other letters: their code points instead. LuaTeX and XeTeX print what the font has."""
    others = sorted({char for char in body if ord(char) > 0x17F})
    lines = (f"\\DeclareUnicodeCharacter{{{ord(char):04X}}}{{[U+{ord(char):04X}]}}" for char in others)
    return "\\ifdefined\\pdftexversion\n{}\n\\fi\n".format("\n".join(lines)) if others else ""


def _published(group: Group) -> Iterator[str]:
    if not group.published:
        return
    header, rows = published_table(group.published)
    yield "\\begin{table}[htbp]"
    yield "\\centering\\scriptsize\\setlength{\\tabcolsep}{3pt}"
    yield f"\\caption{{{escaped(group.title)}. {escaped(published_caption(group.published))}.}}"
    yield f"\\begin{{tabular}}{{{''.join('p{3cm}' if is_text else 'r' for _, is_text in header)}}}"
    yield "\\toprule"
    yield " & ".join(escaped(label) for label, _ in header) + " \\\\"
    yield "\\midrule"
    yield from (" & ".join(map(escaped, row)) + " \\\\" for row in rows)
    yield "\\bottomrule"
    yield "\\end{tabular}"
    yield "\\end{table}"


def _table(group: Group) -> Iterator[str]:
    if not group.runs:
        return
    columns = [column for column in overview_columns(group) if column.name not in _LEFT_OUT]
    best = {column.name: shares_best(group, column.name) for column in columns if column.is_score}
    notes = ". ".join(text[:1].upper() + text[1:] for text in (*captions(group), *baseline_notes(group)))
    yield "\\begin{table}[htbp]"
    yield "\\centering\\scriptsize\\setlength{\\tabcolsep}{3pt}"
    yield f"\\caption{{{escaped(group.title)}. {escaped(notes)}.}}"
    yield f"\\label{{tab:{group.key}}}"
    yield f"\\sbox0{{\\begin{{tabular}}{{{''.join(_alignment(column, group) for column in columns)}}}"
    yield "\\toprule"
    yield " & ".join(escaped(column.label) for column in columns) + " \\\\"
    yield "\\midrule"
    former = None
    for row in group.configurations:
        if (
            former is not None
            and former != row.method
            and len(group.configurations) > len({each.method for each in group.configurations})
        ):
            yield "\\addlinespace"
        former = row.method
        cells = []
        for column in columns:
            text = escaped(column.text(row))
            cells.append(f"\\textbf{{{text}}}" if row.key in best.get(column.name, ()) else text)
        yield " & ".join(cells) + " \\\\"
    yield "\\bottomrule"
    yield "\\end{tabular}}"
    yield "\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi"
    for note in (
        *group.notes,
        *(finding.text for finding in group.findings if finding.metric in (*group.scores[:1], "loss")),
    ):
        yield f"\\par\\smallskip\\parbox{{0.9\\linewidth}}{{{escaped(note)}}}"
    yield "\\end{table}"


def _alignment(column: OverviewColumn, group: Group) -> str:
    if max((len(column.text(row)) for row in group.configurations), default=0) > _LONGEST:
        return "p{3cm}"
    return "l" if column.is_text else "r"
