"""References as BibTeX: of the methods that scores rest on, of the software, and of the backbones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Reference:
    """One entry: its BibTeX type and its fields."""

    kind: str
    fields: tuple[tuple[str, str], ...]

    def bibtex(self, key: str) -> str:
        """Return the entry; braces keep capitals."""
        lines = [f"  {name} = {{{value}}}," for name, value in self.fields]
        return "\n".join([f"@{self.kind}{{{key},", *lines, "}"])


def _article(author: str, title: str, journal: str, year: int, where: str) -> Reference:
    facts = (("author", author), ("title", title), ("journal", journal), ("year", str(year)), ("note", where))
    return Reference("article", facts)


REFERENCES = {
    "truong2021transferable": Reference(
        "inproceedings",
        (
            ("author", "Truong, Tuan and Mohammadi, Sadegh and Lenga, Matthias"),
            ("title", "How Transferable are Self-supervised Features in Medical Image Classification Tasks?"),
            ("booktitle", "Proceedings of Machine Learning for Health"),
            ("series", "PMLR"),
            ("volume", "158"),
            ("pages", "54--74"),
            ("year", "2021"),
        ),
    ),
    "obuchowski1997nonparametric": _article(
        "Obuchowski, Nancy A.",
        "Nonparametric Analysis of Clustered {ROC} Curve Data",
        "Biometrics",
        1997,
        "53(2), 567--578",
    ),
    "wilson1927probable": _article(
        "Wilson, Edwin B.",
        "Probable Inference, the Law of Succession, and Statistical Inference",
        "Journal of the American Statistical Association",
        1927,
        "22(158), 209--212",
    ),
    "owen2007pigeonhole": _article(
        "Owen, Art B.",
        "The Pigeonhole Bootstrap",
        "The Annals of Applied Statistics",
        2007,
        "1(2), 386--411",
    ),
    "hsu1996multiple": Reference(
        "book",
        (
            ("author", "Hsu, Jason C."),
            ("title", "Multiple Comparisons: Theory and Methods"),
            ("publisher", "Chapman \\& Hall"),
            ("year", "1996"),
        ),
    ),
    "sechidis2011stratification": Reference(
        "inproceedings",
        (
            ("author", "Sechidis, Konstantinos and Tsoumakas, Grigorios and Vlahavas, Ioannis"),
            ("title", "On the Stratification of Multi-label Data"),
            ("booktitle", "ECML PKDD"),
            ("year", "2011"),
        ),
    ),
    "paszke2019pytorch": Reference(
        "inproceedings",
        (
            ("author", "Paszke, Adam and others"),
            ("title", "{PyTorch}: An Imperative Style, High-Performance Deep Learning Library"),
            ("booktitle", "Advances in Neural Information Processing Systems"),
            ("volume", "32"),
            ("year", "2019"),
        ),
    ),
    "pedregosa2011scikit": _article(
        "Pedregosa, Fabian and others",
        "Scikit-learn: Machine Learning in {Python}",
        "Journal of Machine Learning Research",
        2011,
        "12, 2825--2830",
    ),
    "tejani2024claim": _article(
        "Tejani, Ali S. and Klontzas, Michail E. and Gatti, Anthony A. and Mongan, John T. and Moy, Linda and others",
        "Checklist for Artificial Intelligence in Medical Imaging ({CLAIM}): 2024 Update",
        "Radiology: Artificial Intelligence",
        2024,
        "6(4), e240300, doi:10.1148/ryai.240300",
    ),
    "collins2024tripod": _article(
        "Collins, Gary S. and Moons, Karel G. M. and Dhiman, Paula and others",
        "{TRIPOD+AI} statement: updated guidance for reporting clinical prediction models that use regression or "
        "machine learning methods",
        "BMJ",
        2024,
        "385, e078378, doi:10.1136/bmj-2023-078378",
    ),
    "sounderajah2025stard": _article(
        "Sounderajah, Viknesh and others",
        "The {STARD-AI} reporting guideline for diagnostic accuracy studies using artificial intelligence",
        "Nature Medicine",
        2025,
        "31, 3283--3289, doi:10.1038/s41591-025-03953-8",
    ),
}
GUIDELINES = ("tejani2024claim", "collins2024tripod", "sounderajah2025stard")


def of_backbone(name: str, paper: str, source: str) -> Reference:
    """Return the entry of a backbone, with its paper as the registry states it."""
    facts = (("title", f"Backbone {plain(name)}"), ("note", plain(paper)), ("howpublished", plain(source)))
    return Reference("misc", tuple((field, value) for field, value in facts if value))


def bibtex(found: Iterable[tuple[str, Reference]]) -> str:
    """Return a file of entries."""
    return "\n\n".join(reference.bibtex(key) for key, reference in found) + "\n"


def key_of(backbone: str) -> str:
    """Return the key of a backbone's entry: letters, digits and hyphens."""
    letters = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in backbone)
    return f"backbone-{letters.strip('-').lower() or 'unnamed'}"


def plain(text: str) -> str:
    """Return text that cannot end a field or start a command."""
    special = {"{": "(", "}": ")", "\\": "/", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "@": "(at)"}
    return "".join(special.get(sign, sign) for sign in " ".join(text.split()))
