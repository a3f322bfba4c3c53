"""Write the table of the package's networks and their cards into docs/zoo.md, from the cards beside their weights.

python docs/zoo.py            # print them
python docs/zoo.py --write    # replace them in docs/zoo.md
"""

from __future__ import annotations

import sys
from pathlib import Path

from unfool import zoo
from unfool.report.publishing.model_card import card_section, card_table

PAGE = Path(__file__).parent / "zoo.md"
TABLE, CARDS = ("<!-- table: begin -->", "<!-- table: end -->"), ("<!-- cards: begin -->", "<!-- cards: end -->")


def table() -> str:
    """All networks side by side."""
    return card_table((f"zoo:{name}", zoo.card(name)) for name in zoo.names()).strip()


def cards() -> str:
    """The cards, a section each."""
    why = "<!-- not run: measures for minutes what the card says -->\n```sh"
    return "\n\n".join(
        f"### `zoo:{name}`\n\n{card_section(zoo.card(name), f'zoo:{name}').strip()}".replace("```sh", why)
        for name in zoo.names()
    )


def replaced(page: str) -> str:
    """The page with today's table and cards."""
    for (begin, end), text in ((TABLE, table()), (CARDS, cards())):
        before, _, rest = page.partition(f"{begin}\n")
        page = f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
    return page


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(f"{table()}\n\n{cards()}")
