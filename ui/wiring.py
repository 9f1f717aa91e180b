"""What the wiring of all tabs shares: how listeners are registered, and the scripts of blocks of HTML."""

from __future__ import annotations

from typing import Any, Final

__all__ = ["ARRIVE_SCRIPT", "FOLLOW_SCRIPT", "PLAIN", "PRESS_SCRIPT", "PRIVATE", "SORT_SCRIPT"]

# Values come unprocessed: Gradio would refuse, in its own words, a choice that a later click took off the list.
PRIVATE: Final[dict[str, Any]] = {"api_visibility": "private", "show_progress": "hidden", "preprocess": False}
# Our own HTML brings its own style.
PLAIN: Final[dict[str, Any]] = {"apply_default_css": False, "padding": False}

# A press of a button that says what it picks is told to the server; afterwards the keyboard's focus stays with it, or,
# where that is the page shown now, with the first other page. A picture that opens takes the focus elsewhere.
PRESS_SCRIPT: Final = """
let pressed = null;
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-pick]");
  if (!button) return;
  pressed = button.dataset.pick;
  trigger("select", { index: pressed, value: pressed });
});
watch("value", () => {
  if (pressed && !pressed.startsWith("open")) {
    const same = element.querySelector(`button[data-pick="${CSS.escape(pressed)}"]:not([disabled])`);
    (same ?? element.querySelector(".pages button:not([disabled])"))?.focus({ preventScroll: true });
  }
  pressed = null;
});
"""
# Rows are sorted where they are shown; a second press turns the order round.
SORT_SCRIPT: Final = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-sort]");
  if (!button) return;
  const [header, table] = [button.closest("th"), button.closest("table")];
  const rising = header.getAttribute("aria-sort") === "descending";
  table.querySelectorAll("th[aria-sort]").forEach((each) => each.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const value = (row) => parseFloat(row.children[button.dataset.sort].dataset.value);
  const rows = [...table.tBodies[0].rows];
  rows.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b);
    return rising ? a - b : b - a;
  });
  table.tBodies[0].append(...rows);
});
"""
# The keyboard goes where the picture went.
FOLLOW_SCRIPT: Final = """() => {
  const button = document.querySelector("#examine");
  if (!button?.offsetParent) return;
  window.scrollTo(0, 0);
  button.focus({ preventScroll: true });
}"""
# A tab that was pressed while Gradio was still wiring the new page is shown, but its press is told to nobody. When all
# is wired this says, in place of the last input, whether the tab is the one that is open.
ARRIVE_SCRIPT: Final = """(...inputs) => {
  const open = Boolean(document.querySelector("#%s")?.offsetParent);
  return [...inputs.slice(0, -1), open];
}"""
