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


def _article(author: str, title: str, journal: str, year: int, *, doi: str = "", **place: str) -> Reference:
    """Return an article; place: volume, number and pages, those that are known."""
    facts = {"author": author, "title": title, "journal": journal, "year": str(year), **place, "doi": doi}
    return Reference("article", tuple((name, value) for name, value in facts.items() if value))


def _chapter(author: str, title: str, booktitle: str, year: int, **facts: str) -> Reference:
    """Return a paper in proceedings."""
    fields = {"author": author, "title": title, "booktitle": booktitle, "year": str(year), **facts}
    return Reference("inproceedings", tuple(fields.items()))


REFERENCES = {
    "truong2021transferable": _chapter(
        "Truong, Tuan and Mohammadi, Sadegh and Lenga, Matthias",
        "How Transferable are Self-supervised Features in Medical Image Classification Tasks?",
        "Proceedings of Machine Learning for Health",
        2021,
        series="PMLR",
        volume="158",
        pages="54--74",
    ),
    "ledoit2004well": _article(
        "Ledoit, Olivier and Wolf, Michael",
        "A Well-Conditioned Estimator for Large-Dimensional Covariance Matrices",
        "Journal of Multivariate Analysis",
        2004,
        volume="88",
        number="2",
        pages="365--411",
        doi="10.1016/S0047-259X(03)00096-4",
    ),
    "zhou2003learning": _chapter(
        'Zhou, Dengyong and Bousquet, Olivier and Lal, Thomas Navin and Weston, Jason and Sch{\\"o}lkopf, Bernhard',
        "Learning with Local and Global Consistency",
        "Advances in Neural Information Processing Systems",
        2003,
        volume="16",
        pages="321--328",
    ),
    "delong1988comparing": _article(
        "DeLong, Elizabeth R. and DeLong, David M. and Clarke-Pearson, Daniel L.",
        "Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves: A Nonparametric "
        "Approach",
        "Biometrics",
        1988,
        volume="44",
        number="3",
        pages="837--845",
        doi="10.2307/2531595",
    ),
    "obuchowski1997nonparametric": _article(
        "Obuchowski, Nancy A.",
        "Nonparametric Analysis of Clustered {ROC} Curve Data",
        "Biometrics",
        1997,
        volume="53",
        number="2",
        pages="567--578",
        doi="10.2307/2533958",
    ),
    "hanley1982meaning": _article(
        "Hanley, James A. and McNeil, Barbara J.",
        "The Meaning and Use of the Area under a Receiver Operating Characteristic ({ROC}) Curve",
        "Radiology",
        1982,
        volume="143",
        number="1",
        pages="29--36",
        doi="10.1148/radiology.143.1.7063747",
    ),
    "newcombe2006confidence": _article(
        "Newcombe, Robert G.",
        "Confidence Intervals for an Effect Size Measure Based on the {Mann--Whitney} Statistic. Part 2: Asymptotic "
        "Methods and Evaluation",
        "Statistics in Medicine",
        2006,
        volume="25",
        number="4",
        pages="559--573",
        doi="10.1002/sim.2324",
    ),
    "wilson1927probable": _article(
        "Wilson, Edwin B.",
        "Probable Inference, the Law of Succession, and Statistical Inference",
        "Journal of the American Statistical Association",
        1927,
        volume="22",
        number="158",
        pages="209--212",
        doi="10.1080/01621459.1927.10502953",
    ),
    "korn1998confidence": _article(
        "Korn, Edward L. and Graubard, Barry I.",
        "Confidence Intervals for Proportions With Small Expected Number of Positive Counts Estimated From Survey Data",
        "Survey Methodology",
        1998,
        volume="24",
        number="2",
        pages="193--201",
    ),
    "zou2008construction": _article(
        "Zou, Guang Yong and Donner, Allan",
        "Construction of Confidence Limits about Effect Measures: A General Approach",
        "Statistics in Medicine",
        2008,
        volume="27",
        number="10",
        pages="1693--1702",
        doi="10.1002/sim.3095",
    ),
    "donner2012closed": _article(
        "Donner, Allan and Zou, Guang Yong",
        "Closed-Form Confidence Intervals for Functions of the Normal Mean and Standard Deviation",
        "Statistical Methods in Medical Research",
        2012,
        volume="21",
        number="4",
        pages="347--359",
    ),
    "fisher1915frequency": _article(
        "Fisher, Ronald A.",
        "Frequency Distribution of the Values of the Correlation Coefficient in Samples from an Indefinitely Large "
        "Population",
        "Biometrika",
        1915,
        volume="10",
        number="4",
        pages="507--521",
    ),
    "efron1979bootstrap": _article(
        "Efron, Bradley",
        "Bootstrap Methods: Another Look at the Jackknife",
        "The Annals of Statistics",
        1979,
        volume="7",
        number="1",
        pages="1--26",
        doi="10.1214/aos/1176344552",
    ),
    "owen2007pigeonhole": _article(
        "Owen, Art B.",
        "The Pigeonhole Bootstrap",
        "The Annals of Applied Statistics",
        2007,
        volume="1",
        number="2",
        pages="386--411",
        doi="10.1214/07-AOAS122",
    ),
    "holm1979simple": _article(
        "Holm, Sture",
        "A Simple Sequentially Rejective Multiple Test Procedure",
        "Scandinavian Journal of Statistics",
        1979,
        volume="6",
        number="2",
        pages="65--70",
    ),
    "dunn1961multiple": _article(
        "Dunn, Olive Jean",
        "Multiple Comparisons among Means",
        "Journal of the American Statistical Association",
        1961,
        volume="56",
        number="293",
        pages="52--64",
        doi="10.1080/01621459.1961.10482090",
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
    "youden1950index": _article(
        "Youden, W. J.", "Index for Rating Diagnostic Tests", "Cancer", 1950, volume="3", number="1", pages="32--35"
    ),
    "guo2017calibration": _chapter(
        "Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.",
        "On Calibration of Modern Neural Networks",
        "Proceedings of the 34th International Conference on Machine Learning",
        2017,
        series="PMLR",
        volume="70",
        pages="1321--1330",
    ),
    "platt1999probabilistic": _chapter(
        "Platt, John C.",
        "Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood Methods",
        "Advances in Large Margin Classifiers",
        1999,
        publisher="MIT Press",
        pages="61--74",
    ),
    "sechidis2011stratification": _chapter(
        "Sechidis, Konstantinos and Tsoumakas, Grigorios and Vlahavas, Ioannis",
        "On the Stratification of Multi-label Data",
        "Machine Learning and Knowledge Discovery in Databases ({ECML PKDD} 2011)",
        2011,
        pages="145--158",
        doi="10.1007/978-3-642-23808-6_10",
    ),
    "paszke2019pytorch": _chapter(
        "Paszke, Adam and others",
        "{PyTorch}: An Imperative Style, High-Performance Deep Learning Library",
        "Advances in Neural Information Processing Systems",
        2019,
        volume="32",
    ),
    "pedregosa2011scikit": _article(
        "Pedregosa, Fabian and others",
        "Scikit-learn: Machine Learning in {Python}",
        "Journal of Machine Learning Research",
        2011,
        volume="12",
        pages="2825--2830",
    ),
    "tejani2024claim": _article(
        "Tejani, Ali S. and Klontzas, Michail E. and Gatti, Anthony A. and Mongan, John T. and Moy, Linda and others",
        "Checklist for Artificial Intelligence in Medical Imaging ({CLAIM}): 2024 Update",
        "Radiology: Artificial Intelligence",
        2024,
        volume="6",
        number="4",
        pages="e240300",
        doi="10.1148/ryai.240300",
    ),
    "collins2024tripod": _article(
        "Collins, Gary S. and Moons, Karel G. M. and Dhiman, Paula and others",
        "{TRIPOD+AI} statement: updated guidance for reporting clinical prediction models that use regression or "
        "machine learning methods",
        "BMJ",
        2024,
        volume="385",
        pages="e078378",
        doi="10.1136/bmj-2023-078378",
    ),
    "sounderajah2025stard": _article(
        "Sounderajah, Viknesh and others",
        "The {STARD-AI} reporting guideline for diagnostic accuracy studies using artificial intelligence",
        "Nature Medicine",
        2025,
        volume="31",
        pages="3283--3289",
        doi="10.1038/s41591-025-03953-8",
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
