"""Lines that `wdsearch storage check` prints."""

from rich.text import Text

from wdsearch.storage.check import Finding, Grade, StorageReport

GRADE_STYLES: dict[Grade, str] = {"good": "green", "note": "yellow", "bad": "red"}


def storage_lines(report: StorageReport) -> list[Text]:
    """The kind of a storage and its URL, a line for each finding, and how many workers it carries if it is usable."""
    lines = [
        Text.assemble((report.kind or "no storage", "bold"), f"  {report.url}"),
        *map(_finding_line, report.findings),
    ]
    if not report.usable:
        return lines
    where = "workers on several machines" if report.several_machines else "workers on this machine alone"
    limit = f", up to {report.workers} with the connections that are free" if report.workers is not None else ""
    return [*lines, Text(f"for   {where}{limit}")]


def _finding_line(finding: Finding) -> Text:
    return Text.assemble((f"{finding.grade:<4}", GRADE_STYLES[finding.grade]), f"  {finding.text}")
