"""rich's console, for tables and progress, past which nothing unprintable gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from smoothapi.text import printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import ConsoleOptions, RenderableType

_UNLIMITED = 10_000  # columns


class PrintableConsole(Console):
    """A console whose text is printable; rich keeps its own control codes apart from it."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render as rich does."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable_lines(segment.text), segment.style)

    def print_table(self, table: Table) -> None:
        """Print a table; where a word of it would be cut, each row as a few lines."""
        unlimited = self.options.update(width=_UNLIMITED)
        for column in table.columns:
            if column.no_wrap:  # rich takes the longest word's width for the least
                cells = (column.header, *column.cells)
                column.min_width = max(
                    Measurement.get(self, unlimited, cell).maximum for cell in cells
                )
        if Measurement.get(self, unlimited, table).minimum <= self.width:
            self.print(table)
            return
        if table.title:
            self.print(table.title, style=self.get_style("table.title"))
        for cells in zip(*(column.cells for column in table.columns), strict=True):
            record = Table.grid(padding=(0, 2, 0, 0))
            record.add_column(no_wrap=True, style="dim")
            record.add_column(overflow="fold")
            for column, cell in zip(table.columns, cells, strict=True):
                record.add_row(column.header, cell)
            self.print(record)
            self.print()
