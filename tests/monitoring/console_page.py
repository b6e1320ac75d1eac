# SPDX-License-Identifier: Apache-2.0
#
# The console page as the tests read it: what its graphs and tables say.
import html.parser
from typing import NamedTuple


class Graph:
    """One graph: the number above it, the end of its axis, its points as (time back, value), and the times below it."""

    def __init__(self):
        self.now, self.top, self.points, self.times = "", "", [], []


class Section(NamedTuple):
    """What stands below one title."""

    graph: Graph
    rows: list


class ConsolePage(html.parser.HTMLParser):
    """Sections by title, and the line of the heading."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.heading = {}, ""
        self._place, self._tag, self._title = "", "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag in ("h1", "h2"):
            self._place, self._title = tag, ""
        elif tag == "p":
            self._place = "now"
        elif attributes.get("class") == "highest":
            self._place = "top"
        elif attributes.get("class") == "times":
            self._place = "times"
        elif tag == "path":
            steps = attributes["d"].replace("M", " M ").replace("L", " L ").split()
            self._section.graph.points = [(-float(steps[place]), -float(steps[place + 1])) for place in range(1, len(steps), 3)]
        elif tag == "tr":
            self._section.rows.append([])
        elif tag in ("td", "th"):
            self._place = "cell"
            self._section.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in ("h1", "h2", "p", "td", "th") or (tag == "div" and self._place == "times") or (tag == "span" and self._place == "top"):
            if tag == "h2":
                self.sections[self._title.partition(" ·")[0].strip()] = Section(Graph(), [])
            self._place = ""

    def handle_data(self, data):
        if self._place == "h1":
            self.heading += data
        elif self._place == "h2":
            self._title += data
        elif self._place == "cell":
            self._section.rows[-1][-1] += data.strip()
        elif self._place == "now":
            self._section.graph.now += data.strip()
        elif self._place == "top":
            self._section.graph.top += data.strip()
        elif self._place == "times" and data.strip():
            self._section.graph.times.append(data.strip())

    @property
    def _section(self):
        return self.sections[list(self.sections)[-1]]

    def graph(self, title):
        """The graph of that title."""
        return self.sections[title].graph

    def graphs(self):
        """Every graph that there is, by title."""
        return {title: section.graph for title, section in self.sections.items() if section.graph.now}

    def table(self, title):
        """The rows of the table of that title, each as its cells by the table's own heads; without heads as a list."""
        heads, *rows = self.sections[title].rows
        return [dict(zip(heads, row)) for row in rows]
