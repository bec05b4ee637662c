"""Look at a report in QtWebEngine, which is Chromium: python tests/browser/look.py REPORT.html
PICTURE.png"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {
    "QT_QPA_PLATFORM": "offscreen",
    "QTWEBENGINE_DISABLE_SANDBOX": "1",
    "QT_QUICK_BACKEND": "software",
    "QTWEBENGINE_CHROMIUM_FLAGS": "--disable-gpu",
}

import shiboken6
from PySide6.QtCore import QEventLoop, QTimer, QUrl
from PySide6.QtWebEngineCore import QWebEnginePage, QWebEngineProfile
from PySide6.QtWebEngineWidgets import QWebEngineView
from PySide6.QtWidgets import QApplication

CHOOSE = """
(() => {
  const select = document.getElementById("dimension"), found = {};
  for (const option of [...select.options]) {
    select.value = option.value;
    select.dispatchEvent(new Event("change"));
    const seen = [...document.querySelectorAll("#pairs article")].filter((one) => one.offsetParent !== null);
    found[option.value] = [seen.length, Number(document.getElementById("left").textContent),
                           seen.every((one) => !option.value || one.dataset.dimension === option.value)];
  }
  const words = document.getElementById("words");
  words.value = "no such words anywhere";
  words.dispatchEvent(new Event("input"));
  found.none = document.getElementById("left").textContent;
  words.value = "";
  words.dispatchEvent(new Event("input"));
  found.title = document.title;
  found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const charts = [...document.querySelectorAll(".charts svg")];
  found.charts = charts.filter((one) => one.getBoundingClientRect().height > 50).length;
  return JSON.stringify(found);
})()
"""


class Page(QWebEnginePage):
    """Keeps what the console says."""

    said: list[str] = []

    def javaScriptConsoleMessage(
        self, level: Any, text: str, line: int, source: str
    ) -> None:
        self.said.append(f"{level.name} {line}: {text}")


def waited(start: Callable[[Callable[..., None]], Any]) -> Any:
    """What a call comes to that answers later."""
    loop, found = QEventLoop(), []
    QTimer.singleShot(20_000, loop.quit)
    start(lambda *answer: (found.extend(answer), loop.quit()))
    loop.exec()
    return found[0] if found else None


def main(report: str, picture: str) -> None:
    application = QApplication([])
    view, profile = QWebEngineView(), QWebEngineProfile()
    page = Page(profile)
    view.setPage(page)
    view.resize(1200, 4000)
    view.show()

    def opened(done: Callable[..., None]) -> None:
        page.loadFinished.connect(done)
        view.load(QUrl.fromLocalFile(str(Path(report).resolve())))

    assert waited(opened), "the page was not loaded"
    found = json.loads(waited(lambda done: page.runJavaScript(CHOOSE, 0, done)))
    waited(lambda done: QTimer.singleShot(1_500, done))  # to be painted
    assert view.grab().save(picture)
    print(found, *Page.said, sep="\n")
    assert (
        found.pop("title").endswith(": audit")
        and found.pop("none") == "0"
        and found.pop("charts") >= 4
    )
    assert found.pop("wide") <= 0, "the page is wider than the window"
    assert (
        len(found) == 4
        and found[""][0] == 50
        and all(a == b and fit for a, b, fit in found.values())
    )
    assert not Page.said, "the console is not silent"
    print(f"the report is drawn, its filters work, and no text runs: {picture}")
    sys.stdout.flush()
    for one in (
        view,
        page,
        profile,
    ):  # else Qt takes them down in an order that crashes
        shiboken6.delete(one)
    del application
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
